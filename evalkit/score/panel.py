"""Tier 2, several judges: their marks of one answer put together as the panel's file says.

Mean or median of their scores, or 1 and 0 as most of them pass the answer or fail it; of two
answers compared, win, loss, or a tie where most see neither. A judge that could not judge is
left out while most could; what each said stays in the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import chain
from statistics import fmean, median

from evalkit.records import Answer, Mark
from evalkit.score.judge import Judgement, Rater, agreeing, no_majority, told
from evalkit.score.judge_asking import judge_error
from evalkit.score.pairwise import TIE
from evalkit.score.rubric import JudgeSpec


class Panel:
    """Has every judge of a panel judge an answer."""

    def __init__(self, spec: JudgeSpec, raters: Mapping[str, Rater]) -> None:
        self.spec = spec
        self._raters = raters

    async def judge(self, answer: Answer) -> Judgement:
        """All judges at once; their calls together."""
        said = await asyncio.gather(*(rate(answer) for rate in self._raters.values()))
        marks = dict(zip(self._raters, (one.mark for one in said), strict=True))
        orders = [one.consistent for one in said if one.consistent is not None]
        return Judgement(
            mark=combine(marks, self.spec),
            records=tuple(chain.from_iterable(one.records for one in said)),
            agreement=_agreement(list(marks.values())),
            consistent=all(orders) if orders else None,
        )


def combine(marks: Mapping[str, Mark], spec: JudgeSpec) -> Mark:
    """One mark from the judges', where most of them could judge."""
    failure = no_majority([m if m.score is None else m.score for m in marks.values()])
    if failure is not None:
        return failure
    scores = {name: mark.score for name, mark in marks.items() if mark.score is not None}
    score = _combined(list(scores.values()), marks, spec)
    if score is None:
        return judge_error("votes_split", "as many judges pass the answer as fail it")
    nearest = min(scores, key=lambda name: abs(scores[name] - score))
    return Mark(
        score=score,
        passed=score >= spec.pass_at,
        reason=told(
            [_said(name, mark) for name, mark in marks.items()], marks[nearest].reason or ""
        ),
    )


def _combined(scores: Sequence[float], marks: Mapping[str, Mark], spec: JudgeSpec) -> float | None:
    if spec.combine == "majority" and spec.pairwise:
        return _most_prefer(scores)
    if spec.combine == "majority":
        passed = [mark.passed for mark in marks.values() if mark.score is not None]
        n_passed = sum(bool(one) for one in passed)
        return None if 2 * n_passed == len(passed) else float(2 * n_passed > len(passed))
    return median(scores) if spec.combine == "median" else fmean(scores)


def _most_prefer(scores: Sequence[float]) -> float:
    """A tie passes a judge's bar of 0.5, so that counting who passes would make it a win."""
    wins, losses = sum(one > TIE for one in scores), sum(one < TIE for one in scores)
    return 1.0 if 2 * wins > len(scores) else 0.0 if 2 * losses > len(scores) else TIE


def _said(name: str, mark: Mark) -> str:
    return f"{name} {mark.error_kind if mark.score is None else f'{mark.score:.3g}'}"


def _agreement(marks: Sequence[Mark]) -> float | None:
    passed = [mark.passed for mark in marks if mark.score is not None]
    return agreeing(passed) if len(passed) > 1 else None
