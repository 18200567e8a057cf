"""What a worker is told of a run or a sampling job, and how it does its part.

A job is small and can be pickled: settings, request and what the driver found. The worker
prepares the same plan from its own copy of the project by the same code, refuses when that
differs from the driver's, and does one unit at a time as the driver would have.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from evalkit import __version__
from evalkit.call.sharing import Sharing
from evalkit.config import Settings
from evalkit.errors import ConfigError
from evalkit.log_sampling import PreparedSample, SampleRequest, prepare_sample
from evalkit.records import CallRecord, Pair
from evalkit.score.log_draw import Place
from evalkit.score.online import SamplePlan, Work, score_call
from evalkit.score.runner import Unit, run_unit
from evalkit.session import prompt_hashes, refuse_if_changed
from evalkit.wiring import PreparedRun, RunRequest, prepare_run

Line = dict[str, Any]
DoTask = Callable[[Any], Awaitable[Line | None]]


class Job(Protocol):
    """What workers do."""

    @property
    def settings(self) -> Settings: ...

    @property
    def version(self) -> str:
        """Of the driver's evalkit."""

    @property
    def has_budget(self) -> bool: ...

    def at_work(self, sharing: Sharing) -> AbstractAsyncContextManager[DoTask]:
        """On a worker: what does a task, as long as the block lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitName:
    """A unit of a run, as a process that has the same plan knows it."""

    golden_set: str
    number: int
    pair: Pair
    trial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunJob:
    """A run of golden sets."""

    settings: Settings
    request: RunRequest
    run_id: str
    has_budget: bool
    facts: Mapping[str, Any]
    """Hashes of golden sets and prompts, as the run's manifest has them."""
    version: str = __version__

    @classmethod
    def of(cls, settings: Settings, request: RunRequest, prepared: PreparedRun) -> RunJob:
        plan = prepared.plan
        paths = tuple(one.golden.path.absolute() for one in plan.sets)
        return cls(
            settings=settings,
            request=replace(request, golden_sets=paths),
            run_id=plan.run_id,
            has_budget=plan.budget is not None,
            facts={
                "golden_sets": {s.golden.name: {"hash": s.golden.hash} for s in plan.sets},
                "prompts": prompt_hashes(prepared),
            },
        )

    @staticmethod
    def name_of(unit: Unit) -> UnitName:
        return UnitName(
            golden_set=unit.planned.golden.name,
            number=unit.number,
            pair=unit.pair,
            trial=unit.trial,
        )

    @asynccontextmanager
    async def at_work(self, sharing: Sharing) -> AsyncIterator[DoTask]:
        prepared = prepare_run(self.settings, self.request, run_id=self.run_id, sharing=sharing)
        refuse_if_changed(self.facts, prepared)
        plan = prepared.plan
        sets = {one.golden.name: one for one in plan.sets}
        async with prepared.orchestrator as orchestrator:

            async def do(name: UnitName) -> Line | None:
                unit = Unit(sets[name.golden_set], name.number, name.pair, name.trial)
                return await run_unit(unit, plan, orchestrator, sharing.budget)

            yield do


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkName:
    """A call to be judged, and by which golden set of the plan."""

    golden_set: str
    stratum: Mapping[str, str]
    place: Place | None
    record: CallRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleJob:
    """A sampling job: the calls drawn go to workers, whose judges score them."""

    settings: Settings
    request: SampleRequest
    since: int
    until: int
    has_budget: bool
    config: str
    version: str = __version__

    @classmethod
    def of(
        cls, settings: Settings, request: SampleRequest, prepared: PreparedSample, plan: SamplePlan
    ) -> SampleJob:
        paths = tuple(one.golden.path.absolute() for one in plan.sets)
        return cls(
            settings=settings,
            request=replace(request, golden_sets=paths),
            since=plan.since,
            until=plan.until,
            has_budget=plan.budget is not None,
            config=prepared.config,
        )

    @staticmethod
    def name_of(work: Work) -> WorkName:
        return WorkName(
            golden_set=work.online.golden.name,
            stratum=work.stratum,
            place=work.place,
            record=work.record,
        )

    @asynccontextmanager
    async def at_work(self, sharing: Sharing) -> AsyncIterator[DoTask]:
        prepared = prepare_sample(self.settings, self.request, sharing=sharing)
        if prepared.config != self.config:
            raise ConfigError(
                f"a worker has other golden sets or judges in {self.settings.root} than the "
                "driver. Bring the project there up to date."
            )
        plan = prepared.plan(self.settings, self.request, since=self.since, until=self.until)
        sets = {one.golden.name: one for one in plan.sets}
        async with prepared.bench.orchestrator:

            async def do(name: WorkName) -> Line | None:
                work = Work(sets[name.golden_set], name.stratum, name.place, name.record)
                return await score_call(work, plan)

            yield do
