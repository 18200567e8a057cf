"""Ahead of the item that reports, inside a bounded window, as pytest's users expect."""

from __future__ import annotations

from tests.loopback import Behaviour, Loopback, Rule
from tests.plugin.conftest import Project

IN_FLIGHT = 8
SLOW = "max_latency_ms = 600_000"
"""More than anybody waits for a test."""


def concurrent(project: Project, cases: int) -> None:
    project.write_cases(cases)
    config = project.path / "evalkit.toml"
    text = config.read_text("utf-8").replace("[run]", f"[run]\nconcurrency = {IN_FLIGHT}")
    config.write_text(text, encoding="utf-8")


def test_calls_overlap(served: Project, server: Loopback) -> None:
    concurrent(served, 64)
    server.script(Rule(Behaviour(delay_ms=100)))

    result = served.eval("--llm-eval-no-gate", "-q")

    assert sum(result.parseoutcomes().values()) == 64
    assert IN_FLIGHT // 2 < server.stats.max_in_flight <= IN_FLIGHT


def test_a_stop_at_the_first_failure_wastes_at_most_the_window(
    served: Project, server: Loopback
) -> None:
    concurrent(served, 60)
    served.pytester.makeconftest(
        """
        def pytest_runtest_call(item):
            assert not item.name.startswith("t-0005")
        """
    )

    result = served.eval("-x", "--llm-eval-no-gate")

    assert result.ret == 1
    assert result.parseoutcomes()["failed"] == 1
    assert 5 <= sum(server.stats.by_case.values()) <= 5 + IN_FLIGHT + 1
    result.stdout.fnmatch_lines(["*evalkit run --resume *", "* calls ahead of the stop*"])


def test_durations_are_those_of_the_calls(served: Project, server: Loopback) -> None:
    concurrent(served, 16)
    server.script(Rule(Behaviour(delay_ms=300), case="t-0009"), Rule(Behaviour(delay_ms=40)))

    served.eval("--llm-eval-no-gate", "--junitxml", "junit.xml")

    took_s = {name: float(one.get("time") or 0) for name, one in served.junit().items()}
    slow_s = took_s.pop("t-0009[small/classify@v1]")
    assert slow_s >= 0.3
    assert min(took_s.values()) >= 0.04


def test_chosen_cases_alone_are_called(served: Project, server: Loopback) -> None:
    served.eval("--llm-eval-no-gate", "-k", "t-0004 or t-0007")

    assert dict(server.stats.by_case) == {"t-0004": 1, "t-0007": 1}


def test_an_interruption_ends_the_calls_and_keeps_what_is_done(
    served: Project, server: Loopback
) -> None:
    concurrent(served, 60)
    config = served.path / "evalkit.toml"
    text = config.read_text("utf-8").replace("[features.classify]", f"[features.classify]\n{SLOW}")
    config.write_text(text, encoding="utf-8")
    server.script(Rule(Behaviour(delay_ms=600_000), case="t-0020"))
    served.pytester.makeconftest(
        """
        import os, signal, threading

        def pytest_runtest_call(item):
            if item.name.startswith("t-0020"):
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        """
    )

    result = served.eval_apart("--llm-eval-no-gate")

    assert result.ret == 2
    result.stdout.fnmatch_lines(["run *: ?? of 60 cases, *", "*evalkit run --resume *"])
    result.stdout.fnmatch_lines(["*KeyboardInterrupt*"])
