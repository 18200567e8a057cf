"""What inputs are about: groups of the first days' inputs, and what is like none of them.

Vectors of a feature's first inputs are gathered into a few topics (spherical k-means, Dhillon
& Modha 2001); a later input belongs to the nearest, or is unfamiliar where it is farther from it
than all but a twentieth of the first ones. Two samples are compared by the counts of such cells
(Boracchi et al. 2018, QuantTree), so that no later input moves what it is held against. A
topic is a mean of many inputs; none is kept.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalkit.call.embedded.similarity import ngram_features, word_features
from evalkit.call.embedded.text import STOP_WORDS, words
from evalkit.errors import ConfigError

if TYPE_CHECKING:
    from evalkit.call.embedded.minilm import MiniLMBackend

Floats: TypeAlias = NDArray[np.float64]
Vectors: TypeAlias = Callable[[Sequence[str]], Floats]
"""Texts as rows."""

TOPICS = 8
AT_LEAST = 60
"""Inputs that topics are learnt from."""
FAMILIAR = 0.95
HASHED = "hashed-ngrams"
DIMENSIONS = 1024
NGRAM_WEIGHT = 0.3
ROUNDS = 25
SEED = 20
NAMING = 3
NAMED_BY = 10
"""Inputs that have to share a word for it to name their topic."""
UNFAMILIAR = "unfamiliar"
SAME = 1e-9
"""Cosines that differ by less are of equal inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topics:
    """Where the topics of a feature lie."""

    backend: str
    weights: Floats
    """What each dimension tells, (n_dimensions,)."""
    centres: Floats
    """(n_topics, n_dimensions), of length one."""
    least: float
    """Cosine to the nearest centre below which an input is unfamiliar."""
    names: tuple[str, ...]

    def of(self, vectors: Floats) -> list[str]:
        """The topic of each row, by name."""
        cosines = _unit(vectors * self.weights) @ self.centres.T
        nearest, near = cosines.argmax(axis=1), cosines.max(axis=1)
        return [
            self.names[at] if cosine >= self.least else UNFAMILIAR
            for at, cosine in zip(nearest.tolist(), near.tolist(), strict=True)
        ]

    def as_json(self) -> dict[str, Any]:
        return {
            "backend": self.backend,
            "weights": self.weights.tolist(),
            "centres": self.centres.tolist(),
            "least": self.least,
            "names": list(self.names),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Topics:
        return cls(
            backend=document["backend"],
            weights=np.asarray(document["weights"], dtype=np.float64),
            centres=np.asarray(document["centres"], dtype=np.float64),
            least=document["least"],
            names=tuple(document["names"]),
        )


def learn_topics(texts: Sequence[str], vectors: Floats, *, backend: str) -> Topics | None:
    """Topics of a feature's first inputs; None where there are too few."""
    if len(texts) < AT_LEAST:
        return None
    n = len(texts)
    weights = np.ones(vectors.shape[1])
    if backend == HASHED:
        weights = np.log((n + 1) / ((vectors != 0).sum(axis=0) + 0.5))
    # As they are kept: `least` is to part the first inputs as it parts the same ones later.
    weights = np.asarray(np.round(np.maximum(weights, 0.0), 4), dtype=np.float64)
    unit = _unit(vectors * weights)
    centres = np.round(_centres(unit, min(TOPICS, n // 20)), 5)
    cosines = unit @ centres.T
    return Topics(
        backend=backend,
        weights=weights,
        centres=centres,
        least=float(np.quantile(cosines.max(axis=1), 1 - FAMILIAR)) - SAME,
        names=_names(texts, cosines.argmax(axis=1), len(centres)),
    )


def _centres(unit: Floats, k: int) -> Floats:
    """Spherical k-means from far-apart beginnings; the same for the same rows."""
    rng = np.random.default_rng(SEED)
    centres = unit[[int(rng.integers(len(unit)))]]
    while len(centres) < k:
        far = 1 - (unit @ centres.T).max(axis=1).clip(max=1.0)
        far[far < SAME] = 0.0
        if not far.any():
            break
        centres = np.vstack([centres, unit[rng.choice(len(unit), p=far / far.sum())]])
    for _ in range(ROUNDS):
        nearest = (unit @ centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, unit)
        is_empty = ~np.bincount(nearest, minlength=len(centres)).astype(bool)
        sums[is_empty] = centres[is_empty]
        moved = _unit(sums)
        if np.allclose(moved, centres):
            break
        centres = moved
    return centres


def _names(texts: Sequence[str], nearest: NDArray[np.int64], k: int) -> tuple[str, ...]:
    """`2: card, charge, refund`: words that tell a topic from the others, said by many."""
    said = [{w for w in words(text) if w.isalpha() and w not in STOP_WORDS} for text in texts]
    everywhere = Counter(word for one in said for word in one)
    names = []
    for number in range(k):
        here = Counter(
            word for one, at in zip(said, nearest.tolist(), strict=True) if at == number
            for word in one
        )  # fmt: skip
        telling = sorted(
            (word for word, n in here.items() if n >= NAMED_BY),
            key=lambda word: (-(here[word] ** 2) / everywhere[word], word),
        )
        told = ", ".join(telling[:NAMING])
        names.append(f"{number + 1}: {told}" if told else str(number + 1))
    return tuple(names)


def _unit(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, 1e-12))


# --- vectors -----------------------------------------------------------------------------


def backend_here() -> str:
    """Sentence vectors where the extra `local` is installed, else counted words."""
    try:
        return _sentence_vectors().name
    except ConfigError:
        return HASHED


def vectors_by(backend: str) -> Vectors:
    """How texts become rows. Raises ConfigError where the extra `local` is asked for and absent."""
    if backend == HASHED:
        return hashed_vectors
    model = _sentence_vectors()
    return lambda texts: np.array([model.vector(text) for text in texts], dtype=np.float64)


@cache
def _sentence_vectors() -> MiniLMBackend:
    from evalkit.call.embedded.minilm import MiniLMBackend

    return MiniLMBackend()


def hashed_vectors(texts: Sequence[str]) -> Floats:
    """Counts of words, pairs of words and n-grams, with signs, each in one of few places."""
    rows = np.zeros((len(texts), DIMENSIONS))
    for row, text in zip(rows, texts, strict=True):
        for features, weight in ((word_features(text), 1.0), (ngram_features(text), NGRAM_WEIGHT)):
            for feature, count in features.items():
                place = zlib.crc32(feature.encode())
                sign = 1.0 if place & 0x80000000 else -1.0
                row[place % DIMENSIONS] += sign * weight * count**0.5
    return rows
