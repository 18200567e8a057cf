"""Progress of long work on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from evalkit.score.runner import RunSummary

QUIET_LINE_EVERY_S = 15.0
BAR_EVERY_S = 0.1
Show: TypeAlias = Callable[[int, int, Callable[[], str]], None]
"""Told how many are done, how many of them were before, and what else to say when asked."""


def describe(summary: RunSummary) -> str:
    """Errors and cost so far, in a few words."""
    parts = []
    failed = summary.outcomes["product_failure"]
    if failed:
        parts.append(f"{failed} failed and score 0")
    missing = sum(summary.outcomes.values()) - failed - summary.outcomes["scored"]
    if missing:
        parts.append(f"{missing} not scored")
    cost_usd = summary.cost_usd + summary.judge_cost_usd
    parts.append(f"${cost_usd:.4f}" + (" + unpriced" if summary.unpriced_calls else ""))
    return ", ".join(parts)


@contextmanager
def run_progress(planned: int) -> Iterator[Callable[[RunSummary], None]]:
    """Yield the function that shows where a run is."""
    with _progress(planned, "cases") as show:
        yield lambda summary: show(summary.done, summary.resumed, lambda: describe(summary))


@contextmanager
def count_progress(planned: int, what: str) -> Iterator[Callable[[], None]]:
    """Yield the function that counts one more of what is planned, and shows how far that is."""
    done = count(1)
    with _progress(planned, what) as show:
        yield lambda: show(next(done), 0, str)


@contextmanager
def _progress(planned: int, what: str) -> Iterator[Show]:
    if sys.stderr.isatty():
        with _bar(planned) as show:
            yield show
    else:
        yield _lines(planned, what)


def _lines(planned: int, what: str) -> Show:
    started = last = time.monotonic()

    def show(done: int, before: int, note: Callable[[], str]) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < QUIET_LINE_EVERY_S:
            return
        last = now
        rate = f"{(done - before) / max(now - started, 1e-9):.1f}/s"
        line = ", ".join(filter(None, (f"{done}/{planned} {what}", rate, note())))
        sys.stderr.write(f"{line}\n")

    return show


@contextmanager
def _bar(planned: int) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("running", total=planned, rate="", note="")
        started, last = time.monotonic(), 0.0

        def show(done: int, before: int, note: Callable[[], str]) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < BAR_EVERY_S and done < planned:
                return
            last = now
            rate = (done - before) / max(now - started, 1e-9)
            progress.update(task, completed=done, rate=f"{rate:.0f}/s", note=note())

        yield show
