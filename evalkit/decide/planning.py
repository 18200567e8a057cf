"""Say before a run what it will be able to show, and what it would take to show more.

Numbers in, plain records out; the spread comes from `history`, the arithmetic from
`power`. Without history it takes the worst case that is still sane, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from evalkit.decide.history import Spread
from evalkit.decide.power import CASES_LIMIT, Plan

WORST_VARIANCE = 0.5
"""Of d, for two pairs that agree no more often than two coins: 2 x 1/4."""
TRIALS_WORTHWHILE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """The run that is planned."""

    n: int
    """Cases."""
    n_clusters: int
    """Clusters they fall into; n where every case stands for itself."""
    trials: int
    alpha: float
    comparisons: int
    """Gating comparisons that share alpha."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What one metric of the planned run will be able to show."""

    metric: str
    between: float
    within: float | None
    """Variance of d from trial noise; None when nobody knows."""
    source: str
    """Where the variances come from, in words."""
    assumed: bool
    """Whether they are assumed, not measured."""
    mde: float | None
    """Drop that is found with 80 % power; None when not even a collapse would be."""
    cases_needed: int | None
    """Cases, at these trials, to find `drop`; None when no number would do."""
    trials_needed: int | None
    """Trials a side, at these cases; None when no number would do, or nobody knows."""
    soonest: str
    """What to do to see the drop, in words."""


def prospect(metric: str, spread: Spread | None, design: Design, *, drop: float) -> Prospect:
    """What the planned run will show of one metric, and what is needed to see `drop`."""
    between = WORST_VARIANCE if spread is None else spread.between
    within = None if spread is None else spread.within
    binary = spread is None or spread.binary

    def mde(n: int, trials: int) -> float | None:
        return _plan(n, trials, design, between=between, within=within, binary=binary).mde(
            design.alpha / design.comparisons
        )

    def shows(n: int, trials: int) -> bool:
        found = mde(n, trials)
        return found is not None and found <= drop + 1e-12

    cases = fewest(lambda n: shows(n, design.trials), start=2, limit=CASES_LIMIT)
    trials = (
        None
        if within is None
        else fewest(lambda k: shows(design.n, k), start=1, limit=TRIALS_WORTHWHILE)
    )
    return Prospect(
        metric=metric,
        between=between,
        within=within,
        source=_source(spread),
        assumed=spread is None,
        mde=mde(design.n, design.trials),
        cases_needed=cases,
        trials_needed=trials,
        soonest=_soonest(design, cases, trials),
    )


def _plan(
    n: int, trials: int, design: Design, *, between: float, within: float | None, binary: bool
) -> Plan:
    """The plan of n cases, clustered as the golden set is now.

    Several trials turn counts into means, which the paired counts test does not take.
    """
    variance = between + (0.0 if within is None else within / trials)
    units = max(round(n * design.n_clusters / design.n), 2)
    return Plan(
        se=math.sqrt(variance / n) if variance > 0 else None,
        df=units - 1.0,
        n=n,
        n_units=units,
        paired_counts=binary and trials == 1,
    )


def fewest(enough: Callable[[int], bool], *, start: int, limit: int) -> int | None:
    """The smallest number from `start` on that is enough; None when `limit` is not.

    What is enough stays enough with more.
    """
    high = start
    while not enough(high):
        if high >= limit:
            return None
        high = min(2 * high, limit)
    low = max(start, high // 2)
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    return high


def _source(spread: Spread | None) -> str:
    if spread is None:
        return (
            "assumed, as no two earlier runs can be compared: two pairs that agree no more "
            f"than by chance (variance {WORST_VARIANCE}), none of it trial noise"
        )
    several = f"{spread.comparisons} comparison{'s' * (spread.comparisons != 1)}"
    what = (
        f"{several} of different pairs" if spread.change
        else f"{several} of one pair with itself; a real change moves more cases than noise does"
    )  # fmt: skip
    return f"{what}, {spread.cases} cases in {len(spread.runs)} run{'s' * (len(spread.runs) != 1)}"


def _soonest(design: Design, cases: int | None, trials: int | None) -> str:
    """Trials where they are enough, as no case has to be written for them; else cases."""
    if cases is not None and cases <= design.n:
        return f"as planned: {design.n} cases x {design.trials} trials see it"
    if trials is not None:
        return f"--trials {trials}: {design.n * trials} calls a side, and no new case to write"
    if cases is None:
        return "nothing: no number of cases or trials in reach shows so small a drop"
    calls = cases * design.trials
    return f"{cases - design.n} more cases, {cases} in all: {calls} calls a side"
