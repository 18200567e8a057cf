"""Whatever is in a file or a reply, a parser reads it or raises its own error: nothing else."""

from __future__ import annotations

import asyncio
import json
import time
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.call.failures import FAILURES
from evalkit.errors import CallError
from evalkit.records import Event, Finish
from tests.call.providers.asking import a_request, provider_of
from tests.hostile.mangling import some
from tests.hostile.parsers import PARSERS
from tests.loopback import Behaviour, Loopback, Rule

MAX_S = 2.0
"""For one file, refused or not."""


@cache
def seeds_of(name: str) -> tuple[bytes, ...]:
    """Valid files. One is read here: what the first reading imports is nobody's time."""
    seeds = PARSERS[name].seeds
    with TemporaryDirectory() as folder:
        found = seeds if isinstance(seeds, tuple) else seeds(Path(folder))
        (Path(folder) / "first").mkdir()
        PARSERS[name].read(Path(folder) / "first", found[0])
    return found


@pytest.mark.parametrize("name", PARSERS)
def test_the_files_that_are_mangled_are_valid_before(name: str, tmp_path: Path) -> None:
    for number, seed in enumerate(seeds_of(name)):
        folder = tmp_path / str(number)
        folder.mkdir()

        PARSERS[name].read(folder, seed)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=40, deadline=None)
@given(number=st.integers(0, 2**32))
def test_a_mangled_file_is_read_or_refused(name: str, number: int) -> None:
    data = some(seeds_of(name), number)

    began = time.process_time()
    refusal = refused(name, data)

    assert refusal is None or (refusal and "Traceback" not in refusal)
    assert time.process_time() - began < MAX_S


def refused(name: str, data: bytes) -> str | None:
    """What the parser says against a file; None where it reads it."""
    parser = PARSERS[name]
    with TemporaryDirectory() as folder:
        try:
            parser.read(Path(folder), data)
        except parser.raises as error:
            return str(error)
    return None


@pytest.mark.parametrize("name", sorted(set(PARSERS) - {"server-sent events"}))
@settings(max_examples=20, deadline=None)
@given(data=st.binary(max_size=200))
def test_bytes_that_mean_nothing_are_read_or_refused(name: str, data: bytes) -> None:
    assert refused(name, data) != ""


# --- replies of providers ---------------------------------------------------------------

KEYS = {
    "openai": [
        "choices", "message", "delta", "content", "finish_reason", "index", "usage", "model",
        "prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens", "refusal",
        "tool_calls", "function", "name", "arguments", "id", "logprobs", "token", "error", "code",
    ],
    "anthropic": [
        "type", "message", "content", "content_block", "delta", "text", "stop_reason", "usage",
        "input_tokens", "output_tokens", "cache_read_input_tokens", "index", "partial_json", "id",
        "name", "input", "error", "model", "role",
    ],
}  # fmt: skip
WORDS = {
    "openai": ["stop", "length", "tool_calls", "content_filter", "assistant", "429"],
    "anthropic": [
        "message_start", "content_block_start", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop", "ping", "error", "text", "tool_use", "text_delta",
        "input_json_delta", "end_turn", "max_tokens", "tool_use", "overloaded_error",
    ],
}  # fmt: skip


def replies(wire: str) -> st.SearchStrategy[Any]:
    """JSON made of the wire's own words, in places of no meaning."""
    atoms = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
    words = st.sampled_from(WORDS[wire]) | st.text(max_size=5)
    return st.recursive(
        atoms | words,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(KEYS[wire]), inner, max_size=4)
        ),
        max_leaves=15,
    )


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_reply_of_any_shape_is_an_answer_or_a_kind(wire: str, streamed: bool) -> None:
    with Loopback() as server:

        @settings(max_examples=60, deadline=None)
        @given(st.lists(replies(wire), min_size=1, max_size=4))
        def hold(said: list[Any]) -> None:
            events = "".join(f"event: {_type(one)}\ndata: {json.dumps(one)}\n\n" for one in said)
            stream = Behaviour(body=events, content_type="text/event-stream")
            server.script(Rule(stream if streamed else Behaviour(body=json.dumps(said[0]))))

            end = asyncio.run(read(wire, server, streamed))

            assert isinstance(end, Finish) or (isinstance(end, CallError) and end.kind in FAILURES)

        hold()


def _type(value: Any) -> str:
    found = value.get("type") if isinstance(value, dict) else None
    return found if isinstance(found, str) and found.isprintable() else "message"


async def read(wire: str, server: Loopback, streamed: bool) -> Event | CallError:
    """The last event, or the error in its place."""
    async with provider_of(wire, server) as provider:
        try:
            return [event async for event in provider.stream(a_request(stream=streamed))][-1]
        except CallError as error:
            return error
