"""The alternative-annotator test: may a judge take the place of any one of the people?

Calderon, Reichart & Dror 2025, "The Alternative Annotator Test for LLM-as-a-Judge". Each
annotator is left out in turn; the judge has to agree with the others about as well as the
one left out did. Arrays in, frozen results out; no I/O, no randomness.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special, stats

Floats: TypeAlias = NDArray[np.float64]

MIN_ANNOTATORS = 3
MIN_CASES = 30
"""Per annotator; with fewer the t test does not hold, and the signed-rank test is used."""
EPSILON = 0.15
"""What a judge may be worse by, as it costs less: 0.2 beside experts, 0.1 beside a crowd."""
SAME = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """The judge beside one annotator, both held against the others."""

    annotator: str
    n: int
    judge_wins: float
    """Share of cases in which the judge agrees with the others at least as well, ties with."""
    annotator_wins: float
    p_value: float
    """One-sided; H0: judge_wins <= annotator_wins - epsilon."""
    replaced: bool
    """Whether H0 is rejected (Benjamini & Yekutieli 2001 over annotators)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlternativeTest:
    """Whether the judge may stand in for an annotator."""

    winning_rate: float | None
    """Share of annotators it may replace; None when the test cannot be made."""
    advantage: float | None
    """Mean of `judge_wins`: the chance to be as good as a randomly chosen annotator."""
    passed: bool | None
    """winning_rate of at least 0.5."""
    epsilon: float
    annotators: tuple[LeftOut, ...]
    reason: str | None = None


def alternative_annotator(
    judge: ArrayLike,
    people: Mapping[str, Sequence[float]],
    *,
    graded: bool,
    epsilon: float = EPSILON,
    q: float = 0.05,
) -> AlternativeTest:
    """Test the judge's `(n_cases,)` against each annotator's, NaN where one said nothing.

    Agreement with the others is the share who say the same; where answers are `graded`, the
    negative root mean square distance from them.
    """
    said = np.asarray(judge, dtype=np.float64)
    rows = {name: np.asarray(one, dtype=np.float64) for name, one in people.items()}
    found = []
    for name, own in rows.items():
        others = np.array([row for other, row in rows.items() if other != name])
        pair = _scores(said, own, others, graded=graded) if len(others) else None
        if pair is not None and len(pair[0]) >= 2:
            found.append((name, *pair))
    if len(found) < MIN_ANNOTATORS:
        return AlternativeTest(
            winning_rate=None, advantage=None, passed=None, epsilon=epsilon, annotators=(),
            reason=f"it takes {MIN_ANNOTATORS} annotators who labelled the same answers",
        )  # fmt: skip
    wins = [(name, judged >= own, own >= judged) for name, judged, own in found]
    p_values = [_p_value(theirs.astype(float) - ours, epsilon) for _, ours, theirs in wins]
    rejected = by(p_values, q=q)
    annotators = tuple(
        LeftOut(
            annotator=name, n=len(ours), judge_wins=float(ours.mean()),
            annotator_wins=float(theirs.mean()), p_value=p_value, replaced=replaced,
        )
        for (name, ours, theirs), p_value, replaced in zip(wins, p_values, rejected, strict=True)
    )  # fmt: skip
    rate = sum(one.replaced for one in annotators) / len(annotators)
    return AlternativeTest(
        winning_rate=rate,
        advantage=float(np.mean([one.judge_wins for one in annotators])),
        passed=rate >= 0.5,
        epsilon=epsilon,
        annotators=annotators,
        reason=_too_few(annotators),
    )


def _too_few(annotators: Sequence[LeftOut]) -> str | None:
    few = [one.annotator for one in annotators if one.n < MIN_CASES]
    return f"fewer than {MIN_CASES} answers of {', '.join(few)}" if few else None


def _scores(judge: Floats, own: Floats, others: Floats, *, graded: bool) -> tuple[Floats, Floats]:
    """How well the judge and the annotator agree with the others, case by case."""
    there = np.isfinite(others)
    usable = np.isfinite(judge) & np.isfinite(own) & there.any(axis=0)
    judge, own, others, there = judge[usable], own[usable], others[:, usable], there[:, usable]
    n_others = there.sum(axis=0)

    def agreement(said: Floats) -> Floats:
        if graded:
            squared = np.where(there, (others - said) ** 2, 0.0).sum(axis=0)
            return np.asarray(np.round(-np.sqrt(squared / n_others), 12), dtype=np.float64)
        same = np.where(there, np.abs(others - said) < SAME, False).sum(axis=0)
        return np.asarray(same / n_others, dtype=np.float64)

    return agreement(judge), agreement(own)


def _p_value(d: Floats, epsilon: float) -> float:
    """H0: mean of `d` (annotator's win minus judge's, -1..1) is epsilon or more."""
    n = len(d)
    se = float(d.std(ddof=1)) / math.sqrt(n)
    if se < SAME:
        return 0.0 if n >= MIN_CASES and d[0] < epsilon else 1.0
    if n < MIN_CASES:
        return float(stats.wilcoxon(d - epsilon, alternative="less").pvalue)
    return float(special.stdtr(n - 1, (float(d.mean()) - epsilon) / se))


def by(p_values: Sequence[float], *, q: float) -> list[bool]:
    """Which hypotheses are rejected at a false discovery rate `q`, whatever their dependence.

    Benjamini & Yekutieli 2001.
    """
    m = len(p_values)
    order = np.argsort(p_values, kind="stable")
    bars = q * np.arange(1, m + 1) / (m * (1 / np.arange(1, m + 1)).sum())
    below = np.flatnonzero(np.asarray(p_values)[order] <= bars)
    rejected = [False] * m
    for at in order[: below[-1] + 1] if len(below) else ():
        rejected[int(at)] = True
    return rejected
