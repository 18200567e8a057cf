"""Show how a metric went over the runs before: means with intervals, the newest last.

Part of the report. A series is what one model answers with one prompt, whatever its version,
on one golden set; a run after the cases or the scorer changed is not joined to the one
before it, for the two means cannot be compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from evalkit.decide.pairing import find_sql
from evalkit.decide.report_cases import SIDES, Meeting, write_table
from evalkit.decide.report_pictures import Trend, trend
from evalkit.decide.report_text import score
from evalkit.errors import EvalkitError
from evalkit.records import Pair

if TYPE_CHECKING:
    from evalkit.store.views import Engine, Store

Row: TypeAlias = Mapping[str, Any]

RUNS_READ = 24
"""Newest complete runs that are looked at, beside those that are compared."""
SHOWN_SERIES = 12
MIN_SHARED = 0.95
"""Runs of fewer cases than this share of the other's, as with --limit, are not joined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One pair's mean in one run."""

    run_id: str
    created_at: str
    pair: str
    kind: str
    """candidate, baseline or earlier."""
    n: int
    mean: float
    ci: tuple[float, float] | None
    before: int | None
    """Place of the moment before of the same model and prompt."""
    joined: bool
    """Whether that one measured the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """One metric of one golden set over runs, oldest first."""

    golden_set: str
    metric: str
    moments: tuple[Moment, ...]
    trend: Trend
    breaks: int
    """Times that the cases or the scorer changed on the way."""


def history_of(
    store: Store, meetings: Sequence[Meeting], *, alpha: float, project: Path
) -> tuple[list[History], int]:
    """Every gating metric that an earlier run has measured, too; and how many are not shown."""
    from evalkit.store.engine import Engine

    named = {meeting.golden_set for meeting in meetings}
    own = {side["run_id"] for m in meetings for side in _sides(m) if side.get("run_id")}
    runs = {run["run_id"]: run for run in _past_runs(store, named, own)}
    files: list[Path] = []
    for run_id in list(runs):
        try:
            files += store.score_files(run_id)
        except EvalkitError as error:
            store.problems.append(str(error))
            del runs[run_id]
    if not files:
        return [], 0
    with Engine() as engine:
        engine.add_files("past_scores", files)
        _write_series(engine, meetings)
        rows = engine.rows(find_sql("report_history", project=project))
    found = _histories(rows, runs, meetings, alpha)
    return found[:SHOWN_SERIES], max(0, len(found) - SHOWN_SERIES)


def _sides(meeting: Meeting) -> list[Row]:
    return [side for side in (meeting.baseline, meeting.candidate) if side is not None]


def _past_runs(store: Store, named: set[str], own: set[str]) -> list[Row]:
    """Runs that are compared, and the newest ones of the same golden sets before them."""
    runs = [
        run
        for run in store.runs()
        if run["status"] == "complete" and named & set(run.get("golden_sets") or {})
    ]
    newest = max((run["created_at"] for run in runs if run["run_id"] in own), default="")
    earlier = [
        run
        for run in runs
        if run["run_id"] not in own
        and run["created_at"] <= newest
        and not (run.get("stop_early") or {}).get("stopped")
    ]
    return [*(run for run in runs if run["run_id"] in own), *earlier[:RUNS_READ]]


def _write_series(engine: Engine, meetings: Sequence[Meeting]) -> None:
    columns = ("golden_set", "model", "prompt_name", "metric")
    rows = {
        (meeting.golden_set, side.get("model") or "", side.get("prompt_name") or "", metric)
        for meeting in meetings
        for side in _sides(meeting)
        for metric in meeting.gates
    }
    write_table(
        engine, "series", columns, [dict(zip(columns, row, strict=True)) for row in sorted(rows)]
    )


def _histories(
    rows: Sequence[Row], runs: Mapping[str, Row], meetings: Sequence[Meeting], alpha: float
) -> list[History]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["golden_set"], row["metric"]), []).append(row)
    order = [(m.golden_set, metric) for m in meetings for metric in m.gates]
    found = []
    for key in dict.fromkeys(order):
        of_key = sorted(
            groups.get(key, ()),
            key=lambda row: (
                runs[row["run_id"]]["created_at"],
                row["run_id"],
                row["prompt_version"],
            ),
        )
        if any(_kind(row, meetings) == "earlier" for row in of_key):
            found.append(_history(of_key, runs, meetings, alpha))
    return found


def _history(
    rows: Sequence[Row], runs: Mapping[str, Row], meetings: Sequence[Meeting], alpha: float
) -> History:
    moments: list[Moment] = []
    last: dict[tuple[str, str], int] = {}
    for number, row in enumerate(rows):
        before = last.get((row["model"], row["prompt_name"]))
        last[row["model"], row["prompt_name"]] = number
        moments.append(
            Moment(
                run_id=row["run_id"],
                created_at=str(runs[row["run_id"]]["created_at"]),
                pair=str(Pair.of(row)),
                kind=_kind(row, meetings),
                n=int(row["n"]),
                mean=row["mean"],
                ci=mean_interval(row["mean"], row["se"], int(row["n_clusters"]), alpha),
                before=before,
                joined=before is not None and _measured_the_same(rows[before], row),
            )
        )
    golden_set, metric = rows[0]["golden_set"], rows[0]["metric"]
    drawn = trend(
        [
            {
                "mean": m.mean,
                "ci": m.ci,
                "kind": m.kind,
                "joined": m.before if m.joined else None,
                "tag": m.pair.rpartition("@")[2],
                "label": _label(m),
            }
            for m in moments
        ],
        label=f"{metric} on {golden_set} over {len(moments)} measurements, "
        f"from {score(moments[0].mean)} to {score(moments[-1].mean)}",
    )
    return History(
        golden_set=golden_set,
        metric=metric,
        moments=tuple(moments),
        trend=drawn,
        breaks=sum(m.before is not None and not m.joined for m in moments),
    )


def _measured_the_same(before: Row, after: Row) -> bool:
    """Whether two means are of the same cases, but for a few, by the same scorer."""
    alike = all(before[key] == after[key] for key in ("golden_set_hash", "scorer_version"))
    fewer, more = sorted((int(before["n"]), int(after["n"])))
    return alike and fewer >= MIN_SHARED * more


def _kind(row: Row, meetings: Sequence[Meeting]) -> str:
    for name in reversed(SIDES):
        for meeting in meetings:
            side = getattr(meeting, name)
            if meeting.golden_set == row["golden_set"] and side and _is_of(row, side):
                return name
    return "earlier"


def _is_of(row: Row, side: Row) -> bool:
    keys = ("run_id", "model", "prompt_name", "prompt_version")
    return all((side.get(key) or "") in (row[key], "") for key in keys)


def _label(moment: Moment) -> str:
    between = "" if moment.ci is None else f" ({score(moment.ci[0])} to {score(moment.ci[1])})"
    return f"{moment.pair}, {moment.created_at[:16]}: {score(moment.mean)}{between}"


def mean_interval(
    mean: float, se: float | None, n_units: int, alpha: float
) -> tuple[float, float] | None:
    """Interval of a mean of scores in 0..1, each side missing with alpha; t over units.

    Where all scored alike its spread says nothing: then the exact bounds of a share that
    was 0 or 1 throughout (Clopper and Pearson 1934). None for a single unit.
    """
    from scipy import special

    if se is None or n_units < 2:
        return None
    if se > 0:
        reach = float(special.stdtrit(n_units - 1, 1 - alpha)) * se
        return max(0.0, mean - reach), min(1.0, mean + reach)
    spare = math.exp(math.log(alpha) / n_units)
    if mean >= 1:
        return spare, 1.0
    return (0.0, 1 - spare) if mean <= 0 else (mean, mean)
