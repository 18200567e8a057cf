"""What the manifest of a run that could stop early says, taken over word for word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from evalkit.decide.comparison import Comparison, Planned, Side
from evalkit.decide.rows import Source
from evalkit.decide.stopped import decided, decided_otherwise, is_own, note_of, own_pairs, stopped
from tests.decide.measured import V1, V2, file, planned, run, scored

OLD, NEW = str(V1), str(V2)
CASES = scored([1.0, 1.0, 0.3, 0.0], [0.0, 1.0, 0.1 + 0.2, 1.0])


def told(**changes: Any) -> dict[str, Any]:
    return {
        "golden_set": "tickets", "metric": "label", "baseline": OLD, "candidate": NEW,
        "tolerance": 0.01, "max_drop": 0.07, "n": 40, "n_drawn": 40, "delta": -0.5,
        "ci": [-0.8, -0.2], "p_value": 0.0004, "p_max_drop": 1.0, **changes,
    }  # fmt: skip


def early_run(*comparisons: dict[str, Any], **facts: Any) -> Source:
    return run("early", stop_early={"family_size": 2, "comparisons": list(comparisons), **facts})


def own(source: Source, **changes: Any) -> Planned:
    plan = planned(candidate=Side(source=source, pair=V2), baseline=Side(source=source, pair=V1))
    return replace(plan, **changes)


def taken_over(**changes: Any) -> Comparison:
    found = decided(own(early_run(told(**changes))), CASES)
    assert found is not None
    return found


def test_what_was_decided_is_taken_over_as_it_was() -> None:
    found = taken_over()

    assert found.early is not None
    assert found.paired is not None
    assert (found.early.n, found.early.n_drawn, found.early.family_size) == (40, 40, 2)
    assert (found.early.p_value, found.early.p_max_drop) == (0.0004, 1.0)
    assert (found.paired.n, found.paired.delta, found.paired.ci) == (40, -0.5, (-0.8, -0.2))
    assert (found.paired.p_value, found.paired.method) == (0.0004, "e-process")
    assert (found.reason, found.slice, found.worst, found.cases) == (None, None, None, CASES)


@pytest.mark.parametrize(
    ("asked", "alpha", "is_answered"),
    [
        ({"tolerance": 0.01, "max_drop": 0.07}, 0.05, True),
        ({"tolerance": 0.02, "max_drop": 0.07}, 0.05, False),
        ({"tolerance": 0.01, "max_drop": 0.08}, 0.05, False),
        ({"tolerance": 0.01, "max_drop": 0.07}, 0.1, False),
    ],
)
def test_it_answers_what_it_was_asked_then(
    asked: dict[str, float], alpha: float, is_answered: bool
) -> None:
    source = early_run(told(), alpha=0.05)
    plan = own(source, rule=planned(**asked).rule)

    why = decided_otherwise(plan, alpha=alpha)

    assert (why is None) == is_answered
    assert decided_otherwise(own(early_run()), alpha=alpha) is None


def test_cases_that_lost_and_won_are_counted_beyond_rounding() -> None:
    found = taken_over().paired

    assert found is not None
    assert (found.losses, found.wins) == (1, 1)


def test_an_undecided_comparison_may_have_no_interval() -> None:
    found = taken_over(ci=None)

    assert found.paired is not None
    assert found.paired.ci is None


@pytest.mark.parametrize(("drawn", "clusters"), [(40, None), (8, 8)])
def test_clusters_are_what_was_drawn_where_these_are_fewer(
    drawn: int, clusters: int | None
) -> None:
    found = taken_over(n_drawn=drawn).paired

    assert found is not None
    assert found.n_clusters == clusters


def test_no_case_on_both_sides_is_the_reason() -> None:
    assert taken_over(n=0, n_drawn=0).reason == "no case has a score on both sides"


@pytest.mark.parametrize(("p_value", "adjusted"), [(0.02, 0.04), (0.9, 1.0)])
def test_a_p_is_corrected_by_the_comparisons_of_its_run(p_value: float, adjusted: float) -> None:
    assert taken_over(p_value=p_value).p_adjusted == pytest.approx(adjusted)


@pytest.mark.parametrize(
    "other",
    [
        {"metric": "shape"},
        {"golden_set": "orders"},
        {"baseline": NEW},
        {"candidate": OLD},
    ],
)
def test_what_was_decided_of_another_comparison_is_not_taken(other: dict[str, Any]) -> None:
    first = told(**other, delta=0.9)

    assert decided(own(early_run(first)), CASES) is None
    found = decided(own(early_run(first, told())), CASES)
    assert found is not None
    assert found.paired is not None
    assert found.paired.delta == -0.5


def test_a_run_that_could_not_stop_early_decided_nothing() -> None:
    plain = run("plain")

    assert decided(own(plain), CASES) is None
    assert decided(own(early_run(told()), baseline=None), CASES) is None
    assert list(own_pairs(plain)) == []
    assert stopped(plain) is False


def test_pairs_that_met_in_a_run_are_named_once() -> None:
    source = early_run(told(), told(metric="shape"), told(golden_set="orders"))

    assert list(own_pairs(source)) == [("tickets", V2, V1), ("orders", V2, V1)]


def test_a_comparison_is_a_runs_own_where_both_sides_are_of_it() -> None:
    source = early_run(told())
    elsewhere = own(source, baseline=Side(source=run("base"), pair=V1))

    assert is_own(own(source)) is True
    plans = (
        elsewhere,
        own(source, baseline=None),
        own(run("plain")),
        own(source, candidate=Side(source=file("new.csv"), pair=V2)),
    )
    assert [is_own(plan) for plan in plans] == [False] * 4


@pytest.mark.parametrize(
    ("facts", "note"),
    [
        ({}, "run early could stop early: its comparisons are decided by e-processes"),
        (
            {"stopped": True, "calls_saved": 1_200},
            (
                "run early stopped early: its comparisons were decided while it ran, by "
                "e-processes; 1,200 calls were saved"
            ),
        ),
        (
            {"stopped": True},
            (
                "run early stopped early: its comparisons were decided while it ran, by "
                "e-processes; 0 calls were saved"
            ),
        ),
    ],
)
def test_a_reader_is_told_how_it_ended(facts: dict[str, Any], note: str) -> None:
    source = early_run(told(), **facts)

    assert note_of(source) == note
    assert stopped(source) is bool(facts)
