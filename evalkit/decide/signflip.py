"""Find how far a sum goes under random signs: the null distribution of paired changes.

H0 throughout: each unit's change is as likely positive as negative, its size given (Fisher's
randomisation test). Exact by adding case after case where all sizes are multiples of one
step (k trials give k-ths), exact by writing out all patterns for few units, else seeded
Monte Carlo. Arrays in, tail probabilities out; part of `decide`'s statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Tails: TypeAlias = tuple[float, float]
"""Shares of the null distribution at or below, and at or above, what was seen."""

ENUMERATE_UP_TO = 14
"""Units whose 2^m sign patterns are all written out."""
FLIPS = 99_999
FLIP_CHUNK = 10_000
FLIP_HITS = 2_000
"""Draws beyond the observed sum after which the Monte Carlo may stop (Besag & Clifford)."""
LATTICE_STEPS = 5_000
LATTICE_WORK = 4_000_000
SAME = 1e-9
"""Numbers closer than this are one number: sums of thirds differ in the last bits."""


def lattice(x: Floats) -> Ints | None:
    """Whole numbers proportional to x, or None where no common step exists."""
    q = 1
    for _ in range(LATTICE_STEPS.bit_length()):
        scaled = x * q
        off = np.abs(scaled - np.rint(scaled)) > SAME * q
        if not off.any():
            steps = np.rint(scaled).astype(np.int64)
            steps //= max(int(np.gcd.reduce(steps)), 1)
            work = len(x) * int(np.abs(steps).sum())
            return steps if work <= LATTICE_WORK else None
        rest = Fraction(float(scaled[off][0])).limit_denominator(LATTICE_STEPS)
        q *= rest.denominator
        if rest.denominator == 1 or q > LATTICE_STEPS:
            return None
    return None


def lattice_tails(steps: Ints) -> tuple[Tails, float]:
    """Both tails of the sum under sign flips, by adding one case after the other.

    Beside them the chance of just the sum seen: half of it off a tail makes its mid-p.
    """
    sizes = np.sort(np.abs(steps))
    chance = np.zeros(int(sizes.sum()) + 1)
    chance[0], reach = 1.0, 0
    for size in sizes.tolist():
        half = chance[: reach + 1] / 2
        chance[: reach + 1] = half
        chance[size : size + reach + 1] += half
        reach += size
    gained = int(steps[steps > 0].sum())
    low, high = float(chance[: gained + 1].sum()), float(chance[gained:].sum())
    return (min(low, 1.0), min(high, 1.0)), float(chance[gained])


def all_flips(values: Floats) -> Floats:
    """Sums of `values` (units, columns) under every sign pattern; row 0 is the observed one."""
    sums = np.zeros((1, values.shape[1]))
    for row in values:
        sums = np.concatenate([sums + row, sums - row])
    return sums


def shares_beyond(draws: Floats, seen: float, slack: float) -> Tails:
    return float((draws <= seen + slack).mean()), float((draws >= seen - slack).mean())


def monte_carlo_tails(
    values: Floats, statistic: Callable[[Floats], Floats], slack: float, seed: int
) -> Tails:
    """Both tails over random sign patterns; a valid p however it ends (Besag & Clifford 1991).

    p = (k + 1) / (B + 1) after B draws; or hits / draws at the FLIP_HITS-th draw beyond the
    observed value, so that plain non-results cost a tenth.
    """
    seen = float(statistic(values.sum(axis=0)[None, :])[0])
    generator = np.random.default_rng(seed)
    low, high = _TailCount(), _TailCount()
    drawn = 0
    while drawn < FLIPS and not (low.settled and high.settled):
        size = min(FLIP_CHUNK, FLIPS - drawn)
        draws = statistic(_random_flips(values, size, generator))
        low.add(draws <= seen + slack, drawn)
        high.add(draws >= seen - slack, drawn)
        drawn += size
    return low.p(drawn), high.p(drawn)


@dataclass(slots=True)
class _TailCount:
    hits: int = 0
    settled: float = 0.0

    def add(self, beyond: NDArray[np.bool_], drawn: int) -> None:
        if self.settled:
            return
        new = int(beyond.sum())
        if self.hits + new >= FLIP_HITS:
            last = np.flatnonzero(beyond)[FLIP_HITS - self.hits - 1]
            self.settled = FLIP_HITS / (drawn + int(last) + 1)
        self.hits += new

    def p(self, drawn: int) -> float:
        return self.settled or (self.hits + 1) / (drawn + 1)


_BYTE_SIGNS: Floats = 1.0 - 2.0 * np.unpackbits(
    np.arange(256, dtype=np.uint8)[:, None], axis=1
).astype(np.float64)


def _random_flips(values: Floats, size: int, generator: np.random.Generator) -> Floats:
    """Sums of `values` (units, columns) under `size` random sign patterns, (size, columns).

    Eight units at a time: a random byte looks up one of their 256 partial sums.
    """
    groups = -(-len(values) // 8)
    padded = np.zeros((groups * 8, values.shape[1]))
    padded[: len(values)] = values
    pattern = np.frombuffer(generator.bytes(groups * size), dtype=np.uint8).reshape(groups, size)
    sums = np.zeros((values.shape[1], size))
    for group in range(groups):
        partial = _BYTE_SIGNS @ padded[group * 8 : group * 8 + 8]
        for column in range(values.shape[1]):
            sums[column] += partial[:, column].take(pattern[group])
    return sums.T
