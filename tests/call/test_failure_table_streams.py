"""The failure table, for streams: cut, stalled, damaged, or ended without a reason.

Nothing shown yet: the next try is silent. Something shown: free text may go on by continuation,
where the feature says so; else the answer is `incomplete`, and nobody is told it was whole.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.call.failing import GOOD, WHOLE, World, kinds
from tests.loopback import Behaviour, Request, Rule


def rest_of_it(request: Request) -> str:
    """A healthy model: WHOLE, or what is missing of it when asked to go on."""
    before = [m["content"] for m in request.json["messages"] if m["role"] == "assistant"]
    return WHOLE.removeprefix(before[-1]) if before else WHOLE


FIRST_WORDS = " ".join(WHOLE.split()[:9])
BROKEN = {
    "cut": Behaviour(text=WHOLE, cut_after=10),
    "stalled": Behaviour(text=WHOLE, stall_after=10),
    "bad chunk": Behaviour(text=WHOLE, malformed_at=10),
    "clean end without finish_reason": Behaviour(text=WHOLE, end_after=10),
    "[DONE] without finish_reason": Behaviour(text=FIRST_WORDS, finish_reason=None),
    "in-band error": Behaviour(text=WHOLE, error_at=10),
}
"""After nine words; the first event names the role."""

MID_STREAM = pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)


def free_text(folder: Path, *rules: Rule | Behaviour, **changes: object) -> World:
    world = World(folder, *rules, **{"output_schema": None, "idle_ms": 300, **changes})
    world.one.script(*world_rules(rules), answer=rest_of_it)
    world.two.script(answer=rest_of_it)
    return world


def world_rules(rules: tuple[Rule | Behaviour, ...]) -> list[Rule]:
    return [Rule(r) if isinstance(r, Behaviour) else r for r in rules]


# --- nothing shown yet ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        (Behaviour(text=WHOLE, cut_after=1), "stream_cut"),
        (Behaviour(text=WHOLE, malformed_at=1), "bad_reply"),
        (Behaviour(text=WHOLE, end_after=1), "stream_cut"),
        (Behaviour(text=WHOLE, error_at=1), "server"),
        (Behaviour(text=WHOLE, cut_after=-1), "connect"),
    ],
    ids=["cut", "bad chunk", "clean end", "in-band error", "lost before the headers"],
)
async def test_a_stream_that_breaks_before_its_first_word_is_tried_again_silently(
    tmp_path: Path, broken: Behaviour, kind: str
) -> None:
    async with free_text(tmp_path, Rule(broken, times=1)) as world:
        shown, result = await world.stream()

        assert shown == WHOLE == result.output
        assert kinds(result) == [kind, None]
        assert result.record.resumed == 0


@pytest.mark.parametrize(("error_at", "cost"), [(1, 0.0), (10, None)], ids=["before", "after"])
async def test_what_a_model_wrote_before_an_error_costs_what_nobody_knows(
    tmp_path: Path, error_at: int, cost: float | None
) -> None:
    breaks = Behaviour(text=WHOLE, error_at=error_at)
    async with free_text(tmp_path, Rule(breaks, times=1)) as world:
        _, result = await world.stream()

        assert result.record.attempts[0].error_kind == "server"
        assert result.record.attempts[0].cost_usd == cost


async def test_a_stream_that_stays_silent_goes_to_the_next_model(tmp_path: Path) -> None:
    async with free_text(tmp_path, Behaviour(text=WHOLE, stall_after=1), ttft_ms=80) as world:
        shown, result = await world.stream()

        assert shown == WHOLE
        assert kinds(result) == ["ttft_timeout", None]


@MID_STREAM
async def test_json_that_breaks_mid_stream_is_never_continued_and_shown_once(
    tmp_path: Path, broken: Behaviour
) -> None:
    settings = {"idle_ms": 300, "resume_stream": True, "stream": True}
    async with World(tmp_path, broken, **settings) as world:
        shown, result = await world.stream()

        assert shown == GOOD == result.output
        assert result.record.served_model == "spare"
        assert result.record.resumed == 0
        assert all(len(body["messages"]) == 2 for body in world.bodies())


@MID_STREAM
async def test_a_reader_who_takes_only_the_result_never_notices(
    tmp_path: Path, broken: Behaviour
) -> None:
    async with free_text(tmp_path, broken, stream=True, retries=0) as world:
        result = await world.call()

        assert result.ok
        assert result.output == WHOLE
        assert world.requests == (1, 1)


# --- something shown ------------------------------------------------------------------------


@MID_STREAM
async def test_an_answer_cut_after_it_was_shown_is_incomplete_and_says_so(
    tmp_path: Path, broken: Behaviour
) -> None:
    async with free_text(tmp_path, broken) as world:
        shown, result = await world.stream()

        assert shown == result.output
        assert shown.strip() == FIRST_WORDS
        assert (result.status, result.error_kind) == ("error", "incomplete")
        assert result.message == "The answer was interrupted."
        assert world.requests == (1, 0)


@MID_STREAM
async def test_free_text_goes_on_where_it_was_cut_when_the_feature_says_so(
    tmp_path: Path, broken: Behaviour
) -> None:
    async with free_text(tmp_path, Rule(broken, times=1), resume_stream=True) as world:
        shown, result = await world.stream()

        assert shown == WHOLE == result.output
        assert result.ok
        assert result.record.resumed == 1
        assert world.requests == (2, 0)


@MID_STREAM
async def test_free_text_goes_on_at_the_next_model_when_the_first_stays_broken(
    tmp_path: Path, broken: Behaviour
) -> None:
    async with free_text(tmp_path, broken, resume_stream=True, retries=0) as world:
        shown, result = await world.stream()

        assert shown == WHOLE == result.output
        assert result.ok
        assert result.record.served_model == "spare"
        assert result.record.resumed == 1
        assert world.requests == (1, 1)


async def test_an_answer_that_may_call_tools_is_never_continued(tmp_path: Path) -> None:
    broken = BROKEN["cut"]
    async with free_text(tmp_path, broken, resume_stream=True, tools=("refund",)) as world:
        shown, events = "", world.orchestrator.stream("sort", "x", tools=[{"name": "refund"}])
        async for event in events:
            shown += getattr(event, "text", "")

        assert shown.strip() == FIRST_WORDS
        assert world.log[0].error_kind == "incomplete"
        assert world.requests == (1, 0)


async def test_a_bad_chunk_is_not_passed_over_as_if_it_had_said_nothing(tmp_path: Path) -> None:
    async with free_text(tmp_path, Rule(BROKEN["bad chunk"], times=1), stream=True) as world:
        result = await world.call()

        assert kinds(result) == ["bad_reply", None]
        assert result.output == WHOLE
