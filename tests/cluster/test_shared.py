"""What many workers spend and ask together, and what is left of one that is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from evalkit.call.budget import Budget
from evalkit.cluster.shared import SharedBudget, SharedGate, SharedLimits
from evalkit.errors import CallError
from evalkit.settings import ProviderSettings


class Office:
    """The limits, asked as from other processes: every message takes a turn of the loop."""

    def __init__(self, *, limit_usd: float | None = None, **provider: Any) -> None:
        self.settings = ProviderSettings(name="app", wire="python", **provider)
        self.budget = None if limit_usd is None else Budget(limit_usd=limit_usd)
        self.limits = SharedLimits({"app": self.settings}, self.budget)
        self.messages: set[asyncio.Task[Any]] = set()

    def ask(self, method: str, /, *arguments: Any) -> Awaitable[Any]:
        message = asyncio.ensure_future(getattr(self.limits, method)(*arguments))
        self.messages.add(message)
        return message

    def budget_of(self, worker: str) -> SharedBudget:
        return SharedBudget(self.ask, worker)

    def gate_of(self, worker: str) -> SharedGate:
        return SharedGate(self.settings, self.ask, worker)

    async def idle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


def soon() -> float:
    return asyncio.get_running_loop().time() + 60.0


async def test_two_workers_share_one_budget() -> None:
    office = Office(limit_usd=1.0)
    one, two = office.budget_of("1"), office.budget_of("2")

    assert await one.reserve(0.6)
    waiting = asyncio.create_task(two.reserve(0.6))
    await office.idle()
    assert not waiting.done()
    one.settle(0.6, 0.3)

    assert await waiting
    two.settle(0.6, 0.6)
    await office.idle()
    assert not await one.reserve(0.2)


async def test_what_a_lost_worker_had_set_aside_counts_as_spent() -> None:
    office = Office(limit_usd=1.0)
    one, two = office.budget_of("1"), office.budget_of("2")
    assert await one.reserve(0.2)
    one.settle(0.2, 0.1)
    assert await one.reserve(0.5)

    await office.limits.lose("1")

    assert await office.limits.spent_usd() == pytest.approx(0.6)
    assert not await two.reserve(0.5)
    assert await two.reserve(0.4)
    one.settle(0.5, 0.0)  # a message that was under way
    await office.idle()
    assert await office.limits.spent_usd() == pytest.approx(1.0)


async def test_a_worker_that_is_lost_while_it_waits_gets_nothing() -> None:
    office = Office(limit_usd=1.0)
    one, two = office.budget_of("1"), office.budget_of("2")
    assert await one.reserve(1.0)
    waiting = asyncio.create_task(two.reserve(0.5))
    await office.idle()

    await office.limits.lose("2")
    one.settle(1.0, 0.0)

    assert not await waiting
    assert await one.reserve(1.0)


async def test_who_stops_waiting_gives_back_what_comes_too_late() -> None:
    office = Office(limit_usd=1.0)
    one, two = office.budget_of("1"), office.budget_of("2")
    assert await one.reserve(1.0)
    waiting = asyncio.create_task(two.reserve(0.7))
    await office.idle()

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    one.settle(1.0, 0.0)
    await office.idle()

    assert await one.reserve(1.0)


async def test_places_at_a_provider_are_those_of_all_workers() -> None:
    office = Office(max_in_flight=2)
    one, two = office.gate_of("1"), office.gate_of("2")
    await one.enter(0, deadline=soon())
    await two.enter(0, deadline=soon())
    waiting = asyncio.create_task(two.enter(0, deadline=soon()))
    await office.idle()
    assert not waiting.done()

    one.leave(0, None)

    await waiting


async def test_a_lost_worker_leaves_its_places_to_the_others() -> None:
    office = Office(max_in_flight=2)
    one, two = office.gate_of("1"), office.gate_of("2")
    await one.enter(0, deadline=soon())
    await one.enter(0, deadline=soon())

    await office.limits.lose("1")

    await two.enter(0, deadline=soon())
    await two.enter(0, deadline=soon())


async def test_who_stops_waiting_for_a_place_takes_none() -> None:
    office = Office(max_in_flight=1)
    one, two = office.gate_of("1"), office.gate_of("2")
    await one.enter(0, deadline=soon())
    waiting = asyncio.create_task(two.enter(0, deadline=soon()))
    await office.idle()

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    one.leave(0, None)
    await office.idle()

    await one.enter(0, deadline=soon())


async def test_rates_are_those_of_all_workers() -> None:
    office = Office(rpm=12)  # two at once
    one, two = office.gate_of("1"), office.gate_of("2")
    await one.enter(0, deadline=soon())
    await two.enter(0, deadline=soon())

    with pytest.raises(CallError, match="leaves no time before the deadline") as refused:
        await one.enter(0, deadline=asyncio.get_running_loop().time() + 1.0)

    assert refused.value.kind == "rate_limit"


async def test_a_429_to_one_worker_narrows_the_way_of_all() -> None:
    office = Office(max_in_flight=3)
    one, two = office.gate_of("1"), office.gate_of("2")
    passed = await one.enter(0, deadline=soon())
    one.leave(0, None)

    one.learn(passed, "rate_limit", 0.1)
    await office.idle()

    await two.enter(0, deadline=soon())
    await two.enter(0, deadline=soon())
    third = asyncio.create_task(two.enter(0, deadline=soon()))
    await office.idle()
    assert not third.done()
    third.cancel()
