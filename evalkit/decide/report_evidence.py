"""Fetch what a report shows beside the verdict: worst cases, failures, latency and cost.

Between the store and the report's template: the SQL of `reports/sql/report_*.sql`, rows
into records of what is shown, bounded. A run whose files are damaged is told and left out;
the verdict is shown all the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.decide.pairing import find_sql
from evalkit.decide.report_cases import (
    SIDES,
    Expected,
    Meeting,
    Row,
    WorstCase,
    worst_cases,
    write_table,
)
from evalkit.decide.report_sentences import gating
from evalkit.errors import DamagedStore, NotComparable, StoreError

if TYPE_CHECKING:
    from evalkit.store.views import Engine, Store


@dataclass(slots=True, kw_only=True)
class Evidence:
    """Everything a report shows that is not in the verdict."""

    cases: list[WorstCase] = field(default_factory=list)
    n_worse: dict[str, int] = field(default_factory=dict)
    """Golden set -> cases that lost anything; those in `cases` are the worst of them."""
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    """A row for each golden set, outcome and kind, with a count for each side."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """Means by run; only where nothing was compared."""
    judge_costs: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def gather(
    verdict: Mapping[str, Any] | None,
    store: Store | None,
    runs: Sequence[str],
    *,
    project: Path,
    expected: Expected,
) -> Evidence:
    """All evidence there is; what cannot be read is named in `problems`."""
    from evalkit.store.views import Engine

    evidence = Evidence()
    if store is None:
        return evidence
    wanted = list(dict.fromkeys([*runs, *_runs_of(verdict)]))
    with Engine() as engine:
        there = _open_runs(store, wanted, engine, evidence)
        if not there:
            return evidence
        meetings = meetings_of(verdict) if verdict else _alone(engine, there[0])
        meetings = [m for m in meetings if _is_there(m, there)]
        _write_tables(engine, meetings)
        engine.rows(find_sql("report_rows", project=project))
        evidence.outcomes = _outcomes(engine.rows(find_sql("report_outcomes", project=project)))
        evidence.calls = _calls(engine.rows(find_sql("report_calls", project=project)), meetings)
        evidence.judge_costs = _judge_costs(engine)
        if verdict is None:
            evidence.metrics = engine.rows(find_sql("report_metrics", project=project))
        evidence.cases, evidence.n_worse = worst_cases(
            engine, meetings, project=project, expected=expected
        )
    return evidence


def _runs_of(verdict: Mapping[str, Any] | None) -> Iterable[str]:
    for one in (verdict or {}).get("comparisons", ()):
        for side in ("candidate", "baseline"):
            if (one.get(side) or {}).get("run_id"):
                yield one[side]["run_id"]


def _open_runs(
    store: Store, wanted: Sequence[str], engine: Engine, evidence: Evidence
) -> list[str]:
    """Put the files of the runs into the engine: `scores`, and `run_calls` with their run."""
    scores: list[Path] = []
    calls: dict[str, list[Path]] = {}
    for run_id in wanted:
        try:
            evidence.runs.append(store.manifest(run_id))
            scores += store.score_files(run_id)
            calls[run_id] = store.call_files(run_id)
        except (StoreError, DamagedStore, NotComparable) as error:
            evidence.problems.append(str(error))
    there = [run_id for run_id in wanted if run_id in calls]
    if not scores:
        return []
    engine.add_files("scores", scores)
    for number, run_id in enumerate(there):
        if calls[run_id]:  # an imported baseline has scores alone
            engine.add_files(f"calls_{number}", calls[run_id])
    parts = [
        f"SELECT {number} AS run_number, trace_id, feature, model, cost_usd, input, output "
        f"FROM calls_{number}"
        for number, run_id in enumerate(there)
        if calls[run_id]
    ]
    nothing = (
        "SELECT 0 AS run_number, '' AS trace_id, '' AS feature, '' AS model, "
        "NULL::DOUBLE AS cost_usd, NULL AS input, NULL AS output WHERE false"
    )
    engine.rows(f"CREATE TEMP VIEW run_calls AS {' UNION ALL '.join(parts) or nothing}")
    return there


def meetings_of(verdict: Mapping[str, Any]) -> list[Meeting]:
    """Who met whom, once each, with the metrics that gate."""
    gates = {id(one) for one in gating(verdict)}
    found: dict[str, Meeting] = {}
    for one in verdict["comparisons"]:
        candidate, baseline = one["candidate"], one.get("baseline")
        if not candidate.get("run_id") or one.get("slice") is not None:
            continue
        key = json.dumps([one["golden_set"], candidate, baseline], sort_keys=True)
        before = found[key].gates if key in found else ()
        found[key] = Meeting(
            golden_set=one["golden_set"] or "",
            baseline=baseline,
            candidate=candidate,
            gates=(*before, one["metric"]) if id(one) in gates else before,
        )
    return list(found.values())


def _alone(engine: Engine, run_id: str) -> list[Meeting]:
    """Every pair of a run that is compared with nothing."""
    rows = engine.rows(
        "SELECT DISTINCT golden_set, run_id, model, prompt_name, prompt_version FROM scores "
        "WHERE run_id = ? ORDER BY ALL",
        (run_id,),
    )
    return [
        Meeting(golden_set=row["golden_set"], baseline=None, candidate=row, gates=())
        for row in rows
    ]


def _is_there(meeting: Meeting, there: Sequence[str]) -> bool:
    baseline = meeting.baseline
    return meeting.candidate["run_id"] in there and (
        baseline is None or baseline.get("run_id") is None or baseline["run_id"] in there
    )


def _write_tables(engine: Engine, meetings: Sequence[Meeting]) -> None:
    """`sides` and `gates`: which rows belong to which meeting, and which metrics count first."""
    sides = [
        {
            "meeting": number,
            "side": name,
            "has_baseline": meeting.baseline is not None,
            "golden_set": meeting.golden_set,
            **{key: side.get(key) or "" for key in _SIDE_KEYS},
        }
        for number, meeting in enumerate(meetings)
        for name, side in zip(SIDES, (meeting.baseline, meeting.candidate), strict=True)
        if side is not None
    ]
    gates = [
        {"meeting": number, "metric": metric}
        for number, meeting in enumerate(meetings)
        for metric in dict.fromkeys(meeting.gates)
    ]
    names = ("meeting", "side", "has_baseline", "golden_set", *_SIDE_KEYS)
    write_table(engine, "sides", names, sides)
    write_table(engine, "gates", ("meeting", "metric"), gates)


_SIDE_KEYS = ("run_id", "model", "prompt_name", "prompt_version")


# --- tables ---------------------------------------------------------------------------


def _outcomes(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One line for both sides; the kinds that count against quality first."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        names = tuple(row[name] for name in ("golden_set", "outcome", "error_kind", "metric"))
        line = found.setdefault(
            names,
            {
                **dict(zip(("golden_set", "outcome", "kind", "metric"), names, strict=True)),
                **dict.fromkeys(SIDES, 0),
            },
        )
        line[row["side"]] += int(row["n"])
    order = ("product_failure", "infra_error", "judge_error", "check_error")
    return sorted(
        found.values(),
        key=lambda line: order.index(line["outcome"]) if line["outcome"] in order else len(order),
    )


def _calls(rows: Sequence[Row], meetings: Sequence[Meeting]) -> list[dict[str, Any]]:
    return [
        {
            **row,
            "pair": getattr(meetings[int(row["meeting"])], row["side"]),
            "n_unpriced": int(row["n_unpriced"]),
        }
        for row in rows
    ]


def _judge_costs(engine: Engine) -> list[dict[str, Any]]:
    return engine.rows(
        "SELECT run_number, feature, any_value(model) AS model, count(*) AS n_calls, "
        "sum(cost_usd) AS cost_usd, count(*) - count(cost_usd) AS n_unpriced "
        "FROM run_calls WHERE starts_with(feature, 'judge:') GROUP BY run_number, feature "
        "ORDER BY run_number, feature"
    )
