"""Equal calls at once: one works, a failure is everybody's, a cancelled leader hands over."""

from __future__ import annotations

import asyncio

import pytest

from evalkit.call.single_flight import SingleFlight
from evalkit.errors import CallError


class Work:
    """Answers when told to; counts how often it was begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = asyncio.Event()
        self.fails: Exception | None = None

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.may_end.wait()
        if self.fails is not None:
            raise self.fails
        return number


async def turns(n: int = 5) -> None:
    for _ in range(n):
        await asyncio.sleep(0)


async def test_a_hundred_equal_calls_at_once_do_the_work_once() -> None:
    flight, work = SingleFlight[int](), Work()
    callers = [asyncio.create_task(flight.do("k", work)) for _ in range(100)]

    await turns()
    work.may_end.set()

    assert await asyncio.gather(*callers) == [1] * 100
    assert work.begun == 1


async def test_other_keys_do_not_wait() -> None:
    flight, slow, quick = SingleFlight[int](), Work(), Work()
    quick.may_end.set()
    waiting = asyncio.create_task(flight.do("slow", slow))
    await turns()

    assert await flight.do("quick", quick) == 1

    slow.may_end.set()
    await waiting


async def test_the_next_call_after_the_answer_works_again() -> None:
    flight, work = SingleFlight[int](), Work()
    work.may_end.set()

    assert [await flight.do("k", work), await flight.do("k", work)] == [1, 2]


async def test_a_failure_reaches_all_who_waited() -> None:
    flight, work = SingleFlight[int](), Work()
    work.fails = CallError("server", "down")
    callers = [asyncio.create_task(flight.do("k", work)) for _ in range(10)]

    await turns()
    work.may_end.set()
    ended = await asyncio.gather(*callers, return_exceptions=True)

    assert [str(error) for error in ended] == ["down"] * 10
    assert work.begun == 1


async def test_a_failure_nobody_waits_for_leaves_no_trace() -> None:
    flight, work = SingleFlight[int](), Work()
    work.fails = CallError("server", "down")
    work.may_end.set()

    with pytest.raises(CallError):
        await flight.do("k", work)

    work.fails = None
    assert await flight.do("k", work) == 2


async def test_a_cancelled_leader_hands_over_to_one_of_those_who_wait() -> None:
    flight, work = SingleFlight[int](), Work()
    leader, *others = [asyncio.create_task(flight.do("k", work)) for _ in range(50)]
    await turns()

    leader.cancel()
    await turns()
    work.may_end.set()

    assert await asyncio.gather(*others) == [2] * 49
    assert leader.cancelled()
    assert work.begun == 2


async def test_a_leader_out_of_time_hands_over_too() -> None:
    flight, work = SingleFlight[int](), Work()

    async def impatient() -> int:
        async with asyncio.timeout(0):
            return await flight.do("k", work)

    first = asyncio.create_task(impatient())
    second = asyncio.create_task(flight.do("k", work))
    with pytest.raises(TimeoutError):
        await first
    await turns()
    work.may_end.set()

    assert await second == 2


async def test_one_who_stops_waiting_stops_nobody_else() -> None:
    flight, work = SingleFlight[int](), Work()
    leader, gone, stays = [asyncio.create_task(flight.do("k", work)) for _ in range(3)]
    await turns()

    gone.cancel()
    await turns()
    work.may_end.set()

    assert [await leader, await stays] == [1, 1]
    assert gone.cancelled()
    assert work.begun == 1


async def test_leader_and_those_who_wait_may_all_be_cancelled() -> None:
    flight, work = SingleFlight[int](), Work()
    callers = [asyncio.create_task(flight.do("k", work)) for _ in range(5)]
    await turns()

    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)

    work.may_end.set()
    assert all(caller.cancelled() for caller in callers)
    assert await flight.do("k", work) == 2


async def test_who_waits_does_so_no_longer_than_it_has_time() -> None:
    flight, work = SingleFlight[int](), Work()
    leader = asyncio.create_task(flight.do("k", work))
    await turns()

    with pytest.raises(CallError, match="had no answer in time"):
        await flight.do("k", work, left_s=lambda: 0.01)

    work.may_end.set()
    assert await leader == 1


async def test_a_leader_that_hands_over_goes_on_beside_the_next_in_line() -> None:
    flight, work = SingleFlight[int](), Work()
    leader, *others = [asyncio.create_task(flight.do("k", work)) for _ in range(3)]
    await turns()

    flight.hand_over("k")
    await turns()
    work.may_end.set()

    assert [await leader, *await asyncio.gather(*others)] == [1, 2, 2]
