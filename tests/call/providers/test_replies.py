"""Error replies in the shapes that servers use, and values nobody should trust."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.call.failures import FAILURES
from evalkit.call.providers import replies
from evalkit.call.providers.replies import (
    MAX_QUOTED_CHARS,
    count,
    error_of_status,
    mended,
    quoted,
    raise_if_error,
    read_event,
    read_json,
    retry_after_s,
)
from evalkit.errors import CallError


def openai(code: Any, message: str = "no", kind: str = "invalid_request_error") -> str:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def anthropic(kind: str, message: str = "no") -> str:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}})


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, openai("rate_limit_exceeded"), "rate_limit"),
        (429, openai(None, kind="requests"), "rate_limit"),
        (429, openai("insufficient_quota", kind="insufficient_quota"), "quota_exhausted"),
        (429, openai(None, "Too many tokens, please wait before trying again."), "rate_limit"),
        (429, openai(None, "You exceeded your current quota"), "quota_exhausted"),
        (429, "", "rate_limit"),
        (402, "", "quota_exhausted"),
        (529, anthropic("overloaded_error"), "rate_limit"),
        (500, anthropic("api_error"), "server"),
        (502, "<html>Bad Gateway</html>", "server"),
        (503, "", "server"),
        (504, anthropic("timeout_error"), "server"),
        (408, "", "server"),
        (400, openai("context_length_exceeded"), "context_length"),
        (400, openai(None, "This model's maximum context length is 9."), "context_length"),
        (400, anthropic("invalid_request_error", "prompt is too long: 9 > 8"), "context_length"),
        (413, anthropic("request_too_large"), "context_length"),
        (400, anthropic("invalid_request_error", "Your credit balance is too low"),
         "quota_exhausted"),
        (400, openai("content_filter"), "content_filter"),
        (400, openai("unknown_parameter", "Unknown parameter: 'x'"), "bad_request"),
        (422, json.dumps({"detail": [{"loc": ["body"]}]}), "bad_request"),
        (405, "", "bad_request"),
        (307, "", "bad_request"),
        (401, openai("invalid_api_key"), "auth"),
        (403, anthropic("permission_error"), "auth"),
        (404, openai("model_not_found"), "not_found"),
        (410, "", "not_found"),
    ],
)  # fmt: skip
def test_status_and_body_lead_to_one_kind(status: int, body: str, kind: str) -> None:
    error = error_of_status(status, body.encode(), headers={})

    assert error.kind == kind
    assert error.status == status


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"error": {"message": "overloaded", "code": 502}}, "server"),
        ({"error": {"message": "slow down", "code": 429}}, "rate_limit"),
        ({"error": {"message": "Too many tokens per minute", "code": 429}}, "rate_limit"),
        ({"error": "something broke"}, "server"),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "x"}}, "rate_limit"),
        ({"error": {"type": "invalid_request_error", "message": "x"}}, "bad_request"),
        ({"error": {"message": "context length exceeded"}}, "context_length"),
        ({"error": {"code": "insufficient_quota"}}, "quota_exhausted"),
        ({"error": [1, 2]}, "server"),
        ({"type": "error", "code": "rate_limit_exceeded", "message": "x"}, "rate_limit"),
        ({"object": "error", "type": "InternalServerError", "message": "x"}, "server"),
    ],
)
def test_an_error_inside_a_reply_of_status_200_has_its_own_kind(value: Any, kind: str) -> None:
    with pytest.raises(CallError) as caught:
        raise_if_error(value)

    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ('{"code": "rate_limit_exceeded", "message": "slow down"}', "rate_limit"),
        ('{"message": "it broke"}', "server"),
        ("upstream timed out", "server"),
    ],
)
def test_an_event_named_error_is_one_whatever_is_in_it(data: str, kind: str) -> None:
    with pytest.raises(CallError) as caught:
        read_event(data, "error")

    assert caught.value.kind == kind


@pytest.mark.parametrize("value", [{}, {"error": None}, {"choices": []}, [], "error", None])
def test_a_reply_without_an_error_passes(value: Any) -> None:
    raise_if_error(value)


def test_every_kind_of_the_tables_is_a_row_of_the_failure_table() -> None:
    kinds = {
        *replies.KIND_OF_STATUS.values(),
        *replies.KIND_OF_CODE.values(),
        *(kind for _, kind in replies.KIND_OF_MESSAGE),
    }

    assert kinds <= set(FAILURES)


@given(status=st.integers(300, 599), body=st.binary(max_size=200))
def test_any_status_with_any_body_is_a_known_kind(status: int, body: bytes) -> None:
    assert error_of_status(status, body, headers={}).kind in FAILURES


def test_a_key_that_a_server_echoes_is_not_passed_on() -> None:
    body = openai("invalid_api_key", "Incorrect API key provided: sk-12345678.").encode()

    error = error_of_status(401, body, headers={}, secrets=("sk-12345678",))

    assert str(error) == "status 401: Incorrect API key provided: ***."


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "999999"}, 3600.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Thu, 99 Foo 99999999999 00:00:00 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_every_form_and_bounded(
    headers: dict[str, str], wait_s: float | None
) -> None:
    assert retry_after_s(headers) == wait_s


def test_retry_after_may_be_a_date() -> None:
    wait_s = retry_after_s({"retry-after": formatdate(time.time() + 100, usegmt=True)})

    assert wait_s is not None
    assert 90 < wait_s <= 100


def test_a_date_without_a_zone_is_gmt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        wait_s = retry_after_s({"retry-after": time.asctime(time.gmtime(time.time() + 100))})
    finally:
        monkeypatch.undo()
        time.tzset()

    assert wait_s is not None
    assert 90 < wait_s <= 100


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nan", b'{"a": NaN}', b'{"a": Infinity}', b"\xff", b"{} {}", b"[" * 100_000,
     b"9" * 10_000],
)  # fmt: skip
def test_what_is_not_json_is_a_bad_reply(body: bytes) -> None:
    with pytest.raises(CallError) as caught:
        read_json(body)

    assert caught.value.kind == "bad_reply"
    assert len(str(caught.value)) < 400


def test_half_a_surrogate_pair_becomes_text_that_can_be_written() -> None:
    assert mended("a\ud83d") == "a\ufffd"
    assert mended("\ud83d\ude00") == "😀"
    assert mended("\ude00\ud83d") == "\ufffd\ufffd"
    assert mended("Grüße") == "Grüße"


@given(st.text(st.characters()))
def test_mended_text_is_always_utf8(value: str) -> None:
    mended(value).encode("utf-8")


@pytest.mark.parametrize(
    ("value", "tokens"),
    [(0, 0), (17, 17), (-1, None), (True, None), (1.0, None), ("5", None), (None, None)],
)
def test_token_counts_are_whole_numbers_or_unknown(value: Any, tokens: int | None) -> None:
    assert count(value) == tokens


def test_a_servers_words_are_one_short_line() -> None:
    line = quoted("a\n\tb\x00\x1b[31m " + "c" * 10_000)

    assert line.startswith("a b [31m c")
    assert len(line) == MAX_QUOTED_CHARS
