"""Which of these groups of texts is most like that text: the one seam to a way of comparing.

The base backend counts words, pairs of neighbouring words, and character n-grams inside
words, which catch misspellings and word forms (Cavnar and Trenkle 1994), and weighs them as
Okapi BM25 does (Robertson and Zaragoza 2009): what all groups share tells none apart.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from evalkit.call.embedded.text import QUESTION_WORDS, STOP_WORDS, stem, words

Vector = NDArray[np.float64]
Features = Mapping[str, float]

NGRAM_SIZES = (3, 4, 5)
NGRAM_WEIGHT = 0.3
"""What n-grams weigh beside words."""
PAIR_WEIGHT = 0.7
"""What two neighbouring words weigh beside one word."""
UNSEEN_WEIGHT = 0.6
"""What a word that no group has takes from the similarity, as a share of a word one has."""
SATURATION = 1.2
LENGTH_SHARE = 0.3
"""k1 and b of BM25."""
MAX_CHARS = 20_000
"""A longer text is read up to here."""


class Index(Protocol):
    """Groups of texts ready to be compared with."""

    def similarities(self, text: str) -> Vector:
        """One similarity per group, shape (n_groups,), 0 for nothing in common."""
        ...


class Backend(Protocol):
    """A way to compare texts."""

    @property
    def name(self) -> str:
        """Names the model, as a call record shows it."""
        ...

    @property
    def reads_meaning(self) -> bool:
        """Whether it knows that words mean the same; one that counts words does not."""
        ...

    def index(self, groups: Sequence[Sequence[str]]) -> Index: ...


class HashedBackend:
    """The base backend: about a third of a millisecond per text, no weights to load."""

    name = "hashed-ngrams"
    reads_meaning = False

    def index(self, groups: Sequence[Sequence[str]]) -> HashedIndex:
        return HashedIndex([". ".join(group) for group in groups])


class HashedIndex:
    """Words and n-grams of each group."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._words = Postings(texts, word_features)
        self._ngrams = Postings(texts, ngram_features)

    def similarities(self, text: str) -> Vector:
        by_word = self._words.similarities(text)
        return by_word + NGRAM_WEIGHT * self._ngrams.similarities(text)


class Postings:
    """For each feature, the texts that have it and how much it says for them (Okapi BM25)."""

    def __init__(
        self,
        texts: Sequence[str],
        features: Callable[[str], Features],
        *,
        length_share: float = LENGTH_SHARE,
    ) -> None:
        self._features = features
        self._n = len(texts)
        self._place: dict[str, int] = {}
        places, counts, sizes = array("i"), array("d"), array("i")
        lengths = np.zeros(self._n)
        for number, text in enumerate(texts):
            counted = features(text)
            places.extend([self._place.setdefault(f, len(self._place)) for f in counted])
            counts.extend(counted.values())
            sizes.append(len(counted))
            lengths[number] = sum(counted.values())
        self._fill(np.array(places), np.array(counts), np.array(sizes, dtype=np.int64), lengths,
                   length_share)  # fmt: skip

    def _fill(
        self,
        places: NDArray[np.int32],
        counts: Vector,
        sizes: NDArray[np.int64],
        lengths: Vector,
        length_share: float,
    ) -> None:
        """Lay the texts of each feature side by side: feature f has starts[f]:starts[f + 1]."""
        held_by = np.bincount(places, minlength=len(self._place))
        rarities = {n: math.log((self._n + 1) / (n + 0.5)) for n in set(held_by.tolist())}
        rarity = np.array([rarities[n] for n in held_by.tolist()])
        weight = np.array([_weight(feature) for feature in self._place])
        # Lists: taking single numbers out of arrays would be half of a query's time.
        self._telling = [
            (r * w) ** 2 for r, w in zip(rarity.tolist(), weight.tolist(), strict=True)
        ]
        self._unseen = UNSEEN_WEIGHT * math.log((self._n + 1) / 1.5)
        self._starts = [0, *np.cumsum(held_by).tolist()]
        order = np.argsort(places, kind="stable")
        self._texts = np.repeat(np.arange(self._n), sizes)[order]
        places, counts = places[order], counts[order]
        mean_length = lengths.sum() / max(self._n, 1) or 1.0
        longer = (1 - length_share + length_share * lengths / mean_length)[self._texts]
        says = counts * (SATURATION + 1) / (counts + SATURATION * longer)
        self._says = says * rarity[places] * weight[places]

    def similarities(self, text: str) -> Vector:
        scores = np.zeros(self._n)
        norm = 0.0
        for feature, count in self._features(text).items():
            at = self._place.get(feature)
            if at is None:
                norm += (self._unseen * _weight(feature)) ** 2
                continue
            norm += self._telling[at]
            held = slice(self._starts[at], self._starts[at + 1])
            scores[self._texts[held]] += self._says[held] * math.sqrt(min(count, 2.0))
        return scores / math.sqrt(norm) if norm else scores

    def coverage(self, text: str, *, at_most: int) -> Vector:
        """Per text, the share of what `text` says, by rarity, that stands in it, 0..1.

        Of a long `text` the share of its `at_most` most telling features.
        """
        found, said = np.zeros(self._n), []
        for feature in self._features(text):
            at = self._place.get(feature)
            if at is None:
                said.append((self._unseen * _weight(feature)) ** 2)
                continue
            said.append(self._telling[at])
            found[self._texts[self._starts[at] : self._starts[at + 1]]] += said[-1]
        asked = sum(sorted(said, reverse=True)[:at_most])
        return np.minimum(found / asked, 1.0) if asked else found


def _weight(feature: str) -> float:
    return PAIR_WEIGHT if " " in feature else 1.0


def word_features(text: str) -> Features:
    """Stems, and pairs of neighbouring stems, with their counts."""
    stems = [stem(word) for word in _telling_words(text)]
    pairs = (f"{first} {second}" for first, second in pairwise(stems))
    return Counter([*stems, *pairs])


def ngram_features(text: str) -> Features:
    """Character n-grams inside words, with their counts."""
    return Counter(gram for word in _telling_words(text) for gram in _ngrams(word))


@lru_cache(maxsize=16_384)
def _ngrams(word: str) -> tuple[str, ...]:
    padded = f"<{word}>"
    return tuple(
        padded[start : start + size]
        for size in NGRAM_SIZES
        for start in range(len(padded) - size + 1)
    )


def _telling_words(text: str) -> list[str]:
    return [
        word for word in words(text[:MAX_CHARS]) if word not in STOP_WORDS or word in QUESTION_WORDS
    ]
