"""Connections for thousands of calls that start at once: opened some at a time.

More at once overflow a server's queue of new connections, where each lost one waits a
second and longer, and time out behind one another's work. Imported with aiohttp only.
"""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

MAX_OPENING = 500


class GradualConnector(aiohttp.TCPConnector):
    """aiohttp's pool; what waits for its turn to connect is not on the connection's clock."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._turns = asyncio.Semaphore(MAX_OPENING)

    async def _create_connection(self, *request: Any) -> Any:
        async with self._turns:
            # Calls that start by the thousand do their own work first: no connection is to
            # time out behind it. One that is open already does not wait: calls would fall
            # into step, and the server would idle while all of them do theirs.
            await asyncio.sleep(0)
            return await super()._create_connection(*request)
