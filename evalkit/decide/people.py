"""Bring in what people said of the answers that a judge scored.

Beside pairing: the labels of both sides, case by case, and how far the judge agrees with
people on the golden set. Enough labels on both sides take the judge's bias out of a
comparison (`ppi`); with fewer the judge stands alone, and gates only while it agrees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from evalkit.decide.agreement import Agreement
from evalkit.decide.comparison import Planned, Policy, Side
from evalkit.decide.grades import grades_of
from evalkit.decide.pairing import Cases, find_sql
from evalkit.decide.power import Plan
from evalkit.decide.ppi import (
    CLUSTERS_AT_LEAST,
    LABELS_AT_LEAST,
    Powered,
    powered_mean,
    units_labelled,
)
from evalkit.decide.stats import Paired

if TYPE_CHECKING:
    from evalkit.store.views import Store

Floats: TypeAlias = NDArray[np.float64]
Row: TypeAlias = Mapping[str, Any]
Spoken: TypeAlias = Mapping[str, tuple[float, float | None]]
"""Case -> what people said, and its chance to be labelled where it is known."""
PREFERENCE = "preference"
"""Metric of the labels that say which of two answers is better."""
AGAINST = ":against="
TIE = 0.5
SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Said:
    """What people said of one side, or of the difference of two."""

    scores: Floats
    """(n_cases,); NaN where no person looked."""
    inclusion: Floats | None
    """Chance of each case to be labelled; None where it was the same for all, or is unknown."""

    @property
    def n(self) -> int:
        return int(np.isfinite(self.scores).sum())

    def within(self, inside: NDArray[np.bool_]) -> Said:
        """On some of the cases."""
        return Said(self.scores[inside], None if self.inclusion is None else self.inclusion[inside])


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """People's scores on the cases of one comparison."""

    d: Said
    """Candidate minus baseline, where they looked at both."""
    baseline: Said
    candidate: Said
    alone: str | None = None
    """Why the labels cannot stand beside the judge; None where they do."""

    @property
    def n_labelled(self) -> int:
        return self.d.n

    def within(self, inside: NDArray[np.bool_]) -> People:
        """On some of the cases."""
        return People(
            d=self.d.within(inside),
            baseline=self.baseline.within(inside),
            candidate=self.candidate.within(inside),
            alone=self.alone,
        )


class Labels:
    """The store's labels of some golden sets; asked for one comparison at a time."""

    def __init__(self, store: Store | None, golden_sets: Sequence[str], *, project: Path) -> None:
        self._store, self._project = store, project
        self._rows: dict[tuple[str, str], list[Row]] = {}
        if store is None or not golden_sets or not any((store.path / "labels").glob("*.parquet")):
            return
        sql = find_sql("labelled_answers", project=project)
        for row in store.sql(sql, {"golden_sets": list(golden_sets)}):
            self._rows.setdefault((row["golden_set"], row["metric"]), []).append(row)

    def of(self, planned: Planned, cases: Cases) -> People:
        """What people said of both sides of a comparison."""
        if is_pairwise(planned):
            said_before, said_after = self._preferred(planned)
        else:
            rows = self._rows.get((planned.golden_set or "", planned.metric), [])
            said_before = _by_case(rows, planned.baseline)
            said_after = _by_case(rows, planned.candidate)
        before, chance_before = _arrays(said_before, cases)
        after, chance_after = _arrays(said_after, cases)
        d = np.where(cases.on_both, after - before, np.nan)
        return People(
            d=_said(d, _chance_of_both(chance_before, chance_after)),
            baseline=_said(before, chance_before),
            candidate=_said(after, chance_after),
        )

    def _preferred(self, planned: Planned) -> tuple[Spoken, Spoken]:
        """Preferences for the candidate's answers over the baseline's.

        As a pairwise judge scores them: 1, 0 or 0.5 for the candidate, 0.5 for the baseline.
        """
        wanted = {"golden_sets": [planned.golden_set or ""], "metric": PREFERENCE}
        if self._store is None or (planned.golden_set or "", PREFERENCE) not in self._rows:
            return {}, {}
        rows = self._store.sql(find_sql("preferences", project=self._project), wanted)
        against = [row for row in rows if _is_of(row, planned.baseline, "other_")]
        after = _by_case(against, planned.candidate)
        return {case_id: (TIE, chance) for case_id, (_, chance) in after.items()}, after

    def agreement(self, planned: Planned) -> Agreement | None:
        """How far the candidate's judge agrees with people on this golden set, in any run.

        None with too few labels to say.
        """
        group = planned.candidate_group
        key = (planned.golden_set or "", planned.metric)
        if self._store is None or group is None or group.versions is None:
            return None
        if len(self._rows.get(key, ())) < LABELS_AT_LEAST:
            return None
        rows = self._store.sql(
            find_sql("judged_and_labelled", project=self._project),
            {"golden_set": key[0], "metric": key[1], "scorer_version": group.versions[1]},
        )
        if len(rows) < LABELS_AT_LEAST:
            return None
        grades = grades_of(label for row in rows for label in row["labels"])
        scores = np.array([row["judge"] for row in rows], dtype=np.float64)
        means = np.array([np.mean(row["labels"]) for row in rows])
        judge = grades.judge(scores, [row["passed"] for row in rows])
        return grades.kappa(judge, grades.people(means))


def why_alone(said: Said, clusters: NDArray[np.uint64] | None) -> str | None:
    """Why people's labels cannot stand beside the judge; None where they can."""
    if said.n < LABELS_AT_LEAST:
        more = LABELS_AT_LEAST - said.n
        return f"{said.n} cases have people's labels on both sides, {more} more would correct it"
    there = units_labelled(said.scores, clusters, inclusion=said.inclusion)
    if clusters is not None and there < CLUSTERS_AT_LEAST:
        return f"its labels fall into too few clusters ({int(there)} of {CLUSTERS_AT_LEAST})"
    if clusters is None and there < LABELS_AT_LEAST - SAME:
        return f"its labels were drawn so unevenly that they weigh like {int(there)}"
    return None


def is_pairwise(planned: Planned) -> bool:
    """Whether its judge compared answers with those of another run."""
    group = planned.candidate_group
    return group is not None and any(AGAINST in one for one in group.versions or ())


def _by_case(rows: Sequence[Row], side: Side | None) -> Spoken:
    """Case -> mean over the labelled trials of this side, and the chance to be labelled."""
    if side is None:
        return {}
    found: dict[str, list[Row]] = {}
    for row in rows:
        if _is_of(row, side):
            found.setdefault(row["case_id"], []).append(row)
    return {
        case_id: (fmean(row["score"] for row in of), of[0]["inclusion_prob"])
        for case_id, of in found.items()
    }


def _is_of(row: Row, side: Side | None, which: str = "") -> bool:
    """Whether the label is of an answer of this side."""
    if side is None:
        return False
    sources, pair = (side.source, *side.pool), side.pair
    names = ("model", "prompt_name", "prompt_version")
    return tuple(row[which + name] for name in names) == (
        pair.model, pair.prompt_name, pair.prompt_version
    ) and any(
        row[which + "run_id"] == one.run_id or row[which + "run_id"] in one.answers_of
        for one in sources
    )  # fmt: skip


def _arrays(said: Mapping[str, tuple[float, float | None]], cases: Cases) -> tuple[Floats, Floats]:
    """Scores and chances in the order of the cases; NaN where nothing is known."""
    nothing = (math.nan, None)
    found = [said.get(case_id, nothing) for case_id in cases.ids] if said else []
    table = np.array(found, dtype=np.float64).reshape(-1, 2)
    if not len(table):
        return np.full(len(cases.ids), np.nan), np.full(len(cases.ids), np.nan)
    return table[:, 0], table[:, 1]


def _chance_of_both(before: Floats, after: Floats) -> Floats:
    """Both sides of a case are labelled in one draw where their chances are the same."""
    return np.where(np.abs(before - after) < SAME, before, before * after)


def _said(scores: Floats, chance: Floats) -> Said:
    labelled = np.isfinite(scores)
    known = chance[labelled]
    if not len(known) or not np.isfinite(known).all() or float(np.ptp(known)) <= SAME:
        return Said(scores, None)
    return Said(scores, np.where(labelled, chance, 1.0))


# --- the comparison -------------------------------------------------------------------


def compare_with_people(
    d: Floats,
    people: People,
    planned: Planned,
    policy: Policy,
    *,
    family_size: int,
    clusters: NDArray[np.uint64] | None = None,
) -> tuple[Paired, Powered]:
    """Test the drop that people see, with the judge's `d` on every case to make it surer.

    H0: E[people's d] >= -tolerance. `d` and `people` are of the cases on both sides.
    """
    found = powered_mean(
        d,
        people.d.scores,
        inclusion=people.d.inclusion,
        clusters=clusters,
        alpha=policy.alpha,
        tolerance=planned.rule.tolerance,
    )
    df = np.inf if found.df is None else found.df
    plan = Plan(se=found.se, df=df, n=found.n_labelled, n_units=found.n_labelled)
    paired = Paired(
        n=found.n,
        n_clusters=None if clusters is None else len(np.unique(clusters)),
        delta=found.estimate,
        ci=found.ci,
        p_value=found.p_value,
        p_improvement=found.p_improvement,
        p_exact=None,
        method="ppi",
        se=found.se,
        df=found.df,
        losses=int((d < -SAME).sum()),
        wins=int((d > SAME).sum()),
        mde=plan.mde(policy.alpha / max(family_size, 1)),
        cases_needed=None,
        trials_needed=None,
        reason=found.reason,
    )
    return paired, found


def worst_with_people(paired: Paired, cases: Cases, worst_d: Floats, planned: Planned) -> Paired:
    """The same, were every missing score as bad for the candidate as it can be.

    `worst_d` is of all cases. What is missing moves the estimate, and adds no evidence.
    """
    if paired.delta is None or paired.ci is None or paired.p_value is None:
        return paired
    share = float(cases.on_both.mean())
    seen = np.where(cases.on_both, cases.candidate - cases.baseline, 0.0)
    moved = float((worst_d - seen).mean()) + (share - 1) * paired.delta
    delta = paired.delta + moved
    if paired.se is None or paired.df is None:
        p_value = 1.0 if delta + planned.rule.tolerance > -SAME else paired.p_value
    else:
        t = (delta + planned.rule.tolerance) / (paired.se * share)
        p_value = float(special.stdtr(paired.df, t))
    low, high = paired.ci
    return replace(
        paired,
        delta=delta,
        ci=(max(low + moved, -1.0), max(min(high + moved, 1.0), -1.0)),
        p_value=p_value,
    )
