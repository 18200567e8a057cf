"""A function in this process as an application."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from evalkit.call.providers import build_provider
from evalkit.call.providers.base import Provider
from evalkit.config import ProviderSettings
from evalkit.errors import CallError
from evalkit.records import Usage
from tests.call.providers.asking import ask, failure

Build = Callable[..., Provider]
QUESTION = {"text": "Where is it?"}


@pytest.fixture
async def provider_for(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Build]:
    """Builds the provider whose target is the given function."""
    built: list[Provider] = []

    def build(function: Any, **settings: Any) -> Provider:
        module = ModuleType("an_application")
        module.answer = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "an_application", module)
        values = {"name": "app", "wire": "python", "target": "an_application:answer", **settings}
        built.append(build_provider(ProviderSettings(**values)))
        return built[-1]

    yield build
    for provider in built:
        await provider.aclose()


async def test_a_function_gets_the_input_in_a_thread(provider_for: Build) -> None:
    seen: dict[str, Any] = {}

    def answer(input: Any) -> str:
        seen.update(input=input, thread=threading.current_thread())
        return "Tomorrow."

    text, finish = await ask(provider_for(answer), input=QUESTION)

    assert text == "Tomorrow."
    assert finish.finish_reason == "stop"
    assert finish.usage == Usage()
    assert seen["input"] == QUESTION
    assert seen["thread"] is not threading.main_thread()


async def test_an_async_function_runs_in_the_event_loop(provider_for: Build) -> None:
    async def answer(input: Any) -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    text, _ = await ask(provider_for(answer), input=QUESTION)

    assert text == threading.main_thread().name


async def test_messages_are_given_to_a_function_that_takes_them(provider_for: Build) -> None:
    def answer(input: Any, messages: Any) -> str:
        return str(messages[0]["content"])

    text, _ = await ask(provider_for(answer), input=QUESTION)

    assert text == "Where is my parcel?"


async def test_what_a_function_does_to_its_input_stays_with_it(provider_for: Build) -> None:
    question = dict(QUESTION)

    await ask(provider_for(lambda input: input.clear()), input=question)

    assert question == QUESTION


async def test_what_a_function_does_to_a_list_in_its_input_stays_with_it(
    provider_for: Build,
) -> None:
    question = {"turns": ["Where is it?"]}

    await ask(provider_for(lambda input: input["turns"].append("On its way.")), input=question)

    assert question == {"turns": ["Where is it?"]}


async def test_a_thread_sees_the_context_of_its_call(provider_for: Build) -> None:
    who = contextvars.ContextVar("who", default="nobody")
    who.set("me")

    text, _ = await ask(provider_for(lambda input: who.get()))

    assert text == "me"


@pytest.mark.parametrize(
    ("result", "text", "usage"),
    [
        ({"label": "é"}, '{"label": "é"}', Usage()),
        ([1, 2], "[1, 2]", Usage()),
        (None, "", Usage()),
        ("half \ud83d", "half \ufffd", Usage()),
        (SimpleNamespace(text="hi"), "hi", Usage()),
        (SimpleNamespace(text={"a": 1}, usage={"prompt_tokens": 3}), '{"a": 1}',
         Usage(prompt_tokens=3)),
        (SimpleNamespace(text="hi", usage=SimpleNamespace(prompt_tokens=3, completion_tokens=4)),
         "hi", Usage(prompt_tokens=3, completion_tokens=4)),
    ],
)  # fmt: skip
async def test_what_a_function_may_return(
    provider_for: Build, result: Any, text: str, usage: Usage
) -> None:
    answered, finish = await ask(provider_for(lambda input: result))

    assert answered == text
    assert finish.usage == usage


@pytest.mark.parametrize("result", [5, b"bytes", object(), {"a": {1, 2}}, {"a": object()}])
async def test_anything_else_is_a_bad_reply(provider_for: Build, result: Any) -> None:
    error = await failure(provider_for(lambda input: result))

    assert error.kind == "bad_reply"
    assert "an_application:answer returned" in str(error)


@pytest.mark.parametrize("exception", [ValueError, RuntimeError, StopIteration, SystemExit])
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_exception_counts_as_a_server_failure_with_its_traceback_in_the_log(
    provider_for: Build,
    exception: type[BaseException],
    is_async: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(input: Any) -> str:
        raise exception("no stock")

    async def broken_too(input: Any) -> str:
        return broken(input)

    with caplog.at_level(logging.WARNING):
        error = await failure(provider_for(broken_too if is_async else broken))

    assert error.kind == "server"
    assert exception is StopIteration or f"{exception.__name__}: no stock" in str(error)
    assert 'raise exception("no stock")' in caplog.text


@pytest.mark.parametrize("is_async", [False, True])
async def test_a_function_that_cancels_itself_has_failed_and_its_caller_goes_on(
    provider_for: Build, is_async: bool
) -> None:
    async def awaits_a_cancelled_task(input: Any) -> None:
        inner = asyncio.ensure_future(asyncio.sleep(60))
        asyncio.get_running_loop().call_soon(inner.cancel)
        await inner

    def cancelled(input: Any) -> str:
        raise asyncio.CancelledError

    error = await failure(provider_for(awaits_a_cancelled_task if is_async else cancelled))

    assert error.kind == "server"
    assert "an_application:answer raised CancelledItself" in str(error)


async def test_a_call_error_of_the_function_keeps_its_kind(provider_for: Build) -> None:
    def answer(input: Any) -> str:
        raise CallError("rate_limit", "slow down", retry_after_s=2)

    error = await failure(provider_for(answer))

    assert error.kind == "rate_limit"
    assert error.retry_after_s == 2


@pytest.mark.parametrize("target", ["no_such_module:f", "json:no_such_name", "json:__name__", ""])
async def test_a_target_that_is_not_there_is_not_found(target: str, provider_for: Build) -> None:
    error = await failure(provider_for(None, target=target))

    assert error.kind == "not_found"
    assert repr(target) in str(error)


async def test_as_many_calls_run_at_once_as_may_be_in_flight(provider_for: Build) -> None:
    meeting = threading.Barrier(20, timeout=60)

    def answer(input: Any) -> str:
        meeting.wait()
        return "met"

    provider = provider_for(answer, max_in_flight=20)
    answers = await asyncio.gather(*(ask(provider) for _ in range(20)))

    assert [text for text, _ in answers] == ["met"] * 20


async def test_cancelling_leaves_a_sync_function_behind(provider_for: Build) -> None:
    go = threading.Event()
    provider = provider_for(lambda input: go.wait(10))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await ask(provider)

    go.set()
