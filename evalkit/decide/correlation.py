"""Measure how far two series of numbers rise together, by their ranks alone.

Spearman's rho and Kendall's tau-b, each with an interval. For what has no common scale: a
judge's scores and people's, a score and the length of the answer. Arrays in, frozen
results out; no I/O, no randomness.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special, stats

SAME = 1e-12
MIN_CASES = 5
"""Fewer have no interval worth the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """A rank correlation, -1..1, and how sure it is."""

    value: float | None
    """None when one of the two does not vary."""
    ci: tuple[float, float] | None
    """Two-sided at 1 - 2·alpha; None with fewer than `MIN_CASES` cases."""
    n: int


def spearman(a: ArrayLike, b: ArrayLike, *, alpha: float = 0.05) -> Correlation:
    """Spearman's rho with midranks for ties; cases where either is NaN are left out.

    Interval: Fisher's z with the standard error of Bonett & Wright 2000.
    """
    first, second = _both(a, b)
    n = len(first)
    if n < 2 or np.ptp(first) < SAME or np.ptp(second) < SAME:
        return Correlation(value=None, ci=None, n=n)
    x, y = stats.rankdata(first), stats.rankdata(second)
    x, y = x - x.mean(), y - y.mean()
    value = float((x @ y) / math.sqrt((x @ x) * (y @ y)))
    se = math.sqrt((1 + value**2 / 2) / (n - 3)) if n >= MIN_CASES else math.nan
    return Correlation(value=value, ci=_interval(value, se, n, alpha), n=n)


def kendall(a: ArrayLike, b: ArrayLike, *, alpha: float = 0.05) -> Correlation:
    """Kendall's tau-b; cases where either is NaN are left out.

    Interval: Fisher's z with the standard error of Fieller, Hartley & Pearson 1957.
    """
    first, second = _both(a, b)
    n = len(first)
    if n < 2 or np.ptp(first) < SAME or np.ptp(second) < SAME:
        return Correlation(value=None, ci=None, n=n)
    value = float(stats.kendalltau(first, second).statistic)
    se = math.sqrt(0.437 / (n - 4)) if n >= MIN_CASES else math.nan
    return Correlation(value=value, ci=_interval(value, se, n, alpha), n=n)


def _both(a: ArrayLike, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError("two series give one number per case each")
    kept = np.isfinite(first) & np.isfinite(second)
    return first[kept], second[kept]


def _interval(value: float, se: float, n: int, alpha: float) -> tuple[float, float] | None:
    if n < MIN_CASES:
        return None
    centre = math.atanh(max(min(value, 1 - SAME), SAME - 1))
    reach = float(special.ndtri(1 - alpha)) * se
    return math.tanh(centre - reach), math.tanh(centre + reach)
