"""Tier 2, pairwise: a model says which of two answers to the same case is the better one.

Each vote asks twice, with the answers in either order, because judges favour a place: who
wins in both orders has won, a win that follows the place is a tie and is counted as such.
The candidate's score is 1, 0.5 or 0. Equal texts are a tie without a call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from evalkit.records import Answer, Mark
from evalkit.score.judge import Judgement, agreeing, no_majority, told
from evalkit.score.judge_asking import Asker, Vote, unjudgeable
from evalkit.score.judge_messages import blocks_of
from evalkit.score.rubric import JudgeSpec

TIE = 0.5
ORDERS_AGREE, ORDERS_DISAGREE = "orders agree", "orders disagree"
"""How a reason begins; what counts inconsistent judgements looks for it."""
AS_FIRST: Mapping[float, float] = {1: 1.0, 2: 0.0, 0: TIE}
"""A grade -> what it is worth for the answer that was shown first."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What two orders come to, for the candidate."""

    score: float
    consistent: bool


def settle(shown_first: float, shown_second: float) -> Settled:
    """One score from the candidate's scores in either place: a win has to be won in both."""
    same = shown_first == shown_second
    return Settled(score=shown_first if same else TIE, consistent=same)


class PairwiseJudge:
    """Compares answers with others by one spec; keeps nothing between them."""

    def __init__(self, asker: Asker) -> None:
        self.spec = asker.spec
        self._asker = asker

    async def judge(self, answer: Answer, against: str) -> Judgement:
        """Compare an answer with `against`, another one to the same case."""
        if answer.output == against:
            mark = Mark(score=TIE, passed=self.spec.pass_at <= TIE, reason="[the same answer]")
            return Judgement(mark=mark, records=())
        orders = [
            blocks_of(answer, self.spec, {"first": one, "second": other})
            for one, other in ((answer.output, against), (against, answer.output))
        ]
        problem = unjudgeable(orders[0], self.spec)
        if problem is not None:
            return Judgement(mark=problem, records=())
        n = 2 * self.spec.votes
        ballots = await asyncio.gather(
            *(self._asker.vote(orders[k % 2], k, of=n) for k in range(n))
        )
        votes = [_both(ballots[k][0], ballots[k + 1][0]) for k in range(0, n, 2)]
        records = tuple(record for _, made in ballots for record in made)
        return replace(_counted(votes, self.spec), records=records)


# --- counting votes --------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One vote: both orders, settled for each criterion."""

    settled: Mapping[str, Settled]
    reason: str

    @property
    def consistent(self) -> bool:
        return all(one.consistent for one in self.settled.values())


def _both(shown_first: Vote | Mark, shown_second: Vote | Mark) -> Compared | Mark:
    """A vote is usable when both orders are."""
    if isinstance(shown_first, Mark):
        return shown_first
    if isinstance(shown_second, Mark):
        return shown_second
    settled = {
        name: settle(AS_FIRST[grade], 1 - AS_FIRST[shown_second.grades[name]])
        for name, grade in shown_first.grades.items()
    }
    return Compared(settled=settled, reason=shown_first.reason)


def _counted(votes: Sequence[Compared | Mark], spec: JudgeSpec) -> Judgement:
    """The median of each criterion, where most votes are usable; without the calls."""
    failure = no_majority(votes)
    if failure is not None:
        return Judgement(mark=failure, records=())
    usable = [vote for vote in votes if isinstance(vote, Compared)]
    names = [one.name for one in spec.criteria]
    scores = {name: [vote.settled[name].score for vote in usable] for name in names}
    score = fmean(median(scores[name]) for name in names)
    consistent = all(vote.consistent for vote in usable)
    facts = [ORDERS_AGREE if consistent else ORDERS_DISAGREE]
    if len(names) > 1 or len(usable) > 1:
        facts += [f"{name} {', '.join(f'{x:g}' for x in scores[name])}" for name in names]
    agreement = None
    if len(usable) > 1:
        agreement = fmean(agreeing(scores[name]) for name in names)
        facts.append(f"votes agree {agreement:.0%}")
    spokesman = next((vote for vote in usable if vote.consistent), usable[0])
    mark = Mark(score=score, passed=score >= spec.pass_at, reason=told(facts, spokesman.reason))
    return Judgement(mark=mark, records=(), agreement=agreement, consistent=consistent)
