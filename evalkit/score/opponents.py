"""The stored answers of one run, as what a pairwise judge compares others with.

Read once from a sealed run. An answer meets the one that the same case with the same input
got in the same trial; one that the other run failed to give is missing, not beaten.
"""

from __future__ import annotations

import json
from hashlib import sha256

from evalkit.errors import NotComparable
from evalkit.records import Answer, Json, Mark, Pair
from evalkit.score.judge_asking import judge_error
from evalkit.score.metric_specs import canonical
from evalkit.score.stored import StoredRun


class Opponents:
    """What one pair of a run answered, by golden set, case and trial."""

    def __init__(self, stored: StoredRun, *, run_id: str, pair: Pair | None = None) -> None:
        """Raises NotComparable unless the run has one pair, or `pair` says which."""
        executions = stored.executions()
        self.pair = _only(sorted({one.pair for one in executions}), pair, run_id)
        self.name = f"{run_id}:{self.pair}"
        outputs = stored.outputs()
        self._answers: dict[tuple[str, str], dict[int, tuple[bytes, str]]] = {}
        for one in executions:
            input_text, output = outputs.get(one.trace_id or "", (None, None))
            if one.pair == self.pair and input_text is not None and output:
                trials = self._answers.setdefault((one.golden_set, one.case_id), {})
                trials[one.trial] = (_digest(json.loads(input_text)), output)

    def answer_to(self, answer: Answer, *, golden_set: str) -> str | Mark:
        """The other answer to the same question, or a mark that says why there is none."""
        trials = self._answers.get((golden_set, answer.case_id))
        if not trials:
            return judge_error("no_opponent", f"{self.name} has no answer to this case")
        numbers = sorted(trials)
        digest, output = trials[numbers[answer.trial % len(numbers)]]
        if digest != _digest(answer.input):
            return judge_error("no_opponent", f"{self.name} answered another input")
        return output


def _only(pairs: list[Pair], wanted: Pair | None, run_id: str) -> Pair:
    if wanted is None and len(pairs) == 1:
        return pairs[0]
    if wanted in pairs:
        return wanted
    there = ", ".join(map(str, pairs)) or "none"
    which = "has several pairs" if wanted is None else f"has no pair {wanted}"
    raise NotComparable(f"run {run_id} {which}. Name one as RUN:PAIR; there are: {there}.")


def _digest(value: Json) -> bytes:
    return sha256(canonical(value).encode()).digest()
