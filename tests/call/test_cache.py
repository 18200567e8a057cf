"""What the exact cache takes for the same request, what it keeps, and what may go wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.call.cache import cache_key, normalised, stood_in, whole_answer
from evalkit.call.trace import Call, Rendered, Stages
from evalkit.config import FeatureSettings, ModelSettings
from evalkit.records import Attempt, Pair, ToolCall

SYSTEM = {"role": "system", "content": "Answer  briefly.\n\n\nBe kind."}


def key(text: str = "Where is my order?", **changed: Any) -> str:
    asked = {
        "messages": ({"role": "system", "content": "Be kind."}, {"role": "user", "content": text}),
        "model_id": "small-1",
        "params": {"temperature": 0.0, "max_tokens": 64},
        "schema": {"type": "object"},
        "index_version": "i1",
        "tenant": "acme",
        "namespace": "help/small/help@v1",
    }
    return cache_key(**{**asked, **changed})


# --- the key --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variant",
    [
        "  Where is   my order? \n",
        "Where\tis my\u00a0order?",
        "Where is my order?\r\n",
        "\n\nWhere is my order?",
    ],
)
def test_blanks_and_line_ends_share_one_key(variant: str) -> None:
    assert key(variant) == key()


def test_composed_and_decomposed_characters_share_one_key() -> None:
    assert key("Wo ist mein Gerät?") == key("Wo ist mein Gera\u0308t?")


def test_blank_space_inside_a_data_block_is_the_users() -> None:
    plain = "Question:\n<data>\nWhere is it?\n</data>"

    assert key("Question:\n<data>\n\n   Where  is it? \n\n</data>\n") == key(plain)


@pytest.mark.parametrize(
    "other",
    [
        "where is my order?",
        "Where is my order",
        "Where is my order? 2",
        "Where\nis my order?",
        "if a:\n    b\n    c",
    ],
)
def test_case_punctuation_lines_and_words_count(other: str) -> None:
    assert key(other) != key()


def test_indentation_counts_as_in_code() -> None:
    assert key("if a:\n    b\nc") != key("if a:\n    b\n    c")


@pytest.mark.parametrize(
    "changed",
    [
        {"model_id": "small-2"},
        {"params": {"temperature": 0.5, "max_tokens": 64}},
        {"params": {"temperature": 0.0, "max_tokens": 65}},
        {"schema": {"type": "array"}},
        {"schema": None},
        {"index_version": "i2"},
        {"index_version": None},
        {"tenant": "other"},
        {"tenant": None},
        {"tenant": ""},
        {"namespace": "help/small/help@v2"},
        {"namespace": "help/small/help@v1/2"},
    ],
    ids=str,
)
def test_everything_that_decides_an_answer_is_in_the_key(changed: dict[str, Any]) -> None:
    assert key(**changed) != key()


def test_system_text_counts_as_it_is() -> None:
    user = {"role": "user", "content": "Hello"}

    one = key(messages=(SYSTEM, user))
    other = key(messages=({**SYSTEM, "content": "Answer briefly.\n\nBe kind."}, user))

    assert one != other


def test_who_said_it_and_in_which_order_counts() -> None:
    one, two = {"role": "user", "content": "one"}, {"role": "user", "content": "two"}

    keys = {
        key(messages=(one, two)),
        key(messages=(two, one)),
        key(messages=(one, {**two, "role": "assistant"})),
        key(messages=({"role": "user", "content": "one\ntwo"},)),
    }

    assert len(keys) == 4


def test_other_parts_than_text_count() -> None:
    def asked(image: str, text: str = "What is this?") -> str:
        parts = [{"type": "text", "text": text}, {"type": "image", "data": image}]
        return key(messages=({"role": "user", "content": parts},))

    assert asked("AAAA") != asked("AAAB")
    assert asked("AAAA") == asked("AAAA", " What  is this?")


def test_the_order_of_parameters_does_not_count() -> None:
    assert key(params={"max_tokens": 64, "temperature": 0.0}) == key()


def test_a_key_begins_with_its_namespace() -> None:
    assert key().startswith("help/small/help@v1:")


def test_lone_surrogates_and_values_without_a_json_form_have_a_key() -> None:
    assert key("\ud800", params={"odd": {1, 2}}) != key("\ud801", params={"odd": {1, 2}})


@given(st.text(alphabet=st.sampled_from("ab \t\n\r\u00a0\u0308é<>/"), max_size=40))
def test_normalising_again_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)


@given(st.text(max_size=60))
def test_normalising_changes_blanks_only(text: str) -> None:
    import unicodedata

    def letters(some: str) -> str:
        return "".join(unicodedata.normalize("NFC", some).split())

    assert letters(normalised(text)) == letters(text)


# --- what is kept ---------------------------------------------------------------------


def attempt(**changed: Any) -> Attempt:
    fields: dict[str, Any] = {
        "provider": "p",
        "model": "small",
        "served_model": "small-1-0613",
        "error_kind": None,
        "finish_reason": "stop",
        "latency_ms": 1.0,
        "ttft_ms": None,
        "wait_ms": 0.0,
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "cached_prompt_tokens": None,
        "cost_usd": 0.001,
        "max_tokens": 64,
    }
    return Attempt(**{**fields, **changed})


def answered_call(**changed: Any) -> Call:
    call = Call(
        feature=FeatureSettings(
            name="help", prompt_name="help", prompt_version="v1", model="small"
        ),
        input={},
        trace_id="t",
        ts=0,
        started=0.0,
        stages=Stages(lambda: 0.0),
        user_id=None,
        tenant=None,
        session_id=None,
        rendered=Rendered(name="help", version="v1", hash="h", messages=()),
        attempts=[attempt()],
        answered_by=ModelSettings(name="small", provider="p", id="small-1"),
        output="It is on its way.",
        finish_reason="stop",
        confidence=0.9,
    )
    for name, value in changed.items():
        setattr(call, name, value)
    return call


def test_an_answer_is_kept_with_what_a_record_says_of_it() -> None:
    kept = whole_answer(answered_call())

    assert kept is not None
    assert kept.output == "It is on its way."
    assert kept.pair == Pair(model="small", prompt_name="help", prompt_version="v1")
    assert (kept.model, kept.served_model) == ("small", "small-1-0613")
    assert (kept.finish.finish_reason, kept.finish.confidence) == ("stop", 0.9)
    assert kept.finish.usage.prompt_tokens == 100
    assert kept.finish.usage.completion_tokens == 10


def test_a_retry_before_the_answer_does_not_keep_it_out() -> None:
    call = answered_call(attempts=[attempt(error_kind="server"), attempt()])

    assert whole_answer(call) is not None


def test_an_answer_that_only_calls_tools_is_kept() -> None:
    tool_calls = (ToolCall(id="1", name="find", arguments=json.dumps({"id": 4})),)

    kept = whole_answer(
        answered_call(output=None, finish_reason="tool_calls", tool_calls=tool_calls)
    )

    assert kept is not None
    assert kept.finish.tool_calls == tool_calls


@pytest.mark.parametrize(
    "changed",
    [
        {"status": "error", "error_kind": "invalid_output"},
        {"status": "refused", "error_kind": "refusal"},
        {"status": "degraded", "error_kind": "timeout"},
        {"status": "pending_review"},
        {"finish_reason": "length"},
        {"finish_reason": "content_filter"},
        {"finish_reason": None},
        {"schema_ok": False},
        {"resumed": 1},
        {"output": None},
        {"output": ""},
        {"answered_by": None},
        {"attempts": []},
        {"attempts": [attempt(error_kind="stream_cut")]},
    ],
    ids=str,
)
def test_what_is_not_a_valid_complete_answer_is_not_kept(changed: dict[str, Any]) -> None:
    assert whole_answer(answered_call(**changed)) is None


def test_the_answer_of_a_stand_in_is_not_kept_for_the_model_that_failed() -> None:
    large = ModelSettings(name="large", provider="q", id="large-1")
    attempts = [attempt(error_kind="server"), attempt(model="large")]

    call = answered_call(attempts=attempts, answered_by=large)

    assert stood_in(call)
    assert whole_answer(call) is not None  # who asked at the same moment gets it too


def test_the_answer_of_a_model_asked_for_more_confidence_is_kept() -> None:
    large = ModelSettings(name="large", provider="q", id="large-1")
    attempts = [attempt(), replace(attempt(), model="large")]

    call = answered_call(attempts=attempts, answered_by=large)
    kept = whole_answer(call)

    assert not stood_in(call)
    assert kept is not None
    assert kept.model == "large"
    assert kept.pair.model == "small"
