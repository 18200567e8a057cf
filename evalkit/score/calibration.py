"""Has a judge judge what people have labelled; what it said beside what they said.

The first half of a calibration: answers in, judgements out, as arrays that the statistics
of `decide` compare. Counts what could not be judged, and what the judging cost.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from evalkit.score.judge import Judgement, Rater
from evalkit.score.labelled import Labelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A labelled answer and what the judge made of it."""

    labelled: Labelled
    judgement: Judgement

    @property
    def judge(self) -> float | None:
        return self.judgement.mark.score

    @property
    def people(self) -> float:
        """What annotators said on average."""
        return fmean(self.labelled.labels.values())


async def judge_labelled(
    items: Sequence[Labelled], rater: Callable[[Labelled], Rater], *, concurrency: int
) -> list[Judged]:
    """Judge every answer, so many at a time; the order stays."""
    slots = asyncio.Semaphore(max(1, concurrency))

    async def one(item: Labelled) -> Judged:
        async with slots:
            return Judged(labelled=item, judgement=await rater(item)(item.answer))

    return list(await asyncio.gather(*map(one, items)))


def missing(judged: Sequence[Judged]) -> Counter[str]:
    """Why answers have no judgement -> how many; `judge_reply` are those it could not read."""
    return Counter(
        one.judgement.mark.error_kind or one.judgement.mark.outcome
        for one in judged
        if one.judge is None
    )


def costs(judged: Sequence[Judged]) -> tuple[float, int, list[float]]:
    """USD, calls whose price is not known, and the milliseconds of each call."""
    records = [record for one in judged for record in one.judgement.records]
    cost_usd = sum(record.cost_usd or 0.0 for record in records)
    unpriced = sum(record.cost_usd is None for record in records)
    return cost_usd, unpriced, [record.latency_ms for record in records]
