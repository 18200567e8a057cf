"""Fetch what a report shows beside the verdict: cases, fairness, cost, judges, history.

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
    ChangedCase,
    Expected,
    Meeting,
    Row,
    changed_cases,
    write_table,
)
from evalkit.decide.report_fairness import Compared, Fair, fairness
from evalkit.decide.report_health import JudgeHealth, judges_of
from evalkit.decide.report_history import History, history_of
from evalkit.decide.report_sentences import gating
from evalkit.decide.report_table import case_table
from evalkit.errors import DamagedStore, NotComparable, StoreError

if TYPE_CHECKING:
    from evalkit.store.views import Engine, Store


@dataclass(slots=True, kw_only=True)
class Evidence:
    """Everything a report shows that is not in the verdict."""

    cases: list[ChangedCase] = field(default_factory=list)
    n_worse: dict[str, int] = field(default_factory=dict)
    """Golden set -> cases that lost anything; those in `cases` are the worst of them."""
    improved: list[ChangedCase] = field(default_factory=list)
    n_better: dict[str, int] = field(default_factory=dict)
    table: dict[str, Any] = field(default_factory=dict)
    """All cases, for the page's script; see `report_table`."""
    fair: list[Fair] = field(default_factory=list)
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    """A row for each golden set, outcome and kind, with a count for each side."""
    calls: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """Means by run; only where nothing was compared."""
    judges: list[JudgeHealth] = field(default_factory=list)
    judge_costs: list[dict[str, Any]] = field(default_factory=list)
    """A row for each run and judge."""
    spent: list[dict[str, Any]] = field(default_factory=list)
    """A row for each run: all its calls, and what they were allowed to cost."""
    history: list[History] = field(default_factory=list)
    n_more_history: int = 0
    runs: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def gather(
    verdict: Mapping[str, Any] | None,
    store: Store | None,
    runs: Sequence[str],
    *,
    project: Path,
    expected: Expected,
    budgets: Mapping[str, float],
) -> Evidence:
    """All evidence there is; what cannot be read is named in `problems`.

    `budgets`: feature to the milliseconds that a call of it may take.
    """
    from evalkit.store.views import Engine

    evidence = Evidence()
    entries = [one for one in (verdict or {}).get("comparisons", ()) if one.get("slice") is None]
    meetings = meetings_of(verdict or {})
    scorers: Sequence[Row] = ()
    if store is not None:
        wanted = list(dict.fromkeys([*runs, *_runs_of(verdict)]))
        with Engine() as engine:
            if there := _open_runs(store, wanted, engine, evidence):
                meetings = _alone(engine, there[0], evidence) if verdict is None else meetings
                meetings = [meeting for meeting in meetings if _is_there(meeting, there)]
                _write_tables(engine, meetings, _limits(evidence.runs, budgets))
                engine.rows(find_sql("report_rows", project=project))
                scorers = engine.rows(find_sql("report_scorers", project=project))
                _read_tables(engine, evidence, meetings, there, project=project)
                _read_cases(engine, evidence, meetings, project=project, expected=expected)
        alpha = (verdict or {}).get("alpha") or 0.05
        evidence.history, evidence.n_more_history = history_of(
            store, meetings, alpha=alpha, project=project
        )
    evidence.fair = fairness(_compared(meetings, entries, scorers, evidence))
    evidence.judges = judges_of(store, scorers, [m.golden_set for m in meetings], entries)
    return evidence


def _read_tables(
    engine: Engine,
    evidence: Evidence,
    meetings: Sequence[Meeting],
    there: Sequence[str],
    *,
    project: Path,
) -> None:
    """Failures, calls, costs; metrics where nothing is compared."""
    evidence.outcomes = _outcomes(engine.rows(find_sql("report_outcomes", project=project)))
    evidence.calls = _calls(engine.rows(find_sql("report_calls", project=project)), meetings)
    of_judges = "starts_with(feature, 'judge:')"
    evidence.judge_costs = _costs(engine, there, by="feature", where=of_judges)
    evidence.spent = _spent(_costs(engine, there), evidence.runs)
    if all(meeting.baseline is None for meeting in meetings):
        evidence.metrics = engine.rows(find_sql("report_metrics", project=project))


def _read_cases(
    engine: Engine,
    evidence: Evidence,
    meetings: Sequence[Meeting],
    *,
    project: Path,
    expected: Expected,
) -> None:
    """The cases that changed most, and the table of all."""
    evidence.cases, evidence.n_worse = changed_cases(
        engine, meetings, project=project, expected=expected
    )
    evidence.improved, evidence.n_better = changed_cases(
        engine, meetings, project=project, expected=expected, improved=True
    )
    evidence.table = case_table(engine, meetings, project=project)


def _compared(
    meetings: Sequence[Meeting],
    entries: Sequence[Row],
    scorers: Sequence[Row],
    evidence: Evidence,
) -> list[Compared]:
    runs = {run["run_id"]: run for run in evidence.runs}
    by_meeting: dict[str, list[Row]] = {}
    for one in entries:
        by_meeting.setdefault(_meeting_key(one), []).append(one)
    return [
        Compared(
            meeting=meeting,
            entries=by_meeting.get(meeting.key, []),
            runs={
                side: runs.get((getattr(meeting, side) or {}).get("run_id") or "") for side in SIDES
            },
            scorers=[row for row in scorers if row["meeting"] == number],
        )
        for number, meeting in enumerate(meetings)
    ]


def _limits(runs: Sequence[Row], budgets: Mapping[str, float]) -> dict[str, float]:
    """Golden set -> the milliseconds that its feature's calls may take."""
    return {
        name: budgets[one["feature"]]
        for run in runs
        for name, one in (run.get("golden_sets") or {}).items()
        if one.get("feature") in budgets
    }


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
        f"SELECT {number} AS run_number, {_CALL_COLUMNS} FROM calls_{number}"
        for number, run_id in enumerate(there)
        if calls[run_id]
    ]
    nothing = "SELECT 0 AS run_number, " + ", ".join(_NO_CALL) + " WHERE false"
    engine.rows(f"CREATE TEMP VIEW run_calls AS {' UNION ALL '.join(parts) or nothing}")
    return there


_NUMBERS = ("cost_usd", "prompt_tokens", "completion_tokens", "cached_prompt_tokens", "retries")
_TEXTS = ("trace_id", "feature", "model", "input", "output")
_CALL_COLUMNS = ", ".join((*_TEXTS, *_NUMBERS, "cache_hit"))
_NO_CALL = (
    *(f"NULL::VARCHAR AS {name}" for name in _TEXTS),
    *(f"NULL::DOUBLE AS {name}" for name in _NUMBERS),
    "NULL::BOOLEAN AS cache_hit",
)


def meetings_of(verdict: Mapping[str, Any]) -> list[Meeting]:
    """Who met whom, once each, with the metrics that gate."""
    gates = {id(one) for one in gating(verdict)} if verdict else set()
    found: dict[str, Meeting] = {}
    for one in verdict.get("comparisons", ()):
        if one.get("slice") is not None:
            continue
        key = _meeting_key(one)
        before = found[key].gates if key in found else ()
        found[key] = Meeting(
            key=key,
            golden_set=one["golden_set"] or "",
            baseline=one.get("baseline"),
            candidate=one["candidate"],
            gates=(*before, one["metric"]) if id(one) in gates else before,
        )
    return list(found.values())


def _meeting_key(entry: Row) -> str:
    sides = [entry["golden_set"], entry["candidate"], entry.get("baseline")]
    return json.dumps(sides, sort_keys=True)


def _alone(engine: Engine, run_id: str, evidence: Evidence) -> list[Meeting]:
    """Every pair of a run that is compared with nothing."""
    rows = engine.rows(
        "SELECT DISTINCT golden_set, run_id, model, prompt_name, prompt_version FROM scores "
        "WHERE run_id = ? ORDER BY ALL",
        (run_id,),
    )
    golden_sets = next(run for run in evidence.runs if run["run_id"] == run_id)["golden_sets"]
    return [
        Meeting(
            key=json.dumps(row, sort_keys=True),
            golden_set=row["golden_set"],
            baseline=None,
            candidate=row,
            gates=_gates_of(golden_sets.get(row["golden_set"]) or {}),
        )
        for row in rows
    ]


def _gates_of(golden_set: Row) -> tuple[str, ...]:
    return tuple(one["name"] for one in golden_set.get("metrics") or () if one.get("gate"))


def _is_there(meeting: Meeting, there: Sequence[str]) -> bool:
    baseline = meeting.baseline
    return meeting.candidate["run_id"] in there and (
        baseline is None or baseline.get("run_id") is None or baseline["run_id"] in there
    )


def _write_tables(engine: Engine, meetings: Sequence[Meeting], limits: Mapping[str, float]) -> None:
    """`sides`, `gates`, `limits`: whose rows are whose, which metrics count first, budgets."""
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
    write_table(
        engine,
        "limits",
        ("golden_set", "limit_ms"),
        [{"golden_set": name, "limit_ms": limit} for name, limit in limits.items()],
    )


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


def _costs(
    engine: Engine, there: Sequence[str], *, by: str = "NULL", where: str = "true"
) -> list[dict[str, Any]]:
    """Calls and their price, for each run and value of `by`."""
    rows = engine.rows(
        f"SELECT run_number, {by} AS feature, any_value(model) AS model, count(*) AS n_calls, "
        "sum(cost_usd) AS cost_usd, count(*) - count(cost_usd) AS n_unpriced "
        f"FROM run_calls WHERE {where} GROUP BY ALL ORDER BY run_number, feature"
    )
    return [{**row, "run_id": there[int(row["run_number"])]} for row in rows]


def _spent(costs: Sequence[Row], runs: Sequence[Row]) -> list[dict[str, Any]]:
    requests = {run["run_id"]: run.get("request") or {} for run in runs}
    return [
        {**row, "max_cost_usd": requests.get(row["run_id"], {}).get("max_cost_usd")}
        for row in costs
    ]
