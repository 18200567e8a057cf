"""What only a changed line of the statistics would show: both tails, boundaries, exact counts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from evalkit.decide.missing import fisher_missing, worst_case
from evalkit.decide.signflip import (
    FLIP_CHUNK,
    FLIP_HITS,
    FLIPS,
    lattice,
    lattice_tails,
    monte_carlo_tails,
    shares_beyond,
)
from evalkit.decide.stats import SIGN_FLIP_BELOW, bh, compare, holm

CLOSE = 1e-9
Floats = NDArray[np.float64]


# --- which test, and its figures ---------------------------------------------------------


@pytest.mark.parametrize(("n", "method"), [(199, "sign-flip"), (200, "paired-t")])
def test_from_200_cases_that_differ_the_paired_t_decides(n: int, method: str) -> None:
    d = np.random.default_rng(1).uniform(-0.9, 0.8, n)
    with_ties = np.append(d, np.zeros(50))

    assert compare(d).method == compare(with_ties).method == method
    assert SIGN_FLIP_BELOW == 200


@pytest.mark.parametrize(("n", "method"), [(14, "sign-flip-exact"), (15, "sign-flip")])
def test_up_to_14_cases_that_differ_every_pattern_is_written_out(n: int, method: str) -> None:
    d = np.random.default_rng(3).uniform(-0.9, 0.8, n)

    assert compare(d).method == method


@pytest.mark.parametrize(
    ("n", "method"), [(14, "cluster-sign-flip-exact"), (15, "cluster-sign-flip")]
)
def test_up_to_14_clusters_that_differ_every_pattern_is_written_out(n: int, method: str) -> None:
    d = np.random.default_rng(3).uniform(-0.9, 0.8, 2 * n)

    assert compare(d, clusters=np.repeat(np.arange(n), 2)).method == method


def test_both_tails_and_the_degrees_of_freedom_of_the_paired_t() -> None:
    d = np.random.default_rng(2).normal(-0.01, 0.2, 230).clip(-1, 1)

    seen = compare(d)

    for p, side in ((seen.p_value, "less"), (seen.p_improvement, "greater")):
        assert p == pytest.approx(scipy_stats.ttest_1samp(d, 0, alternative=side).pvalue, abs=1e-12)
    assert seen.df == 229
    assert seen.se == pytest.approx(scipy_stats.sem(d), abs=1e-12)


@pytest.mark.parametrize("adjust", [holm, bh])
@pytest.mark.parametrize("p", [-0.01, 1.01, math.nan])
def test_what_is_no_probability_is_not_adjusted(
    adjust: Callable[[list[float]], list[float]], p: float
) -> None:
    with pytest.raises(ValueError, match=r"number in 0\.\.1"):
        adjust([0.5, p])

    assert adjust([0.0, 1.0]) == [0.0, 1.0]


@pytest.mark.parametrize("seed", range(8))
def test_both_tails_of_unequal_clusters_are_those_of_every_sign_pattern(seed: int) -> None:
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 12, 7)
    code = np.repeat(np.arange(7), sizes)
    d = generator.normal(-0.1, 0.4, len(code)).clip(-1, 1)

    seen = compare(d, clusters=code)

    totals = np.array([d[code == one].sum() for one in range(7)])
    statistics = []
    for signs in itertools.product([1, -1], repeat=7):
        flipped = totals * signs
        mean = flipped.sum() / len(d)
        spread = ((flipped - sizes * mean) ** 2 / (1 - sizes / len(d))).sum()
        statistics.append(mean / math.sqrt(spread))
    below = np.mean(np.array(statistics) <= statistics[0] + 1e-12)
    above = np.mean(np.array(statistics) >= statistics[0] - 1e-12)
    assert seen.method == "cluster-sign-flip-exact"
    assert (seen.p_value, seen.p_improvement) == pytest.approx((below, above), abs=CLOSE)


def test_many_clusters_come_near_the_pattern_of_few() -> None:
    """15 clusters are drawn, 14 written out: a cluster of ties changes the way, not the answer."""
    generator = np.random.default_rng(5)
    sizes = generator.integers(2, 9, 15)
    code = np.repeat(np.arange(15), sizes)
    d = generator.normal(-0.08, 0.4, len(code)).clip(-1, 1)

    drawn = compare(d, clusters=code)
    totals = np.array([d[code == one].sum() for one in range(15)])
    signs = np.array(list(itertools.product([1.0, -1.0], repeat=15)))
    flipped = signs * totals
    mean = flipped.sum(axis=1) / len(d)
    spread = ((flipped - np.outer(mean, sizes)) ** 2 / (1 - sizes / len(d))).sum(axis=1)
    statistics = mean / np.sqrt(spread)

    exact = np.mean(statistics <= statistics[0] + 1e-12)
    assert drawn.method == "cluster-sign-flip"
    assert drawn.p_value == pytest.approx(exact, abs=5 * math.sqrt(exact * (1 - exact) / 20_000))


# --- sign flips --------------------------------------------------------------------------


def test_what_differs_in_the_last_bits_counts_as_equal_on_both_sides() -> None:
    draws = np.array([0.0, 1.0 - 1e-12, 1.0, 1.0 + 1e-12, 2.0])

    assert shares_beyond(draws, 1.0, 1e-9) == (0.8, 0.8)


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ([2.0, 4.0], [1, 2]),
        ([0.5, 1.0, -1.5], [1, 2, -3]),
        ([1 / 3, -2 / 3, 1 / 2], [2, -4, 3]),
        ([0.0, 0.0], [0, 0]),
        ([math.pi / 4, 1.0], None),
        ([1 / 5003, 1.0], None),
    ],
)
def test_a_common_step_is_found_where_there_is_one(
    values: list[float], steps: list[int] | None
) -> None:
    found = lattice(np.array(values))

    assert (None if found is None else found.tolist()) == steps


def test_a_lattice_that_would_take_too_long_is_none() -> None:
    assert lattice(np.full(2000, 1.0)) is not None
    assert lattice(np.tile([1.0, 0.001], 2000)) is None


@pytest.mark.parametrize("steps", [[1, 1, -1], [3, -2, 1, 1], [2, 2, 2], [-4, 1]])
def test_tails_of_a_lattice_are_those_of_every_pattern(steps: list[int]) -> None:
    signs = itertools.product([1, -1], repeat=len(steps))
    sums = np.array([sum(a * abs(b) for a, b in zip(one, steps, strict=True)) for one in signs])

    (low, high), tie = lattice_tails(np.array(steps))

    seen = sum(steps)
    assert (low, high, tie) == pytest.approx(
        (np.mean(sums <= seen), np.mean(sums >= seen), np.mean(sums == seen)), abs=CLOSE
    )


class Scripted:
    """A statistic that says what it is told: `seen` first, then the draws of a pattern."""

    def __init__(self, seen: float, pattern: Callable[[NDArray[np.int64]], Floats]) -> None:
        self.seen, self.pattern = seen, pattern
        self.drawn: int | None = None

    def __call__(self, sums: Floats) -> Floats:
        if self.drawn is None:
            self.drawn = 0
            return np.array([self.seen])
        numbers = np.arange(self.drawn, self.drawn + len(sums))
        self.drawn += len(sums)
        return self.pattern(numbers)


@pytest.mark.parametrize(
    ("every", "at", "draws"),
    [
        (1, 0, FLIP_HITS),  # the 2,000th draw beyond is the 2,000th draw
        (2, 1, 2 * FLIP_HITS),
        (10, 9, 10 * FLIP_HITS),  # the last one of the second chunk
        (10, 0, 10 * FLIP_HITS - 9),
        (7, 3, 7 * (FLIP_HITS - 1) + 4),
    ],
)
def test_a_tail_is_settled_at_its_2000th_hit(every: int, at: int, draws: int) -> None:
    statistic = Scripted(0.0, lambda n: np.where(n % every == at, -1.0, 1.0))

    low, _ = monte_carlo_tails(np.ones((20, 1)), statistic, 1e-9, seed=0)

    assert low == pytest.approx(FLIP_HITS / draws, abs=1e-12)


def test_a_tail_that_is_never_settled_counts_the_observed_one_too() -> None:
    statistic = Scripted(0.0, lambda n: np.where(n % 1000 == 0, -1.0, 1.0))

    low, high = monte_carlo_tails(np.ones((20, 1)), statistic, 1e-9, seed=0)

    assert statistic.drawn == FLIPS
    assert low == pytest.approx((100 + 1) / (FLIPS + 1), abs=1e-12)
    assert high == pytest.approx(FLIP_HITS / 2002, abs=2e-3)


def test_draws_end_when_both_tails_are_settled() -> None:
    statistic = Scripted(0.0, lambda n: np.where(n % 2 == 0, -1.0, 1.0))

    monte_carlo_tails(np.ones((20, 1)), statistic, 1e-9, seed=0)

    assert statistic.drawn == FLIP_CHUNK


@pytest.mark.parametrize("value", [1.0 - 1e-12, 1.0, 1.0 + 1e-12])
def test_a_draw_as_good_as_the_observed_one_is_beyond_it_on_both_sides(value: float) -> None:
    statistic = Scripted(1.0, lambda n: np.full(len(n), value))

    assert monte_carlo_tails(np.ones((20, 1)), statistic, 1e-9, seed=0) == (1.0, 1.0)


@pytest.mark.parametrize("units", [15, 16, 17, 24, 25])
def test_every_unit_is_flipped_evenly_and_alone(units: int) -> None:
    values = np.column_stack([2.0 ** np.arange(units), np.ones(units)])
    kept: list[Floats] = []

    def statistic(sums: Floats) -> Floats:
        kept.append(sums)
        return sums[:, 0]

    monte_carlo_tails(values, statistic, 0.0, seed=3)

    sums = kept[1]
    patterns = ((sums[:, :1] + 2.0**units - 1) / 2).astype(np.int64)
    signs = 2 * ((patterns >> np.arange(units)) & 1) - 1
    assert (signs.sum(axis=1) == sums[:, 1]).all()
    margin = 5 / math.sqrt(len(sums))  # five standard errors of a mean of signs
    assert np.abs(signs.mean(axis=0)).max() < margin
    together = signs.T @ signs / len(sums) - np.eye(units)
    assert np.abs(together).max() < margin


# --- missing scores ----------------------------------------------------------------------


def test_missing_rates_are_scipys_for_every_small_table() -> None:
    for missing_b, missing_c in itertools.product(range(6), range(8)):
        table = [[missing_b, 5 - missing_b], [missing_c, 7 - missing_c]]

        p = fisher_missing(missing_b, 5, missing_c, 7)

        assert p == pytest.approx(scipy_stats.fisher_exact(table).pvalue, rel=1e-9)


def test_missing_rates_of_many_cases_are_scipys_too() -> None:
    table = [[900, 1100], [1000, 1000]]

    p = fisher_missing(900, 2000, 1000, 2000)

    assert p == pytest.approx(scipy_stats.fisher_exact(table).pvalue, rel=1e-6)


@pytest.mark.parametrize("counts", [(-1, 5, 0, 5), (6, 5, 0, 5), (0, 5, -1, 5), (0, 5, 6, 5)])
def test_counts_that_cannot_be_are_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="are not counts"):
        fisher_missing(*counts)


def test_the_worst_case_of_nothing_missing_is_what_was_seen() -> None:
    assert worst_case([0.25, 1.0], [0.5, 0.0]) == pytest.approx([0.25, -1.0])


def test_a_share_of_lost_trials_moves_each_side_by_that_share() -> None:
    d = worst_case([0.6, 0.6], [0.8, 0.8], missing_b=[0.5, 0.0], missing_c=[0.0, 0.25])

    assert d == pytest.approx([0.8 - (0.6 * 0.5 + 0.5), 0.8 * 0.75 - 0.6])


def test_a_lost_baseline_is_1_whatever_share_is_told() -> None:
    d = worst_case([math.nan, math.nan], [1.0, 0.4], missing_b=[0.5, 0.0])

    assert d == pytest.approx([0.0, -0.6])
