"""Streams: nothing shown, try again silently; something shown, go on or say it is incomplete."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.call.shown import Shown
from evalkit.errors import CallError
from evalkit.records import CallResult, Event, ModelRequest, TextDelta
from evalkit.settings import GuardSettings
from tests.call.failing import World, kinds
from tests.call.scripted import Scripted, answer, finish
from tests.call.test_orchestrator import GOOD, Project
from tests.loopback import Behaviour

WHOLE = "Your parcel left our warehouse on Monday and will arrive on Thursday before noon."


def pieces(text: str, size: int = 7) -> list[Event]:
    return [TextDelta(text[at : at + size]) for at in range(0, len(text), size)]


def whole(text: str = WHOLE) -> list[Event]:
    return [*pieces(text), finish()]


async def stream(project: Project, **overrides: Any) -> tuple[list[str], CallResult]:
    shown, result = [], None
    async for event in project.orchestrator().stream("classify", "Where is it?", **overrides):
        if isinstance(event, TextDelta):
            shown.append(event.text)
        else:
            result = event
    assert result is not None
    return shown, result


def free_text(tmp_path: Path, *steps: Any, **changes: Any) -> Project:
    return Project(tmp_path, list(steps)).change(output_schema=None, **changes)


async def test_pieces_come_as_they_are_made_and_the_result_is_last(tmp_path: Path) -> None:
    project = free_text(tmp_path, whole())

    shown, result = await stream(project)

    assert len(shown) == len(pieces(WHOLE))
    assert "".join(shown) == WHOLE == result.output
    assert result.ok
    assert result.record.ttft_ms is not None
    assert project.one.asked[0].stream is True


async def test_a_cut_before_the_first_piece_is_tried_again_silently(tmp_path: Path) -> None:
    project = free_text(tmp_path, [], CallError("server", "in-band"), whole())

    shown, result = await stream(project)

    assert "".join(shown) == WHOLE
    assert result.ok
    assert [a.error_kind for a in result.record.attempts] == ["stream_cut", "server", None]
    assert result.record.resumed == 0


async def test_a_cut_after_the_first_piece_is_an_incomplete_answer(tmp_path: Path) -> None:
    project = free_text(tmp_path, pieces(WHOLE)[:4], whole())

    shown, result = await stream(project)

    assert "".join(shown) == WHOLE[:28] == result.output
    assert result.status == "error"
    assert result.error_kind == "incomplete"
    assert len(project.one.asked) == 1


@pytest.mark.parametrize(
    "more",
    [WHOLE[28:], WHOLE[10:], WHOLE],
    ids=["the rest", "with an overlap", "from the beginning"],
)
async def test_free_text_goes_on_after_a_cut_without_repeating_itself(
    tmp_path: Path, more: str
) -> None:
    project = free_text(tmp_path, pieces(WHOLE)[:4], whole(more), resume_stream=True)

    shown, result = await stream(project)

    assert "".join(shown) == WHOLE
    assert result.ok
    assert result.output == WHOLE
    assert result.record.resumed == 1
    again = project.one.asked[1].messages
    assert again[-2] == {"role": "assistant", "content": WHOLE[:28]}
    assert project.one.asked[1].follow_up == 2


async def test_a_short_continuation_is_no_repetition_because_the_answer_began_with_it(
    tmp_path: Path,
) -> None:
    begun = "42 is the answer, I say: "
    project = free_text(tmp_path, pieces(begun), whole("42"), resume_stream=True)

    shown, result = await stream(project)

    assert "".join(shown) == "42 is the answer, I say: 42" == result.output


async def test_an_answer_begun_anew_and_cut_again_is_shown_once(tmp_path: Path) -> None:
    steps = [pieces(WHOLE)[:4], [TextDelta("You")], whole(WHOLE[28:])]
    project = free_text(tmp_path, *steps, resume_stream=True)

    shown, result = await stream(project)

    assert "".join(shown) == WHOLE == result.output


async def test_a_continuation_may_be_cut_again(tmp_path: Path) -> None:
    steps = [pieces(WHOLE)[:2], pieces(WHOLE[14:])[:6], whole(WHOLE[56:])]
    project = free_text(tmp_path, *steps, resume_stream=True)

    shown, result = await stream(project)

    assert "".join(shown) == WHOLE
    assert result.record.resumed == 2
    assert [len(r.messages) for r in project.one.asked] == [2, 4, 4]


async def test_json_is_shown_once_and_only_when_it_is_valid(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer('{"label": "colour"}'), answer(GOOD)])

    shown, result = await stream(project)

    assert shown == [GOOD]
    assert result.value == {"label": "billing"}


async def test_a_stream_that_stalls_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stalling(Scripted):
        async def stream(self, request: ModelRequest):  # type: ignore[no-untyped-def]
            self.asked.append(request)
            yield TextDelta("Your parcel")
            await asyncio.Event().wait()

    project = free_text(tmp_path)
    project.change(max_latency_ms=500, retries=0)
    project.one = Stalling([])

    shown, result = await stream(project)

    assert shown == ["Your parcel"]
    assert result.error_kind == "incomplete"


async def test_what_the_guard_still_holds_back_has_not_been_shown(tmp_path: Path) -> None:
    project = free_text(tmp_path, pieces(WHOLE)[:4], whole("Something else."))
    project.settings = replace(project.settings, guard=GuardSettings(output_pii="replace"))

    shown, result = await stream(project)

    assert "".join(shown) == "Something else." == result.output
    assert [a.error_kind for a in result.record.attempts] == ["stream_cut", None]


def no_secret(text: str) -> str | None:
    return "a secret" if "secret" in text else None


async def test_nothing_is_shown_of_what_a_rule_of_the_guard_blocks(tmp_path: Path) -> None:
    project = free_text(tmp_path, whole("Your parcel is a secret of ours."))
    rules = GuardSettings(output_rules=("tests.call.test_streaming:no_secret",))
    project.settings = replace(project.settings, guard=rules)

    shown, result = await stream(project)

    assert (shown, result.error_kind, result.output) == ([], "guard_block", None)


async def test_what_passes_the_rules_of_the_guard_is_shown_in_one_piece(tmp_path: Path) -> None:
    project = free_text(tmp_path, whole())
    rules = GuardSettings(output_rules=("tests.call.test_streaming:no_secret",))
    project.settings = replace(project.settings, guard=rules)

    shown, result = await stream(project)

    assert shown == [WHOLE]
    assert (result.value, result.record.schema_ok) == (None, None)


async def test_an_incomplete_answer_has_nothing_that_the_guard_did_not_let_through(
    tmp_path: Path,
) -> None:
    start = "All is well with it. " * 15
    project = free_text(tmp_path, pieces(f"{start}Ask anna@mail.example"))
    project.settings = replace(project.settings, guard=GuardSettings(output_pii="replace"))

    shown, result = await stream(project)

    assert result.error_kind == "incomplete"
    assert "".join(shown) == result.output == result.record.output
    assert start.startswith(result.output)


async def test_what_was_seen_in_a_stream_stands_in_the_record(tmp_path: Path) -> None:
    project = free_text(tmp_path, whole(f"{WHOLE} Ask anna@mail.example."))
    project.settings = replace(project.settings, guard=GuardSettings(output_pii="flag"))

    _, result = await stream(project)

    assert result.record.guard_events == ("output_pii:email",)


async def test_a_tool_call_that_is_being_written_is_no_silence(tmp_path: Path) -> None:
    arguments = '{"text": "' + "a" * 70 + '"}'
    call = {"id": "c1", "name": "note", "arguments": arguments}
    slow = Behaviour(tool_calls=[call], finish_reason="tool_calls", tokens_per_s=15)
    note = {"name": "note", "parameters": {"type": "object"}}
    async with World(
        tmp_path, slow, output_schema=None, tools=("note",), ttft_ms=1000, idle_ms=1000
    ) as world:
        result = [one async for one in world.orchestrator.stream("sort", "x", tools=[note])][-1]

        assert isinstance(result, CallResult)
        assert kinds(result) == [None]
        assert result.record.tool_calls[0].arguments == arguments
        assert result.record.ttft_ms is not None
        assert result.record.ttft_ms < 1000 < result.record.latency_ms


async def test_a_late_first_token_asks_the_next_model(tmp_path: Path) -> None:
    class Late(Scripted):
        async def stream(self, request: ModelRequest):  # type: ignore[no-untyped-def]
            self.asked.append(request)
            await asyncio.Event().wait()
            yield finish()

    project = free_text(tmp_path, ttft_ms=20, fallbacks=("spare",))
    project.one, project.two = Late([]), Scripted([whole()])

    shown, result = await stream(project)

    assert "".join(shown) == WHOLE
    assert [a.error_kind for a in result.record.attempts] == ["ttft_timeout", None]


async def test_closing_the_stream_cancels_the_call(tmp_path: Path) -> None:
    closed = asyncio.Event()

    class Endless(Scripted):
        async def stream(self, request: ModelRequest):  # type: ignore[no-untyped-def]
            try:
                while True:
                    yield TextDelta("on and ")
                    await asyncio.sleep(0)
            finally:
                closed.set()

    project = free_text(tmp_path)
    project.one = Endless([])
    events = project.orchestrator().stream("classify", "x")

    assert await anext(events) == TextDelta("on and ")
    await events.aclose()

    await asyncio.wait_for(closed.wait(), 60)


async def test_a_configuration_error_reaches_the_reader(tmp_path: Path) -> None:
    from evalkit.errors import ConfigError

    with pytest.raises(ConfigError):
        async for _ in free_text(tmp_path).orchestrator().stream("clasify", "x"):
            pass


async def test_a_late_answer_is_hedged_and_both_requests_are_recorded(tmp_path: Path) -> None:
    class SlowFirst(Scripted):
        async def stream(self, request: ModelRequest):  # type: ignore[no-untyped-def]
            self.asked.append(request)
            if len(self.asked) == 1:
                await asyncio.Event().wait()
            for event in answer(GOOD):
                yield event

    project = Project(tmp_path, []).change(hedge_after_ms=20)
    project.one = SlowFirst([])

    result = await project.execute()

    assert result.ok
    assert len(project.one.asked) == 2
    assert [a.error_kind for a in result.record.attempts] == ["cancelled", None]
    assert result.record.cost_usd is None


@given(st.text(min_size=1, max_size=300), st.data())
def test_a_restart_or_a_clean_rest_joins_to_the_whole(text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(text)))
    restart = data.draw(st.booleans())
    seen: list[str] = []

    async def join() -> None:
        async def emit(piece: str) -> None:
            seen.append(piece)

        shown = Shown(emit, resume=True)
        await shown.add(text[:cut])
        shown.continued(ModelRequest(model_id="m", messages=(), max_tokens=9))
        for piece in text if restart else text[cut:]:
            await shown.add(piece)
        await shown.complete()

    asyncio.run(join())

    if restart:
        assert "".join(seen) == text
    else:
        assert "".join(seen).startswith(text[:cut])
