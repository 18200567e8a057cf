"""An application behind HTTP: the feature's input goes in as JSON, its answer comes out.

For evaluating a whole product from outside: no prompt, no tokens, no price. The reply is
the answer, or holds it where `output_pointer` says.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

from evalkit.call.providers.replies import mended, read_json
from evalkit.call.providers.requests import read_options, write_json
from evalkit.call.providers.transport import HttpTransport
from evalkit.config import ProviderSettings
from evalkit.errors import CallError
from evalkit.records import Event, Finish, ModelRequest, TextDelta, Usage


class HttpProvider:
    """POSTs to `base_url` itself."""

    def __init__(self, settings: ProviderSettings) -> None:
        read_options(settings, {})
        # An application may say that it made something (201): that is its answer.
        self._http = HttpTransport(settings, path="", good=range(200, 300))
        self._pointer = settings.output_pointer

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
        with await self._http.post(write_json(request.input)) as reply:
            body = await reply.body()
        answer = self._answer(body)
        if answer:
            yield TextDelta(answer)
        yield Finish(finish_reason="stop", usage=Usage(), served_model=None)

    async def aclose(self) -> None:
        await self._http.aclose()

    def _answer(self, body: bytes) -> str:
        if self._pointer is not None:
            return as_text(value_at(read_json(body), self._pointer))
        try:
            answer = body.decode("utf-8")
        except UnicodeDecodeError:
            raise CallError("bad_reply", "the reply is not UTF-8") from None
        return as_text(read_json(answer)) if answer.startswith('"') else answer


def as_text(value: Any) -> str:
    """An answer as text: text as it is, nothing as nothing, other values as JSON."""
    if value is None:
        return ""
    return mended(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def value_at(value: Any, pointer: str) -> Any:
    """What stands at a JSON pointer (RFC 6901). Raises CallError(bad_reply) when nothing does."""
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key[:9]) < len(value):
            value = value[int(key[:9])]
        else:
            raise CallError("bad_reply", f"the reply has nothing at output_pointer {pointer}")
    return value
