"""Planning: the drop one could see, the cases and trials it takes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.power import TTestPower

from evalkit.decide.power import Plan, quantile, reach
from evalkit.decide.stats import compare


class Outlook(NamedTuple):
    mde: float | None
    cases_needed: int | None
    trials_needed: int | None


def outlook(*, n: int, trials: int, between: float, within: float, comparisons: int = 1) -> Outlook:
    """What n cases with `trials` a side will show at the usual 5 % and 5 points."""
    variance = between + within / trials
    se = math.sqrt(variance / n) if variance > 0 else None
    plan = Plan(se=se, df=n - 1.0, n=n, n_units=n)
    return Outlook(
        plan.mde(0.05 / comparisons),
        plan.cases_needed(max_drop=0.05, alpha=0.05),
        plan.trials_needed(max_drop=0.05, alpha=0.05, within=within, trials=trials),
    )


def test_mde_is_near_the_noncentral_t_of_statsmodels() -> None:
    plan = outlook(n=120, trials=3, between=0.01, within=0.2)

    sd = math.sqrt(0.01 + 0.2 / 3)
    effect = TTestPower().solve_power(nobs=120, alpha=0.05, power=0.8, alternative="larger")
    assert plan.mde == pytest.approx(effect * sd, rel=0.01)


def test_cases_needed_are_enough_and_one_fewer_is_not() -> None:
    plan = outlook(n=100, trials=1, between=0.02, within=0.2)

    assert plan.cases_needed is not None
    at = [outlook(n=plan.cases_needed + k, trials=1, between=0.02, within=0.2) for k in (0, -1)]
    assert at[0].mde is not None
    assert at[1].mde is not None
    assert at[0].mde <= 0.05 < at[1].mde


def test_trials_needed_are_enough_and_one_fewer_is_not() -> None:
    plan = outlook(n=400, trials=1, between=0.02, within=0.6)

    assert plan.trials_needed is not None
    at = [outlook(n=400, trials=plan.trials_needed + k, between=0.02, within=0.6) for k in (0, -1)]
    assert at[0].mde is not None
    assert at[1].mde is not None
    assert at[0].mde <= 0.05 < at[1].mde


def test_no_number_of_trials_helps_where_cases_differ_too_much() -> None:
    plan = outlook(n=50, trials=1, between=0.2, within=0.1)

    assert plan.trials_needed is None
    assert plan.cases_needed is not None


def test_a_family_sees_only_larger_drops() -> None:
    alone = outlook(n=200, trials=3, between=0.01, within=0.2)
    among_many = outlook(n=200, trials=3, between=0.01, within=0.2, comparisons=60)

    assert alone.mde is not None
    assert among_many.mde is not None
    assert among_many.mde > 1.3 * alone.mde
    assert among_many.cases_needed == alone.cases_needed


def test_too_few_cases_see_not_even_a_collapse() -> None:
    assert Plan(se=0.1, df=2.0, n=3, n_units=3).mde(0.05) is None


def test_compare_plans_with_its_own_spread() -> None:
    d = np.random.default_rng(2).integers(-3, 4, 300) / 6

    seen = compare(d, within_var=0.1, trials=3)

    planned = outlook(n=300, trials=3, between=float(d.var(ddof=1)) - 0.1 / 3, within=0.1)
    assert seen.mde == pytest.approx(planned.mde)
    assert (seen.cases_needed, seen.trials_needed) == (planned.cases_needed, planned.trials_needed)


def test_a_drop_of_the_mde_is_found_about_four_times_in_five() -> None:
    generator = np.random.default_rng(3)
    noise = generator.normal(0, 0.15, (400, 250))
    mde = outlook(n=250, trials=1, between=0.0, within=0.15**2).mde

    assert mde is not None
    found = [compare((row - mde).clip(-1, 1)).p_value or 1.0 for row in noise]

    # 400 draws of a chance of 0.8: standard error 0.02, three of them allowed.
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.8, abs=0.06)


def test_untouched_cases_needed_come_from_the_zero_event_bound() -> None:
    seen = compare([0.0] * 40)

    bound = 1 - 0.05 ** (1 / (seen.cases_needed or 1))
    assert bound <= 0.05 < 1 - 0.05 ** (1 / ((seen.cases_needed or 2) - 1))
    assert scipy_stats.binom.pmf(0, seen.cases_needed, 0.05) <= 0.05


# --- at the limits ----------------------------------------------------------------------


def plan(**changes: Any) -> Plan:
    values: dict[str, Any] = {"se": None, "df": math.inf, "n": 10, "n_units": 10}
    return Plan(**(values | changes))


@pytest.mark.parametrize(("paired_counts", "needed"), [(True, 4), (False, 5)])
def test_a_drop_has_to_turn_as_many_units_as_the_test_needs_at_all(
    paired_counts: bool, needed: int
) -> None:
    """Half to the power of units that all fell is below 5 % with five, a mid-p with four."""
    drop = plan(paired_counts=paired_counts).mde(0.05)
    just_enough = plan(paired_counts=paired_counts, n_units=needed).mde(0.05)

    assert drop is not None
    assert scipy_stats.binom.sf(needed - 1, 10, drop) == pytest.approx(0.8)
    assert just_enough == pytest.approx(0.8 ** (1 / needed))
    assert plan(paired_counts=paired_counts, n_units=needed - 1).mde(0.05) is None


def test_the_drop_found_is_that_of_the_spread_where_this_is_larger() -> None:
    z = scipy_stats.norm.ppf(0.95) + scipy_stats.norm.ppf(0.8)
    t = scipy_stats.t.ppf(0.95, 9) + scipy_stats.t.ppf(0.8, 9)

    assert plan(se=0.3).mde(0.05) == pytest.approx(0.3 * z)
    assert plan(se=0.3, df=9.0).mde(0.05) == pytest.approx(0.3 * t)
    assert plan(se=0.001, paired_counts=True).mde(0.05) == plan(paired_counts=True).mde(0.05)
    assert plan(se=0.001).mde(0.05) == pytest.approx(0.001 * z)
    assert plan(se=0.5).mde(0.05) is None


@pytest.mark.parametrize("max_drop", [0.05, 0.3, 0.9])
def test_cases_without_an_event_exclude_a_drop_that_would_have_shown(max_drop: float) -> None:
    cases = plan().cases_needed(max_drop=max_drop, alpha=0.05)

    assert cases is not None
    assert (1 - max_drop) ** cases < 0.05 <= (1 - max_drop) ** (cases - 1)
    clustered = plan(n=100).cases_needed(max_drop=max_drop, alpha=0.05)
    assert clustered == math.floor(10 * math.log(0.05) / math.log(1 - max_drop)) + 1


def test_a_drop_of_everything_needs_a_case_and_none_at_all_no_number() -> None:
    assert plan().cases_needed(max_drop=1.0, alpha=0.05) == 1
    assert plan().cases_needed(max_drop=0.0, alpha=0.05) is None
    assert plan(se=0.1).trials_needed(max_drop=0.0, alpha=0.05, within=0.1, trials=1) is None


def test_two_cases_are_the_fewest_that_have_a_spread() -> None:
    assert plan(se=1e-9).cases_needed(max_drop=0.5, alpha=0.05) == 2


def test_more_cases_than_anybody_has_are_no_number() -> None:
    assert plan(se=0.3).cases_needed(max_drop=1e-6, alpha=0.05) is None


def test_as_many_trials_as_fill_the_room_exactly_are_enough() -> None:
    room = (0.1 / reach(0.05, math.inf)) ** 2 * 10

    def needed(within: float) -> int | None:
        return plan(se=1e-6).trials_needed(max_drop=0.1, alpha=0.05, within=within, trials=1)

    assert [needed(k * room) for k in (0.5, 1, 7, 7.01)] == [1, 1, 7, 8]


def test_spread_between_cases_is_nothing_that_trials_take_away() -> None:
    few = plan(se=0.05).trials_needed(max_drop=0.1, alpha=0.05, within=0.02, trials=2)
    alone = plan(se=0.2).trials_needed(max_drop=0.1, alpha=0.05, within=0.02, trials=2)

    between = 0.05**2 * 10 - 0.02 / 2
    room = (0.1 / reach(0.05, math.inf)) ** 2 * 10 - between
    assert few == math.ceil(0.02 / room)
    assert alone is None


def test_quantiles_are_students_or_the_normal_ones() -> None:
    assert quantile(0.95, math.inf) == pytest.approx(scipy_stats.norm.ppf(0.95))
    assert quantile(0.95, 7.0) == pytest.approx(scipy_stats.t.ppf(0.95, 7))


def test_few_of_many_cases_are_counted_with_one_degree_of_freedom() -> None:
    cases = plan(se=0.001, n=1_000, df=1.0).cases_needed(max_drop=0.05, alpha=0.05)

    assert cases == math.ceil(1_000 * (reach(0.05, 1.0) * 0.001 / 0.05) ** 2)


def test_more_trials_than_anybody_runs_are_no_number() -> None:
    found = plan(se=1e-6).trials_needed(max_drop=1e-4, alpha=0.05, within=0.2, trials=1)

    assert found is None


def test_without_any_spread_the_plan_is_that_of_zero_events() -> None:
    found = outlook(n=10, trials=1, between=0.0, within=0.0)

    assert found.mde == plan(df=9.0).mde(0.05)
    assert found.cases_needed == 59
    assert found.trials_needed is None
