"""The messages wire: what is sent, and what every kind of reply becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from evalkit.call.providers.anthropic import _Reading
from evalkit.call.providers.sse import EventDecoder
from evalkit.errors import CallError
from evalkit.records import Finish, ToolCall, Usage
from tests.call.providers.asking import SCHEMA, ask, failure, provider_of
from tests.loopback import Behaviour, Loopback, Rule

STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
CALLS = (
    {"id": "toolu_1", "name": "find_order", "arguments": '{"order": "A-1", "note": "Grüße"}'},
    {"id": "toolu_2", "name": "refund", "arguments": "{}"},
)


async def sent_body(options: dict[str, Any] | None = None, **changes: Any) -> Any:
    """The body that a request leads to."""
    with Loopback() as server:
        async with provider_of("anthropic", server, options=options or {}) as provider:
            await ask(provider, **changes)
        return server.requests[0].json


# --- requests ----------------------------------------------------------------------


async def test_system_messages_stand_apart_and_are_marked_for_the_cache() -> None:
    messages = (
        {"role": "system", "content": "Answer in one word."},
        {"role": "system", "content": "Never guess."},
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "Here."},
        {"role": "user", "content": "Why?"},
    )

    body = await sent_body(messages=messages, temperature=0.0, seed=7)

    assert body == {
        "model": "m-1",
        "max_tokens": 64,
        "temperature": 0.0,
        "system": [
            {"type": "text", "text": "Answer in one word."},
            {"type": "text", "text": "Never guess.", "cache_control": {"type": "ephemeral"}},
        ],
        "messages": list(messages[2:]),
    }


async def test_the_cache_mark_can_be_left_out() -> None:
    messages = ({"role": "system", "content": "Short."}, {"role": "user", "content": "Where?"})

    body = await sent_body({"cache": False}, messages=messages)

    assert body["system"] == [{"type": "text", "text": "Short."}]


async def test_a_base_url_may_end_with_the_version() -> None:
    with Loopback() as server:
        for base_url in (server.url, f"{server.url}/", f"{server.url}/v1", f"{server.url}/v1/"):
            async with provider_of("anthropic", base_url=base_url) as provider:
                await ask(provider)

        assert {request.path for request in server.requests} == {"/v1/messages"}
        assert server.requests[0].headers["anthropic-version"] == "2023-06-01"


async def test_images_tool_calls_and_results_are_rewritten() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    linked = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    call = {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = (
        {"role": "user", "content": [{"type": "text", "text": "What?"}, image, linked]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t1", "content": "found"},
    )

    body = await sent_body(messages=messages)

    assert body["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What?"},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"},
                },
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
            ],
        },
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "found"}],
        },
    ]


async def test_tools_are_sent_with_their_input_schema() -> None:
    function = {"name": "refund", "description": "Pays.", "parameters": {"type": "object"}}
    theirs = {"name": "refund", "description": "Pays.", "input_schema": {"type": "object"}}

    body = await sent_body(tools=({"type": "function", "function": function}, function, theirs))

    assert body["tools"] == [theirs] * 3


async def test_a_closed_schema_is_sent_as_output_format() -> None:
    body = await sent_body(response_schema=SCHEMA)

    assert body["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert "tools" not in body


@pytest.mark.parametrize(
    "schema",
    [
        {**SCHEMA, "additionalProperties": True},
        {**SCHEMA, "properties": {"label": {"type": "integer", "minimum": 1}}},
        {**SCHEMA, "properties": {"label": {"type": "string", "maxLength": 5}}},
    ],
)
async def test_a_schema_that_cannot_constrain_becomes_a_tool(schema: dict[str, Any]) -> None:
    body = await sent_body(response_schema=schema)

    assert body["tool_choice"] == {"type": "tool", "name": "answer"}
    assert body["tools"][-1]["input_schema"] == schema
    assert "output_config" not in body


async def test_the_way_of_structured_output_can_be_chosen() -> None:
    tool = await sent_body({"structured": "tool"}, response_schema=SCHEMA)
    off = await sent_body({"structured": "off"}, response_schema=SCHEMA)

    assert tool["tool_choice"]["name"] == "answer"
    assert set(off) == {"model", "max_tokens", "messages"}


# --- replies -----------------------------------------------------------------------


@STREAMED
async def test_a_reply_is_text_and_a_finish(stream: bool) -> None:
    behaviour = Behaviour(
        text="Tomorrow, Zoë 😀.",
        served_model="m-1-2026",
        usage={"prompt": 20, "completion": 5, "cached": 16},
    )
    with Loopback(Rule(behaviour)) as server:
        async with provider_of("anthropic", server) as provider:
            text, finish = await ask(provider, stream=stream)

    assert text == "Tomorrow, Zoë 😀."
    assert finish == Finish(
        finish_reason="stop",
        usage=Usage(prompt_tokens=20, completion_tokens=5, cached_prompt_tokens=16),
        served_model="m-1-2026",
    )


@STREAMED
@pytest.mark.parametrize("way", ["output_config", "tool"])
async def test_structured_output_is_text_in_either_way(stream: bool, way: str) -> None:
    with Loopback() as server:
        async with provider_of("anthropic", server, options={"structured": way}) as provider:
            text, finish = await ask(provider, stream=stream, response_schema=SCHEMA)

    assert json.loads(text)["label"] in ("billing", "other")
    assert finish.finish_reason == "stop"
    assert finish.tool_calls == ()


@STREAMED
@pytest.mark.parametrize(
    ("reason", "ours"),
    [("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"),
     ("model_context_window_exceeded", "length")],
)  # fmt: skip
async def test_stop_reasons_have_one_word_each(stream: bool, reason: str, ours: str) -> None:
    with Loopback(Rule(Behaviour(finish_reason=reason))) as server:
        async with provider_of("anthropic", server) as provider:
            _, finish = await ask(provider, stream=stream)

    assert finish.finish_reason == ours


@STREAMED
async def test_missing_usage_is_unknown_not_zero(stream: bool) -> None:
    with Loopback(Rule(Behaviour(usage=False))) as server:
        async with provider_of("anthropic", server) as provider:
            _, finish = await ask(provider, stream=stream)

    assert finish.usage == Usage()


@STREAMED
async def test_tool_calls_come_with_the_finish(stream: bool) -> None:
    with Loopback(Rule(Behaviour(tool_calls=CALLS))) as server:
        async with provider_of("anthropic", server) as provider:
            text, finish = await ask(provider, stream=stream)

    assert text == ""
    assert finish.finish_reason == "tool_calls"
    assert [(c.id, c.name, json.loads(c.arguments)) for c in finish.tool_calls] == [
        (c["id"], c["name"], json.loads(c["arguments"])) for c in CALLS
    ]


FAULTS: dict[str, tuple[Behaviour, str]] = {
    "rate limited": (Behaviour(status=429, error_code="rate_limit_error"), "rate_limit"),
    "overloaded": (Behaviour(status=529, error_code="overloaded_error"), "rate_limit"),
    "payment required": (Behaviour(status=402, error_code="billing_error"), "quota_exhausted"),
    "server error": (Behaviour(status=500), "server"),
    "too long": (
        Behaviour(
            status=400,
            error_code="invalid_request_error",
            error_message="prompt is too long: 210000 tokens > 200000 maximum",
        ),
        "context_length",
    ),
    "too large": (Behaviour(status=413, error_code="request_too_large"), "context_length"),
    "bad request": (Behaviour(status=400, error_code="invalid_request_error"), "bad_request"),
    "wrong key": (Behaviour(status=401, error_code="authentication_error"), "auth"),
    "forbidden": (Behaviour(status=403, error_code="permission_error"), "auth"),
    "no such model": (Behaviour(status=404, error_code="not_found_error"), "not_found"),
    "refused": (Behaviour(finish_reason="content_filter"), "refusal"),
    "no stop reason": (Behaviour(finish_reason=None), "stream_cut"),
    "unknown stop reason": (Behaviour(finish_reason="tired"), "bad_reply"),
    "cut before headers": (Behaviour(cut_after=-1), "connect"),
    "cut in the middle": (Behaviour(text="a b c d", cut_after=4), "stream_cut"),
    "not JSON": (Behaviour(body="Sure! Here you go"), "bad_reply"),
    "error under 200": (
        Behaviour(body='{"type": "error", "error": {"type": "overloaded_error"}}'),
        "rate_limit",
    ),
    "no content": (Behaviour(body="{}"), "bad_reply"),
    "wrong types": (Behaviour(body='{"content": [5]}'), "bad_reply"),
    "text that is none": (Behaviour(body='{"content": [{"type": "text"}]}'), "bad_reply"),
}


@STREAMED
@pytest.mark.parametrize("fault", FAULTS)
async def test_every_fault_has_its_kind(stream: bool, fault: str) -> None:
    behaviour, kind = FAULTS[fault]
    with Loopback(Rule(behaviour)) as server:
        async with provider_of("anthropic", server) as provider:
            error = await failure(provider, stream=stream)

    assert error.kind == kind


STREAM_FAULTS: dict[str, tuple[Behaviour, str]] = {
    "ends without stop": (Behaviour(text="a b c d", end_after=5), "stream_cut"),
    "bad chunk": (Behaviour(text="a b c d", malformed_at=4), "bad_reply"),
    "error event": (Behaviour(text="a b", error_at=4), "server"),
    "overload event": (
        Behaviour(text="a b", error_at=4, error_code="overloaded_error"),
        "rate_limit",
    ),
    "nothing at all": (Behaviour(end_after=0), "stream_cut"),
}


@pytest.mark.parametrize("fault", STREAM_FAULTS)
async def test_every_fault_of_a_stream_has_its_kind(fault: str) -> None:
    behaviour, kind = STREAM_FAULTS[fault]
    with Loopback(Rule(behaviour)) as server:
        async with provider_of("anthropic", server) as provider:
            error = await failure(provider, stream=True)

    assert error.kind == kind


# --- streams, byte by byte -----------------------------------------------------------


def events_of(*bodies: dict[str, Any]) -> bytes:
    lines = [
        f"event: {body['type']}\ndata: {json.dumps(body, ensure_ascii=False)}\n\n"
        for body in bodies
    ]
    return "".join(lines).encode()


def read(*chunks: bytes, answer_tool: bool = False) -> tuple[str, Finish]:
    decoder, reading = EventDecoder(), _Reading((), answer_tool=answer_tool)
    pieces = []
    for chunk in chunks:
        for event in decoder.feed(chunk):
            pieces += [piece.text for piece in reading.take(event.data)]
    (finish,) = reading.end()
    assert isinstance(finish, Finish)
    return "".join(pieces), finish


def start(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": delta}


STREAM = events_of(
    {
        "type": "message_start",
        "message": {"model": "m", "usage": {"input_tokens": 3, "output_tokens": 1}},
    },
    start(0, type="thinking", thinking=""),
    delta(0, type="thinking_delta", thinking="hm"),
    start(1, type="text", text=""),
    {"type": "ping"},
    delta(1, type="text_delta", text="Grüße 😀 aus"),
    delta(1, type="text_delta", text=" Zürich"),
    {"type": "content_block_stop", "index": 1},
    start(2, type="tool_use", id="t", name="f", input={}),
    delta(2, type="input_json_delta", partial_json='{"a'),
    delta(2, type="input_json_delta", partial_json='": 1}'),
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
    {"type": "message_stop"},
)


def test_a_stream_reads_the_same_byte_by_byte() -> None:
    text, finish = read(*(STREAM[i : i + 1] for i in range(len(STREAM))))

    assert text == "Grüße 😀 aus Zürich"
    assert finish.tool_calls == (ToolCall(id="t", name="f", arguments='{"a": 1}'),)
    assert finish.usage == Usage(prompt_tokens=3, completion_tokens=9)


def test_a_stream_cut_at_any_byte_reads_the_same() -> None:
    whole = read(STREAM)

    for cut in range(len(STREAM)):
        assert read(STREAM[:cut], STREAM[cut:]) == whole, f"cut at byte {cut}"


def test_a_stream_is_cut_wherever_it_ends_before_its_stop_reason() -> None:
    finished = STREAM.index(b"\n\n", STREAM.index(b'"stop_reason"')) + 2

    for end in range(finished):
        with pytest.raises(CallError) as caught:
            read(STREAM[:end])
        assert caught.value.kind == "stream_cut", f"ended at byte {end}"
    assert read(STREAM[:finished])[1].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "message_start", "message": 5},
        start(0, type="tool_use", id=5, name="f"),
        start(0, type="tool_use", id="t"),
        delta(0, type="text_delta"),
        delta(0, type="input_json_delta", partial_json=5),
        {"type": "message_delta", "delta": {"stop_reason": 5}},
        {"type": "message_delta"},
    ],
    ids=lambda event: json.dumps(event)[:60],
)
def test_values_of_wrong_types_are_a_bad_reply(event: dict[str, Any]) -> None:
    with pytest.raises(CallError) as caught:
        read(events_of(event))

    assert caught.value.kind == "bad_reply"


def test_an_event_of_a_kind_unknown_today_is_passed_over() -> None:
    text, _ = read(events_of({"type": "news", "delta": 5}) + STREAM)

    assert text == "Grüße 😀 aus Zürich"
