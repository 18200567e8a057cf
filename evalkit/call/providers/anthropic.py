"""The Anthropic messages wire.

Messages come in the chat completions shape and are rewritten: system apart, tool calls
and results as blocks. A schema is sent as `output_config.format` where constrained
decoding takes it, else as a tool the model has to call.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

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
from evalkit.records import Event, Finish, Message, ModelRequest, TextDelta, ToolCall, Usage

VERSION = "2023-06-01"
ANSWER_TOOL = "answer"
FORCED = {"type": "tool", "name": ANSWER_TOOL}
MAX_BLOCKS = 1000

OPTIONS: dict[str, tuple[Any, ...]] = {
    "structured": ("auto", "output_config", "tool", "off"),
    "cache": (True, False),
}
"""Option -> its values, the default first. `structured = "tool"` is for models before
constrained decoding; `cache` marks tools and system prompt for the provider's prompt cache."""

UNCONSTRAINED = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength",
     "maxLength", "maxItems", "uniqueItems", "minProperties", "maxProperties", "oneOf", "not",
     "if", "patternProperties", "propertyNames", "contains", "dependentRequired"}
)  # fmt: skip
"""Keywords that constrained decoding refuses."""

FINISH_REASONS: dict[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
}
"""Their stop_reason -> ours; `refusal` is an error of that kind, any other no sound end."""


def anthropic_http(settings: ProviderSettings, path: str) -> HttpTransport:
    """Connections to `path` below /v1, whether `base_url` ends with that or not."""
    versioned = (settings.base_url or "").rstrip("/").endswith("/v1")
    return HttpTransport(
        settings,
        path=path if versioned else f"/v1{path}",
        key_header="x-api-key",
        key_prefix="",
        headers={"anthropic-version": VERSION},
    )


class AnthropicProvider:
    """Messages at `base_url`/v1/messages."""

    def __init__(self, settings: ProviderSettings) -> None:
        self._http = anthropic_http(settings, "/messages")
        options = read_options(settings, OPTIONS)
        self._structured: str = options["structured"]
        self._cache: bool = options["cache"]
        self._constrains = Remembered(partial(is_closed, refused=UNCONSTRAINED, all_required=False))

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
        body = self.body(request)
        with await self._http.post(write_json(body)) as reply:
            reading = _Reading(reply.secrets, answer_tool=body.get("tool_choice") is FORCED)
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
        return _Reading(secrets, answer_tool=body.get("tool_choice") is FORCED).whole(reply)

    async def aclose(self) -> None:
        await self._http.aclose()

    def body(self, request: ModelRequest) -> dict[str, Any]:
        """The request as this wire has it; a line of a batch file has the same."""
        system, messages = split_system(request.messages)
        body: dict[str, Any] = {
            **request.params,
            "model": request.model_id,
            "max_tokens": request.max_tokens,
            "messages": messages,
        }
        if system:
            if self._cache:
                system[-1] = {**system[-1], "cache_control": {"type": "ephemeral"}}
            body["system"] = system
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.tools:
            body["tools"] = [_tool(tool) for tool in request.tools]
        if request.response_schema is not None:
            self._ask_for(request.response_schema, body)
        if request.stream:
            body["stream"] = True
        return body

    def _ask_for(self, schema: Mapping[str, Any], body: dict[str, Any]) -> None:
        """Add the schema of the answer to a request, in the way that is to be used."""
        way = self._structured
        if way == "auto":
            way = "output_config" if self._constrains(schema) else "tool"
        if way == "output_config":
            wanted = {"type": "json_schema", "schema": schema}
            body["output_config"] = {**body.get("output_config", {}), "format": wanted}
        elif way == "tool":
            tool = {
                "name": ANSWER_TOOL,
                "description": "Give the answer.",
                "input_schema": schema,
            }
            body["tools"] = [*body.get("tools", ()), tool]
            body["tool_choice"] = FORCED


# --- requests: from the chat completions shape ----------------------------------------


def split_system(messages: Sequence[Message]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """System blocks, and the other messages with their contents as blocks."""
    system: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for message in messages:
        role, content = message["role"], _content(message.get("content"))
        if role in ("system", "developer"):
            system += _as_blocks(content)
        elif role == "tool":
            result = {"type": "tool_result", "tool_use_id": message.get("tool_call_id")}
            others.append({"role": "user", "content": [{**result, "content": content}]})
        elif calls := message.get("tool_calls"):
            blocks = _as_blocks(content) + [_tool_use(call) for call in calls]
            others.append({"role": role, "content": blocks})
        else:
            others.append({"role": role, "content": content})
    return system, others


def _content(content: Any) -> str | list[dict[str, Any]]:
    if content is None:
        return ""
    return content if isinstance(content, str) else [_block(part) for part in content]


def _as_blocks(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []


_DATA_URL = re.compile(r"data:(image/[a-z0-9.+-]{1,40});base64,", re.IGNORECASE)


def _block(part: Mapping[str, Any]) -> dict[str, Any]:
    """An image part as theirs; every other part as it is."""
    if part.get("type") != "image_url":
        return dict(part)
    image = part["image_url"]
    url = image["url"] if isinstance(image, Mapping) else image
    found = _DATA_URL.match(url)
    if found is None:
        return {"type": "image", "source": {"type": "url", "url": url}}
    source = {"type": "base64", "media_type": found[1].lower(), "data": url[found.end() :]}
    return {"type": "image", "source": source}


def _tool_use(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except ValueError:
        arguments = {}
    return {"type": "tool_use", "id": call["id"], "name": function["name"], "input": arguments}


def _tool(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function", tool)
    if "input_schema" in function or "parameters" not in function:
        return function  # type: ignore[no-any-return]
    theirs = {"name": function["name"], "input_schema": function["parameters"]}
    if "description" in function:
        theirs["description"] = function["description"]
    return theirs


# --- replies -----------------------------------------------------------------------


class _Reading:
    """One reply while it is read; the input of the answer tool is the answer's text."""

    def __init__(self, secrets: tuple[str, ...], *, answer_tool: bool) -> None:
        self.done = False
        self._secrets = secrets
        self._answer_tool = answer_tool
        self._reason: str | None = None
        self._model: str | None = None
        self._usage: dict[str, int] = {}
        self._calls: dict[int, list[str]] = {}
        self._answer_blocks: set[int] = set()

    def whole(self, value: Any) -> Iterator[Event]:
        """The events of a reply that came in one piece."""
        raise_if_error(value, secrets=self._secrets)
        body = mapping(value, "the body")
        self._about(body)
        for index, item in enumerate(items(body.get("content"), "content")):
            block = mapping(item, "a content block")
            yield from self._start(index, block)
            if block.get("type") == "tool_use":
                arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
                yield from self._arguments(index, mended(arguments))
        self._stop(body)
        yield from self.end()

    def take(self, data: str, name: str = "") -> Iterator[TextDelta]:
        """The text of one event of a stream."""
        if self.done:
            return
        value = read_event(data, name, secrets=self._secrets)
        event = mapping(value, "an event")
        match event.get("type"):
            case "message_start":
                self._about(mapping(event.get("message"), "message"))
            case "content_block_start":
                block = mapping(event.get("content_block"), "content_block")
                yield from self._start(_index(event), block)
            case "content_block_delta":
                yield from self._delta(_index(event), mapping(event.get("delta"), "delta"))
            case "message_delta":
                self._about(event)
                self._stop(mapping(event.get("delta"), "delta"))
            case "message_stop":
                self.done = True

    def end(self) -> Iterator[Event]:
        """What is left to say when nothing more comes."""
        if self._reason is None:
            raise CallError("stream_cut", "the reply ended without a stop_reason")
        if self._reason == "refusal":
            raise self._failed("refusal", "the model refused to answer")
        if self._reason not in FINISH_REASONS:
            raise self._failed(
                "bad_reply", f"unknown stop_reason: {quoted(self._reason, self._secrets)}"
            )
        reason = FINISH_REASONS[self._reason]
        yield Finish(
            finish_reason="stop" if reason == "tool_calls" and not self._calls else reason,
            usage=self._counted(),
            served_model=self._model,
            tool_calls=tuple(
                ToolCall(id=call[0], name=call[1], arguments="".join(call[2:]) or "{}")
                for call in self._calls.values()
            ),
        )

    def _failed(self, kind: str, message: str) -> FailedReply:
        return FailedReply(kind, message, usage=self._counted(), served_model=self._model)

    def _about(self, body: Mapping[str, Any]) -> None:
        self._model = text_or_none(body.get("model")) or self._model
        usage = body.get("usage")
        if isinstance(usage, dict):
            counts = ((name, count(value)) for name, value in usage.items())
            self._usage.update((name, n) for name, n in counts if n is not None)

    def _counted(self) -> Usage:
        """Tokens in our sense: their input_tokens leaves out what the cache read or wrote."""
        used = self._usage
        cached = used.get("cache_read_input_tokens")
        written = used.get("cache_creation_input_tokens", 0)
        fresh = used.get("input_tokens")
        return Usage(
            prompt_tokens=None if fresh is None else fresh + (cached or 0) + written,
            completion_tokens=used.get("output_tokens"),
            cached_prompt_tokens=cached,
        )

    def _start(self, index: int, block: Mapping[str, Any]) -> Iterator[TextDelta]:
        if block.get("type") == "text":
            yield from self._text(block.get("text"))
        elif block.get("type") == "tool_use":
            name = text(block.get("name"), "name of a tool call")
            if self._answer_tool and name == ANSWER_TOOL:
                self._answer_blocks.add(index)
            elif len(self._calls) >= MAX_BLOCKS:
                raise CallError("bad_reply", f"more than {MAX_BLOCKS} tool calls")
            else:
                self._calls[index] = [text(block.get("id"), "id of a tool call"), name]

    def _delta(self, index: int, delta: Mapping[str, Any]) -> Iterator[TextDelta]:
        if delta.get("type") == "text_delta":
            yield from self._text(delta.get("text"))
        elif delta.get("type") == "input_json_delta":
            yield from self._arguments(index, text(delta.get("partial_json"), "partial_json"))
            if index in self._calls:
                yield TextDelta("")
        elif delta.get("type") == "thinking_delta":
            yield TextDelta("")  # no text of the answer, and no silence either

    def _text(self, piece: Any) -> Iterator[TextDelta]:
        if piece := text(piece, "text"):
            yield TextDelta(piece)

    def _arguments(self, index: int, piece: str) -> Iterator[TextDelta]:
        if index in self._answer_blocks:
            if piece:
                yield TextDelta(piece)
        elif index in self._calls:
            self._calls[index].append(piece)

    def _stop(self, body: Mapping[str, Any]) -> None:
        reason = body.get("stop_reason")
        if reason is not None:
            self._reason = text(reason, "stop_reason")


def _index(event: Mapping[str, Any]) -> int:
    index = event.get("index")
    return index if isinstance(index, int) else 0
