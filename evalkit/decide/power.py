"""Say what a comparison could have seen, and what it would take to see more.

Normal or t approximations around the interval's own standard error; part of `decide`'s
statistics, no I/O. `mde` refers to the test's level, `cases_needed` and `trials_needed`
to the interval that has to exclude a drop of max_drop.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy import special

TARGET_POWER = 0.8
CASES_LIMIT = 10_000_000
TRIALS_LIMIT = 10_000
SAME = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What this spread lets one see, and what more cases or trials would."""

    se: float | None
    """Standard error of delta; None where no unit differs."""
    df: float
    n: int
    n_units: int
    """Cases, or clusters where cases share one."""
    paired_counts: bool = False
    """McNemar mid-p decides, which reaches its level with fewer units than a sign flip."""

    def mde(self, alpha: float) -> float | None:
        """Smallest drop that the test finds with 80 % power; None when not even a collapse.

        At least the drop that turns as many units as the test needs to reach its level.
        """
        needed = math.floor(-math.log2(alpha)) + (0 if self.paired_counts else 1)
        if needed > self.n_units:
            return None
        floor = float(special.betaincinv(needed, self.n_units - needed + 1, TARGET_POWER))
        if self.se is None:
            return floor
        found = reach(alpha, self.df) * self.se
        if self.paired_counts:
            found = max(found, floor)
        return found if found <= 1 else None

    def cases_needed(self, *, max_drop: float, alpha: float) -> int | None:
        """Cases, with this spread, whose interval excludes max_drop with 80 % power."""
        if max_drop <= 0:
            return None
        se, df, n = self.se, self.df, self.n
        if se is None:
            units = math.log(alpha) / math.log1p(-min(max_drop, 1 - SAME))
            return math.floor(units * n / self.n_units) + 1

        def needed(cases: float) -> float:
            return n * (reach(alpha, max(df * cases / n, 1.0)) * se / max_drop) ** 2

        return _settle(needed)

    def trials_needed(
        self, *, max_drop: float, alpha: float, within: float | None, trials: float
    ) -> int | None:
        """Trials a side, at the same cases, for the same; None when no number would do."""
        if self.se is None or within is None or max_drop <= 0:
            return None
        between = max(self.se**2 * self.n - within / trials, 0.0)
        room = (max_drop / reach(alpha, self.df)) ** 2 * self.n - between
        if room <= 0 or within / room > TRIALS_LIMIT:
            return None
        return max(math.ceil(within / room - SAME), 1)


def reach(alpha: float, df: float, target: float = TARGET_POWER) -> float:
    """Standard errors between no effect and one found with the target power."""
    return quantile(1 - alpha, df) + quantile(target, df)


def quantile(share: float, df: float) -> float:
    """Student's t quantile; the normal one for infinite degrees of freedom."""
    return float(special.ndtri(share) if math.isinf(df) else special.stdtrit(df, share))


def _settle(needed: Callable[[float], float]) -> int | None:
    """Smallest n that covers what it needs itself; t quantiles shrink with n."""
    n = 2.0
    for _ in range(50):
        after = max(math.ceil(needed(n) - SAME), 2)
        if after > CASES_LIMIT:
            return None
        if after == n:
            break
        n = after
    return int(n)
