"""Without `--llm-eval` the plugin does, loads and says nothing."""

from __future__ import annotations

from tests.plugin.conftest import Project

HEAVY = ("scipy", "pandas", "numpy", "duckdb", "pyarrow", "httpx", "aiohttp", "jinja2", "yaml")


def test_golden_sets_are_not_collected_and_nothing_is_written(project: Project) -> None:
    project.pytester.makepyfile(test_own="def test_own(): pass")
    before = sorted(project.path.rglob("*"))

    result = project.pytest("-p", "no:python", "-p", "no:assertion")
    own = project.pytest()

    assert result.ret == 5  # nothing collected: a golden set is no test
    own.assert_outcomes(passed=1)
    new = [path for path in project.path.rglob("*") if path not in before]
    assert not [path for path in new if "__pycache__" not in path.parts]
    own.stdout.no_fnmatch_line("*evalkit:*")


def test_nothing_heavy_is_loaded(project: Project) -> None:
    project.pytester.makepyfile(
        f"""
        import sys

        def test_own():
            assert not [name for name in {HEAVY!r} if name in sys.modules]
            assert not [name for name in sys.modules if name.startswith("evalkit.pytest_session")]
        """
    )

    result = project.pytester.runpytest_subprocess("-p", "evalkit.pytest_plugin")

    result.assert_outcomes(passed=1)


def test_marked_tests_are_skipped(project: Project) -> None:
    project.pytester.makepyfile(
        """
        import pytest

        @pytest.mark.llm_eval
        def test_own():
            raise AssertionError("not to be run")

        @pytest.mark.llm_eval(golden_set="tickets")
        def test_over_cases(case, record):
            raise AssertionError("not to be run")
        """
    )

    result = project.pytest("-rs")

    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["SKIPPED*needs --llm-eval"])
