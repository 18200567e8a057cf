"""The only retry loop: attempts on one model after another, under one deadline.

What is retried and what fails over stands in `failures.FAILURES`. Every attempt is
recorded and paid for, the failed ones too. The clock and the random source are
handed in, so that a test neither waits nor guesses.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from evalkit.call.failures import FAILURES
from evalkit.call.providers.base import Provider
from evalkit.config import ModelSettings
from evalkit.errors import CallError
from evalkit.records import Attempt, Event, ModelRequest, Reply, TextDelta, Usage

BACKOFF_BASE_S = 0.25
BACKOFF_CAP_S = 8.0
MIN_MAX_TOKENS = 16
MAX_REPLY_CHARS = 10_000_000


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the call path sees it; tests hand in their own."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random
    """Uniform on [0, 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One model that may answer, with the provider that serves it."""

    model: ModelSettings
    provider: Provider
    gate: asyncio.Semaphore
    """Bulkhead: how many requests the provider may have in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """How the attempts ended."""

    reply: Reply | None
    """The last complete reply; beside an error it is what cannot be used (truncated, empty)."""
    error: CallError | None
    """None when `reply` is a usable answer."""
    target: Target
    """Who was asked last."""
    attempts: tuple[Attempt, ...]


async def attempt_until_answered(
    request: ModelRequest,
    targets: Sequence[Target],
    *,
    retries: int,
    deadline: float,
    ttft_s: float | None,
    clock: Clock,
) -> Tried:
    """Try `targets` in order until one gives a usable reply or the deadline passes.

    `deadline` is a reading of `clock.monotonic`. The last target is never cut for a
    late first token: a slow answer beats none.
    """
    attempts: list[Attempt] = []
    for position, target in enumerate(targets):
        is_last = position == len(targets) - 1
        ask = replace(request, model_id=target.model.id)
        failed: Counter[str] = Counter()
        wait_s = 0.0
        while True:
            attempt, reply, error = await _attempt(
                ask,
                target,
                wait_s=wait_s,
                deadline=deadline,
                ttft_s=None if is_last else ttft_s,
                clock=clock,
            )
            attempts.append(attempt)
            if error is None:
                return Tried(reply=reply, error=None, target=target, attempts=tuple(attempts))
            strategy = FAILURES[error.kind]
            wait_s = _wait_before_retry(error, failed.total(), clock)
            failed[error.kind] += 1
            spent = failed.total() > retries or (
                strategy.retries is not None and failed[error.kind] > strategy.retries
            )
            if spent or clock.monotonic() + wait_s >= deadline:
                break
            ask = _changed_for_retry(ask, error.kind)
        if not strategy.fail_over or clock.monotonic() >= deadline:
            break
    return Tried(reply=reply, error=error, target=target, attempts=tuple(attempts))


def _changed_for_retry(request: ModelRequest, kind: str) -> ModelRequest:
    """Ask for less after a timeout, and for more after a truncated answer."""
    if kind == "timeout":
        return replace(request, max_tokens=max(MIN_MAX_TOKENS, request.max_tokens // 2))
    if kind == "truncated":
        return replace(request, max_tokens=request.max_tokens * 2)
    return request


def _wait_before_retry(error: CallError, tried: int, clock: Clock) -> float:
    """Full jitter on an exponential back-off; Retry-After is a floor with jitter on top."""
    backoff_s: float = min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2**tried) * clock.jitter()
    return backoff_s + (error.retry_after_s or 0.0)


async def _attempt(
    request: ModelRequest,
    target: Target,
    *,
    wait_s: float,
    deadline: float,
    ttft_s: float | None,
    clock: Clock,
) -> tuple[Attempt, Reply | None, CallError | None]:
    """Make one request; a failure comes back as a value, cancellation passes through."""
    if wait_s > 0:
        await clock.sleep(wait_s)
    started = clock.monotonic()
    reply: Reply | None = None
    error: CallError | None
    try:
        async with asyncio.timeout(max(0.0, deadline - started)), target.gate:
            started = clock.monotonic()
            reply = await _read(request, target.provider, started, ttft_s, clock)
        error = _unusable(reply)
    except TimeoutError:
        error = CallError("timeout", f"no complete answer from {target.model.provider} in time")
    except CallError as failure:
        error = failure
    latency_ms = (clock.monotonic() - started) * 1000
    usage = reply.finish.usage if reply else Usage()
    attempt = Attempt(
        provider=target.model.provider,
        model=target.model.name,
        served_model=reply.finish.served_model if reply else None,
        error_kind=error.kind if error else None,
        finish_reason=reply.finish.finish_reason if reply else None,
        latency_ms=latency_ms,
        ttft_ms=reply.ttft_ms if reply else None,
        wait_ms=wait_s * 1000,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_prompt_tokens=usage.cached_prompt_tokens,
        cost_usd=_cost_usd(target.model, usage, error),
        max_tokens=request.max_tokens,
    )
    return attempt, reply, error


UNPAID = frozenset({"rate_limit", "quota_exhausted", "server", "connect", "auth", "not_found"})
"""Refused before a model worked: these attempts cost nothing. Others without usage are unknown."""


def _cost_usd(model: ModelSettings, usage: Usage, error: CallError | None) -> float | None:
    if model.price is None:
        return None
    if error is not None and error.kind in UNPAID:
        return 0.0
    return model.price.cost_usd(usage)


def _unusable(reply: Reply) -> CallError | None:
    """A complete reply that is no answer: cut at max_tokens, filtered, or empty."""
    finish = reply.finish
    if finish.finish_reason == "length":
        return CallError("truncated", "the answer was cut at max_tokens")
    if finish.finish_reason == "content_filter":
        return CallError("content_filter", "the provider's content filter withheld the answer")
    if not reply.text.strip() and not finish.tool_calls:
        return CallError("empty", "the answer was empty")
    return None


async def _read(
    request: ModelRequest,
    provider: Provider,
    started: float,
    ttft_s: float | None,
    clock: Clock,
) -> Reply:
    """Read one reply to its end; no `Finish` means the stream was cut."""
    pieces: list[str] = []
    size = 0
    ttft_ms: float | None = None
    async with aclosing(provider.stream(request)) as events:
        event = await _first_event(events, ttft_s)
        while isinstance(event, TextDelta):
            if ttft_ms is None:
                ttft_ms = (clock.monotonic() - started) * 1000
            size += len(event.text)
            if size > MAX_REPLY_CHARS:
                raise CallError("too_large", f"the answer passed {MAX_REPLY_CHARS:,} characters")
            pieces.append(event.text)
            event = await anext(events, None)
    if event is None:
        raise CallError("stream_cut", "the answer ended without a finish_reason")
    return Reply(
        text="".join(pieces),
        finish=event,
        latency_ms=(clock.monotonic() - started) * 1000,
        ttft_ms=ttft_ms if request.stream else None,
    )


async def _first_event(events: AsyncGenerator[Event, None], ttft_s: float | None) -> Event | None:
    try:
        async with asyncio.timeout(ttft_s):
            return await anext(events, None)
    except TimeoutError:
        raise CallError("ttft_timeout", f"no first token within {ttft_s} s") from None
