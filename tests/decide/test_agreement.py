"""Kappa and alpha: published examples, statsmodels, coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from evalkit.decide.agreement import Weights, kappa, krippendorff

NAN = math.nan
KRIPPENDORFF_2011 = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
    [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
]


@pytest.mark.parametrize("weights", [None, "linear", "quadratic"])
def test_kappa_and_its_standard_error_are_those_of_statsmodels(weights: Weights | None) -> None:
    generator = np.random.default_rng(1)
    a = generator.integers(0, 5, 200)
    b = np.where(generator.random(200) < 0.6, a, generator.integers(0, 5, 200))

    seen = kappa(a, b, weights=weights)

    table = np.zeros((5, 5))
    np.add.at(table, (a, b), 1)
    expected = cohens_kappa(table, wt=weights)
    assert seen.value == pytest.approx(expected.kappa, abs=1e-9)
    assert seen.se == pytest.approx(expected.std_kappa, abs=1e-9)


@pytest.mark.parametrize(
    ("scale", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_krippendorffs_own_example_gives_his_alphas(scale: str, alpha: float) -> None:
    seen = krippendorff(KRIPPENDORFF_2011, scale=scale)  # type: ignore[arg-type]

    assert seen.value == pytest.approx(alpha, abs=5e-4)
    assert seen.n == 11
    assert seen.ci is not None
    assert seen.ci[0] < alpha < seen.ci[1]


def test_perfect_agreement_is_not_certain() -> None:
    a = [0, 1] * 20

    two, many = kappa(a, a), krippendorff([a, a])

    assert (two.value, many.value) == (pytest.approx(1.0), pytest.approx(1.0))
    for seen in (two, many):
        assert seen.ci is not None
        assert 0.8 < seen.ci[0] < 1.0


@pytest.mark.parametrize(("n", "floor"), [(30, 0.86), (100, 0.87)])
def test_kappas_interval_covers_at_small_n(n: int, floor: float) -> None:
    generator = np.random.default_rng(2)
    runs, covered = 600, 0
    for _ in range(runs):
        a = generator.random(n) < 0.6
        b = np.where(generator.random(n) < 0.7, a, generator.random(n) < 0.6)
        seen = kappa(a, b)
        covered += seen.ci is None or seen.ci[0] <= 0.7 <= seen.ci[1]

    # The rater who copies seven times in ten has kappa 0.7; standard error 0.0122.
    assert covered / runs > floor


def test_cases_one_side_did_not_rate_are_left_out() -> None:
    seen = kappa([0, 1, 1, NAN, 0], [0, 1, 0, 1, NAN])

    assert seen.n == 3


@pytest.mark.parametrize("ratings", [[[1, 1, 1], [1, 1, 1]], [[1, NAN], [NAN, 2]], [[1], [1]]])
def test_raters_with_one_habit_or_no_common_case_show_no_agreement(
    ratings: list[list[float]],
) -> None:
    seen = krippendorff(ratings)

    assert seen.value is None
    assert seen.reason
    assert kappa(*ratings).value is None


def test_agreement_by_chance_is_near_zero() -> None:
    generator = np.random.default_rng(3)
    a, b = generator.integers(0, 3, (2, 2_000))

    assert kappa(a, b).value == pytest.approx(0, abs=0.06)
    assert krippendorff([a, b]).value == pytest.approx(0, abs=0.06)


def test_alpha_repeats_for_a_seed() -> None:
    assert krippendorff(KRIPPENDORFF_2011, seed=4) == krippendorff(KRIPPENDORFF_2011, seed=4)
