"""Hands tasks to workers, each to the one that has the least to do; again when one is lost.

Knows no Ray: a worker is anything that does a task and says so when it is gone. A task's
line is handed back once, however often the task had to be started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Protocol

from evalkit.errors import EvalkitError

START_S = 120.0
"""How long to wait for a first worker."""
GATHER_S = 10.0
"""How long the first waits for the others: else it is given all that may be in flight."""
MOST_LOST = 3
"""So many workers that are lost with one task in their hands: it is the task's fault."""
MOST_HIRED = 5
"""Times the size of the crew: no more than so many are ever started."""

Line = dict[str, Any]


class Lost(Exception):
    """The worker is gone; nobody knows whether it did what it had in hand."""


class Hand(Protocol):
    """One worker, ready for tasks."""

    async def work(self, task: Any) -> Line | None:
        """The task's line; None: the budget does not allow it. Raises Lost."""

    async def dismiss(self) -> None:
        """Let the worker go, whether it is alive or not."""


Hire = Callable[[int], Awaitable[Hand]]
"""Starts the n-th worker and has it prepare. Raises Lost, or EvalkitError for what is wrong."""


class Crew:
    """So many workers, replaced when they are lost; an async context manager."""

    def __init__(self, hire: Hire, *, size: int) -> None:
        self._hire, self._size = hire, size
        self._started = 0
        self._load: dict[Hand, int] = {}
        """Workers that are ready -> tasks in their hands."""
        self._hiring: set[asyncio.Task[None]] = set()
        self._problem: BaseException | None = None
        self.lost = 0
        """Workers lost so far."""

    async def do(self, task: Any) -> Line | None:
        """Have a task done by some worker."""
        for _ in range(MOST_LOST):
            hand = await self._least_busy()
            self._load[hand] += 1
            try:
                return await hand.work(task)
            except Lost:
                await self._replace(hand)
            finally:
                if hand in self._load:
                    self._load[hand] -= 1
        raise EvalkitError(
            f"{MOST_LOST} workers were lost with the same case in hand: {str(task)[:200]}. "
            "See what it does to the process (memory, native code), then --resume."
        )

    async def _least_busy(self) -> Hand:
        while self._problem is None and not self._load:
            if not self._hiring:
                raise EvalkitError(f"{self._started} workers were started, and all were lost.")
            done, _ = await asyncio.wait(
                self._hiring, timeout=START_S, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                raise EvalkitError(
                    f"no worker within {START_S:.0f} s. Has the cluster a free CPU? See: ray status"
                )
        if self._problem is not None:
            raise self._problem
        return min(self._load, key=self._load.__getitem__)

    async def _replace(self, hand: Hand) -> None:
        if self._load.pop(hand, None) is not None:
            self.lost += 1
            await hand.dismiss()
            self._start_one()

    def _start_one(self) -> None:
        if self._started >= MOST_HIRED * self._size:
            return
        self._started += 1
        task = asyncio.create_task(self._take_on(self._started))
        self._hiring.add(task)
        task.add_done_callback(self._hiring.discard)

    async def _take_on(self, number: int) -> None:
        try:
            self._load[await self._hire(number)] = 0
        except Lost:
            self.lost += 1
            self._start_one()
        except Exception as error:
            self._problem = error

    async def __aenter__(self) -> Crew:
        for _ in range(self._size):
            self._start_one()
        await asyncio.wait(self._hiring, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        if self._hiring and self._problem is None:
            await asyncio.wait(self._hiring, timeout=GATHER_S)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        hiring = list(self._hiring)
        for task in hiring:
            task.cancel()
        await asyncio.gather(*hiring, return_exceptions=True)
        await asyncio.gather(*(hand.dismiss() for hand in self._load), return_exceptions=True)
