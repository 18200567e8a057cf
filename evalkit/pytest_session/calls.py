"""Executes the session's units, ahead of the items that report them."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol

from evalkit.pytest_session.ahead import LoopThread, RunAhead
from evalkit.pytest_session.runs import Line
from evalkit.pytest_session.units import SessionPlan, Wanted
from evalkit.records import CallResult
from evalkit.score.runner import Unit, run_unit
from evalkit.session import GC_EVERY

WINDOW = 2
"""How many times the concurrency may be under way or done ahead of the item that reports."""


class Results(Protocol):
    """Where the results of units go, and come from where another process has them."""

    async def result(
        self, unit: Wanted, run_id: str, do: Callable[[], Awaitable[Line | None]]
    ) -> Line | None: ...


class Calls:
    """The event loop's thread, and what it works on, from the first item to the last."""

    def __init__(
        self,
        plan: SessionPlan,
        results: Results,
        *,
        concurrency: int,
        uses: Counter[Wanted],
        stops_at_failure: bool,
    ) -> None:
        self._plan = plan
        self._results = results
        self._gc = gc.get_threshold()
        gc.freeze()
        gc.set_threshold(GC_EVERY, 10, 10)
        self._thread = LoopThread()
        # What is done ahead of a failure under -x is done for nothing.
        window = concurrency * (1 if stops_at_failure else WINDOW)
        self._ahead: RunAhead[Wanted, Line | None] = RunAhead(
            self._do, thread=self._thread, concurrency=concurrency, window=window, uses=uses
        )

    @property
    def ahead(self) -> int:
        """Calls made or under way that no item has asked for."""
        return self._ahead.ahead

    def lines(self, units: Sequence[Wanted], upcoming: Iterable[Wanted]) -> list[Line | None]:
        """The lines of `units`, while what comes next is worked on; None: not allowed to run."""
        self._ahead.fill(upcoming)
        return self._ahead.take(units)

    def execute(self, feature: str, input: Any, **asked: Any) -> CallResult:
        """One call that belongs to no run."""
        budget = self._plan.budget
        return self._thread.run(
            self._plan.orchestrator.execute(feature, input, pinned=True, budget=budget, **asked)
        )

    def close(self, *, finish: bool) -> None:
        """End the thread; with `finish` what is under way ends by itself, if it is soon."""
        if finish:
            self._thread.run(self._ahead.drain())
        self._thread.close(self._plan.orchestrator.aclose())
        gc.set_threshold(*self._gc)
        gc.unfreeze()

    async def _do(self, wanted: Wanted) -> Line | None:
        plan, planned = self._plan.places[wanted.path, wanted.pair]
        unit = Unit(planned, wanted.number, wanted.pair, wanted.trial)

        async def run() -> Line | None:
            return await run_unit(unit, plan, self._plan.orchestrator, plan.budget)

        return await self._results.result(wanted, plan.run_id, run)
