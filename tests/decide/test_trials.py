"""Noise within cases, flaky cases, pass^k and pass@k."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from evalkit.decide.trials import Split, flaky_cases, pass_at_k, pass_hat_k, split_variance


def test_split_finds_the_variances_the_trials_were_drawn_with() -> None:
    generator = np.random.default_rng(1)
    n, effect_sd, noise_sd = 20_000, 0.1, 0.2
    effect = generator.normal(0, effect_sd, n)
    b = generator.normal(0, noise_sd, (n, 2))
    c = effect[:, None] + generator.normal(0, noise_sd, (n, 4))

    split = split_variance(
        c.mean(axis=1) - b.mean(axis=1),
        var_b=b.var(axis=1, ddof=1), n_b=np.full(n, 2), var_c=c.var(axis=1, ddof=1),
        n_c=np.full(n, 4),
    )  # fmt: skip

    # Standard errors of both are below 1.5 % at this n; four of them.
    assert split.within == pytest.approx(2 * noise_sd**2, rel=0.06)
    assert split.between == pytest.approx(effect_sd**2, rel=0.12)
    assert split.trials == pytest.approx(2 / (1 / 2 + 1 / 4), rel=0.03)


def test_a_side_tried_once_is_taken_to_be_as_noisy_as_the_other() -> None:
    split = split_variance(
        [0.0, 0.5, -0.5], var_b=[math.nan] * 3, n_b=[1, 1, 1], var_c=[0.1] * 3, n_c=[4, 4, 4]
    )

    assert split.within == pytest.approx(0.2)
    assert split.trials == pytest.approx(0.2 / (0.1 + 0.025))


def test_noise_is_unknown_not_zero_when_nothing_was_tried_twice() -> None:
    split = split_variance(
        [0.0, 1.0], var_b=[math.nan] * 2, n_b=[1, 1], var_c=[math.nan] * 2, n_c=[1, 1]
    )

    assert (split.between, split.within, split.share_within) == (None, None, None)


def test_trials_that_never_differ_leave_all_spread_between_cases() -> None:
    split = split_variance([0.0, 1.0], var_b=[0, 0], n_b=[3, 3], var_c=[0, 0], n_c=[3, 3])

    assert (split.between, split.within, split.share_within) == (0.5, 0.0, 0.0)


def test_noise_is_a_share_of_what_the_mean_of_several_trials_varies() -> None:
    assert Split(between=0.03, within=0.02, trials=2.0).share_within == pytest.approx(0.25)
    assert Split(between=0.0, within=0.0, trials=1.0).share_within is None
    assert Split(between=None, within=0.02, trials=1.0).share_within is None


def test_trials_without_noise_are_as_good_as_one() -> None:
    known = split_variance([0.0, 1.0], var_b=[0, 0], n_b=[3, 3], var_c=[0, 0], n_c=[3, 3])
    unknown = split_variance(
        [0.0, 1.0], var_b=[math.nan] * 2, n_b=[1, 1], var_c=[math.nan] * 2, n_c=[1, 1]
    )
    one_case = split_variance([0.5], var_b=[0.1], n_b=[2], var_c=[0.1], n_c=[2])

    assert (known.trials, unknown.trials, one_case.trials) == (1.0, 1.0, 1.0)
    assert one_case.within is None


def test_two_cases_and_two_trials_are_enough_to_split() -> None:
    split = split_variance([0.0, 1.0], var_b=[0.1, 0.1], n_b=[2, 2], var_c=[0.1, 0.1], n_c=[2, 2])

    assert (split.within, split.trials) == (pytest.approx(0.2), pytest.approx(2.0))
    assert split.between == pytest.approx(0.5 - 0.1)


def test_a_case_tried_once_is_as_noisy_as_those_tried_more_often() -> None:
    split = split_variance(
        [0.0, 1.0, 2.0], var_b=[0.3, 0.1, math.nan], n_b=[3, 2, 1], var_c=[0.3, 0.1, 0.2],
        n_c=[3, 2, 2],
    )  # fmt: skip

    left = (0.3 / 3 + 0.1 / 2 + 0.2) / 3 + (0.3 / 3 + 0.1 / 2 + 0.2 / 2) / 3
    assert split.within == pytest.approx(0.2 + 0.2)
    assert split.between == pytest.approx(1.0 - left)
    assert split.trials == pytest.approx(0.4 / left)


def test_less_spread_than_the_noise_leaves_none_between_cases() -> None:
    split = split_variance([0.0, 0.1], var_b=[0.9, 0.9], n_b=[2, 2], var_c=[0.9, 0.9], n_c=[2, 2])

    assert (split.between, split.share_within) == (0.0, 1.0)


def test_cases_without_a_score_have_no_trials_to_share() -> None:
    assert pass_hat_k([0, 2], [0, 2], 1) == 1.0
    assert pass_hat_k([2], [2], 2) == 1.0


@pytest.mark.parametrize(
    ("passes", "trials", "k"), [([1], [2], 0), ([-1], [2], 1), ([1, 1], [2], 1)]
)
def test_what_counts_no_trials_is_refused(passes: list[int], trials: list[int], k: int) -> None:
    with pytest.raises(ValueError, match="trials"):
        pass_at_k(passes, trials, k)


def test_flaky_is_a_case_whose_score_differs_over_trials() -> None:
    low, high = [0.0, 1.0, math.nan, 1 / 3], [1.0, 1.0, math.nan, 1 / 3 + 1e-16]

    assert flaky_cases(["a", "b", "c", "d"], low, high) == ["a"]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_pass_hat_k_and_pass_at_k_count_the_choices_of_k_trials(k: int) -> None:
    outcomes = [[1, 1, 0, 1], [0, 0, 1, 0], [1, 1, 1, 1]]
    passes = [sum(row) for row in outcomes]

    choices = [list(itertools.combinations(row, k)) for row in outcomes]
    all_pass = np.mean([np.mean([all(c) for c in rows]) for rows in choices])
    any_pass = np.mean([np.mean([any(c) for c in rows]) for rows in choices])
    assert pass_hat_k(passes, [4, 4, 4], k) == pytest.approx(all_pass)
    assert pass_at_k(passes, [4, 4, 4], k) == pytest.approx(any_pass)


def test_cases_with_fewer_trials_than_k_say_nothing_about_k() -> None:
    assert pass_hat_k([2, 1], [2, 5], 3) == 0.0
    assert pass_hat_k([2], [2], 3) is None
    assert pass_at_k([2], [2], 3) is None


def test_more_passes_than_trials_are_refused() -> None:
    with pytest.raises(ValueError, match="passes"):
        pass_hat_k([3], [2], 1)
