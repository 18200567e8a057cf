"""Every row of the failure table: how often it is retried, and whether it fails over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from evalkit.call.attempts import Tried, attempt_until_answered
from evalkit.call.failures import FAILURES
from evalkit.call.limits import ProviderGate
from evalkit.call.one_attempt import Patience, Target
from evalkit.call.shown import Shown
from evalkit.config import ModelSettings, Price
from evalkit.errors import CallError
from evalkit.records import Attempt, Event, ModelRequest, TextDelta
from tests.call.scripted import ManualClock, Scripted, answer, finish

REQUEST = ModelRequest(
    model_id="", messages=({"role": "user", "content": "Where is it?"},), max_tokens=64
)


def target(provider: Scripted, name: str = "small", price: Price | None = None) -> Target:
    model = ModelSettings(name=name, provider="p", id=f"{name}-id", price=price)
    gate = ProviderGate(max_in_flight=10, monotonic=time.monotonic)
    return Target(model=model, provider=provider, gate=gate)


async def attempt(
    *targets: Target,
    clock: ManualClock,
    retries: int = 2,
    within_s: float = 60.0,
    request: ModelRequest = REQUEST,
    shown: Shown | None = None,
    attempts: list[Attempt] | None = None,
    **patience: Any,
) -> Tried:
    return await attempt_until_answered(
        request,
        targets,
        patience=Patience(retries=retries, deadline=clock.now + within_s, **patience),
        clock=clock.clock(),
        shown=shown,
        attempts=attempts,
    )


async def test_a_usable_answer_is_one_attempt() -> None:
    clock, provider = ManualClock(), Scripted([answer("Tomorrow.")])

    tried = await attempt(target(provider), clock=clock)

    assert tried.reply is not None
    assert tried.reply.text == "Tomorrow."
    assert tried.error is None
    assert len(tried.attempts) == 1
    assert clock.slept == []
    assert provider.asked[0].model_id == "small-id"


@pytest.mark.parametrize(
    ("kind", "requests"),
    [
        ("rate_limit", 3),
        ("quota_exhausted", 1),
        ("server", 3),
        ("connect", 2),
        ("timeout", 3),
        ("stream_cut", 3),
        ("bad_reply", 2),
        ("too_large", 1),
        ("bad_request", 1),
        ("auth", 1),
        ("not_found", 1),
        ("context_length", 1),
        ("refusal", 1),
        ("unsupported", 1),
    ],
)
async def test_each_kind_is_retried_as_often_as_its_row_says(kind: str, requests: int) -> None:
    clock, provider = ManualClock(), Scripted([CallError(kind, "scripted")])

    tried = await attempt(target(provider), clock=clock, retries=2)

    assert len(provider.asked) == requests
    assert [a.error_kind for a in tried.attempts] == [kind] * requests
    assert tried.error is not None
    assert tried.error.kind == kind


@pytest.mark.parametrize("kind", sorted(FAILURES))
async def test_each_kind_fails_over_when_its_row_says_so(kind: str) -> None:
    clock = ManualClock()
    first, second = Scripted([CallError(kind, "scripted")]), Scripted([answer("Here.")])

    tried = await attempt(target(first), target(second, "other"), clock=clock)

    assert bool(second.asked) is FAILURES[kind].fail_over
    assert (tried.error is None) is FAILURES[kind].fail_over
    if FAILURES[kind].fail_over:
        assert tried.target.model.name == "other"
        assert second.asked[0].model_id == "other-id"


async def test_retry_after_is_a_floor_with_jitter_on_top() -> None:
    clock = ManualClock(draw=0.5)
    busy = CallError("rate_limit", "scripted", retry_after_s=3.0)
    provider = Scripted([busy, answer("Done.")])

    tried = await attempt(target(provider), clock=clock)

    assert tried.error is None
    assert clock.slept == [pytest.approx(3.125)]
    assert tried.attempts[1].wait_ms == pytest.approx(3125)


async def test_a_wait_past_the_deadline_fails_over_at_once() -> None:
    clock = ManualClock()
    busy = CallError("rate_limit", "scripted", retry_after_s=30.0)
    first, second = Scripted([busy]), Scripted([answer("Here.")])

    tried = await attempt(target(first), target(second, "other"), clock=clock, within_s=10.0)

    assert tried.error is None
    assert len(first.asked) == 1
    assert clock.slept == []


async def test_no_attempt_starts_after_the_deadline() -> None:
    clock = ManualClock()
    slow = Scripted([CallError("server", "scripted")], clock=clock, takes_s=6.0)
    spare = Scripted([answer("Too late.")])

    tried = await attempt(target(slow), target(spare, "other"), clock=clock, within_s=5.0)

    assert len(slow.asked) == 1
    assert spare.asked == []
    assert tried.error is not None


async def test_no_time_left_is_no_attempt_and_no_fault_of_the_provider() -> None:
    model, asked = Scripted([answer("Too late.")]), []
    one = target(model)

    for _ in range(10):
        tried = await attempt(one, clock=ManualClock(), within_s=0.0, attempts=asked)

    assert tried.error is not None
    assert (tried.error.kind, asked, model.asked) == ("timeout", [], [])
    assert one.gate.breaker.state == "closed"


async def test_a_target_that_fails_slowly_leaves_the_next_its_share_of_the_time() -> None:
    clock = ManualClock()
    slow = Scripted([CallError("server", "scripted")], clock=clock, takes_s=6.0)
    spare = Scripted([answer("Just in time.")])

    tried = await attempt(target(slow), target(spare, "other"), clock=clock, within_s=10.0)

    assert len(slow.asked) == 1
    assert tried.error is None
    assert tried.target.model.name == "other"


async def test_attempts_are_handed_over_also_when_the_caller_is_cancelled() -> None:
    answered, seen = asyncio.Event(), []

    class Stuck(Scripted):
        async def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
            self.asked.append(request)
            if len(self.asked) == 1:
                raise CallError("server", "scripted")
            answered.set()
            await asyncio.Event().wait()
            yield TextDelta("never")

    clock = ManualClock()
    trying = asyncio.create_task(attempt(target(Stuck([])), clock=clock, attempts=seen))
    await answered.wait()
    trying.cancel()
    await asyncio.wait({trying})

    assert [a.error_kind for a in seen] == ["server", "cancelled"]
    assert seen[1].cost_usd is None


async def test_a_timeout_asks_for_fewer_tokens() -> None:
    clock, provider = ManualClock(), Scripted([CallError("timeout", "scripted")])

    await attempt(target(provider), clock=clock)

    assert [r.max_tokens for r in provider.asked] == [64, 32, 16]


async def test_a_truncated_answer_is_asked_for_once_more_with_room() -> None:
    clock, provider = ManualClock(), Scripted([answer("It is", "length")])

    tried = await attempt(target(provider), clock=clock)

    assert [r.max_tokens for r in provider.asked] == [64, 128]
    assert tried.error is not None
    assert tried.error.kind == "truncated"


async def test_an_answer_stays_truncated_when_the_provider_refuses_more_room() -> None:
    clock = ManualClock()
    provider = Scripted([answer("It will", "length"), CallError("bad_request", "max_tokens")])

    tried = await attempt(target(provider), clock=clock)

    assert tried.error is not None
    assert tried.error.kind == "truncated"
    assert tried.reply is not None
    assert tried.reply.text == "It will"
    assert tried.reply_at == 0
    assert [a.error_kind for a in tried.attempts] == ["truncated", "bad_request"]


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ((TextDelta("half an answer"),), "stream_cut"),
        ((), "stream_cut"),
        ((TextDelta("  \n"), finish()), "empty"),
        ((finish(),), "empty"),
        (answer("…", "content_filter"), "content_filter"),
    ],
)
async def test_a_reply_that_is_no_answer_is_a_failure(events: tuple, kind: str) -> None:
    clock, provider = ManualClock(), Scripted([events])

    tried = await attempt(target(provider), clock=clock, retries=0)

    assert tried.error is not None
    assert tried.error.kind == kind


async def test_failed_attempts_are_paid_where_tokens_were_used() -> None:
    clock, price = ManualClock(), Price(input=1.0, output=2.0)
    provider = Scripted([CallError("server", "x"), answer("It", "length"), answer("It is here.")])

    tried = await attempt(target(provider, price=price), clock=clock)

    assert [a.cost_usd for a in tried.attempts] == [0.0, 0.00012, 0.00012]


async def test_an_unknown_price_is_unknown_and_not_zero() -> None:
    clock, provider = ManualClock(), Scripted([answer("Here.")])

    tried = await attempt(target(provider), clock=clock)

    assert tried.attempts[0].cost_usd is None


async def test_an_attempt_that_no_model_worked_on_is_free_whatever_the_price() -> None:
    clock, down = ManualClock(), Scripted([CallError("server", "down")])
    dear = target(Scripted([answer("Here.")]), "dear", price=Price(input=1.0, output=2.0))

    tried = await attempt(target(down), dear, clock=clock, retries=0)

    assert [a.cost_usd for a in tried.attempts] == [0.0, 0.00012]


async def test_cancelling_the_caller_cancels_the_attempt() -> None:
    hanging = asyncio.Event()

    class Hanging(Scripted):
        async def stream(self, request):
            hanging.set()
            await asyncio.Event().wait()
            yield finish()

    provider = Hanging([])
    clock = ManualClock()
    task = asyncio.create_task(attempt(target(provider), clock=clock))
    await hanging.wait()

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
