"""Planning: the drop one could see, the cases and trials it takes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats
from statsmodels.stats.power import TTestPower

from evalkit.decide.power import Plan, outlook
from evalkit.decide.stats import compare


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
