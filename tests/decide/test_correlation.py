"""Rank correlations: scipy's values, and intervals that cover."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from evalkit.decide.correlation import kendall, spearman


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
