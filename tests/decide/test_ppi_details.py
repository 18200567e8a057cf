"""Every number of people's labels and a judge together, against the formulas written out slowly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from evalkit.decide.ppi import Powered, powered_mean, units_labelled

Numbers = Sequence[float]


def mean(values: Numbers, weights: Numbers | None = None) -> float:
    each = weights or [1.0] * len(values)
    return math.fsum(w * v for w, v in zip(each, values, strict=True)) / math.fsum(each)


def product_sum(a: Numbers, b: Numbers) -> float:
    return math.fsum((x - mean(a)) * (y - mean(b)) for x, y in zip(a, b, strict=True))


def var(values: Numbers) -> float:
    return product_sum(values, values) / (len(values) - 1)


def clipped(value: float, low: float, high: float) -> float:
    return low if value < low else high if value > high else value


@dataclass
class Expected:
    """The estimate's own, those of the interval, lambda, and the variance without a judge."""

    estimate: float
    variance: float
    df: float
    centre: float
    wider: float
    weight: float
    alone: float


def uniform(judge: Numbers, human: Numbers, fixed: float | None) -> Expected:
    people = [y for y in human if not math.isnan(y)]
    judged = [f for f, y in zip(judge, human, strict=True) if not math.isnan(y)]
    rest = [f for f, y in zip(judge, human, strict=True) if math.isnan(y)]
    n, left = len(people), len(rest)
    df = n - (2 if fixed is None else 1)
    alone = var(people) / n
    if not rest:
        return Expected(mean(people), alone, df, mean(people), alone, 0.0, alone)
    if fixed is not None:
        weight = fixed
    elif var([*judged, *rest]) == 0:
        weight = 0.0
    else:
        shared = product_sum(people, judged) / n
        weight = clipped(shared / ((1 + n / left) * var([*judged, *rest])), 0.0, 1.0)
    others = weight**2 * (var(rest) / left if left > 1 else 0.0)

    def around(cells: Sequence[tuple[float, float]]) -> tuple[float, float]:
        """With half a case in each further cell of the table of people and judge."""
        y, f = [*people, *(a for a, _ in cells)], [*judged, *(b for _, b in cells)]
        each = [1.0] * n + [0.5] * len(cells)
        total = math.fsum(each)
        off = [b - mean(f, each) for b in f]
        left_over = [a - weight * b for a, b in zip(y, f, strict=True)]
        apart = [r - mean(left_over, each) for r in left_over]
        spread = math.fsum(w * o * o for w, o in zip(each, off, strict=True))
        noise = 0.0
        for w, o, r in zip(each, off, apart, strict=True):
            if fixed is not None:
                noise += r * r / (total - 1) / total
            else:
                pull = w * (1 / total + (o * o / spread if spread > 0 else 0.0))
                noise += w * r * r / (1 - min(pull, 0.5)) / total**2
        return mean(y, each) - weight * (mean(f, each) - mean(rest)), noise + others

    estimate, variance = around([])
    centre, wider = estimate, variance
    if fixed is None and {*people, *judge} <= {0.0, 1.0}:
        centre, wider = around([(0, 0), (0, 1), (1, 0), (1, 1)])
    return Expected(estimate, variance, df, centre, wider, weight, alone)


def weighted(
    judge: Numbers, human: Numbers, chance: Numbers, groups: Sequence[Any], fixed: float | None
) -> Expected:
    n = len(judge)
    there = [not math.isnan(y) for y in human]
    total = math.fsum(1 / p for p, known in zip(chance, there, strict=True) if known)
    pull = [n / p / total if known else 0.0 for p, known in zip(chance, there, strict=True)]
    people = [y if known else 0.0 for y, known in zip(human, there, strict=True)]
    mean_people, mean_judged = mean(people, pull), mean(judge, pull)
    names = sorted(set(groups))
    apart, bend, drawn = (dict.fromkeys(names, 0.0) for _ in range(3))
    for w, y, f, name in zip(pull, people, judge, groups, strict=True):
        apart[name] += w * (y - mean_people)
        bend[name] += w * (f - mean_judged) - (f - mean(judge))
        drawn[name] += w
    a, b = list(apart.values()), list(bend.values())
    units = len(names)
    effective = math.fsum(drawn.values()) ** 2 / math.fsum(d * d for d in drawn.values())
    tuned = 0 if fixed is not None else 1
    df = max(effective - 1 - tuned, 1.0)
    if fixed is not None:
        weight = fixed
    elif var(b) == 0:
        weight = 0.0
    else:
        weight = clipped(product_sum(a, b) / (units - 1) / var(b), 0.0, 1.0)
    left = [x - weight * y for x, y in zip(a, b, strict=True)]
    noise, alone = (var(t) * units / n**2 * effective / df for t in (left, a))
    estimate = mean_people - weight * (mean_judged - mean(judge))
    return Expected(estimate, noise, df, estimate, noise, weight, alone)


def assert_is(
    seen: Powered, expected: Expected, judge: Numbers, *, alpha: float, tolerance: float
) -> None:
    se = math.sqrt(expected.variance)
    t = scipy_stats.t(expected.df)
    reach = t.ppf(1 - alpha) * math.sqrt(expected.wider)
    ends = (max(expected.centre - reach, -1.0), min(expected.centre + reach, 1.0))
    shifted = (expected.estimate + tolerance) / se
    assert (seen.estimate, seen.se, seen.df) == pytest.approx((expected.estimate, se, expected.df))
    assert seen.ci == pytest.approx(ends)
    assert (seen.p_value, seen.p_improvement) == pytest.approx((t.cdf(shifted), t.sf(shifted)))
    assert seen.judge_weight == pytest.approx(expected.weight, abs=1e-12)
    assert seen.label_saving == pytest.approx(1 - expected.variance / expected.alone)
    assert seen.kept == pytest.approx(expected.weight**2 * var(judge) / len(judge))
    assert seen.reason is None


def world(seed: int, n: int, labelled: int, *, binary: bool) -> tuple[list[float], list[float]]:
    generator = np.random.default_rng(seed)
    truth = generator.choice([0.0, 1.0], n) if binary else generator.normal(-0.1, 0.3, n)
    if binary:
        judge = np.where(generator.random(n) < 0.25, 1 - truth, truth)
    else:
        judge = 0.8 * truth + 0.1 + generator.normal(0, 0.1, n)
    asked = generator.permutation(n) < labelled
    return judge.tolist(), np.where(asked, truth, math.nan).tolist()


# --- equal chances ----------------------------------------------------------------------


@pytest.mark.parametrize("fixed", [None, 0.0, 0.4, 1.0])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("n", "labelled"), [(60, 20), (41, 40), (42, 40), (300, 100)])
def test_with_equal_chances_every_number_is_that_of_the_formula(
    n: int, labelled: int, binary: bool, fixed: float | None
) -> None:
    judge, human = world(n, n, labelled, binary=binary)

    seen = powered_mean(judge, human, judge_weight=fixed, alpha=0.1, tolerance=0.05)

    assert_is(seen, uniform(judge, human, fixed), judge, alpha=0.1, tolerance=0.05)
    bias = [f - y for f, y in zip(judge, human, strict=True) if not math.isnan(y)]
    assert seen.judge_bias == pytest.approx(mean(bias))
    assert (seen.n, seen.n_labelled) == (n, labelled)


@pytest.mark.parametrize(
    ("change", "weight"), [(lambda y: -y, 0.0), (lambda y: 0.2, 0.0), (lambda y: 0.3 * y, 1.0)]
)
def test_a_judge_that_runs_against_people_or_never_moves_or_hardly_has_a_weight_in_0_to_1(
    change: Any, weight: float
) -> None:
    people, _ = world(5, 200, 200, binary=False)
    judge = [change(y) for y in people]
    human = [y if n % 2 else math.nan for n, y in enumerate(people)]

    seen = powered_mean(judge, human)

    assert seen.judge_weight == weight
    assert_is(seen, uniform(judge, human, None), judge, alpha=0.05, tolerance=0.0)


def test_one_case_that_decides_lambda_alone_counts_twice_and_no_more() -> None:
    judge = [1.0] + [0.0] * 99
    human = [0.9] + [0.1, -0.1] * 20 + [math.nan] * 59

    seen = powered_mean(judge, human)

    assert_is(seen, uniform(judge, human, None), judge, alpha=0.05, tolerance=0.0)


def test_labels_on_all_cases_are_their_own_t_interval() -> None:
    judge, human = world(8, 30, 30, binary=False)

    seen = powered_mean(judge, human)

    assert_is(seen, uniform(judge, human, None), judge, alpha=0.05, tolerance=0.0)


def test_an_interval_ends_where_a_difference_does() -> None:
    _, human = world(4, 20, 20, binary=False)
    low, high = ([math.copysign(0.98, side) + 0.05 * y for y in human] for side in (-1, 1))

    ends = [powered_mean(values, values, alpha=1e-6).ci for values in (low, high)]

    assert ends[0] is not None
    assert ends[1] is not None
    assert (ends[0][0], ends[1][1]) == (-1.0, 1.0)
    assert ends[0][1] < -0.9
    assert ends[1][0] > 0.9


# --- unequal chances, clusters ----------------------------------------------------------


@pytest.mark.parametrize("fixed", [None, 0.0, 0.4, 1.0])
@pytest.mark.parametrize(("unequal", "groups"), [(True, None), (True, 15), (False, 15)])
def test_with_unequal_chances_or_clusters_every_number_is_that_of_the_formula(
    unequal: bool, groups: int | None, fixed: float | None
) -> None:
    judge, human = world(9, 120, 60, binary=False)
    chance = [0.3 + 0.5 * (n % 7) / 7 if unequal else 0.5 for n in range(120)]
    clusters = (
        None if groups is None else [f"doc-{n % groups if n < 110 else 0}" for n in range(120)]
    )

    seen = powered_mean(
        judge, human, inclusion=chance, clusters=clusters, judge_weight=fixed, alpha=0.1,
        tolerance=0.05,
    )  # fmt: skip

    expected = weighted(judge, human, chance, clusters or range(120), fixed)
    assert_is(seen, expected, judge, alpha=0.1, tolerance=0.05)
    known = [(f - y, 1 / p) for f, y, p in zip(judge, human, chance, strict=True) if y == y]
    bias = mean([d for d, _ in known], [w for _, w in known])
    assert seen.judge_bias == pytest.approx(bias)


@pytest.mark.parametrize(
    ("change", "weight"), [(lambda y: -y, 0.0), (lambda y: 0.2, 0.0), (lambda y: 0.3 * y, 1.0)]
)
def test_the_weight_stays_in_0_to_1_with_unequal_chances_too(change: Any, weight: float) -> None:
    people, _ = world(5, 200, 200, binary=False)
    judge = [change(y) for y in people]
    human = [y if n % 2 else math.nan for n, y in enumerate(people)]
    chance = [0.4 + 0.2 * (n % 3) for n in range(200)]

    seen = powered_mean(judge, human, inclusion=chance)

    assert seen.judge_weight == weight
    expected = weighted(judge, human, chance, range(200), None)
    assert seen.se == pytest.approx(math.sqrt(expected.variance))


@pytest.mark.parametrize("fixed", [None, 0.4])
def test_a_label_that_stands_for_nearly_all_cases_leaves_one_degree_of_freedom(
    fixed: float | None,
) -> None:
    judge, human = world(9, 120, 60, binary=False)
    there = next(n for n, y in enumerate(human) if not math.isnan(y))
    chance = [0.001 if n == there else 1.0 for n in range(120)]

    seen = powered_mean(judge, human, inclusion=chance, judge_weight=fixed)

    assert seen.df == 1.0
    expected = weighted(judge, human, chance, range(120), fixed)
    assert_is(seen, expected, judge, alpha=0.05, tolerance=0.0)


def test_chances_that_differ_by_rounding_are_equal() -> None:
    judge, human = world(9, 120, 60, binary=False)
    nearly = [0.5 + 1e-12 * (n % 2) for n in range(120)]

    assert powered_mean(judge, human, inclusion=nearly) == powered_mean(judge, human)


def test_clusters_with_labels_count_by_how_evenly_these_fall() -> None:
    human = [1.0] * 20 + [math.nan] * 20
    even, uneven = [n % 10 for n in range(40)], [0] * 11 + [*range(1, 10)] + [10] * 20

    assert units_labelled(human, even) == pytest.approx(10)
    assert units_labelled(human, uneven) == pytest.approx(20**2 / (11**2 + 9))
    apart, chance = [*range(20), *[20] * 20], [0.5] * 5 + [1.0] * 35
    assert units_labelled(human, apart, inclusion=chance) == pytest.approx(25**2 / 35)
    assert units_labelled([math.nan] * 40, even) == 0.0


# --- without spread ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "tolerance", "drop", "improvement"),
    [
        (0.0, 0.0, 1.0, 1.0),
        (-0.5, 0.0, 0.5**26, 1.0),
        (0.5, 0.0, 1.0, 0.5**26),
        (-0.5, 0.5, 1.0, 1.0),
        (-0.5, 0.4, 0.5**26, 1.0),
        (-0.5, 0.6, 1.0, 0.5**26),
    ],
)
def test_labels_that_are_all_alike_are_a_sign_test(
    score: float, tolerance: float, drop: float, improvement: float
) -> None:
    judge = [score, score + 0.1] * 50
    human = [score] * 25 + [math.nan] * 75

    seen = powered_mean(judge, human, tolerance=tolerance, alpha=0.1)

    assert (seen.p_value, seen.p_improvement) == pytest.approx((drop, improvement))
    reach = 1 - 0.1 ** (1 / 25)
    assert seen.ci == pytest.approx((max(score - reach, -1), min(score + reach, 1)))
    assert (seen.se, seen.df, seen.label_saving) == (None, None, None)


def test_labels_that_only_pass_leave_no_spread_to_widen() -> None:
    human = [1.0] * 25 + [math.nan] * 75

    seen = powered_mean([1.0] * 100, human)

    assert seen.ci == pytest.approx((0.05 ** (1 / 25), 1.0))


# --- refusals ---------------------------------------------------------------------------


@pytest.mark.parametrize(("labelled", "enough"), [(19, False), (20, True)])
def test_twenty_labels_are_enough(labelled: int, enough: bool) -> None:
    seen = powered_mean(*world(2, 60, labelled, binary=False))

    assert (seen.estimate is not None) is enough
    assert seen.reason == (None if enough else "19 labels; at least 20")
    assert (seen.n, seen.n_labelled) == (60, labelled)


@pytest.mark.parametrize(("groups", "enough"), [(9, False), (10, True)])
def test_labels_of_ten_clusters_are_enough(groups: int, enough: bool) -> None:
    judge, human = world(2, 90, 90, binary=False)

    seen = powered_mean(judge, human, clusters=[n % groups for n in range(90)])

    assert (seen.estimate is not None) is enough
    assert seen.reason == (None if enough else "labels of 9 clusters; too few")


JUDGE, HUMAN = world(3, 40, 30, binary=False)


@pytest.mark.parametrize(
    ("judge", "human", "options", "why"),
    [
        (JUDGE[1:], HUMAN, {}, "one number per case"),
        ([JUDGE], [HUMAN], {}, "one number per case"),
        ([math.inf, *JUDGE[1:]], HUMAN, {}, "without gaps"),
        (JUDGE, [math.inf, *HUMAN[1:]], {}, "a label is a number"),
        (JUDGE, HUMAN, {"inclusion": [0.5] * 39}, "each case's chance"),
        (JUDGE, HUMAN, {"inclusion": [0.0] + [0.5] * 39}, "above 0"),
        (JUDGE, HUMAN, {"inclusion": [1.1] + [0.5] * 39}, "at most 1"),
        (JUDGE, HUMAN, {"inclusion": [math.nan] + [0.5] * 39}, "above 0"),
        (JUDGE, HUMAN, {"clusters": [1] * 39}, "one for each case"),
    ],
)
def test_what_is_not_one_number_per_case_is_refused(
    judge: Any, human: Any, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        powered_mean(judge, human, **options)


def test_a_chance_of_1_is_one() -> None:
    chance = [1.0] + [0.5] * 39

    seen = powered_mean(JUDGE, HUMAN, inclusion=chance)

    expected = weighted(JUDGE, HUMAN, chance, range(40), None)
    assert seen.estimate == pytest.approx(expected.estimate)
