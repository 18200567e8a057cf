"""Beside the plugins that most projects have: asyncio, coverage, random order."""

from __future__ import annotations

import pytest

from tests.loopback import Loopback
from tests.plugin.conftest import SLOW_START, Project


def test_async_tests_run_over_cases_and_share_connections(
    served: Project, server: Loopback
) -> None:
    served.pytester.makeini(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
        "filterwarnings = error\n"
    )
    served.pytester.makepyfile(
        test_own="""
        import asyncio, pytest

        @pytest.mark.llm_eval(golden_set="tickets")
        async def test_own(case, record, evalkit_orchestrator):
            await asyncio.sleep(0)
            result = await evalkit_orchestrator.execute("classify", case.input)
            assert result.output == record.output

        @pytest.mark.llm_eval
        async def test_stream(evalkit_orchestrator):
            pieces = [p async for p in evalkit_orchestrator.stream("classify", "on billing")]
            assert "".join(p.text for p in pieces[:-1]) == pieces[-1].output

        @pytest.mark.llm_eval
        def test_sync(evalkit_orchestrator):
            assert evalkit_orchestrator.execute_sync("classify", "on billing").ok
        """
    )

    result = served.eval_apart("test_own.py", plugins=("pytest_asyncio.plugin",))

    result.assert_outcomes(passed=12)
    assert server.stats.connections < 15


def test_random_order_keeps_every_case_and_the_gate_last(project: Project) -> None:
    project.write_cases(60)
    baseline = project.make_baseline()

    result = project.eval("--llm-eval-baseline", baseline, "-v", plugins=("pytest_randomly",))

    result.assert_outcomes(passed=61)
    order = [line for line in result.stdout.lines if "golden_set.yaml::" in line]
    assert "gate[" in order[-1]
    assert order[:60] != sorted(order[:60])


def test_coverage_is_measured_in_the_loop_s_thread_too(project: Project) -> None:
    (project.path / "app.py").write_text(
        "def answer(input):\n    return {'label': 'billing'}\n", encoding="utf-8"
    )
    config = project.path / "evalkit.toml"
    text = config.read_text("utf-8").replace("tests.apps:by_prompt", "app:answer")
    config.write_text(text, encoding="utf-8")

    result = project.eval_apart(
        "--llm-eval-no-gate", "--cov=app", "--cov-report=term", plugins=("pytest_cov.plugin",)
    )

    assert result.ret == 0
    result.stdout.fnmatch_lines(["app.py * 100%"])


def test_all_that_are_installed_together_over_workers(
    served: Project, server: Loopback, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    served.write_cases(40)
    served.pytester.makeini(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    (served.path / "app.py").write_text("def ok(text):\n    return bool(text)\n", "utf-8")
    served.pytester.makepyfile(
        test_own="""
        import app, pytest

        @pytest.mark.llm_eval(golden_set="tickets")
        async def test_own(case, record):
            assert app.ok(record.output)

        def test_other():
            pass
        """
    )

    result = served.pytester.runpytest_subprocess(
        "--llm-eval", "-n", "2", "--dist", "worksteal", "--llm-eval-no-gate", "--cov=app",
        "--cov-report=term", "--junitxml", "junit.xml", timeout=2 * SLOW_START,
    )  # fmt: skip

    outcomes = result.parseoutcomes()
    assert outcomes["passed"] + outcomes.get("below", 0) == 40 + 40 + 1
    assert dict(server.stats.by_case) == {f"t-{n:04d}": 1 for n in range(40)}
    result.stdout.fnmatch_lines(["app.py * 100%"])
    assert len(served.junit()) == 81
