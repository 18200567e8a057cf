"""The one seam to a model: a request in, events out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from evalkit.records import Event, ModelRequest


class Provider(Protocol):
    """Speaks one wire. Raises `CallError` with a kind of the failure table, never retries."""

    def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
        """Yield `TextDelta`s in order, then exactly one `Finish`.

        Ending without a `Finish` is a failed stream. With `request.stream` false the
        provider may answer in one piece.
        """
        ...

    async def aclose(self) -> None:
        """Close connections; called once, when the orchestrator closes."""
        ...
