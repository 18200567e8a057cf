"""The user's own checks beside the event loop: what is waited for, and how long."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from evalkit.records import Answer, Mark
from evalkit.score.own_code import OwnCode
from tests.score.answers import make_answer

RIGHT = Mark(score=1.0, passed=True)


async def test_the_loop_goes_on_while_an_own_check_works() -> None:
    loop_went_on = threading.Event()

    def check(answer: Answer) -> Mark:
        assert loop_went_on.wait(timeout=30)
        return RIGHT

    scoring = asyncio.create_task(OwnCode().score(check, make_answer("x")))
    await asyncio.sleep(0)
    loop_went_on.set()

    assert await scoring == RIGHT


async def test_a_check_that_does_not_end_is_a_check_error_and_the_next_one_works() -> None:
    own, forever = OwnCode(limit_s=0.05), threading.Event()

    def hang(answer: Answer) -> Mark:
        forever.wait(timeout=30)
        return RIGHT

    late = await own.score(hang, make_answer("x"))
    next_one = await own.score(lambda answer: RIGHT, make_answer("x"))
    forever.set()

    assert (late.score, late.outcome, late.error_kind) == (None, "check_error", "timeout")
    assert late.reason == "the check took longer than 0.05 s"
    assert next_one == RIGHT


async def test_own_checks_take_turns_in_one_thread() -> None:
    own, threads, at_work, most = OwnCode(), set(), 0, 0

    def check(answer: Answer) -> Mark:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        threads.add(threading.get_ident())
        time.sleep(0.002)
        at_work -= 1
        return RIGHT

    await asyncio.gather(*(own.score(check, make_answer("x")) for _ in range(10)))

    assert most == 1
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_what_ends_a_check_ends_whoever_waits_for_it() -> None:
    class Ends(BaseException):
        pass

    def check(answer: Answer) -> Mark:
        raise Ends

    with pytest.raises(Ends):
        await OwnCode().score(check, make_answer("x"))
