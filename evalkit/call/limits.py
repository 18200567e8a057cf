"""How much a provider is asked at once and per minute: bulkhead and rate limits.

A bulkhead keeps a stalled provider from holding what other providers' calls need; its
width gives way on 429 and comes back with success (additive increase, multiplicative
decrease). Rates are reserved before a request and settled after it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from evalkit.call.breaker import Breaker
from evalkit.config import ProviderSettings
from evalkit.errors import CallError

GIVES_WAY = 0.7
"""What a 429 leaves of the width."""
GIVES_WAY_EVERY_S = 1.0
"""One burst of 429s is one message, not many."""
BURST_S = 10.0
"""Seconds' worth of the rate that may go out at once after a pause."""
LATENCIES_KEPT = 200
LATENCIES_NEEDED = 20
"""Answers that must be known before their 95th percentile means something."""


class Bulkhead:
    """First come, first served, at most `limit` in flight; the limit adapts below `most`."""

    def __init__(self, most: int, monotonic: Callable[[], float]) -> None:
        self._most = most
        self._monotonic = monotonic
        self._width = float(most)
        self._narrowed_at = float("-inf")
        self._flying = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        return max(1, int(self._width))

    @property
    def in_flight(self) -> int:
        return self._flying

    async def acquire(self) -> None:
        """Wait for a place; a caller cancelled while waiting takes none."""
        if self._flying < self.limit and not self._waiting:
            self._flying += 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.release()
            elif place in self._waiting:  # else `release` has dropped it already
                self._waiting.remove(place)
            raise

    def release(self) -> None:
        self._flying -= 1
        while self._waiting and self._flying < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self._flying += 1
                place.set_result(None)

    def learn(self, kind: str | None) -> None:
        """Narrow after a 429, widen a little after an answer."""
        if kind is None:
            self._width = min(float(self._most), self._width + 1.0 / self._width)
        elif kind == "rate_limit":
            now = self._monotonic()
            if now - self._narrowed_at >= GIVES_WAY_EVERY_S:
                self._narrowed_at = now
                self._width = max(1.0, self._width * GIVES_WAY)


class Rate:
    """So many units a minute, with a short burst. Debt is allowed: it is what one waits for."""

    def __init__(self, per_minute: float, monotonic: Callable[[], float]) -> None:
        self._per_s = per_minute / 60.0
        self._most = max(1.0, self._per_s * BURST_S)
        self._level = self._most
        self._monotonic = monotonic
        self._at = monotonic()

    def take(self, units: float) -> float:
        """Take units now; returns the seconds after which they may be used."""
        now = self._monotonic()
        self._level = min(self._most, self._level + (now - self._at) * self._per_s)
        self._at = now
        self._level -= units
        return max(0.0, -self._level / self._per_s)

    def give_back(self, units: float) -> None:
        self._level = min(self._most, self._level + units)


class ProviderGate:
    """Everything that stands between a request and its provider."""

    def __init__(
        self,
        *,
        max_in_flight: int,
        rpm: int | None = None,
        tpm: int | None = None,
        monotonic: Callable[[], float],
        sleep: Callable[[float], object] = asyncio.sleep,
    ) -> None:
        self.breaker = Breaker(monotonic)
        self.bulkhead = Bulkhead(max_in_flight, monotonic)
        self._requests = Rate(rpm, monotonic) if rpm else None
        self._tokens = Rate(tpm, monotonic) if tpm else None
        self._monotonic = monotonic
        self._sleep = sleep
        self._latencies_s: deque[float] = deque(maxlen=LATENCIES_KEPT)

    @classmethod
    def of(
        cls,
        settings: ProviderSettings,
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], object] = asyncio.sleep,
    ) -> ProviderGate:
        return cls(
            max_in_flight=settings.max_in_flight,
            rpm=settings.rpm,
            tpm=settings.tpm,
            monotonic=monotonic,
            sleep=sleep,
        )

    @property
    def counts_tokens(self) -> bool:
        return self._tokens is not None

    async def enter(self, tokens: int, *, deadline: float) -> int:
        """Take a place and a share of the rates for one request of about `tokens`.

        Returns the breaker's pass. Every `enter` that returns is followed by `leave`, and by
        `learn` or the breaker's `release`. Raises CallError rate_limit when the wait would
        pass the deadline, and breaker_open when the breaker opened meanwhile.
        """
        await self.bulkhead.acquire()
        try:
            if self.breaker.is_shut:
                raise self._shut()
            if self._requests is not None or self._tokens is not None:
                await self._reserve(tokens, deadline)
            passed = self.breaker.enter()
            if passed is None:
                self._give_back(tokens)
                raise self._shut()
        except BaseException:
            self.bulkhead.release()
            raise
        return passed

    @staticmethod
    def _shut() -> CallError:
        return CallError("breaker_open", "it failed too often and is not asked for a while")

    def leave(self, tokens: int, used_tokens: int | None) -> None:
        """Give the place back, and what was reserved and not used."""
        if self._tokens is not None and used_tokens is not None:
            self._tokens.give_back(tokens - used_tokens)
        self.bulkhead.release()

    async def _reserve(self, tokens: int, deadline: float) -> None:
        wait_s = self._requests.take(1) if self._requests else 0.0
        if self._tokens is not None:
            wait_s = max(wait_s, self._tokens.take(tokens))
        if wait_s <= 0:
            return
        if self._monotonic() + wait_s >= deadline:
            self._give_back(tokens)
            late = CallError("rate_limit", "the configured rate leaves no time before the deadline")
            late.own = True
            raise late
        try:
            await self._sleep(wait_s)  # type: ignore[misc]
        except asyncio.CancelledError:
            self._give_back(tokens)
            raise

    def _give_back(self, tokens: int) -> None:
        if self._requests is not None:
            self._requests.give_back(1)
        if self._tokens is not None:
            self._tokens.give_back(tokens)

    def learn(self, passed: int, kind: str | None, latency_s: float) -> None:
        """Take in how a request ended."""
        self.breaker.record(passed, kind)
        self.bulkhead.learn(kind)
        if kind is None:
            self._latencies_s.append(latency_s)

    def p95_s(self) -> float | None:
        """95th percentile of the last answers' latencies; None while too few are known."""
        if len(self._latencies_s) < LATENCIES_NEEDED:
            return None
        return sorted(self._latencies_s)[int(0.95 * (len(self._latencies_s) - 1))]
