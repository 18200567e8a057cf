"""The draw: exact sizes, chances that are kept, and estimates that are unbiased."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.score.sampling import Unit, draw, spread_evenly, stratum_rates

UNITS = [
    Unit(key=f"k{at}", stratum="rare" if at % 10 == 0 else "usual", interest=(at % 7) / 7)
    for at in range(200)
]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from([0.0, 0.0, 0.3, 1.0])), max_size=60
    ),
    st.integers(1, 80),
    st.floats(0, 1),
    st.integers(0, 5),
)
def test_any_draw_has_the_size_asked_for_and_chances_that_add_up(
    kinds: list[tuple[str, float]], budget: int, active: float, seed: int
) -> None:
    units = [
        Unit(key=str(at), stratum=stratum, interest=interest)
        for at, (stratum, interest) in enumerate(kinds)
    ]

    drawn = draw(units, budget=budget, active_share=active, seed=seed)

    assert len(drawn) == len({one.key for one in drawn}) == min(budget, len(units))
    assert all(0 < one.inclusion_prob <= 1 for one in drawn)
    assert all(one.random_prob <= one.inclusion_prob + 1e-9 for one in drawn)


def test_every_unit_is_drawn_as_often_as_its_chance_says() -> None:
    n_draws = 2_000
    seen: Counter[str] = Counter()
    by_chance: Counter[str] = Counter()
    chances: dict[str, tuple[float, float]] = {}

    for seed in range(n_draws):
        for one in draw(UNITS, budget=40, active_share=0.4, seed=seed):
            seen[one.key] += 1
            by_chance[one.key] += one.share == "random"
            chances[one.key] = (one.inclusion_prob, one.random_prob)

    # 200 units, two rates each: 5 standard errors are passed once in 4,000 such tests.
    for key, (inclusion, at_random) in chances.items():
        for count, chance in ((seen[key], inclusion), (by_chance[key], at_random)):
            se = math.sqrt(chance * (1 - chance) / n_draws)
            assert abs(count / n_draws - chance) <= 5 * se + 1e-9
    assert len(chances) == len(UNITS)


def test_weighing_by_the_chances_gives_an_unbiased_rate() -> None:
    """Half of what is interesting is wrong: the raw rate is far off, the weighted one is not."""
    wrong = {unit.key for unit in UNITS if unit.interest > 0.5}
    true = len(wrong) / len(UNITS)
    raw, weighted, random_only = [], [], []

    for seed in range(400):
        drawn = draw(UNITS, budget=40, active_share=0.5, seed=seed)
        raw.append(sum(one.key in wrong for one in drawn) / len(drawn))
        weighted.append(sum((one.key in wrong) / one.inclusion_prob for one in drawn) / len(UNITS))
        random_only.append(
            sum((one.key in wrong) / one.random_prob for one in drawn if one.share == "random")
            / len(UNITS)
        )

    def mean(of: list[float]) -> float:
        return sum(of) / len(of)

    assert mean(raw) > true + 0.1
    # The spread of one estimate is below 0.1, of the mean of 400 below 0.005.
    assert mean(weighted) == pytest.approx(true, abs=0.02)
    assert mean(random_only) == pytest.approx(true, abs=0.02)


def test_a_small_stratum_gets_two_and_a_whole_one_is_certain() -> None:
    rates = stratum_rates({"large": 1000, "small": 10, "one": 1}, 60)

    assert rates["small"] == pytest.approx(0.2)
    assert rates["one"] == 1.0
    assert 1000 * rates["large"] + 10 * rates["small"] + 1 == pytest.approx(60)


def test_more_strata_than_units_to_draw_still_have_a_chance() -> None:
    rates = stratum_rates({f"s{at}": 3 for at in range(100)}, 5)

    assert set(map(str, rates.values())) == {str(rates["s0"])}
    assert 300 * rates["s0"] == pytest.approx(5)


def test_the_active_share_goes_where_the_interest_is() -> None:
    units = [Unit(key=str(at), interest=float(at < 20)) for at in range(200)]

    drawn = draw(units, budget=20, active_share=0.5, seed=1)

    active = [one for one in drawn if one.share == "active"]
    assert 8 <= len(active) <= 12
    assert all(int(one.key) < 20 for one in active)


def test_each_share_is_as_large_as_asked_for_in_every_draw() -> None:
    alike = [Unit(key=str(at), interest=1.0) for at in range(12)]

    sizes = {
        sum(one.share == "active" for one in draw(alike, budget=4, active_share=0.3, seed=seed))
        for seed in range(40)
    }

    assert sizes == {1, 2}  # 1.2 on average


def test_the_same_seed_gives_the_same_draw_whatever_the_order() -> None:
    first = draw(UNITS, budget=30, active_share=0.3, seed=4)
    other = draw(UNITS, budget=30, active_share=0.3, seed=5)
    again = draw(UNITS[::-1], budget=30, active_share=0.3, seed=4)

    assert {one.key for one in first} == {one.key for one in again}
    assert {one.key for one in first} != {one.key for one in other}


def test_overlap_is_spread_along_the_sample() -> None:
    marks = spread_evenly(100, 0.2, seed=3)

    assert sum(marks) == 20
    assert all(sum(marks[at : at + 10]) == 2 for at in range(0, 100, 10))
