"""Whether a judge's scores go with the length of the answers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evalkit.score.length import MAX_ANSWERS, Lengths, spearman
from evalkit.score.notes import run_notes
from evalkit.score.summary import RunSummary, count_line


def test_the_correlation_is_scipys_with_ties() -> None:
    generator = np.random.default_rng(1)
    lengths, scores = generator.integers(1, 20, 60), generator.integers(1, 6, 60)

    seen = spearman(lengths.tolist(), scores.tolist())

    assert seen == pytest.approx(stats.spearmanr(lengths, scores).statistic, abs=1e-9)
    assert spearman([1, 2, 3], [5, 5, 5]) is None


def judged(length: int, score: float, case: int, *, tier: int = 2, trial: int = 0) -> dict:
    key = ["tickets", "small/classify@v1", f"t-{case}", "hash", trial]
    call = {"cost_usd": 0.0, "error_kind": None, "output": "x" * length}
    row = {"metric": "helpful", "tier": tier, "outcome": "scored", "score": score, "passed": True,
           "error_kind": None, "scorer_version": "1", "reason": None}  # fmt: skip
    return {"key": key, "calls": [call], "scores": [row], "must_pass": []}


@pytest.mark.parametrize(
    ("tier", "sign", "word"), [(2, 1, "longer"), (2, -1, "shorter"), (2, 0, None), (1, 1, None)]
)
def test_a_judge_that_looks_at_length_is_noted(tier: int, sign: int, word: str | None) -> None:
    generator = np.random.default_rng(2)
    summary = RunSummary(planned=80)
    for case, noise in enumerate(generator.normal(0, 10, 80)):
        length = int(50 + case)
        score = float(np.clip(0.5 + (sign * (case - 40) + noise) / 100, 0, 1))
        count_line(judged(length, score, case, tier=tier), summary)

    notes = [note for note in run_notes({}, summary) if "Spearman" in note]

    if word is None:
        assert notes == []
    else:
        [note] = notes
        assert note.startswith(f"helpful on tickets: {word} answers of small/classify@v1 score")


def test_few_answers_say_nothing_and_many_are_bounded() -> None:
    few, many = Lengths(), Lengths()
    for at in range(29):
        few.add(at, at / 30)
    for at in range(3 * MAX_ANSWERS):
        many.add(at, at / (3 * MAX_ANSWERS))

    assert few.found() is None
    assert many.found() == (pytest.approx(1.0), MAX_ANSWERS)
