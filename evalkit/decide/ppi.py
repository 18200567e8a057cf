"""Put people's labels and a judge together: a judge on all cases, people on some of them.

Prediction-powered inference with power tuning (PPI++, Angelopoulos, Duchi & Zrnic 2023) for
equal inclusion probabilities, its inverse-probability form (Zrnic & Candès 2024) for unequal
ones. The labels take the judge's bias out, the judge takes noise out: a wrong judge costs
precision, never truth. For a comparison, pass differences of candidate and baseline on both
sides of the argument; then a judge whose bias moved between versions does no harm.
Arrays in, frozen results out; part of `decide`'s statistics, no I/O.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats: TypeAlias = NDArray[np.float64]

LABELS_AT_LEAST = 20
CLUSTERS_AT_LEAST = 10
"""Effective number of clusters with labels below which their spread is not known."""
CELL = 0.5
"""Cases added to each cell of the table of people and judge where both only pass or fail, as
Agresti & Coull (1998) add to a share: without them the interval misses a judge's rare errors."""
MAX_PULL = 0.5
"""Of one labelled case on the tuned lambda: one that decides it alone is not divided by 0."""
SAME = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Powered:
    """A mean over all cases as people would score them."""

    n: int
    """Cases the judge scored."""
    n_labelled: int
    estimate: float | None
    se: float | None
    df: float | None
    """Degrees of freedom: labels less the mean and the tuned weight; None without spread."""
    ci: tuple[float, float] | None
    """Two-sided at 1 - 2·alpha; None when unmeasurable."""
    p_value: float | None
    """One-sided, H0: the mean is at least -tolerance."""
    p_improvement: float | None
    judge_weight: float | None
    """Lambda: 0 ignores the judge, 1 trusts the judge's cases like labels."""
    judge_bias: float | None
    """Mean of judge minus people over the labelled cases, design-weighted."""
    label_saving: float | None
    """Share of labels that the judge replaces: 1 - (variance with it / without it)."""
    kept: float | None
    """Part of se² that no further label takes away: there are only so many cases."""
    reason: str | None = None
    """Why nothing could be measured."""


def powered_mean(
    judge: ArrayLike,
    human: ArrayLike,
    *,
    inclusion: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    alpha: float = 0.05,
    tolerance: float = 0.0,
    judge_weight: float | None = None,
) -> Powered:
    """Estimate the mean of people's scores over all cases. H0: it is at least -tolerance.

    `judge` (n_cases,) has every case's score; `human` (n_cases,) NaN where no person looked;
    `inclusion` (n_cases,) the chance 0..1 each case had to be labelled (default: the same for
    all). `clusters` (n_cases,) says which cases were drawn together; then the clusters are what
    was drawn. `judge_weight` fixes lambda instead of tuning it.
    """
    f, y, chance = _checked(judge, human, inclusion)
    labelled = np.isfinite(y)
    n, n_labelled = len(f), int(labelled.sum())
    if n_labelled < LABELS_AT_LEAST:
        return _unmeasurable(n, n_labelled, f"{n_labelled} labels; at least {LABELS_AT_LEAST}")
    pull = np.ones(n_labelled) if chance is None else 1 / chance[labelled]
    codes = None if clusters is None else _codes(clusters, n)
    effective = _effective(pull, None if codes is None else codes[labelled])
    if codes is not None and effective < CLUSTERS_AT_LEAST:
        return _unmeasurable(n, n_labelled, f"labels of {int(effective)} clusters; too few")
    if chance is None and codes is None:
        found = _uniform(f, y, labelled, judge_weight)
    else:
        even = np.ones(n) if chance is None else chance
        found = _weighted(f, y, labelled, even, judge_weight, codes, effective)
    estimate, variance = found.estimate, found.variance
    if variance < SAME**2:
        tails = _no_spread(estimate, effective, alpha, tolerance)
    else:
        df = max(effective - (1 if judge_weight is not None else 2), 1.0)
        tails = _t(estimate, math.sqrt(variance), df, alpha, tolerance)
    centre, reach = estimate, tails.reach
    if found.around is not None and tails.se is not None:
        centre, wider = found.around
        reach *= math.sqrt(wider / variance)
    return Powered(
        n=n,
        n_labelled=n_labelled,
        estimate=estimate,
        se=tails.se,
        df=tails.df,
        ci=(max(centre - reach, -1.0), min(centre + reach, 1.0)),
        p_value=tails.drop,
        p_improvement=tails.improvement,
        judge_weight=found.weight,
        judge_bias=float(np.average((f - np.where(labelled, y, 0.0))[labelled], weights=pull)),
        label_saving=1 - variance / found.alone if found.alone > 0 else None,
        kept=found.weight**2 * float(f.var(ddof=1)) / n,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    estimate: float
    variance: float
    weight: float
    alone: float
    """Variance of the labels without the judge."""
    around: tuple[float, float] | None = None
    """Centre and variance of the interval where they are not the estimate's own: see CELL."""


@dataclass(frozen=True, slots=True)
class _Tails:
    drop: float
    improvement: float
    reach: float
    """Half the interval's width."""
    se: float | None
    df: float | None


def _t(estimate: float, se: float, df: float, alpha: float, tolerance: float) -> _Tails:
    t = (estimate + tolerance) / se
    return _Tails(
        drop=float(special.stdtr(df, t)),
        improvement=float(special.stdtr(df, -t)),
        reach=float(special.stdtrit(df, 1 - alpha)) * se,
        se=se,
        df=df,
    )


def _no_spread(estimate: float, labels: float, alpha: float, tolerance: float) -> _Tails:
    """All labels alike, so the judge has nothing to add: the sign test and the zero-event bound."""
    alike = 0.5 ** (labels + 1)
    shifted = estimate + tolerance
    return _Tails(
        drop=alike if shifted < -SAME else 1.0,
        improvement=alike if shifted > SAME else 1.0,
        reach=-math.expm1(math.log(alpha) / labels),
        se=None,
        df=None,
    )


def units_labelled(
    human: ArrayLike, clusters: ArrayLike | None = None, *, inclusion: ArrayLike | None = None
) -> float:
    """Labelled cases, or clusters of them, that would weigh alike and say as much."""
    labelled = np.isfinite(np.asarray(human, dtype=np.float64))
    if not labelled.any():
        return 0.0
    pull = 1 / (np.ones(len(labelled)) if inclusion is None else np.asarray(inclusion))
    codes = None if clusters is None else _codes(clusters, len(labelled))[labelled]
    return _effective(pull[labelled], codes)


def _effective(pull: Floats, codes: NDArray[np.int64] | None) -> float:
    """Units that weigh alike and say as much (Kish)."""
    drawn = pull if codes is None else np.bincount(codes, pull)
    return float(drawn.sum() ** 2 / (drawn**2).sum())


def _codes(clusters: ArrayLike, n: int) -> NDArray[np.int64]:
    """0, 1, … for each case's cluster."""
    names = np.asarray(clusters)
    if names.shape != (n,):
        raise ValueError("clusters are one for each case")
    return np.asarray(np.unique(names, return_inverse=True)[1], dtype=np.int64)


def _checked(
    judge: ArrayLike, human: ArrayLike, inclusion: ArrayLike | None
) -> tuple[Floats, Floats, Floats | None]:
    f, y = np.asarray(judge, dtype=np.float64), np.asarray(human, dtype=np.float64)
    if f.ndim != 1 or f.shape != y.shape or not np.isfinite(f).all():
        raise ValueError("judge and human are one number per case, judge without gaps")
    if np.isinf(y).any():
        raise ValueError("a label is a number, or NaN where no person looked")
    if inclusion is None:
        return f, y, None
    chance = np.asarray(inclusion, dtype=np.float64)
    if chance.shape != f.shape or not ((chance > 0) & (chance <= 1)).all():
        raise ValueError("inclusion is each case's chance to be labelled, above 0 and at most 1")
    return f, y, None if float(np.ptp(chance)) < SAME else chance


def _uniform(f: Floats, y: Floats, labelled: NDArray[np.bool_], fixed: float | None) -> _Found:
    """Estimate, its variance and lambda, where every case had the same chance of a label."""
    people, judged, rest = y[labelled], f[labelled], f[~labelled]
    alone = float(people.var(ddof=1)) / len(people)
    if len(rest) == 0:
        return _Found(float(people.mean()), alone, 0.0, alone)
    weight = _tuned(people, judged, rest) if fixed is None else fixed
    each = np.ones(len(people))
    estimate, variance = _together(people, judged, rest, each, weight, tuned=fixed is None)
    if fixed is not None or not np.isin(np.concatenate([people, f]), (0.0, 1.0)).all():
        return _Found(estimate, variance, weight, alone)
    table = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    people, judged = np.concatenate([[people, judged], table.T], axis=1)
    each = np.concatenate([each, np.full(len(table), CELL)])
    centre, wider = _together(people, judged, rest, each, weight, tuned=True)
    return _Found(estimate, variance, weight, alone, around=(centre, wider))


def _together(
    people: Floats, judged: Floats, rest: Floats, each: Floats, weight: float, *, tuned: bool
) -> tuple[float, float]:
    """Estimate and variance; `each` says how many cases every labelled one stands for.

    `rest` in PPI++ are the cases without a label; with lambda' on them the estimate is
    mean(Y) - lambda' (mean f labelled - mean f rest), the document's form with
    lambda = lambda' · N / rest. A tuned lambda follows the cases it was tuned on, those far
    from the judge's mean most: HC2 (MacKinnon & White 1985) takes that back.
    """
    n, left = float(each.sum()), len(rest)
    off = judged - float(each @ judged) / n
    apart = people - weight * judged
    apart = apart - float(each @ apart) / n
    if tuned:
        spread = float(each @ off**2)
        pull = each * (1 / n + (off**2 / spread if spread > SAME**2 else 0.0))
        variance = float(each @ (apart**2 / (1 - np.minimum(pull, MAX_PULL)))) / n**2
    else:
        variance = float(each @ apart**2) / (n - 1) / n
    variance += weight**2 * float(rest.var(ddof=min(1, left - 1))) / left
    means = float(each @ people) / n, float(each @ judged) / n
    return means[0] - weight * (means[1] - float(rest.mean())), variance


def _tuned(people: Floats, judged: Floats, rest: Floats) -> float:
    """PPI++'s lambda, clipped to 0..1 (section 6, for a mean)."""
    n, left = len(people), len(rest)
    shared = float(((people - people.mean()) * (judged - judged.mean())).mean())
    spread = float(np.concatenate([judged, rest]).var(ddof=1))
    return min(max(shared / ((1 + n / left) * spread), 0.0), 1.0) if spread > SAME**2 else 0.0


def _weighted(
    f: Floats,
    y: Floats,
    labelled: NDArray[np.bool_],
    chance: Floats,
    fixed: float | None,
    codes: NDArray[np.int64] | None,
    effective: float,
) -> _Found:
    """The same by inverse probability: mean(lambda f) + weighted mean of (Y - lambda f).

    Where cases share clusters, their terms are summed first: the clusters were drawn.
    Zrnic & Candès divide the last sum by N; dividing by the sum of weights (Hájek) takes out
    how many happened to be drawn, and with it what a judge's bias would add to the noise.
    """
    pull = np.where(labelled, 1 / chance, 0.0)
    pull *= len(f) / pull.sum()
    people = np.where(labelled, y, 0.0)
    mean_people, mean_judged = (float(pull @ x) / len(f) for x in (people, f))
    apart = pull * (people - mean_people)
    bend = pull * (f - mean_judged) - (f - f.mean())
    if codes is not None:
        apart, bend = (
            np.asarray(np.bincount(codes, one), dtype=np.float64) for one in (apart, bend)
        )
    units = len(apart)
    spread = float(bend.var(ddof=1))
    if fixed is None:
        shared = float(np.cov(apart, bend)[0, 1])
        weight = min(max(shared / spread, 0.0), 1.0) if spread > SAME**2 else 0.0
    else:
        weight = fixed
    estimate = mean_people - weight * (mean_judged - float(f.mean()))
    fewer = effective / max(effective - (2 if fixed is None else 1), 1.0)
    variance, alone = (
        float(terms.var(ddof=1)) * units / len(f) ** 2 * fewer
        for terms in (apart - weight * bend, apart)
    )
    return _Found(estimate, variance, weight, alone)


def _unmeasurable(n: int, n_labelled: int, reason: str) -> Powered:
    return Powered(
        n=n, n_labelled=n_labelled, estimate=None, se=None, df=None, ci=None, p_value=None,
        p_improvement=None, judge_weight=None, judge_bias=None, label_saving=None, kept=None,
        reason=reason,
    )  # fmt: skip
