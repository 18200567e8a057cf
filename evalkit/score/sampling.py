"""Draw some of many, by design: every unit's chance of being drawn is known and kept.

Part of score; pure, seeded, no I/O. One line holds all units, each as long as its chance;
a point every 1 along it draws exactly as many as asked for (systematic sampling with
unequal probabilities, Madow 1949). Ordered by stratum, so that each gets its share.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Share = Literal["random", "active"]

AT_LEAST = 2.0
"""What the smallest stratum gets of a sample that is large enough."""
MAX_ROUNDS = 50
SAME = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One of those that can be drawn."""

    key: str
    stratum: str = ""
    interest: float = 0.0
    """How much an active share wants it; 0: not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One of those that were."""

    key: str
    stratum: str
    share: Share
    """Which of its two chances it was drawn by."""
    inclusion_prob: float
    """Of being drawn at all: what an estimate over the whole sample weighs by."""
    random_prob: float
    """Of being drawn by the random share: for an estimate over that share alone."""


def draw(
    units: Sequence[Unit], *, budget: int, active_share: float = 0.0, seed: int = 0
) -> list[Drawn]:
    """Draw min(budget, all) units; the same units and seed give the same draw.

    The random share goes to every stratum in proportion to its size, with `AT_LEAST` for the
    small ones. The active share goes where `interest` is, in proportion to it; what it has
    no use for is drawn at random.
    """
    n = min(budget, len(units))
    if n <= 0:
        return []
    sizes: dict[str, int] = {}
    for unit in units:
        sizes[unit.stratum] = sizes.get(unit.stratum, 0) + 1
    if n == len(units):
        return [_certain(unit) for unit in units]
    rates, bonuses = _chances(units, sizes, n, active_share)
    generator = random.Random(seed)
    noise = {unit.key: generator.random() for unit in sorted(units, key=lambda unit: unit.key)}
    order = sorted(range(len(units)), key=lambda at: (units[at].stratum, noise[units[at].key]))
    drawn: list[int] = []
    end, point = 0.0, generator.random()
    for at in order:
        end += rates[units[at].stratum] + bonuses[at]
        if point < end and len(drawn) < n:
            drawn.append(at)
            point += 1.0
    chances = [(rates[units[at].stratum], bonuses[at]) for at in drawn]
    shares = _shares(chances, start=generator.random())
    return [
        Drawn(
            key=units[at].key,
            stratum=units[at].stratum,
            share=share,
            inclusion_prob=min(1.0, rate + bonus),
            random_prob=rate,
        )
        for at, (rate, bonus), share in zip(drawn, chances, shares, strict=True)
    ]


def _shares(chances: Sequence[tuple[float, float]], *, start: float) -> list[Share]:
    """By which of its two chances each of the drawn is there; a point every 1 again, so that
    the active share is as large as it should be in this draw, not only on average."""
    found: list[Share] = []
    end, point = 0.0, start
    for rate, bonus in chances:
        end += bonus / (rate + bonus)
        found.append("active" if point < end else "random")
        point += point < end
    return found


def _certain(unit: Unit) -> Drawn:
    return Drawn(
        key=unit.key, stratum=unit.stratum, share="random", inclusion_prob=1.0, random_prob=1.0
    )


def _chances(
    units: Sequence[Unit], sizes: Mapping[str, int], n: int, active_share: float
) -> tuple[dict[str, float], list[float]]:
    """Each stratum's chance, and on top of it each unit's own; n in all, at most 1 for each."""
    n_active = n * active_share
    for _ in range(MAX_ROUNDS):
        rates = stratum_rates(sizes, n - n_active)
        room = [1.0 - rates[unit.stratum] for unit in units]
        bonuses = _fill([unit.interest for unit in units], room, n_active)
        placed = sum(bonuses)
        if n_active - placed < SAME:
            break
        n_active = placed
    return rates, bonuses


def stratum_rates(sizes: Mapping[str, int], n: float) -> dict[str, float]:
    """Chance of a unit of each stratum when `n` are drawn of all, 0..1."""
    floor = min(AT_LEAST, n / (2 * len(sizes)))
    shares = {name: min(floor, float(size)) for name, size in sizes.items()}
    above = set(sizes)
    while above:
        rest = n - sum(shares[name] for name in sizes if name not in above)
        total = sum(sizes[name] for name in above)
        small = {name for name in above if rest * sizes[name] / total < shares[name]}
        if not small:
            for name in above:
                shares[name] = rest * sizes[name] / total
            break
        above -= small
    return {name: min(1.0, shares[name] / size) for name, size in sizes.items()}


def _fill(interest: Sequence[float], room: Sequence[float], total: float) -> list[float]:
    """Split `total` in proportion to interest, no more to each than its room."""
    given = [0.0] * len(interest)
    open_ = [at for at, want in enumerate(interest) if want > 0 and room[at] > SAME]
    while open_ and total > SAME:
        scale = total / sum(interest[at] for at in open_)
        full = [at for at in open_ if interest[at] * scale >= room[at]]
        for at in full or open_:
            given[at] = room[at] if full else interest[at] * scale
            total -= given[at]
        if not full:
            break
        open_ = [at for at in open_ if given[at] == 0.0]
    return given


def spread_evenly(n: int, share: float, *, seed: int = 0) -> list[bool]:
    """Mark `share` of n places, evenly along them, from a random start."""
    start = random.Random(seed).random()
    steps = [int(start + share * at) for at in range(n + 1)]
    return [after > before for before, after in pairwise(steps)]
