"""Bring the two sides' rows together, case by case; what does not meet is counted.

Between the store and the statistics of `decide`: the SQL of `reports/sql/` averages the
trials and joins the cases, this file says what each missing one means. It never judges.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalkit.content import find_content
from evalkit.decide.rows import EXCLUDED, Group

if TYPE_CHECKING:
    from evalkit.store.views import Engine

Floats: TypeAlias = NDArray[np.float64]
Ids: TypeAlias = NDArray[np.object_]

ABSENT = "absent"
"""Outcome of a case that one side has no row of, and should have."""
MISSING_OUTCOMES = (
    ABSENT,
    "infra_error",
    "judge_error",
    "check_error",
    "budget_stop",
    "cancelled",
    "no_score",
    EXCLUDED,
)
"""Why a side may have no score of a case."""
SIDES = ("baseline", "candidate")
UNEVEN_FROM = 0.1
"""Share of a side's scored trials without a counterpart from which that matters to a test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """Two groups to be compared, and which golden set and pairs they share with others."""

    candidate: Group
    baseline: Group
    number: int
    """The same for all metrics of one golden set and two pairs."""


PER_CASE = (
    "baseline", "candidate", "baseline_var", "candidate_var", "baseline_trials",
    "candidate_trials", "baseline_rows", "candidate_rows",
)  # fmt: skip
"""Columns of the pairing query, and fields of `Cases`, that hold a number per case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """The cases of one comparison, or of one slice of it: what each side scored there.

    Arrays are (n_cases,); a mean is NaN where that side has no score. Only cases that
    ought to be on both sides are here.
    """

    ids: Ids
    baseline: Floats
    candidate: Floats
    baseline_var: Floats
    """Sample variance over the case's trials; NaN for fewer than two."""
    candidate_var: Floats
    baseline_trials: Floats
    """Trials with a score."""
    candidate_trials: Floats
    baseline_rows: Floats
    """Trials with or without."""
    candidate_rows: Floats
    clusters: NDArray[np.uint64] | None
    outcomes: Mapping[str, Mapping[str, int]]
    """Side -> outcome -> cases of that side without a score."""
    excluded: int
    """Cases of which another model served a trial."""
    unpaired: int
    """Cases of one side only, or edited in between: not the same case, so no evidence."""
    apart: Mapping[str, Ids]
    """The same, by why: `new` (the candidate's alone), `removed`, `edited`."""
    uncovered: int
    """Unpaired cases that nevertheless count against the coverage."""
    matched: Cases | None = None
    """The same with the means over as many scored trials of a case as both sides have of it;
    None where hardly a trial has no counterpart."""

    @property
    def on_both(self) -> NDArray[np.bool_]:
        return ~(np.isnan(self.baseline) | np.isnan(self.candidate))

    @property
    def beyond(self) -> tuple[int, int]:
        """Scored trials of the baseline, and of the candidate, that the other side has none for."""
        more = (self.candidate_trials - self.baseline_trials)[self.on_both]
        return int(np.maximum(-more, 0).sum()), int(np.maximum(more, 0).sum())

    @property
    def candidate_has_more(self) -> bool:
        """Whether it is the candidate that was asked more often, on the whole."""
        of_baseline, of_candidate = self.beyond
        return of_candidate > of_baseline

    @property
    def coverage(self) -> float:
        """Share of the cases that ought to have a score on both sides and do, 0..1."""
        expected = len(self.ids) + self.uncovered
        return float(self.on_both.sum()) / expected if expected else 0.0


def pair_cases(
    engine: Engine, meetings: Sequence[Meeting], runs: Collection[str], *, project: Path
) -> list[Cases]:
    """The cases of each meeting, in the order of `meetings`; `runs` are sources that are runs."""
    _write_plan(engine, meetings)
    sql = find_sql("paired_cases", project=project)
    listed = ", ".join(f"'{name}'" for name in MISSING_OUTCOMES)

    def code(side: str) -> str:
        at = f"coalesce(list_position([{listed}], {side}_outcome), 1) - 1"
        return f"CASE WHEN {side}_outcome IS NULL THEN 0 ELSE {at} END AS {side}_outcome"

    columns = engine.columns(f"""
        SELECT comparison, case_id, baseline, candidate, baseline_var, candidate_var,
            baseline_trials::DOUBLE AS baseline_trials,
            candidate_trials::DOUBLE AS candidate_trials,
            baseline_rows::DOUBLE AS baseline_rows, candidate_rows::DOUBLE AS candidate_rows,
            excluded_rows > 0 AS excluded,
            {code("baseline")}, {code("candidate")},
            cluster IS NOT NULL AS clustered,
            CASE WHEN cluster IS NULL THEN hash(case_id, 1) ELSE hash(cluster) END AS cluster
        FROM ({sql})
        """)
    parts = _by_comparison(columns, len(meetings))
    cases = [_cases_of(part, meeting, runs) for part, meeting in zip(parts, meetings, strict=True)]
    uneven = [number for number, one in enumerate(cases) if _is_uneven(one)]
    if uneven:
        sql = find_sql("matched_cases", project=project)
        matched = _by_comparison(engine.columns(sql, {"uneven": uneven}), len(meetings))
        for number in uneven:
            part = parts[number] | {side: matched[number][side] for side in SIDES}
            part |= {f"{side}_var": np.full(len(part[side]), np.nan) for side in SIDES}
            again = _cases_of(part, meetings[number], runs)
            cases[number] = replace(cases[number], matched=again)
    return cases


def _by_comparison(columns: Mapping[str, Any], n: int) -> list[dict[str, NDArray[Any]]]:
    """The rows of each comparison; they are in its order."""
    arrays = {name: np.asarray(values) for name, values in columns.items()}
    ends = np.searchsorted(arrays["comparison"], np.arange(n + 1))
    return [
        {name: a[ends[number] : ends[number + 1]] for name, a in arrays.items()}
        for number in range(n)
    ]


def _is_uneven(cases: Cases) -> bool:
    trials = (cases.baseline_trials.sum(), cases.candidate_trials.sum())
    return any(n > UNEVEN_FROM * of for n, of in zip(cases.beyond, trials, strict=True))


def find_sql(name: str, *, project: Path) -> str:
    return find_content("reports", f"sql/{name}.sql", project=project).read_text(encoding="utf-8")


def _write_plan(engine: Engine, meetings: Sequence[Meeting]) -> None:
    plan: dict[str, list[Any]] = {name: [] for name in _PLAN}
    firsts: dict[int, int] = {}
    for number, meeting in enumerate(meetings):
        if meeting.candidate.has_calls or meeting.baseline.has_calls:
            firsts.setdefault(meeting.number, number)
    for number, meeting in enumerate(meetings):
        by_hash = meeting.baseline.has_hashes and meeting.candidate.has_hashes
        for side, group in (("baseline", meeting.baseline), ("candidate", meeting.candidate)):
            row = (
                number, side, group.source, group.golden_set, group.metric, group.pair.model,
                group.pair.prompt_name, group.pair.prompt_version, by_hash, meeting.number,
                firsts.get(meeting.number) == number,
            )  # fmt: skip
            for column, value in zip(plan.values(), row, strict=True):
                column.append(value)
    cells = ", ".join(f"unnest(${name}) AS {name}" for name in _PLAN)
    engine.rows(f"CREATE OR REPLACE TEMP TABLE plan AS SELECT {cells}", plan)


_PLAN = (
    "comparison", "side", "source", "golden_set", "metric", "model", "prompt_name",
    "prompt_version", "by_hash", "meeting", "first_of_meeting",
)  # fmt: skip


def _cases_of(part: Mapping[str, NDArray[Any]], meeting: Meeting, runs: Collection[str]) -> Cases:
    """Sort out the cases that one side does not have at all.

    A complete run has every case it was asked for, so a case it lacks was not in its
    golden set; from a results file a missing row is a missing score.
    """
    trusts_baseline = meeting.baseline.source in runs
    trusts_candidate = meeting.candidate.source in runs
    ids = part["case_id"]
    only_b, only_c = part["candidate_rows"] == 0, part["baseline_rows"] == 0
    edited = _edited(ids, only_b, only_c)
    unpaired = edited | (only_b & trusts_candidate) | (only_c & trusts_baseline)
    kept = ~unpaired
    n_edited = len(set(ids[edited].tolist()))
    apart = {
        "new": ids[unpaired & only_c & ~edited],
        "removed": ids[unpaired & only_b & ~edited],
        "edited": ids[edited & only_c],
    }
    clustered = bool(part["clustered"][kept].any())
    return Cases(
        ids=ids[kept],
        **{name: part[name][kept] for name in PER_CASE},
        clusters=part["cluster"][kept] if clustered else None,
        outcomes={
            side: _missing(part[side][kept], part[f"{side}_outcome"][kept]) for side in SIDES
        },
        excluded=int(part["excluded"].sum()),
        unpaired=int(unpaired.sum()) - int(edited.sum()) + n_edited,
        apart=apart,
        uncovered=0 if trusts_baseline and trusts_candidate else n_edited,
    )


def _edited(
    ids: NDArray[Any], only_b: NDArray[np.bool_], only_c: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Cases that both sides have, but not with the same content."""
    both = set(ids[only_b].tolist()) & set(ids[only_c].tolist())
    if not both:
        return np.zeros(len(ids), dtype=np.bool_)
    return (only_b | only_c) & np.fromiter((i in both for i in ids), np.bool_, len(ids))


def _missing(means: NDArray[Any], codes: NDArray[Any]) -> dict[str, int]:
    """Outcome -> cases without a score."""
    counts = np.bincount(
        codes[np.isnan(means)].astype(np.int64), minlength=len(MISSING_OUTCOMES)
    ).tolist()
    return {name: n for name, n in zip(MISSING_OUTCOMES, counts, strict=True) if n}


# --- slices -------------------------------------------------------------------------


def slices_of(engine: Engine, *, n_comparisons: int) -> list[dict[str, Ids]]:
    """Per comparison, slice -> ids of its cases, by what the rows of either side say."""
    found: list[dict[str, list[str]]] = [{} for _ in range(n_comparisons)]
    for row in engine.rows("""
        SELECT comparison, slice, list(DISTINCT case_id ORDER BY case_id) AS ids
        FROM (
            SELECT plan.comparison, r.case_id, unnest(r.slices) AS slice
            FROM score_rows AS r JOIN plan
                USING (source, golden_set, metric, model, prompt_name, prompt_version)
        )
        GROUP BY ALL ORDER BY comparison, slice
        """):
        found[int(row["comparison"])][row["slice"]] = row["ids"]
    return [{name: np.array(ids, dtype=np.object_) for name, ids in per.items()} for per in found]


def take(cases: Cases, inside: NDArray[np.bool_]) -> Cases:
    """The cases of a slice. What is missing is counted anew; what is unpaired has no slice."""
    arrays = {name: getattr(cases, name)[inside] for name in PER_CASE}
    gone = {side: int(np.isnan(arrays[side]).sum()) for side in ("baseline", "candidate")}
    return Cases(
        ids=cases.ids[inside],
        **arrays,
        clusters=None if cases.clusters is None else cases.clusters[inside],
        outcomes={side: {"no_score": n} if n else {} for side, n in gone.items()},
        excluded=0,
        unpaired=0,
        apart={},
        uncovered=0,
        matched=None if cases.matched is None else take(cases.matched, inside),
    )


def budget_rows(engine: Engine, *, project: Path) -> list[dict[str, Any]]:
    """Latency and cost of both sides of each meeting that has any."""
    return engine.rows(find_sql("call_budget", project=project))


# --- may they be compared -------------------------------------------------------------


def differing_versions(engine: Engine, meetings: Sequence[Meeting]) -> dict[int, tuple[str, str]]:
    """Meetings in which some case was scored by another version on each side.

    Returns one example of the versions. Only meetings whose groups hold more than one
    version are looked into: a case's own checks have versions of their own.
    """
    doubtful = [
        number
        for number, m in enumerate(meetings)
        if m.baseline.versions and m.candidate.versions
        and len({*m.baseline.versions, *m.candidate.versions}) > 1
    ]  # fmt: skip
    if not doubtful:
        return {}
    rows = engine.rows(
        """
        SELECT comparison, min(least) AS least, max(greatest) AS greatest FROM (
            SELECT plan.comparison, min(r.scorer_version) AS least,
                max(r.scorer_version) AS greatest
            FROM score_rows AS r JOIN plan
                USING (source, golden_set, metric, model, prompt_name, prompt_version)
            WHERE r.score IS NOT NULL AND list_contains(?, plan.comparison)
            GROUP BY plan.comparison, r.case_id,
                CASE WHEN plan.by_hash THEN r.case_hash ELSE '' END
            HAVING least <> greatest AND count(DISTINCT plan.side) = 2
        ) GROUP BY comparison
        """,
        (doubtful,),
    )
    return {int(row["comparison"]): (row["least"], row["greatest"]) for row in rows}


def must_pass_rows(
    engine: Engine,
    group: Group,
    *,
    metrics: Iterable[str],
    cases: Iterable[str],
    gating: Iterable[str],
) -> list[dict[str, Any]]:
    """A pair's rows that had to pass and did not, or have no score; worst first."""
    return engine.rows(
        """
        SELECT case_id, metric, trial, outcome, reason, score IS NULL AS missing
        FROM score_rows
        WHERE source = ? AND golden_set = ? AND model = ? AND prompt_name = ?
            AND prompt_version = ?
            AND (
                list_contains(?, metric)
                OR (list_contains(?, case_id) AND list_contains(?, metric))
            )
            AND (score IS NULL OR NOT coalesce(passed, score >= 1))
        ORDER BY missing, case_id, metric, trial LIMIT 10000
        """,
        (
            group.source, group.golden_set, group.pair.model, group.pair.prompt_name,
            group.pair.prompt_version, list(metrics), list(cases), list(gating),
        ),
    )  # fmt: skip
