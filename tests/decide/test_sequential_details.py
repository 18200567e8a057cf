"""The sequential tests beside plain ones: products of bets, one gambler and one mean at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp

from evalkit.decide.sequential import EarlyStop, EDetector, EProcess, FallTest, MeanSequence
from evalkit.decide.sequential import fall_prior as prior

BETS = np.geomspace(0.01, 0.95, 16)
FALL_BETS = np.geomspace(0.005, 0.95, 10)
VALUES = [0.2, 0.9, 0.4, 1.0, 0.0, 0.7]
WEIGHTS = [1.0, 0.5, 0.25, 1.0, 0.75, 0.1]


def capital(
    values: Sequence[float], weights: Sequence[float], mean: float, *, above: bool, bets: Any = BETS
) -> float:
    """What one unit, spread over the bets, becomes."""
    sign, stake = (1, 1 / mean) if above else (-1, 1 / (1 - mean))
    grown = [
        math.prod(
            1 + bet * stake * sign * weight * (value - mean)
            for value, weight in zip(values, weights, strict=True)
        )
        for bet in bets
    ]
    return sum(grown) / len(grown)


# --- e-processes ------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["above", "below"])
def test_capital_is_that_of_plain_products_on_both_sides(direction: Any) -> None:
    process = EProcess(0.3, bet_on=direction)

    path = process.add(VALUES, WEIGHTS)

    plain = [capital(VALUES[:n], WEIGHTS[:n], 0.3, above=direction == "above") for n in range(1, 7)]
    assert np.exp(path).tolist() == pytest.approx(plain)
    assert process.log_e == pytest.approx(math.log(plain[-1]))
    assert process.log_peak == pytest.approx(max(0.0, *map(math.log, plain)))
    assert process.n == 6


def test_a_game_begins_with_one_unit_and_its_peak_never_lies_below() -> None:
    process = EProcess(0.5, bet_on="above")

    assert (process.n, process.log_peak) == (0, 0.0)
    assert process.log_e == pytest.approx(0.0)
    process.add([0.0, 0.0])
    assert process.log_e < 0
    assert process.log_peak == 0.0


def test_nothing_new_changes_nothing() -> None:
    process = EProcess(0.5, bet_on="above")
    process.add([1.0])
    before = process.log_e

    assert process.add([]).shape == (0,)
    assert (process.n, process.log_e) == (1, before)


@pytest.mark.parametrize("mean", [0, 1, 1.5, -0.5, math.nan])
def test_a_game_on_a_mean_at_the_end_or_beyond_is_refused(mean: float) -> None:
    with pytest.raises(ValueError, match=r"scores lie in 0\.\.1"):
        EProcess(mean, bet_on="above")


def test_rounding_beyond_the_bounds_is_taken_for_the_bound() -> None:
    exact, rounded = (EProcess(0.5, bet_on="above") for _ in range(2))

    exact.add([1.0, 0.0])
    rounded.add([1.0 + 1e-10, -1e-10])

    assert rounded.log_e == exact.log_e
    for beyond in (1.0 + 1e-8, -1e-8):
        with pytest.raises(ValueError, match=r"0\.\.1"):
            rounded.add([beyond])


# --- early stopping ---------------------------------------------------------------------


def test_early_stopping_is_two_games_with_their_share_of_alpha() -> None:
    d = [-0.5, -1.0, 0.0, -1.0, -0.5, -1.0, -1.0, -0.5]
    weights = [1.0, 0.5, 1.0, 0.25, 1.0, 1.0, 0.5, 1.0]
    stop = EarlyStop(alpha=0.1, comparisons=2, tolerance=0.2, max_drop=0.4)

    word = stop.add(d, weights)

    y = [(one + 1) / 2 for one in d]
    drop = [capital(y[:n], weights[:n], 0.4, above=False) for n in range(1, 9)]
    safe = [capital(y[:n], weights[:n], 0.3, above=True) for n in range(1, 9)]
    at = next((n for n, e in enumerate(drop, 1) if e >= 20), None)
    assert (word, stop.n) == (("regression", at) if at else (None, 8))
    assert stop.p_value == pytest.approx(1 / max(1.0, *drop))
    assert stop.p_max_drop == pytest.approx(1 / max(1.0, *safe))


def test_a_pass_is_called_at_the_case_that_decides_it() -> None:
    stop = EarlyStop(alpha=0.05, max_drop=0.2)

    stop.add([0.0] * 200)

    safe = [capital([0.5] * n, [1.0] * n, 0.4, above=True) for n in range(1, 201)]
    assert stop.decision == "pass"
    assert stop.n == next(n for n, e in enumerate(safe, 1) if e >= 20)
    assert stop.p_max_drop == pytest.approx(1 / safe[-1])


def test_a_capital_that_just_reaches_what_is_asked_decides() -> None:
    # With alpha 1 a fair game decides at once: its capital is 1, as much as is asked.
    fair_drop = EarlyStop(alpha=1.0, tolerance=0.0, max_drop=0.5)
    fair_safe = EarlyStop(alpha=1.0, tolerance=0.5, max_drop=0.25)

    assert (fair_drop.add([0.0]), fair_drop.n) == ("regression", 1)
    assert (fair_safe.add([-0.25]), fair_safe.n) == ("pass", 1)


def test_nothing_is_allowed_but_5_percent_and_a_drop_of_5_points_unless_it_is_said() -> None:
    plain = EarlyStop()
    told = EarlyStop(alpha=0.05, comparisons=1, tolerance=0.0, max_drop=0.05)
    d = [0.5, -0.25, 0.0, 1.0, -0.5, 0.75] * 30

    words = [(one.add(d), one.n, one.p_value, one.p_max_drop) for one in (plain, told)]

    assert words[0] == words[1]
    assert EarlyStop().n == 0


def test_the_least_alpha_that_decides_is_the_p_value() -> None:
    d = [-0.5, 0.5, -1.0, -1.0, 0.0, -0.5]
    p = EarlyStop(alpha=1e-9)
    p.add(d)

    for times, word in ((1.001, "regression"), (0.999, None)):
        assert EarlyStop(alpha=times * p.p_value, max_drop=0.0).add(d) == word


# --- confidence sequences ---------------------------------------------------------------


def plain_interval(
    values: Sequence[float], weights: Sequence[float], *, alpha: float, breaks: int
) -> tuple[float, float]:
    """Every mean of the grid that neither gambler has made 2 / alpha of; its wrong neighbours."""
    grid = [n / breaks for n in range(1, breaks)]
    low = [m for m in grid if capital(values, weights, m, above=True) >= 2 / alpha]
    high = [m for m in grid if capital(values, weights, m, above=False) >= 2 / alpha]
    return max(low, default=0.0), min(high, default=1.0)


@pytest.mark.parametrize("alpha", [0.05, 0.4])
def test_an_interval_leaves_out_the_means_on_which_a_gambler_grows_rich(alpha: float) -> None:
    values, weights = VALUES * 8, WEIGHTS * 8
    sequence = MeanSequence(alpha=alpha, breaks=60)

    found = sequence.add(values, weights)

    assert found == pytest.approx(plain_interval(values, weights, alpha=alpha, breaks=60))
    assert found == sequence.interval
    assert 0 < found[0] < found[1] < 1
    assert sequence.n == 48


def test_before_any_look_the_mean_may_be_anything() -> None:
    sequence = MeanSequence()

    assert (sequence.interval, sequence.n) == ((0.0, 1.0), 0)
    assert sequence.add([]) == (0.0, 1.0)


def test_a_value_that_came_often_is_told_with_its_count() -> None:
    one_by_one, counted = (MeanSequence(breaks=100) for _ in range(2))

    one_by_one.add([0.2] * 40 + [0.9] * 10, [1.0] * 40 + [0.5] * 10)
    counted.add([0.2, 0.9], [1.0, 0.5], [40, 10])

    assert counted.interval == one_by_one.interval != (0.0, 1.0)
    assert counted.n == one_by_one.n == 50


def test_a_mean_that_moves_empties_no_interval_it_had() -> None:
    sequence = MeanSequence(breaks=100)

    before = sequence.add([0.8] * 200)
    after = sequence.add([0.1] * 2_000)

    assert after[0] == before[0]
    assert after[1] <= before[1]


def test_without_a_word_an_interval_holds_95_percent_on_a_grid_of_500() -> None:
    plain, told = MeanSequence(), MeanSequence(alpha=0.05, breaks=500)

    assert plain.add(VALUES * 20) == told.add(VALUES * 20, 1.0, 1)


# --- the detector -----------------------------------------------------------------------


def test_a_detector_sums_the_games_begun_at_every_observation() -> None:
    values, weights = VALUES * 6, WEIGHTS * 6
    sums = [
        sum(capital(values[j:t], weights[j:t], 0.7, above=False) for j in range(t))
        for t in range(1, len(values) + 1)
    ]
    bar = sums[19] * 0.999

    detector = EDetector(0.7, bet_on="below", run_length=bar)
    alarms = [detector.add(*one) for one in zip(values, weights, strict=True)]

    first = next(t for t, total in enumerate(sums, 1) if total >= bar)
    assert detector.alarm_at == first
    assert alarms == [None] * (first - 1) + [first] * (len(values) - first + 1)


def test_an_alarm_is_that_of_the_first_observation_that_raised_it() -> None:
    values = [0.1] * 60
    whole = EDetector(0.7, bet_on="below", run_length=50.0)

    assert whole.add(values) == whole.add([1.0] * 500) == whole.alarm_at
    assert whole.alarm_at is not None
    assert EDetector(0.7, bet_on="below", run_length=50.0).add(values[: whole.alarm_at]) is not None
    assert EDetector(0.7, bet_on="below", run_length=50.0).add(values[: whole.alarm_at - 1]) is None


def test_a_detector_alarms_once_its_sum_is_as_large_as_the_run_length() -> None:
    # Nothing is won or lost on the mean itself: each of the games has its one unit.
    detector = EDetector(0.5, bet_on="above", run_length=2.0)

    assert [detector.add([0.5]), detector.add([0.5])] == [None, 2]


def test_a_detector_that_has_seen_nothing_is_silent() -> None:
    detector = EDetector(0.5, bet_on="above", run_length=1.5)

    assert (detector.n, detector.alarm_at, detector.add([])) == (0, None, None)
    detector.add([0.0, 0.0])
    assert detector.n == 2


@pytest.mark.parametrize("run_length", [1, 0.5])
def test_a_detector_that_would_alarm_at_once_is_refused(run_length: float) -> None:
    with pytest.raises(ValueError, match="has to exceed 1"):
        EDetector(0.5, bet_on="above", run_length=run_length)


# --- a fall -----------------------------------------------------------------------------

Block = tuple[list[float], list[float], list[int]]
GRID = np.sin(np.pi / 2 * (np.arange(2_000) + 0.5) / 2_000) ** 2


def growth(block: Block, grid: Any, *, up: bool) -> Any:
    """Log growth of each bet (rows) on each mean (columns) by one block."""
    bets = FALL_BETS[:, None]
    logs = [
        n * np.log1p(bets * w * (y - grid) / grid if up else -bets * w * (y - grid) / (1 - grid))
        for y, w, n in zip(*block, strict=True)
    ]
    return sum(logs)


def curves(blocks: Sequence[Block], grid: Any) -> dict[int, Any]:
    """Start -> log capital of each mean after the last block, for all starts that are kept."""
    up, down = ([growth(block, grid, up=way) for block in blocks] for way in (True, False))
    newest = len(blocks) - 1
    found = {}
    for start in range(1, len(blocks)):
        if newest - start >= 14 and start % 7:
            continue
        shares = [math.log(0.5), *(prior(j) + math.log(0.5) for j in range(1, start))]
        begun = [share + sum(up[j:start]) for j, share in enumerate(shares)]
        before = logsumexp(begun, axis=(0, 1)) - math.log(10)
        since = logsumexp(sum(down[start:]), axis=0) - math.log(10)
        found[start] = prior(start) + before + since
    return found


def plain_fall(blocks: Sequence[Block]) -> tuple[float, int]:
    """The evidence after the last block, and the start with most."""
    least = {start: curve.min() for start, curve in curves(blocks, GRID).items()}
    return logsumexp(list(least.values())), max(least, key=lambda start: least[start])


def blocks_of(*means: float, seed: int = 1) -> list[Block]:
    generator = np.random.default_rng(seed)
    found = []
    for mean in means:
        values = np.clip(mean + generator.normal(0, 0.1, 4), 0, 1)
        weights = generator.choice([1.0, 0.5, 0.25], 4)
        counts = generator.integers(1, 5, 4)
        found.append((values.tolist(), weights.tolist(), counts.tolist()))
    return found


@pytest.mark.parametrize(
    "blocks",
    [
        blocks_of(0.8, 0.5),
        blocks_of(0.8, 0.8, 0.5, 0.5),
        blocks_of(*[0.7] * 9, *[0.55] * 9),
        blocks_of(*[0.3] * 3, *[0.8] * 4, *[0.5] * 16),
        blocks_of(*[0.95] * 3, 0.9, 1.0, 1.0),
        blocks_of(*[0.05] * 3, 0.1, 0.0, 0.0),
        [([1.0], [1.0], [5])] * 3 + [([0.0], [1.0], [2])] * 2,
        [([1.0], [1.0], [3])] * 4,
        [([0.0], [1.0], [3])] * 4,
    ],
)
def test_evidence_of_a_fall_is_what_the_poorest_gambler_has(blocks: list[Block]) -> None:
    test = FallTest(alpha=1e-30)

    for block in blocks:
        test.add(*block)

    log_e, start = plain_fall(blocks)
    # Never above the least of all means, and near it: a line bounds the curve between points.
    assert log_e - 0.05 < test.log_e <= log_e + 1e-3
    assert test.start == start
    assert (test.blocks, test.alarm_at) == (len(blocks), None)


@pytest.mark.parametrize(
    ("before", "after"), [(6, 1), (1, 6), (1_994, 1_999), (1_999, 1_994), (2_000, 1_998), (2, 0)]
)
def test_evidence_is_not_overstated_where_nearly_all_values_are_the_same(
    before: int, after: int
) -> None:
    blocks = [
        ([1.0, 0.0], [1.0, 1.0], [ones, 2_000 - ones]) for ones in [before] * 10 + [after] * 10
    ]
    test = FallTest(alpha=1e-30)

    for block in blocks:
        test.add(*block)

    # The more values there are, the steeper is the curve between two points.
    log_e, _ = plain_fall(blocks)
    assert log_e - 6 < test.log_e <= log_e + 1e-3


def least_by_lines(curve: Sequence[float], points: Sequence[float]) -> float:
    """Under a convex curve's least, by the lines through two of its points beside it."""
    at, last = int(np.argmin(curve)), len(points) - 1

    def line(one: int, other: int, to: float) -> float:
        slope = (curve[other] - curve[one]) / (points[other] - points[one])
        return curve[one] + slope * (to - points[one])

    left_end, right_end = (0.0, *points)[at], (*points, 1.0)[at + 1]
    if at == 0:
        return min(line(0, 1, left_end), line(1, 2, points[0]))
    if at == last:
        return min(line(last, last - 1, right_end), line(last - 1, last - 2, points[last]))
    return min(line(at, at + 1, left_end), line(at, at - 1, right_end))


@pytest.mark.parametrize(
    "means",
    [
        (0.8, 0.5), (0.5, 0.8), (0.98, 0.9), (0.02, 0.1), (1.0, 0.97), (0.0, 0.03), (0.6, 0.6),
        (0.0, 0.0), (1.0, 1.0),
    ],
)  # fmt: skip
@pytest.mark.parametrize("n", [100, 1])
def test_between_few_points_the_curve_is_bounded_by_lines(
    means: tuple[float, float], n: int
) -> None:
    blocks = [
        ([1.0, 0.0], [1.0, 1.0], [round(n * mean), n - round(n * mean)])
        for mean in [means[0]] * 3 + [means[1]] * 3
    ]
    test = FallTest(alpha=1e-30, points=8)

    for block in blocks:
        test.add(*block)

    points = np.sin(np.pi / 2 * (np.arange(8) + 0.5) / 8) ** 2
    bounds = [least_by_lines(curve, points.tolist()) for curve in curves(blocks, points).values()]
    assert test.log_e == pytest.approx(logsumexp(bounds))
    assert test.log_e <= plain_fall(blocks)[0] + 1e-3


def test_a_fall_needs_a_block_before_it() -> None:
    test = FallTest()

    assert test.add([0.0] * 1_000) is False
    assert (test.blocks, test.log_e, test.start) == (1, -math.inf, None)
    assert test.alarm_at is None


def test_an_alarm_names_its_block_and_where_the_fall_began_and_is_for_ever() -> None:
    test = FallTest()

    alarms = [test.add([level], counts=40) for level in [0.9] * 8 + [0.5] * 4]
    seen = (test.blocks, test.log_e, test.start)
    again = test.add([0.9], counts=1_000)

    assert test.alarm_at == alarms.index(True) + 1
    assert 9 <= test.alarm_at <= 12
    assert alarms[test.alarm_at :] == [True] * (12 - test.alarm_at)
    assert test.start == 8
    assert again is True
    assert (test.blocks, test.log_e, test.start) == seen == (test.alarm_at, test.log_e, 8)


def test_evidence_is_held_against_alpha() -> None:
    blocks = blocks_of(*[0.8] * 6, *[0.6] * 6)
    silent = FallTest(alpha=1e-30)
    looks = [(silent.add(*block), silent.log_e)[1] for block in blocks]

    alarms = []
    for times in (0.999, 1.001):
        test = FallTest(alpha=math.exp(-max(looks)) * times)
        alarms.append([test.add(*block) for block in blocks][-1])

    assert max(looks) > 0
    assert alarms == [False, True]


def test_a_rise_is_no_fall() -> None:
    test = FallTest()

    for level in [0.4] * 8 + [0.9] * 12:
        test.add([level], counts=40)

    assert test.alarm_at is None
    assert test.log_e < 0


def test_a_value_that_came_so_often_is_as_if_told_one_by_one() -> None:
    counted, single = FallTest(), FallTest()

    for level in (0.9, 0.8, 0.3, 0.9):
        counted.add([level, 0.5], [1.0, 0.5], [3, 2])
        single.add([level] * 3 + [0.5] * 2, [1.0] * 3 + [0.5] * 2)

    assert counted.log_e == pytest.approx(single.log_e)
    assert counted.start == single.start


def test_without_a_word_a_value_came_once_with_full_weight() -> None:
    plain, told = FallTest(), FallTest(alpha=0.05, points=500)

    for level in (0.9, 0.8, 0.9, 0.2):
        plain.add([level] * 6)
        told.add([level] * 6, 1.0, 1)

    assert plain.log_e == told.log_e > 0
    assert plain.alarm_at is told.alarm_at is None


def test_more_values_than_are_kept_change_nothing() -> None:
    values = np.random.default_rng(2).random(600)
    test, again = FallTest(alpha=1e-30), FallTest(alpha=1e-30)

    for block in np.split(values, 3):
        test.add(block)
        again.add(block[::-1])

    assert test.log_e == pytest.approx(again.log_e, rel=1e-6)


def test_the_stakes_on_all_starts_are_one_and_little_is_left_over() -> None:
    # Beyond K the sum of 1 / (k log² k) is about 1 / log K.
    shares = [math.exp(prior(at)) for at in range(1, 20_000)]

    whole = sum(shares) + 1 / (2.11 * math.log(20_000))

    assert whole == pytest.approx(1.0, abs=1e-3)
    assert whole <= 1.0
    assert shares == sorted(shares, reverse=True)
