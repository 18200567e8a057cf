"""What a run will be able to show: from earlier runs, and without any."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from evalkit.decide.history import Spread
from evalkit.decide.planning import Design, fewest, prospect
from evalkit.decide.power import Plan


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
    assert (found.between, found.within) == (0.5, None)
    assert found.source == (
        "assumed, as no two earlier runs can be compared: two pairs that agree no more "
        "than by chance (variance 0.5), none of it trial noise"
    )
    assert found.trials_needed is None


def test_it_agrees_with_the_plan_of_the_same_variances() -> None:
    for trials in (1, 3):
        se = math.sqrt((0.04 + 0.2 / trials) / 200)

        found = prospect(
            "label", spread(0.04, 0.2), design(trials=trials, comparisons=3), drop=0.05
        )

        expected = Plan(se=se, df=199.0, n=200, n_units=200).mde(0.05 / 3)
        assert found.mde == pytest.approx(expected)


def test_the_cases_needed_see_the_drop_and_one_less_does_not() -> None:
    needed = prospect("label", spread(0.05, 0.1), design(), drop=0.04).cases_needed

    assert needed is not None
    for n, sees in ((needed, True), (needed - 1, False)):
        mde = prospect("label", spread(0.05, 0.1), design(n=n, n_clusters=n), drop=0.04).mde
        assert mde is not None
        assert (mde <= 0.04 + 1e-12) is sees


def test_as_many_cases_as_are_needed_are_planned_well() -> None:
    needed = prospect("label", spread(0.05, 0.1), design(), drop=0.04).cases_needed
    assert needed is not None

    enough = prospect("label", spread(0.05, 0.1), design(n=needed, n_clusters=needed), drop=0.04)

    assert enough.cases_needed == needed
    assert enough.soonest == f"as planned: {needed} cases x 1 trials see it"


def test_trials_help_only_where_trials_differ() -> None:
    noisy = prospect("label", spread(0.01, 0.3), design(), drop=0.05)
    steady = prospect("label", spread(0.31, 0.0), design(), drop=0.05)

    assert noisy.trials_needed is not None
    assert noisy.soonest.startswith(f"--trials {noisy.trials_needed}:")
    assert steady.trials_needed is None
    assert "more cases" in steady.soonest


def test_trials_are_counted_up_to_a_hundred() -> None:
    seen = prospect("label", spread(0.0, 20.0), design(trials=100), drop=0.05).mde
    assert seen is not None

    hundred = prospect("label", spread(0.0, 20.0), design(), drop=seen)
    more = prospect("label", spread(0.0, 20.2), design(), drop=seen)

    assert hundred.trials_needed == 100
    assert hundred.soonest == "--trials 100: 20000 calls a side, and no new case to write"
    assert more.trials_needed is None


def test_a_drop_that_two_cases_and_one_trial_show_asks_for_no_more() -> None:
    found = prospect("label", spread(0.0001, 0.0001), design(alpha=0.5), drop=0.5)

    assert (found.cases_needed, found.trials_needed) == (2, 1)
    assert found.soonest == "as planned: 200 cases x 1 trials see it"


def test_where_nobody_knows_the_noise_of_trials_none_is_counted_on() -> None:
    unknown = prospect("label", spread(0.1, None), design(trials=3), drop=0.5)
    silent = prospect("label", spread(0.1, 0.0), design(trials=3), drop=0.5)

    assert (unknown.trials_needed, silent.trials_needed) == (None, 1)
    assert unknown.mde == silent.mde
    assert (unknown.within, silent.within) == (None, 0.0)


def test_what_is_measured_says_from_how_much() -> None:
    one = spread(0.1, 0.1)
    several = replace(one, comparisons=3, change=False, runs=("a", "b"))

    assert not prospect("label", one, design(), drop=0.05).assumed
    assert prospect("label", one, design(), drop=0.05).source == (
        "1 comparison of different pairs, 200 cases in 1 run"
    )
    assert prospect("label", several, design(), drop=0.05).source == (
        "3 comparisons of one pair with itself; a real change moves more cases than noise does, "
        "200 cases in 2 runs"
    )


def test_more_cases_are_told_with_the_calls_they_take() -> None:
    found = prospect("label", spread(0.31, 0.0), design(trials=2), drop=0.05)

    assert found.cases_needed is not None
    assert found.soonest == (
        f"{found.cases_needed - 200} more cases, {found.cases_needed} in all: "
        f"{found.cases_needed * 2} calls a side"
    )
    hopeless = prospect("label", spread(0.31, None), design(), drop=1e-6)
    assert (hopeless.cases_needed, hopeless.trials_needed) == (None, None)
    assert hopeless.soonest.startswith("nothing: no number of cases or trials")


@pytest.mark.parametrize(
    ("trials", "binary", "counts"), [(1, True, True), (1, False, False), (3, True, False)]
)
def test_counts_of_pairs_are_planned_for_one_trial_of_pass_or_fail(
    trials: int, binary: bool, counts: bool
) -> None:
    found = prospect(
        "label",
        spread(0.02, 0.03, binary=binary),
        design(n=50, n_clusters=20, trials=trials),
        drop=0.05,
    )

    plan = Plan(
        se=((0.02 + 0.03 / trials) / 50) ** 0.5, df=19.0, n=50, n_units=20, paired_counts=counts
    )
    other = replace(plan, paired_counts=not counts)
    assert found.mde == plan.mde(0.05)
    assert found.mde != other.mde(0.05)


def test_a_plan_is_of_two_clusters_at_least() -> None:
    few = design(n=200, n_clusters=1, alpha=0.5)
    found = prospect("label", spread(0.0001, None), few, drop=0.5)

    plan = Plan(se=(0.0001 / 200) ** 0.5, df=1.0, n=200, n_units=2, paired_counts=False)
    assert found.mde == plan.mde(0.5)
    assert found.mde is not None
    assert found.mde != replace(plan, df=2.0).mde(0.5)


def test_without_history_the_metric_is_taken_for_pass_or_fail() -> None:
    found = prospect("label", None, design(n=100, n_clusters=100), drop=0.05)

    plan = Plan(se=0.005**0.5, df=99.0, n=100, n_units=100, paired_counts=True)
    assert found.mde == plan.mde(0.05)


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
    graded = prospect("label", spread(0.0, 0.0), design(), drop=0.05)
    assert graded.mde is not None
    assert graded.mde > 0


@pytest.mark.parametrize("threshold", [2, 3, 7, 64, 65, 1000])
def test_fewest_finds_the_threshold(threshold: int) -> None:
    assert fewest(lambda n: n >= threshold, start=2, limit=1000) == threshold


def test_fewest_gives_up_at_the_limit() -> None:
    assert fewest(lambda n: n >= 1001, start=2, limit=1000) is None
    assert fewest(lambda n: n >= 2, start=2, limit=2) == 2
    assert fewest(lambda n: n >= 3, start=2, limit=2) is None
    assert fewest(lambda n: True, start=7, limit=9) == 7


def test_fewest_asks_for_little_more_than_it_has_to() -> None:
    asked: list[int] = []

    assert fewest(lambda n: asked.append(n) or n >= 700, start=1, limit=10**9) == 700
    assert max(asked) <= 1024
    assert len(asked) <= 21
