"""Over several processes: each case called once, results and gates with the controller."""

from __future__ import annotations

import pytest

from evalkit.store.views import open_store
from tests.loopback import Behaviour, Loopback, Rule
from tests.plugin.conftest import Project

N = 40
XDIST = ("xdist.plugin",)


@pytest.mark.parametrize("dist", ["load", "loadfile", "loadscope", "worksteal"])
def test_every_case_is_called_once(served: Project, server: Loopback, dist: str) -> None:
    served.write_cases(N)
    server.script(Rule(Behaviour(delay_ms=5)))

    result = served.eval("-n", "2", "--dist", dist, "--llm-eval-no-gate", plugins=XDIST)

    outcomes = result.parseoutcomes()
    assert outcomes.get("passed", 0) + outcomes.get("below", 0) == N
    assert dict(server.stats.by_case) == {f"t-{n:04d}": 1 for n in range(N)}
    (run,) = open_store(served.path / ".evalkit").runs()
    assert (run["status"], run["planned"]) == ("complete", N)


def test_the_gate_is_the_controllers(project: Project) -> None:
    project.write_cases(60)
    baseline = project.make_baseline()

    result = project.eval("-n", "2", "--llm-eval-baseline", baseline, plugins=XDIST)

    assert result.ret == 0
    result.assert_outcomes(passed=61)


def test_the_gate_fails_as_it_does_without_workers_and_last_failed_runs_it_again(
    project: Project,
) -> None:
    project.write_cases(60)
    baseline = project.make_baseline()
    arguments = (
        "-n", "2", "--llm-eval-baseline", baseline, "--llm-eval-prompt", "classify@v2",
        "--junitxml", "junit.xml",
    )  # fmt: skip

    result = project.eval(*arguments, plugins=(*XDIST, "cacheprovider"))
    junit = project.junit()
    again = project.eval(*arguments, "--lf", plugins=(*XDIST, "cacheprovider"))

    assert (result.ret, again.ret) == (1, 1)
    assert result.parseoutcomes() == {"passed": 30, "below": 30, "failed": 1}
    assert again.parseoutcomes() == {"failed": 1}
    for one in (result, again):
        gate = "FAILED golden_sets/tickets/golden_set.yaml::gate?small/classify@v2?*"
        one.stdout.fnmatch_lines(["run * 60 cases, $*", gate])
        one.stdout.fnmatch_lines(["label on tickets*quality fell by 50 points*"])
    assert junit["gate[small/classify@v2]"].find("failure") is not None
    assert len(junit) == 61


def test_a_worker_that_dies_loses_no_other_case(served: Project, server: Loopback) -> None:
    served.pytester.makeconftest(
        """
        import os, signal

        def pytest_runtest_call(item):
            if item.name.startswith("t-0003") and os.environ["PYTEST_XDIST_WORKER"] in "gw0 gw1":
                os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    served.write_cases(N)

    result = served.eval("-n", "2", "--llm-eval-no-gate", plugins=XDIST)

    outcomes = result.parseoutcomes()
    assert outcomes["failed"] == 1
    assert outcomes.get("passed", 0) + outcomes.get("below", 0) == N - 1
    result.stdout.fnmatch_lines(["*worker 'gw?' crashed while running*t-0003*"])
    twice = {case: n for case, n in server.stats.by_case.items() if n > 1}
    assert len(twice) <= 2 * 16  # at most what was under way in the worker that died
