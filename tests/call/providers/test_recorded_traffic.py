"""Exchanges recorded from real providers, replayed whole and in small pieces.

The recordings are no part of the checkout (see the fixture `shared_data`); what they say
is read here by a second, simpler reader and compared with what the wires make of it.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalkit.call.providers import build_provider
from evalkit.config import ProviderSettings
from evalkit.records import Event, Finish, ModelRequest, TextDelta

WIRES = {"anthropic": "anthropic", "groq": "openai", "mistralai": "openai"}
PATHS = ("/v1/messages", "/chat/completions")
PIECES = [None, 1, 3, 7]


@dataclass(frozen=True)
class Exchange:
    """One recorded request and its reply."""

    name: str
    wire: str
    streamed: bool
    content_type: str
    encoding: str | None
    body: bytes
    """As it went over the wire, compressed where it was."""

    @property
    def text(self) -> str:
        plain = gzip.decompress(self.body) if self.encoding == "gzip" else self.body
        return plain.decode("utf-8")


def exchanges(folder: Path) -> Iterator[Exchange]:
    for path in sorted(folder.glob("*/*.yaml")):
        wire = WIRES.get(path.parent.name)
        recorded = yaml.safe_load(path.read_text(encoding="utf-8"))["interactions"]
        for number, one in enumerate(recorded):
            uri = one["request"]["uri"].split("?")[0].split("#")[0]
            if wire is None or not uri.endswith(PATHS):
                continue
            body = one["response"]["body"]["string"]
            headers = {k.lower(): v[0] for k, v in one["response"]["headers"].items()}
            kind = headers["content-type"]
            yield Exchange(
                name=f"{path.parent.name}/{path.stem}[{number}]",
                wire=wire,
                streamed="event-stream" in kind,
                content_type=kind,
                encoding=headers.get("content-encoding"),
                body=body.encode("utf-8") if isinstance(body, str) else body,
            )


# --- a simple second reader -----------------------------------------------------------


def told(exchange: Exchange) -> dict[str, Any]:
    """Text, tool calls and output tokens, by the provider's documentation."""
    if not exchange.streamed:
        reply = json.loads(exchange.text)
        return _whole_anthropic(reply) if exchange.wire == "anthropic" else _whole_openai(reply)
    lines = [line[5:].strip() for line in exchange.text.splitlines() if line.startswith("data:")]
    events = [json.loads(line) for line in lines if line != "[DONE]"]
    if exchange.wire == "anthropic":
        return _streamed_anthropic(events)
    deltas = [choice["delta"] for e in events for choice in e.get("choices", ())]
    return {"text": "".join(d.get("content") or "" for d in deltas), "tools": []}


def _whole_anthropic(reply: Mapping[str, Any]) -> dict[str, Any]:
    blocks = reply["content"]
    return {
        "text": "".join(b["text"] for b in blocks if b["type"] == "text"),
        "tools": [(b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"],
    }


def _whole_openai(reply: Mapping[str, Any]) -> dict[str, Any]:
    message = reply["choices"][0]["message"]
    tools = [
        (t["function"]["name"], json.loads(t["function"]["arguments"]))
        for t in message.get("tool_calls") or ()
    ]
    return {"text": message.get("content") or "", "tools": tools}


def _streamed_anthropic(events: list[dict[str, Any]]) -> dict[str, Any]:
    text, tools = "", {}
    for event in events:
        if event["type"] == "content_block_start" and event["content_block"]["type"] == "tool_use":
            tools[event["index"]] = [event["content_block"]["name"], ""]
        if event["type"] == "content_block_delta":
            text += event["delta"].get("text", "")
            if "partial_json" in event["delta"]:
                tools[event["index"]][1] += event["delta"]["partial_json"]
    return {
        "text": text,
        "tools": [(name, json.loads(args or "{}")) for name, args in tools.values()],
    }


# --- the replay -----------------------------------------------------------------------


@asynccontextmanager
async def replaying(exchange: Exchange, piece: int | None) -> AsyncGenerator[str, None]:
    """A server that answers any request with the recorded bytes, in pieces of that size."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        encoding = f"content-encoding: {exchange.encoding}\r\n" if exchange.encoding else ""
        writer.write(
            f"HTTP/1.1 200 OK\r\ncontent-type: {exchange.content_type}\r\n{encoding}"
            f"content-length: {len(exchange.body)}\r\nconnection: close\r\n\r\n".encode()
        )
        step = piece or len(exchange.body)
        for at in range(0, len(exchange.body), step):
            writer.write(exchange.body[at : at + step])
            await writer.drain()
            if piece is not None:
                await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def read(exchange: Exchange, piece: int | None) -> list[Event]:
    async with replaying(exchange, piece) as url:
        base_url = url if exchange.wire == "anthropic" else url + "/v1"
        settings = ProviderSettings(
            name="recorded", wire=exchange.wire, base_url=base_url, api_key_env="RECORDED_KEY"
        )
        provider = build_provider(settings)
        request = ModelRequest(
            model_id="recorded",
            messages=({"role": "user", "content": "Tell me a joke"},),
            max_tokens=100,
            stream=exchange.streamed,
        )
        try:
            return [event async for event in provider.stream(request)]
        finally:
            await provider.aclose()


@pytest.mark.parametrize("piece", PIECES, ids=lambda p: "whole" if p is None else f"{p} bytes")
async def test_recorded_replies_are_read_the_same_however_they_are_cut(
    shared_data: Callable[[str], Path], piece: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDED_KEY", "k")
    found = list(exchanges(shared_data("provider_traffic")))
    assert len(found) >= 20

    for exchange in found:
        *deltas, finish = await read(exchange, piece)

        assert isinstance(finish, Finish), exchange.name
        expected = told(exchange)
        text = "".join(d.text for d in deltas if isinstance(d, TextDelta))
        assert text == expected["text"], exchange.name
        tools = [(call.name, json.loads(call.arguments)) for call in finish.tool_calls]
        assert tools == expected["tools"], exchange.name
        assert finish.finish_reason in {"stop", "length", "tool_calls"}, exchange.name
        assert finish.usage.completion_tokens, exchange.name
        assert finish.served_model, exchange.name
