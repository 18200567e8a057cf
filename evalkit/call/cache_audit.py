"""Measure the semantic cache on pairs of texts that people labelled: may they share an answer?

What counts are the false hits: pairs that need different answers and would have got one.
Shares come with their Wilson interval (1927), which holds at 0 of n too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from evalkit.call.semantic_cache import Embed, cosine, semantic_key
from evalkit.errors import InputFileError
from evalkit.strict import StrictError, iter_jsonl

SHIPPED_PAIRS = Path(__file__).with_name("cache_pairs.jsonl")
"""Written for this purpose, in English: paraphrases, and pairs made to be confused."""
Z_95 = 1.959964
FORM = '{"a": "…", "b": "…", "same": true, "kind": "…"}'


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPair:
    """Two texts, and whether one answer serves both."""

    a: str
    b: str
    same: bool
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """`hits` of `n`, with an interval of 95 % confidence; None where n is 0."""

    hits: int
    n: int

    @property
    def value(self) -> float | None:
        return self.hits / self.n if self.n else None

    @property
    def ci(self) -> tuple[float, float] | None:
        return wilson(self.hits, self.n) if self.n else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One pair as the cache sees it."""

    pair: LabelledPair
    similarity: float
    words_equal: bool

    def hits(self, threshold: float) -> bool:
        return self.words_equal and self.similarity >= threshold


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What a cache with this threshold does to labelled pairs."""

    threshold: float
    compared: tuple[Compared, ...]

    @property
    def true_hits(self) -> Share:
        """Of the pairs that may share an answer, those that would."""
        return self._share(same=True)

    @property
    def false_hits(self) -> Share:
        """Of the pairs that need different answers, those that would share one."""
        return self._share(same=False)

    @property
    def false_among_hits(self) -> Share:
        """Of all hits, the false ones; depends on how many pairs of each kind there are."""
        false, true = self.false_hits.hits, self.true_hits.hits
        return Share(hits=false, n=false + true)

    def by_kind(self) -> dict[tuple[bool, str], Share]:
        """Hits by (same, kind), in the order of the file."""
        kinds = dict.fromkeys((one.pair.same, one.pair.kind) for one in self.compared)
        return {
            (same, kind): _share(
                one.hits(self.threshold)
                for one in self.compared
                if (one.pair.same, one.pair.kind) == (same, kind)
            )
            for same, kind in kinds
        }

    def by_vectors_alone(self, *, same: bool) -> Share:
        """What the threshold alone would let through, without the words."""
        return _share(
            one.similarity >= self.threshold for one in self.compared if one.pair.same is same
        )

    def at(self, threshold: float) -> Audit:
        """The same pairs at another threshold."""
        return Audit(threshold=threshold, compared=self.compared)

    def _share(self, *, same: bool) -> Share:
        return _share(one.hits(self.threshold) for one in self.compared if one.pair.same is same)


def _share(hits: Iterable[bool]) -> Share:
    found = list(hits)
    return Share(hits=sum(found), n=len(found))


def audit(pairs: Sequence[LabelledPair], *, threshold: float, embed: Embed) -> Audit:
    """Hold every pair against the cache's own rule."""
    return Audit(
        threshold=threshold,
        compared=tuple(
            Compared(
                pair=pair,
                similarity=cosine(embed, pair.a, pair.b),
                words_equal=semantic_key(pair.a, "") == semantic_key(pair.b, "") is not None,
            )
            for pair in pairs
        ),
    )


def load_pairs(path: Path) -> list[LabelledPair]:
    """Read labelled pairs, one JSON object a line. Raises InputFileError naming the line."""
    try:
        pairs = [_pair(row, f"{path}:{number}") for number, _, row in iter_jsonl(path)]
    except StrictError as error:
        raise InputFileError(f"{path}:{error.line or 1}: {error}") from None
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror}.") from None
    if not pairs:
        raise InputFileError(f"{path}: no pairs. Each line is {FORM}")
    return pairs


def _pair(row: object, where: str) -> LabelledPair:
    if not isinstance(row, dict):
        raise InputFileError(f"{where}: not an object. A line is {FORM}")
    a, b, same, kind = (row.get(name) for name in ("a", "b", "same", "kind"))
    if not (isinstance(a, str) and isinstance(b, str) and isinstance(same, bool)):
        raise InputFileError(f"{where}: needs texts a and b, and same: true or false, as in {FORM}")
    if not (kind is None or isinstance(kind, str)):
        raise InputFileError(f"{where}: kind is no text. A line is {FORM}")
    return LabelledPair(a=a, b=b, same=same, kind=kind or ("same" if same else "different"))


def wilson(hits: int, n: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval for a share, within 0..1."""
    share = hits / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if hits == 0 else max(0.0, middle - half)
    high = 1.0 if hits == n else min(1.0, middle + half)
    return low, high
