"""Rank correlations: scipy's values, and intervals that cover."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from evalkit.decide.correlation import Correlation, kendall, spearman


@pytest.mark.parametrize("ties", [True, False])
def test_values_are_those_of_scipy(ties: bool) -> None:
    generator = np.random.default_rng(1)
    a = generator.integers(0, 5, 200).astype(float) if ties else generator.random(200)
    b = a + generator.random(200) * 4

    assert spearman(a, b).value == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9)
    assert kendall(a, b).value == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-9)


@pytest.mark.parametrize("name", ["qags_cnndm", "sfhot"])
def test_a_metric_beside_human_ratings_gives_scipys_values(
    name: str, shared_data: Callable[[str], Path]
) -> None:
    text = shared_data(f"metric_vs_human/{name}.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.strip().split("\n")]
    for aspect in rows[0]["metric"]:
        metric = [row["metric"][aspect] for row in rows]
        human = [row["human"][aspect] for row in rows]

        rho, tau = spearman(metric, human), kendall(metric, human)

        assert rho.value == pytest.approx(stats.spearmanr(metric, human).statistic, abs=1e-6)
        assert tau.value == pytest.approx(stats.kendalltau(metric, human).statistic, abs=1e-6)
        assert rho.ci is not None
        assert rho.ci[0] < rho.value < rho.ci[1]


@pytest.mark.parametrize("measure", [spearman, kendall])
def test_the_interval_covers(measure: Callable[..., object]) -> None:
    generator = np.random.default_rng(2)
    r = 0.5
    truth = 6 / math.pi * math.asin(r / 2) if measure is spearman else 2 / math.pi * math.asin(r)
    covered, runs = 0, 500
    for _ in range(runs):
        x = generator.normal(size=60)
        y = r * x + math.sqrt(1 - r * r) * generator.normal(size=60)
        seen = measure(x, y)
        covered += seen.ci[0] <= truth <= seen.ci[1]  # type: ignore[attr-defined]

    # 90 % intervals; the standard error of the share is 0.013.
    assert covered / runs > 0.86


def test_what_does_not_vary_has_no_correlation() -> None:
    assert spearman([1, 1, 1], [1, 2, 3]).value is None
    assert kendall([1, 2, 3], [2, 2, 2]).value is None


def test_missing_numbers_are_left_out_and_few_have_no_interval() -> None:
    seen = spearman([1, 2, 3, math.nan], [1, 2, 3, 4])

    assert (seen.value, seen.ci, seen.n) == (pytest.approx(1.0), None, 3)


# --- intervals beside their formulas ----------------------------------------------------

A, B = [1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 1.0, 4.0, 3.0, 5.0]


def around(value: float, se: float, z: float) -> tuple[float, float]:
    return math.tanh(math.atanh(value) - z * se), math.tanh(math.atanh(value) + z * se)


def test_spearmans_interval_is_that_of_bonett_and_wright() -> None:
    seen = spearman(A, B)

    assert seen.value == pytest.approx(0.8)
    assert seen.ci == pytest.approx(around(0.8, math.sqrt((1 + 0.8**2 / 2) / 2), 1.6448536))
    wider = spearman(A, B, alpha=0.01)
    assert wider.ci == pytest.approx(around(0.8, math.sqrt((1 + 0.8**2 / 2) / 2), 2.3263479))


def test_kendalls_interval_is_that_of_fieller_hartley_and_pearson() -> None:
    seen = kendall(A, B)

    assert seen.value == pytest.approx(0.6)
    assert seen.ci == pytest.approx(around(0.6, math.sqrt(0.437), 1.6448536))
    six = kendall([*A, 6.0], [*B, 6.0])
    assert six.value is not None
    assert six.ci == pytest.approx(around(six.value, math.sqrt(0.437 / 2), 1.6448536))


@pytest.mark.parametrize("measure", [spearman, kendall])
@pytest.mark.parametrize("way", [1, -1])
def test_ranks_that_agree_in_all_have_an_interval_within_the_bounds(
    measure: Callable[..., Correlation], way: int
) -> None:
    seen = measure(A, [way * one for one in A])

    assert seen.value == pytest.approx(way)
    assert seen.ci is not None
    assert -1 <= seen.ci[0] <= seen.ci[1] <= 1
    assert seen.ci[0 if way > 0 else 1] == pytest.approx(way, abs=1e-9)


@pytest.mark.parametrize("measure", [spearman, kendall])
def test_five_cases_have_an_interval_and_four_have_none(
    measure: Callable[..., Correlation],
) -> None:
    assert measure(A, B).ci is not None
    four = measure(A[:4], B[:4])
    assert (four.ci, four.n) == (None, 4)
    assert four.value is not None


@pytest.mark.parametrize("measure", [spearman, kendall])
def test_two_cases_have_a_value_and_one_has_none(measure: Callable[..., Correlation]) -> None:
    assert measure([1, 2], [2, 1]) == Correlation(value=pytest.approx(-1.0), ci=None, n=2)
    assert measure([1], [2]) == Correlation(value=None, ci=None, n=1)
    assert measure([], []) == Correlation(value=None, ci=None, n=0)


@pytest.mark.parametrize("measure", [spearman, kendall])
def test_either_that_does_not_vary_leaves_nothing_to_say(
    measure: Callable[..., Correlation],
) -> None:
    flat = [0.1 + 0.2, 0.3, 0.3, 0.3, 0.3]

    assert measure(flat, A) == Correlation(value=None, ci=None, n=5)
    assert measure(A, flat) == Correlation(value=None, ci=None, n=5)


@pytest.mark.parametrize("measure", [spearman, kendall])
def test_a_case_counts_where_both_are_known(measure: Callable[..., Correlation]) -> None:
    a, b = [*A, math.nan, 9.0, math.inf], [*B, 1.0, math.nan, 2.0]

    assert measure(a, b) == measure(A, B)


@pytest.mark.parametrize(("a", "b"), [([1, 2], [1, 2, 3]), ([[1, 2]], [[1, 2]])])
def test_series_that_are_not_of_the_same_cases_are_refused(a: list, b: list) -> None:
    for measure in (spearman, kendall):
        with pytest.raises(ValueError, match="one number per case"):
            measure(a, b)
