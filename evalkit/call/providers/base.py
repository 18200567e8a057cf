"""The one seam to a model: a request in, events out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from evalkit.errors import CallError
from evalkit.records import Event, ModelRequest, Usage


class FailedReply(CallError):
    """A reply that came to its end and is no answer (a refusal); it is paid for as it says."""

    def __init__(self, kind: str, message: str, *, usage: Usage, served_model: str | None) -> None:
        super().__init__(kind, message)
        self.usage = usage
        self.served_model = served_model


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
