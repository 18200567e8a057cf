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
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from evalkit.call.context import trim
from evalkit.call.failures import FAILURES
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
    from evalkit.call.allowance import Allowance

BACKOFF_BASE_S = 0.25
BACKOFF_CAP_S = 8.0
MIN_MAX_TOKENS = 16
MAX_TRIMS = 5
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


@frozen
class Tried:
    """How the attempts ended."""

    reply: Reply | None
    """The last complete reply; beside an error it is what cannot be used (truncated, empty)."""
    error: CallError | None
    """None when `reply` is a usable answer."""
    target: Target
    """Who was asked last."""
    attempts: tuple[Attempt, ...]
    cut: tuple[str, ...] = ()
    """What was left out of the request to make it fit."""
    reply_at: int | None = None
    """Place of the attempt that gave `reply`, counted over all attempts of the call."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one request, or a hedged pair, came to."""

    attempts: tuple[Attempt, ...]
    reply: Reply | None
    error: CallError | None
    sent: bool = True
    """False: refused before the provider was asked (a limit, the breaker, no place)."""


async def attempt_until_answered(
    request: ModelRequest,
    targets: Sequence[Target],
    *,
    patience: Patience,
    clock: Clock,
    shown: Shown | None = None,
    attempts: list[Attempt] | None = None,
) -> Tried:
    """Try `targets` in order until one gives a usable reply or the deadline passes.

    Targets share the time that is left, so that one that hangs leaves the next its part.
    `shown` receives the text as it comes. Once some of it has been shown, nothing is
    tried again, unless `shown` allows a continuation. `attempts` gets each attempt as soon
    as it ends, also when the caller is cancelled.
    """
    done = _Done(attempts=[] if attempts is None else attempts)
    first = len(done.attempts)
    answered_by, reply, error = targets[0], None, None
    for position, target in enumerate(targets):
        if not done.may_fit(target.model):
            continue
        answered_by = target
        done.cut.clear()
        ask = _made_to_fit(_addressed(request, target.model), target, done.cut)
        if shown is not None and shown.text:
            ask = shown.continued(ask)
        share = _share(patience, len(targets) - position, clock)
        reply, error = await _try_target(ask, target, done, share, clock, shown)
        if error is None or (shown is not None and shown.is_final(error)):
            break
        goes_on = FAILURES[error.kind].fail_over or error.kind in patience.also_fail_over
        if not goes_on:
            break
        if clock.monotonic() >= patience.deadline:
            error.own = True
            break
    return Tried(
        reply=reply,
        error=error,
        target=answered_by,
        attempts=tuple(done.attempts[first:]),
        cut=tuple(done.cut),
        reply_at=done.reply_at,
    )


def _share(patience: Patience, targets_left: int, clock: Clock) -> Patience:
    """What one target gets of the time that is left; the last one all of it."""
    if targets_left == 1:
        return replace(patience, ttft_s=None) if patience.ttft_s is not None else patience
    now = clock.monotonic()
    deadline = now + (patience.deadline - now) / targets_left
    return replace(patience, deadline=deadline, last=patience.deadline)


def _addressed(request: ModelRequest, model: ModelSettings) -> ModelRequest:
    """The request as this model gets it; a call's own parameters go over the model's."""
    params = {**model.params, **request.params}
    if model.id == request.model_id and params == request.params:
        return request
    return replace(request, model_id=model.id, params=params)


def _made_to_fit(request: ModelRequest, target: Target, cut: list[str]) -> ModelRequest:
    """The request without what this model has no room for; the next may have room for all."""
    context = target.model.context
    if context is None:
        return request
    tokens = target.tokens.estimate(request, target.model)
    while tokens + request.max_tokens > context:
        trimmed = trim(request.messages)
        if trimmed is None:
            break
        cut.append(trimmed.cut)
        request = replace(request, messages=trimmed.messages)
        tokens = target.tokens.estimate(request, target.model)
    return request


@dataclass(slots=True)
class _Done:
    """What one call has tried so far, over all targets."""

    attempts: list[Attempt] = field(default_factory=list)
    cut: list[str] = field(default_factory=list)
    too_long_for: int | None = None
    """Context of the model that the request did not fit."""
    reply_at: int | None = None
    """Place of the attempt that gave the last reply; None where the last one gave none."""

    def may_fit(self, model: ModelSettings) -> bool:
        if self.too_long_for is None or model.context is None:
            return True
        return model.context > self.too_long_for


async def _try_target(
    request: ModelRequest,
    target: Target,
    done: _Done,
    patience: Patience,
    clock: Clock,
    shown: Shown | None,
) -> tuple[Reply | None, CallError | None]:
    """Ask one target until it answers, has no repeat left, or no change could help."""
    failed: Counter[str] = Counter()
    ask: ModelRequest | None = request
    error: CallError | None = None
    cut_off: tuple[_Outcome, int | None] | None = None
    wait_s = 0.0
    while ask is not None:
        if wait_s > 0:
            await clock.sleep(wait_s)
        outcome = await _ask(ask, target, wait_s, patience, clock, shown, done.attempts)
        done.attempts += outcome.attempts
        done.reply_at = len(done.attempts) - 1 if outcome.reply is not None else None
        error = outcome.error
        if error is None or (shown is not None and shown.is_final(error)):
            break
        if error.kind == "truncated":
            cut_off = outcome, done.reply_at
        failed[error.kind] += 1
        wait_s = _wait_before_retry(error, failed.total() - 1, clock)
        if _is_spent(failed, error.kind, patience.retries):
            break
        if clock.monotonic() + wait_s >= patience.deadline:
            error.own = True
            break
        ask = _changed_for_retry(ask, error.kind, done.cut, shown)
    if cut_off is not None and error is not None and error.kind == "bad_request":
        # More room than the model has was asked for: what was wrong is the cut, not the setup.
        outcome, done.reply_at = cut_off
        error = outcome.error
    if error is not None and error.kind == "context_length":
        done.too_long_for = target.model.context
    return outcome.reply, error


def _is_spent(failed: Counter[str], kind: str, retries: int) -> bool:
    """Whether a target has no repeat left; making a request fit is not a repeat."""
    if kind == "context_length":
        return failed[kind] > MAX_TRIMS
    own = FAILURES[kind].retries
    repeats = failed.total() - failed["context_length"]
    return repeats > retries or (own is not None and failed[kind] > own)


def _changed_for_retry(
    request: ModelRequest, kind: str, cut: list[str], shown: Shown | None
) -> ModelRequest | None:
    """The next request on the same target; None when no change could help.

    Less is asked for after a timeout, more room given after a truncated answer; what
    is too long is trimmed; what was shown is continued.
    """
    if shown is not None and shown.text:
        return shown.continued(request)
    if kind == "timeout":
        return replace(request, max_tokens=max(MIN_MAX_TOKENS, request.max_tokens // 2))
    if kind == "truncated":
        return replace(request, max_tokens=request.max_tokens * 2)
    if kind == "context_length":
        trimmed = trim(request.messages)
        if trimmed is None:
            return None
        cut.append(trimmed.cut)
        return replace(request, messages=trimmed.messages)
    return request


def _wait_before_retry(error: CallError, tried: int, clock: Clock) -> float:
    """Full jitter on an exponential back-off; Retry-After is a floor with jitter on top."""
    if not FAILURES[error.kind].backs_off:
        return 0.0
    backoff_s: float = min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2**tried) * clock.jitter()
    return backoff_s + (error.retry_after_s or 0.0)


async def _ask(
    request: ModelRequest,
    target: Target,
    wait_s: float,
    patience: Patience,
    clock: Clock,
    shown: Shown | None,
    cancelled: list[Attempt],
) -> _Outcome:
    """One request, or two when the first is late and the feature hedges.

    `cancelled` gets what was sent and not waited for to its end.
    """
    hedge_s = _hedge_s(patience, target)
    if hedge_s is None or shown is not None:
        return await _attempt(request, target, wait_s, patience, clock, shown, cancelled)

    def another(wait_s: float) -> asyncio.Task[_Outcome]:
        asking = _attempt(request, target, wait_s, patience, clock, None, cancelled)
        return asyncio.create_task(asking)

    first = another(wait_s)
    try:
        done, _ = await asyncio.wait({first}, timeout=hedge_s)
    except asyncio.CancelledError:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        raise
    if done:
        return first.result()
    return await _first_answer(first, another(0.0), cancelled)


def _hedge_s(patience: Patience, target: Target) -> float | None:
    if patience.hedge_after_s == "p95":
        return target.gate.p95_s()
    return patience.hedge_after_s


async def _first_answer(
    first: asyncio.Task[_Outcome], second: asyncio.Task[_Outcome], cancelled: list[Attempt]
) -> _Outcome:
    """The first usable answer of two; the other is stopped, and both are recorded.

    Where both failed, one that was not sent says nothing of how to go on.
    """
    pending = {first, second}
    ended: list[_Outcome] = []
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            ended += [task.result() for task in done]
            if any(outcome.error is None for outcome in ended):
                break
    except asyncio.CancelledError:
        cancelled += [attempt for outcome in ended for attempt in outcome.attempts]
        raise
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    best = next((o for o in ended if o.error is None), None)
    best = best or next((o for o in ended if o.sent), ended[0])
    others = tuple(a for o in ended if o is not best for a in o.attempts)
    return _Outcome(others + best.attempts, best.reply, best.error)


async def _attempt(
    request: ModelRequest,
    target: Target,
    wait_s: float,
    patience: Patience,
    clock: Clock,
    shown: Shown | None,
    cancelled: list[Attempt],
) -> _Outcome:
    """Make one request; a failure comes back as a value, cancellation passes through.

    None is made when no time is left: what took it says nothing of the provider.
    """
    gate, asked = target.gate, clock.monotonic()
    if asked >= patience.deadline:
        late = CallError("timeout", "no time was left to ask a model")
        return _Outcome((), None, late, sent=False)
    started = asked
    passed: int | None = None
    """The breaker's pass; None as long as nothing has been sent."""
    reply: Reply | None = None
    error: CallError | None
    if gate.breaker.is_shut:
        error = CallError("breaker_open", f"{target.model.provider} is not asked for a while")
        unsent = _recorded(request, target, wait_s, 0.0, None, error)
        return _Outcome((unsent,), None, error, sent=False)
    allowance, most = patience.allowance, None
    if allowance is not None:
        try:
            left_s = patience.deadline - asked
            most = await allowance.take(request, target.model, wait_s=left_s)
        except CallError as over:
            unsent = _recorded(request, target, wait_s, 0.0, None, over)
            return _Outcome((unsent,), None, over, sent=False)
    left_s = patience.deadline - clock.monotonic()
    left_s = min(left_s, patience.attempt_s or left_s)
    if shown is not None:
        shown.given_s = 0.0
    try:
        async with asyncio.timeout(left_s) as limit:
            if shown is not None:
                shown.on_first = partial(_give_all_the_time, limit, patience, clock)
            tokens, used_tokens = _most_tokens(request, target), None
            passed = await gate.enter(tokens, deadline=patience.deadline)
            try:
                started = clock.monotonic()
                reply = await read_reply(
                    request,
                    target.provider,
                    ttft_s=patience.ttft_s,
                    idle_s=patience.idle_s,
                    monotonic=clock.monotonic,
                    shown=shown,
                )
                used_tokens = _used(reply.finish.usage)
                target.tokens.learn(request, target.model, reply.finish.usage)
            finally:
                gate.leave(tokens, used_tokens)
        error = unusable(reply)
    except TimeoutError:
        error = _late(target, sent=passed is not None)
    except CallError as failure:
        error = failure
    except BaseException as unexpected:
        if passed is not None:
            gate.breaker.release(passed)
            gone = CallError("cancelled", "nobody waited for the answer")
            if not isinstance(unexpected, asyncio.CancelledError):
                gone = CallError("server", f"{type(unexpected).__name__} while it was read")
            spent_s = clock.monotonic() - started
            cancelled.append(_recorded(request, target, wait_s, spent_s, None, gone))
            if allowance is not None and most is not None:
                allowance.ended(most, cancelled[-1], paid=True)
        raise
    finally:
        if shown is not None:
            shown.on_first = None  # what is shown later is on no attempt's clock
    if error is not None and shown is not None:
        await shown.complete()
        shown.start_again()
    latency_s = clock.monotonic() - started
    kind = error.kind if error is not None else None
    waited_s = started - asked + (shown.given_s if shown is not None else 0.0)
    took_s = max(left_s, clock.monotonic() - asked)
    if passed is not None and kind == "timeout" and waited_s > took_s / 2:
        gate.breaker.release(passed)  # for its turn here, most of its time, or for its reader
    elif passed is not None:
        gate.learn(passed, kind, latency_s)
    attempt = _recorded(request, target, wait_s, latency_s, reply, error)
    if allowance is not None and most is not None:
        allowance.ended(most, attempt, paid=error is None or not _is_unpaid(error))
    return _Outcome((attempt,), reply, error, sent=passed is not None)


def _give_all_the_time(limit: asyncio.Timeout, patience: Patience, clock: Clock) -> None:
    """What has been shown is nobody else's to answer: no share of the time is left for others."""
    if patience.last is None or patience.attempt_s is not None:
        return
    left_s = max(0.0, patience.last - clock.monotonic())
    limit.reschedule(asyncio.get_running_loop().time() + left_s)


def _late(target: Target, *, sent: bool) -> CallError:
    """The time is up; what waited for its turn all along says nothing of the provider."""
    provider = target.model.provider
    late = CallError("timeout", f"no complete answer from {provider} in time")
    if not sent:
        late = CallError("rate_limit", f"all places at {provider} were taken until the deadline")
    late.own = True
    return late


def _recorded(
    request: ModelRequest,
    target: Target,
    wait_s: float,
    latency_s: float,
    reply: Reply | None,
    error: CallError | None,
) -> Attempt:
    said = reply.finish if reply else error if isinstance(error, FailedReply) else None
    usage = said.usage if said else Usage()
    return Attempt(
        provider=target.model.provider,
        model=target.model.name,
        served_model=said.served_model if said else None,
        error_kind=error.kind if error else None,
        finish_reason=reply.finish.finish_reason if reply else None,
        latency_ms=round(latency_s * 1000, 3),
        ttft_ms=reply.ttft_ms if reply else None,
        wait_ms=wait_s * 1000,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        cached_prompt_tokens=usage.cached_prompt_tokens,
        cost_usd=_cost_usd(target.model, usage, error),
        max_tokens=request.max_tokens,
        reply=reply.text if reply and error else None,
    )


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
