"""One budget and one place to queue for each provider, for the calls of many processes.

`SharedLimits` is in one process and holds the call path's own `Budget` and `ProviderGate`s.
`SharedBudget` and `SharedGate` stand in for them on the workers and ask it. What a dead
worker had set aside counts as spent: nobody knows whether its calls were made.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeVar

from evalkit.call.budget import Budget
from evalkit.call.limits import ProviderGate
from evalkit.errors import CallError
from evalkit.settings import ProviderSettings

T = TypeVar("T")


class SharedLimits:
    """What all workers may spend, and how much they may ask of each provider at once."""

    def __init__(self, providers: Mapping[str, ProviderSettings], budget: Budget | None) -> None:
        self._budget = budget
        self._gates = {
            name: ProviderGate.of(settings, monotonic=time.monotonic)
            for name, settings in providers.items()
        }
        self._reserved: defaultdict[str, float] = defaultdict(float)
        self._inside: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._lost: set[str] = set()

    async def reserve(self, worker: str, most_usd: float) -> bool:
        """As `Budget.reserve`; a worker that was lost while it waited gets nothing."""
        assert self._budget is not None
        if worker in self._lost or not await self._budget.reserve(most_usd):
            return False
        if worker in self._lost:
            self._budget.settle(most_usd, 0.0)
            return False
        self._reserved[worker] += most_usd
        return True

    async def reserve_more(self, worker: str, more_usd: float) -> bool:
        """As `Budget.reserve_more`."""
        assert self._budget is not None
        if worker in self._lost or not await self._budget.reserve_more(more_usd):
            return False
        self._reserved[worker] += more_usd
        return True

    async def settle(self, worker: str, reserved_usd: float, cost_usd: float | None) -> None:
        """As `Budget.settle`; of a lost worker everything has been counted."""
        assert self._budget is not None
        if worker not in self._lost:
            self._reserved[worker] -= reserved_usd
            self._budget.settle(reserved_usd, cost_usd)

    async def enter(self, worker: str, provider: str, tokens: int, left_s: float) -> str | None:
        """As `ProviderGate.enter`: None once inside, else why the wait would be too long."""
        gate = self._gates[provider]
        try:
            await gate.enter(tokens, deadline=time.monotonic() + left_s)
        except CallError as error:
            return str(error)
        if worker in self._lost:
            gate.leave(tokens, 0)
            return "the worker is lost"
        self._inside[worker][provider] += 1
        return None

    async def leave(self, worker: str, provider: str, tokens: int, used: int | None) -> None:
        if worker not in self._lost:
            self._inside[worker][provider] -= 1
            self._gates[provider].leave(tokens, used)

    async def learn(self, provider: str, kind: str | None) -> None:
        """A 429 that one worker got makes it narrower for all."""
        self._gates[provider].bulkhead.learn(kind)

    async def lose(self, worker: str) -> None:
        """Take back the places of a worker that is gone, and count what it had set aside."""
        self._lost.add(worker)
        reserved_usd = self._reserved.pop(worker, 0.0)
        if self._budget is not None and reserved_usd > 0:
            self._budget.settle(reserved_usd, None)
        for provider, places in self._inside.pop(worker, Counter()).items():
            for _ in range(places):
                self._gates[provider].leave(0, None)

    async def spent_usd(self) -> float:
        """What counts as spent or is set aside."""
        budget = self._budget
        return 0.0 if budget is None else budget.spent_usd + budget.reserved_usd


class Ask(Protocol):
    """Sends a message to the `SharedLimits`; what it answers can be awaited, and need not be."""

    def __call__(self, method: str, /, *arguments: Any) -> Awaitable[Any]: ...


class SharedBudget(Budget):
    """The budget of all workers, seen from one of them."""

    def __init__(self, ask: Ask, worker: str) -> None:
        super().__init__(limit_usd=float("nan"))
        self._ask, self._worker = ask, worker

    async def reserve(self, most_usd: float) -> bool:
        return await _unless_gone(
            self._ask("reserve", self._worker, most_usd),
            give_back=lambda granted: self.settle(most_usd, 0.0) if granted else None,
        )

    async def reserve_more(self, more_usd: float) -> bool:
        return await _unless_gone(
            self._ask("reserve_more", self._worker, more_usd),
            give_back=lambda granted: self.settle(more_usd, 0.0) if granted else None,
        )

    def settle(self, reserved_usd: float, cost_usd: float | None) -> None:
        self._ask("settle", self._worker, reserved_usd, cost_usd)


class SharedGate(ProviderGate):
    """A provider's gate with the places and rates of all workers; its breaker is its own."""

    def __init__(self, settings: ProviderSettings, ask: Ask, worker: str) -> None:
        super().__init__(max_in_flight=settings.max_in_flight, monotonic=time.monotonic)
        self._provider, self._ask, self._worker = settings.name, ask, worker
        self._has_tokens = settings.tpm is not None

    @property
    def counts_tokens(self) -> bool:
        return self._has_tokens

    async def enter(self, tokens: int, *, deadline: float) -> int:
        left_s = deadline - time.monotonic()
        refused = await _unless_gone(
            self._ask("enter", self._worker, self._provider, tokens, left_s),
            give_back=lambda refused: self._go(tokens, 0) if refused is None else None,
        )
        if refused is not None:
            raise CallError("rate_limit", refused)
        try:
            return await super().enter(tokens, deadline=deadline)
        except BaseException:
            self._go(tokens, 0)
            raise

    def leave(self, tokens: int, used_tokens: int | None) -> None:
        super().leave(tokens, used_tokens)
        self._go(tokens, used_tokens)

    def _go(self, tokens: int, used_tokens: int | None) -> None:
        self._ask("leave", self._worker, self._provider, tokens, used_tokens)

    def learn(self, passed: int, kind: str | None, latency_s: float) -> None:
        super().learn(passed, kind, latency_s)
        self._ask("learn", self._provider, kind)


async def _unless_gone(asked: Awaitable[T], *, give_back: Callable[[T], None]) -> T:
    """What was asked for; a caller that goes away meanwhile gives back what comes."""
    answer: asyncio.Future[T] = asyncio.ensure_future(asked)

    def too_late(answer: asyncio.Future[T]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            give_back(answer.result())

    try:
        return await asyncio.shield(answer)
    except asyncio.CancelledError:
        answer.add_done_callback(too_late)
        raise
