"""Put a judge's scores and people's labels on one scale, so that agreement can be counted.

Where every label is a yes or a no, the scale is pass or fail and the judge's word is whether
the answer passed; else it is the grades that people gave, and each score is the nearest one.
Part of `decide`'s statistics: arrays in, arrays out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalkit.decide.agreement import Agreement, kappa

Floats: TypeAlias = NDArray[np.float64]

MAX_GRID = 11
"""Distinct labels of which each is a grade of its own; more are put on five."""
SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Grades:
    """The grades of one set of labels."""

    pass_or_fail: bool
    grid: Floats
    """In order, 0..1."""

    def judge(self, scores: Floats, passed: Sequence[bool | None]) -> Floats:
        """What the judge said, in people's words."""
        if self.pass_or_fail:
            return np.array([float(bool(one)) for one in passed])
        return self._nearest(scores)

    def people(self, means: Floats) -> Floats:
        """What most annotators said, or the grade nearest to their mean; NaN where they split."""
        if self.pass_or_fail:
            return np.where(np.abs(means - 0.5) < SAME, np.nan, np.round(means))
        return self._nearest(means)

    def kappa(self, judge: Floats, people: Floats) -> Agreement:
        """Cohen's kappa, near misses counting by the square of their distance."""
        return kappa(judge, people, weights=None if self.pass_or_fail else "quadratic")

    def _nearest(self, values: Floats) -> Floats:
        return np.asarray(self.grid[np.abs(values[:, None] - self.grid[None, :]).argmin(axis=1)])


PREFERENCES = Grades(False, np.array([0.0, 0.5, 1.0]))
"""Which of two answers is better, also where people named no tie: a tie is a win of neither."""


def grades_of(labels: Iterable[float]) -> Grades:
    """The scale that these labels, 0..1, are on."""
    seen = np.unique(np.array(list(labels), dtype=np.float64))
    if np.isin(seen, (0.0, 1.0)).all():
        return Grades(True, np.array([0.0, 1.0]))
    return Grades(False, seen if 2 <= len(seen) <= MAX_GRID else np.linspace(0, 1, 5))
