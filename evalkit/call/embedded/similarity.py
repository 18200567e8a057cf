"""Which of these texts is most like that one: vectors of hashed words and character n-grams.

A backend turns texts into an index; an index gives one similarity per text, 0..1.
Words are stemmed and weighted by how few of the indexed texts hold them (Spärck Jones
1972), so that what all labels share tells none apart. Character n-grams inside words
(Cavnar and Trenkle 1994) catch misspellings and the word forms of other languages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from evalkit.call.embedded.text import STOP_WORDS, fold, stem, words

Vector = NDArray[np.float64]

WORD_SHARE = 0.6
"""How much of the similarity is words; the rest is character n-grams."""
NGRAM_SIZES = (3, 4, 5)
MAX_CHARS = 20_000
"""A longer text is read up to here."""
BUCKETS = 1 << 20


class Index(Protocol):
    """Texts ready to be compared with."""

    def similarities(self, text: str) -> Vector:
        """One similarity per indexed text, shape (n_texts,), 0..1."""
        ...


class Backend(Protocol):
    """A way to compare texts."""

    name: str

    def index(self, texts: Sequence[str]) -> Index: ...


class HashedBackend:
    """The base backend: numpy only, about a tenth of a millisecond per text."""

    name = "hashed-ngrams"

    def index(self, texts: Sequence[str]) -> HashedIndex:
        return HashedIndex(texts)


class HashedIndex:
    """Words and n-grams of each text as two matrices over the buckets that occur."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._words = _Matrix([word_features(text) for text in texts])
        self._ngrams = _Matrix([ngram_features(text) for text in texts])

    def similarities(self, text: str) -> Vector:
        by_word = self._words.cosines(word_features(text))
        by_ngram = self._ngrams.cosines(ngram_features(text))
        return WORD_SHARE * by_word + (1 - WORD_SHARE) * by_ngram


class _Matrix:
    """Weighted, normalised rows over hashed features; cosines against one more text."""

    def __init__(self, rows: Sequence[dict[int, float]]) -> None:
        self._columns: dict[int, int] = {}
        for row in rows:
            for feature in row:
                self._columns.setdefault(feature, len(self._columns))
        counts = np.zeros((len(rows), len(self._columns)))
        for i, row in enumerate(rows):
            for feature, count in row.items():
                counts[i, self._columns[feature]] = count
        n_rows = max(len(rows), 1)
        held_by = (counts > 0).sum(axis=0)
        self._idf: Vector = np.log((1 + n_rows) / (1 + held_by)) + 0.1
        self._unseen_idf = math.log(1 + n_rows) * 0.5 + 0.1
        weighted = counts * self._idf
        norms = np.sqrt((weighted**2).sum(axis=1, keepdims=True))
        self._rows: Vector = weighted / np.where(norms > 0, norms, 1.0)

    def cosines(self, row: dict[int, float]) -> Vector:
        known = [(self._columns[f], count) for f, count in row.items() if f in self._columns]
        if not known:
            return np.zeros(len(self._rows))
        columns = np.array([column for column, _ in known])
        weights = np.array([count for _, count in known]) * self._idf[columns]
        unseen = sum(count**2 for f, count in row.items() if f not in self._columns)
        norm = math.sqrt(float((weights**2).sum()) + unseen * self._unseen_idf**2)
        similarity: Vector = self._rows[:, columns] @ weights / (norm or 1.0)
        return similarity


def word_features(text: str) -> dict[int, float]:
    """Hashed stems and pairs of neighbouring stems, with dampened counts."""
    counts: dict[int, float] = {}
    before = ""
    for word in words(text[:MAX_CHARS]):
        if word in STOP_WORDS:
            continue
        this = stem(word)
        for feature, weight in ((this, 1.0), (f"{before} {this}", 0.5)):
            bucket = crc32(feature.encode()) % BUCKETS
            counts[bucket] = counts.get(bucket, 0.0) + weight
        before = this
    return {bucket: math.sqrt(count) for bucket, count in counts.items()}


def ngram_features(text: str) -> dict[int, float]:
    """Hashed character n-grams inside words, with dampened counts."""
    kept = [word for word in words(text[:MAX_CHARS]) if word not in STOP_WORDS]
    padded = fold(f" {' '.join(kept)} ")
    codes = np.frombuffer(padded.encode("utf-32-le", "replace"), dtype=np.uint32).astype(np.uint64)
    is_space = codes == ord(" ")
    found = []
    for size in NGRAM_SIZES:
        length = len(codes) - size + 1
        if length <= 0:
            continue
        hashed = np.full(length, size, dtype=np.uint64)
        inside_space = np.zeros(length, dtype=bool)
        for offset in range(size):
            hashed = hashed * np.uint64(1_000_003) ^ codes[offset : offset + length]
            if 0 < offset < size - 1:
                inside_space |= is_space[offset : offset + length]
        found.append((hashed >> np.uint64(7))[~inside_space] % np.uint64(BUCKETS))
    if not found:
        return {}
    buckets, counts = np.unique(np.concatenate(found), return_counts=True)
    return dict(zip(buckets.tolist(), np.sqrt(counts).tolist(), strict=True))
