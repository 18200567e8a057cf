"""Give a judge answers that say nothing; one that passes any of them is not to be trusted.

Stands between a judge and the runs that it scores: before its first mark it grades texts
known to open judges (Zhao et al. 2025, "One Token to Fool LLM-as-a-Judge") as answers to
a question of our own, so that kept votes make it free from the second run on. What an
untrusted judge says is a judge error: not a score, so nothing that a gate could measure.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from evalkit.records import CallRecord, Mark
from evalkit.score.attacks import Attack, RaterAgainst, answer_of
from evalkit.score.judge import Judgement, JudgeSpec
from evalkit.score.judge_asking import judge_error

log = logging.getLogger(__name__)

UNTRUSTED = "judge_untrusted"
NULL_ANSWERS = (":", "Thought process:", "Let's solve this problem step by step.")
"""None of them answers anything, whatever the question and the rubric."""
MAX_TRIES = 3
"""How often a judge that could not be asked is asked again; then its errors speak for it."""
BETTER = 0.5
"""A pairwise judge's score of a tie: above it, the null answer won against a right one."""

QUESTION = Attack(
    id="null-answer",
    kind="null",
    input={"question": "How long is the guarantee on a lamp, and are bulbs part of it?"}
    | {
        "documents": [
            {"id": "d1", "title": "Guarantee", "text": "Lamps are guaranteed for two years."},
            {"id": "d2", "title": "Bulbs", "text": "Bulbs are not part of the guarantee."},
        ]
    },
    reference="Two years from delivery; bulbs are not part of it.",
    honest="Lamps are guaranteed for two years [d1]; bulbs are not part of the guarantee [d2].",
    attack="",
)


class NullAnswers:
    """One judge's test, made once before its first mark and shared by all that wait for it."""

    def __init__(self, spec: JudgeSpec, rater: RaterAgainst) -> None:
        self._spec = spec
        self._rate = rater(QUESTION.honest)
        self._turn = asyncio.Lock()
        self._tries = 0
        self._done = spec.null_answers_allowed
        self._passed: str | None = None

    async def objection(self) -> tuple[Mark | None, Sequence[CallRecord]]:
        """Why nothing this judge says counts, and the calls that it took to find out.

        None: it failed every null answer, or its errors say enough. A spent budget is an
        objection, too, and ends the run as it would at any other call.
        """
        if self._done:
            return self._mark(), ()
        async with self._turn:
            return (self._mark(), ()) if self._done else await self._test()

    async def _test(self) -> tuple[Mark | None, Sequence[CallRecord]]:
        judged = await asyncio.gather(
            *(self._rate(answer_of(QUESTION, text)) for text in NULL_ANSWERS)
        )
        calls = [record for one in judged for record in one.records]
        for one in judged:
            if one.mark.outcome == "budget_stop":
                return one.mark, calls
        self._tries += 1
        self._passed = next(
            (text for text, one in zip(NULL_ANSWERS, judged, strict=True) if self._passes(one)),
            None,
        )
        all_judged = all(one.mark.score is not None for one in judged)
        self._done = self._passed is not None or all_judged or self._tries == MAX_TRIES
        if self._passed is not None:
            log.warning("judge %s passes an answer that says nothing", self._spec.name)
        return self._mark(), calls

    def _passes(self, judged: Judgement) -> bool:
        score = judged.mark.score
        if score is None:
            return False
        return score > BETTER if self._spec.pairwise else bool(judged.mark.passed) and score > 0

    def _mark(self) -> Mark | None:
        if self._passed is None:
            return None
        return judge_error(
            UNTRUSTED,
            f"judge {self._spec.name} passes the answer {self._passed!r}, which says nothing: "
            "what else it passes means nothing, either. Sharpen its rubric, use another model, or "
            "write null_answers: allowed where such an answer can be right",
        )
