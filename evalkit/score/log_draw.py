"""Draw some of production's calls: by the hash of their ids, the same ones each time.

Part of score; pure, no I/O. A call's place between 0 and 1 is the hash of a salt and its
id: who is drawn depends on no order, and on no other call where a rate is asked for. Calls
drawn because they look interesting are marked apart, have no inclusion probability, and
belong in no estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from evalkit.score.sampling import Share, Unit, draw

_SPAN = 1 << 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawRule:
    """How many are drawn: a rate of all, or so many of each stratum."""

    rate: float | None = None
    per_stratum: int | None = None
    active_share: float = 0.0
    """Share of the whole sample that goes where interest is."""
    salt: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """Why a call is in the sample."""

    share: Share
    inclusion_prob: float | None
    """Of the random share; None for what was picked out of interest."""


def draw_calls(units: Sequence[Unit], rule: DrawRule) -> dict[str, Place]:
    """Key of each call drawn -> why."""
    strata: dict[str, list[Unit]] = {}
    for unit in units:
        strata.setdefault(unit.stratum, []).append(unit)
    drawn: dict[str, Place] = {}
    for members in strata.values():
        drawn |= _random_share(members, rule)
    if rule.active_share > 0:
        wanted = round(len(drawn) * rule.active_share / (1 - rule.active_share))
        rest = [unit for unit in units if unit.interest > 0 and unit.key not in drawn]
        for one in draw(rest, budget=wanted, active_share=1.0, seed=_hash(rule.salt, "active")):
            drawn[one.key] = Place("active", None)
    return drawn


def _random_share(members: Sequence[Unit], rule: DrawRule) -> dict[str, Place]:
    if rule.rate is not None:
        return {
            unit.key: Place("random", rule.rate)
            for unit in members
            if place_of(unit.key, rule.salt) < rule.rate
        }
    n = min(rule.per_stratum or 0, len(members))
    chance = n / len(members)
    nearest = sorted(members, key=lambda unit: (place_of(unit.key, rule.salt), unit.key))
    return {unit.key: Place("random", chance) for unit in nearest[:n]}


def place_of(key: str, salt: str) -> float:
    """Where a call stands between 0 and 1."""
    return _hash(salt, key) / _SPAN


def _hash(salt: str, key: str) -> int:
    data = f"{len(salt)}:{salt}{key}".encode("utf-8", errors="replace")
    return int.from_bytes(blake2b(data, digest_size=8).digest())
