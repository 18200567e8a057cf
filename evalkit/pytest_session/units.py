"""Which calls the session's items need, and in which run each is kept.

A gate is about all cases of its golden set: those that no item runs it runs itself. So the
pairs whose gate is among the items make one whole run, which can be compared; what else
was asked for (a case by its id, `-k`) makes another one, complete only if it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from evalkit.call.budget import Budget
from evalkit.call.orchestrator import Orchestrator
from evalkit.config import Settings
from evalkit.records import Pair
from evalkit.score.golden import GoldenSet
from evalkit.score.runner import PlannedSet, RunPlan, order_cases
from evalkit.wiring import PreparedRun, RunRequest, prepare_run


class Wanted(NamedTuple):
    """One execution of a case by a pair, as an item asks for it."""

    path: str
    """The golden set's header; text, because pathlib's paths are slow as keys."""
    pair: Pair
    number: int
    trial: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIds:
    """Ids of a session's runs: of the pairs whose gate is among the items, and of the rest."""

    gated: str
    rest: str

    def of(self, gated: bool) -> str:
        return self.gated if gated else self.rest


Parts = Mapping[tuple[str, Pair], bool]
"""(golden set, pair) that has an item -> whether its gate is one."""


def units_of_case(golden: GoldenSet, pair: Pair, number: int, request: RunRequest) -> list[Wanted]:
    """The trials of one case."""
    trials = request.trials or golden.trials
    path = str(golden.path)
    return [Wanted(path, pair, number, trial) for trial in range(trials)]


def numbers_of(golden: GoldenSet, request: RunRequest) -> Sequence[int]:
    """Which cases run, by position; the same ones as in `evalkit run`."""
    return order_cases(len(golden.cases), limit=request.limit, seed=request.seed)


def units_of_set(golden: GoldenSet, pair: Pair, request: RunRequest) -> Iterator[Wanted]:
    """All that the gate of a pair needs."""
    for number in numbers_of(golden, request):
        yield from units_of_case(golden, pair, number, request)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionPlan:
    """What is needed to execute any unit of the session."""

    orchestrator: Orchestrator
    budget: Budget | None
    concurrency: int
    runs: tuple[PreparedRun, ...]
    """With at least one unit each."""
    places: Mapping[tuple[str, Pair], tuple[RunPlan, PlannedSet]]


def plan_session(
    settings: Settings,
    request: RunRequest,
    *,
    parts: Parts,
    sets: Sequence[GoldenSet],
    ids: RunIds,
) -> SessionPlan:
    """Prompts, judges and scorers, ready. Raises EvalkitError with what is wrong with them."""
    prepared = prepare_run(settings, request, run_id=ids.gated, sets=sets)
    runs, places = [], {}
    for gated in (True, False):
        chosen = (_with_pairs(one, parts, gated) for one in prepared.plan.sets)
        of_run = tuple(one for one in chosen if one.pairs)
        if not of_run:
            continue
        plan = replace(prepared.plan, run_id=ids.of(gated), sets=of_run)
        runs.append(replace(prepared, plan=plan))
        places.update({(str(one.golden.path), p): (plan, one) for one in of_run for p in one.pairs})
    return SessionPlan(
        orchestrator=prepared.orchestrator,
        budget=prepared.plan.budget,
        concurrency=prepared.plan.concurrency,
        runs=tuple(runs),
        places=places,
    )


def _with_pairs(one: PlannedSet, parts: Parts, gated: bool) -> PlannedSet:
    path = str(one.golden.path)
    return replace(one, pairs=tuple(p for p in one.pairs if parts.get((path, p)) is gated))
