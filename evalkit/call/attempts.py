"""The only retry loop: attempts on one model after another, under one deadline.

What is retried and what fails over stands in `failures.FAILURES`. Every attempt is
recorded and paid for, the failed ones too. The clock and the random source are
handed in, so that a test neither waits nor guesses.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evalkit.call.context import trim
from evalkit.call.failures import FAILURES
from evalkit.call.one_attempt import Clock, Outcome, Patience, Target, attempt
from evalkit.call.shown import Shown
from evalkit.config import ModelSettings
from evalkit.errors import CallError
from evalkit.frozen import frozen
from evalkit.records import Attempt, ModelRequest, Reply

BACKOFF_BASE_S = 0.25
BACKOFF_CAP_S = 8.0
MIN_MAX_TOKENS = 16
MAX_TRIMS = 5


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
        trimmed = trim(request.messages, follow_up=request.follow_up)
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
    cut_off: tuple[Outcome, int | None] | None = None
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
        trimmed = trim(request.messages, follow_up=request.follow_up)
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
) -> Outcome:
    """One request, or two when the first is late and the feature hedges.

    `cancelled` gets what was sent and not waited for to its end.
    """

    def one(wait_s: float) -> Coroutine[Any, Any, Outcome]:
        return attempt(
            request, target, patience=patience, clock=clock, wait_s=wait_s, shown=shown,
            cancelled=cancelled,
        )  # fmt: skip

    hedge_s = _hedge_s(patience, target)
    if hedge_s is None or shown is not None:
        return await one(wait_s)
    first = asyncio.create_task(one(wait_s))
    try:
        done, _ = await asyncio.wait({first}, timeout=hedge_s)
    except asyncio.CancelledError:
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        raise
    if done:
        return first.result()
    return await _first_answer(first, asyncio.create_task(one(0.0)), cancelled)


def _hedge_s(patience: Patience, target: Target) -> float | None:
    if patience.hedge_after_s == "p95":
        return target.gate.p95_s()
    return patience.hedge_after_s


async def _first_answer(
    first: asyncio.Task[Outcome], second: asyncio.Task[Outcome], cancelled: list[Attempt]
) -> Outcome:
    """The first usable answer of two; the other is stopped, and both are recorded.

    Where both failed, one that was not sent says nothing of how to go on.
    """
    pending = {first, second}
    ended: list[Outcome] = []
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            ended += [task.result() for task in done]
            if any(outcome.error is None for outcome in ended):
                break
    except asyncio.CancelledError:
        cancelled += [a for outcome in ended for a in outcome.attempts]
        raise
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    best = next((o for o in ended if o.error is None), None)
    best = best or next((o for o in ended if o.sent), ended[0])
    others = tuple(a for o in ended if o is not best for a in o.attempts)
    return Outcome(others + best.attempts, best.reply, best.error)
