"""A spending limit that many calls at once cannot pass together: reserve, then settle."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Budget:
    """US dollars that may be spent; single event loop, so plain arithmetic is atomic."""

    limit_usd: float
    spent_usd: float = 0.0
    reserved_usd: float = 0.0
    _waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    async def reserve(self, most_usd: float) -> bool:
        """Set `most_usd` aside; False means: do not make the call.

        What others have set aside may turn out not to be needed: while there is such, it is
        waited for before the answer is no.
        """
        while not self._fits(most_usd):
            if self.reserved_usd <= 0 or not self._fits(most_usd - self.reserved_usd):
                return False
            settled = asyncio.get_running_loop().create_future()
            self._waiting.append(settled)
            await settled
        self.reserved_usd += most_usd
        return True

    async def reserve_more(self, more_usd: float) -> bool:
        """The same for a call that has something set aside already: it does not wait.

        Two such calls would wait for each other.
        """
        if not self._fits(more_usd):
            return False
        self.reserved_usd += more_usd
        return True

    def settle(self, reserved_usd: float, cost_usd: float | None) -> None:
        """Replace a reservation by what the call cost; an unknown cost counts in full."""
        self.reserved_usd = max(0.0, self.reserved_usd - reserved_usd)
        if self.reserved_usd < 1e-12:
            self.reserved_usd = 0.0
        self.spent_usd += reserved_usd if cost_usd is None else cost_usd
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)

    def _fits(self, more_usd: float) -> bool:
        return self.spent_usd + self.reserved_usd + more_usd <= self.limit_usd + 1e-12
