"""Measure how far a judge agrees with people, or people with each other.

Cohen's kappa (plain or weighted) for two raters on the same cases, Krippendorff's alpha and
Gwet's AC1 for any number with gaps, each with an interval; agreement by chance counts for
nothing. Arrays in, frozen results out; part of `decide`'s statistics, no I/O, seeded
resampling only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats: TypeAlias = NDArray[np.float64]
Weights = Literal["linear", "quadratic"]
Scale = Literal["nominal", "ordinal", "interval"]

RESAMPLES = 2_000
RESAMPLE_CHUNK = 250
SAME = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A chance-corrected agreement and how sure it is."""

    value: float | None
    """1 is perfect, 0 is chance; None when there is nothing to agree about."""
    ci: tuple[float, float] | None
    """Two-sided at 1 - 2·alpha."""
    se: float | None
    n: int
    """Cases with at least two ratings."""
    observed: float | None
    """Share of (weighted) agreement seen."""
    expected: float | None
    """Share that raters with these habits reach by chance."""
    reason: str | None = None


def kappa(
    a: ArrayLike, b: ArrayLike, *, weights: Weights | None = None, alpha: float = 0.05
) -> Agreement:
    """Cohen's kappa of two raters; cases where either is NaN are left out.

    `weights` let near misses count, by distance in rank among the values seen. Standard
    error: Fleiss, Cohen & Everitt 1969. Perfect agreement gets the exact zero-event bound, and so
    does one rater who always says the same: kappa is then 0 whatever the other says.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError("two raters give one number per case each")
    both = np.isfinite(first) & np.isfinite(second)
    values, code = np.unique(np.concatenate([first[both], second[both]]), return_inverse=True)
    n, k = int(both.sum()), len(values)
    if n < 2 or k < 2:
        return _nothing(n, "two raters who always give the same one value cannot be told apart")
    table = np.bincount(code[:n] * k + code[n:], minlength=k * k).reshape(k, k) / n
    credit = _credit(k, weights)
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    observed = float((table * credit).sum())
    expected = float(rows @ credit @ columns)
    if 1 - expected < SAME:
        return _nothing(n, "both raters give nearly always one value: agreement is all chance")
    value = (observed - expected) / (1 - expected)
    se = _kappa_se(table, credit, value, expected, n)
    return Agreement(
        value=value, ci=_kappa_interval(value, se, expected, n, alpha), se=se, n=n,
        observed=observed, expected=expected,
    )  # fmt: skip


def _credit(k: int, weights: Weights | None) -> Floats:
    """What a pair of ratings is worth, 1 for the same and 0 for the farthest, (k, k)."""
    if weights is None:
        return np.eye(k)
    apart = np.abs(np.subtract.outer(np.arange(k), np.arange(k))) / (k - 1)
    return np.asarray(1 - apart if weights == "linear" else 1 - apart**2)


def _kappa_se(table: Floats, credit: Floats, value: float, expected: float, n: int) -> float:
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    habit = (credit @ columns)[:, None] + (rows @ credit)[None, :]
    moment = float((table * (credit - habit * (1 - value)) ** 2).sum())
    variance = moment - (value - expected * (1 - value)) ** 2
    # What rounding leaves of two equal terms is no spread.
    return math.sqrt(variance / n) / (1 - expected) if variance > SAME else 0.0


def _kappa_interval(
    value: float, se: float, expected: float, n: int, alpha: float
) -> tuple[float, float]:
    """Symmetric in arctanh, which keeps within -1..1 and covers better at small n."""
    if value > 1 - SAME or se < SAME:
        reach = -math.expm1(math.log(alpha) / n) / (1 - expected)
        return max(value - reach, -1.0), min(value + reach, 1.0)
    centre = math.atanh(max(min(value, 1 - SAME), SAME - 1))
    reach = float(special.stdtrit(n - 1, 1 - alpha)) * se / (1 - value**2)
    return math.tanh(centre - reach), math.tanh(centre + reach)


def krippendorff(
    ratings: ArrayLike, *, scale: Scale = "nominal", alpha: float = 0.05, seed: int = 0
) -> Agreement:
    """Krippendorff's alpha of any number of raters, NaN where one did not rate.

    `ratings` (n_raters, n_cases). `scale` says how far two values are apart: not at all or
    fully (nominal), by rank (ordinal), by squared difference (interval). The interval is a
    percentile bootstrap of cases; a case with one rating says nothing and is left out.
    """
    counts, values = _counts(np.asarray(ratings, dtype=np.float64))
    n = len(counts)
    if n < 2 or len(values) < 2:
        return _nothing(n, "ratings of fewer than two cases, or all the same, show no agreement")
    apart = _distances(counts, values, scale)
    per_case = ((counts @ apart) * counts).sum(axis=1) / (counts.sum(axis=1) - 1)
    value, seen, chance = (float(x[0]) for x in _alpha_of(np.ones((1, n)), counts, per_case, apart))
    draws = _bootstrap(counts, per_case, apart, seed)
    low, high = np.quantile(draws, [alpha, 1 - alpha])
    if seen < SAME:
        low = min(float(low), 1 - (-math.expm1(math.log(alpha) / n)) / max(chance, SAME))
    return Agreement(
        value=value, ci=(max(float(low), -1.0), min(float(high), 1.0)),
        se=float(draws.std(ddof=1)), n=n, observed=1 - seen, expected=1 - chance,
    )  # fmt: skip


def ac1(ratings: ArrayLike, *, alpha: float = 0.05) -> Agreement:
    """Gwet's AC1 of any number of raters on categories, NaN where one did not rate.

    `ratings` (n_raters, n_cases). Where one category is rare kappa falls though raters
    agree; AC1 does not. Standard error: Gwet 2008, eq. 20, of the sampling of cases; a case
    with one rating says which categories are common, and nothing of agreement.
    """
    rated = np.asarray(ratings, dtype=np.float64)
    if rated.ndim != 2:
        raise ValueError("ratings has one row per rater and one column per case")
    seen = np.isfinite(rated)
    values = np.unique(rated[seen])
    q = len(values)
    each = np.array([(rated == value).sum(axis=0) for value in values]).T
    raters = seen.sum(axis=0)
    each, raters = each[raters > 0], raters[raters > 0]
    twice = raters >= 2
    n, n_twice = len(raters), int(twice.sum())
    if n_twice < 2 or q < 2:
        return _nothing(n_twice, "ratings of fewer than two cases, or all the same")
    shares = each / raters[:, None]
    habits = shares.mean(axis=0)
    chance = float((habits * (1 - habits)).sum() / (q - 1))
    same = np.zeros(n)
    r = raters[twice]
    same[twice] = (each[twice] * (each[twice] - 1)).sum(axis=1) / (r * (r - 1))
    observed = float(same.sum() / n_twice)
    value = (observed - chance) / (1 - chance)
    # Linearised per case; a case rated once has no agreement of its own.
    own = np.where(twice, (same - chance) / (1 - chance), 0.0) * n / n_twice
    own_chance = (shares * (1 - habits)).sum(axis=1) / (q - 1)
    linear = own - 2 * (1 - value) * (own_chance - chance) / (1 - chance)
    se = math.sqrt(float(((linear - value) ** 2).sum()) / (n * (n - 1)))
    reach = float(special.stdtrit(n - 1, 1 - alpha)) * se
    low = value - reach
    if se < SAME:
        low = value - (-math.expm1(math.log(alpha) / n)) / (1 - chance)
    return Agreement(
        value=value, ci=(max(low, -1.0), min(value + reach, 1.0)), se=se, n=n_twice,
        observed=observed, expected=chance,
    )  # fmt: skip


def _counts(ratings: Floats) -> tuple[Floats, Floats]:
    """How often each case got each value, (n_cases, n_values), cases rated twice or more."""
    if ratings.ndim != 2:
        raise ValueError("ratings has one row per rater and one column per case")
    rated = np.isfinite(ratings)
    columns = np.flatnonzero(rated.sum(axis=0) >= 2)
    kept, seen = ratings[:, columns], rated[:, columns]
    values, code = np.unique(kept[seen], return_inverse=True)
    case = np.broadcast_to(np.arange(len(columns)), kept.shape)[seen]
    counts = np.bincount(case * len(values) + code, minlength=len(columns) * len(values))
    return counts.reshape(len(columns), len(values)).astype(np.float64), values


def _distances(counts: Floats, values: Floats, scale: Scale) -> Floats:
    if scale == "nominal":
        return 1 - np.eye(len(values))
    if scale == "ordinal":
        total = counts.sum(axis=0)
        values = np.cumsum(total) - total / 2
    squared = np.subtract.outer(values, values) ** 2
    return np.asarray(squared / squared.max())


def _alpha_of(
    weights: Floats, counts: Floats, per_case: Floats, apart: Floats
) -> tuple[Floats, Floats, Floats]:
    """Alpha, disagreement seen and by chance, for each row of case weights."""
    totals = weights @ counts
    ratings = totals.sum(axis=1)
    seen = (weights @ per_case) / ratings
    chance = ((totals @ apart) * totals).sum(axis=1) / (ratings * (ratings - 1))
    value = np.where(chance > SAME, 1 - seen / np.maximum(chance, SAME), 1.0)
    return value, seen, chance


def _bootstrap(counts: Floats, per_case: Floats, apart: Floats, seed: int) -> Floats:
    n = len(counts)
    generator = np.random.default_rng(seed)
    even = np.full(n, 1 / n)
    draws = []
    for _ in range(RESAMPLES // RESAMPLE_CHUNK):
        weights = generator.multinomial(n, even, size=RESAMPLE_CHUNK).astype(np.float64)
        draws.append(_alpha_of(weights, counts, per_case, apart)[0])
    return np.concatenate(draws)


def _nothing(n: int, reason: str) -> Agreement:
    return Agreement(
        value=None, ci=None, se=None, n=n, observed=None, expected=None, reason=reason
    )  # fmt: skip
