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
from evalkit.decide.render import markdown
from evalkit.decide.report import render_report
from evalkit.decide.terminal import verdict_lines
from evalkit.store.views import Store, open_store
from tests.decide.labelled import JUDGED, PAIR, calibrated, first, judged, label, plain
from tests.decide.results import LABEL, add_run, cases, lines_of, write_run

GATE = GateSettings()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def decide(store: Store, **changes: Any) -> dict[str, Any]:
    settings = GateSettings(**changes)
    return run_gate(store, candidate="run-cand", baseline="run-base", settings=settings)


def only(verdict: dict[str, Any]) -> dict[str, Any]:
    [comparison] = [c for c in verdict["comparisons"] if c["slice"] is None]
    return comparison


def test_a_judge_that_became_stricter_is_no_regression(store: Store) -> None:
    truth = [1.0] * 160 + [0.0] * 40
    stricter = [0.0 if n % 8 == 0 else value for n, value in enumerate(truth)]
    calibrated(store)
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


def test_judge_labels_and_both_stand_side_by_side(store: Store) -> None:
    truth = [1.0] * 160 + [0.0] * 40
    stricter = [0.0 if n % 8 == 0 else value for n, value in enumerate(truth)]
    judged(store, "run-base", truth)
    judged(store, "run-cand", stricter)
    label(store, "run-base", first(truth[::-1], 60))
    label(store, "run-cand", first(truth[::-1], 60))

    verdict = decide(store)

    people = only(verdict)["people"]
    assert people["judge_only"]["delta"] == pytest.approx(-0.1)
    assert people["judge_only"]["ci"][1] < -0.05
    assert people["labels_only"]["delta"] == 0
    assert people["combined"] == {"delta": only(verdict)["delta"], "ci": only(verdict)["ci"]}
    assert people["quality"]["baseline"]["n_labelled"] == 60
    low, high = people["quality"]["baseline"]["ci"]
    assert low < people["quality"]["baseline"]["mean"] < high
    page = render_report(verdict, store)
    assert "Judge and people" in page
    assert "−10.0 (" in page


def test_so_many_more_labels_would_decide_do(store: Store) -> None:
    truth = np.tile([0.0, 1, 1, 1, 1, 1, 1, 0, 0, 0], 200)
    after = np.tile([1.0, 0, 1, 1, 1, 1, 1, 0, 0, 0], 200)
    wrong = np.random.default_rng(9).random(2000) < 0.1
    judged(store, "run-base", np.where(wrong, 1 - truth, truth))
    judged(store, "run-cand", after)
    few, more = first(truth, 40), first(truth, 2000)
    label(store, "run-base", few)
    label(store, "run-cand", first(after, 40))
    before = only(decide(store))

    needed = before["people"]["labels_needed"]
    wanted = list(more)[40:needed]
    label(store, "run-base", {c: more[c] for c in wanted}, file_id="b2")
    later = first(after, 2000)
    label(store, "run-cand", {c: later[c] for c in wanted}, file_id="c2")
    decided = only(decide(store))

    assert before["verdict"] == "inconclusive"
    assert before["people"]["more_labels"] == needed - 40
    assert decided["verdict"] == "pass"
    assert decided["people"]["n_labelled"] == needed


def rescored(
    store: Store, run_id: str, origin: str, scores: Iterable[float], **columns: Any
) -> None:
    """A run that scored the answers of another again."""
    with add_run(
        store, run_id, pairs=["small/classify-ticket@v2"], metrics=[JUDGED], rescored_from=origin
    ) as writer:
        facts = {"tier": 2, "scorer": "helpfulness", "scorer_version": "judge-1"} | columns
        for line in lines_of(run_id, cases(map(plain, scores)), metrics=[JUDGED], **facts):
            writer.append(line)
        writer.seal("complete", counts={"scored": 100})


def test_labels_hold_for_the_same_answers_scored_again(store: Store) -> None:
    truth = [1.0] * 90 + [0.0] * 10
    for run_id in ("old-base", "old-cand"):
        judged(store, run_id, [0.0] * 100)
        label(store, run_id, first(truth, 30))
    rescored(store, "run-base", "old-base", truth)
    rescored(store, "run-cand", "old-cand", truth)

    comparison = only(decide(store))

    assert comparison["method"] == "ppi"
    assert comparison["people"]["n_labelled"] == 30


def prefer(store: Store, run_id: str, other: str, scores: Mapping[str, float]) -> None:
    """People had both answers before them; 1: that of `run_id` is better."""
    for name, worth in ((run_id, dict(scores)), (other, {c: 1 - s for c, s in scores.items()})):
        label(
            store, name, worth, file_id=f"{run_id}-{other}-{name}", metric="preference",
            labelled_at=1_767_225_600_000_000 + len(other),
        )  # fmt: skip


def test_preferences_of_people_correct_a_judge_that_compares(store: Store) -> None:
    calibrated(store)
    for run_id in ("old-base", "old-cand", "old-others"):
        judged(store, run_id, [0.0] * 100)
    worse = [0.0, 0.5] * 50
    version = "judge-1:against=old-base:small/classify-ticket@v2"
    rescored(store, "run-base", "old-base", [0.5] * 100, scorer_version=version)
    rescored(store, "run-cand", "old-cand", worse, scorer_version=version)
    prefer(store, "old-cand", "old-others", first([0.0] * 100, 40))

    of_another = only(decide(store))
    prefer(store, "old-cand", "old-base", first([1.0, 0.5] * 50, 40))
    of_these = only(decide(store))

    assert of_another["people"] is None
    assert of_another["delta"] == pytest.approx(-0.25)
    assert of_these["method"] == "ppi"
    assert of_these["people"]["labels_only"]["delta"] == pytest.approx(0.25)
    assert of_these["people"]["judge_only"]["delta"] == pytest.approx(-0.25)


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
    calibrated(store)
    judged(store, "run-base", truth)
    judged(store, "run-cand", truth)
    label(store, "run-base", first(truth, 19))
    label(store, "run-cand", first(truth, 19))

    verdict = decide(store)

    assert only(verdict)["method"] != "ppi"
    assert only(verdict)["people"] is None
    assert verdict["notes"] == [
        (
            "helpful on tickets is the judge's word alone: 19 cases have people's labels on both "
            "sides, 1 more would correct it"
        )
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
    assert exit_code(verdict) == 3
    assert "helpful on tickets does not gate: the judge agrees too little" in verdict["notes"][0]
    assert decide(store, min_agreement=-1.0)["verdict"] == "regression"


def test_a_judge_that_was_never_calibrated_does_not_gate(store: Store) -> None:
    judged(store, "run-base", [1.0] * 100)
    judged(store, "run-cand", [0.0] * 50 + [1.0] * 50)

    verdict = decide(store)

    assert only(verdict)["gate"] is False
    assert only(verdict)["verdict"] == "regression"
    assert verdict["verdict"] == "unmeasurable"
    fix = "evalkit judge calibrate helpfulness --labels FILE"
    assert only(verdict)["held_back"] == (
        f"its judge was never calibrated on people's labels. Do so: {fix}"
    )
    assert verdict["notes"] == [
        f"helpful on tickets does not gate: {only(verdict)['held_back']}",
        "no metric gates: the judges may not",
    ]
    page, text = render_report(verdict, store), markdown(verdict)
    lines = " ".join(" ".join(verdict_lines(verdict)).split())
    assert all("helpful on tickets does not gate: its judge was" in shown for shown in (page, text))
    assert f"does not gate: {only(verdict)['held_back']}" in lines


def test_a_calibrated_judge_gates(store: Store) -> None:
    judged(store, "run-base", [1.0] * 100)
    judged(store, "run-cand", [0.0] * 50 + [1.0] * 50)
    calibrated(store, kappa=0.41)

    verdict = decide(store)

    assert verdict["verdict"] == "regression"
    assert only(verdict)["gate"] is True
    assert only(verdict)["held_back"] is None


@pytest.mark.parametrize(
    ("figure", "why"),
    [
        ({"kappa": 0.39}, "agrees too little with people (kappa 0.39 over 40 labels, at least 0.4"),
        ({"kappa": 0.9, "n": 19}, "was held to 19 labels, 20 are asked"),
        ({"version": "judge-0"}, "was never calibrated"),
    ],
)
def test_a_calibration_that_is_not_enough_leaves_the_metric_advisory(
    store: Store, figure: dict[str, Any], why: str
) -> None:
    judged(store, "run-base", [1.0] * 100)
    judged(store, "run-cand", [1.0] * 100)
    calibrated(store, **figure)

    assert why in only(decide(store))["held_back"]


def test_labels_of_the_golden_set_weigh_more_than_a_calibration_elsewhere(store: Store) -> None:
    generator = np.random.default_rng(7)
    judged(store, "run-base", [1.0] * 100)
    judged(store, "run-cand", [0.0] * 50 + [1.0] * 50)
    label(store, "run-cand", first((generator.random(100) < 0.5).astype(float), 60))
    calibrated(store, kappa=0.9)

    assert "agrees too little" in only(decide(store))["held_back"]


def test_other_metrics_gate_beside_a_judge_that_may_not(store: Store) -> None:
    for run_id in ("run-base", "run-cand"):
        with add_run(
            store, run_id, pairs=["small/classify-ticket@v2"], metrics=[LABEL, JUDGED]
        ) as writer:
            judge = 1.0 if run_id == "run-base" else 0.0
            lines = lines_of(run_id, cases([1.0] * 100), metrics=[LABEL])
            scored = lines_of(
                run_id, cases([judge] * 100), metrics=[JUDGED],
                tier=2, scorer="helpfulness", scorer_version="judge-1",
            )  # fmt: skip
            for line, more in zip(lines, scored, strict=True):
                writer.append({**line, "scores": [*line["scores"], *more["scores"]]})
            writer.seal("complete", counts={"scored": 100})

    verdict = decide(store, max_drop=0.1)

    assert verdict["verdict"] == "pass"
    wholes = {c["metric"]: c["gate"] for c in verdict["comparisons"] if c["slice"] is None}
    assert wholes == {"label": True, "helpful": False}


def test_a_judge_that_may_not_gate_fails_no_must_pass_case(store: Store) -> None:
    must = {**JUDGED, "gate": False, "must_pass": True}
    for run_id, score in (("run-base", 1.0), ("run-cand", 0.0)):
        write_run(
            store, run_id, cases([score] * 30), metrics=[must],
            tier=2, scorer="helpfulness", scorer_version="judge-1",
        )  # fmt: skip

    before = decide(store)
    calibrated(store)
    after = decide(store)

    assert before["must_pass_failures"] == []
    assert "helpful on tickets need not be passed: its judge was never" in before["notes"][0]
    assert len(after["must_pass_failures"]) == 30
    assert after["verdict"] == "regression"


def test_agreement_of_another_version_of_the_judge_says_nothing(store: Store) -> None:
    generator = np.random.default_rng(7)
    write_run(
        store, "run-a", cases([0.0, 1.0] * 50), metrics=[JUDGED], tier=2, scorer_version="judge-0"
    )
    judged(store, "run-base", [1.0] * 100)
    judged(store, "run-cand", [1.0] * 100)
    label(store, "run-a", first((generator.random(100) < 0.5).astype(float), 60))
    calibrated(store)

    assert only(decide(store))["gate"] is True


def test_a_damaged_calibration_is_named_and_nothing_is_measured(store: Store) -> None:
    judged(store, "run-base", [1.0] * 100)
    judged(store, "run-cand", [1.0] * 100)
    calibrated(store)
    [path] = (store.path / "judges").iterdir()
    path.write_text("{", encoding="utf-8")

    verdict = decide(store)

    assert verdict["verdict"] == "unmeasurable"
    assert path.name in verdict["notes"][0]


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
