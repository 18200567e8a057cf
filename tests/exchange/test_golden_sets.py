"""Golden sets and results of other tools: what comes over, and what is said to stay."""

from __future__ import annotations

import errno
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.cli.main import main
from evalkit.errors import ConfigError, InputFileError
from evalkit.exchange.golden_sets import READERS, Foreign, read_foreign, write_golden_set
from evalkit.exchange.results import load_results

CONFIG = """
description: Translator
prompts:
  - "Translate to French: {{text}}"
  - file://second.txt
  - file://../outside.txt
providers: [openai:gpt-4o-mini]
defaultTest:
  vars: {tone: friendly}
  assert:
    - {type: is-json}
    - {type: llm-rubric, value: Is it polite?}
    - {type: latency, threshold: 2000}
tests:
  - description: hello
    vars: {text: Hello}
    metadata: {kind: plain}
    assert:
      - {type: icontains, value: bonjour}
      - {type: not-contains, value: "{{text}}"}
      - {type: javascript, value: output.length}
      - {type: levenshtein, value: Bonjour, threshold: 3}
  - vars: {text: Bye}
    assert:
      - {type: regex, value: "(?=x)"}
      - {type: assert-set, assert: [{type: contains-any, value: "adieu, revoir"}]}
  - file://more.csv
"""


@pytest.fixture
def bring(tmp_path: Path) -> Callable[..., Foreign]:
    """Write a file and read it as a format."""

    def run(kind: str, name: str, content: str | bytes) -> Foreign:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_foreign(kind, path)

    return run


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


# --- promptfoo -------------------------------------------------------------------------


def test_promptfoo_variables_assertions_prompts_and_rubrics_come_over(
    bring: Callable[..., Foreign], tmp_path: Path
) -> None:
    (tmp_path / "second.txt").write_text("Say {{text}} in French")
    (tmp_path / "more.csv").write_text("text,__expected\nThanks,similar(0.7): merci\n")
    (tmp_path.parent / "outside.txt").write_text("secret")

    imported = write_golden_set(bring("promptfoo", "p.yaml", CONFIG), tmp_path / "new")

    cases = [json.loads(x) for x in imported.written[1].read_text().splitlines()]
    assert [one["id"] for one in cases] == ["hello", "t-002", "t-003"]
    assert cases[0]["input"] == {"tone": "friendly", "text": "Hello"}
    assert cases[0]["metadata"] == {"kind": "plain"}
    assert cases[0]["checks"] == [
        {"check": "icontains", "value": "bonjour"},
        {"check": "contains", "value": "Hello", "negate": True},
    ]
    assert cases[1]["checks"] == [{"check": "contains_any", "values": ["adieu", "revoir"]}]
    assert cases[2]["checks"] == [{"check": "similar", "value": "merci", "threshold": 0.7}]
    assert (
        (tmp_path / "new/prompts/Translator/v2.md").read_text().endswith("Say {{text}} in French\n")
    )
    assert not (tmp_path / "new/prompts/Translator/v3.md").exists()
    assert "Is it polite?" in (tmp_path / "new/judges/Translator-1.yaml").read_text()


def test_promptfoo_says_what_has_no_counterpart_and_where(bring: Callable[..., Foreign]) -> None:
    foreign = bring("promptfoo", "p.yaml", CONFIG)

    said = "\n".join(foreign.lost.lines())

    assert "code in JavaScript: write a python check (hello)" in said
    assert "levenshtein counts edits there" in said
    assert "providers: write them into evalkit.toml (openai:gpt-4o-mini)" in said
    assert "file://../outside.txt" in said
    assert "tests that are elsewhere or made by code (file://more.csv)" in said


def test_a_pattern_that_cannot_be_used_is_left_out_and_named(
    bring: Callable[..., Foreign], tmp_path: Path
) -> None:
    imported = write_golden_set(bring("promptfoo", "p.yaml", CONFIG), tmp_path / "new")

    assert any("pattern '(?=x)' cannot be used" in line for line in imported.lost)


def test_promptfoo_outputs_give_cases_and_results(
    bring: Callable[..., Foreign], tmp_path: Path
) -> None:
    graded = {
        "componentResults": [{"score": 1, "assertion": {"type": "equals", "value": "b"}}]
    }  # fmt: skip
    common = {"vars": {"q": "a"}, "provider": {"id": "m"}, "testIdx": 0}
    rows = [
        {**common, "promptIdx": 0, "score": 0.5, "gradingResult": graded},
        {**common, "promptIdx": 1, "error": "503", "score": 0},
    ]

    imported = write_golden_set(
        bring("promptfoo", "o.json", json.dumps({"results": {"results": rows}})), tmp_path / "new"
    )

    table = load_results(imported.written[-1]).table.to_pylist()
    found = {(r["metric"], r["prompt_version"], r["score"], r["outcome"]) for r in table}
    assert imported.n_cases == 1
    assert found == {
        ("score", "v1", 0.5, "scored"),
        ("equals", "v1", 1.0, "scored"),
        ("score", "v2", None, "infra_error"),
    }


def test_assertions_of_one_kind_are_metrics_of_their_own(
    bring: Callable[..., Foreign], tmp_path: Path
) -> None:
    parts = [
        {"score": 0, "assertion": {"type": "contains", "value": "a"}},
        {"score": 1, "assertion": {"type": "contains", "value": "b"}},
        {"score": 1, "assertion": {"type": "regex", "metric": "score"}},
    ]
    row = {"vars": {"q": "a"}, "score": 0.5, "gradingResult": {"componentResults": parts}}
    output = {"results": {"results": [{**row, "testIdx": [0]}, {**row, "testIdx": 1}]}}

    imported = write_golden_set(bring("promptfoo", "o.json", json.dumps(output)), tmp_path / "new")

    table = load_results(imported.written[-1]).table.to_pylist()
    assert len(table) == 8
    assert {(r["metric"], r["score"]) for r in table} == {
        ("score", 0.5), ("contains", 0.0), ("contains-2", 1.0), ("score-2", 1.0),
    }  # fmt: skip


def test_what_promptfoo_takes_for_a_file_is_no_prompt(bring: Callable[..., Foreign]) -> None:
    config = """
        prompts: [missing.txt, "prompts/*.md", "Say {{q}} *now*", 7]
        providers: [5, {"openai:x": {config: {}}}]
        defaultTest: file://default.yaml
        tests: [{vars: {q: a}}]
    """

    foreign = bring("promptfoo", "c.yaml", config)

    assert foreign.prompts == ["## user\n\nSay {{q}} *now*\n", "## user\n\n7\n"]
    lost = "\n".join(foreign.lost.lines())
    assert "(missing.txt, prompts/*.md)" in lost
    assert "(5, openai:x)" in lost
    assert "defaultTest in a file (file://default.yaml)" in lost


def test_a_threshold_of_promptfoos_csv_that_is_no_number_is_part_of_the_text(
    bring: Callable[..., Foreign],
) -> None:
    foreign = bring("promptfoo", "t.csv", "q,__expected\nx,similar(1.2.3): z\n")

    assert foreign.cases[0]["checks"] == [{"check": "equals", "value": "similar(1.2.3): z"}]


# --- OpenAI Evals -----------------------------------------------------------------------


def chat(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def test_openai_samples_share_their_instructions_as_a_prompt(
    bring: Callable[..., Foreign],
) -> None:
    foreign = bring(
        "openai-evals", "s.jsonl",
        lines(
            {"input": chat(("system", "Be {{brief}}."), ("user", "2+2?")), "ideal": "4"},
            {"input": chat(("system", "Be {{brief}}."), ("user", "3+3?")), "ideal": ["6", "six"]},
        ),
    )  # fmt: skip

    assert [one["input"] for one in foreign.cases] == [{"text": "2+2?"}, {"text": "3+3?"}]
    assert [one["expected"] for one in foreign.cases] == [["4"], ["6", "six"]]
    assert foreign.metrics == [{"name": "right", "check": "one_of", "gate": True}]
    assert "{% raw %}Be {{brief}}.{% endraw %}" in foreign.prompts[0]


@pytest.mark.parametrize(
    ("kind", "args", "check"),
    [
        ("match:Match", {}, "starts_with"),
        ("includes:Includes", {"ignore_case": True}, "icontains"),
        ("fuzzy_match:FuzzyMatch", {}, "icontains"),
        ("modelgraded.classify:ModelBasedClassify", {}, None),
    ],
)
def test_the_registry_says_which_check(
    bring: Callable[..., Foreign], tmp_path: Path, kind: str, args: dict[str, Any],
    check: str | None,
) -> None:  # fmt: skip
    (tmp_path / "s.jsonl").write_text(lines({"input": "2+2?", "ideal": "4"}))
    entry = {"class": f"evals.elsuite.basic.{kind}", "args": {"samples_jsonl": "s.jsonl", **args}}

    foreign = bring("openai-evals", "r.yaml", json.dumps({"m": {"id": "m.v0"}, "m.v0": entry}))

    assert [one["check"] for one in foreign.metrics] == ([check] if check else [])


def test_an_openai_log_gives_results_that_the_gate_reads(
    bring: Callable[..., Foreign], tmp_path: Path
) -> None:
    foreign = bring(
        "openai-evals", "l.jsonl",
        lines(
            {"spec": {"base_eval": "math", "completion_fns": ["gpt"]}},
            {"event_id": 0, "sample_id": "math.0", "type": "match", "data": {"correct": True}},
            {"event_id": 1, "sample_id": "math.1", "type": "match", "data": {"correct": False}},
            {"final_report": {"accuracy": 0.5}},
        ),
    )  # fmt: skip

    imported = write_golden_set(foreign, tmp_path / "new")

    table = load_results(imported.written[0]).table.to_pylist()
    assert [(r["case_id"], r["score"], r["model"]) for r in table] == [
        ("math.0", 1.0, "gpt"), ("math.1", 0.0, "gpt"),
    ]  # fmt: skip


# --- Inspect ---------------------------------------------------------------------------


def sample(number: int, epoch: int, value: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": number, "epoch": epoch, "input": f"Question {number}", "target": " Yes",
        "messages": chat(("system", "Say Yes or No."), ("user", "?")),
        "scores": {"match": {"value": value}}, **more,
    }  # fmt: skip


HEADER = {
    "eval": {"task": "pop", "model": "m"},
    "results": {"scores": [{"name": "match", "scorer": "match"}]},
    "plan": {"steps": [{"solver": "generate"}, {"solver": "chain_of_thought"}]},
}


def test_inspect_epochs_are_trials_and_letters_scores(bring: Callable[..., Foreign]) -> None:
    samples = [sample(1, 1, "C"), sample(1, 2, "I"), sample(2, 1, "P"), sample(2, 2, {"a": 0.25})]

    foreign = bring("inspect", "l.json", json.dumps({**HEADER, "samples": samples}))

    found = [(r["case_id"], r["trial"], r["metric"], r["score"]) for r in foreign.results]
    assert [one["id"] for one in foreign.cases] == ["1", "2"]
    assert foreign.cases[0]["expected"] == "Yes"
    assert found == [
        ("1", 0, "match", 1.0), ("1", 1, "match", 0.0), ("2", 0, "match", 0.5),
        ("2", 1, "match-a", 0.25),
    ]  # fmt: skip
    assert "Say Yes or No." in foreign.prompts[0]
    assert "solvers: the prompt has to do their work (chain_of_thought)" in foreign.lost.lines()


def test_a_value_that_is_no_share_is_missing_and_counted(bring: Callable[..., Foreign]) -> None:
    text = json.dumps(
        {**HEADER, "samples": [sample(1, 1, 17), sample(2, 1, float("nan"))]}
    ).replace("17", "1e999")

    foreign = bring("inspect", "l.json", text)

    assert [r["score"] for r in foreign.results] == [None, None]
    assert "values of match that are no share of 1 (1, 2)" in foreign.lost.lines()


def test_a_sample_of_inspect_that_failed_is_missing_and_not_left_out(
    bring: Callable[..., Foreign],
) -> None:
    failed = {**sample(2, 1, "C"), "error": {"message": "503"}, "scores": {}}

    beside = bring(
        "inspect", "l.json", json.dumps({**HEADER, "samples": [failed, sample(1, 1, "C")]})
    )
    alone = bring("inspect", "m.json", json.dumps({**HEADER, "samples": [failed]}))

    assert [(r["case_id"], r["score"], r["outcome"]) for r in beside.results] == [
        ("1", 1.0, "scored"), ("2", None, "infra_error"),
    ]  # fmt: skip
    assert alone.results == []
    assert "samples that ended in an error (2)" in alone.lost.lines()


@pytest.mark.parametrize(
    ("name", "n_cases", "n_results"),
    [("log_streaming.eval", 2, 4), ("log_formats.eval", 1, 1), ("log_formats.json", 1, 1),
     ("mmlu-summary-choices.eval", 1, 1)],
)  # fmt: skip
def test_real_logs_of_inspect_come_over(
    shared_data: Callable[[str], Path], tmp_path: Path, name: str, n_cases: int, n_results: int
) -> None:
    path = shared_data(f"foreign_formats/inspect/{name}")

    imported = write_golden_set(read_foreign("inspect", path), tmp_path)

    assert (imported.n_cases, imported.n_results) == (n_cases, n_results)
    assert load_results(imported.written[-1]).table.num_rows == n_results


# --- DeepEval --------------------------------------------------------------------------


def test_deepeval_goldens_have_documents_and_expected_outputs(
    bring: Callable[..., Foreign],
) -> None:
    goldens = [
        {"input": "Where?", "expected_output": "Rome", "context": ["It is in Rome."],
         "additional_metadata": {"k": 1}},
        {"input": "Who?", "expected_output": "Ada", "actual_output": "Bob"},
    ]  # fmt: skip

    foreign = bring("deepeval", "d.json", json.dumps(goldens))

    assert foreign.cases[0] == {
        "id": "d-0001",
        "input": {"text": "Where?", "documents": [{"id": "d1", "text": "It is in Rome."}]},
        "expected": "Rome",
        "metadata": {"k": 1},
    }
    assert foreign.metrics == [{"name": "correct", "judge": "correctness", "gate": True}]


def test_a_deepeval_run_has_scores_and_errors_stay_errors(bring: Callable[..., Foreign]) -> None:
    metrics = [
        {"name": "Answer Relevancy", "score": 0.5, "evaluationModel": "gpt"},
        {"name": "Correctness (GEval)", "score": 0.9, "error": "rate limit"},
    ]
    run = {"testCases": [{"name": "t", "input": "q", "actualOutput": "a", "metricsData": metrics}]}

    foreign = bring("deepeval", "r.json", json.dumps(run))

    assert [(r["metric"], r["score"], r["outcome"]) for r in foreign.results] == [
        ("answer-relevancy", 0.5, "scored"), ("correctness-geval", None, "judge_error"),
    ]  # fmt: skip


# --- all of them -----------------------------------------------------------------------


def test_what_is_written_is_accepted_by_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "l.json").write_text(json.dumps({**HEADER, "samples": [sample(1, 1, "C")]}))
    monkeypatch.chdir(tmp_path)
    assert main(["import", "inspect", "l.json", "-o", "new", "--json"]) == 0
    imported = json.loads(capsys.readouterr().out)
    (tmp_path / "new/evalkit.toml").write_text(imported["config"])
    monkeypatch.chdir(tmp_path / "new")

    assert main(["check"]) == 0


def test_nothing_that_is_there_is_changed(tmp_path: Path, bring: Callable[..., Foreign]) -> None:
    foreign = bring("deepeval", "d.json", '[{"input": "q"}]')
    write_golden_set(foreign, tmp_path / "new")

    with pytest.raises(ConfigError, match="is there already"):
        write_golden_set(foreign, tmp_path / "new")


def test_a_feature_that_has_prompts_keeps_them(
    tmp_path: Path, bring: Callable[..., Foreign]
) -> None:
    prompt = tmp_path / "prompts/help/v1.md"
    prompt.parent.mkdir(parents=True)
    prompt.write_text("## user\n\n{{ text }}\n")
    foreign = bring("promptfoo", "c.yaml", "prompts: ['{{q}}']\ntests: [{vars: {q: a}}]")

    imported = write_golden_set(foreign, tmp_path, feature="help")

    assert [path.name for path in imported.written] == ["golden_set.yaml", "cases.jsonl"]
    assert imported.config == ""
    assert imported.lost == ("prompts: feature help has its own",)


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("deepeval", "20240101.json", '[{"input": "q", "expected_output": "a"}]'),
        ("promptfoo", "null.csv", "topic,if,__expected\nx,y,contains: z\n"),
    ],
)
def test_whatever_the_file_is_called_the_project_passes_check(
    kind: str, name: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    bring: Callable[..., Foreign],
) -> None:  # fmt: skip
    imported = write_golden_set(bring(kind, name, text), tmp_path / "new")
    (tmp_path / "new/evalkit.toml").write_text(imported.config)
    monkeypatch.chdir(tmp_path / "new")

    assert main(["check"]) == 0


@pytest.mark.parametrize("feature", ["../x", "my feature", ""])
def test_a_feature_has_a_name_that_the_configuration_takes(
    tmp_path: Path, bring: Callable[..., Foreign], feature: str
) -> None:
    foreign = bring("deepeval", "d.json", '[{"input": "q"}]')

    with pytest.raises(ConfigError, match="Use 1 to 128 of"):
        write_golden_set(foreign, tmp_path / "new", feature=feature)
    assert 'features."a.b"' in write_golden_set(foreign, tmp_path / "b", feature="a.b").config


def test_a_lone_surrogate_is_written_as_a_question_mark(
    tmp_path: Path, bring: Callable[..., Foreign]
) -> None:
    foreign = bring("openai-evals", "s.jsonl", r'{"input": "\ud800", "ideal": "\ud800"}')
    foreign.prompts = ["## user\n\n\ud800\n"]

    written = write_golden_set(foreign, tmp_path / "new").written

    assert written[-1].read_text() == "## user\n\n?\n"


def test_a_full_disk_leaves_no_part_of_a_golden_set(
    tmp_path: Path, bring: Callable[..., Foreign], monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = bring("deepeval", "d.json", '[{"input": "q"}]')
    plain = Path.write_text

    def full(self: Path, text: str, **options: Any) -> int:
        if self.name != "cases.jsonl":
            return plain(self, text, **options)
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)

    with pytest.raises(ConfigError, match="No space left") as refused:
        write_golden_set(foreign, tmp_path / "new")
    assert refused.value.exit_code == 3
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"gone\.yaml: no such file"):
        read_foreign("promptfoo", tmp_path / "gone.yaml")


def test_a_bomb_of_an_archive_is_not_unpacked(
    bring: Callable[..., Foreign], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalkit.exchange.foreign.inspect_log.MAX_BYTES", 10_000)
    with zipfile.ZipFile(tmp_path / "b.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps(HEADER))
        archive.writestr("samples/1_epoch_1.json", " " * 1_000_000)

    with pytest.raises(InputFileError, match="unpacks to more"):
        read_foreign("inspect", tmp_path / "b.eval")


@pytest.mark.parametrize("kind", sorted(READERS))
@settings(max_examples=100, deadline=None)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["tests", "vars", "assert", "type", "value", "results", "input", "ideal", "spec",
                 "eval", "samples", "scores", "testCases", "metricsData", "defaultTest", "id"]
            ),
            inner,
            max_size=3,
        ),
        max_leaves=12,
    )
)  # fmt: skip
def test_whatever_the_json_it_is_read_or_refused(
    kind: str, value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    path = folder / ("f.jsonl" if kind == "openai-evals" else "f.json")
    path.write_text(json.dumps(value))

    try:
        foreign = read_foreign(kind, path)
    except InputFileError:
        return
    write_golden_set(foreign, folder / "new")
