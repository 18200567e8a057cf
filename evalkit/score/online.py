"""Scores production's calls: tier 1 on every one of a window, judges on a drawn sample.

One of the two places that write scores: journal lines of a run whose kind is "sample".
No model under test is called and nothing has an expected value: only metrics that need
none are used. Each score of a judge carries the chance that its call had of being drawn.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from evalkit.call.budget import Budget
from evalkit.call.failures import FAILURES
from evalkit.frozen import by_field
from evalkit.records import CallRecord, Case, Pair
from evalkit.score.golden import GoldenSet
from evalkit.score.log_draw import Draw, DrawRule, Place, Strata
from evalkit.score.metric_specs import Missing, canonical
from evalkit.score.rescore import stored_result
from evalkit.score.runner import (
    Journal,
    Key,
    Scorer,
    read_back,
    score_result,
    score_rows,
    unfinished_line,
    work_off,
)
from evalkit.score.stored import call_record
from evalkit.score.summary import RunSummary, count_rescored_line
from evalkit.store.engine import Engine
from evalkit.store.schema import TABLES

PAGE = 5_000
"""Calls in memory at a time, roughly: pages are stretches of time."""
BINS = 1 << 16
"""Stretches of a window that are counted, to lay its pages out."""
STRATA = tuple(
    column.name
    for column in TABLES["calls"]
    if column.kind in ("text", "bool") and column.name not in ("trace_id", "output")
)
"""Columns of `calls` that can make strata."""

_WINDOW = "ts >= $since AND ts < $until AND list_position($features, feature) > 0"
"""Times as such, so that whole files and row groups of other times are passed over.

Of each distinct feature a place is found once; `list_contains` would look at each call.
"""
_HAS_TEXT = "input IS NOT NULL"
_CALLS = """(
    SELECT calls.* REPLACE (coalesce(said, user_feedback) AS user_feedback)
    FROM calls LEFT JOIN (
        SELECT trace_id, max_by(
            coalesce(label, CASE WHEN score >= 0.5 THEN 'up' WHEN score < 0.5 THEN 'down' END),
            given_at) AS said
        FROM feedback GROUP BY 1
    ) USING (trace_id)
)"""
"""Calls with what their users said last, when they did so after the call was logged."""
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
    with_feedback: bool = False
    """Whether the engine has the view `feedback`, and something in it."""

    @property
    def calls(self) -> str:
        """What stands behind FROM."""
        return _CALLS if self.with_feedback else "calls"

    @property
    def features(self) -> list[str]:
        return sorted({one.golden.feature for one in self.sets})


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnWindow:
    """The calls of a window that have texts, and who of them the judges are asked about."""

    calls: Mapping[str, int]
    """Feature -> how many there are."""
    drawn: Mapping[str, Place]
    """Trace id of each call drawn -> why."""

    @property
    def size(self) -> int:
        return sum(self.calls.values())

    @property
    def shares(self) -> dict[str, int]:
        """Calls drawn by chance, and those picked."""
        counts = {"random": 0, "active": 0}
        for place in self.drawn.values():
            counts[place.share] += 1
        return counts


@dataclass(frozen=True, slots=True)
class Work:
    """One call of the window, to be scored by one golden set's metrics."""

    online: OnlineSet
    stratum: Mapping[str, str]
    place: Place | None
    record: CallRecord


Do = Callable[[Work], Awaitable[dict[str, Any] | None]]
"""Scores a call; its journal line, unfinished or None when the budget stopped its judges."""


def draw_window(engine: Engine, plan: SamplePlan) -> DrawnWindow:
    """Count the window's calls and draw from them, in one pass that holds few of them.

    Strata are known by the engine's own hash of their names: that of one connection is enough.
    """
    # Not `coalesce`, which looks at each call: `concat` at each distinct value.
    texts = ", ".join(f"concat({name}, '')" for name in _strata_columns(plan))
    wants_doubt = plan.rule.active_share > 0
    doubt = f", coalesce(({_INTEREST})::DOUBLE, 0) AS doubt" if wants_doubt else ""
    draw, strata = Draw(plan.rule), Strata()
    for batch in engine.batches(
        f"SELECT trace_id, list_position($features, feature) AS feature,"
        f" hash({texts}) AS stratum{doubt} FROM {plan.calls} WHERE {_where(engine)}",
        _window(plan),
    ):
        numbers = strata.numbers(batch["stratum"].to_numpy(), batch["feature"].to_numpy())
        draw.add(batch["trace_id"], numbers, batch["doubt"].to_numpy() if wants_doubt else None)
    calls: dict[str, int] = {}
    for place, n in zip(strata.features, draw.sizes, strict=True):
        feature = plan.features[place - 1]
        calls[feature] = calls.get(feature, 0) + n
    return DrawnWindow(calls=calls, drawn=draw.places())


def _where(engine: Engine) -> str:
    """The window's calls that have texts; texts are read only where some may lack."""
    return _WINDOW if engine.is_filled("calls", "input") else f"{_WINDOW} AND {_HAS_TEXT}"


def _strata_columns(plan: SamplePlan) -> list[str]:
    return ["feature", *(name for name in plan.by if name != "feature")]


def _window(plan: SamplePlan) -> dict[str, Any]:
    return {
        "since": _moment(plan.since),
        "until": _moment(plan.until),
        "features": plan.features,
    }


def _moment(micros: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


async def run_sample(
    plan: SamplePlan,
    window: DrawnWindow,
    *,
    engine: Engine,
    journal: Journal,
    on_progress: Callable[[RunSummary], None] = lambda summary: None,
    stop: asyncio.Event | None = None,
    crew: AbstractAsyncContextManager[Do] | None = None,
) -> RunSummary:
    """Score what is not in the journal yet; ends as a run does.

    `crew` asks the judges elsewhere; what checks alone score is scored here in either case.
    """
    sets: dict[str, list[OnlineSet]] = {}
    for one in plan.sets:
        sets.setdefault(one.golden.feature, []).append(one)
    summary = RunSummary(planned=sum(len(sets[name]) * n for name, n in window.calls.items()))
    finished = read_back(journal, summary, count_rescored_line)
    if plan.budget is not None:
        plan.budget.spent_usd = summary.judge_cost_usd
    async with crew or nullcontext(lambda work: score_call(work, plan)) as ask_judges:
        await work_off(
            _works(engine, plan, window, sets, finished, summary),
            lambda work: score_call(work, plan) if work.place is None else ask_judges(work),
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
    plan: SamplePlan,
    window: DrawnWindow,
    sets: Mapping[str, Sequence[OnlineSet]],
    finished: set[Key],
    summary: RunSummary,
) -> Iterator[Work]:
    """What is left to do, a page of the window after another."""
    if summary.done >= summary.planned:
        return
    done = {(golden_set, trace_id) for golden_set, _, trace_id, _, _ in finished}
    seen: set[str] = set()
    columns = _strata_columns(plan)
    for since, until in _pages(engine, plan):
        rows = engine.rows(
            f"SELECT * FROM {plan.calls} WHERE {_WINDOW} AND {_HAS_TEXT} ORDER BY trace_id",
            {**_window(plan), "since": _moment(since), "until": _moment(until)},
        )
        for row in rows:
            wanted = [
                one
                for one in sets[row["feature"]]
                if (one.golden.name, row["trace_id"]) not in done
            ]
            is_empty = row["output"] is None and row["error_kind"] is None
            if not wanted or is_empty or row["trace_id"] in seen:
                # Nothing was answered yet, or the log has the call twice.
                summary.planned -= len(wanted)
                continue
            seen.add(row["trace_id"])
            stratum = {name: _as_text(row[name]) for name in columns}
            record, place = call_record(row), window.drawn.get(row["trace_id"])
            for online in wanted:
                yield Work(online, stratum, place, record)


def _as_text(value: Any) -> str:
    """As `concat(x, '')` has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _pages(engine: Engine, plan: SamplePlan) -> Iterator[tuple[int, int]]:
    """Stretches of the window, since and until, that have some `PAGE` calls each."""
    width = max(1, -(-(plan.until - plan.since) // BINS))
    rows = engine.rows(
        "SELECT (epoch_us(ts) - $start) // $width AS bin, count(*) AS n FROM calls"
        f" WHERE {_where(engine)} GROUP BY 1 ORDER BY 1",
        {**_window(plan), "start": plan.since, "width": width},
    )
    start, held = plan.since, 0
    for row in rows:
        begins = plan.since + row["bin"] * width
        if held and held + row["n"] > PAGE:
            yield start, begins
            start, held = begins, 0
        held += row["n"]
    if held:
        yield start, plan.until


async def score_call(work: Work, plan: SamplePlan) -> dict[str, Any] | None:
    """A journal line for one call; unfinished or None when the budget stopped its judges."""
    golden = work.online.golden
    record = _known_failure(work.record)
    case = _as_case(record)
    asked = {"input": case.input}
    scorers = [
        scorer
        for scorer, missing in work.online.scorers
        if (scorer.tier == 1 or work.place is not None)
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
        limit_ms=plan.limits_ms.get(golden.feature, float("inf")),
        trial=0,
    )
    key = [golden.name, str(pair), case.id, case.case_hash, 0]
    if any(mark.outcome == "budget_stop" for mark in marks):
        return unfinished_line(key, judge_calls)
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
        "key": key,
        "calls": [by_field(call) for call in judge_calls],
        "scores": [_drawn_row(row, work, plan) for row in rows],
        "must_pass": [],
    }


def _drawn_row(row: dict[str, Any], work: Work, plan: SamplePlan) -> dict[str, Any]:
    """A score with how its call came to be scored: every call by checks, the sample by judges.

    It is of the window's end, not of this moment: the same job gives the same rows.
    """
    place = Place("random", 1.0) if row["tier"] == 1 else work.place
    assert place is not None
    share = "all" if row["tier"] == 1 else place.share
    return {
        **row,
        "inclusion_prob": place.inclusion_prob,
        "slices": {**work.stratum, "share": share},
        "created_at": plan.until,
    }


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
