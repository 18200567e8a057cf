"""What has to pass: metrics and cases that fail the build by one failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from evalkit.config import GateSettings
from evalkit.decide.gate import run_gate
from evalkit.store.judges import save_figure
from evalkit.store.views import Store, open_store
from tests.decide.results import LABEL, add_run, cases, lines_of, write_run

SHAPE = {**LABEL, "name": "shape", "gate": False, "must_pass": True}
HELPFUL = {**LABEL, "name": "helpful", "tier": 2}
BY_JUDGE = {"tier": 2, "scorer": "helpfulness", "scorer_version": "judge-1"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def gate(store: Store, **options: Any) -> dict[str, Any]:
    return run_gate(store, candidate="run-cand", settings=GateSettings(), **options)


def failures(verdict: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(one["metric"], one["case_id"]) for one in verdict["must_pass_failures"]]


def alone(store: Store, scores: Sequence[float | None], *metrics: Any, **options: Any) -> Any:
    """The verdict on one run without a baseline."""
    write_run(store, "run-cand", cases(scores), metrics=metrics, **options)
    return gate(store, allow_no_baseline=True)


def test_a_must_pass_metric_that_passes_is_enough_for_a_pass(store: Store) -> None:
    verdict = alone(store, [1.0] * 3, SHAPE)

    assert verdict["verdict"] == "pass"
    assert verdict["must_pass_failures"] == verdict["must_pass_missing"] == []


def test_where_nothing_gates_and_nothing_has_to_pass_nothing_passes(store: Store) -> None:
    verdict = alone(store, [1.0] * 3, {**SHAPE, "must_pass": False})

    assert verdict["verdict"] == "unmeasurable"
    assert verdict["notes"][-1] == "no metric gates: set gate: true on one in golden_set.yaml"


def test_only_the_metrics_that_have_to_pass_fail_by_one_case(store: Store) -> None:
    verdict = alone(store, [1.0, 0.0, 0.5], LABEL, SHAPE)

    assert failures(verdict) == [("shape", "t-001"), ("shape", "t-002")]
    assert verdict["verdict"] == "regression"


def test_a_must_pass_case_has_to_pass_what_gates_and_nothing_else(store: Store) -> None:
    shown = {**LABEL, "name": "shown", "gate": False}

    verdict = alone(store, [0.0, 0.0], LABEL, shown, must_pass_cases=["t-001"])

    assert failures(verdict) == [("label", "t-001")]


def test_what_has_no_score_is_missing_and_has_not_failed(store: Store) -> None:
    verdict = alone(store, [0.0, None, 1.0], SHAPE)

    assert failures(verdict) == [("shape", "t-000")]
    assert [one["case_id"] for one in verdict["must_pass_missing"]] == ["t-001"]
    assert verdict["verdict"] == "regression"
    assert "1 must-pass scores are missing" in verdict["notes"]


def test_a_must_pass_case_does_not_fail_by_a_judge_that_may_not_gate(store: Store) -> None:
    verdict = alone(
        store, [0.0, 1.0], {**HELPFUL, "gate": True}, must_pass_cases=["t-000"], **BY_JUDGE
    )

    assert failures(verdict) == []
    assert verdict["verdict"] != "regression"
    assert not any("need not be passed" in note for note in verdict["notes"])


def test_a_must_pass_case_fails_by_a_judge_that_may_gate(store: Store) -> None:
    figure = {"overall": {"n": 40, "kappa": {"value": 0.8}}}
    save_figure(store, "helpfulness", "judge-1", figure)

    verdict = alone(
        store, [0.0, 1.0], {**HELPFUL, "gate": True}, must_pass_cases=["t-000"], **BY_JUDGE
    )

    assert failures(verdict) == [("helpful", "t-000")]


def test_a_judge_that_need_not_be_passed_leaves_the_other_metrics_their_word(store: Store) -> None:
    judged = {**HELPFUL, "gate": False, "must_pass": True}
    with add_run(
        store, "run-cand", pairs=["small/classify-ticket@v2"], metrics=[SHAPE, judged]
    ) as writer:
        lines = lines_of("run-cand", cases([0.0, 1.0]), metrics=[SHAPE])
        scored = lines_of("run-cand", cases([0.0, 0.0]), metrics=[judged], **BY_JUDGE)
        for line, more in zip(lines, scored, strict=True):
            writer.append({**line, "scores": [*line["scores"], *more["scores"]]})
        writer.seal("complete", counts={})

    verdict = gate(store, allow_no_baseline=True)

    assert failures(verdict) == [("shape", "t-000")]
    named = [note for note in verdict["notes"] if "need not be passed" in note]
    assert len(named) == 1
    assert named[0].startswith("helpful on tickets need not be passed: its judge was never")


def test_every_pair_of_the_run_has_to_pass(store: Store) -> None:
    pairs = [f"small/classify-ticket@{version}" for version in ("v1", "v2")]
    with add_run(store, "run-cand", pairs=pairs, metrics=[SHAPE]) as writer:
        for version, scores in (("v1", [0.0, 1.0]), ("v2", [1.0, 1.0])):
            for line in lines_of("run-cand", cases(scores), version=version, metrics=[SHAPE]):
                writer.append(line)
        writer.seal("complete", counts={})

    [failure] = gate(store, allow_no_baseline=True)["must_pass_failures"]

    assert (failure["case_id"], failure["prompt_version"]) == ("t-000", "v1")
