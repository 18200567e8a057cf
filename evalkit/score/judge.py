"""Tier 2: a model grades an answer by a rubric; its reply becomes a mark, or is missing.

A rubric and an answer -> votes -> one mark. `pairwise` is the same for two answers of one
case, `panel` puts several judges together, `judging` puts them on the call path. Writes
nothing; what the judge's model did wrong is a judge error, never a low score.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from statistics import fmean, median

from evalkit.frozen import frozen
from evalkit.records import Answer, CallRecord, Mark
from evalkit.score.judge_asking import (
    MAX_REASON_CHARS,
    Asker,
    Ballot,
    Vote,
    judge_error,
    unjudgeable,
)
from evalkit.score.judge_messages import Blocks, blocks_of, readable
from evalkit.score.rubric import JudgeSpec, load_judge

__all__ = ["Judge", "JudgeSpec", "Judgement", "Rater", "load_judge"]


@frozen
class Judgement:
    """What came of judging one answer, with every call it took."""

    mark: Mark
    records: tuple[CallRecord, ...]
    """Empty where kept votes were enough."""
    agreement: float | None = None
    """Share of pairs of votes (of judges, in a panel) that say the same; None: one vote."""
    consistent: bool | None = None
    """Whether both orders of a pairwise judgement had the same winner; None: nobody was asked."""


Rater = Callable[[Answer], Awaitable[Judgement]]
"""Judges one answer: a judge, a pairwise judge with its opponents, or a panel."""


class Judge:
    """Grades answers by one spec; keeps nothing between them."""

    def __init__(self, asker: Asker) -> None:
        self.spec = asker.spec
        self._asker = asker

    async def judge(self, answer: Answer) -> Judgement:
        """Grade one answer, `votes` times. Never raises for what a judge model did."""
        blocks = blocks_of(answer, self.spec, {"output": answer.output})
        problem = unjudgeable(blocks, self.spec)
        if problem is not None:
            return Judgement(mark=problem, records=())
        ballots = await self._poll(blocks)
        votes = [vote for vote, _ in ballots]
        return Judgement(
            mark=count_votes(votes, self.spec),
            records=tuple(record for _, records in ballots for record in records),
            agreement=votes_agree(votes, self.spec),
        )

    async def _poll(self, blocks: Blocks) -> Sequence[Ballot]:
        n = self.spec.votes
        if n == 1:
            return [await self._asker.vote(blocks, 0, of=1)]
        return await asyncio.gather(*(self._asker.vote(blocks, k, of=n) for k in range(n)))


# --- counting votes --------------------------------------------------------------


def no_majority(votes: Sequence[object]) -> Mark | None:
    """Why too few votes are usable; None when most are. A spent budget stops the case."""
    failed = [vote for vote in votes if isinstance(vote, Mark)]
    for mark in failed:
        if mark.outcome == "budget_stop":
            return mark
    return failed[0] if 2 * len(failed) >= len(votes) else None


def count_votes(votes: Sequence[Vote | Mark], spec: JudgeSpec) -> Mark:
    """One mark from all votes: the median grade of each criterion, where most votes are usable."""
    failure = no_majority(votes)
    if failure is not None:
        return failure
    usable = [vote for vote in votes if isinstance(vote, Vote)]
    grades = {one.name: median(v.grades[one.name] for v in usable) for one in spec.criteria}
    for one in spec.criteria:
        if one.scale.steps == (0, 1) and grades[one.name] not in one.scale.steps:
            return judge_error("votes_split", f"the usable votes on {one.name} are split evenly")
    score = fmean(one.scale.share(grades[one.name]) for one in spec.criteria)
    return Mark(
        score=score,
        passed=score >= spec.pass_at,
        reason=_told(usable, grades, spec),
    )


def votes_agree(votes: Sequence[Vote | Mark], spec: JudgeSpec) -> float | None:
    """Share of pairs of votes with the same grade, over all criteria; None: fewer than two."""
    usable = [vote for vote in votes if isinstance(vote, Vote)]
    if len(usable) < 2:
        return None
    return fmean(agreeing([vote.grades[one.name] for vote in usable]) for one in spec.criteria)


def agreeing(values: Iterable[Hashable]) -> float:
    """Share of pairs of values that are equal, of two values or more."""
    counts = Counter(values)
    n = counts.total()
    return sum(k * (k - 1) for k in counts.values()) / (n * (n - 1))


def _told(votes: Sequence[Vote], grades: dict[str, float], spec: JudgeSpec) -> str:
    """The reason of the vote nearest to the outcome, after the grades that led to it."""
    spokesman = votes[0]
    if len(votes) > 1:
        spokesman = min(votes, key=lambda v: sum(abs(v.grades[n] - grades[n]) for n in grades))
    parts = []
    if len(spec.criteria) > 1 or spec.votes > 1:
        for name in grades:
            parts.append(f"{name} {', '.join(f'{vote.grades[name]:g}' for vote in votes)}")
    share = votes_agree(votes, spec)
    if share is not None:
        parts.append(f"votes agree {share:.0%}")
    return told(parts, spokesman.reason)


def told(facts: Sequence[str], reason: str) -> str:
    """What led to a mark, in brackets, then the judge's own words."""
    return readable((f"[{'; '.join(facts)}] " if facts else "") + reason, MAX_REASON_CHARS)
