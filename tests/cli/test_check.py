"""`evalkit check` finds what a run would stumble over, and says what would be right."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from evalkit.cli.main import main
from evalkit.store.views import open_store
from tests.project import case, write_project
from tests.store.journal_lines import line, manifest


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound project, and the working directory."""
    monkeypatch.chdir(tmp_path)
    return write_project(tmp_path, cases=4)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    status = main(["check", *arguments])
    out, err = capsys.readouterr()
    assert err == ""
    return status, out.splitlines()


def test_a_sound_project_passes_and_says_what_was_looked_at(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(capsys) == (
        0,
        [
            (
                "no problems in evalkit.toml, 1 feature, 2 prompt versions, 1 golden set, "
                "4 cases, 0 judges"
            )
        ],
    )


def test_a_store_that_no_command_can_open_is_a_problem(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = project / "evalkit.toml"
    text = config.read_text("utf-8")
    config.write_text(f'store = "s3://bucket/evals"\n{text}', "utf-8")

    status, (said,) = check(capsys)

    assert status == 2
    assert said.startswith("evalkit.toml:1: store: s3://bucket/evals: ")
    assert "only a folder can be a store" in said
    assert check(capsys, "--store", ".evalkit")[0] == 0


def test_a_function_that_answers_for_a_model_has_to_be_there(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(project / "evalkit.toml", "tests.apps:by_rule", "tests.apps:nobody")
    (project / "broken_app.py").write_text("raise RuntimeError('no licence')\n")

    status, lines = check(capsys)

    assert status == 2
    assert "evalkit.toml:4: providers.app.target: 'tests.apps:nobody' is not an" in lines[0]
    edit(project / "evalkit.toml", "tests.apps:nobody", "broken_app:answer")
    assert "RuntimeError: no licence" in check(capsys)[1][0]


def test_a_case_that_pytest_would_take_for_the_gate_is_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = project / "golden_sets" / "tickets" / "cases.jsonl"
    cases.write_text(json.dumps(case(1)) + "\n" + json.dumps(case(2, id="gate")) + "\n")

    status, lines = check(capsys)

    assert status == 2
    assert lines[0].startswith("golden_sets/tickets/cases.jsonl:2: case gate: pytest --llm-eval")


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "fifo"])
def test_cases_that_are_no_file_are_said_to_be_none(
    project: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None]
) -> None:
    cases = project / "golden_sets" / "tickets" / "cases.jsonl"
    cases.unlink()
    make(cases)

    status, lines = check(capsys)

    assert status == 2
    assert '"cases.jsonl" is not a regular file' in lines[0]


def test_a_seed_is_one_that_the_store_can_hold(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--seed", "9" * 23]) == 2
    assert "is not between" in capsys.readouterr().err
    edit(project / "evalkit.toml", "[run]", "[run]\nseed = 9223372036854775808")
    assert "run.seed" in check(capsys)[1][0]
    edit(project / "evalkit.toml", "775808", "775807")
    assert main(["run"]) == 0
    capsys.readouterr()
    assert main(["query", "SELECT seed FROM runs", "--json"]) == 0
    assert "9223372036854775807" in capsys.readouterr().out


def test_the_checkout_itself_is_sound(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2])

    status, lines = check(capsys)

    assert (status, len(lines)) == (0, 1)


def test_every_problem_is_one_line_with_its_place_and_its_fix(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = project / "golden_sets" / "tickets"
    edit(golden / "golden_set.yaml", "check: equals", "check: equalz")
    (golden / "cases.jsonl").write_text(json.dumps({"id": "t-1", "imput": "x"}) + "\n")
    (project / "prompts" / "classify" / "v2.md").write_text("## system\nSay {{ \n\n## user\nx\n")
    (project / "judges").mkdir()
    (project / "judges" / "fair.yaml").write_text("name: &fair fair\n")

    status, lines = check(capsys)

    assert (status, lines) == (
        2,
        [
            (
                "prompts/classify/v2.md:2: not a template: unexpected 'end of template': "
                "To show braces as they are, write {% raw %} before and {% endraw %} after them"
            ),
            (
                'golden_sets/tickets/golden_set.yaml:5: metrics[0].check is "equalz": '
                'Did you mean "equals"?'
            ),
            (
                'golden_sets/tickets/cases.jsonl:1: case t-1: unknown key "imput": '
                'Did you mean "input"?'
            ),
            (
                'golden_sets/tickets/cases.jsonl:1: case t-1: no "input": '
                "Add what the feature gets: an object, or text"
            ),
            "judges/fair.yaml:1: anchor &fair is not allowed: Write the value out",
        ],
    )


def test_a_feature_s_prompt_that_is_not_there_is_named_where_it_is_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(project / "evalkit.toml", "classify@v1", "classify@v9")

    status, lines = check(capsys)

    assert (status, lines) == (
        2,
        [
            (
                "evalkit.toml:13: feature classify: prompts/classify: there is no version v9 of "
                "prompt classify; there are: v1, v2: "
                "Name one of them, or add prompts/classify/v9.md"
            )
        ],
    )


def test_golden_sets_are_looked_at_even_if_the_configuration_is_broken(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(project / "evalkit.toml", 'provider = "app"', 'providor = "app"')
    edit(project / "golden_sets/tickets/golden_set.yaml", "path: /label", "path: label")

    status, lines = check(capsys)

    assert (status, lines) == (
        2,
        [
            'evalkit.toml:6: no "provider" in models.small: Add provider',
            'evalkit.toml:7: unknown key "providor" in models.small: Did you mean "provider"?',
            (
                "golden_sets/tickets/golden_set.yaml:5: metric label: check equals: "
                'path is "label": It must be a JSON pointer such as /label, or ""'
            ),
        ],
    )


def test_a_case_without_what_the_prompt_asks_for_is_found(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [case(0), case(1, input={"txt": "billing"})]
    path = project / "golden_sets/tickets/cases.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    status, lines = check(capsys)

    assert (status, lines) == (
        2,
        [
            (
                "golden_sets/tickets/cases.jsonl:2: case t-0001: prompts/classify/v1.md:5: "
                'the input has no "text"; it has: txt: Did you mean "txt"?'
            )
        ],
    )


def test_two_golden_sets_of_one_name_are_a_problem(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = project / "golden_sets" / "more"
    other.mkdir()
    for file in (project / "golden_sets" / "tickets").iterdir():
        (other / file.name).write_bytes(file.read_bytes())

    status, lines = check(capsys)

    assert (status, lines) == (
        2,
        [
            (
                "golden_sets/tickets/golden_set.yaml:1: "
                'golden_sets/more/golden_set.yaml is called "tickets" too: Rename one'
            )
        ],
    )


def test_a_judge_without_a_model_is_a_problem_only_where_it_is_used(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = check(capsys)
    edit(
        project / "golden_sets/tickets/golden_set.yaml",
        "cases:",
        "  - {name: right, judge: correctness}\ncases:",
    )

    status, lines = check(capsys)

    assert before[0] == 0
    assert (status, lines) == (
        2,
        [
            (
                "golden_sets/tickets/golden_set.yaml:7: metric right: judge correctness "
                "has no model: Add judge_model under [run] in the configuration, "
                "or model in judges/correctness.yaml"
            )
        ],
    )


def test_json_has_the_parts_of_each_problem(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project / "golden_sets/tickets/cases.jsonl"
    path.write_text(json.dumps(case(0)) + "\n" + json.dumps(case(1, cluster=3)) + "\n")

    status, lines = check(capsys, "--json")

    assert status == 2
    assert json.loads("\n".join(lines)) == {
        "problems": [
            {
                "file": "golden_sets/tickets/cases.jsonl",
                "line": 2,
                "case_id": "t-0001",
                "problem": "cluster is 3",
                "fix": "Write text",
            }
        ],
        "notes": [],
        "checked": {
            "config": "evalkit.toml",
            "features": 1,
            "prompts": 2,
            "golden_sets": 1,
            "cases": 0,
            "judges": 0,
        },
    }


@pytest.mark.parametrize("path", ["cases.jsonl", "label.schema.json", "golden_set.yaml", ""])
def test_a_file_stands_for_the_golden_set_it_belongs_to(
    project: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    status, lines = check(capsys, "--json", f"golden_sets/tickets/{path}", "evalkit.toml")

    assert status == 0
    assert json.loads("\n".join(lines))["checked"]["golden_sets"] == 1


def test_a_path_that_is_not_there_is_a_problem(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(capsys, "golden_sets/tikets") == (
        2,
        ['golden_sets/tikets:1: there is no golden_set.yaml: Did you mean "tickets"?'],
    )


def test_a_project_without_anything_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    status, lines = check(capsys)

    assert status == 0
    assert lines == [
        "no problems in 0 features, 0 prompt versions, 0 golden sets, 0 cases, 0 judges"
    ]


def test_a_file_of_flags_that_could_not_be_taken_over_is_a_problem(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = project / "evalkit.toml"
    text = config.read_text(encoding="utf-8") + '\n[flags]\nfile = "flags.toml"\n'
    config.write_text(text, encoding="utf-8")
    without = check(capsys)[0]

    (project / "flags.toml").write_text('ok = true\nllm = { prompt = "classify@v9" }\n')

    assert without == 0
    status, lines = check(capsys)
    assert status == 2
    assert lines == [
        (
            "flags.toml:2: flag llm: there is no prompts/classify/v9.md: "
            "Add it, or name another version"
        )
    ]


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("{", "Expecting property name"),
        ('{"type": "objekt"}', "not a valid JSON Schema"),
        ("\xff", "utf-8"),
        ('{"allOf": ' + "[" * 5000 + "]" * 5000 + "}", "nested too deeply"),
    ],
    ids=["no JSON", "no schema", "no UTF-8", "too deep"],
)
def test_a_feature_s_schema_that_is_none_is_named_where_it_is_named(
    project: Path, capsys: pytest.CaptureFixture[str], schema: str, why: str
) -> None:
    file = "golden_sets/tickets/label.schema.json"
    (project / file).write_text(schema, encoding="latin-1")

    status, lines = check(capsys)

    assert status == 2
    (line,) = (line for line in lines if line.startswith("evalkit.toml"))
    assert line.startswith(f"evalkit.toml:15: features.classify.output_schema: {file}: ")
    assert why in line
    assert line.endswith(": Write a JSON Schema there")


def test_an_edited_version_that_runs_used_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = tmp_path / "prompts" / "p" / "v1.md"
    prompt.parent.mkdir(parents=True)
    prompt.write_text("## user\n{{ text }}\n", encoding="utf-8")
    (tmp_path / "evalkit.toml").write_text("", encoding="utf-8")
    store = open_store(tmp_path / ".evalkit")
    with store.create_run({**manifest("run-1"), "prompts": {"p@v1": "0123456789abcdef"}}) as writer:
        writer.append(line(1))
        writer.seal("complete")

    assert main(["check", "--config", str(tmp_path / "evalkit.toml")]) == 2

    assert "prompts/p/v1.md:1: has been edited" in capsys.readouterr().out
