"""E-processes, early stopping, confidence sequences, the e-detector."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.decide.sequential import BETS, EarlyStop, EDetector, EProcess, MeanSequence

HALVES = [0.5, 0.5, 0, 0.5, 1 / 3, 0.5, 1, 0.5, 0, 0.25, 0.5, 0.5, 0, 0.5, 0.5, 1 / 6, 0.5, 0]


def test_e_values_are_those_of_confseq() -> None:
    above = np.exp(EProcess(0.5, bet_on="above").add(HALVES))
    below = np.exp(EProcess(0.5, bet_on="below").add(HALVES))

    # confseq 0.0.11: diversified_betting_mart with the same constant bets, trunc_scale=1.
    assert above[[2, 6, 12, 17]] == pytest.approx(CONFSEQ_ABOVE, abs=1e-9)
    assert below[[2, 6, 12, 17]] == pytest.approx(CONFSEQ_BELOW, abs=1e-9)


CONFSEQ_ABOVE = [0.774999513110, 0.830949441971, 0.609153090305, 0.533484756261]
CONFSEQ_BELOW = [1.225000486890, 0.921189524298, 1.440839921123, 2.208814425261]


@settings(max_examples=50, deadline=None)
@given(
    y=st.lists(st.floats(0, 1), min_size=1, max_size=12),
    weights=st.lists(st.floats(0.1, 1), min_size=12, max_size=12),
    mean=st.floats(0.05, 0.95),
)
def test_capital_is_the_mean_of_plain_products(
    y: list[float], weights: list[float], mean: float
) -> None:
    process = EProcess(mean, bet_on="below")

    seen = process.add(y, weights[: len(y)])

    capital = [
        math.prod(1 - b / (1 - mean) * w * (x - mean) for x, w in zip(y, weights, strict=False))
        for b in BETS
    ]
    assert math.exp(seen[-1]) == pytest.approx(np.mean(capital), rel=1e-9)


def test_e_values_come_out_the_same_in_any_portions() -> None:
    whole, pieces = EProcess(0.6, bet_on="above"), EProcess(0.6, bet_on="above")

    whole.add(HALVES)
    for y in HALVES:
        pieces.add(y)

    assert pieces.log_e == pytest.approx(whole.log_e, abs=1e-12)
    assert (pieces.n, pieces.log_peak) == (whole.n, pytest.approx(whole.log_peak))


def test_a_fair_game_seldom_multiplies_the_stake_by_twenty() -> None:
    generator = np.random.default_rng(1)
    runs = 400

    alarms = sum(
        EProcess(0.8, bet_on="below").add(generator.random(500) < 0.8).max() >= math.log(20)
        for _ in range(runs)
    )

    # At most 5 %; standard error 0.0109, three of them.
    assert alarms / runs <= 0.05 + 0.033


@pytest.mark.parametrize(("drop", "decision"), [(0.12, "regression"), (0.0, "pass")])
def test_a_run_stops_when_the_cases_decide(drop: float, decision: str) -> None:
    generator = np.random.default_rng(2)
    fair = 1 / (1 + np.exp(-generator.normal(2, 2, 2_000)))
    d = (generator.binomial(3, np.maximum(fair - drop, 0)) - generator.binomial(3, fair)) / 3

    stop = EarlyStop()

    assert stop.add(d) == decision
    assert stop.n < 1_000


def test_a_decision_stays_and_case_by_case_is_the_same() -> None:
    d = np.full(200, -0.5)
    whole, single = EarlyStop(), EarlyStop()

    whole.add(d)
    for x in d:
        single.add(x)
    single.add([1.0] * 50)

    assert (whole.decision, whole.n) == (single.decision, single.n)
    assert whole.decision == "regression"
    assert whole.p_value <= 0.05


def test_a_family_takes_longer_to_decide() -> None:
    alone, among_many = EarlyStop(), EarlyStop(comparisons=60)

    alone.add(np.full(400, -0.2))
    among_many.add(np.full(400, -0.2))

    assert alone.n < among_many.n


def test_nothing_is_decided_by_few_cases() -> None:
    stop = EarlyStop()

    assert stop.add([-1.0, 0.0, 0.0]) is None
    assert stop.n == 3


def test_sequence_holds_the_mean_at_every_look_and_narrows() -> None:
    generator = np.random.default_rng(3)
    missed, widths = 0, []
    for _ in range(100):
        sequence = MeanSequence(alpha=0.1, breaks=200)
        looks = [sequence.add(generator.random(30) < 0.7) for _ in range(12)]
        missed += any(not low <= 0.7 <= high for low, high in looks)
        widths.append([high - low for low, high in looks])

    # At most 10 %; standard error 0.03, three of them.
    assert missed / 100 <= 0.1 + 0.09
    assert (np.diff(widths, axis=1) <= 0).all()
    assert np.mean(widths, axis=0)[-1] < 0.2


def test_weights_undo_an_unequal_sample() -> None:
    generator = np.random.default_rng(4)
    passes = generator.random(40_000) < np.repeat([0.9, 0.3], 20_000)
    chance = np.repeat([0.02, 0.2], 20_000)
    drawn = np.flatnonzero(generator.random(40_000) < chance)
    sequence = MeanSequence()

    low, high = sequence.add(passes[drawn], 0.02 / chance[drawn])

    assert low < 0.6 < high
    assert passes[drawn].mean() < low


def test_detector_is_the_sum_of_processes_started_at_every_observation() -> None:
    y = np.random.default_rng(5).random(40) * 0.6
    detector = EDetector(0.5, bet_on="below", run_length=50.0)

    alarm = detector.add(y)

    sums = []
    for t in range(1, 41):
        starts = [math.exp(EProcess(0.5, bet_on="below").add(y[j:t])[-1]) for j in range(t)]
        sums.append(sum(starts))
    assert alarm == next(t + 1 for t, total in enumerate(sums) if total >= 50.0)


def test_detector_gives_the_same_alarm_in_any_portions() -> None:
    y = np.concatenate([np.full(300, 0.8), np.full(300, 0.5)])
    whole, pieces = (EDetector(0.8, bet_on="below", run_length=10_000) for _ in range(2))

    whole.add(y)
    for part in np.array_split(y, 17):
        pieces.add(part)

    assert whole.alarm_at == pieces.alarm_at
    assert whole.alarm_at is not None
    assert 300 < whole.alarm_at < 400


@pytest.mark.parametrize("values", [[1.2], [-0.5], [math.nan]])
def test_values_out_of_bounds_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        EProcess(0.5, bet_on="above").add(values)


@pytest.mark.parametrize("weight", [0.0, 1.5, math.nan])
def test_weights_out_of_bounds_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        EProcess(0.5, bet_on="above").add([0.5], weight)


def test_a_drop_of_all_there_is_can_be_allowed() -> None:
    """Any drop is smaller than one of more than a whole; none is larger."""
    allowed = EarlyStop(max_drop=1.0)
    tolerated = EarlyStop(tolerance=1.0, max_drop=1.0)

    assert allowed.add([-0.5] * 5) == "pass"
    assert tolerated.add([-1.0] * 200) is None
