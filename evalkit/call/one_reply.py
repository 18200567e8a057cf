"""Read one reply to its end, and say whether it is an answer.

What a provider sends until its `Finish`, within the limits of time between two pieces.
Failures are kinds of the failure table.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from evalkit.call.providers.base import Provider
from evalkit.call.shown import Shown
from evalkit.errors import CallError
from evalkit.records import Event, ModelRequest, Reply, TextDelta

MAX_REPLY_CHARS = 10_000_000


async def read_reply(
    request: ModelRequest,
    provider: Provider,
    *,
    ttft_s: float | None,
    idle_s: float,
    monotonic: Callable[[], float],
    shown: Shown | None,
) -> Reply:
    """Read one reply to its end; no `Finish` means the stream was cut.

    `shown` gets the text as it comes. Raises CallError for what is no whole reply.
    """
    started = monotonic()
    pieces: list[str] = []
    size = 0
    ttft_ms: float | None = None
    stall_s = idle_s if request.stream else None
    try:
        async with aclosing(provider.stream(request)) as events:
            event = await _next_event(events, ttft_s, "ttft_timeout", "no first token within")
            while isinstance(event, TextDelta):
                if ttft_ms is None:
                    ttft_ms = round((monotonic() - started) * 1000, 3)
                size += len(event.text)
                if size > MAX_REPLY_CHARS:
                    raise CallError(
                        "too_large", f"the answer passed {MAX_REPLY_CHARS:,} characters"
                    )
                pieces.append(event.text)
                if shown is not None:
                    await shown.add(event.text)
                event = await _next_event(events, stall_s, "stream_cut", "the answer stalled for")
    except CallError as error:
        error.had_begun = ttft_ms is not None
        raise
    if event is None:
        raise CallError("stream_cut", "the answer ended without a finish_reason")
    if shown is not None:
        await shown.complete()
    return Reply(
        text=shown.text if shown is not None else "".join(pieces),
        finish=event,
        latency_ms=(monotonic() - started) * 1000,
        ttft_ms=ttft_ms if request.stream else None,
    )


def unusable(reply: Reply) -> CallError | None:
    """A complete reply that is no answer: cut at max_tokens, filtered, or empty."""
    finish = reply.finish
    if finish.finish_reason == "length":
        return CallError("truncated", "the answer was cut at max_tokens")
    if finish.finish_reason == "content_filter":
        return CallError("content_filter", "the provider's content filter withheld the answer")
    if not reply.text.strip() and not finish.tool_calls:
        return CallError("empty", "the answer was empty")
    return None


async def _next_event(
    events: AsyncGenerator[Event, None], within_s: float | None, kind: str, missed: str
) -> Event | None:
    if within_s is None:
        return await anext(events, None)
    try:
        async with asyncio.timeout(within_s):
            return await anext(events, None)
    except TimeoutError:
        raise CallError(kind, f"{missed} {within_s:g} s") from None
