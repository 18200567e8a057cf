"""The embedded model behind the provider seam."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from evalkit.call.providers.embedded import EmbeddedProvider, clip
from evalkit.config import ProviderSettings
from evalkit.errors import CallError, ConfigError
from evalkit.records import Event, Finish, ModelRequest, TextDelta
from tests.call.embedded.asking import choice, prompt

LABELS = "Labels:\n- late: the parcel is overdue\n- broken: the item is cracked"


def provider(**options: Any) -> EmbeddedProvider:
    return EmbeddedProvider(ProviderSettings(name="embedded", wire="embedded", options=options))


def request(text: str = "it is cracked", **changes: Any) -> ModelRequest:
    asked = {
        "model_id": "embedded",
        "messages": tuple(prompt(LABELS, text)),
        "max_tokens": 64,
        "response_schema": choice("late", "broken"),
    }
    return ModelRequest(**{**asked, **changes})


async def events_of(asked: ModelRequest) -> list[Event]:
    return [event async for event in provider().stream(asked)]


async def test_one_piece_of_text_and_a_finish_with_usage_and_confidence() -> None:
    text, finish = await events_of(request())

    assert text == TextDelta('{"label": "broken"}')
    assert isinstance(finish, Finish)
    assert finish.finish_reason == "stop"
    assert finish.usage.prompt_tokens > 10
    assert finish.usage.completion_tokens > 3
    assert finish.confidence is not None
    assert 0.5 < finish.confidence <= 1


async def test_a_stream_adds_up_to_the_same_answer() -> None:
    whole, _ = await events_of(request())

    *pieces, finish = await events_of(request(stream=True))

    assert len(pieces) > 1
    assert "".join(piece.text for piece in pieces) == whole.text
    assert isinstance(finish, Finish)


async def test_the_feature_input_and_the_task_name_do_not_change_the_answer() -> None:
    plain = await events_of(request())
    other = await events_of(request(input={"id": "t-001", "label": "late"}, task="classify"))

    assert other == plain


async def test_an_answer_beyond_max_tokens_is_cut_and_says_so() -> None:
    text, finish = await events_of(request(max_tokens=2))

    assert isinstance(finish, Finish)
    assert finish.finish_reason == "length"
    assert finish.usage.completion_tokens == 2
    assert len(text.text) < len('{"label": "broken"}')


@pytest.mark.parametrize("model_id", ["embedded", "hashed-ngrams"])
async def test_the_served_model_carries_the_version_of_its_answers(model_id: str) -> None:
    *_, finish = await events_of(request(model_id=model_id))

    assert isinstance(finish, Finish)
    assert finish.served_model == f"{model_id}-1"


async def test_an_unknown_model_id_is_not_found() -> None:
    with pytest.raises(CallError) as caught:
        await events_of(request(model_id="gpt-9"))

    assert caught.value.kind == "not_found"


@pytest.mark.parametrize("task", ["generate", "summarise", "plan"])
async def test_a_task_that_needs_free_text_is_refused(task: str) -> None:
    with pytest.raises(CallError) as caught:
        await events_of(request(task=task))

    assert caught.value.kind == "unsupported"


def test_an_unknown_backend_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no backend 'huge'. There are: base, llm, local"):
        provider(backend="huge")


async def test_a_hundred_calls_in_flight_leave_the_loop_alive() -> None:
    one = provider()
    await anext(one.stream(request()))

    # One turn of the loop runs all hundred, about 0.2 ms each; far more is a blocked loop.
    # A machine that stood still does not do so three times.
    assert min([await longest_turn_s(one) for _ in range(3)]) < 1.0


async def longest_turn_s(one: EmbeddedProvider) -> float:
    """Of the loop, while a hundred calls are in flight."""
    longest_s = 0.0

    async def heart() -> None:
        nonlocal longest_s
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.perf_counter() - before)

    async def call(i: int) -> None:
        async for _ in one.stream(request(f"parcel {i} is cracked")):
            pass

    beat = asyncio.create_task(heart())
    await asyncio.gather(*(call(i) for i in range(100)))
    beat.cancel()
    return longest_s


@pytest.mark.parametrize(
    ("text", "most", "kept"), [("a b c d", 2, "a b"), ("", 5, ""), ("ab", 9, "ab")]
)
def test_clip_keeps_as_many_tokens_as_allowed(text: str, most: int, kept: str) -> None:
    cut, tokens, reason = clip(text, most)

    assert cut.rstrip() == kept
    assert tokens <= most
    assert reason == ("stop" if kept == text else "length")
