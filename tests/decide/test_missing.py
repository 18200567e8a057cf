"""Missing scores: their rates compared, their worst case."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from evalkit.decide.missing import fisher_missing, worst_case
from evalkit.decide.stats import compare


@pytest.mark.parametrize(
    ("missing_b", "n_b", "missing_c", "n_c"),
    [(3, 100, 9, 100), (0, 10, 5, 8), (30, 100, 0, 100), (7, 1000, 9, 400), (1, 2, 2, 2)],
)
def test_missing_rates_are_compared_by_the_fisher_test_of_scipy(
    missing_b: int, n_b: int, missing_c: int, n_c: int
) -> None:
    p = fisher_missing(missing_b, n_b, missing_c, n_c)

    table = [[missing_b, n_b - missing_b], [missing_c, n_c - missing_c]]
    assert p == pytest.approx(scipy_stats.fisher_exact(table).pvalue, rel=1e-9)


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (0, 5, 0, 9), (5, 5, 9, 9)])
def test_nothing_or_everything_missing_is_no_difference(counts: tuple[int, ...]) -> None:
    assert fisher_missing(*counts) == 1.0


def test_more_missing_than_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="not counts"):
        fisher_missing(3, 2, 0, 2)


def test_a_missing_candidate_counts_0_and_a_missing_baseline_1() -> None:
    d = worst_case([0.5, math.nan, 1.0, math.nan], [1.0, 0.8, math.nan, math.nan])

    assert d == pytest.approx([0.5, -0.2, -1.0, -1.0])


def test_lost_trials_count_by_their_share() -> None:
    d = worst_case([1.0, 0.0], [1.0, 1.0], missing_b=[0.0, 0.5], missing_c=[2 / 3, 0.0])

    assert d == pytest.approx([1 / 3 - 1, 1 - 0.5])


MAYBE = st.one_of(st.just(math.nan), st.integers(0, 4).map(lambda k: k / 4))


@settings(max_examples=100, deadline=None)
@given(
    rows=st.lists(st.tuples(MAYBE, MAYBE), min_size=3, max_size=25),
    gone=st.integers(0, 24),
)
def test_a_missing_candidate_never_helps(rows: list[tuple[float, float]], gone: int) -> None:
    b, c = (np.array(side) for side in zip(*rows, strict=True))
    silent = c.copy()
    silent[gone % len(c)] = math.nan

    answered, fell_silent = worst_case(b, c), worst_case(b, silent)

    assert (fell_silent <= answered).all()
    before, after = compare(answered), compare(fell_silent)
    assert after.delta is not None
    assert before.delta is not None
    assert after.delta <= before.delta + 1e-12
