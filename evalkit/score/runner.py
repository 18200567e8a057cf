"""Golden sets x pairs x trials, down the call path and through the tiers, into a journal.

One of the two places that write scores. A finished case is one journal line, written
as it finishes; a resumed run skips the keys it finds there. What went wrong with the
infrastructure stays apart from what went wrong with the answer: the first has no score.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from evalkit.call.budget import Budget
from evalkit.call.failures import FAILURES
from evalkit.call.orchestrator import Orchestrator
from evalkit.frozen import by_field
from evalkit.records import Answer, CallRecord, CallResult, Case, Mark, Pair, Score
from evalkit.score.golden import GoldenSet
from evalkit.score.summary import RunSummary as RunSummary
from evalkit.score.summary import count_line as count_line
from evalkit.score.summary import is_unfinished

T = TypeVar("T")
DRAIN_S = 5.0
"""How long calls in flight may still take after an interruption."""

Key = tuple[str, str, str, str, int]
"""(golden set, pair, case id, case hash, trial): what a finished case is known by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """One metric of a golden set, ready to score an answer."""

    metric: str
    tier: int
    name: str
    """The check's type or the judge's name."""
    version: str
    gate: bool
    must_pass: bool
    score: (
        Callable[[Answer], Awaitable[tuple[Mark, Sequence[CallRecord]]]] | Callable[[Answer], Mark]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSet:
    """A golden set with the pairs that run it, and how to score it."""

    golden: GoldenSet
    pairs: tuple[Pair, ...]
    trials: int
    case_numbers: Sequence[int]
    """Which cases run, by position in the golden set, in running order."""
    scorers: tuple[Scorer, ...]
    case_scorers: Callable[[Case], Sequence[Scorer]]
    """Scorers of the case's own checks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """Everything a run will do, decided before the first call."""

    run_id: str
    sets: tuple[PlannedSet, ...]
    concurrency: int
    seed: int | None
    budget: Budget | None
    """What model and judges may cost together; None: no limit."""

    @property
    def size(self) -> int:
        """Number of (case, pair, trial) units."""
        return sum(len(s.case_numbers) * len(s.pairs) * s.trials for s in self.sets)


StopRule = Callable[[Mapping[str, Any]], Collection[str]]
"""Is told every finished line; returns the golden sets that need no further case."""

Count = Callable[[Mapping[str, Any], RunSummary], None]


class Journal(Protocol):
    """Where finished cases go; `evalkit.store` has the real one."""

    def append(self, line: Mapping[str, Any]) -> None: ...

    def finished(self) -> Iterable[Mapping[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Unit:
    """One case, run once by one pair."""

    planned: PlannedSet
    number: int
    pair: Pair
    trial: int


Do = Callable[[Unit], Awaitable[dict[str, Any] | None]]
"""Runs a unit; its journal line, or None when the budget does not allow it.

What was paid for it until then is an unfinished line.
"""


async def run_plan(
    plan: RunPlan,
    *,
    orchestrator: Orchestrator,
    journal: Journal,
    on_progress: Callable[[RunSummary], None] = lambda summary: None,
    stop: asyncio.Event | None = None,
    stop_rule: StopRule | None = None,
    crew: AbstractAsyncContextManager[Do] | None = None,
) -> RunSummary:
    """Run what is not in the journal yet; returns when all is done or `stop` is set.

    Of golden sets that `stop_rule` has settled, only must-pass cases still run: a case
    that has to pass is no matter of statistics. `crew` runs the units elsewhere.
    """
    settled: set[str] = set()

    def count(line: Mapping[str, Any], summary: RunSummary) -> None:
        count_line(line, summary)
        if stop_rule is not None and not is_unfinished(line):
            settled.update(stop_rule(line))

    summary = RunSummary(planned=plan.size)
    finished = read_back(journal, summary, count)
    if plan.budget is not None:
        plan.budget.spent_usd = summary.cost_usd + summary.judge_cost_usd
    stop = stop or asyncio.Event()
    async with crew or nullcontext(
        lambda unit: run_unit(unit, plan, orchestrator, plan.budget)
    ) as do:
        await work_off(
            _units(plan, finished, settled),
            do,
            summary=summary,
            journal=journal,
            count=count,
            concurrency=plan.concurrency,
            on_progress=on_progress,
            stop=stop,
        )
    if settled and summary.stopped is None:
        summary.saved = summary.planned - summary.done
    return summary


async def work_off(
    units: Iterator[T],
    do: Callable[[T], Awaitable[dict[str, Any] | None]],
    *,
    summary: RunSummary,
    journal: Journal,
    count: Count,
    concurrency: int,
    on_progress: Callable[[RunSummary], None],
    stop: asyncio.Event,
) -> None:
    """Do all units, so many at a time, a journal line each.

    None or an unfinished line from `do` is a budget stop: nothing more is begun, and what is
    in flight, which is paid for, ends as it would have.

    The first unexpected exception (a bug, a full disk) cancels the rest and is raised;
    every case that finished before it is in the journal.
    """
    on_progress(summary)

    async def work() -> None:
        for unit in units:
            line = await do(unit)
            if line is None or is_unfinished(line):
                summary.stopped = "budget_stop"
            if line is not None:
                journal.append(line)
                count(line, summary)
                on_progress(summary)
            if stop.is_set() or summary.stopped is not None:
                return

    workers = [asyncio.create_task(work()) for _ in range(max(1, concurrency))]
    await _until_done(workers, stop)
    if stop.is_set() and not summary.complete and summary.stopped is None:
        summary.stopped = "cancelled"


async def _until_done(workers: Sequence[asyncio.Task[None]], stop: asyncio.Event) -> None:
    """Wait for the workers; once interrupted, those in flight get `DRAIN_S` to finish."""
    stopping = asyncio.create_task(stop.wait())
    pending: set[asyncio.Task[Any]] = set(workers)
    try:
        while pending:
            done, _ = await asyncio.wait(
                pending | {stopping},
                return_when=asyncio.FIRST_COMPLETED,
                timeout=DRAIN_S if stop.is_set() else None,
            )
            if not done:
                return
            for task in done & pending:
                task.result()
            pending -= done
            if stop.is_set() and pending:
                done, pending = await asyncio.wait(pending, timeout=DRAIN_S)
                for task in done:
                    task.result()
                return
    finally:
        for task in (*workers, stopping):
            task.cancel()
        await asyncio.gather(*workers, stopping, return_exceptions=True)


def _units(plan: RunPlan, finished: set[Key], settled: Collection[str]) -> Iterator[Unit]:
    """What is left to do; pairs take turns on each case, so that both see the same hour.

    `settled` grows meanwhile, and is looked at again before each case.
    """
    for planned in plan.sets:
        golden = planned.golden
        pairs = [(pair, str(pair)) for pair in planned.pairs]
        for number in planned.case_numbers:
            case_id, case_hash = golden.cases.ids[number], golden.cases.hash_at(number)
            if golden.name in settled and case_id not in golden.cases.must_pass:
                continue
            for trial in range(planned.trials):
                for pair, name in pairs:
                    if (golden.name, name, case_id, case_hash, trial) not in finished:
                        yield Unit(planned, number, pair, trial)


async def run_unit(
    unit: Unit, plan: RunPlan, orchestrator: Orchestrator, budget: Budget | None
) -> dict[str, Any] | None:
    """One case, once: call, score, journal line. See `Do` for when the budget does not allow it."""
    golden, pair = unit.planned.golden, unit.pair
    case = golden.cases[unit.number]
    key = [golden.name, str(pair), case.id, case.case_hash, unit.trial]
    result = await orchestrator.execute(
        golden.feature,
        case.input,
        model=pair.model,
        prompt=f"{pair.prompt_name}@{pair.prompt_version}",
        pinned=True,
        seed=None if plan.seed is None else plan.seed + unit.trial,
        budget=budget,
    )
    if result.error_kind == "budget":
        return unfinished_line(key, [result.record])
    scorers = (*unit.planned.scorers, *unit.planned.case_scorers(case))
    limit_ms = orchestrator.settings.features[golden.feature].max_latency_ms
    marks, judge_calls = await score_result(
        result, case, scorers, limit_ms=limit_ms, trial=unit.trial
    )
    if any(mark.outcome == "budget_stop" for mark in marks):
        return unfinished_line(key, [result.record, *judge_calls])
    scored = zip(scorers, marks, strict=True)
    quality = {one.metric: mark.score for one, mark in scored if mark.score is not None}
    return {
        "key": key,
        "calls": [
            {**by_field(result.record), "quality": quality},
            *(by_field(call) for call in judge_calls),
        ],
        "scores": score_rows(
            scorers,
            marks,
            case=case,
            record=result.record,
            golden=golden,
            pair=pair,
            trial=unit.trial,
            run_id=plan.run_id,
        ),
        "must_pass": must_pass_metrics(scorers, case),
    }


def unfinished_line(key: Sequence[Any], calls: Sequence[CallRecord]) -> dict[str, Any] | None:
    """What was paid for a case before the budget stopped it; None: nothing was.

    The case is asked again when the run goes on, but spent is spent. One more member keeps
    the key apart from that of the finished case, and of other tries.
    """
    paid = [by_field(call) for call in calls if call.attempts or call.error_kind != "budget"]
    if not paid:
        return None
    return {
        "key": [*key, paid[0]["trace_id"]],
        "unfinished": True,
        "calls": paid,
        "scores": [],
        "must_pass": [],
    }


def must_pass_metrics(scorers: Sequence[Scorer], case: Case) -> list[str]:
    """Metrics that this case has to pass, whatever the statistics say."""
    return [s.metric for s in scorers if s.must_pass or (case.must_pass and s.gate)]


async def score_result(
    result: CallResult, case: Case, scorers: Sequence[Scorer], *, limit_ms: float, trial: int
) -> tuple[list[Mark], list[CallRecord]]:
    """Score one result by every scorer; marks in the scorers' order, and the judges' calls.

    A failed call is not shown to the scorers: a product failure scores 0 on every
    metric, anything else has no score.
    """
    kind = failure_kind(result, limit_ms)
    if kind is not None:
        return [failure_mark(kind, result)] * len(scorers), []
    answer = Answer(
        output=result.output or "",
        case_id=case.id,
        input=case.input,
        expected=case.expected,
        has_expected=case.has_expected,
        metadata=case.metadata,
        record=result.record,
        trial=trial,
    )
    marks: list[Mark] = []
    calls: list[CallRecord] = []
    for scorer in scorers:
        scored = scorer.score(answer)
        if isinstance(scored, Mark):
            marks.append(scored)
        else:
            mark, made = await scored
            marks.append(mark)
            calls.extend(made)
    return marks, calls


def failure_kind(result: CallResult, limit_ms: float) -> str | None:
    """Why a result cannot be scored as an answer; None when it can.

    An answer that came after the feature's own latency budget is one that no user saw.
    """
    if result.error_kind is None and result.record.latency_ms > limit_ms:
        return "over_latency_budget"
    return result.error_kind


def failure_mark(kind: str, result: CallResult) -> Mark:
    """The mark of a call that gave no usable answer, by the failure table."""
    outcome = FAILURES[kind].outcome
    at_fault = outcome == "product_failure"
    return Mark(
        score=0.0 if at_fault else None,
        passed=False if at_fault else None,
        outcome=outcome,
        error_kind=kind,
        reason=result.record.route_reason,
    )


def score_rows(
    scorers: Sequence[Scorer],
    marks: Sequence[Mark],
    *,
    case: Case,
    record: CallRecord,
    golden: GoldenSet,
    pair: Pair,
    trial: int,
    run_id: str,
) -> list[dict[str, Any]]:
    """The rows of `scores` that the marks of one answer are."""
    slices = golden.slices_of(case)
    at = time.time_ns() // 1000
    return [
        by_field(
            Score(
                run_id=run_id,
                golden_set=golden.name,
                golden_set_hash=golden.hash,
                case_id=case.id,
                case_hash=case.case_hash,
                cluster=case.cluster,
                trial=trial,
                model=pair.model,
                served_model=record.served_model,
                prompt_name=record.prompt_name,
                prompt_version=record.prompt_version,
                prompt_hash=record.prompt_hash,
                metric=scorer.metric,
                tier=scorer.tier,
                score=mark.score,
                passed=mark.passed,
                outcome=mark.outcome,
                error_kind=mark.error_kind,
                reason=mark.reason,
                scorer=scorer.name,
                scorer_version=scorer.version,
                slices=slices,
                inclusion_prob=None,
                trace_id=record.trace_id,
                latency_ms=record.latency_ms,
                ttft_ms=record.ttft_ms,
                cost_usd=record.cost_usd,
                created_at=at,
            )
        )
        for scorer, mark in zip(scorers, marks, strict=True)
    ]


def order_cases(n_cases: int, *, limit: int | None, seed: int | None) -> Sequence[int]:
    """Positions of the cases to run: file order, or a seeded draw of `limit` of them."""
    if limit is None or limit >= n_cases:
        return range(n_cases)
    return sorted(random.Random(seed or 0).sample(range(n_cases), limit))


def shuffle_drawn(
    numbers: Sequence[int], clusters: Sequence[str | None], *, seed: int | str
) -> list[int]:
    """The cases in a random order; those of one cluster stay together, as they were drawn.

    `clusters` is of the whole golden set, by position.
    """
    drawn: dict[str | int, list[int]] = {}
    for number in numbers:
        cluster = clusters[number]
        drawn.setdefault(number if cluster is None else cluster, []).append(number)
    groups = list(drawn.values())
    random.Random(seed).shuffle(groups)
    return [number for group in groups for number in group]


def read_back(journal: Journal, summary: RunSummary, count: Count) -> set[Key]:
    """Keys of the cases that earlier sessions of this run finished, counted into `summary`.

    What they paid for others is counted, too.
    """
    finished: set[Key] = set()
    for line in journal.finished():
        if is_unfinished(line):
            count(line, summary)
            continue
        golden_set, pair, case_id, case_hash, trial = line["key"]
        key = (golden_set, pair, case_id, case_hash, trial)
        if key not in finished:
            finished.add(key)
            count(line, summary)
    summary.resumed = len(finished)
    return finished
