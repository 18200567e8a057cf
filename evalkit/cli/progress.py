"""A run's progress on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evalkit.score.runner import RunSummary

QUIET_LINE_EVERY_S = 15.0
BAR_EVERY_S = 0.1


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
    if sys.stderr.isatty():
        with _bar(planned) as update:
            yield update
    else:
        yield _lines()


def _lines() -> Callable[[RunSummary], None]:
    started = last = time.monotonic()

    def update(summary: RunSummary) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < QUIET_LINE_EVERY_S:
            return
        last = now
        rate = (summary.done - summary.resumed) / max(now - started, 1e-9)
        sys.stderr.write(
            f"{summary.done}/{summary.planned} cases, {rate:.1f}/s, {describe(summary)}\n"
        )

    return update


@contextmanager
def _bar(planned: int) -> Iterator[Callable[[RunSummary], None]]:
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

        def update(summary: RunSummary) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < BAR_EVERY_S and not summary.complete:
                return
            last = now
            rate = (summary.done - summary.resumed) / max(now - started, 1e-9)
            progress.update(
                task, completed=summary.done, rate=f"{rate:.0f}/s", note=describe(summary)
            )

        yield update
