"""The chat completions wire: what is sent, and what every kind of reply becomes."""

from __future__ import annotations

import json
import math
from contextlib import aclosing
from typing import Any

import pytest

from evalkit.call.providers.openai import _Reading
from evalkit.call.providers.sse import EventDecoder
from evalkit.errors import CallError
from evalkit.records import Finish, TextDelta, ToolCall, Usage
from tests.call.providers.asking import SCHEMA, a_request, ask, failure, provider_of
from tests.loopback import Behaviour, Loopback, Rule

STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
CALLS = (
    {"id": "call_1", "name": "find_order", "arguments": '{"order": "A-1", "note": "Grüße"}'},
    {"id": "call_2", "name": "refund", "arguments": "{}"},
)


async def sent_body(options: dict[str, Any] | None = None, **changes: Any) -> Any:
    """The body that a request leads to."""
    with Loopback() as server:
        async with provider_of("openai", server, options=options or {}) as provider:
            await ask(provider, **changes)
        return server.requests[0].json


# --- requests ----------------------------------------------------------------------


async def test_a_request_says_what_was_asked_and_no_more() -> None:
    body = await sent_body(temperature=0.0, seed=7)

    assert body == {
        "model": "m-1",
        "messages": [{"role": "user", "content": "Where is my parcel?"}],
        "max_tokens": 64,
        "temperature": 0.0,
        "seed": 7,
    }


async def test_the_field_for_max_tokens_can_be_chosen() -> None:
    body = await sent_body({"max_tokens_field": "max_completion_tokens"})

    assert body["max_completion_tokens"] == 64
    assert "max_tokens" not in body


async def test_a_stream_asks_for_its_token_counts_unless_told_not_to() -> None:
    asked = await sent_body(stream=True)
    unasked = await sent_body({"stream_usage": False}, stream=True)

    assert asked["stream_options"] == {"include_usage": True}
    assert "stream_options" not in unasked


async def test_parameters_pass_through_but_cannot_replace_what_was_asked() -> None:
    body = await sent_body(params={"top_p": 0.5, "logit_bias": {"5": -1}, "model": "other"})

    assert body["top_p"] == 0.5
    assert body["logit_bias"] == {"5": -1}
    assert body["model"] == "m-1"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_no_parameter_of_a_model_is_a_second_cap_on_its_tokens(field: str) -> None:
    params = {"max_tokens": 99_999, "max_completion_tokens": 99_999}

    body = await sent_body({"max_tokens_field": field}, params=params)

    caps = {name: value for name, value in body.items() if name.startswith("max_")}
    assert caps == {field: 64}


async def test_content_parts_go_as_they_are() -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]

    body = await sent_body(messages=({"role": "user", "content": parts},))

    assert body["messages"][0]["content"] == parts


async def test_a_closed_schema_is_sent_as_strict() -> None:
    body = await sent_body(response_schema=SCHEMA)

    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA},
    }


@pytest.mark.parametrize(
    "change",
    [
        {"additionalProperties": True},
        {"required": []},
        {"properties": {"label": {"type": "object", "properties": {}}}},
    ],
)
async def test_an_open_schema_is_sent_without_strict(change: dict[str, Any]) -> None:
    body = await sent_body(response_schema=SCHEMA | change)

    assert body["response_format"]["json_schema"]["strict"] is False


async def test_structured_output_can_be_json_alone_or_nothing() -> None:
    as_json = await sent_body({"structured": "json_object"}, response_schema=SCHEMA)
    off = await sent_body({"structured": "off"}, response_schema=SCHEMA)

    assert as_json["response_format"] == {"type": "json_object"}
    assert "response_format" not in off


async def test_token_probabilities_are_asked_for_where_a_confidence_decides() -> None:
    assert (await sent_body(wants_confidence=True))["logprobs"] is True
    assert "logprobs" not in await sent_body()
    assert "logprobs" not in await sent_body({"logprobs": False}, wants_confidence=True)
    own = await sent_body(wants_confidence=True, params={"logprobs": False})
    assert own["logprobs"] is False


async def test_tools_are_sent_as_functions() -> None:
    tool = {"name": "refund", "parameters": {"type": "object"}}

    body = await sent_body(tools=(tool, {"type": "function", "function": tool}))

    assert body["tools"] == [{"type": "function", "function": tool}] * 2


async def test_a_number_that_json_does_not_have_is_a_bad_request() -> None:
    with Loopback() as server:
        async with provider_of("openai", server) as provider:
            error = await failure(provider, params={"top_p": math.nan})

        assert error.kind == "bad_request"
        assert server.stats.requests == 0


# --- replies -----------------------------------------------------------------------


@STREAMED
async def test_a_reply_is_text_and_a_finish(stream: bool) -> None:
    behaviour = Behaviour(
        text="Tomorrow, Zoë 😀.",
        served_model="m-1-2026",
        usage={"prompt": 20, "completion": 5, "cached": 16},
    )
    with Loopback(Rule(behaviour)) as server:
        async with provider_of("openai", server) as provider:
            text, finish = await ask(provider, stream=stream)

    assert text == "Tomorrow, Zoë 😀."
    assert finish == Finish(
        finish_reason="stop",
        usage=Usage(prompt_tokens=20, completion_tokens=5, cached_prompt_tokens=16),
        served_model="m-1-2026",
    )


@STREAMED
@pytest.mark.parametrize(
    ("reason", "ours"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter"),
     ("max_tokens", "length"), ("eos", "stop")],
)  # fmt: skip
async def test_finish_reasons_have_one_word_each(stream: bool, reason: str, ours: str) -> None:
    with Loopback(Rule(Behaviour(finish_reason=reason))) as server:
        async with provider_of("openai", server) as provider:
            _, finish = await ask(provider, stream=stream)

    assert finish.finish_reason == ours


@STREAMED
async def test_missing_usage_is_unknown_not_zero(stream: bool) -> None:
    with Loopback(Rule(Behaviour(usage=False))) as server:
        async with provider_of("openai", server) as provider:
            _, finish = await ask(provider, stream=stream)

    assert finish.usage == Usage()


@STREAMED
async def test_tool_calls_come_with_the_finish(stream: bool) -> None:
    behaviour = Behaviour(tool_calls=CALLS, finish_reason="tool_calls")
    with Loopback(Rule(behaviour)) as server:
        async with provider_of("openai", server) as provider:
            text, finish = await ask(provider, stream=stream)

    assert text == ""
    assert finish.finish_reason == "tool_calls"
    assert finish.tool_calls == tuple(ToolCall(**call) for call in CALLS)


@STREAMED
async def test_confidence_is_the_mean_token_probability_where_logprobs_come(stream: bool) -> None:
    with Loopback(Rule(Behaviour(text="a b c", logprob=math.log(0.8)))) as server:
        async with provider_of("openai", server) as provider:
            _, finish = await ask(provider, stream=stream, params={"logprobs": True})

    assert finish.confidence == pytest.approx(0.8)


FAULTS: dict[str, tuple[Behaviour, str]] = {
    "rate limited": (Behaviour(status=429, error_code="rate_limit_exceeded"), "rate_limit"),
    "quota gone": (Behaviour(status=429, error_code="insufficient_quota"), "quota_exhausted"),
    "payment required": (Behaviour(status=402), "quota_exhausted"),
    "overloaded": (Behaviour(status=529), "rate_limit"),
    "server error": (Behaviour(status=500), "server"),
    "bad gateway page": (Behaviour(status=502, body="<html>"), "server"),
    "error under 200": (Behaviour(body='{"error": {"message": "x", "code": 500}}'), "server"),
    "too long": (Behaviour(status=400, error_code="context_length_exceeded"), "context_length"),
    "bad request": (Behaviour(status=400, error_code="invalid_value"), "bad_request"),
    "wrong key": (Behaviour(status=401), "auth"),
    "forbidden": (Behaviour(status=403), "auth"),
    "no such model": (Behaviour(status=404, error_code="model_not_found"), "not_found"),
    "filtered request": (Behaviour(status=400, error_code="content_filter"), "content_filter"),
    "refused": (Behaviour(refusal="I cannot help with that."), "refusal"),
    "no finish reason": (Behaviour(finish_reason=None), "stream_cut"),
    "unknown finish reason": (Behaviour(finish_reason="tired"), "bad_reply"),
    "finished with an error": (Behaviour(finish_reason="error"), "server"),
    "cut before headers": (Behaviour(cut_after=-1), "connect"),
    "cut in the middle": (Behaviour(text="a b c d", cut_after=2), "stream_cut"),
    "not JSON": (Behaviour(body="Sure! Here you go"), "bad_reply"),
    "truncated JSON": (Behaviour(body='{"choices": [{"mess'), "bad_reply"),
    "a list": (Behaviour(body="[]"), "bad_reply"),
    "no choices": (Behaviour(body="{}"), "bad_reply"),
    "empty choices": (Behaviour(body='{"choices": []}'), "bad_reply"),
    "wrong types": (Behaviour(body='{"choices": [{"message": 5}]}'), "bad_reply"),
    "NaN": (Behaviour(body='{"choices": NaN}'), "bad_reply"),
    "nested deeply": (Behaviour(body="[" * 200_000), "bad_reply"),
    "not UTF-8": (Behaviour(body="\udcff"), "bad_reply"),
}


@STREAMED
@pytest.mark.parametrize("fault", FAULTS)
async def test_every_fault_has_its_kind(stream: bool, fault: str) -> None:
    behaviour, kind = FAULTS[fault]
    with Loopback(Rule(behaviour)) as server:
        async with provider_of("openai", server) as provider:
            error = await failure(provider, stream=stream)

    assert error.kind == kind


STREAM_FAULTS: dict[str, tuple[Behaviour, str]] = {
    "ends without finish": (Behaviour(text="a b c d", end_after=3), "stream_cut"),
    "bad chunk": (Behaviour(text="a b c d", malformed_at=2), "bad_reply"),
    "error event": (Behaviour(text="a b c d", error_at=2), "server"),
    "rate limit event": (
        Behaviour(text="a b", error_at=1, error_code="rate_limit_exceeded"),
        "rate_limit",
    ),
    "nothing at all": (Behaviour(end_after=0), "stream_cut"),
}


@pytest.mark.parametrize("fault", STREAM_FAULTS)
async def test_every_fault_of_a_stream_has_its_kind(fault: str) -> None:
    behaviour, kind = STREAM_FAULTS[fault]
    with Loopback(Rule(behaviour)) as server:
        async with provider_of("openai", server) as provider:
            error = await failure(provider, stream=True)

    assert error.kind == kind


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_an_error_event_may_have_no_error_in_it_but_its_name(wire: str) -> None:
    body = 'event: error\ndata: {"message": "slow down", "code": "rate_limit_exceeded"}\n\n'
    with Loopback(Rule(Behaviour(body=body, content_type="text/event-stream"))) as server:
        async with provider_of(wire, server) as provider:
            error = await failure(provider, stream=True)

    assert error.kind == "rate_limit"


async def test_text_before_a_fault_of_a_stream_has_come() -> None:
    with Loopback(Rule(Behaviour(text="a b c d", cut_after=3))) as server:
        async with (
            provider_of("openai", server) as provider,
            aclosing(provider.stream(a_request(stream=True))) as events,
        ):
            pieces = [await anext(events), await anext(events)]
            with pytest.raises(CallError):
                await anext(events)

    assert pieces == [TextDelta("a"), TextDelta(" b")]


async def test_retry_after_comes_with_the_error() -> None:
    behaviour = Behaviour(status=429, headers={"retry-after": "3"})
    with Loopback(Rule(behaviour)) as server:
        async with provider_of("openai", server) as provider:
            error = await failure(provider)

    assert error.retry_after_s == 3.0
    assert error.status == 429


async def test_a_stream_may_end_without_its_done_mark() -> None:
    with Loopback(Rule(Behaviour(text="a b", end_after=5))) as server:
        async with provider_of("openai", server) as provider:
            text, finish = await ask(provider, stream=True)

    assert text == "a b"
    assert finish.usage.completion_tokens is not None


@pytest.mark.parametrize("kind", [None, "text/plain; charset=utf-8", "application/octet-stream"])
async def test_a_server_that_does_not_stream_may_answer_whole(kind: str | None) -> None:
    whole = {"model": "m", "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}
    behaviour = Behaviour(body=json.dumps(whole), content_type=kind)
    with Loopback(Rule(behaviour)) as server:
        async with provider_of("openai", server) as provider:
            text, _ = await ask(provider, stream=True)

    assert text == "hi"


async def test_a_server_that_always_streams_is_read_as_a_stream() -> None:
    event = {"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]}
    body = f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n"
    with Loopback(Rule(Behaviour(body=body, content_type="text/event-stream"))) as server:
        async with provider_of("openai", server) as provider:
            text, _ = await ask(provider)

    assert text == "hi"


# --- streams, byte by byte -----------------------------------------------------------


def events_of(*bodies: dict[str, Any]) -> bytes:
    lines = [f"data: {json.dumps(body, ensure_ascii=False)}\n\n" for body in bodies]
    return "".join([*lines, "data: [DONE]\n\n"]).encode()


def delta(content: Any = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": content, **more}, "finish_reason": reason}]}


def read(*chunks: bytes) -> tuple[str, Finish]:
    decoder, reading = EventDecoder(), _Reading(())
    pieces = []
    for chunk in chunks:
        for event in decoder.feed(chunk):
            pieces += [piece.text for piece in reading.take(event.data)]
    *more, finish = reading.end()
    assert isinstance(finish, Finish)
    return "".join(pieces + [piece.text for piece in more]), finish  # type: ignore[union-attr]


STREAM = events_of(
    delta(""),
    delta("Grüße 😀 aus"),
    delta(" Zürich"),
    delta(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a'}}]),
    delta(tool_calls=[{"index": 0, "function": {"arguments": '": 1}'}}]),
    delta(None, "tool_calls"),
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
)


def test_a_stream_cut_at_any_byte_reads_the_same() -> None:
    whole = read(STREAM)

    for cut in range(len(STREAM)):
        assert read(STREAM[:cut], STREAM[cut:]) == whole, f"cut at byte {cut}"


def test_a_stream_reads_the_same_byte_by_byte() -> None:
    text, finish = read(*(STREAM[i : i + 1] for i in range(len(STREAM))))

    assert text == "Grüße 😀 aus Zürich"
    assert finish.tool_calls == (ToolCall(id="c", name="f", arguments='{"a": 1}'),)
    assert finish.usage == Usage(prompt_tokens=3, completion_tokens=4)


def test_a_stream_is_cut_wherever_it_ends_before_its_finish_reason() -> None:
    finished = STREAM.index(b"\n\n", STREAM.index(b'"finish_reason": "tool_calls"')) + 2

    for end in range(finished):
        with pytest.raises(CallError) as caught:
            read(STREAM[:end])
        assert caught.value.kind == "stream_cut", f"ended at byte {end}"
    assert read(STREAM[:finished])[0] == "Grüße 😀 aus Zürich"


def test_surrogate_halves_in_two_events_become_one_character() -> None:
    escaped = [
        b'data: {"choices": [{"delta": {"content": "a\\ud83d"}}]}\n\n',
        b'data: {"choices": [{"delta": {"content": "\\ude00b"}, "finish_reason": "stop"}]}\n\n',
    ]

    text, _ = read(*escaped)

    assert text == "a😀b"


def test_a_surrogate_half_at_the_end_is_replaced() -> None:
    text, _ = read(b'data: {"choices": [{"delta": {"content": "a\\ud83d"}, '
                   b'"finish_reason": "stop"}]}\n\n')  # fmt: skip

    assert text == "a\ufffd"


def test_tool_calls_without_a_number_are_calls_of_their_own() -> None:
    calls = [{"id": i, "function": {"name": f"f{i}", "arguments": "{}"}} for i in ("a", "b")]

    _, finish = read(
        events_of(delta(tool_calls=calls[:1]), delta(None, "tool_calls", tool_calls=calls[1:]))
    )

    assert [call.name for call in finish.tool_calls] == ["fa", "fb"]


def test_content_in_parts_is_joined() -> None:
    text, _ = read(events_of(delta([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                                   "stop")))  # fmt: skip

    assert text == "ab"


@pytest.mark.parametrize(
    "event",
    [
        delta(5, "stop"),
        delta({"a": 1}, "stop"),
        delta("x", tool_calls="f"),
        delta("x", tool_calls=[{"index": i, "id": "c"} for i in range(200)]),
        {"choices": {"0": 1}},
        {"choices": ["x"]},
        {"choices": [{"delta": "x"}]},
        {"choices": [{"delta": {}, "finish_reason": 5}]},
        {"choices": [{"delta": {}, "logprobs": {"content": 5}}]},
    ],
    ids=lambda event: json.dumps(event)[:40],
)
def test_values_of_wrong_types_are_a_bad_reply(event: dict[str, Any]) -> None:
    with pytest.raises(CallError) as caught:
        read(events_of(event))

    assert caught.value.kind == "bad_reply"


def test_nonsense_where_nothing_depends_on_it_is_left_out() -> None:
    text, finish = read(
        events_of(
            {"model": 5, "choices": None, "usage": "lots"},
            delta("x", "stop"),
            {"usage": {"prompt_tokens": -1, "completion_tokens": 2.5}},
        )
    )

    assert text == "x"
    assert finish.usage == Usage()
    assert finish.served_model is None


def test_pieces_of_a_second_answer_do_not_get_into_the_first() -> None:
    def event(index: int | None, text: str, reason: str | None = None) -> str:
        choice = {"delta": {"content": text}, "finish_reason": reason}
        return json.dumps({"choices": [choice | ({} if index is None else {"index": index})]})

    reading = _Reading(())
    events = [event(None, "a"), event(1, "evil", "length"), event(0, "b"), event(0, "", "stop")]

    pieces = [piece.text for one in events for piece in reading.take(one)]
    [finish] = [one for one in reading.end() if isinstance(one, Finish)]

    assert "".join(pieces) == "ab"
    assert finish.finish_reason == "stop"


def test_a_count_that_no_reply_can_have_is_not_known() -> None:
    usage = {"prompt_tokens": 2**70, "completion_tokens": 7}
    choice = {"message": {"content": "a"}, "finish_reason": "stop"}

    [*_, finish] = _Reading(()).whole({"choices": [choice], "usage": usage})

    assert isinstance(finish, Finish)
    assert finish.usage == Usage(completion_tokens=7)
