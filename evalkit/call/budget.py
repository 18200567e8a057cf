"""A spending limit that many calls at once cannot pass together: reserve, then settle."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Budget:
    """US dollars that may be spent; single event loop, so plain arithmetic is atomic."""

    limit_usd: float
    spent_usd: float = 0.0
    reserved_usd: float = 0.0

    def reserve(self, most_usd: float) -> bool:
        """Set `most_usd` aside if it still fits; False means: do not make the call."""
        if self.spent_usd + self.reserved_usd + most_usd > self.limit_usd + 1e-12:
            return False
        self.reserved_usd += most_usd
        return True

    def settle(self, reserved_usd: float, cost_usd: float | None) -> None:
        """Replace a reservation by what the call cost; an unknown cost counts in full."""
        self.reserved_usd = max(0.0, self.reserved_usd - reserved_usd)
        self.spent_usd += reserved_usd if cost_usd is None else cost_usd
