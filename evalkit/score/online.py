"""Scores production's calls: tier 1 on every one of a window, judges on a drawn sample.

One of the two places that write scores: journal lines of a run whose kind is "sample".
No model under test is called and nothing has an expected value: only metrics that need
none are used. Each score of a judge carries the chance that its call had of being drawn.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from evalkit.call.budget import Budget
from evalkit.call.failures import FAILURES
from evalkit.frozen import by_field
from evalkit.records import CallRecord, Case, Pair
from evalkit.score.golden import GoldenSet
from evalkit.score.log_draw import DrawRule, Place, draw_calls
from evalkit.score.metric_specs import Missing, canonical
from evalkit.score.rescore import stored_result
from evalkit.score.runner import (
    Journal,
    Key,
    Scorer,
    read_back,
    score_result,
    score_rows,
    work_off,
)
from evalkit.score.sampling import Unit
from evalkit.score.stored import call_record
from evalkit.score.summary import RunSummary, count_rescored_line
from evalkit.store.engine import Engine
from evalkit.store.schema import TABLES

BATCH = 500
"""Calls read from the store at a time."""
STRATA = tuple(
    column.name
    for column in TABLES["calls"]
    if column.kind in ("text", "bool") and column.name not in ("trace_id", "output")
)
"""Columns of `calls` that can make strata."""

_WINDOW = "epoch_us(ts) >= $since AND epoch_us(ts) < $until"
_INTEREST = """
    (CASE WHEN confidence < 0.5 THEN 1 - confidence ELSE 0 END)
    + (CASE WHEN repaired THEN 1 ELSE 0 END) + (CASE WHEN escalated THEN 0.5 ELSE 0 END)
    + (CASE WHEN schema_ok = false THEN 1 ELSE 0 END)
    + (CASE WHEN len(guard_events) > 0 THEN 0.5 ELSE 0 END)
    + (CASE WHEN user_feedback IS NOT NULL AND user_feedback NOT IN ('up', '1', 'good', 'positive')
        THEN 1 ELSE 0 END)
"""
"""How much a person would want to look: doubt, repair, guards, what users complained of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineSet:
    """A golden set's metrics, as far as they can score a call that has no expected value."""

    golden: GoldenSet
    scorers: tuple[tuple[Scorer, Missing | None], ...]
    """Each with what it asks of a call's input; None: nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePlan:
    """What a sampling job does, decided before the first judge is asked."""

    run_id: str
    since: int
    until: int
    """Microseconds since 1970; the window is since <= ts < until."""
    rule: DrawRule
    by: tuple[str, ...]
    sets: tuple[OnlineSet, ...]
    limits_ms: Mapping[str, float]
    """Feature -> its latency budget."""
    concurrency: int
    budget: Budget | None

    @property
    def features(self) -> list[str]:
        return sorted({one.golden.feature for one in self.sets})


@dataclass(frozen=True, slots=True)
class LoggedCall:
    """A call of the window, and why it is in the sample; None: it is not."""

    trace_id: str
    feature: str
    stratum: Mapping[str, str]
    place: Place | None


@dataclass(frozen=True, slots=True)
class _Work:
    online: OnlineSet
    logged: LoggedCall
    record: CallRecord


def draw_window(engine: Engine, plan: SamplePlan) -> list[LoggedCall]:
    """All calls of the window that have texts, in order of their ids; the sampled ones marked."""
    columns = ("feature", *(name for name in plan.by if name != "feature"))
    listed = ", ".join(f"coalesce({name}::VARCHAR, '') AS {name}" for name in columns)
    rows = engine.rows(
        f"SELECT trace_id, {listed}, ({_INTEREST})::DOUBLE AS interest FROM calls"
        f" WHERE {_WINDOW} AND list_contains($features, feature) AND input IS NOT NULL"
        f" AND (output IS NOT NULL OR error_kind IS NOT NULL) ORDER BY trace_id",
        {"since": plan.since, "until": plan.until, "features": plan.features},
    )
    found = {row["trace_id"]: row for row in rows}
    units = [
        Unit(
            key=key,
            stratum=canonical([row[name] for name in columns]),
            interest=row["interest"] or 0.0,
        )
        for key, row in found.items()
    ]
    drawn = draw_calls(units, plan.rule)
    return [
        LoggedCall(key, row["feature"], {name: row[name] for name in columns}, drawn.get(key))
        for key, row in found.items()
    ]


async def run_sample(
    plan: SamplePlan,
    calls: Sequence[LoggedCall],
    *,
    engine: Engine,
    journal: Journal,
    on_progress: Callable[[RunSummary], None] = lambda summary: None,
    stop: asyncio.Event | None = None,
) -> RunSummary:
    """Score what is not in the journal yet; ends as a run does."""
    sets: dict[str, list[OnlineSet]] = {}
    for one in plan.sets:
        sets.setdefault(one.golden.feature, []).append(one)
    summary = RunSummary(planned=sum(len(sets[call.feature]) for call in calls))
    finished = read_back(journal, summary, count_rescored_line)
    if plan.budget is not None:
        plan.budget.spent_usd = summary.judge_cost_usd
    await work_off(
        _works(engine, calls, sets, finished),
        lambda work: _score(work, plan),
        summary=summary,
        journal=journal,
        count=count_rescored_line,
        concurrency=plan.concurrency,
        on_progress=on_progress,
        stop=stop or asyncio.Event(),
    )
    return summary


def _works(
    engine: Engine,
    calls: Sequence[LoggedCall],
    sets: Mapping[str, Sequence[OnlineSet]],
    finished: set[Key],
) -> Iterator[_Work]:
    done = {(golden_set, trace_id) for golden_set, _, trace_id, _, _ in finished}
    for start in range(0, len(calls), BATCH):
        batch = calls[start : start + BATCH]
        rows = engine.rows(
            "SELECT * FROM calls WHERE trace_id IN (SELECT unnest($1))",
            [[call.trace_id for call in batch]],
        )
        records = {row["trace_id"]: row for row in rows}
        for call in batch:
            for online in sets[call.feature]:
                if (online.golden.name, call.trace_id) not in done:
                    yield _Work(online, call, call_record(records[call.trace_id]))


async def _score(work: _Work, plan: SamplePlan) -> dict[str, Any] | None:
    """A journal line for one call; None when the budget does not allow its judges."""
    logged, golden = work.logged, work.online.golden
    record = _known_failure(work.record)
    case = _as_case(record)
    asked = {"input": case.input}
    scorers = [
        scorer
        for scorer, missing in work.online.scorers
        if (scorer.tier == 1 or logged.place is not None)
        and (missing is None or missing(asked) is None)
    ]
    pair = Pair(
        model=record.model,
        prompt_name=record.prompt_name,
        prompt_version=record.prompt_version,
    )
    marks, judge_calls = await score_result(
        stored_result(record),
        case,
        scorers,
        limit_ms=plan.limits_ms.get(logged.feature, float("inf")),
        trial=0,
    )
    if any(mark.outcome == "budget_stop" for mark in marks):
        return None
    rows = score_rows(
        scorers,
        marks,
        case=case,
        record=record,
        golden=golden,
        pair=pair,
        trial=0,
        run_id=plan.run_id,
    )
    return {
        "key": [golden.name, str(pair), case.id, case.case_hash, 0],
        "calls": [by_field(call) for call in judge_calls],
        "scores": [_drawn_row(row, logged) for row in rows],
        "must_pass": [],
    }


def _drawn_row(row: dict[str, Any], logged: LoggedCall) -> dict[str, Any]:
    """A score with how its call came to be scored: every call by checks, the sample by judges."""
    if row["tier"] == 1:
        share, chance = "all", 1.0
    else:
        assert logged.place is not None
        share, chance = logged.place.share, logged.place.inclusion_prob  # type: ignore[assignment]
    return {**row, "inclusion_prob": chance, "slices": {**logged.stratum, "share": share}}


def _known_failure(record: CallRecord) -> CallRecord:
    """A failure of a kind that our table has: an imported log may say anything."""
    if record.error_kind is None or record.error_kind in FAILURES:
        return record
    return replace(record, error_kind="server")


def _as_case(record: CallRecord) -> Case:
    """A call as a case of its own; calls of one session are not independent."""
    given = record.input if isinstance(record.input, Mapping) else {"text": record.input}
    text = canonical(given).encode("utf-8", errors="replace")
    return Case(
        id=record.trace_id,
        input=given,
        expected=None,
        has_expected=False,
        metadata={},
        cluster=record.session_id,
        must_pass=False,
        checks=(),
        case_hash=hashlib.sha256(text).hexdigest()[:16],
        line=0,
    )


def window_name(since: int, until: int) -> str:
    """`20260301T100000-20260302T100000`, UTC."""
    ends = (datetime.fromtimestamp(at / 1e6, tz=UTC) for at in (since, until))
    return "-".join(at.strftime("%Y%m%dT%H%M%S") for at in ends)
