"""Say what several trials of a case tell: noise within cases, flaky cases, pass^k, pass@k.

Arrays with one entry per case in, plain numbers out; part of `decide`'s statistics, no I/O.
A case's trials never count as cases: they only make its mean less noisy, and how much
is what `split_variance` measures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats: TypeAlias = NDArray[np.float64]
SAME = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Where the spread of d (candidate minus baseline, per case) comes from."""

    between: float | None
    """Variance of d over cases with trial noise taken away; None when noise is unknown."""
    within: float | None
    """Variance of d from trial noise, were there one trial a side; None when no case was
    tried twice on either side."""
    trials: float
    """Trials a side that would be as noisy as what was run; 1 when unknown."""

    @property
    def share_within(self) -> float | None:
        """Share of the variance of mean d that is trial noise at these trials, 0..1."""
        if self.between is None or self.within is None:
            return None
        noise = self.within / self.trials
        return noise / (self.between + noise) if self.between + noise > 0 else None


def split_variance(
    d: ArrayLike, *, var_b: ArrayLike, n_b: ArrayLike, var_c: ArrayLike, n_c: ArrayLike
) -> Split:
    """Split the variance of d into what differs between cases and what differs between trials.

    All (n_cases,): d is the difference of case means; `var_b`, `var_c` the sample variance
    (n - 1) over a case's trials on that side, NaN where it had one; `n_b`, `n_c` the trials
    with a score. A side never tried twice is taken to be as noisy as the other. Method of
    moments: E[var(d)] = between + mean(v_b / n_b + v_c / n_c).
    """
    deltas = np.asarray(d, dtype=np.float64)
    sides = [_noise(var_b, n_b), _noise(var_c, n_c)]
    known = [noise for noise in sides if noise is not None]
    if len(deltas) < 2 or not known:
        return Split(between=None, within=None, trials=1.0)
    spare = known[0]
    within = math.fsum((noise or spare)[0] for noise in sides)
    left = math.fsum(spare[0] if noise is None else noise[1] for noise in sides)
    between = max(float(deltas.var(ddof=1)) - left, 0.0)
    return Split(between=between, within=within, trials=within / left if left > 0 else 1.0)


def _noise(variances: ArrayLike, counts: ArrayLike) -> tuple[float, float] | None:
    """Mean variance of one trial, and of a case's mean; None without a case tried twice."""
    v, n = np.asarray(variances, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    twice = np.isfinite(v)
    if not twice.any():
        return None
    one = float(v[twice].mean())
    return one, float((np.where(twice, v, one)[n >= 1] / n[n >= 1]).mean())


def flaky_cases(case_ids: Sequence[str], low: ArrayLike, high: ArrayLike) -> list[str]:
    """Cases whose score differs over the trials of one side, in the order given.

    `low`, `high` (n_cases,): a case's lowest and highest score; NaN where it has none.
    """
    apart = np.asarray(high, dtype=np.float64) - np.asarray(low, dtype=np.float64) > SAME
    return [case_id for case_id, flaky in zip(case_ids, apart.tolist(), strict=True) if flaky]


def pass_hat_k(passes: ArrayLike, trials: ArrayLike, k: int) -> float | None:
    """Chance that k trials of a case all pass, mean over cases; None where none has k trials.

    Unbiased, C(c, k) / C(n, k) for c of n passed (Yao et al. 2024, tau-bench).
    """
    return _mean_choice(passes, trials, k, "passes")


def pass_at_k(passes: ArrayLike, trials: ArrayLike, k: int) -> float | None:
    """Chance that one of k trials passes, mean over cases; None where none has k trials.

    Unbiased, 1 - C(n - c, k) / C(n, k) (Chen et al. 2021, section 2.1).
    """
    all_fail = _mean_choice(passes, trials, k, "failures")
    return None if all_fail is None else 1 - all_fail


def _mean_choice(
    passes: ArrayLike, trials: ArrayLike, k: int, of: Literal["passes", "failures"]
) -> float | None:
    if k < 1:
        raise ValueError(f"k is {k}; it counts trials, from 1")
    c, n = np.asarray(passes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    if c.shape != n.shape or ((c < 0) | (c > n)).any():
        raise ValueError("passes and trials are counts per case, passes within 0..trials")
    enough = n >= k
    if not enough.any():
        return None
    c, n = c[enough], n[enough]
    chosen = c if of == "passes" else n - c
    return float((special.binom(chosen, k) / special.binom(n, k)).mean())
