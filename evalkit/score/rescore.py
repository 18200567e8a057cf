"""Scores the stored answers of a sealed run again, with the scorers as they are now.

Calls no model under test: only judges cost anything. What failed then has failed: a
product failure keeps its 0, an infrastructure error stays missing. Writes journal lines
of a run of its own and never touches the one it reads.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.call.budget import Budget
from evalkit.frozen import by_field
from evalkit.records import CallRecord, CallResult
from evalkit.score.metric_specs import canonical
from evalkit.score.runner import (
    Journal,
    PlannedSet,
    Scorer,
    must_pass_metrics,
    read_back,
    score_result,
    score_rows,
    unfinished_line,
    work_off,
)
from evalkit.score.stored import Execution, StoredAnswer, StoredRun
from evalkit.score.summary import RunSummary, count_rescored_line

LATE = "over_latency_budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A stored answer that is not scored again, and why."""

    golden_set: str
    case_id: str
    why: str
    """gone: no such case now; changed: another input; edited: the same input, but other
    expected values or checks; no_call: its answer is not stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RescorePlan:
    """What is scored again, decided before the first judge is asked."""

    run_id: str
    sets: Mapping[str, PlannedSet]
    executions: tuple[Execution, ...]
    left_out: tuple[LeftOut, ...]
    metrics: Collection[str] | None
    """Metrics scored anew, the others keep their scores; None: all are scored anew."""
    concurrency: int
    budget: Budget | None


def choose_executions(
    stored: StoredRun, sets: Mapping[str, PlannedSet], *, edited: bool
) -> tuple[tuple[Execution, ...], tuple[LeftOut, ...]]:
    """What can be scored again, and what is left out, a line for each case.

    A case with another hash is another case, unless `edited` and its input is the same.
    """
    chosen: list[Execution] = []
    doubtful: list[Execution] = []
    left: dict[tuple[str, str], str] = {}
    for one in stored.executions():
        cases = sets[one.golden_set].golden.cases if one.golden_set in sets else None
        if one.trace_id is None:
            left[one.golden_set, one.case_id] = "no_call"
        elif cases is None or one.case_id not in cases:
            left[one.golden_set, one.case_id] = "gone"
        elif cases.hash_of(one.case_id) == one.case_hash:
            chosen.append(one)
        else:
            doubtful.append(one)
    inputs = stored.inputs([one.trace_id for one in doubtful if one.trace_id]) if doubtful else {}
    for one in doubtful:
        case = sets[one.golden_set].golden.cases.of(one.case_id)
        same = one.trace_id in inputs and canonical(inputs[one.trace_id]) == canonical(case.input)
        if same and edited:
            chosen.append(one)
        else:
            left[one.golden_set, one.case_id] = "edited" if same else "changed"
    return tuple(chosen), tuple(
        LeftOut(golden_set=golden_set, case_id=case_id, why=why)
        for (golden_set, case_id), why in sorted(left.items())
    )


async def run_rescore(
    plan: RescorePlan,
    *,
    stored: StoredRun,
    journal: Journal,
    on_progress: Callable[[RunSummary], None] = lambda summary: None,
    stop: asyncio.Event | None = None,
) -> RunSummary:
    """Score what is not in the journal yet; ends as `run_plan` does."""
    summary = RunSummary(planned=len(plan.executions))
    finished = read_back(journal, summary, count_rescored_line)
    if plan.budget is not None:
        plan.budget.spent_usd = summary.judge_cost_usd
    left = [one for one in plan.executions if _key(one, plan) not in finished]
    await work_off(
        stored.answers(left),
        lambda answer: rescore_answer(answer, plan),
        summary=summary,
        journal=journal,
        count=count_rescored_line,
        concurrency=plan.concurrency,
        on_progress=on_progress,
        stop=stop or asyncio.Event(),
    )
    return summary


def _key(one: Execution, plan: RescorePlan) -> tuple[str, str, str, str, int]:
    """As the new journal has it: with the hash of the case as it is scored now."""
    case_hash = plan.sets[one.golden_set].golden.cases.hash_of(one.case_id)
    return (one.golden_set, str(one.pair), one.case_id, case_hash, one.trial)


async def rescore_answer(answer: StoredAnswer, plan: RescorePlan) -> dict[str, Any] | None:
    """A journal line for one stored answer; unfinished or None: the budget stopped its judges."""
    one, record = answer.execution, answer.record
    planned = plan.sets[one.golden_set]
    case = planned.golden.cases.of(one.case_id)
    scorers = (*planned.scorers, *planned.case_scorers(case))
    # What an edited case was given before is the score of another case.
    every = plan.metrics is None or case.case_hash != one.case_hash
    again = [s for s in scorers if every or s.metric in (plan.metrics or ())]
    marks, judge_calls = await score_result(
        stored_result(record), case, again, limit_ms=_limit_ms(answer), trial=one.trial
    )
    if any(mark.outcome == "budget_stop" and mark.error_kind == "budget" for mark in marks):
        return unfinished_line(_key(one, plan), judge_calls)
    fresh = score_rows(
        again,
        marks,
        case=case,
        record=record,
        golden=planned.golden,
        pair=one.pair,
        trial=one.trial,
        run_id=plan.run_id,
    )
    return {
        "key": list(_key(one, plan)),
        "calls": [by_field(call) for call in judge_calls],
        "scores": [*fresh, *_kept(answer, scorers, again, plan)],
        "must_pass": must_pass_metrics(scorers, case),
    }


def stored_result(record: CallRecord) -> CallResult:
    """The result that the call gave, as far as its record tells."""
    return CallResult(
        status=record.status,
        output=record.output,
        value=None,
        error_kind=record.error_kind,
        message=None,
        record=record,
    )


def _limit_ms(answer: StoredAnswer) -> float:
    """Late is what was late then, whatever the feature's latency budget has become."""
    return -1.0 if any(row["error_kind"] == LATE for row in answer.scores) else math.inf


def _kept(
    answer: StoredAnswer, scorers: Sequence[Scorer], again: Sequence[Scorer], plan: RescorePlan
) -> list[dict[str, Any]]:
    """Scores that are carried over as they were: of metrics not chosen, and still there."""
    keep = {s.metric for s in scorers} - {s.metric for s in again}
    golden = plan.sets[answer.execution.golden_set].golden
    changed = {"run_id": plan.run_id, "golden_set_hash": golden.hash}
    return [{**row, **changed} for row in answer.scores if row["metric"] in keep]
