"""Draw some of production's calls: by the hash of their ids, the same ones each time.

Part of score; pure, no I/O. A call's place is the hash of a salt and its id: who is drawn
depends on no order, and on no other call where a rate is asked for. Ten million ids are
hashed in a second: whole columns at once, eight bytes at a time (multiply, xor and shift;
the finish is that of SplitMix64). Calls drawn because they look interesting are marked
apart, have no inclusion probability, and belong in no estimate.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalkit.score.sampling import Share

if TYPE_CHECKING:
    import pyarrow as pa

Places: TypeAlias = NDArray[np.uint64]

_SPAN = 1 << 64
_TURN = 0x9E3779B97F4A7C15
_FINISH = ((30, np.uint64(0xBF58476D1CE4E5B9)), (27, np.uint64(0x94D049BB133111EB)))
MAX_HELD = 1 << 18
"""Candidates for quotas that are kept before those beyond the quotas are dropped."""


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


class Draw:
    """A draw under way: calls come in portions, in any order, and few of them are kept."""

    def __init__(self, rule: DrawRule) -> None:
        self._rule = rule
        self._sizes = np.zeros(0, dtype=np.int64)
        self._limits = np.zeros(0, dtype=np.float64)
        self._held: list[tuple[Places, NDArray[np.int64], NDArray[np.object_]]] = []
        self._n_held = 0
        self._doubtful: dict[str, float] = {}

    def add(
        self,
        keys: pa.Array,
        strata: NDArray[np.int64],
        interest: NDArray[np.float64] | None = None,
    ) -> None:
        """Take calls: their ids, numbers of their strata, and how interesting each is."""
        places = places_of(keys, self._rule.salt)
        counts = np.bincount(strata, minlength=len(self._sizes))
        new = len(counts) - len(self._sizes)
        if new:
            start = _SPAN if self._rule.rate is None else self._rule.rate * _SPAN
            self._sizes = np.append(self._sizes, np.zeros(new, dtype=np.int64))
            self._limits = np.append(self._limits, np.full(new, float(start)))
        self._sizes = self._sizes + counts
        self._hold(keys, places, strata)
        if interest is not None and self._rule.active_share > 0:
            self._doubt(keys, interest)

    def _hold(self, keys: pa.Array, places: Places, strata: NDArray[np.int64]) -> None:
        near = np.flatnonzero(places < self._limits[strata])
        if len(near):
            ids = np.array(keys.take(near).to_pylist(), dtype=np.object_)
            self._held.append((places[near], strata[near], ids))
            self._n_held += len(near)
        if self._n_held > MAX_HELD and self._rule.rate is None:
            self._keep_nearest()

    def _doubt(self, keys: pa.Array, interest: NDArray[np.float64]) -> None:
        """Efraimidis & Spirakis (2006): the largest ln(u) / weight are a weighted draw."""
        wanted = np.flatnonzero(interest > 0)
        ids = keys.take(wanted)
        u = (places_of(ids, f"active {self._rule.salt}").astype(np.float64) + 1) / (_SPAN + 2)
        for key, order in zip(ids.to_pylist(), np.log(u) / interest[wanted], strict=True):
            self._doubtful[key] = float(order)

    def _keep_nearest(self) -> None:
        """Of each stratum its quota; whoever comes later has to be nearer than the last of them."""
        quota = self._rule.per_stratum or 0
        places, strata, ids = (np.concatenate(parts) for parts in zip(*self._held, strict=True))
        order = _in_order(places, strata, ids)
        strata, starts = strata[order], np.searchsorted(strata[order], np.arange(len(self._sizes)))
        rank = np.arange(len(order)) - starts[strata]
        kept = order[rank < quota]
        last = order[rank == quota - 1]
        self._limits[strata[rank == quota - 1]] = np.nextafter(places[last], np.inf)
        self._held = [(places[kept], strata[rank < quota], ids[kept])]
        self._n_held = len(kept)

    @property
    def sizes(self) -> list[int]:
        """Calls of each stratum, drawn or not."""
        return [int(size) for size in self._sizes]

    def places(self) -> dict[str, Place]:
        """Id of each call drawn -> why."""
        if self._held and self._rule.rate is None:
            self._keep_nearest()
        why = [Place("random", self._chance(n)) for n in range(len(self._sizes))]
        drawn: dict[str, Place] = {}
        for _, strata, ids in self._held:
            drawn |= zip(ids.tolist(), map(why.__getitem__, strata.tolist()), strict=True)
        wanted = round(len(drawn) * self._rule.active_share / (1 - self._rule.active_share))
        rest = [(order, key) for key, order in self._doubtful.items() if key not in drawn]
        for _, key in sorted(rest, reverse=True)[:wanted]:
            drawn[key] = Place("active", None)
        return drawn

    def _chance(self, stratum: int) -> float:
        if self._rule.rate is not None:
            return self._rule.rate
        return min(1.0, (self._rule.per_stratum or 0) / max(1, int(self._sizes[stratum])))


class Strata:
    """Numbers for strata that are known by a hash, from 0, in the order in which they come."""

    def __init__(self) -> None:
        self.features: list[int] = []
        """Of each stratum, the number of its feature."""
        self._known = np.zeros(0, dtype=np.uint64)
        self._order = np.zeros(0, dtype=np.int64)

    def numbers(self, hashes: NDArray[np.uint64], features: NDArray[np.int32]) -> NDArray[np.int64]:
        """The number of each row's stratum."""
        places = np.searchsorted(self._known, hashes)
        is_known = places < len(self._known)
        is_known[is_known] = self._known[places[is_known]] == hashes[is_known]
        if not is_known.all():
            new, first = np.unique(hashes[~is_known], return_index=True)
            rows = np.flatnonzero(~is_known)[first]
            numbers = np.arange(len(new)) + len(self.features)
            self.features += features[rows].tolist()
            known, order = np.append(self._known, new), np.append(self._order, numbers)
            by_hash = np.argsort(known)
            self._known, self._order = known[by_hash], order[by_hash]
            places = np.searchsorted(self._known, hashes)
        return self._order[places]


def _in_order(
    places: Places, strata: NDArray[np.int64], ids: NDArray[np.object_]
) -> NDArray[np.int64]:
    """Calls by stratum, place and id; one that comes twice is one."""
    order = np.lexsort((places, strata))
    tied = _tied(places, strata, order)
    if (ids[order[tied]] != ids[order[tied + 1]]).any():  # two calls at one place, of 2**64
        order = np.lexsort((ids, places, strata))
    again = tied[ids[order[tied]] == ids[order[tied + 1]]]
    return np.delete(order, again + 1)


def _tied(places: Places, strata: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where in the order a call stands as the one after it does."""
    places, strata = places[order], strata[order]
    return np.flatnonzero((places[1:] == places[:-1]) & (strata[1:] == strata[:-1]))


def places_of(keys: pa.Array, salt: str) -> Places:
    """Where calls stand between 0 and 2**64, (n_keys,)."""
    ends, data = _bytes_of(keys)
    lengths = np.diff(ends)
    seed = int.from_bytes(blake2b(salt.encode(), digest_size=8).digest())
    found = np.empty(len(keys), dtype=np.uint64)
    for length in np.flatnonzero(np.bincount(lengths)).tolist():
        at = np.flatnonzero(lengths == length)
        found[at] = _mixed(_words(data, ends, at, length), seed ^ (length * _TURN) % _SPAN)
    return found


def _bytes_of(keys: Any) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Where each text begins (and the last ends), and the bytes of all; without copying."""
    import pyarrow as pa

    wide = pa.types.is_large_string(keys.type)
    _, ends, data = keys.buffers()
    kind = np.int64 if wide else np.int32
    if ends is None or not len(keys):
        return np.zeros(1, dtype=np.int64), np.zeros(0, dtype=np.uint8)
    at = np.frombuffer(ends, dtype=kind)[keys.offset : keys.offset + len(keys) + 1]
    return at.astype(np.int64), np.frombuffer(data or b"", dtype=np.uint8)


def _words(
    data: NDArray[np.uint8], ends: NDArray[np.int64], at: NDArray[np.int64], length: int
) -> Places:
    """Texts of one length as 64-bit words, (n_words, n_texts); the last filled up with zeros."""
    n_words = -(-length // 8)
    first = ends[at[0]]
    if len(at) == len(ends) - 1 and length % 8 == 0:  # as they lie, one after another
        whole = data[first : first + length * len(at)].view("<u8")
        return whole.astype(np.uint64, copy=False).reshape(len(at), n_words).T
    filled = np.zeros((len(at), n_words * 8), dtype=np.uint8)
    starts = ends[at]
    if len(at) == len(ends) - 1:  # no need to gather
        filled[:, :length] = data[first : first + length * len(at)].reshape(len(at), length)
    else:
        filled[:, :length] = data[starts[:, None] + np.arange(length)]
    return filled.view("<u8").astype(np.uint64, copy=False).T


def _mixed(words: Places, seed: int) -> Places:
    found = np.full(words.shape[1], seed, dtype=np.uint64)
    for word in words:
        found = (found ^ word) * np.uint64(_TURN)
        found ^= found >> np.uint64(32)
    for shift, factor in _FINISH:
        found = (found ^ (found >> np.uint64(shift))) * factor
    return found ^ (found >> np.uint64(31))
