"""Compare a candidate with its baseline, case by case.

The statistics of `decide`: tests, intervals, corrections. Arrays in, frozen
results out: no I/O, no logging, no randomness but the seed passed in. Every
function states its null hypothesis and source. The case is what was drawn (or
the cluster, where cases share one), never the trial. scipy.stats takes a second
to import and is not used: scipy.special has what is needed. Its neighbours are
`signflip`, `power`, `trials`, `missing`, `ppi`, `agreement`, `sequential`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from evalkit.decide.power import Plan, quantile
from evalkit.decide.signflip import (
    ENUMERATE_UP_TO,
    SAME,
    all_flips,
    lattice,
    lattice_tails,
    monte_carlo_tails,
    shares_beyond,
)

Floats: TypeAlias = NDArray[np.float64]
Method = Literal[
    "mcnemar-midp",
    "sign-flip-midp",
    "sign-flip-exact",
    "sign-flip",
    "paired-t",
    "cluster-sign-flip-exact",
    "cluster-sign-flip",
    "no-spread",
    "ppi",
    "e-process",
    "unmeasurable",
]
"""Which test decided; for "ppi" see `ppi`, for "e-process" `sequential`."""

SIGN_FLIP_BELOW = 200
"""Units that differ, from which on the paired t replaces the sign flip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """One comparison: how far the candidate is from the baseline, and how sure that is."""

    n: int
    """Cases with a score on both sides."""
    n_clusters: int | None
    """Clusters those cases fall into; None where every case stands for itself."""
    delta: float | None
    """Mean of candidate minus baseline, -1..1; None without a case."""
    ci: tuple[float, float] | None
    """Two-sided interval of delta at 1 - 2·alpha; None when unmeasurable."""
    p_value: float | None
    """One-sided, for a drop beyond the tolerance."""
    p_improvement: float | None
    """One-sided, for the other direction."""
    p_exact: float | None
    """Exact p for a drop where a mid-p decides; None for any other method."""
    method: Method
    se: float | None
    """Standard error the interval was made from; None without spread."""
    df: float | None
    """Degrees of freedom of the interval's quantile; inf for a normal one."""
    losses: int
    wins: int
    mde: float | None
    """Smallest true drop found with 80 % power at this n, spread and power_alpha; None when
    not even a total collapse would be found."""
    cases_needed: int | None
    """Cases, at the same trials, to exclude a drop of max_drop with 80 % power if there is none."""
    trials_needed: int | None
    """Trials a side, at the same cases, for the same; None when no number would do, or unknown."""
    reason: str | None = None
    """Why nothing could be measured."""


@dataclass(frozen=True, slots=True)
class _Tails:
    drop: float
    improvement: float
    exact: float | None
    method: Method


@dataclass(frozen=True, slots=True)
class _Interval:
    low: float
    high: float
    se: float | None
    df: float | None


@dataclass(frozen=True, slots=True)
class _Units:
    """What was drawn: cases, or clusters of them. Sorted, so row order cannot matter."""

    totals: Floats
    """Sum of d + tolerance in each unit."""
    sizes: Floats
    """Cases in each unit."""
    clustered: bool

    @property
    def means(self) -> Floats:
        return self.totals / self.sizes


def compare(
    d: ArrayLike,
    *,
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    tolerance: float = 0.0,
    alpha: float = 0.05,
    max_drop: float = 0.05,
    seed: int = 0,
    power_alpha: float | None = None,
    within_var: float | None = None,
    trials: float = 1.0,
    step: float = 0.0,
) -> Paired:
    """Test H0: E[d] >= -tolerance against a larger drop, and give delta its interval.

    `d` (n_cases,) is candidate minus baseline, each the mean over a case's trials.
    `clusters` (n_cases,) names what each case was drawn with. `power_alpha` is the
    adjusted level that mde refers to (default alpha). `within_var` is the variance of
    d from trial noise at one trial a side, `trials` how many there were; see
    `split_variance`. `step` is how far one trial moves the mean of the side that was
    asked less often, where trials pass or fail and the sides differ in their number,
    else 0. Order of rows changes nothing; swapping the sides mirrors delta and interval.
    """
    deltas = _checked(d)
    units = _units(deltas, clusters, tolerance)
    n, n_units = len(deltas), len(units.totals)
    n_clusters = n_units if units.clustered else None
    delta = math.fsum(deltas) / n if n else None
    losses, wins = int((deltas < -SAME).sum()), int((deltas > SAME).sum())
    reason = _unmeasurable(n, n_units)
    if reason is not None or delta is None:
        return Paired(
            n=n, n_clusters=n_clusters, delta=delta, ci=None, p_value=None, p_improvement=None,
            p_exact=None, method="unmeasurable", se=None, df=None, losses=losses, wins=wins,
            mde=None, cases_needed=None, trials_needed=None, reason=reason,
        )  # fmt: skip
    if np.ptp(units.means) < SAME:
        tails = _no_spread_tails(units)
        interval = _no_spread_interval(delta, n_units, alpha)
    elif units.clustered:
        tails = _cluster_tails(units, seed)
        interval = _cr2_interval(delta, units, tolerance, alpha)
    elif tolerance == 0 and np.isin(deltas, (-1.0, 0.0, 1.0)).all():
        tails = _mcnemar_tails(losses, wins)
        interval = _adjusted_interval(delta, deltas, alpha, math.inf, step)
    else:
        tails = _case_tails(units.totals, seed)
        if tails.method == "paired-t" and not step:
            interval = _t_interval(delta, deltas, alpha)
        else:
            interval = _adjusted_interval(delta, deltas, alpha, n - 1.0, step)
    plan = Plan(
        se=interval.se,
        df=math.inf if interval.df is None else interval.df,
        n=n,
        n_units=n_units,
        paired_counts=tails.method in ("mcnemar-midp", "sign-flip-midp"),
    )
    return Paired(
        n=n,
        n_clusters=n_clusters,
        delta=delta,
        ci=(max(interval.low, -1.0), min(interval.high, 1.0)),
        p_value=tails.drop,
        p_improvement=tails.improvement,
        p_exact=tails.exact,
        method=tails.method,
        se=interval.se,
        df=interval.df,
        losses=losses,
        wins=wins,
        mde=plan.mde(alpha if power_alpha is None else power_alpha),
        cases_needed=plan.cases_needed(max_drop=max_drop, alpha=alpha),
        trials_needed=plan.trials_needed(
            max_drop=max_drop, alpha=alpha, within=within_var, trials=trials
        ),
    )


def less_sure_of_a_drop(paired: Paired, other: Paired) -> Paired:
    """What `paired` estimates, with the larger p-value for a drop of the two tests of one H0.

    A test that rejects only where both do has at most the level of either.
    """
    return replace(
        paired,
        p_value=_larger(paired.p_value, other.p_value),
        p_exact=_larger(paired.p_exact, other.p_exact),
        mde=_larger(paired.mde, other.mde),
    )


def less_sure_of_a_gain(paired: Paired, other: Paired) -> Paired:
    """The same with the larger p-value for a gain."""
    return replace(paired, p_improvement=_larger(paired.p_improvement, other.p_improvement))


def _larger(one: float | None, two: float | None) -> float | None:
    return None if one is None or two is None else max(one, two)


def _checked(d: ArrayLike) -> Floats:
    deltas = np.asarray(d, dtype=np.float64)
    if deltas.ndim != 1:
        raise ValueError(f"d has shape {deltas.shape}; it is one number per case")
    if not np.isfinite(deltas).all() or (np.abs(deltas) > 1 + SAME).any():
        raise ValueError("d is candidate minus baseline of scores in 0..1, so within -1..1")
    return _snapped(deltas)


def _snapped(values: Floats) -> Floats:
    nearest = np.rint(values)
    return np.where(np.abs(values - nearest) < SAME, nearest + 0.0, values)


def _unmeasurable(n: int, n_units: int) -> str | None:
    if n == 0:
        return "no case has a score on both sides"
    if n == 1:
        return "one case says nothing about spread"
    if n_units == 1:
        return "all cases share one cluster, which says nothing about spread"
    return None


def _units(deltas: Floats, clusters: Sequence[Any] | NDArray[Any] | None, tol: float) -> _Units:
    shifted = _snapped(deltas + tol)
    if clusters is None:
        return _Units(np.sort(shifted), np.ones(len(shifted)), False)
    names = np.asarray(clusters)
    if names.shape != deltas.shape:
        raise ValueError(f"{len(names)} clusters for {len(deltas)} cases")
    _, code = np.unique(names, return_inverse=True)
    order = np.lexsort((shifted, code))
    counts = np.bincount(code)
    if len(counts) == len(shifted):
        return _Units(np.sort(shifted), np.ones(len(shifted)), False)
    totals = _snapped(np.add.reduceat(shifted[order], np.cumsum(counts) - counts))
    order = np.lexsort((totals, counts))
    return _Units(totals[order], counts[order].astype(np.float64), True)


# --- no spread ----------------------------------------------------------------------


def _no_spread_tails(units: _Units) -> _Tails:
    """H0: the sign of each unit's change is a coin's; all n came up the same (sign test, mid-p)."""
    centre, n = units.means[0], len(units.totals)
    fell = centre < -SAME
    return _Tails(
        drop=0.5 ** (n + 1) if fell else 1.0,
        improvement=0.5 ** (n + 1) if centre > SAME else 1.0,
        exact=0.5**n if fell else 1.0,
        method="no-spread",
    )


def _no_spread_interval(delta: float, n: int, alpha: float) -> _Interval:
    """What n units without an event leave possible: (1 - x)^n = alpha (the exact zero bound)."""
    reach = -math.expm1(math.log(alpha) / n)
    return _Interval(delta - reach, delta + reach, None, None)


# --- cases that pass or fail ----------------------------------------------------------


def _mcnemar_tails(losses: int, wins: int) -> _Tails:
    """H0: a case that changed is as likely a loss as a win. McNemar, mid-p (Fagerland 2013)."""
    m = losses + wins
    return _Tails(
        drop=_mid_p(wins, m),
        improvement=_mid_p(losses, m),
        exact=_binomial_at_most(wins, m),
        method="mcnemar-midp",
    )


def _mid_p(k: int, m: int) -> float:
    return (_binomial_at_most(k, m) + _binomial_at_most(k - 1, m)) / 2


def _binomial_at_most(k: int, m: int) -> float:
    return float(special.bdtr(k, m, 0.5)) if k >= 0 else 0.0


def _adjusted_interval(
    delta: float, deltas: Floats, alpha: float, df: float, step: float
) -> _Interval:
    """Adjusted Wald: z²/4 imagined cases lost and as many won; never a point.

    At 95 % that is one of each, the interval of Bonett & Price (2012) for binary cases;
    matched to the level it covers closer to what it promises. An imagined graded case is as
    large as those that differ (root mean square), and takes t's quantile: where few cases
    differ, the plain t interval of 20 cases covers 81 % for 90 (benchmarks.gate_calibration).
    It is no smaller than `step`: beside ten trials of the baseline most cases differ by a tenth,
    but the one the candidate fails differs by a whole.
    """
    n, added = len(deltas), float(special.ndtri(1 - alpha)) ** 2 / 2
    square = math.fsum(deltas**2)
    size = max(square / max(int((np.abs(deltas) > SAME).sum()), 1), step**2)
    cases, centre = n + added, n * delta / (n + added)
    se = math.sqrt(((square + added * size) / cases - centre**2) / cases)
    reach = quantile(1 - alpha, df) * se
    return _Interval(centre - reach, centre + reach, se, df)


# --- graded cases -------------------------------------------------------------------


def _case_tails(x: Floats, seed: int) -> _Tails:
    """H0: each case's d + tolerance is as likely positive as negative, its size given.

    Flipping signs leaves sum(x²) alone, so ordering by t and by sum(x) is the same. Where
    all x are multiples of one step (k trials give k-ths) the sum has few values and mid-p
    decides; for k = 1 that is McNemar's mid-p.
    """
    moved = x[np.abs(x) > SAME]
    if len(moved) >= SIGN_FLIP_BELOW:
        return _t_tails(x)
    steps = lattice(moved)
    if steps is not None:
        (drop, improvement), tie = lattice_tails(steps)
        return _Tails(drop - tie / 2, improvement - tie / 2, drop, "sign-flip-midp")
    slack = SAME * math.fsum(np.abs(moved))
    if len(moved) <= ENUMERATE_UP_TO:
        sums = all_flips(moved[:, None])[:, 0]
        drop, improvement = shares_beyond(sums, sums[0], slack)
        return _Tails(drop, improvement, None, "sign-flip-exact")
    drop, improvement = monte_carlo_tails(moved[:, None], lambda sums: sums[:, 0], slack, seed)
    return _Tails(drop, improvement, None, "sign-flip")


def _t_tails(x: Floats) -> _Tails:
    """H0: E[x] = 0, by Student's t on the cases (paired t)."""
    n = len(x)
    t = math.fsum(x) / n / (float(x.std(ddof=1)) / math.sqrt(n))
    return _Tails(float(special.stdtr(n - 1, t)), float(special.stdtr(n - 1, -t)), None, "paired-t")


def _t_interval(delta: float, deltas: Floats, alpha: float) -> _Interval:
    n = len(deltas)
    se = float(np.sort(deltas).std(ddof=1)) / math.sqrt(n)
    reach = float(special.stdtrit(n - 1, 1 - alpha)) * se
    return _Interval(delta - reach, delta + reach, se, n - 1.0)


# --- clusters -----------------------------------------------------------------------


def _cluster_tails(units: _Units, seed: int) -> _Tails:
    """H0: each cluster's total of d + tolerance is as likely positive as negative.

    Studentised sign flip, the wild cluster bootstrap with the null imposed and Rademacher
    weights (Canay, Santos & Shaikh 2021); exact for symmetric totals at any number of
    clusters. The statistic divides by the CR2 spread that the interval uses.
    """
    totals, sizes = units.totals, units.sizes
    cases = float(sizes.sum())
    weight = cases / (cases - sizes)
    square, size_square = float(weight @ totals**2), float(weight @ sizes**2)

    def t_like(sums: Floats) -> Floats:
        mean = sums[:, 0] / cases
        spread = square - 2 * mean * sums[:, 1] + mean**2 * size_square
        return sums[:, 0] / np.sqrt(np.maximum(spread, SAME**2 * square))

    moved = np.abs(totals) > SAME
    values = np.column_stack([totals, weight * sizes * totals])[moved]
    seen = float(t_like(values.sum(axis=0)[None, :])[0])
    slack = SAME * max(abs(seen), 1 / math.sqrt(square))
    if len(values) <= ENUMERATE_UP_TO:
        drop, improvement = shares_beyond(t_like(all_flips(values)), seen, slack)
        return _Tails(drop, improvement, None, "cluster-sign-flip-exact")
    drop, improvement = monte_carlo_tails(values, t_like, slack, seed)
    return _Tails(drop, improvement, None, "cluster-sign-flip")


def _cr2_interval(delta: float, units: _Units, tolerance: float, alpha: float) -> _Interval:
    """CR2 variance with Satterthwaite degrees of freedom (Bell & McCaffrey 2002), mean only.

    For a mean the matrix square roots of CR2 reduce to 1 / (1 - share of the cluster); for
    equal clusters this is the t interval of cluster means.
    """
    sizes = units.sizes
    cases = float(sizes.sum())
    share = sizes / cases
    apart = units.totals - sizes * (delta + tolerance)
    se = math.sqrt(float((apart**2 / (1 - share)).sum())) / cases
    leverage = sizes**2 / (1 - share)
    cross = (leverage.sum() ** 2 - (leverage**2).sum()) / cases**2
    df = float(cases**2 / ((sizes**2).sum() + cross))
    reach = float(special.stdtrit(df, 1 - alpha)) * se
    return _Interval(delta - reach, delta + reach, se, df)


# --- many comparisons ---------------------------------------------------------------


def holm(p_values: ArrayLike) -> list[float]:
    """Adjust p-values so that any false alarm in the family has probability <= alpha.

    Holm (1979): H0 of each comparison, under any dependence. Order is kept.
    """
    p = _checked_p(p_values)
    order = np.argsort(p, kind="stable")
    left = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(left * p[order]), 1.0)
    return [float(value) for value in adjusted]


def bh(p_values: ArrayLike) -> list[float]:
    """Adjust p-values so that the expected share of false alarms among alarms is <= alpha.

    Benjamini & Hochberg (1995): independent or positively dependent comparisons.
    """
    p = _checked_p(p_values)
    order = np.argsort(p, kind="stable")[::-1]
    rank = np.arange(len(p), 0, -1)
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum.accumulate(p[order] * len(p) / rank)
    return [float(value) for value in adjusted]


def _checked_p(p_values: ArrayLike) -> Floats:
    p = np.asarray(p_values, dtype=np.float64).reshape(-1)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("a p-value is a number in 0..1; leave unmeasurable comparisons out")
    return p
