"""One request to one model: its turn, its answer, and what both cost.

What is sent takes a place at its provider, a share of what the call may spend, and of its
time. However it ends, it is recorded, the provider's breaker learns of it where it says
something of the provider, and what it did not use is there for the next.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from evalkit.call.limits import ProviderGate
from evalkit.call.one_reply import read_reply, unusable
from evalkit.call.providers.base import FailedReply, Provider
from evalkit.call.shown import Shown
from evalkit.call.tokens import TokenEstimator
from evalkit.config import ModelSettings
from evalkit.errors import CallError
from evalkit.frozen import frozen
from evalkit.records import Attempt, ModelRequest, Reply, Usage

if TYPE_CHECKING:
    from evalkit.call.allowance import Allowance, Most

IDLE_S = 20.0
"""Silence between two pieces of an answer after which its stream counts as cut."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the call path sees it; tests hand in their own."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random
    """Uniform on [0, 1)."""


@frozen
class Target:
    """One model that may answer, with the provider that serves it."""

    model: ModelSettings
    provider: Provider
    gate: ProviderGate
    tokens: TokenEstimator = field(default_factory=TokenEstimator)


@frozen
class Patience:
    """How long and how often one call may try."""

    retries: int
    """Repeats on one target, over all kinds of failure."""
    deadline: float
    """A reading of `Clock.monotonic`, over all attempts."""
    ttft_s: float | None = None
    """Until the first token; the last target is never cut for it: a slow answer beats none."""
    attempt_s: float | None = None
    """Most that one attempt may take; None: the share of the time that its target has."""
    hedge_after_s: float | Literal["p95"] | None = None
    """Silence after which the same is asked a second time; the first answer wins."""
    idle_s: float = IDLE_S
    also_fail_over: frozenset[str] = frozenset()
    """Kinds that go on to the next model although the failure table says not to."""
    allowance: Allowance | None = None
    """What the call may spend; None: not limited."""
    last: float | None = None
    """The deadline of the whole call, where `deadline` is one target's share of it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one request, or a hedged pair, came to."""

    attempts: tuple[Attempt, ...]
    reply: Reply | None
    error: CallError | None
    sent: bool = True
    """False: refused before the provider was asked (a limit, the breaker, no place)."""


async def attempt(
    request: ModelRequest,
    target: Target,
    *,
    patience: Patience,
    clock: Clock,
    wait_s: float,
    shown: Shown | None,
    cancelled: list[Attempt],
) -> Outcome:
    """Make one request; a failure comes back as a value, cancellation passes through.

    None is made when no time is left (what took it says nothing of the provider), while the
    breaker is open, or where it may pass a limit. `wait_s` was waited before it. `cancelled`
    gets what was sent and not waited for to its end.
    """
    one = _Attempt(request, target, patience, clock, wait_s, shown)
    if one.asked >= patience.deadline:
        late = CallError("timeout", "no time was left to ask a model")
        return Outcome((), None, late, sent=False)
    if (refused := await one.refused()) is not None:
        return Outcome((one.recorded(0.0, None, refused),), None, refused, sent=False)
    reply: Reply | None = None
    error: CallError | None
    try:
        reply = await one.read()
        error = unusable(reply)
    except TimeoutError:
        error = one.late()
    except CallError as failure:
        error = failure
    except BaseException as unexpected:
        if one.passed is not None:
            cancelled.append(one.left(unexpected))
        raise
    finally:
        if shown is not None:
            shown.on_first = None  # what is shown later is on no attempt's clock
    if error is not None and shown is not None:
        await shown.complete(cut=True)
        shown.start_again()
    return Outcome((one.ended(reply, error),), reply, error, sent=one.passed is not None)


@dataclass(slots=True)
class _Attempt:
    """How far one request has come."""

    request: ModelRequest
    target: Target
    patience: Patience
    clock: Clock
    wait_s: float
    shown: Shown | None
    asked: float = field(init=False)
    started: float = field(init=False)
    """When it was sent, or first asked for as long as it was not."""
    left_s: float = 0.0
    most: Most | None = None
    """What it may use of the call's allowance."""
    passed: int | None = None
    """The breaker's pass; None as long as nothing has been sent."""

    def __post_init__(self) -> None:
        self.asked = self.started = self.clock.monotonic()

    async def refused(self) -> CallError | None:
        """Why it must not be sent; None: what it may cost is set aside."""
        allowance, model = self.patience.allowance, self.target.model
        if self.target.gate.breaker.is_shut:
            return CallError("breaker_open", f"{model.provider} is not asked for a while")
        if allowance is not None:
            try:
                left_s = self.patience.deadline - self.asked
                self.most = await allowance.take(self.request, model, wait_s=left_s)
            except CallError as over:
                return over
        return None

    async def read(self) -> Reply:
        """Wait for its turn, send it, and read its answer."""
        request, target, patience, shown = self.request, self.target, self.patience, self.shown
        left_s = patience.deadline - self.clock.monotonic()
        self.left_s = min(left_s, patience.attempt_s or left_s)
        if shown is not None:
            shown.given_s = 0.0
        async with asyncio.timeout(self.left_s) as limit:
            if shown is not None:
                shown.on_first = partial(_give_all_the_time, limit, patience, self.clock)
            tokens, used_tokens = _most_tokens(request, target), None
            self.passed = await target.gate.enter(tokens, deadline=patience.deadline)
            try:
                self.started = self.clock.monotonic()
                reply = await read_reply(
                    request,
                    target.provider,
                    ttft_s=patience.ttft_s,
                    idle_s=patience.idle_s,
                    monotonic=self.clock.monotonic,
                    shown=shown,
                )
                used_tokens = _used(reply.finish.usage)
                target.tokens.learn(request, target.model, reply.finish.usage)
                return reply
            finally:
                target.gate.leave(tokens, used_tokens)

    def late(self) -> CallError:
        """The time is up; what waited for its turn all along says nothing of the provider."""
        provider = self.target.model.provider
        late = CallError("timeout", f"no complete answer from {provider} in time")
        if self.passed is None:
            late = CallError(
                "rate_limit", f"all places at {provider} were taken until the deadline"
            )
        late.own = True
        return late

    def left(self, why: BaseException) -> Attempt:
        """It was sent, and nobody waits for its end, or a fault of ours ended it."""
        assert self.passed is not None
        self.target.gate.breaker.release(self.passed)
        gone = CallError("cancelled", "nobody waited for the answer")
        if not isinstance(why, asyncio.CancelledError):
            gone = CallError("server", f"{type(why).__name__} while it was read")
        attempt = self.recorded(self.clock.monotonic() - self.started, None, gone)
        self._settle(attempt, paid=True)
        return attempt

    def ended(self, reply: Reply | None, error: CallError | None) -> Attempt:
        """It came to its end: the provider's breaker learns of it, and it is paid for."""
        gate, shown, now = self.target.gate, self.shown, self.clock.monotonic()
        latency_s = now - self.started
        kind = error.kind if error is not None else None
        waited_s = self.started - self.asked + (shown.given_s if shown is not None else 0.0)
        took_s = max(self.left_s, now - self.asked)
        if self.passed is not None and kind == "timeout" and waited_s > took_s / 2:
            gate.breaker.release(self.passed)  # for its turn here, or for its reader, mostly
        elif self.passed is not None:
            gate.learn(self.passed, kind, latency_s)
        attempt = self.recorded(latency_s, reply, error)
        self._settle(attempt, paid=error is None or not _is_unpaid(error))
        return attempt

    def recorded(self, latency_s: float, reply: Reply | None, error: CallError | None) -> Attempt:
        request, model = self.request, self.target.model
        said = reply.finish if reply else error if isinstance(error, FailedReply) else None
        usage = said.usage if said else Usage()
        return Attempt(
            provider=model.provider,
            model=model.name,
            served_model=said.served_model if said else None,
            error_kind=error.kind if error else None,
            finish_reason=reply.finish.finish_reason if reply else None,
            latency_ms=round(latency_s * 1000, 3),
            ttft_ms=reply.ttft_ms if reply else None,
            wait_ms=self.wait_s * 1000,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_prompt_tokens=usage.cached_prompt_tokens,
            cost_usd=_cost_usd(model, usage, error),
            max_tokens=request.max_tokens,
            reply=reply.text if reply and error else None,
        )

    def _settle(self, attempt: Attempt, *, paid: bool) -> None:
        if self.patience.allowance is not None and self.most is not None:
            self.patience.allowance.ended(self.most, attempt, paid=paid)


def _give_all_the_time(limit: asyncio.Timeout, patience: Patience, clock: Clock) -> None:
    """What has been shown is nobody else's to answer: no share of the time is left for others."""
    if patience.last is None or patience.attempt_s is not None:
        return
    left_s = max(0.0, patience.last - clock.monotonic())
    limit.reschedule(asyncio.get_running_loop().time() + left_s)


UNPAID = frozenset(
    {"rate_limit", "quota_exhausted", "server", "connect", "auth", "not_found", "breaker_open",
     "bad_request", "context_length", "budget"}
)  # fmt: skip
"""Refused before a model worked: these attempts cost nothing. Others without usage are unknown,
and so is a request that may have arrived before its connection was lost."""


def _is_unpaid(error: CallError) -> bool:
    """Whether no model worked; where some of an answer had come, one did."""
    return error.kind in UNPAID and not (error.had_begun or error.was_sent)


def _cost_usd(model: ModelSettings, usage: Usage, error: CallError | None) -> float | None:
    if error is not None and _is_unpaid(error) and usage.prompt_tokens is None:
        return 0.0
    return None if model.price is None else model.price.cost_usd(usage)


def _most_tokens(request: ModelRequest, target: Target) -> int:
    """What a request may use at most, where its provider's rate counts tokens."""
    if not target.gate.counts_tokens:
        return 0
    return target.tokens.estimate(request, target.model) + request.max_tokens


def _used(usage: Usage) -> int | None:
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    return usage.prompt_tokens + usage.completion_tokens
