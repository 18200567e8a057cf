"""Show what changed, case by case: what lost and gained most, both answers side by side.

Part of the report. Rows of the store into records of what is shown, every text bounded and
nothing in it hidden; how many are not shown is counted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from evalkit.decide.pairing import find_sql
from evalkit.decide.report_text import (
    Shown,
    readable_output,
    readable_value,
    shown,
    side_by_side,
)

if TYPE_CHECKING:
    from evalkit.store.views import Engine

SHOWN_CASES = 50
SHOWN_IMPROVED = 10
MAX_METRICS = 20
MAX_REASON_CHARS = 600
FETCHED_CHARS = 20_000
SIDES = ("baseline", "candidate")

Row: TypeAlias = Mapping[str, Any]
Expected: TypeAlias = Callable[[str, str, str], tuple[bool, Any]]
"""(golden set, case id, case hash) -> whether the expected value is known, and the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """Two pairs that meet on a golden set; without a baseline, a pair that is looked at alone."""

    key: str
    """Tells it from the others of a report."""
    golden_set: str
    baseline: Row | None
    candidate: Row
    gates: tuple[str, ...]
    """Metrics that can fail the build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricLine:
    """One metric of one case: both means, and what the scorers said."""

    metric: str
    tier: int
    gate: bool
    means: Mapping[str, float | None]
    reasons: Mapping[str, Shown | None]
    failures: Mapping[str, str | None]
    """Side -> outcome that is not scored, with its kind."""

    @property
    def delta(self) -> float | None:
        before, after = self.means.get("baseline"), self.means.get("candidate")
        return None if before is None or after is None else after - before


@dataclass(frozen=True, slots=True, kw_only=True)
class SideOutput:
    """One side's answer to a case; of several trials the telling one."""

    output: Shown | None
    """None where there is no answer, or the call's record is not there."""
    trial: int
    n_trials: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedCase:
    """A case that lost or gained, with all that helps to see why."""

    meeting: Meeting
    case_id: str
    cluster: str | None
    slices: Mapping[str, str]
    input: Shown | None
    expected: Shown | None
    sides: Mapping[str, SideOutput]
    metrics: tuple[MetricLine, ...]
    n_more_metrics: int


_TYPES = {"meeting": "BIGINT", "has_baseline": "BOOLEAN", "limit_ms": "DOUBLE"}


def write_table(engine: Engine, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Make a table of these columns of `rows`."""
    cells = ", ".join(
        f"unnest(${name}::{_TYPES.get(name, 'VARCHAR')}[]) AS {name}" for name in columns
    )
    values = {name: [row[name] for row in rows] for name in columns}
    engine.rows(f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT {cells}", values)


def changed_cases(
    engine: Engine,
    meetings: Sequence[Meeting],
    *,
    project: Path,
    expected: Expected,
    improved: bool = False,
) -> tuple[list[ChangedCase], dict[str, int]]:
    """The cases of each meeting that lost most, and how many lost anything, by golden set.

    With `improved` those that gained. Without a baseline, what lacks most to a full score.
    """
    params = {
        "at_most": SHOWN_IMPROVED if improved else SHOWN_CASES,
        "sign": -1 if improved else 1,
    }
    chosen = engine.rows(find_sql("report_worst", project=project), params)
    if not chosen:
        return [], {}
    write_table(engine, "chosen", ("meeting", "case_id", "case_hash"), chosen)
    by_case: dict[tuple[Any, ...], list[Row]] = {}
    for row in engine.rows(find_sql("report_case_rows", project=project)):
        by_case.setdefault((row["meeting"], row["case_id"], row["case_hash"]), []).append(row)
    texts = _texts(engine, by_case.values())
    n_worse = {int(one["meeting"]): int(one["n_worse"]) for one in chosen}
    counts: dict[str, int] = {}
    for number, n in sorted(n_worse.items()):
        name = meetings[number].golden_set
        counts[name] = counts.get(name, 0) + n
    cases = []
    for one in sorted(chosen, key=lambda one: (one["meeting"], one["place"])):
        known, value = expected(one["golden_set"], one["case_id"], one["case_hash"])
        told = shown(readable_output(readable_value(value))) if known else None
        rows = by_case[one["meeting"], one["case_id"], one["case_hash"]]
        meeting = meetings[int(one["meeting"])]
        cases.append(_changed_case(meeting, rows, texts, told, improved=improved))
    return cases, counts


def _texts(engine: Engine, cases: Iterable[Sequence[Row]]) -> dict[str, Row]:
    """Trace id -> input and output of the call."""
    ids = sorted({row["trace_id"] for rows in cases for row in rows if row["trace_id"]})
    rows = engine.rows(
        f"SELECT trace_id, left(input, {FETCHED_CHARS}) AS input, "
        f"left(output, {FETCHED_CHARS}) AS output FROM run_calls "
        "WHERE list_contains(?, trace_id)",
        (ids,),
    )
    return {row["trace_id"]: row for row in rows}


def _changed_case(
    meeting: Meeting,
    rows: Sequence[Row],
    texts: Mapping[str, Row],
    expected: Shown | None,
    *,
    improved: bool,
) -> ChangedCase:
    by_side = {side: [row for row in rows if row["side"] == side] for side in SIDES}
    telling = {
        # The worst trial of the candidate against the best one of the baseline; or the other way.
        "candidate": _telling_trial(by_side["candidate"], worst=not improved),
        "baseline": _telling_trial(by_side["baseline"], worst=improved),
    }
    names = list(dict.fromkeys(row["metric"] for row in rows))
    lines = [_metric_line(name, by_side, telling) for name in names]
    sign = -1 if improved else 1
    lines.sort(key=lambda line: (line.delta is None, sign * (line.delta or 0.0), not line.gate))
    first = rows[0]
    outputs = {side: _output(by_side[side], telling[side], texts) for side in SIDES}
    return ChangedCase(
        meeting=meeting,
        case_id=first["case_id"],
        cluster=first["cluster"],
        slices=first["slices"] or {},
        input=_input(rows, texts),
        expected=expected,
        sides=_sides(by_side, telling, outputs),
        metrics=tuple(lines[:MAX_METRICS]),
        n_more_metrics=max(0, len(lines) - MAX_METRICS),
    )


def _telling_trial(rows: Sequence[Row], *, worst: bool) -> int | None:
    """The trial with the lowest (or highest) sum of scores; of equals the first."""
    totals: dict[int, float] = {}
    for row in rows:
        totals[row["trial"]] = totals.get(row["trial"], 0.0) + (row["score"] or 0.0)
    if not totals:
        return None
    return min(totals, key=lambda trial: (totals[trial] if worst else -totals[trial], trial))


def _metric_line(
    metric: str, by_side: Mapping[str, Sequence[Row]], telling: Mapping[str, int | None]
) -> MetricLine:
    means: dict[str, float | None] = {}
    reasons: dict[str, Shown | None] = {}
    failures: dict[str, str | None] = {}
    tier, gate = 0, False
    for side, rows in by_side.items():
        mine = [row for row in rows if row["metric"] == metric]
        scores = [row["score"] for row in mine if row["score"] is not None]
        means[side] = sum(scores) / len(scores) if scores else None
        told = next((row for row in mine if row["trial"] == telling[side]), None)
        reasons[side] = failures[side] = None
        if told is not None:
            tier, gate = int(told["tier"] or 0), bool(told["gate"])
            if told["reason"]:
                reasons[side] = shown(told["reason"], MAX_REASON_CHARS)
            if told["outcome"] != "scored":
                failures[side] = ": ".join(filter(None, (told["outcome"], told["error_kind"])))
    return MetricLine(
        metric=metric, tier=tier, gate=gate, means=means, reasons=reasons, failures=failures
    )


def _output(rows: Sequence[Row], trial: int | None, texts: Mapping[str, Row]) -> str | None:
    for row in rows:
        call = texts.get(row["trace_id"] or "")
        if row["trial"] == trial and call is not None and call["output"] is not None:
            return readable_output(call["output"])
    return None


def _sides(
    by_side: Mapping[str, Sequence[Row]],
    telling: Mapping[str, int | None],
    outputs: Mapping[str, str | None],
) -> dict[str, SideOutput]:
    texts: dict[str, Shown | None] = {
        side: None if output is None else shown(output) for side, output in outputs.items()
    }
    before, after = outputs["baseline"], outputs["candidate"]
    if before is not None and after is not None:
        texts["baseline"], texts["candidate"] = side_by_side(before, after)
    return {
        side: SideOutput(
            output=texts[side],
            trial=telling[side] or 0,
            n_trials=len({row["trial"] for row in rows}),
        )
        for side, rows in by_side.items()
        if rows
    }


def _input(rows: Sequence[Row], texts: Mapping[str, Row]) -> Shown | None:
    for row in rows:
        call = texts.get(row["trace_id"] or "")
        if call is not None and call["input"]:
            try:
                return shown(readable_value(json.loads(call["input"])))
            except ValueError:
                return shown(call["input"])  # longer than what was fetched of it
    return None
