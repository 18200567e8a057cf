"""The draw from the log: who is in, and with what chance."""

from __future__ import annotations

import pytest

from evalkit.score.log_draw import DrawRule, Place, draw_calls, place_of
from evalkit.score.sampling import Unit

UNITS = [Unit(key=f"t-{n:05d}", stratum=f"s{n % 3}") for n in range(6000)]


def test_a_rate_draws_its_share_and_says_so() -> None:
    drawn = draw_calls(UNITS, DrawRule(rate=0.1))

    # 600 expected, standard deviation 23: five of them either way.
    assert abs(len(drawn) - 600) < 116
    assert set(drawn.values()) == {Place("random", 0.1)}


def test_who_is_drawn_depends_on_no_other_call_and_on_no_order() -> None:
    all_of_them = draw_calls(UNITS, DrawRule(rate=0.1))
    half = draw_calls(UNITS[::-2], DrawRule(rate=0.1))

    assert half.keys() == all_of_them.keys() & {unit.key for unit in UNITS[::-2]}


def test_another_salt_is_another_sample() -> None:
    one, other = (set(draw_calls(UNITS, DrawRule(rate=0.1, salt=salt))) for salt in ("a", "b"))

    # Independent samples share 60 of 600, standard deviation 7.
    assert len(one & other) < 100


def test_each_stratum_has_its_quota_and_its_own_chance() -> None:
    units = [*UNITS[:1000], Unit(key="rare", stratum="rare")]

    drawn = draw_calls(units, DrawRule(per_stratum=5))

    assert len(drawn) == 16
    assert drawn["rare"] == Place("random", 1.0)
    sizes = {s: sum(unit.stratum == s for unit in units) for s in ("s0", "s1", "s2")}
    for unit in units[:1000]:
        if unit.key in drawn:
            assert drawn[unit.key].inclusion_prob == 5 / sizes[unit.stratum]


def test_quotas_weighted_by_their_chances_estimate_the_whole_without_bias() -> None:
    units = [Unit(key=f"u{n}", stratum="big" if n % 10 else "small") for n in range(500)]
    truth = sum(n % 10 == 0 for n in range(500)) / 500

    found = []
    for salt in range(200):
        drawn = draw_calls(units, DrawRule(per_stratum=20, salt=str(salt)))
        weights = {key: 1 / place.inclusion_prob for key, place in drawn.items()}  # type: ignore[operator]
        small = sum(weight for key, weight in weights.items() if int(key[1:]) % 10 == 0)
        found.append(small / sum(weights.values()))

    assert sum(found) / len(found) == pytest.approx(truth, abs=1e-9)


def test_the_active_share_is_apart_and_has_no_chance() -> None:
    units = [Unit(key=f"u{n}", interest=float(n % 50 == 0)) for n in range(1000)]

    drawn = draw_calls(units, DrawRule(rate=0.05, active_share=0.2))

    active = {key for key, place in drawn.items() if place.share == "active"}
    assert active
    assert all(drawn[key].inclusion_prob is None for key in active)
    assert all(int(key[1:]) % 50 == 0 for key in active)
    # A fifth of the whole, or all interesting ones that chance had left.
    assert len(active) == min(round((len(drawn) - len(active)) / 4), 20 - sum(
        int(key[1:]) % 50 == 0 for key in drawn.keys() - active
    ))  # fmt: skip


def test_places_are_the_same_on_every_machine() -> None:
    assert place_of("t-1", "") == pytest.approx(PLACE)


PLACE = 0.4257196282957234
"""BLAKE2b-64 of "0:t-1" over 2**64."""
