"""An application behind HTTP: its input goes in, its answer comes out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from evalkit.errors import CallError
from evalkit.records import Finish, Usage
from tests.call.providers.asking import ask, failure, provider_of
from tests.loopback import Behaviour, Loopback, Rule


async def answer(body: Any, pointer: str | None = None) -> str:
    """The text of a reply whose body is `body` (as JSON unless it is text)."""
    raw = body if isinstance(body, str) else json.dumps(body)
    with Loopback(Rule(Behaviour(body=raw))) as server:
        async with provider_of("http", server, output_pointer=pointer) as provider:
            text, _ = await ask(provider)
    return text


async def test_the_input_is_posted_as_it_is() -> None:
    with Loopback() as server:
        async with provider_of("http", server, output_pointer="/output") as provider:
            text, finish = await ask(provider, input={"text": "Wo ist es? 😀", "n": [1, None]})

        sent = server.requests[0]
        assert sent.method == "POST"
        assert sent.path == "/app"
        assert sent.headers["content-type"] == "application/json"
        assert sent.json == {"text": "Wo ist es? 😀", "n": [1, None]}
    assert text == "ok"
    assert finish == Finish(finish_reason="stop", usage=Usage(), served_model=None)


@pytest.mark.parametrize(
    ("body", "pointer", "text"),
    [
        ("plain text", None, "plain text"),
        ('{"label": "other"}', None, '{"label": "other"}'),
        ('"quoted \\u00e9"', None, "quoted é"),
        ("", None, ""),
        ({"answer": {"text": "yes"}}, "/answer/text", "yes"),
        ({"answer": {"label": "ü"}}, "/answer", '{"label": "ü"}'),
        ({"choices": ["a", "b"]}, "/choices/1", "b"),
        ({"a/b": {"~": 5}}, "/a~1b/~0", "5"),
        ({"": "empty key"}, "/", "empty key"),
        ({"answer": None}, "/answer", ""),
        ({"answer": False}, "/answer", "false"),
        ({"whole": 1}, "", '{"whole": 1}'),
        ({"answer": "\ud83d"}, "/answer", "\ufffd"),
    ],
)
async def test_the_answer_is_taken_from_where_it_stands(
    body: Any, pointer: str | None, text: str
) -> None:
    assert await answer(body, pointer) == text


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"answer": 1}, "/text"),
        (["a"], "/1"),
        (["a"], "/-1"),
        (["a"], "/99999999999999999999"),
        ("text", "/0"),
        ("not JSON", "/answer"),
        ("\udcff", None),
        ("\udcff", "/a"),
        ('"open', None),
    ],
)
async def test_an_answer_that_is_not_there_is_a_bad_reply(body: Any, pointer: str | None) -> None:
    with pytest.raises(CallError) as caught:
        await answer(body, pointer)

    assert caught.value.kind == "bad_reply"


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (Behaviour(status=500, body="Traceback"), "server"),
        (Behaviour(status=429, headers={"retry-after": "1"}), "rate_limit"),
        (Behaviour(status=401), "auth"),
        (Behaviour(status=404), "not_found"),
        (Behaviour(status=422), "bad_request"),
        (Behaviour(cut_after=4), "stream_cut"),
        (Behaviour(cut_after=-1), "connect"),
    ],
)
async def test_every_fault_has_its_kind(behaviour: Behaviour, kind: str) -> None:
    with Loopback(Rule(behaviour)) as server:
        async with provider_of("http", server) as provider:
            error = await failure(provider)

    assert error.kind == kind


@pytest.mark.parametrize("status", [200, 201, 202])
async def test_every_status_of_success_comes_with_an_answer(status: int) -> None:
    with Loopback(Rule(Behaviour(status=status, body='{"answer": "x"}'))) as server:
        async with provider_of("http", server, output_pointer="/answer") as provider:
            text, _ = await ask(provider, input={"text": "Where?"})

    assert text == "x"
