"""Watch whether a judge's scores go with the length of the answers: a bias judges are known for.

Counted while a run goes on, from the scores alone. Whether longer answers are better people
have to say; a calibration compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from math import sqrt
from statistics import fmean

MIN_ANSWERS = 30
MAX_ANSWERS = 2_000
"""Kept of one metric of one pair, the first ones."""
NOTED = 0.3
"""Rank correlation that is worth a word."""
Z = 2.576
"""Two-sided at 1 %: many metrics are looked at."""


class Lengths:
    """Lengths of answers, in characters, with their scores."""

    __slots__ = ("_lengths", "_scores")

    def __init__(self) -> None:
        self._lengths: list[float] = []
        self._scores: list[float] = []

    def add(self, length: int, score: float) -> None:
        if len(self._lengths) < MAX_ANSWERS:
            self._lengths.append(length)
            self._scores.append(score)

    def found(self) -> tuple[float, int] | None:
        """Spearman's rho and the number of answers; None where there is nothing to tell."""
        n = len(self._lengths)
        if n < MIN_ANSWERS:
            return None
        rho = spearman(self._lengths, self._scores)
        if rho is None or abs(rho) < max(NOTED, Z / sqrt(n - 1)):
            return None
        return rho, n


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Rank correlation with ties; None where one side does not vary."""
    a, b = _ranks(one), _ranks(other)
    mean = fmean(a)
    spread = sum((x - mean) ** 2 for x in a) * sum((y - mean) ** 2 for y in b)
    shared = sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True))
    return shared / sqrt(spread) if spread > 0 else None


def _ranks(values: Sequence[float]) -> list[float]:
    """1 for the smallest; ties share the mean of their places."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    first = 1
    for _, group in groupby(order, key=values.__getitem__):
        tied = list(group)
        for at in tied:
            ranks[at] = first + (len(tied) - 1) / 2
        first += len(tied)
    return ranks
