"""Decide while the cases still come: e-processes, confidence sequences, tests of change.

Betting on bounded means (Waudby-Smith & Ramdas 2024): capital that a fair game would
multiply by K with probability at most 1/K, however often one looks. Every process spreads
its stake over the same fixed bets, so none has to be tuned and none looks ahead. A weight
w in 0..1 per observation (inverse inclusion probability over its largest value) keeps the
game fair for design-weighted samples. Arrays in, state kept in small classes, no I/O.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Floats: TypeAlias = NDArray[np.float64]
Direction = Literal["below", "above"]
"""What the bets win on: a mean below, or above, the one that H0 names."""

BETS: Floats = np.geomspace(0.01, 0.95, 16)
"""Shares of the largest stake that cannot go broke."""
FALL_BETS: Floats = np.geomspace(0.005, 0.95, 10)
PRIOR_SUM = 2.11
"""Sum of 1 / (k log² k) over k from 2 on, rounded up."""
MARGIN = 8
"""Points looked at beside those where the poorest gamblers were last."""
MAX_KNOWN = 256
"""Pairs of value and weight whose bets are kept."""
RECENT, THIN = 14, 7
"""Falls of the last 14 blocks are looked for at each, older ones at every seventh."""
SAME = 1e-9


LEAST_MEAN = 1e-6
"""Of H0, where it would be 0: a bet against a mean of 0 has no stakes."""


class EProcess:
    """Evidence against H0: the mean is `mean` or on the other side of it from `bet_on`.

    Under H0 the chance that `e_value` ever reaches K is at most 1/K (Ville).
    """

    def __init__(self, mean: float, *, bet_on: Direction) -> None:
        if not 0 < mean < 1:
            raise ValueError(f"mean is {mean}; scores lie in 0..1, so H0 names one inside")
        self._mean, self._sign = mean, (-1.0 if bet_on == "below" else 1.0)
        self._stakes = BETS / (1 - mean if bet_on == "below" else mean)
        self._log_capital = np.zeros(len(BETS))
        self.n = 0
        self.log_peak = 0.0

    @property
    def log_e(self) -> float:
        return float(special.logsumexp(self._log_capital)) - math.log(len(BETS))

    def add(self, values: ArrayLike, weights: ArrayLike = 1.0) -> Floats:
        """Bet on further observations in order; log e-value after each, (n_values,)."""
        paths = self._log_capital + np.cumsum(self.log_factors(values, weights), axis=0)
        if len(paths) == 0:
            return np.zeros(0)
        self._log_capital = paths[-1]
        log_e = np.asarray(special.logsumexp(paths, axis=1) - math.log(len(BETS)))
        self.n += len(log_e)
        self.log_peak = max(self.log_peak, float(log_e.max()))
        return log_e

    def log_factors(self, values: ArrayLike, weights: ArrayLike) -> Floats:
        """Log growth of each bet by each observation, (n_values, n_bets)."""
        y, w = _checked(values, weights)
        gain = self._sign * w * (y - self._mean)
        return np.asarray(np.log1p(gain[:, None] * self._stakes))


class EarlyStop:
    """Stop a run as soon as the cases seen so far decide one comparison.

    Two e-processes on y = (d + 1) / 2: one wins when the drop exceeds the tolerance, one when
    the drop is smaller than max_drop. Each has alpha / comparisons to spend, so over a whole
    family a regression is called wrongly with probability at most alpha, and so is a pass.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.05,
        comparisons: int = 1,
        tolerance: float = 0.0,
        max_drop: float = 0.05,
    ) -> None:
        self._bar = math.log(comparisons / alpha)
        # A drop of more than 1 there is none of, and any is smaller than one of more than 1.
        self._drop = EProcess(max((1 - tolerance) / 2, LEAST_MEAN), bet_on="below")
        self._safe = EProcess(max((1 - max_drop) / 2, LEAST_MEAN), bet_on="above")
        self.decision: Literal["regression", "pass"] | None = None
        self.n = 0
        """Cases until the decision, or so far."""

    def add(self, d: ArrayLike, weights: ArrayLike = 1.0) -> Literal["regression", "pass"] | None:
        """Take further cases in the order they were drawn; the decision once there is one.

        Where clusters were drawn, d is a cluster's mean and its weight the cluster's size
        over the largest.
        """
        if self.decision is not None:
            return self.decision
        y = (np.atleast_1d(np.asarray(d, dtype=np.float64)) + 1) / 2
        drop = self._drop.add(y, weights) >= self._bar
        safe = self._safe.add(y, weights) >= self._bar
        decided = np.flatnonzero(drop | safe)
        if len(decided) == 0:
            self.n += len(y)
            return None
        self.n += int(decided[0]) + 1
        self.decision = "regression" if drop[decided[0]] else "pass"
        return self.decision

    @property
    def p_value(self) -> float:
        """Anytime-valid p for a drop beyond the tolerance: 1 / the highest e-value."""
        return math.exp(-self._drop.log_peak)

    @property
    def p_max_drop(self) -> float:
        """Anytime-valid p for a drop smaller than max_drop: small is good news."""
        return math.exp(-self._safe.log_peak)


class MeanSequence:
    """An interval for a mean in 0..1 that holds at all times at once.

    With probability 1 - alpha the true mean is inside after every look. Capital is kept for
    each mean on a grid and rises where the mean is wrong; both sides spend alpha / 2.
    """

    def __init__(self, *, alpha: float = 0.05, breaks: int = 500) -> None:
        self._bar = math.log(2 / alpha)
        self._grid = (np.arange(breaks - 1) + 1) / breaks
        self._up, self._down = (np.zeros((breaks - 1, len(BETS))) for _ in range(2))
        self._low, self._high = 0.0, 1.0
        self.n = 0

    @property
    def interval(self) -> tuple[float, float]:
        """Running intersection of all looks; never widens."""
        return self._low, self._high

    def add(
        self, values: ArrayLike, weights: ArrayLike = 1.0, counts: ArrayLike = 1
    ) -> tuple[float, float]:
        """Take what came since the last look, each so many times; the interval at this one."""
        y, w = _checked(values, weights)
        seen, which = np.unique(np.column_stack((y, w)), axis=0, return_inverse=True)
        n = np.bincount(which.ravel(), np.broadcast_to(counts, y.shape), minlength=len(seen))
        m = self._grid[:, None]
        for (value, weight), count in zip(seen, n, strict=True):
            gain = weight * (value - m)
            self._up += count * np.log1p(gain * BETS / m)
            self._down += count * np.log1p(-gain * BETS / (1 - m))
        self.n += int(n.sum())
        self._narrow()
        return self.interval

    def _narrow(self) -> None:
        """The up-bets' capital falls with m and the down-bets' rises: both sets are intervals."""
        too_low = _log_mean(self._up) >= self._bar
        too_high = _log_mean(self._down) >= self._bar
        if too_low.any():
            self._low = max(self._low, float(self._grid[too_low].max()))
        if too_high.any():
            self._high = min(self._high, float(self._grid[too_high].min()))


class EDetector:
    """Raise an alarm soon after a mean has moved, at a stated rate of false alarms.

    Shiryaev-Roberts e-detector (Shin, Ramdas & Rinaldo 2023): one e-process started at every
    observation, summed. While the mean stays on H0's side, the average run length until a
    false alarm is at least `run_length` observations.
    """

    def __init__(self, mean: float, *, bet_on: Direction, run_length: float) -> None:
        if run_length <= 1:
            raise ValueError(f"run_length is {run_length} observations; it has to exceed 1")
        self._process = EProcess(mean, bet_on=bet_on)
        self._bar = math.log(run_length)
        self._log_sum = np.full(len(BETS), -math.inf)
        self.n = 0
        self.alarm_at: int | None = None
        """Observations until the first alarm."""

    def add(self, values: ArrayLike, weights: ArrayLike = 1.0) -> int | None:
        """Take further observations in order; how many had come at the first alarm."""
        growth = np.cumsum(self._process.log_factors(values, weights), axis=0)
        if self.alarm_at is not None or len(growth) == 0:
            return self.alarm_at
        before = np.vstack([np.zeros(len(BETS)), growth[:-1]])
        starts = np.vstack([self._log_sum, -before])
        log_sum = growth + np.logaddexp.accumulate(starts, axis=0)[1:]
        over = np.flatnonzero(_log_mean(log_sum) >= self._bar)
        if len(over):
            self.alarm_at = self.n + int(over[0]) + 1
        self._log_sum = log_sum[-1]
        self.n += len(growth)
        return self.alarm_at


class FallTest:
    """Has a mean fallen, at some time or other? Blocks of observations, a look after each.

    H0: it never falls. The chance of ever raising an alarm is at most `alpha`, however long
    one goes on. For each start s of a fall and each mean m, one gambler bets before s that
    the mean is above m and from s on that it is below: under H0 some m makes both games fair
    or worse, so the poorest gambler's capital is an e-process. Starts share the stake by a
    slowly falling prior; so do beginnings of the first game, half of it on the first block
    (a mean may have risen before it falls).
    """

    def __init__(self, *, alpha: float = 0.05, points: int = 500) -> None:
        # Denser towards 0 and 1, where a mean is known more exactly.
        self._grid = (np.sin(math.pi / 2 * (np.arange(points) + 0.5) / points) ** 2)[:, None]
        self._down = np.zeros((points, len(FALL_BETS)))
        self._up = self._down - math.log(2)
        self._starts: list[_Start] = []
        self._sums = np.zeros(2)
        self._known: dict[tuple[float, float], tuple[Floats, Floats]] = {}
        self._bar = -math.log(alpha)
        self.blocks = 0
        self.log_e = -math.inf
        """Now; an alarm is for ever."""
        self.alarm_at: int | None = None
        """Blocks until the alarm."""
        self.start: int | None = None
        """Blocks before the fall, as the alarm (or, without one, the newest look) sees it."""

    def add(self, values: ArrayLike, weights: ArrayLike = 1.0, counts: ArrayLike = 1) -> bool:
        """Take a block, each value so many times; whether there has been an alarm."""
        if self.alarm_at is not None:
            return True
        y, w = _checked(values, weights)
        n = np.broadcast_to(np.asarray(counts, dtype=np.float64), y.shape)
        if self.blocks:
            self._open_start()
            self._up = np.logaddexp(self._up, fall_prior(self.blocks) - math.log(2))
        for value, weight, count in zip(y.tolist(), w.tolist(), n.tolist(), strict=True):
            up, down = self._factors(value, weight)
            self._up += count * up
            self._down += count * down
        self._sums += (n * w * y).sum(), (n * w).sum()
        self.blocks += 1
        self._look()
        return self.alarm_at is not None

    def _factors(self, value: float, weight: float) -> tuple[Floats, Floats]:
        """Log growth of both games by one observation; few values come day after day."""
        known = self._known.get((value, weight))
        if known is None:
            m, gain = self._grid, weight * (value - self._grid)
            known = np.log1p(gain / m * FALL_BETS), np.log1p(-gain / (1 - m) * FALL_BETS)
            if len(self._known) < MAX_KNOWN:
                self._known[value, weight] = known
        return known

    def _open_start(self) -> None:
        at = self.blocks
        self._starts = [one for one in self._starts if at - one.at < RECENT or one.at % THIN == 0]
        before = fall_prior(at) + _log_mean(self._up)
        self._starts.append(_Start(at, before, self._down.copy(), self._sums.copy()))

    def _look(self) -> None:
        if not self._starts:
            return
        near = self._plausible()
        since = self._down[near] - np.stack([one.down[near] for one in self._starts])
        capital = np.stack([one.before[near] for one in self._starts]) + _log_mean(since)
        left, right = near.start == 0, near.stop >= len(self._grid)
        poorest = _least_between(capital, self._grid[near, 0], is_left=left, is_right=right)
        at = int(poorest.argmax())
        if poorest[at] == -math.inf:
            return
        self.log_e = poorest[at] + math.log(np.exp(poorest - poorest[at]).sum())
        self.start = self._starts[at].at
        if self.log_e >= self._bar:
            self.alarm_at = self.blocks

    def _plausible(self) -> slice:
        """Points between the least and the largest mean of any time from start to start."""
        sums = np.vstack([np.zeros(2), *(one.sums for one in self._starts), self._sums])
        values, weights = np.diff(sums, axis=0).T
        angles = np.arcsin(np.sqrt(np.clip(values / weights, 0, 1)))
        means = angles / (math.pi / 2) * len(self._grid)
        return slice(max(0, int(means.min()) - MARGIN), int(means.max()) + MARGIN)


@dataclass(frozen=True, slots=True)
class _Start:
    """A time at which the fall may have begun, after `at` blocks."""

    at: int
    before: Floats
    """Log capital of the game before it, with its share of the stake."""
    down: Floats
    """What the second game's sums were then."""
    sums: Floats
    """Weighted values, and weights."""


def _least_between(rows: Floats, points: Floats, *, is_left: bool, is_right: bool) -> Floats:
    """Lower bounds on 0..1 of convex functions, each given at these points; (n_rows,).

    Between two points a convex function lies above the line through the two beyond, on either
    side. Where the least is at an end that is no end of the whole (`is_left`, `is_right`),
    nothing is known of it; at one that is, there are points on one side alone.
    """
    steps = np.diff(points, prepend=0.0, append=1.0)
    slopes = np.diff(rows, axis=1) / steps[1:-1]
    # What the line through two points has fallen to at the next one to the left, and right.
    left, right = rows[:, :-1] - slopes * steps[:-2], rows[:, 1:] + slopes * steps[2:]
    at, last, each = rows.argmin(axis=1), rows.shape[1] - 1, np.arange(len(rows))
    inside = np.minimum(left[each, np.minimum(at, last - 1)], right[each, np.maximum(at - 1, 0)])
    at_left = left[:, :2].min(axis=1) if is_left else -math.inf
    at_right = right[:, -2:].min(axis=1) if is_right else -math.inf
    return np.where(at == 0, at_left, np.where(at == last, at_right, inside))


def fall_prior(at: int) -> float:
    """Log share of the stake on a fall after `at` blocks: 1 / (k log² k), k = at + 1."""
    return -math.log((at + 1) * math.log(at + 1) ** 2 * PRIOR_SUM)


def _log_mean(log_capital: Floats) -> Floats:
    """Log of the mean over the last axis; in numpy alone, a tenth of logsumexp's time."""
    peak = log_capital.max(axis=-1)
    return np.asarray(peak + np.log(np.exp(log_capital - peak[..., None]).mean(axis=-1)))


def _checked(values: ArrayLike, weights: ArrayLike) -> tuple[Floats, Floats]:
    y = np.atleast_1d(np.asarray(values, dtype=np.float64))
    w = np.broadcast_to(np.asarray(weights, dtype=np.float64), y.shape)
    if not ((y >= -SAME) & (y <= 1 + SAME)).all():
        raise ValueError("a bounded mean is bet on with values in 0..1")
    if not ((w > 0) & (w <= 1)).all():
        raise ValueError("a weight is above 0 and at most 1")
    return np.clip(y, 0.0, 1.0), w
