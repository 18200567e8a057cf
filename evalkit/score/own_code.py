"""Runs the user's own checks beside the event loop: one at a time, each within a time limit.

On the loop, one that is slow would hold up every call in flight, whose latencies and
deadlines go on counting. All of them run in one thread, so that they need to be no more
thread-safe than before; where one does not end, the next gets another thread.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeAlias

from evalkit.records import Answer, Mark

LIMIT_S = 60.0
"""How long one check may take for one answer."""

Work: TypeAlias = "SimpleQueue[Callable[[], None] | None]"


class OwnCode:
    """The thread of one run's own checks, started when there is a first one."""

    def __init__(self, *, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
        self._turn = asyncio.Lock()
        self._work: Work | None = None

    async def score(self, check: Callable[[Answer], Mark], answer: Answer) -> Mark:
        """What `check` says of `answer`; a check error where that takes too long."""
        async with self._turn:
            done = asyncio.get_running_loop().create_future()
            if self._work is None:
                self._work = _new_thread(self)
            self._work.put(partial(_do, partial(check, answer), done))
            try:
                async with asyncio.timeout(self._limit_s):
                    mark: Mark = await done
                    return mark
            except TimeoutError:
                return _too_long(self._limit_s)
            finally:
                if done.cancelled():
                    self._leave_alone()

    def _leave_alone(self) -> None:
        """Let the thread end once it can; no thread can be made to."""
        if self._work is not None:
            self._work.put(None)
            self._work = None


def _new_thread(owner: OwnCode) -> Work:
    """A thread that a process need not wait for, and that ends when its owner is gone."""
    work: Work = SimpleQueue()
    weakref.finalize(owner, work.put, None).atexit = False
    Thread(target=_serve, args=(work,), name="evalkit-own-code", daemon=True).start()
    return work


def _serve(work: Work) -> None:
    while (task := work.get()) is not None:
        task()


def _do(score: Callable[[], Mark], done: asyncio.Future[Any]) -> None:
    tell: Callable[[], None]
    try:
        tell = partial(done.set_result, score())
    except BaseException as error:  # whoever waits gets it
        tell = partial(done.set_exception, error)
    with suppress(RuntimeError):  # the loop is closed: nobody waits
        done.get_loop().call_soon_threadsafe(_unless_left, done, tell)


def _unless_left(done: asyncio.Future[Any], tell: Callable[[], None]) -> None:
    if not done.done():
        tell()


def _too_long(limit_s: float) -> Mark:
    return Mark(
        score=None,
        passed=None,
        outcome="check_error",
        error_kind="timeout",
        reason=f"the check took longer than {limit_s:g} s",
    )
