"""Kappa, alpha and AC1: published examples, other packages' values, coverage."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import krippendorff as peer
import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa

from evalkit.decide.agreement import Weights, ac1, kappa, krippendorff

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


# --- Gwet's AC1 -----------------------------------------------------------------------


def test_ac1_of_two_raters_is_the_closed_form() -> None:
    a = [1] * 118 + [0] * 2 + [1] * 5
    b = [1] * 118 + [0] * 2 + [0] * 5

    seen = ac1([a, b])

    observed, habit = 120 / 125, (123 + 118) / 250
    chance = 2 * habit * (1 - habit)
    assert seen.value == pytest.approx((observed - chance) / (1 - chance), abs=1e-12)
    assert seen.observed == pytest.approx(observed)


def test_ac1_stays_where_one_category_is_rare_and_kappa_falls() -> None:
    a = [1] * 95 + [0] * 5
    b = [1] * 90 + [0] * 5 + [1] * 5

    seen, other = ac1([a, b]), kappa(a, b)

    assert seen.value == pytest.approx(0.8895, abs=1e-4)
    assert other.value == pytest.approx(-0.0526, abs=1e-4)


def test_ac1_of_many_raters_with_gaps_is_gwets_formula() -> None:
    table = np.array(KRIPPENDORFF_2011)
    observed, shares = [], []
    for column in table.T:
        said = column[np.isfinite(column)]
        shares.append([np.mean(said == value) for value in range(1, 6)])
        if len(said) > 1:
            pairs = list(combinations(said, 2))
            observed.append(np.mean([one == other for one, other in pairs]))
    habits = np.mean(shares, axis=0)
    chance = (habits * (1 - habits)).sum() / 4

    seen = ac1(table)

    # 0.77544 with standard error 0.14295 is what the R package irrCAC gives for this table.
    assert seen.value == pytest.approx((np.mean(observed) - chance) / (1 - chance), abs=1e-9)
    assert seen.value == pytest.approx(0.77544, abs=1e-5)
    assert seen.se == pytest.approx(0.14295, abs=2e-4)


@pytest.mark.parametrize("n", [40, 150])
def test_the_interval_of_ac1_covers(n: int) -> None:
    generator = np.random.default_rng(6)
    p, copy, runs, covered = 0.8, 0.6, 600, 0
    same = copy + (1 - copy) * (p * p + (1 - p) ** 2)
    chance = 2 * p * (1 - p)
    truth = (same - chance) / (1 - chance)
    for _ in range(runs):
        a = generator.random(n) < p
        b = np.where(generator.random(n) < copy, a, generator.random(n) < p)
        seen = ac1([a, b])
        covered += seen.ci is not None and seen.ci[0] <= truth <= seen.ci[1]

    # 90 % intervals; the standard error of the share is 0.0122.
    assert covered / runs > 0.86


def test_perfect_agreement_has_an_interval_below_one() -> None:
    seen = ac1([[0, 1] * 20, [0, 1] * 20])

    assert seen.value == pytest.approx(1.0)
    assert seen.ci is not None
    assert 0.8 < seen.ci[0] < 1.0


# --- real raters ------------------------------------------------------------------------


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").strip().split("\n")]


def test_people_and_a_check_agree_as_sklearn_and_krippendorff_say(
    shared_data: Callable[[str], Path],
) -> None:
    rows = read_jsonl(shared_data("qa_human_labels/tq.jsonl"))
    for model in sorted({row["model"] for row in rows}):
        human = [row["human"] for row in rows if row["model"] == model]
        proxy = [row["proxy"] for row in rows if row["model"] == model]

        seen = kappa(human, proxy).value

        assert seen == pytest.approx(cohen_kappa_score(human, proxy), abs=1e-6)
        alpha = peer.alpha([human, proxy], level_of_measurement="nominal")
        assert krippendorff([human, proxy]).value == pytest.approx(alpha, abs=1e-6)


def test_one_judge_read_three_times_agrees_with_itself_as_others_compute(
    shared_data: Callable[[str], Path],
) -> None:
    with shared_data("judge_repeats/mt_bench_eval_3runs.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    runs = [[int(row[f"run{k}"]) for row in rows] for k in (1, 2, 3)]

    for scale in ("nominal", "ordinal", "interval"):
        alpha = peer.alpha(runs, level_of_measurement=scale)
        assert krippendorff(runs, scale=scale).value == pytest.approx(alpha, abs=1e-6)  # type: ignore[arg-type]
    for weights in (None, "linear", "quadratic"):
        expected = cohen_kappa_score(runs[0], runs[1], weights=weights)
        assert kappa(runs[0], runs[1], weights=weights).value == pytest.approx(expected, abs=1e-6)  # type: ignore[arg-type]


def test_crowd_workers_with_gaps_agree_as_krippendorff_computes(
    shared_data: Callable[[str], Path],
) -> None:
    with shared_data("pairwise_judges/llmfao.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    workers = [w for w, _ in Counter(row["worker"] for row in rows).most_common(40)]
    worth = {"left": 0.0, "tie": 1.0, "right": 2.0}
    items = sorted({(r["id"], r["left"], r["right"]) for r in rows})
    table = np.full((len(workers), len(items)), NAN)
    at = {item: n for n, item in enumerate(items)}
    for row in rows:
        if row["worker"] in workers:
            place = at[row["id"], row["left"], row["right"]]
            table[workers.index(row["worker"]), place] = worth[row["winner"]]

    for scale in ("nominal", "ordinal"):
        alpha = peer.alpha(table, level_of_measurement=scale)
        assert krippendorff(table, scale=scale).value == pytest.approx(alpha, abs=1e-6)  # type: ignore[arg-type]


# --- intervals ------------------------------------------------------------------------


def zero_events(n: int) -> float:
    """Share of disagreement that n cases without any leave possible at 5 %."""
    return float(1 - 0.05 ** (1 / n))


def test_kappas_interval_is_symmetric_in_arctanh() -> None:
    a, b = [0, 0, 1, 1, 0, 1, 1, 0, 1, 0] * 3, [0, 1, 1, 1, 0, 1, 0, 0, 1, 0] * 3

    seen = kappa(a, b)

    assert seen.value == pytest.approx(0.6)
    assert seen.se is not None
    assert seen.ci is not None
    reach = scipy_stats.t.ppf(0.95, 29) * seen.se / (1 - 0.6**2)
    assert [math.atanh(end) for end in seen.ci] == pytest.approx(
        [math.atanh(0.6) - reach, math.atanh(0.6) + reach]
    )


def test_perfect_agreement_could_be_as_low_as_zero_events_allow() -> None:
    """Three of four cases get one value: they agree by chance in 5/8 of them."""
    a = [1, 1, 1, 0] * 5

    two, gwet, many = kappa(a, a), ac1([a, a]), krippendorff([a, a])

    assert two.ci == pytest.approx((1 - zero_events(20) / (1 - 5 / 8), 1.0))
    assert gwet.ci == pytest.approx((1 - zero_events(20) / (1 - 3 / 8), 1.0))
    assert many.ci == pytest.approx((1 - zero_events(20) / (1 - many.expected), 1.0))  # type: ignore[operator]


@pytest.mark.parametrize("weights", [None, "quadratic"])
def test_one_rater_with_one_habit_leaves_an_interval_not_a_point(weights: Weights | None) -> None:
    """People pass all of 40 answers, the judge three of five: what they would fail is not known."""
    seen = kappa([1.0] * 40, [0.0, 1.0, 1.0, 0.0, 1.0] * 8, weights=weights)

    assert seen.value == pytest.approx(0.0)
    reach = zero_events(40) / (1 - 3 / 5)
    assert seen.ci == pytest.approx((-reach, reach))


def test_wholly_opposed_raters_end_at_the_lowest_agreement() -> None:
    seen = kappa([0, 1] * 10, [1, 0] * 10)

    assert seen.value == pytest.approx(-1.0)
    assert seen.ci is not None
    assert seen.ci[0] == -1.0


@pytest.mark.parametrize("cases", [1, 2])
def test_two_cases_that_two_rated_are_enough_to_agree(cases: int) -> None:
    both = [0, 1][:cases]
    a, b = [*both, 1, 0], [*both, NAN, NAN]

    found = (kappa(a, b), ac1([a, b]), krippendorff([a, b]))

    assert [one.n for one in found] == [cases] * 3
    assert [one.value is not None for one in found] == [cases == 2] * 3
