"""Tests written in Python over a golden set's cases, and the fixtures of the plugin."""

from __future__ import annotations

from tests.loopback import Loopback
from tests.plugin.conftest import Project

OVER_CASES = """
import pytest

@pytest.mark.llm_eval(golden_set="tickets")
def test_label(case, record):
    from evalkit.testing import value_of

    assert record.input == case.input
    assert value_of(record)["label"] in ("billing", "delivery")
"""


def test_a_function_runs_over_all_cases(project: Project) -> None:
    project.pytester.makepyfile(test_own=OVER_CASES)

    result = project.eval("test_own.py", "-v", "--llm-eval-prompt", "classify@v2")

    result.assert_outcomes(passed=10)
    result.stdout.fnmatch_lines(["test_own.py::test_label?t-0004-small/classify@v2? PASSED*"])
    result.stdout.fnmatch_lines(["run * 10 cases, $*"])
    result.stdout.no_fnmatch_line("*no golden set is below*")


def test_its_assertions_fail_for_real(project: Project) -> None:
    project.pytester.makepyfile(
        test_own="""
        import pytest
        from evalkit.testing import assert_passes

        @pytest.mark.llm_eval(golden_set="tickets")
        def test_label(case, record):
            assert_passes(record, {"check": "equals", "path": "/label"}, case=case)
        """
    )

    result = project.eval("test_own.py", "--llm-eval-prompt", "classify@v2")

    result.assert_outcomes(passed=5, failed=5)
    result.stdout.fnmatch_lines(["E * AssertionError: equals: *", "E * answer: *billing*"])


def test_functions_and_cases_share_their_calls(served: Project, server: Loopback) -> None:
    served.pytester.makepyfile(test_own=OVER_CASES + OVER_CASES.replace("test_label", "test_too"))

    result = served.eval("--llm-eval-no-gate", "--llm-eval-trials", "2", "--junitxml", "junit.xml")

    outcomes = result.parseoutcomes()
    assert outcomes["passed"] + outcomes.get("below", 0) == 10 + 2 * 20
    assert set(server.stats.by_case.values()) == {2}
    of_trial = served.junit()["test_label[t-0004-small/classify@v1-1]"]
    assert "trace_id" in {p.get("name") for p in of_trial.iter("property")}


def test_record_of_a_case_is_its_own_and_another_pairs_is_called(project: Project) -> None:
    project.pytester.makepyfile(
        """
        import pytest

        @pytest.mark.llm_eval(golden_set="tickets")
        def test_pairs(case, record, evalkit_record):
            assert evalkit_record(case).trace_id == record.trace_id
            worse = evalkit_record(case, prompt="classify@v2")
            assert worse.prompt_version == "v2"
            assert worse.trace_id != record.trace_id

        @pytest.mark.llm_eval
        def test_plain(evalkit_record):
            found = evalkit_record("a question on billing", feature="classify")
            assert found.output == '{"label": "billing"}'
        """
    )

    result = project.eval("test_record_of_a_case_is_its_own_and_another_pairs_is_called.py")

    result.assert_outcomes(passed=11)


def test_a_record_needs_no_golden_set_in_the_session(project: Project) -> None:
    project.pytester.makepyfile(
        test_own="""
        import pytest

        @pytest.mark.llm_eval
        def test_own(evalkit_record):
            found = evalkit_record("a question on billing", feature="classify")
            assert found.output == '{"label": "billing"}'
        """
    )

    result = project.eval("test_own.py")

    result.assert_outcomes(passed=1)


def test_the_orchestrator_is_a_fixture(project: Project) -> None:
    project.pytester.makepyfile(
        test_own="""
        import pytest

        @pytest.mark.llm_eval
        def test_own(evalkit_orchestrator):
            result = evalkit_orchestrator.execute_sync("classify", "a question on billing")
            assert result.value == {"label": "billing"}
        """
    )

    result = project.eval("test_own.py")

    result.assert_outcomes(passed=1)


def test_the_orchestrator_finds_the_projects_own_modules(project: Project) -> None:
    config = project.path / "evalkit.toml"
    config.write_text(config.read_text().replace("tests.apps:by_prompt", "beside_config:answer"))
    (project.path / "beside_config.py").write_text(
        "def answer(input):\n    return {'label': 'billing'}\n"
    )
    (project.path / "below").mkdir()
    (project.path / "below" / "test_own.py").write_text(
        """
import pytest

@pytest.mark.llm_eval
def test_own(evalkit_orchestrator):
    result = evalkit_orchestrator.execute_sync("classify", "a question on billing")
    assert result.value == {"label": "billing"}
"""
    )

    result = project.eval("below/test_own.py")

    result.assert_outcomes(passed=1)


def test_mistakes_are_told_with_what_would_be_right(project: Project) -> None:
    project.pytester.makepyfile(
        test_none="""
        import pytest

        @pytest.mark.llm_eval(golden_set="tickets")
        def test_takes_nothing(): pass
        """,
        test_name="""
        import pytest

        @pytest.mark.llm_eval(golden_set="tikets")
        def test_wrong_name(case): pass
        """,
        test_unmarked="def test_unmarked(case): pass",
        test_feature="def test_no_feature(evalkit_record): evalkit_record('x')",
    )

    collected = project.eval("test_none.py", "test_name.py")
    run = project.eval("test_unmarked.py", "test_feature.py")

    assert collected.ret == 2
    collected.stdout.fnmatch_lines(["*takes neither `case` nor `record`*"])
    collected.stdout.fnmatch_lines(["*tikets*tickets*"])
    run.assert_outcomes(failed=1, errors=1)
    run.stdout.fnmatch_lines(["*are for tests marked*"])
    run.stdout.fnmatch_lines(["*no feature is known here*"])
