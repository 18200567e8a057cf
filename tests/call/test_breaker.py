"""The breaker: opens on failures in a row, lets exactly one probe through, closes on success."""

from __future__ import annotations

import pytest

from evalkit.call.breaker import Breaker
from tests.call.scripted import ManualClock


def breaker(clock: ManualClock) -> Breaker:
    return Breaker(lambda: clock.now, threshold=3, window_s=30.0, cooldown_s=10.0)


def entered(one: Breaker) -> int:
    passed = one.enter()
    assert passed is not None
    return passed


def fail(one: Breaker, times: int, kind: str = "server") -> None:
    for _ in range(times):
        one.record(entered(one), kind)


def test_it_opens_after_the_threshold_and_not_before() -> None:
    one = breaker(ManualClock())

    fail(one, 2)
    assert one.state == "closed"
    fail(one, 1)

    assert one.state == "open"
    assert one.is_shut
    assert one.enter() is None


def test_an_answer_starts_the_count_again() -> None:
    one = breaker(ManualClock())

    fail(one, 2)
    one.record(entered(one), None)
    fail(one, 2)

    assert one.state == "closed"


def test_failures_far_apart_do_not_open_it() -> None:
    clock = ManualClock()
    one = breaker(clock)

    for _ in range(5):
        fail(one, 1)
        clock.now += 20

    assert one.state == "closed"


@pytest.mark.parametrize("kind", ["rate_limit", "context_length", "bad_request", "refusal"])
def test_what_is_not_the_providers_fault_does_not_open_it(kind: str) -> None:
    one = breaker(ManualClock())

    fail(one, 10, kind)

    assert one.state == "closed"


def test_a_spent_quota_opens_it_at_once() -> None:
    one = breaker(ManualClock())

    fail(one, 1, "quota_exhausted")

    assert one.state == "open"


def test_exactly_one_of_a_thousand_waiting_callers_probes() -> None:
    clock = ManualClock()
    one = breaker(clock)
    fail(one, 3)
    clock.now += 10

    passes = [one.enter() for _ in range(1000)]

    assert passes.count(None) == 999


def test_a_probe_that_succeeds_closes_it() -> None:
    clock = ManualClock()
    one = breaker(clock)
    fail(one, 3)
    clock.now += 10

    one.record(entered(one), None)

    assert one.state == "closed"
    assert one.enter() is not None


def test_a_probe_that_fails_starts_another_cool_down() -> None:
    clock = ManualClock()
    one = breaker(clock)
    fail(one, 3)
    clock.now += 10

    one.record(entered(one), "server")

    assert one.enter() is None
    clock.now += 10
    assert one.enter() is not None


def test_a_probe_that_is_cancelled_leaves_its_turn_to_another() -> None:
    clock = ManualClock()
    one = breaker(clock)
    fail(one, 3)
    clock.now += 10

    one.release(entered(one))

    assert one.enter() is not None


@pytest.mark.parametrize("kind", [None, "rate_limit", "server"])
def test_what_began_before_it_opened_decides_nothing_while_the_probe_is_out(
    kind: str | None,
) -> None:
    clock = ManualClock()
    one = breaker(clock)
    earlier = entered(one)
    fail(one, 3)
    clock.now += 10
    entered(one)

    one.record(earlier, kind)
    one.release(earlier)

    assert one.is_shut
    assert one.enter() is None
