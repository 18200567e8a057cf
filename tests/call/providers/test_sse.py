"""Server-sent events come out whole, however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.call.providers.sse import (
    MAX_EVENT_BYTES,
    MAX_LINE_BYTES,
    EventDecoder,
    ServerSentEvent,
)
from evalkit.errors import CallError

STREAM = (
    "\ufeffevent: start\ndata: {}\n\n"
    ": a comment\n\n"
    "data: Grüße 😀\r\ndata:  indented\r\n\r\n"
    "id: 7\nretry: 10\ndata:no space\r\r"
    "event: nothing\n\n"
    "data\n\n"
    "data: never finished"
).encode()
EVENTS = [
    ServerSentEvent("start", "{}"),
    ServerSentEvent("", "Grüße 😀\n indented"),
    ServerSentEvent("", "no space"),
    ServerSentEvent("", ""),
]


def decode(*chunks: bytes) -> list[ServerSentEvent]:
    decoder = EventDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


def test_fields_comments_and_line_ends_follow_the_standard() -> None:
    assert decode(STREAM) == EVENTS


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_pieces_of_any_size_give_the_same_events(size: int) -> None:
    chunks = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]

    assert decode(*chunks) == EVENTS


def test_a_cut_at_any_byte_changes_nothing() -> None:
    for cut in range(len(STREAM)):
        assert decode(STREAM[:cut], STREAM[cut:]) == EVENTS, f"cut at byte {cut}"


@given(
    texts=st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8")), max_size=5),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    cuts=st.lists(st.integers(0, 200), max_size=10),
)
def test_any_texts_survive_any_line_ends_and_cuts(
    texts: list[str], end: str, cuts: list[int]
) -> None:
    stream = "".join(f"data: {text}{end}{end}" for text in texts).encode()
    places = [0, *sorted(cuts), len(stream)]

    chunks = [stream[a:b] for a, b in pairwise(places)]

    assert [event.data for event in decode(*chunks)] == texts


def test_an_event_that_is_not_utf8_is_a_bad_reply() -> None:
    with pytest.raises(CallError) as caught:
        decode(b"data: \xff\xfe\n\n")

    assert caught.value.kind == "bad_reply"


def test_a_line_without_end_is_refused_before_memory_fills() -> None:
    decoder = EventDecoder()
    for _ in range(MAX_LINE_BYTES // 50_000):
        decoder.feed(b"x" * 50_000)

    with pytest.raises(CallError) as caught:
        decoder.feed(b"x")

    assert caught.value.kind == "bad_reply"


def test_an_event_of_endless_short_lines_is_refused_before_memory_fills() -> None:
    decoder = EventDecoder()
    chunk = b"data: ab\n" * 10_000
    for _ in range(MAX_EVENT_BYTES // 30_000):
        decoder.feed(chunk)

    with pytest.raises(CallError, match="an event of the stream passed 4,000,000 bytes"):
        decoder.feed(chunk)


def test_an_event_may_have_many_lines() -> None:
    lines = [f"line {number}" for number in range(10_000)]
    data = "".join(f"data: {line}\n" for line in lines).encode() + b"\n"

    assert EventDecoder().feed(data) == [ServerSentEvent("", "\n".join(lines))]
