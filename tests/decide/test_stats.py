"""`compare` and the corrections: known answers, independent implementations, properties."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from evalkit.decide.power import Plan
from evalkit.decide.stats import (
    bh,
    compare,
    holm,
    less_sure_of_a_drop,
    less_sure_of_a_gain,
)

CLOSE = 1e-9


def changes(losses: int, wins: int, ties: int) -> list[float]:
    return [-1.0] * losses + [1.0] * wins + [0.0] * ties


# --- cases that pass or fail ----------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "wins", "p_exact", "mid_p"),
    [(10, 2, 0.019287109375, 0.01123046875), (5, 0, 0.03125, 0.015625)],
)
def test_lost_and_won_cases_give_the_published_p_values(
    losses: int, wins: int, p_exact: float, mid_p: float
) -> None:
    seen = compare(changes(losses, wins, 88))

    assert seen.method == "mcnemar-midp"
    assert seen.p_exact == pytest.approx(p_exact, abs=CLOSE)
    assert seen.p_value == pytest.approx(mid_p, abs=CLOSE)


@pytest.mark.parametrize(("losses", "wins"), [(7, 1), (12, 3), (40, 22)])
def test_exact_p_is_half_the_two_sided_test_of_statsmodels(losses: int, wins: int) -> None:
    seen = compare(changes(losses, wins, 30))

    two_sided = mcnemar([[15, losses], [wins, 15]], exact=True).pvalue
    assert seen.p_exact == pytest.approx(two_sided / 2, abs=CLOSE)


def test_mid_p_and_interval_match_the_airway_example_of_fagerland() -> None:
    seen = compare(changes(7, 1, 13), alpha=0.025)

    assert seen.p_value == pytest.approx(0.039 / 2, abs=5e-4)
    # Theirs adds one case each way, which is z²/4 = 0.96 here.
    assert seen.ci == pytest.approx((-0.508, -0.013), abs=2e-3)


def test_interval_of_binary_cases_is_bonett_and_prices_matched_to_its_level() -> None:
    seen = compare(changes(10, 2, 88))

    z = scipy_stats.norm.ppf(0.95)
    lost, won = ((k + z**2 / 4) / (100 + z**2 / 2) for k in (10, 2))
    se = math.sqrt((lost + won - (won - lost) ** 2) / (100 + z**2 / 2))
    assert seen.ci == pytest.approx((won - lost - z * se, won - lost + z * se), abs=CLOSE)


# --- graded cases ---------------------------------------------------------------------


def test_sign_flip_of_few_graded_cases_is_scipys_exact_permutation_test() -> None:
    d = np.random.default_rng(3).uniform(-0.9, 0.6, 11)

    seen = compare(d)

    exact = scipy_stats.permutation_test(
        (d,), np.mean, permutation_type="samples", alternative="less", n_resamples=np.inf
    )
    assert seen.method == "sign-flip-exact"
    assert seen.p_value == pytest.approx(exact.pvalue, abs=CLOSE)


def test_trials_in_thirds_have_an_exact_p_by_adding_cases_one_by_one() -> None:
    d = np.random.default_rng(4).integers(-3, 3, 13) / 3

    seen = compare(d)

    patterns = np.array(list(itertools.product([-1, 1], repeat=13)))
    sums = np.rint(patterns @ np.rint(d * 3))
    at_most, ties = (sums <= sums[-1]).mean(), (sums == sums[-1]).mean()
    assert seen.method == "sign-flip-midp"
    assert seen.p_exact == pytest.approx(at_most, abs=CLOSE)
    assert seen.p_value == pytest.approx(at_most - ties / 2, abs=CLOSE)


def test_one_trial_through_the_lattice_is_mcnemar() -> None:
    binary = compare(changes(9, 4, 20))

    halves = compare([x / 2 for x in changes(9, 4, 20)])

    assert halves.method == "sign-flip-midp"
    assert halves.p_value == pytest.approx(binary.p_value, abs=CLOSE)
    assert halves.p_exact == pytest.approx(binary.p_exact, abs=CLOSE)


def test_many_graded_cases_get_the_paired_t_of_scipy() -> None:
    generator = np.random.default_rng(5)
    b, c = generator.random(300), generator.random(300) * 0.95

    seen = compare(c - b)

    paired = scipy_stats.ttest_rel(c, b, alternative="less")
    two_sided = scipy_stats.ttest_rel(c, b).confidence_interval(0.9)
    assert seen.method == "paired-t"
    assert seen.p_value == pytest.approx(paired.pvalue, abs=CLOSE)
    assert seen.ci == pytest.approx((two_sided.low, two_sided.high), abs=CLOSE)


FEW = [0.5, -0.25, 0, 0, -0.75, 0, 0, 0, -0.25, 0]


@pytest.mark.parametrize(
    ("d", "step"),
    [(FEW, 0.0), ([-0.5, *[0] * 9], 0.0), (FEW, 0.9), (FEW, 0.1),
     (np.random.default_rng(16).normal(-0.1, 0.2, 250).clip(-1, 1), 1.0)],
    ids=["several differ", "one differs", "a step that is larger", "or smaller", "many differ"],
)  # fmt: skip
def test_interval_of_graded_cases_imagines_cases_as_large_as_those_that_differ_or_a_step(
    d: list[float], step: float
) -> None:
    seen = compare(d, step=step)

    d, n = np.asarray(d), len(d)
    added = scipy_stats.norm.ppf(0.95) ** 2 / 2
    size = max(np.mean(d[d != 0] ** 2), step**2)
    values, weights = np.append(d, [size**0.5, -(size**0.5)]), [1.0] * n + [added / 2] * 2
    centre = np.average(values, weights=weights)
    se = math.sqrt(np.average((values - centre) ** 2, weights=weights) / (n + added))
    reach = scipy_stats.t.ppf(0.95, n - 1) * se
    assert seen.ci == pytest.approx((centre - reach, centre + reach), abs=CLOSE)


def test_monte_carlo_sign_flip_is_near_t_and_repeats_for_a_seed() -> None:
    d = np.random.default_rng(6).normal(-0.06, 0.2, 120).clip(-1, 1)

    seen, again = compare(d, seed=1), compare(d, seed=1)

    assert seen.method == "sign-flip"
    assert seen == again
    t = scipy_stats.ttest_1samp(d, 0, alternative="less").pvalue
    assert seen.p_value == pytest.approx(t, rel=0.2)


def test_smallest_monte_carlo_p_is_one_over_all_draws() -> None:
    d = np.random.default_rng(7).uniform(-0.9, -0.5, 60)

    seen = compare(d)

    assert seen.p_value == pytest.approx(1 / 100_000)


def test_tolerance_moves_the_null_and_leaves_delta_and_interval() -> None:
    d = np.random.default_rng(8).normal(-0.05, 0.2, 400).clip(-1, 1)

    strict, lenient = compare(d), compare(d, tolerance=0.05)

    assert (strict.delta, strict.ci) == (lenient.delta, lenient.ci)
    moved = scipy_stats.ttest_1samp(d, -0.05, alternative="less").pvalue
    assert lenient.p_value == pytest.approx(moved, abs=CLOSE)


GRADED = np.random.default_rng(15).normal(-0.05, 0.2, 60).clip(-1, 1)


def test_what_is_asked_where_nobody_says() -> None:
    seen = compare(GRADED, within_var=0.02)

    assert seen.method == "sign-flip"
    assert seen == compare(
        GRADED, tolerance=0.0, alpha=0.05, max_drop=0.05, seed=0, power_alpha=0.05,
        within_var=0.02, trials=1.0, step=0.0,
    )  # fmt: skip


def test_what_would_be_found_is_planned_from_what_was_seen() -> None:
    counts, graded = compare(changes(6, 4, 50)), compare(GRADED)

    plan = Plan(se=counts.se, df=math.inf, n=60, n_units=60, paired_counts=True)
    assert counts.mde == plan.mde(0.05)
    plan = Plan(se=graded.se, df=59.0, n=60, n_units=60, paired_counts=False)
    assert graded.mde == plan.mde(0.05)


def test_of_two_tests_of_one_drop_the_less_sure_one_counts() -> None:
    one, other = compare(changes(9, 2, 30)), compare(changes(7, 3, 31))
    assert (one.p_value or 0) < (other.p_value or 0)
    assert (one.p_improvement or 0) > (other.p_improvement or 0)

    assert less_sure_of_a_drop(one, other) == replace(
        one, p_value=other.p_value, p_exact=other.p_exact, mde=max(one.mde or 0, other.mde or 0)
    )
    assert less_sure_of_a_drop(other, one).p_value == other.p_value
    assert less_sure_of_a_gain(other, one) == replace(other, p_improvement=one.p_improvement)
    assert less_sure_of_a_gain(one, other) == one


def test_of_two_tests_one_of_which_says_nothing_nothing_is_said() -> None:
    one, nothing = compare(changes(9, 2, 30)), compare([0.5])

    for first, second in ((one, nothing), (nothing, one)):
        both = less_sure_of_a_drop(first, second)
        assert (both.p_value, both.p_exact, both.mde) == (None, None, None)
        assert less_sure_of_a_gain(first, second).p_improvement is None


def test_scores_that_are_whole_but_for_their_last_bits_pass_or_fail() -> None:
    near = [1 - 1e-12, -1 + 1e-12, 1e-12, -1e-12, -1.0, -1.0, -1.0, -1.0]

    assert compare(near) == compare([1, -1, 0, 0, -1, -1, -1, -1])


# --- no spread, nothing to measure ------------------------------------------------------


def test_no_case_that_differs_is_no_drop_but_no_point_either() -> None:
    seen = compare([0.0] * 50)

    bound = 1 - 0.05 ** (1 / 50)
    assert (seen.p_value, seen.p_exact, seen.method) == (1.0, 1.0, "no-spread")
    assert seen.ci == pytest.approx((-bound, bound), abs=CLOSE)


def test_clusters_that_all_moved_alike_have_no_spread_whatever_their_sizes() -> None:
    seen = compare([-0.25] * 9, clusters=list("aabbbcccc"))

    assert (seen.method, seen.n_clusters, seen.p_value) == ("no-spread", 3, 0.5**4)


def test_every_case_falling_alike_is_a_drop() -> None:
    seen = compare([-1.0] * 8)

    assert seen.p_exact == pytest.approx(0.5**8)
    assert seen.p_value == pytest.approx(0.5**9)
    assert seen.ci is not None
    assert seen.ci[0] == -1
    assert seen.ci[1] < 0


@pytest.mark.parametrize(
    ("d", "clusters"), [([], None), ([0.5], None), ([0.1, -0.2, 0.3], ["a", "a", "a"])]
)
def test_nothing_is_said_of_one_value_or_one_cluster(
    d: list[float], clusters: list[str] | None
) -> None:
    seen = compare(d, clusters=clusters)

    assert seen.reason
    assert (seen.ci, seen.p_value, seen.mde) == (None, None, None)


@pytest.mark.parametrize("d", [[math.nan, 0.1], [math.inf, 0.0], [1.5, 0.0], [[0.1], [0.2]]])
def test_what_is_no_difference_of_scores_is_refused(d: list[float]) -> None:
    with pytest.raises(ValueError):
        compare(d)


# --- clusters -----------------------------------------------------------------------


def test_equal_clusters_get_the_t_interval_of_their_means() -> None:
    d = np.random.default_rng(9).normal(0, 0.3, (12, 5)).clip(-1, 1)

    seen = compare(d.ravel(), clusters=np.repeat(np.arange(12), 5))

    t = scipy_stats.ttest_1samp(d.mean(axis=1), 0).confidence_interval(0.9)
    assert seen.n_clusters == 12
    assert seen.df == pytest.approx(11)
    assert seen.ci == pytest.approx((t.low, t.high), abs=CLOSE)


def test_unequal_clusters_get_cr2_as_its_matrices_define_it() -> None:
    sizes = [1, 2, 3, 5, 9, 14, 4, 7]
    code = np.repeat(np.arange(8), sizes)
    d = np.random.default_rng(10).normal(-0.1, 0.3, len(code)).clip(-1, 1)

    seen = compare(d, clusters=[f"doc-{c}" for c in code])

    variance, df = bell_mccaffrey(d, code)
    assert seen.se == pytest.approx(math.sqrt(variance), abs=CLOSE)
    assert seen.df == pytest.approx(df, abs=1e-6)


def bell_mccaffrey(d: np.ndarray, code: np.ndarray) -> tuple[float, float]:
    """CR2 and Satterthwaite df from the definition, for a regression on a constant."""
    n = len(d)
    ones = np.ones((n, 1))
    hat = ones @ ones.T / n
    residual = d - d.mean()
    variance, columns = 0.0, []
    for c in np.unique(code):
        own = code == c
        block = np.eye(own.sum()) - hat[np.ix_(own, own)]
        values, vectors = np.linalg.eigh(block)
        adjust = vectors @ np.diag(values**-0.5) @ vectors.T
        weights = adjust @ np.ones(own.sum()) / n
        variance += float(weights @ residual[own]) ** 2
        columns.append((np.eye(n) - hat)[:, own] @ weights)
    gram = np.array(columns) @ np.array(columns).T
    return variance, float(np.trace(gram) ** 2 / (gram**2).sum())


def test_cluster_sign_flip_enumerates_studentised_totals() -> None:
    sizes = np.array([2, 3, 5, 4, 6, 2])
    code = np.repeat(np.arange(6), sizes)
    d = np.random.default_rng(11).normal(-0.2, 0.3, len(code)).clip(-1, 1)

    seen = compare(d, clusters=code)

    totals = np.array([d[code == c].sum() for c in range(6)])
    statistics = []
    for signs in itertools.product([1, -1], repeat=6):
        flipped = totals * signs
        mean = flipped.sum() / len(d)
        spread = ((flipped - sizes * mean) ** 2 / (1 - sizes / len(d))).sum()
        statistics.append(mean / math.sqrt(spread))
    share = np.mean(np.array(statistics) <= statistics[0] + 1e-12)
    assert seen.method == "cluster-sign-flip-exact"
    assert seen.p_value == pytest.approx(share, abs=CLOSE)


@pytest.mark.parametrize(
    ("sizes", "means", "beyond"),
    [
        ([2, 2, 2, 20], [-0.9, -0.7, -0.7, -0.3], 4),
        ([1, 2, 3, 12], [-0.9, -0.7, -0.7, -0.3], 2),
        ([1, 1, 1, 1, 10], [-0.6, -0.5, -0.5, -0.1, -0.3], 2),
    ],
)
def test_a_cluster_of_most_cases_weighs_what_its_share_leaves_free(
    sizes: list[int], means: list[float], beyond: int
) -> None:
    """Of all sign patterns so many have a t as low; with clusters weighed alike it would be 1."""
    seen = compare(np.repeat(means, sizes), clusters=np.repeat(np.arange(len(sizes)), sizes))

    assert seen.p_value == beyond / 2 ** len(sizes)


def test_tolerance_leaves_the_interval_of_clusters_where_it_is() -> None:
    code = np.repeat(np.arange(8), [1, 2, 3, 5, 9, 14, 4, 7])
    d = np.random.default_rng(10).normal(-0.1, 0.3, len(code)).clip(-0.9, 0.9)

    strict, lenient = compare(d, clusters=code), compare(d, clusters=code, tolerance=0.05)

    assert lenient.delta == strict.delta
    assert (lenient.ci, lenient.se) == (pytest.approx(strict.ci), pytest.approx(strict.se))
    assert strict.p_value is not None
    assert lenient.p_value is not None
    assert lenient.p_value > strict.p_value


def test_clusters_of_one_case_are_no_clusters() -> None:
    d = np.random.default_rng(12).integers(-2, 3, 40) / 2

    assert compare(d, clusters=np.arange(40)) == compare(d)


def test_cases_of_one_document_count_once() -> None:
    d = changes(6, 1, 13)

    alone = compare(d)
    copied = compare(np.repeat(d, 10), clusters=np.repeat(np.arange(20), 10))

    assert alone.p_value is not None
    assert copied.p_value is not None
    assert copied.p_value > 0.9 * alone.p_value


# --- properties -----------------------------------------------------------------------

GRADES = st.integers(-12, 12).map(lambda k: k / 12)
SCORES = st.floats(-1, 1).map(lambda x: round(x, 3))
BINARY = st.sampled_from([-1.0, 0.0, 1.0])
DELTAS = st.one_of(*(st.lists(kind, min_size=2, max_size=30) for kind in (GRADES, SCORES, BINARY)))


@settings(max_examples=60, deadline=None)
@given(d=DELTAS, size=st.integers(1, 4))
def test_swapping_the_sides_mirrors_delta_interval_and_tails(d: list[float], size: int) -> None:
    clusters = np.arange(len(d)) // size

    seen = compare(d, clusters=clusters)
    mirrored = compare([-x for x in d], clusters=clusters)

    assert seen.delta == -(mirrored.delta or 0.0)
    if seen.ci is not None and mirrored.ci is not None:
        assert seen.ci == pytest.approx((-mirrored.ci[1], -mirrored.ci[0]), abs=CLOSE)
    if seen.method not in ("sign-flip", "cluster-sign-flip"):
        assert seen.p_value == pytest.approx(mirrored.p_improvement, abs=CLOSE)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), d=DELTAS, size=st.integers(1, 4))
def test_shuffling_the_rows_changes_nothing(data: st.DataObject, d: list[float], size: int) -> None:
    clusters = np.arange(len(d)) // size
    order = np.array(data.draw(st.permutations(range(len(d)))))

    seen = compare(d, clusters=clusters)
    shuffled = compare(np.array(d)[order], clusters=clusters[order])

    assert seen == shuffled


@settings(max_examples=60, deadline=None)
@given(d=DELTAS)
def test_adding_a_tie_never_makes_a_regression_more_certain(d: list[float]) -> None:
    seen, tied = compare(d), compare([*d, 0.0])

    assert seen.p_value is not None
    assert tied.p_value is not None
    assert tied.p_value >= min(seen.p_value, 0.5) - CLOSE


@settings(max_examples=60, deadline=None)
@given(d=DELTAS, copies=st.integers(2, 10))
def test_repeating_every_trial_adds_no_evidence(d: list[float], copies: int) -> None:
    trials = np.repeat(np.array(d)[:, None], copies, axis=1)

    once, again = compare(d), compare(trials.mean(axis=1))

    assert once.n == again.n
    assert once.p_value == pytest.approx(again.p_value, abs=1e-6)
    assert once.ci == pytest.approx(again.ci, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(d=DELTAS, alpha=st.floats(0.001, 0.4))
def test_p_is_a_probability_and_the_interval_holds_delta(d: list[float], alpha: float) -> None:
    seen = compare(d, alpha=alpha)

    assert seen.p_value is not None
    assert seen.p_improvement is not None
    assert seen.ci is not None
    assert 0 < seen.p_value <= 1
    assert 0 < seen.p_improvement <= 1
    assert -1 <= seen.ci[0] <= seen.ci[1] <= 1
    assert seen.ci[0] - CLOSE <= seen.delta <= seen.ci[1] + CLOSE


# --- many comparisons -------------------------------------------------------------------


@pytest.mark.parametrize(("adjust", "name"), [(holm, "holm"), (bh, "fdr_bh")])
def test_adjusted_p_values_are_those_of_statsmodels(adjust: object, name: str) -> None:
    p = np.random.default_rng(13).random(40) ** 3
    p[5] = p[6] = p[7]

    adjusted = adjust(p)  # type: ignore[operator]

    assert adjusted == pytest.approx(multipletests(p, method=name)[1].tolist(), abs=CLOSE)


def test_holm_of_nothing_is_nothing() -> None:
    assert holm([]) == []
    assert bh([]) == []


def test_a_missing_p_is_no_probability() -> None:
    with pytest.raises(ValueError, match="unmeasurable"):
        holm([0.1, math.nan])


def test_the_second_that_scipy_stats_takes_to_import_is_not_spent() -> None:
    modules = "stats, power, trials, missing, ppi, sequential, agreement"
    code = f"import sys; from evalkit.decide import {modules}; print('scipy.stats' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
