"""Ask a provider of any wire, and take its events together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from evalkit.call.providers import build_provider
from evalkit.call.providers.base import Provider
from evalkit.config import ProviderSettings
from evalkit.errors import CallError
from evalkit.records import Finish, ModelRequest, TextDelta
from tests.loopback import Loopback

KEY_NAME = "LOOPBACK_API_KEY"
KEY = "sk-loopback-0123456789abcdef"
PATHS = {"openai": "/v1", "anthropic": "", "http": "/app"}
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["billing", "other"]}},
    "required": ["label"],
    "additionalProperties": False,
}


def a_request(**changes: Any) -> ModelRequest:
    values: dict[str, Any] = {
        "model_id": "m-1",
        "messages": ({"role": "user", "content": "Where is my parcel?"},),
        "max_tokens": 64,
    }
    return ModelRequest(**(values | changes))


@asynccontextmanager
async def provider_of(
    wire: str, server: Loopback | None = None, **settings: Any
) -> AsyncIterator[Provider]:
    """A provider of `wire`, whose server is the loopback unless `base_url` says another."""
    values = {"name": "loop", "wire": wire, **settings}
    if server is not None:
        values["base_url"] = server.url + PATHS[wire]
    provider = build_provider(ProviderSettings(**values))
    try:
        yield provider
    finally:
        await provider.aclose()


async def ask(provider: Provider, **changes: Any) -> tuple[str, Finish]:
    """The whole text and the finish; the events must come in the agreed order."""
    events = [event async for event in provider.stream(a_request(**changes))]
    *pieces, finish = events
    assert isinstance(finish, Finish)
    assert all(isinstance(piece, TextDelta) for piece in pieces)
    return "".join(piece.text for piece in pieces), finish  # type: ignore[union-attr]


async def failure(provider: Provider, **changes: Any) -> CallError:
    with pytest.raises(CallError) as caught:
        await ask(provider, **changes)
    return caught.value


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does; fails after a minute."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - another thread sets no asyncio.Event
            await asyncio.sleep(0.001)
