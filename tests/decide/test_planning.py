"""What a run will be able to show: from earlier runs, and without any."""

from __future__ import annotations

import pytest

from evalkit.decide.history import Spread
from evalkit.decide.planning import WORST_VARIANCE, Design, fewest, prospect
from evalkit.decide.power import outlook


def design(**changes: object) -> Design:
    given: dict[str, object] = {
        "n": 200, "n_clusters": 200, "trials": 1, "alpha": 0.05, "comparisons": 1, **changes,
    }  # fmt: skip
    return Design(**given)  # type: ignore[arg-type]


def spread(between: float, within: float | None, *, binary: bool = False) -> Spread:
    return Spread(
        between=between, within=within, binary=binary, cases=200, comparisons=1,
        change=True, runs=("run-1",),
    )  # fmt: skip


def test_without_history_the_worst_case_is_assumed_and_said() -> None:
    found = prospect("label", None, design(), drop=0.05)

    assert found.assumed
    assert found.between == WORST_VARIANCE
    assert "assumed, as no two earlier runs can be compared" in found.source
    assert found.trials_needed is None


def test_it_agrees_with_the_outlook_from_the_same_variances() -> None:
    for trials in (1, 3):
        expected = outlook(n=200, trials=trials, between=0.04, within=0.2, comparisons=3)

        found = prospect(
            "label", spread(0.04, 0.2), design(trials=trials, comparisons=3), drop=0.05
        )

        assert found.mde == pytest.approx(expected.mde)


def test_the_cases_needed_see_the_drop_and_one_less_does_not() -> None:
    needed = prospect("label", spread(0.05, 0.1), design(), drop=0.04).cases_needed

    assert needed is not None
    for n, sees in ((needed, True), (needed - 1, False)):
        mde = prospect("label", spread(0.05, 0.1), design(n=n, n_clusters=n), drop=0.04).mde
        assert mde is not None
        assert (mde <= 0.04 + 1e-12) is sees


def test_trials_help_only_where_trials_differ() -> None:
    noisy = prospect("label", spread(0.01, 0.3), design(), drop=0.05)
    steady = prospect("label", spread(0.31, 0.0), design(), drop=0.05)

    assert noisy.trials_needed is not None
    assert noisy.soonest.startswith(f"--trials {noisy.trials_needed}:")
    assert steady.trials_needed is None
    assert "more cases" in steady.soonest


def test_more_metrics_that_gate_see_less() -> None:
    one = prospect("label", spread(0.1, None), design(), drop=0.05)
    twelve = prospect("label", spread(0.1, None), design(comparisons=12), drop=0.05)

    assert one.mde is not None
    assert twelve.mde is not None
    assert twelve.mde > one.mde


def test_a_few_clusters_see_less_than_as_many_cases() -> None:
    alone = prospect("label", spread(0.1, None), design(), drop=0.05)
    clustered = prospect("label", spread(0.1, None), design(n_clusters=8), drop=0.05)

    assert alone.mde is not None
    assert clustered.mde is not None
    assert clustered.mde > alone.mde


def test_too_few_cases_see_nothing() -> None:
    found = prospect("label", None, design(n=3, n_clusters=3), drop=0.05)

    assert found.mde is None


def test_a_metric_that_never_moved_still_needs_cases_that_turn() -> None:
    found = prospect("label", spread(0.0, 0.0, binary=True), design(), drop=0.05)

    assert found.mde is not None
    assert 0 < found.mde < 0.05
    assert found.soonest.startswith("as planned")


@pytest.mark.parametrize("threshold", [2, 3, 7, 64, 65, 1000])
def test_fewest_finds_the_threshold(threshold: int) -> None:
    assert fewest(lambda n: n >= threshold, start=2, limit=1000) == threshold


def test_fewest_gives_up_at_the_limit() -> None:
    assert fewest(lambda n: n >= 1001, start=2, limit=1000) is None
