"""The OpenAI chat completions wire; most other servers and gateways speak it too.

Requests of ours to bodies of theirs, replies of theirs (whole, or streamed as events) to
our events. A reply without a finish_reason is a cut one, whatever its status.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from evalkit.call.providers.base import FailedReply
from evalkit.call.providers.replies import (
    count,
    items,
    mapping,
    mended,
    quoted,
    raise_if_error,
    read_event,
    text,
    text_or_none,
)
from evalkit.call.providers.requests import Remembered, is_closed, read_options, write_json
from evalkit.call.providers.transport import HttpTransport
from evalkit.config import ProviderSettings
from evalkit.errors import CallError
from evalkit.records import Event, Finish, ModelRequest, TextDelta, ToolCall, Usage

MAX_TOOL_CALLS = 128

TOKEN_FIELDS = ("max_tokens", "max_completion_tokens")
OPTIONS: dict[str, tuple[Any, ...]] = {
    "max_tokens_field": (None, *TOKEN_FIELDS),
    "structured": ("json_schema", "json_object", "off"),
    "stream_usage": (True, False),
    "logprobs": (True, False),
}
"""Option -> its values, the default first. `max_tokens_field`: what the server knows it by;
None takes `max_completion_tokens` at OpenAI itself. `stream_usage`: ask for token counts of
streams, which some servers refuse. `logprobs`: ask for the probabilities of tokens where a
confidence is needed, which some models refuse."""

SIGNS_OF_LIFE = ("tool_calls", "reasoning_content", "reasoning")
"""What a model writes that is no text of the answer, and no silence either."""

FINISH_REASONS: dict[str, str] = {
    "stop": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
"""Their word -> ours; any other is no sound end."""


class OpenAIProvider:
    """Chat completions at `base_url`/chat/completions."""

    def __init__(self, settings: ProviderSettings) -> None:
        self._http = HttpTransport(settings, path="/chat/completions")
        options = read_options(settings, OPTIONS)
        self._structured: str = options["structured"]
        self._formats = Remembered(self._format)
        self._stream_usage: bool = options["stream_usage"]
        self._logprobs: bool = options["logprobs"]
        at_openai = urlsplit(self._http.url).hostname == "api.openai.com"
        self._max_tokens_field: str = options["max_tokens_field"] or (
            "max_completion_tokens" if at_openai else "max_tokens"
        )

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
        with await self._http.post(write_json(self.body(request))) as reply:
            reading = _Reading(reply.secrets)
            if not await reply.is_events(asked=request.stream):
                for event in reading.whole(await reply.json()):
                    yield event
                return
            while (events := await reply.events()) is not None:
                for sent in events:
                    for piece in reading.take(sent.data, sent.name):
                        yield piece
                if reading.done:
                    await reply.drain()
                    break
            for last in reading.end():
                yield last

    def events(
        self, body: Mapping[str, Any], reply: Any, *, secrets: tuple[str, ...]
    ) -> Iterator[Event]:
        """The events of a whole reply to `body`, whichever way it came."""
        return _Reading(secrets).whole(reply)

    async def aclose(self) -> None:
        await self._http.aclose()

    def body(self, request: ModelRequest) -> dict[str, Any]:
        """The request as this wire has it; a line of a batch file has the same."""
        body: dict[str, Any] = {
            **request.params,
            "model": request.model_id,
            "messages": request.messages,
        }
        for name in TOKEN_FIELDS:
            body.pop(name, None)  # of a model's own params: the cap is the feature's
        body[self._max_tokens_field] = request.max_tokens
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.seed is not None:
            body["seed"] = request.seed
        if request.response_schema is not None and self._structured != "off":
            body["response_format"] = self._formats(request.response_schema)
        if request.tools:
            body["tools"] = [_tool(tool) for tool in request.tools]
        if request.wants_confidence and self._logprobs:
            body.setdefault("logprobs", True)
        if request.stream:
            body["stream"] = True
            if self._stream_usage:
                body["stream_options"] = {"include_usage": True}
        return body

    def _format(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Strict where the schema is closed, as the documentation asks; else a strong hint."""
        if self._structured == "json_object":
            return {"type": "json_object"}
        name = re.sub(r"[^A-Za-z0-9_-]", "_", str(schema.get("title") or "answer"))[:64]
        wanted = {"name": name, "strict": is_closed(schema), "schema": schema}
        return {"type": "json_schema", "json_schema": wanted}


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    return tool if "type" in tool else {"type": "function", "function": tool}


class _Reading:
    """One reply while it is read."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self.done = False
        self._secrets = secrets
        self._index: Any = None
        self._reason: str | None = None
        self._model: str | None = None
        self._usage = Usage()
        self._calls: dict[int, list[str]] = {}
        self._refusal: list[str] = []
        self._half = ""
        self._logprob_sum = 0.0
        self._logprob_count = 0

    def whole(self, value: Any) -> Iterator[Event]:
        """The events of a reply that came in one piece."""
        raise_if_error(value, secrets=self._secrets)
        body = mapping(value, "the body")
        choices = items(body.get("choices"), "choices")
        if not choices:
            raise CallError("bad_reply", "choices of the reply is empty")
        choice = mapping(choices[0], "choices[0]")
        message = mapping(choice.get("message"), "message")
        self._about(body)
        yield from self._choice(choice, message)
        yield from self.end()

    def take(self, data: str, name: str = "") -> Iterator[TextDelta]:
        """The text of one event of a stream."""
        if self.done:
            return
        if data.strip() == "[DONE]":
            self.done = True
            return
        value = read_event(data, name, secrets=self._secrets)
        chunk = mapping(value, "an event")
        self._about(chunk)
        for item in items(chunk.get("choices") or [], "choices")[:1]:
            choice = mapping(item, "choices[0]")
            index = choice.get("index") or 0
            self._index = index if self._index is None else self._index
            if index != self._index:
                continue  # another answer, which nobody asked for
            delta = mapping(choice.get("delta") or {}, "delta")
            yield from self._choice(choice, delta)
            if any(delta.get(name) for name in SIGNS_OF_LIFE):
                yield TextDelta("")

    def end(self) -> Iterator[Event]:
        """What is left to say when nothing more comes."""
        if self._half:
            yield TextDelta("�")
        if self._refusal:
            raise self._failed("refusal", "the model refused to answer")
        if self._reason is None:
            raise CallError("stream_cut", "the reply ended without a finish_reason")
        if self._reason == "error":
            raise self._failed("server", "the reply ended with finish_reason error")
        if self._reason not in FINISH_REASONS:
            raise self._failed(
                "bad_reply", f"unknown finish_reason: {quoted(self._reason, self._secrets)}"
            )
        n = self._logprob_count
        yield Finish(
            finish_reason=FINISH_REASONS[self._reason],
            usage=self._usage,
            served_model=self._model,
            tool_calls=tuple(
                ToolCall(id=call[0], name=call[1], arguments="".join(call[2:]) or "{}")
                for call in self._calls.values()
            ),
            confidence=min(1.0, math.exp(self._logprob_sum / n)) if n else None,
        )

    def _failed(self, kind: str, message: str) -> FailedReply:
        return FailedReply(kind, message, usage=self._usage, served_model=self._model)

    def _about(self, body: Mapping[str, Any]) -> None:
        self._model = text_or_none(body.get("model")) or self._model
        usage = body.get("usage")
        if usage is None and isinstance(body.get("x_groq"), dict):
            usage = body["x_groq"].get("usage")
        if isinstance(usage, dict):
            details = usage.get("prompt_tokens_details")
            cached = details.get("cached_tokens") if isinstance(details, dict) else None
            self._usage = Usage(
                prompt_tokens=count(usage.get("prompt_tokens")),
                completion_tokens=count(usage.get("completion_tokens")),
                cached_prompt_tokens=count(cached),
            )

    def _choice(self, choice: Mapping[str, Any], message: Mapping[str, Any]) -> Iterator[TextDelta]:
        """Take in a choice; `message` is its message, or a stream's delta."""
        reason = choice.get("finish_reason")
        if reason is not None:
            self._reason = text(reason, "finish_reason")
        if message.get("refusal"):
            self._refusal.append(text(message["refusal"], "refusal"))
        for index, call in enumerate(items(message.get("tool_calls") or [], "tool_calls")):
            self._tool_call(mapping(call, "a tool call"), index)
        if choice.get("logprobs"):
            self._logprobs(mapping(choice["logprobs"], "logprobs"))
        content = self._content(message.get("content"))
        if content:
            yield TextDelta(content)

    def _content(self, content: Any) -> str:
        """Text of a content: text, nothing, or a list of parts.

        Half a surrogate pair at the end waits for its other half: some servers cut there.
        """
        if content is None or content == "":
            return ""
        if isinstance(content, list):
            parts = [mapping(part, "a content part") for part in content]
            content = "".join(text(p["text"], "text") for p in parts if "text" in p)
        if not isinstance(content, str):
            raise CallError("bad_reply", "content of the reply is not text")
        if content.isascii() and not self._half:
            return content
        content, self._half = self._half + content, ""
        if "\ud800" <= content[-1] <= "\udbff":
            content, self._half = content[:-1], content[-1]
        return mended(content)

    def _tool_call(self, call: Mapping[str, Any], position: int) -> None:
        index = call.get("index")
        if not isinstance(index, int):
            # Servers that number nothing send every call whole.
            index = len(self._calls) if call.get("id") else position
        function = mapping(call.get("function") or {}, "function")
        if index not in self._calls:
            if len(self._calls) >= MAX_TOOL_CALLS:
                raise CallError("bad_reply", f"more than {MAX_TOOL_CALLS} tool calls")
            self._calls[index] = ["", ""]
        parts = self._calls[index]
        parts[0] = text_or_none(call.get("id")) or parts[0]
        parts[1] = text_or_none(function.get("name")) or parts[1]
        if function.get("arguments"):
            parts.append(text(function["arguments"], "arguments"))

    def _logprobs(self, logprobs: Mapping[str, Any]) -> None:
        for token in items(logprobs.get("content") or [], "logprobs.content"):
            value = mapping(token, "a logprob").get("logprob")
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                self._logprob_sum += max(float(value), -1000.0)
                self._logprob_count += 1
