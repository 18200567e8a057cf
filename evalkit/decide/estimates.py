"""Set three estimates of one difference side by side: the judge's, the labels', both together.

For people who have to decide whether to trust a judge: where its own estimate lies far from
the labels', its bias moved between the versions. Beside them what people think of each side,
and how many more labels would decide. Numbers from `stats` and `ppi`; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalkit.decide.comparison import Planned, Policy
from evalkit.decide.pairing import Cases
from evalkit.decide.people import Floats, People, Said, why_alone
from evalkit.decide.power import CASES_LIMIT, Plan, reach
from evalkit.decide.ppi import LABELS_AT_LEAST, Powered, powered_mean
from evalkit.decide.stats import Paired

Clusters: TypeAlias = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """One comparison, three ways."""

    judge: Paired
    """The judge's word alone, on all cases."""
    labels: Powered
    """People's alone, on the cases they looked at."""
    both: Powered
    labels_needed: int | None
    """Labelled cases that exclude max_drop with 80 % power; None where all would not do, or
    where it is clusters that count."""
    baseline: Powered | None
    """How good people would find the side; None with too few labels of it."""
    candidate: Powered | None


def side_by_side(
    judge: Paired, both: Powered, cases: Cases, people: People, planned: Planned, policy: Policy
) -> Estimates:
    """The estimates of a comparison that `both` was measured for. `people` is of all `cases`."""
    d = (cases.candidate - cases.baseline)[cases.on_both]
    said = people.d.within(cases.on_both)
    clusters = None if cases.clusters is None else cases.clusters[cases.on_both]
    needed = labels_needed(both, max_drop=planned.rule.max_drop, alpha=policy.alpha)
    return Estimates(
        judge=judge,
        labels=_powered(d, said, policy, clusters, judge_weight=0.0),
        both=both,
        labels_needed=needed if clusters is None else None,
        baseline=_quality(cases.baseline, people.baseline, policy, cases.clusters),
        candidate=_quality(cases.candidate, people.candidate, policy, cases.clusters),
    )


def labels_needed(found: Powered, *, max_drop: float, alpha: float) -> int | None:
    """Labelled cases, with this judge and spread, whose interval excludes max_drop.

    With 80 % power were there no drop. None where labels on all cases would not do.
    """
    n = found.n_labelled
    if found.se is None or found.df is None or found.kept is None:
        plan = Plan(se=None, df=np.inf, n=n, n_units=n)
        needed = plan.cases_needed(max_drop=max_drop, alpha=alpha)
    else:
        each, df, kept = max(found.se**2 - found.kept, 0.0) * n, found.df, found.kept

        def enough(labels: float) -> float:
            room = (max_drop / reach(alpha, max(df * labels / n, 1.0))) ** 2 - kept
            return each / room if room > 0 else np.inf

        needed = _settled(enough)
    return None if needed is None or needed > found.n else max(needed, LABELS_AT_LEAST)


def _settled(enough: Callable[[float], float]) -> int | None:
    """Smallest number that is enough for itself; t quantiles shrink as it grows."""
    low, high = 1, CASES_LIMIT
    if enough(high) > high:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) <= middle else (middle + 1, high)
    return low


def _quality(
    judge: Floats, said: Said, policy: Policy, clusters: Clusters | None
) -> Powered | None:
    """What people would say of one side; of the cases that the judge scored."""
    scored: NDArray[np.bool_] = np.isfinite(judge)
    there = said.within(scored)
    groups = None if clusters is None else clusters[scored]
    if why_alone(there, groups) is not None:
        return None
    return _powered(judge[scored], there, policy, groups)


def _powered(
    judge: Floats,
    said: Said,
    policy: Policy,
    clusters: Clusters | None,
    *,
    judge_weight: float | None = None,
) -> Powered:
    return powered_mean(
        judge,
        said.scores,
        inclusion=said.inclusion,
        clusters=clusters,
        alpha=policy.alpha,
        judge_weight=judge_weight,
    )
