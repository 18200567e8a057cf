"""Golden sets as items: what is collected, what fails, what is only said."""

from __future__ import annotations

import json

import pytest

from tests.plugin.conftest import Project
from tests.project import case

PREFIX = "golden_sets/tickets/golden_set.yaml::"


def test_each_case_is_an_item_and_so_is_the_gate(project: Project) -> None:
    result = project.eval("--collect-only", "-q")

    lines = [line for line in result.stdout.lines if line.startswith(PREFIX)]
    assert len(lines) == 11
    assert lines[0] == f"{PREFIX}t-0000[small/classify@v1]"
    assert lines[-1] == f"{PREFIX}gate[small/classify@v1]"
    assert not (project.path / ".evalkit").exists()


def test_every_pair_and_trial_is_run(project: Project) -> None:
    result = project.eval(
        "--llm-eval-no-gate", "--llm-eval-prompt", "classify@v1", "--llm-eval-prompt",
        "classify@v2", "--llm-eval-trials", "3", "--junitxml", "junit.xml",
    )  # fmt: skip

    result.assert_outcomes(passed=15)
    assert result.parseoutcomes()["below"] == 5
    of_case = project.junit()["t-0004[small/classify@v2]"]
    assert [p.get("name") for p in of_case.iter("property")].count("trace_id") == 3


def test_a_failed_check_is_soft_and_a_must_pass_case_is_not(project: Project) -> None:
    project.write_cases([case(0), case(1), case(3, must_pass=True)])

    result = project.eval("--llm-eval-no-gate", "--llm-eval-prompt", "classify@v2", "-v")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*t-0001*BELOW BAR*", "*t-0003*FAILED*"])
    outcomes = result.parseoutcomes()
    assert (outcomes["failed"], outcomes["passed"], outcomes["below"]) == (1, 1, 1)
    result.stdout.fnmatch_lines(["label: *", "output: *billing*"])


def test_a_soft_failure_has_its_letter_and_colour_and_no_exit_status(project: Project) -> None:
    result = project.eval(
        "--llm-eval-no-gate", "--llm-eval-prompt", "classify@v2", "--color=yes", "-k", "t-0001"
    )

    assert result.ret == 0
    result.stdout.fnmatch_lines(["*golden_set.yaml *\x1b?33mb\x1b?0m*"])


def test_a_case_without_a_score_is_neither_passed_nor_failed(project: Project) -> None:
    config = project.path / "evalkit.toml"
    text = config.read_text("utf-8").replace("by_prompt", "fails_on_sevens")
    config.write_text(text, encoding="utf-8")

    result = project.eval("--llm-eval-no-gate", "-v")

    assert result.ret == 0
    assert result.parseoutcomes() == {"passed": 9, "not": 1}
    result.stdout.fnmatch_lines(["*t-0007*NOT SCORED*", "*9 passed, 1 not scored*"])


def test_junit_has_scores_cost_and_trace_id(served: Project) -> None:
    result = served.eval("--llm-eval-no-gate", "-k", "t-0004", "--junitxml", "junit.xml")

    result.assert_outcomes(passed=1, deselected=9)
    (of_case,) = served.junit().values()
    properties = {p.get("name"): p.get("value") for p in of_case.iter("property")}
    assert properties["label"] in ("0.0", "1.0")
    assert properties["shape"] == "1.0"
    assert float(properties["cost_usd"] or "nan") > 0
    assert properties["trace_id"]


def test_a_broken_golden_set_is_a_collection_error_with_the_place(project: Project) -> None:
    project.cases.write_text('{"id": "a", "input": {"text": "x"}, "expekted": 1}\n', "utf-8")

    result = project.eval()

    assert result.ret == 2
    result.stdout.fnmatch_lines(["*cases.jsonl:1: *expekted*"])


def test_a_case_cannot_be_called_as_the_gate_is(project: Project) -> None:
    project.write_cases([case(0) | {"id": "gate"}])

    result = project.eval()

    assert result.ret == 2
    result.stdout.fnmatch_lines(["*cases.jsonl:1: a case named gate*"])


def test_a_broken_configuration_is_a_usage_error(project: Project) -> None:
    (project.path / "evalkit.toml").write_text("storr = 'x'\n", encoding="utf-8")

    result = project.eval()

    assert result.ret == 4
    result.stderr.fnmatch_lines(["*evalkit.toml:1: *storr*store*"])


def test_a_prompt_edited_under_its_version_stops_before_any_call(project: Project) -> None:
    project.make_baseline()
    prompt = project.path / "prompts" / "classify" / "v1.md"
    prompt.write_text(prompt.read_text("utf-8").replace("Say", "Tell"), encoding="utf-8")

    result = project.eval("--llm-eval-no-gate")

    assert result.ret == 4
    result.stderr.fnmatch_lines(["*classify*v1*"])
    assert len(project.run_ids()) == 1


def test_money_that_is_spent_skips_what_is_left(served: Project) -> None:
    result = served.eval("--llm-eval-no-gate", "--llm-eval-max-cost", "0.0012", "-rs")

    outcomes = result.parseoutcomes()
    assert outcomes["passed"] + outcomes.get("below", 0) + outcomes["skipped"] == 10
    assert result.ret == 1
    result.stdout.fnmatch_lines(["SKIPPED*--llm-eval-max-cost is reached*"])
    result.stdout.fnmatch_lines(["unmeasurable: --llm-eval-max-cost is reached: * items made*"])
    result.stdout.fnmatch_lines(["*run the others: evalkit run --resume*"])


@pytest.mark.parametrize(
    ("target", "status", "said"),
    [
        ("tests.apps:by_rule", 0, None),
        ("tests.apps:fails_on_sevens", 1, "unmeasurable: 1 must-pass scores are missing"),
        ("tests.apps:not_there", 1, "unmeasurable: no case was scored"),
    ],
)
def test_without_gates_a_session_that_measured_nothing_fails_all_the_same(
    project: Project, target: str, status: int, said: str | None
) -> None:
    config = project.path / "evalkit.toml"
    config.write_text(config.read_text("utf-8").replace("tests.apps:by_prompt", target), "utf-8")
    project.write_cases([case(n, must_pass=n == 7) for n in range(10)])

    result = project.eval("--llm-eval-no-gate")

    assert result.ret == status
    if said is not None:
        result.stdout.fnmatch_lines([said])
    else:
        result.stdout.no_fnmatch_line("unmeasurable*")


@pytest.mark.parametrize(
    ("option", "value"),
    [("model", "nope"), ("prompt", "classify"), ("prompt", "others@v1")],
)
def test_a_pair_that_cannot_run_is_refused_under_the_name_of_pytests_option(
    project: Project, option: str, value: str
) -> None:
    result = project.eval(f"--llm-eval-{option}", value)

    assert result.ret == 2
    result.stdout.fnmatch_lines([f"*--llm-eval-{option} {value}*"])


def test_chosen_cases_are_a_run_that_is_not_complete(project: Project) -> None:
    project.eval("--llm-eval-no-gate", "-k", "t-0004")

    (manifest,) = (project.path / ".evalkit" / "runs").glob("*/manifest.json")
    found = json.loads(manifest.read_text("utf-8"))
    assert (found["status"], found["planned"]) == ("incomplete", 10)


def test_golden_sets_that_the_arguments_leave_out_are_not_left_out_in_silence(
    project: Project,
) -> None:
    project.pytester.mkdir("tests")
    (project.path / "tests/test_own.py").write_text("def test_own(): pass\n", encoding="utf-8")
    project.pytester.makeini("[pytest]\ntestpaths = tests\n")

    without = project.eval()
    named = project.eval("tests", "golden_sets", "--llm-eval-no-gate")

    without.assert_outcomes(passed=1)
    without.stdout.fnmatch_lines(["evalkit: no golden set is below*Name golden_sets, or add it*"])
    named.assert_outcomes(passed=11)
    named.stdout.no_fnmatch_line("*no golden set is below*")


def test_what_a_model_says_is_no_command_to_the_terminal_or_the_runner(project: Project) -> None:
    said = "a\\n::error::b\\x1b[31m\\u202e"
    (project.path / "app.py").write_text(
        f'def answer(input):\n    return "{said}"\n', encoding="utf-8"
    )
    config = project.path / "evalkit.toml"
    text = config.read_text("utf-8").replace("tests.apps:by_prompt", "app:answer")
    text = text.replace('output_schema = "golden_sets/tickets/label.schema.json"\n', "")
    config.write_text(text, encoding="utf-8")
    with (project.path / "app.py").open("a", encoding="utf-8") as file:
        file.write("def says(answer):\n    return {'score': 0, 'reason': answer.output}\n")
    header = project.path / "golden_sets/tickets/golden_set.yaml"
    own = "  - {name: own, check: python, function: 'app:says', must_pass: true}\ncases:"
    header.write_text(header.read_text("utf-8").replace("cases:", own), encoding="utf-8")
    project.write_cases(2)

    result = project.eval_apart("-rA", "-v")

    assert result.ret == 1
    shown = result.stdout.str()
    assert "::error::b" in shown
    assert not [line for line in result.outlines if line.startswith("::error")]
    assert not {"\x1b", "\u202e"} & set(shown)


def test_cases_below_their_bar_are_named_with_their_metrics(project: Project) -> None:
    project.write_cases([case(n) | {"id": f"odd::{n}"} for n in range(60)])

    result = project.eval("--llm-eval-prompt", "classify@v2", "--llm-eval-no-gate")

    result.stdout.fnmatch_lines(
        ["below bar: 30; for one of them: evalkit show CASE", "  odd::*small/classify@v2? label"]
    )
    result.stdout.fnmatch_lines(["  and 20 more"])
