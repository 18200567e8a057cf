"""The draw from the log: who is in, and with what chance."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.score import log_draw
from evalkit.score.log_draw import Draw, DrawRule, Place, places_of
from evalkit.score.sampling import Unit

UNITS = [Unit(key=f"t-{n:05d}", stratum=f"s{n % 3}") for n in range(6000)]


def draw_calls(units: list[Unit], rule: DrawRule) -> dict[str, Place]:
    numbers: dict[str, int] = {}
    strata = [numbers.setdefault(unit.stratum, len(numbers)) for unit in units]
    draw = Draw(rule)
    draw.add(
        pa.array([unit.key for unit in units], pa.string()),
        np.array(strata, dtype=np.int64),
        np.array([unit.interest for unit in units], dtype=np.float64),
    )
    return draw.places()


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


def test_portions_in_any_order_give_the_same_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_draw, "MAX_HELD", 100)
    rule = DrawRule(per_stratum=7)
    keys = [unit.key for unit in UNITS]
    strata = np.array([int(unit.stratum[1:]) for unit in UNITS])
    draw = Draw(rule)
    for at in np.random.default_rng(1).permutation(60):
        part = slice(at * 100, (at + 1) * 100)
        draw.add(pa.array(keys[part]), strata[part])

    assert draw.places() == draw_calls(UNITS, rule)


def test_a_call_that_comes_twice_is_drawn_once() -> None:
    twice = [*UNITS[:30], *UNITS[:30]]

    assert len(draw_calls(twice, DrawRule(per_stratum=8))) == 24
    assert len(draw_calls(twice, DrawRule(rate=1.0))) == 30


@given(st.lists(st.text(max_size=20), max_size=20), st.text(max_size=5))
def test_a_place_is_what_plain_arithmetic_says(keys: list[str], salt: str) -> None:
    found = places_of(pa.array(keys, pa.string()), salt)

    assert found.tolist() == [plainly(key.encode(), salt) for key in keys]


def plainly(key: bytes, salt: str) -> int:
    whole = (1 << 64) - 1
    found = int.from_bytes(blake2b(salt.encode(), digest_size=8).digest())
    found ^= len(key) * 0x9E3779B97F4A7C15 & whole
    for at in range(0, len(key), 8):
        word = int.from_bytes(key[at : at + 8].ljust(8, b"\0"), "little")
        found = (found ^ word) * 0x9E3779B97F4A7C15 & whole
        found ^= found >> 32
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        found = (found ^ found >> shift) * factor & whole
    return found ^ found >> 31


def test_places_are_spread_evenly_whatever_the_ids_look_like() -> None:
    keys = pa.array([f"{n:032d}" for n in range(200_000)])

    counts = np.bincount((places_of(keys, "s") >> np.uint64(56)).astype(np.int64), minlength=256)

    # Chi-square with 255 degrees of freedom: mean 255, standard deviation 22.6, five of them.
    expected = 200_000 / 256
    assert float(((counts - expected) ** 2 / expected).sum()) < 368


def test_places_are_the_same_on_every_machine() -> None:
    (place,) = places_of(pa.array(["t-1"]), "")

    assert place / 2**64 == pytest.approx(0.5406584201674625)


def test_of_two_calls_at_one_place_a_quota_takes_the_same_in_any_order() -> None:
    one = "call-000000-0001"
    other = at_the_same_place(one)
    units = [Unit(key=key) for key in (one, other)]

    drawn = [draw_calls(order, DrawRule(per_stratum=1)) for order in (units, units[::-1])]

    assert len(set(places_of(pa.array([one, other]), "").tolist())) == 1
    assert [list(each) for each in drawn] == [[min(one, other)]] * 2


def at_the_same_place(key: str) -> str:
    """Another text of 16 letters: of what its first eight do, the last eight make up for."""
    first, last = (int.from_bytes(key[at : at + 8].encode(), "little") for at in (0, 8))
    wanted = halfway(first) ^ last
    for n in range(100_000):
        begins = f"{n:08d}"[::-1]
        ends = halfway(int.from_bytes(begins.encode(), "little")) ^ wanted
        if not ends & 0x8080808080808080:
            return begins + ends.to_bytes(8, "little").decode("ascii")
    raise AssertionError("no such text")


def halfway(word: int) -> int:
    """What `plainly` has found after the first word of 16 letters."""
    whole = (1 << 64) - 1
    found = int.from_bytes(blake2b(b"", digest_size=8).digest())
    found ^= 16 * 0x9E3779B97F4A7C15 & whole
    found = (found ^ word) * 0x9E3779B97F4A7C15 & whole
    return found ^ found >> 32
