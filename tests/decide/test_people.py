"""People's labels in the gate: they correct the judge, or say how far it may be trusted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.config import GateSettings
from evalkit.decide.gate import exit_code, run_gate
from evalkit.decide.ppi import powered_mean
from evalkit.store.views import Store, open_store
from tests.decide.results import LABEL, cases, write_run

JUDGED = {**LABEL, "name": "helpful", "tier": 2}
PAIR = {"model": "small", "prompt_name": "classify-ticket", "prompt_version": "v2"}
GATE = GateSettings()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def judged(store: Store, run_id: str, scores: Iterable[float | None], **options: Any) -> None:
    write_run(
        store,
        run_id,
        cases(map(_plain, scores)),
        metrics=[JUDGED],
        tier=2,
        scorer_version="judge-1",
        **options,
    )


def _plain(score: float | None) -> float | None:
    return None if score is None else float(score)


def label(
    store: Store, run_id: str, scores: Mapping[str, float], *, file_id: str = "", **facts: Any
) -> None:
    store.add_labels(
        file_id or f"labels-{run_id}",
        [
            {
                "label_id": f"{run_id}-{case_id}-{file_id}", "trace_id": f"{run_id}-{case_id}",
                "run_id": run_id, "golden_set": "tickets", "case_id": case_id,
                "case_hash": "bbbb", "trial": 0, **PAIR, "metric": "helpful", "score": score,
                "passed": score >= 1, "annotator": "ada", "inclusion_prob": 0.5, **facts,
            }
            for case_id, score in scores.items()
        ],
    )  # fmt: skip


def first(values: Iterable[float], n: int) -> dict[str, float]:
    return {case_id: float(value) for case_id, value in list(cases(values).items())[:n]}


def decide(store: Store, **changes: Any) -> dict[str, Any]:
    settings = GateSettings(**changes)
    return run_gate(store, candidate="run-cand", baseline="run-base", settings=settings)


def only(verdict: dict[str, Any]) -> dict[str, Any]:
    [comparison] = [c for c in verdict["comparisons"] if c["slice"] is None]
    return comparison


def test_a_judge_that_became_stricter_is_no_regression(store: Store) -> None:
    truth = [1.0] * 160 + [0.0] * 40
    stricter = [0.0 if n % 8 == 0 else value for n, value in enumerate(truth)]
    judged(store, "run-base", truth)
    judged(store, "run-cand", stricter)

    alone = decide(store)
    label(store, "run-base", first(truth, 100))
    label(store, "run-cand", first(truth, 100))
    with_people = decide(store)

    assert only(alone)["verdict"] == "regression"
    assert only(with_people)["method"] == "ppi"
    assert only(with_people)["verdict"] != "regression"
    assert only(with_people)["people"]["judge_bias"] == pytest.approx(-0.13)
    assert with_people["notes"] == [
        "helpful on tickets: people's labels of 100 cases correct what the judge says"
    ]


def test_a_drop_that_people_see_is_a_regression_the_judge_missed(store: Store) -> None:
    truth = np.ones(200)
    judged(store, "run-base", truth)
    judged(store, "run-cand", truth)
    label(store, "run-base", first(truth, 60))
    label(store, "run-cand", first([0.0] * 20 + [1.0] * 180, 60))

    comparison = only(decide(store))

    assert comparison["verdict"] == "regression"
    assert comparison["delta"] == pytest.approx(-1 / 3, abs=0.01)


def test_the_numbers_are_those_of_prediction_powered_inference(store: Store) -> None:
    generator = np.random.default_rng(5)
    before, after = (generator.random((2, 150)) < 0.7).astype(float)
    people = [(generator.random(150) < 0.7).astype(float) for _ in range(2)]
    judged(store, "run-base", before)
    judged(store, "run-cand", after)
    label(store, "run-base", first(people[0], 50))
    label(store, "run-cand", first(people[1], 50))

    comparison = only(decide(store))

    d = np.where(np.arange(150) < 50, people[1] - people[0], np.nan)
    expected = powered_mean(after - before, d)
    assert comparison["delta"] == pytest.approx(expected.estimate)
    assert comparison["p_value"] == pytest.approx(expected.p_value)
    assert comparison["ci"] == pytest.approx(expected.ci)


def test_unequal_chances_to_be_labelled_weigh_the_labels(store: Store) -> None:
    generator = np.random.default_rng(6)
    before, after = (generator.random((2, 120)) < 0.7).astype(float)
    judged(store, "run-base", before)
    judged(store, "run-cand", after)
    chances = {f"t-{n:03d}": 0.9 if n < 30 else 0.3 for n in range(60)}
    for run_id, scores in (("run-base", before), ("run-cand", after)):
        for chance in (0.9, 0.3):
            some = {c: s for c, s in first(scores, 60).items() if chances[c] == chance}
            label(store, run_id, some, file_id=f"{run_id}-{chance}", inclusion_prob=chance)

    comparison = only(decide(store))

    inclusion = np.array([chances.get(f"t-{n:03d}", 1.0) for n in range(120)])
    d = np.where(np.arange(120) < 60, after - before, np.nan)
    expected = powered_mean(after - before, d, inclusion=inclusion)
    assert comparison["delta"] == pytest.approx(expected.estimate)


def test_a_label_that_another_replaces_does_not_count(store: Store) -> None:
    truth = [1.0, 0.0] * 50
    judged(store, "run-base", truth)
    judged(store, "run-cand", truth)
    wrong = first([0.0] * 100, 40)
    label(store, "run-base", first(truth, 40))
    label(store, "run-cand", wrong, file_id="wrong")
    store.add_labels(
        "right",
        [
            {
                "label_id": f"new-{case_id}", "trace_id": "x", "run_id": "run-cand",
                "golden_set": "tickets", "case_id": case_id, "case_hash": "bbbb", "trial": 0,
                **PAIR, "metric": "helpful", "score": score, "annotator": "ada",
                "supersedes": f"run-cand-{case_id}-wrong",
            }
            for case_id, score in first(truth, 40).items()
        ],
    )  # fmt: skip

    assert only(decide(store))["delta"] == 0


def test_few_labels_leave_the_judge_alone_and_say_so(store: Store) -> None:
    truth = [1.0] * 90 + [0.0] * 10
    judged(store, "run-base", truth)
    judged(store, "run-cand", truth)
    label(store, "run-base", first(truth, 19))
    label(store, "run-cand", first(truth, 19))

    verdict = decide(store)

    assert only(verdict)["method"] != "ppi"
    assert only(verdict)["people"] is None
    assert verdict["notes"] == [
        "the judge's word alone, without people's labels of both: helpful on tickets"
    ]


def test_a_judge_that_disagrees_with_people_does_not_gate(store: Store) -> None:
    generator = np.random.default_rng(7)
    judged(store, "run-base", [1.0] * 100)
    judged(store, "run-cand", [0.0] * 50 + [1.0] * 50)
    label(store, "run-cand", first((generator.random(100) < 0.5).astype(float), 60))

    verdict = decide(store)

    assert only(verdict)["verdict"] == "regression"
    assert only(verdict)["gate"] is False
    assert verdict["verdict"] == "unmeasurable"
    assert exit_code(verdict, strict=False) == 3
    assert "helpful on tickets does not gate: the judge agrees too little" in verdict["notes"][0]
    assert decide(store, min_agreement=-1.0)["verdict"] == "regression"


def test_agreement_of_another_version_of_the_judge_says_nothing(store: Store) -> None:
    generator = np.random.default_rng(7)
    write_run(
        store, "run-a", cases([0.0, 1.0] * 50), metrics=[JUDGED], tier=2, scorer_version="judge-0"
    )
    judged(store, "run-base", [1.0] * 100)
    judged(store, "run-cand", [1.0] * 100)
    label(store, "run-a", first((generator.random(100) < 0.5).astype(float), 60))

    assert only(decide(store))["gate"] is True


def test_missing_scores_count_against_the_candidate_with_people_too(store: Store) -> None:
    truth = [1.0] * 90 + [0.0] * 10
    judged(store, "run-base", truth)
    judged(store, "run-cand", [None] * 4 + truth[4:])
    label(store, "run-base", first(truth, 60))
    label(store, "run-cand", first(truth, 60))

    comparison = only(decide(store))

    assert comparison["method"] == "ppi"
    assert comparison["missing"]["worst_case_verdict"] != "pass"


def test_labels_do_not_bear_on_checks(store: Store) -> None:
    truth = [1.0] * 90 + [0.0] * 10
    write_run(store, "run-base", cases(truth))
    write_run(store, "run-cand", cases(truth))
    for run_id in ("run-base", "run-cand"):
        label(store, run_id, first(truth, 60), metric="label")

    assert only(decide(store))["method"] != "ppi"
