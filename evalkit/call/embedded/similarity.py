"""Which of these groups of texts is most like that text: the one seam to a way of comparing.

The base backend counts words, pairs of neighbouring words, and character n-grams inside
words, which catch misspellings and word forms (Cavnar and Trenkle 1994), and weighs them as
Okapi BM25 does (Robertson and Zaragoza 2009): what all groups share tells none apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        counted = [features(text) for text in texts]
        held_by = Counter(feature for counts in counted for feature in counts)
        self._rarity = {f: math.log((self._n + 1) / (n + 0.5)) for f, n in held_by.items()}
        self._unseen = UNSEEN_WEIGHT * math.log((self._n + 1) / 1.5)
        mean_length = sum(sum(c.values()) for c in counted) / max(self._n, 1) or 1.0
        found: dict[str, list[tuple[int, float]]] = {}
        for group, counts in enumerate(counted):
            longer = 1 - length_share + length_share * sum(counts.values()) / mean_length
            for feature, count in counts.items():
                says = count * (SATURATION + 1) / (count + SATURATION * longer)
                weight = says * self._rarity[feature] * _weight(feature)
                found.setdefault(feature, []).append((group, weight))
        self._weights = {
            feature: (np.array([g for g, _ in pairs]), np.array([w for _, w in pairs]))
            for feature, pairs in found.items()
        }

    def similarities(self, text: str) -> Vector:
        scores = np.zeros(self._n)
        norm = 0.0
        for feature, count in self._features(text).items():
            norm += (self._rarity.get(feature, self._unseen) * _weight(feature)) ** 2
            if feature in self._weights:
                groups, weights = self._weights[feature]
                scores[groups] += weights * math.sqrt(min(count, 2.0))
        return scores / math.sqrt(norm) if norm else scores

    def coverage(self, text: str) -> Vector:
        """Per text, the share of what `text` says, by rarity, that stands in it, 0..1."""
        found, asked = np.zeros(self._n), 0.0
        for feature in self._features(text):
            says = (self._rarity.get(feature, self._unseen) * _weight(feature)) ** 2
            asked += says
            if feature in self._weights:
                found[self._weights[feature][0]] += says
        return found / asked if asked else found


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


def _ngrams(word: str) -> Iterator[str]:
    padded = f"<{word}>"
    for size in NGRAM_SIZES:
        for start in range(len(padded) - size + 1):
            yield padded[start : start + size]


def _telling_words(text: str) -> list[str]:
    return [
        word for word in words(text[:MAX_CHARS]) if word not in STOP_WORDS or word in QUESTION_WORDS
    ]
