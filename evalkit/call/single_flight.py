"""Equal calls at the same moment: one of them works, the others wait for its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Has callers of equal work wait for the first of them, inside one event loop."""

    def __init__(self) -> None:
        self._flights: dict[str, asyncio.Future[tuple[T] | None]] = {}

    async def do(self, key: str, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` returns or raises, done once for all who ask for `key` meanwhile.

        A leader who is cancelled hands over: the next in line does the work itself.
        """
        while (flight := self._flights.get(key)) is not None:
            landed = await asyncio.shield(flight)
            if landed is not None:
                return landed[0]
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        try:
            value = await work()
        except Exception as error:
            flight.set_exception(error)
            flight.exception()  # where nobody waits, it is not "never retrieved"
            raise
        except BaseException:
            flight.set_result(None)
            raise
        else:
            flight.set_result((value,))
            return value
        finally:
            del self._flights[key]
