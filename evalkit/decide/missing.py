"""Keep missing scores from passing as evidence: compare missing rates, assume the worst.

Arrays in, numbers out; part of `decide`'s statistics, no I/O. A candidate that errs,
refuses or stays silent on the cases it would lose has fewer cases, not better ones.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats: TypeAlias = NDArray[np.float64]


def fisher_missing(missing_b: int, n_b: int, missing_c: int, n_c: int) -> float:
    """Two-sided p for H0: a case is as likely to have no score in either run.

    Fisher's exact test: all tables no likelier than the one seen, margins given.
    1 where nothing, or everything, is missing.
    """
    if not (0 <= missing_b <= n_b and 0 <= missing_c <= n_c):
        raise ValueError(f"{missing_b} of {n_b} and {missing_c} of {n_c} are not counts")
    missing = missing_b + missing_c
    low, high = max(0, missing - n_c), min(missing, n_b)
    if low == high:
        return 1.0
    k = np.arange(low, high + 1, dtype=np.float64)
    log_chance = _log_choose(n_b, k) + _log_choose(n_c, missing - k)
    chance = np.exp(log_chance - log_chance.max())
    seen = chance[missing_b - low]
    return min(float(chance[chance <= seen * (1 + 1e-7)].sum() / chance.sum()), 1.0)


def _log_choose(n: int, k: Floats) -> Floats:
    return np.asarray(
        special.gammaln(n + 1.0) - special.gammaln(k + 1) - special.gammaln(n - k + 1),
        dtype=np.float64,
    )


def worst_case(
    baseline: ArrayLike,
    candidate: ArrayLike,
    *,
    missing_b: ArrayLike = 0.0,
    missing_c: ArrayLike = 0.0,
) -> Floats:
    """The d of each case if all that is missing were as bad for the candidate as can be.

    `baseline`, `candidate` (n_cases,): case means 0..1, NaN where a side has no score at
    all. A missing candidate counts 0, a missing baseline 1. `missing_b`, `missing_c`: share
    of the case's trials without a score, 0..1, for cases that lost only some of them.
    """
    b, c = np.asarray(baseline, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    gone_b = np.where(np.isnan(b), 1.0, np.asarray(missing_b, dtype=np.float64))
    gone_c = np.where(np.isnan(c), 1.0, np.asarray(missing_c, dtype=np.float64))
    filled_b = np.nan_to_num(b, nan=0.0) * (1 - gone_b) + gone_b
    filled_c = np.nan_to_num(c, nan=0.0) * (1 - gone_c)
    return np.asarray(filled_c - filled_b, dtype=np.float64)
