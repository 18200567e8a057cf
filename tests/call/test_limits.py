"""Bulkhead and rates: first come first served, adaptive, cancel-safe, reserve then settle."""

from __future__ import annotations

import asyncio

import pytest

from evalkit.call.limits import Bulkhead, ProviderGate
from evalkit.errors import CallError
from tests.call.scripted import ManualClock


def gate(clock: ManualClock, **settings: int) -> ProviderGate:
    settings = {"max_in_flight": 100, **settings}
    return ProviderGate(**settings, monotonic=lambda: clock.now, sleep=clock.sleep)  # type: ignore[arg-type]


async def test_places_are_given_in_the_order_of_asking() -> None:
    bulkhead, order = Bulkhead(1, lambda: 0.0), []

    async def take(name: int) -> None:
        await bulkhead.acquire()
        order.append(name)
        await asyncio.sleep(0)
        bulkhead.release()

    await asyncio.gather(*(take(n) for n in range(5)))

    assert order == [0, 1, 2, 3, 4]
    assert bulkhead.in_flight == 0


async def test_a_caller_cancelled_while_waiting_takes_no_place() -> None:
    bulkhead = Bulkhead(1, lambda: 0.0)
    await bulkhead.acquire()
    waiting = [asyncio.create_task(bulkhead.acquire()) for _ in range(3)]
    await asyncio.sleep(0)

    waiting[0].cancel()
    await asyncio.sleep(0)
    bulkhead.release()
    waiting[1].cancel()
    await asyncio.sleep(0)
    await asyncio.wait(waiting, timeout=60)

    assert waiting[2].done()
    assert not waiting[2].cancelled()
    assert bulkhead.in_flight == 1


async def test_a_caller_cancelled_as_its_turn_comes_leaves_the_place_to_the_next() -> None:
    bulkhead = Bulkhead(1, lambda: 0.0)
    await bulkhead.acquire()
    gone, next_one = (asyncio.create_task(bulkhead.acquire()) for _ in range(2))
    await asyncio.sleep(0)

    gone.cancel()  # its future is cancelled now, its own code has not run yet
    bulkhead.release()
    await next_one

    with pytest.raises(asyncio.CancelledError):
        await gone
    assert bulkhead.in_flight == 1


async def test_the_width_gives_way_on_429_once_a_second_and_comes_back() -> None:
    clock = ManualClock()
    bulkhead = Bulkhead(100, lambda: clock.now)

    for _ in range(50):
        bulkhead.learn("rate_limit")
    assert bulkhead.limit == 70
    clock.now += 1
    bulkhead.learn("rate_limit")
    assert bulkhead.limit == 49
    for _ in range(10_000):
        bulkhead.learn(None)

    assert bulkhead.limit == 100


async def test_the_width_never_falls_below_one() -> None:
    clock = ManualClock()
    bulkhead = Bulkhead(4, lambda: clock.now)

    for _ in range(50):
        clock.now += 2
        bulkhead.learn("rate_limit")

    assert bulkhead.limit == 1


async def test_requests_a_minute_are_kept_after_the_burst() -> None:
    clock = ManualClock()
    one, started = gate(clock, rpm=60), clock.now

    for _ in range(70):
        await one.enter(10, deadline=clock.now + 1000)
        one.leave(10, None)

    assert clock.now - started == pytest.approx(60, abs=1)


async def test_tokens_a_minute_are_settled_by_what_was_used() -> None:
    clock = ManualClock()
    one, started = gate(clock, tpm=6000), clock.now

    for _ in range(100):
        await one.enter(1000, deadline=clock.now + 1000)
        one.leave(1000, 10)

    assert clock.now - started < 15


async def test_a_wait_past_the_deadline_is_a_rate_limit_and_takes_nothing() -> None:
    clock = ManualClock()
    one = gate(clock, tpm=6000)

    with pytest.raises(CallError) as caught:
        await one.enter(60_000, deadline=clock.now + 5)
    await one.enter(900, deadline=clock.now + 5)

    assert caught.value.kind == "rate_limit"
    assert clock.slept == []
    assert one.bulkhead.in_flight == 1


async def test_the_95th_percentile_needs_enough_answers() -> None:
    one = gate(ManualClock())

    for n in range(19):
        one.learn(0, None, float(n))
    assert one.p95_s() is None
    one.learn(0, None, 19.0)

    assert one.p95_s() == 18.0
