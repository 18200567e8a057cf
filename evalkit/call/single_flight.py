"""Equal calls at the same moment: one of them works, the others wait for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from evalkit.errors import CallError

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Has callers of equal work wait for the first of them, inside one event loop."""

    def __init__(self) -> None:
        self._flights: dict[str, asyncio.Future[tuple[T] | None]] = {}

    async def do(
        self,
        key: str,
        work: Callable[[], Awaitable[T]],
        *,
        left_s: Callable[[], float] | None = None,
    ) -> T:
        """What `work` returns or raises, done once for all who ask for `key` meanwhile.

        A leader who is cancelled hands over: the next in line does the work itself. One who
        waits does so for `left_s` seconds at most, and raises CallError timeout then.
        """
        while (flight := self._flights.get(key)) is not None:
            landed = await _landed(flight, left_s() if left_s is not None else None)
            if landed is not None:
                return landed[0]
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        try:
            value = await work()
        except Exception as error:
            if not flight.done():
                flight.set_exception(error)
                flight.exception()  # where nobody waits, it is not "never retrieved"
            raise
        except BaseException:
            self._hand_over(key, flight)
            raise
        else:
            if not flight.done():
                flight.set_result((value,))
            return value
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def hand_over(self, key: str) -> None:
        """Let the next in line for `key` do the work too; for who does it now, and goes on."""
        if (flight := self._flights.get(key)) is not None:
            self._hand_over(key, flight)

    def _hand_over(self, key: str, flight: asyncio.Future[tuple[T] | None]) -> None:
        if not flight.done():
            flight.set_result(None)
        if self._flights.get(key) is flight:
            del self._flights[key]


async def _landed(flight: asyncio.Future[tuple[T] | None], left_s: float | None) -> tuple[T] | None:
    try:
        async with asyncio.timeout(left_s) as limit:
            return await asyncio.shield(flight)
    except TimeoutError as error:
        if not limit.expired():
            raise  # the failure of who did the work
        raise CallError("timeout", "an equal call had no answer in time") from error
