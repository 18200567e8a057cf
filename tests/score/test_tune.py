"""The sweep: what each threshold would have scored and cost."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.score.tune import (
    Path,
    Paths,
    Step,
    clusters_of,
    single_models,
    steps_of,
    sweep,
    walk,
)


def step(model: str, score: float, confidence: float | None = None, **more: Any) -> Step:
    values: dict[str, Any] = {"cost_usd": 1.0 if model == "small" else 10.0, "latency_ms": 100.0}
    return Step(model=model, score=score, confidence=confidence, **values | more)


def path(case_id: str, *steps: Step, cluster: str | None = None) -> Path:
    return Path(case_id=case_id, cluster=cluster, steps=steps)


def paths_of(*paths: Path) -> Paths:
    return Paths(
        models=tuple(one.model for one in paths[0].steps), metric="label", paths=paths, missing=0,
        without_confidence=0,
    )  # fmt: skip


FOUR = paths_of(
    path("a", step("small", 1, 0.9), step("large", 1)),
    path("b", step("small", 1, 0.7), step("large", 1)),
    path("c", step("small", 0, 0.4), step("large", 1)),
    path("d", step("small", 0, 0.2), step("large", 0)),
)


def test_quality_and_cost_at_each_threshold_are_the_hand_worked_numbers() -> None:
    points = sweep(FOUR, [0.0, 0.3, 0.5, 0.8, 1.0])

    assert [p.quality for p in points] == [0.5, 0.5, 0.75, 0.75, 0.75]
    assert [p.escalated for p in points] == [0, 0.25, 0.5, 0.75, 1]
    assert [p.cost_usd for p in points] == [1, 3.5, 6, 8.5, 11]
    assert points[2].shares == {"small": 0.5, "large": 0.5}
    assert points[2].latency_ms == 150
    assert points[2].scores == (1, 1, 1, 0)


def test_a_model_alone_pays_for_itself_alone() -> None:
    small, large = single_models(FOUR)

    assert (small.model, small.quality, small.cost_usd) == ("small", 0.5, 1)
    assert (large.model, large.quality, large.cost_usd) == ("large", 0.75, 10)
    assert large.shares == {"small": 0, "large": 1}
    assert large.escalated == 0


def test_trials_are_averaged_within_their_case_first() -> None:
    paths = paths_of(
        path("a", step("small", 1, 0.9), step("large", 1), cluster="x"),
        path("a", step("small", 0, 0.9), step("large", 1), cluster="x"),
        path("a", step("small", 0, 0.9), step("large", 1), cluster="x"),
        path("b", step("small", 1, 0.9), step("large", 1)),
    )

    point = sweep(paths, [0.5])[0]

    assert point.quality == pytest.approx((1 / 3 + 1) / 2)
    assert point.scores == (pytest.approx(1 / 3), 1)
    assert clusters_of(paths) == ["x", "\0b"]
    assert clusters_of(FOUR) is None


def test_no_answer_goes_on_whatever_the_threshold() -> None:
    steps = [step("small", 0, failed=True, failed_over=True), step("large", 1)]

    walked = walk(steps, 0.0)

    assert walked.answer.model == "large"
    assert walked.cost_usd == 11


def test_an_unsure_answer_stands_when_the_next_model_gave_none() -> None:
    steps = [step("small", 1, 0.1), step("large", 0, failed=True, failed_over=True)]

    assert walk(steps, 0.5).answer.model == "small"
    assert walk(steps, 0.5).cost_usd == 11


def test_a_failure_that_is_the_models_own_is_final_unless_an_unsure_answer_stands() -> None:
    refused = step("small", 0, failed=True)
    late = step("large", 0, failed=True)

    assert walk([refused, step("large", 1)], 0.5).answer.score == 0
    assert walk([step("small", 1, 0.1), late], 0.5).answer.score == 1


def test_where_no_model_answered_the_score_is_the_last_ones() -> None:
    steps = [
        step("small", 0, failed=True, failed_over=True),
        step("large", 0, failed=True, failed_over=True),
    ]

    assert walk(steps, 0.5).answer.model == "large"


def test_a_confidence_or_a_cost_not_known_is_no_zero() -> None:
    paths = paths_of(
        path("a", step("small", 0, None), step("large", 1)),
        path("b", step("small", 0, 0.1, cost_usd=None), step("large", 1)),
    )

    point = sweep(paths, [1.0])[0]

    assert point.quality == 0.5
    assert point.cost_usd is None


def test_steps_are_where_something_changes() -> None:
    assert steps_of(FOUR) == pytest.approx([0.0, 0.2, 0.4, 0.7, 0.9])
    escalated = [point.escalated for point in sweep(FOUR, steps_of(FOUR))]
    assert escalated == [0, 0.25, 0.5, 0.75, 1]


CONFIDENCES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@given(CONFIDENCES)
def test_a_higher_threshold_never_escalates_less_or_costs_less(confidences: list[float]) -> None:
    paths = paths_of(
        *(
            path(str(n), step("small", 0, confidence), step("large", 1))
            for n, confidence in enumerate(confidences)
        )
    )

    points = sweep(paths, sorted({0.0, 1.0, *confidences}))

    for before, after in pairwise(points):
        assert after.escalated >= before.escalated
        assert (after.cost_usd or 0) >= (before.cost_usd or 0)
        assert after.quality == pytest.approx(after.escalated)
