"""`pytest --llm-eval`: golden sets as items, the gate as one of them, silence without it."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from evalkit.store.views import open_store
from tests.project import case

SLOW_START = 60


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return project.runpytest_subprocess("-p", "no:cacheprovider", *arguments, timeout=SLOW_START)


def test_without_the_option_golden_sets_are_not_collected(project: pytest.Pytester) -> None:
    project.makepyfile(test_own="def test_own(): pass")

    result = run(project)

    result.assert_outcomes(passed=1)
    assert not (project.path / ".evalkit").exists()
    result.stdout.no_fnmatch_line("*evalkit:*")


def test_without_the_option_marked_tests_are_skipped(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import pytest

        @pytest.mark.llm_eval
        def test_own():
            raise AssertionError("not to be run")
        """
    )

    result = run(project)

    result.assert_outcomes(skipped=1)


def test_each_case_is_an_item_and_so_is_the_gate(project: pytest.Pytester) -> None:
    result = run(project, "--llm-eval", "--collect-only", "-q")

    lines = result.stdout.lines
    prefix = "golden_sets/tickets/golden_set.yaml::"
    assert f"{prefix}t-0000[small/classify@v1]" in lines
    assert f"{prefix}t-0009[small/classify@v1]" in lines
    assert f"{prefix}gate[small/classify@v1]" in lines
    assert len([line for line in lines if line.startswith(prefix)]) == 11
    assert not (project.path / ".evalkit").exists()


def test_a_first_run_has_no_baseline_and_says_so(project: pytest.Pytester) -> None:
    result = run(project, "--llm-eval")

    assert result.ret == 1
    result.assert_outcomes(passed=10, failed=1)
    result.stdout.fnmatch_lines(["label on tickets*cannot be measured: no baseline*"])


def baseline(project: pytest.Pytester) -> None:
    assert run(project, "--llm-eval", "--llm-eval-no-gate").ret == 0


def run_id(project: pytest.Pytester, position: int) -> str:
    runs = open_store(project.path / ".evalkit").runs()
    return str(runs[position]["run_id"])


def test_the_gate_item_passes_when_nothing_dropped(project: pytest.Pytester) -> None:
    write_more(project, 60)
    baseline(project)

    result = run(project, "--llm-eval", "--llm-eval-baseline", run_id(project, 0))

    assert result.ret == 0
    result.assert_outcomes(passed=61)


def write_more(project: pytest.Pytester, cases: int) -> None:
    path = project.path / "golden_sets" / "tickets" / "cases.jsonl"
    path.write_text("".join(json.dumps(case(n)) + "\n" for n in range(cases)), encoding="utf-8")


def test_the_gate_item_fails_the_session_on_a_regression(project: pytest.Pytester) -> None:
    write_more(project, 60)
    baseline(project)

    result = run(
        project,
        "--llm-eval",
        "--llm-eval-prompt",
        "classify@v2",
        "--llm-eval-baseline",
        run_id(project, 0),
    )

    assert result.ret == 1
    result.stdout.fnmatch_lines(["label on tickets*quality fell by 50 points*"])
    result.stdout.fnmatch_lines(["FAILED *::gate?small/classify@v2?*"])
    assert "30 below bar" in result.stdout.str()
    assert result.parseoutcomes()["failed"] == 1


def test_a_failed_check_is_soft_and_a_must_pass_case_is_not(project: pytest.Pytester) -> None:
    cases = [case(0), case(1), case(3, must_pass=True)]
    path = project.path / "golden_sets" / "tickets" / "cases.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in cases), encoding="utf-8")

    result = run(
        project, "--llm-eval", "--llm-eval-no-gate", "--llm-eval-prompt", "classify@v2", "-v"
    )

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*t-0001*BELOW BAR*"])
    result.stdout.fnmatch_lines(["*t-0003*FAILED*"])
    assert result.parseoutcomes()["failed"] == 1


@pytest.mark.parametrize(("prompt", "status"), [("v1", 0), ("v2", 1)])
def test_a_golden_set_with_must_pass_metrics_alone_is_gated_by_these(
    project: pytest.Pytester, prompt: str, status: int
) -> None:
    header = project.path / "golden_sets" / "tickets" / "golden_set.yaml"
    text = header.read_text(encoding="utf-8")
    header.write_text(text.replace("gate: true", "must_pass: true"), encoding="utf-8")

    result = run(project, "--llm-eval", "--llm-eval-prompt", f"classify@{prompt}", "-v")

    assert result.ret == status
    word = "FAILED" if status else "PASSED"
    result.stdout.fnmatch_lines([f"*::gate?small/classify@{prompt}?*{word}*"])


def test_a_golden_set_that_nothing_gates_is_unmeasurable(project: pytest.Pytester) -> None:
    header = project.path / "golden_sets" / "tickets" / "golden_set.yaml"
    text = header.read_text(encoding="utf-8")
    header.write_text(text.replace(", gate: true", ""), encoding="utf-8")

    result = run(project, "--llm-eval")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["*unmeasurable: *no metric gates*"])


def test_an_option_from_the_ini_file_is_named_in_the_header(project: pytest.Pytester) -> None:
    project.makeini("[pytest]\nllm_eval_limit = 3\n")

    result = run(project, "--llm-eval", "--llm-eval-no-gate")

    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["evalkit: *limit: 3 (ini file)*"])


def test_keyword_and_junit_work_as_for_any_test(project: pytest.Pytester) -> None:
    result = run(
        project, "--llm-eval", "--llm-eval-no-gate", "-k", "t-0004", "--junitxml", "junit.xml"
    )

    result.assert_outcomes(passed=1, deselected=9)
    xml = ElementTree.fromstring((project.path / "junit.xml").read_text(encoding="utf-8"))
    properties = {p.get("name"): p.get("value") for p in xml.iter("property")}
    assert properties["label"] == "1.0"
    assert properties["trace_id"]


def test_a_broken_golden_set_is_a_collection_error_with_the_place(
    project: pytest.Pytester,
) -> None:
    path = project.path / "golden_sets" / "tickets" / "cases.jsonl"
    path.write_text('{"id": "a", "input": {"text": "x"}, "expekted": 1}\n', encoding="utf-8")

    result = run(project, "--llm-eval")

    assert result.ret == 2
    result.stdout.fnmatch_lines(["*cases.jsonl:1: *expekted*"])


def test_a_broken_configuration_is_a_usage_error(project: pytest.Pytester) -> None:
    (project.path / "evalkit.toml").write_text("storr = 'x'\n", encoding="utf-8")

    result = run(project, "--llm-eval")

    assert result.ret == 4
    result.stderr.fnmatch_lines(["*evalkit.toml:1: *storr*store*"])


def test_the_orchestrator_is_a_fixture(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import asyncio
        import pytest

        @pytest.mark.llm_eval
        def test_own(evalkit_orchestrator):
            result = evalkit_orchestrator.execute_sync("classify", "a question on billing")
            assert result.value == {"label": "billing"}
        """
    )

    result = run(project, "--llm-eval", "test_the_orchestrator_is_a_fixture.py")

    result.assert_outcomes(passed=1)
