"""Where a call meets its application: reviewers, readers, rules, and functions that fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from evalkit.call.orchestrator import Orchestrator
from evalkit.call.review import ReviewError, ReviewQueue
from evalkit.errors import ConfigError
from evalkit.records import CallResult, Event, ModelRequest, TextDelta
from evalkit.settings import BudgetSettings, GuardSettings, SpendCap
from tests.call.failing import World, another_writes, kinds
from tests.call.providers.asking import eventually
from tests.call.scripted import Scripted, answer
from tests.call.test_orchestrator import GOOD, Project
from tests.loopback import Behaviour, Rule

T = TypeVar("T")

FENCED = f"Here it is:\n```json\n{GOOD}\n```"


async def stream(orchestrator: Orchestrator, **options: Any) -> tuple[str, CallResult]:
    shown, result = [], None
    async for event in orchestrator.stream("classify", "Two invoices", **options):
        if isinstance(event, TextDelta):
            shown.append(event.text)
        else:
            result = event
    assert result is not None
    return "".join(shown), result


# --- the input ---------------------------------------------------------------------


async def test_what_is_put_into_an_input_after_the_call_is_in_no_record(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(GOOD)])
    input = {"text": "Two invoices", "turns": [{"said": "Hello"}]}

    result = await project.execute(input)
    input["text"] = input["turns"][0]["said"] = "I am ann@mail.example"  # type: ignore[index]

    assert result.record.input == {"text": "Two invoices", "turns": [{"said": "Hello"}]}


async def test_what_is_put_into_an_input_while_it_is_answered_is_neither_sent_nor_written(
    tmp_path: Path,
) -> None:
    input: dict[str, Any] = {"text": "Two invoices"}

    async def change() -> None:
        input["text"] = "I am ann@mail.example"

    project = Project(tmp_path, [answer(GOOD)])
    pieces = project.orchestrator().stream("classify", input)
    first = asyncio.ensure_future(anext(pieces))
    changing = asyncio.create_task(change())
    await asyncio.gather(first, changing)
    await pieces.aclose()

    assert "ann@mail.example" not in str(project.one.asked)
    assert project.log[0].input == {"text": "Two invoices"}


async def test_an_input_that_contains_itself_is_refused_as_too_deep(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(GOOD)])
    input: dict[str, Any] = {"text": "Two invoices", "all": []}
    input["all"].append(input)

    result = await project.execute(input)

    assert (result.error_kind, project.one.asked) == ("guard_block", [])


# --- review ------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [True, False], ids=["whole", "as it comes"])
async def test_what_waits_for_a_person_is_shown_to_nobody(tmp_path: Path, schema: bool) -> None:
    project = Project(tmp_path, [answer(GOOD)]).change(review="always")
    if not schema:
        project.change(output_schema=None)

    shown, result = await stream(project.orchestrator())

    assert (shown, result.status, result.output) == ("", "pending_review", None)


async def test_what_a_cache_has_and_a_person_has_to_see_is_not_shown_either(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path, [answer(GOOD)]).change(cache_ttl=60)
    async with project.orchestrator() as orchestrator:
        await orchestrator.execute("classify", "Two invoices")
    project.change(review="always")

    async with project.orchestrator() as orchestrator:
        shown, result = await stream(orchestrator)

    assert result.record.cache_kind == "exact"
    assert (shown, result.status) == ("", "pending_review")


def nothing_to_see(facts: Any) -> bool:
    return False


async def test_what_no_person_has_to_see_is_shown_once_that_is_known(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(GOOD)]).change(review=f"{__name__}:nothing_to_see")

    shown, result = await stream(project.orchestrator())

    assert (shown, result.status) == (GOOD, "ok")


# --- answers that were repaired ---------------------------------------------------------


async def test_a_repaired_answer_is_the_same_from_the_cache_and_beside_it(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(FENCED)]).change(cache_ttl=60)
    async with project.orchestrator() as orchestrator:
        together = await asyncio.gather(
            *(orchestrator.execute("classify", "Two invoices") for _ in range(5))
        )
        later = await orchestrator.execute("classify", "Two invoices")

    assert len(project.one.asked) == 1
    for result in (*together, later):
        assert (result.status, result.value) == ("ok", {"label": "billing"})
        assert (result.record.repaired, result.record.schema_ok) == (True, True)


async def test_a_repaired_answer_is_shown_without_what_was_around_it(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(FENCED)]).change(cache_ttl=60)

    async with project.orchestrator() as orchestrator:
        fresh, _ = await stream(orchestrator)
        kept, _ = await stream(orchestrator)

    assert json.loads(fresh) == json.loads(kept) == {"label": "billing"}


async def test_a_person_sees_a_repaired_answer_as_its_action_can_read_it(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(FENCED)]).change(review="always")

    async with project.orchestrator() as orchestrator:
        await orchestrator.execute("classify", "Two invoices")
        [review] = orchestrator._parts.reviews.list()

    assert review.output is not None
    assert json.loads(review.output) == {"label": "billing"}


# --- readers -----------------------------------------------------------------------


async def test_a_slow_reader_says_nothing_of_the_provider(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer("word " * 50)]).change(output_schema=None)
    orchestrator = project.orchestrator()

    async def slow(text: str) -> None:
        await asyncio.sleep(0.2)

    for _ in range(8):
        late = await orchestrator.execute("classify", "hi", emit=slow, max_latency_ms=50)
        assert late.error_kind == "incomplete"

    assert (await orchestrator.execute("classify", "hi")).ok


async def test_a_stream_that_nobody_can_go_on_with_has_all_the_time(tmp_path: Path) -> None:
    slow = Behaviour(text=" ".join(["word"] * 30), tokens_per_s=40)
    async with World(tmp_path, slow, output_schema=None, max_latency_ms=1300) as world:
        pieces, result = await world.stream()

    assert (result.status, result.record.model) == ("ok", "small")
    assert "".join(pieces) == " ".join(["word"] * 30)


@pytest.mark.parametrize("text", ["ok", "word " * 30], ids=["held to its end", "in pieces"])
async def test_a_guarded_stream_with_a_fallback_is_shown_whole(tmp_path: Path, text: str) -> None:
    """What the guard holds back is given out after the attempt's own clock has ended."""
    project = Project(tmp_path, [answer(text)])
    project.change(output_schema=None, fallbacks=("spare",))
    project.settings = replace(project.settings, guard=GuardSettings(output_pii="flag"))

    shown, result = await stream(project.orchestrator())

    assert (result.status, shown) == ("ok", text)


async def test_a_provider_that_is_closed_while_it_is_asked_has_not_failed(tmp_path: Path) -> None:
    stalls = Rule(Behaviour(stall_after=-1), times=6)
    async with World(tmp_path, stalls, fallbacks=()) as world:
        asking = [asyncio.create_task(world.call(str(n))) for n in range(6)]
        await eventually(lambda: world.requests[0] == 6)
        await world.orchestrator.aclose()
        ended = await asyncio.gather(*asking)
        again = await world.call()

    assert [kinds(result) for result in ended] == [["cancelled"]] * 6
    assert again.ok


# --- functions of the application's own --------------------------------------------------


def broken(*_: object) -> Any:
    raise ValueError("a bug")


def not_json(*_: object) -> Any:
    return {"score": float("nan")}


async def test_a_rule_that_fails_is_a_failure_of_the_call_and_recorded(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(GOOD)]).change(rules=(f"{__name__}:broken",))

    result = await project.execute()

    assert (result.status, result.error_kind) == ("error", "server")
    assert "a rule raised ValueError" in (result.record.route_reason or "")
    assert project.log == [result.record]
    assert result.record.cost_usd == pytest.approx(0.00012)


def cancels_itself(*_: object) -> Any:
    raise asyncio.CancelledError


async def awaits_what_is_cancelled(*_: object) -> Any:
    cancels_itself()


@pytest.mark.parametrize("function", ["cancels_itself", "awaits_what_is_cancelled"])
async def test_a_route_function_that_cancels_itself_is_a_failure_of_the_call(
    tmp_path: Path, function: str
) -> None:
    project = Project(tmp_path, [answer(GOOD)])
    project.change(tagger=f"{__name__}:always_x", routes={"x": f"call:{__name__}:{function}"})

    result = await project.execute()

    assert (result.status, result.error_kind) == ("error", "server")
    assert project.log == [result.record]


def always_x(*_: object) -> str:
    return "x"


async def test_a_tagger_that_cancels_itself_costs_no_call(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(GOOD)])
    project.change(tagger=f"{__name__}:awaits_what_is_cancelled", routes={"x": "spare"})

    result = await project.execute()

    assert result.ok
    assert "tagger failed" in (result.record.route_reason or "")


async def test_a_rule_that_cancels_itself_is_a_failure_of_the_call(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(GOOD)]).change(rules=(f"{__name__}:cancels_itself",))

    result = await project.execute()

    assert (result.status, result.error_kind) == ("error", "server")


async def test_a_review_rule_that_cancels_itself_vouches_for_nothing(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(GOOD)]).change(review=f"rule:{__name__}:cancels_itself")

    assert (await project.execute()).status == "pending_review"


async def test_a_guard_rule_that_cancels_itself_blocks(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(GOOD)])
    guard = GuardSettings(input_rules=(f"{__name__}:cancels_itself",))
    project.settings = replace(project.settings, guard=guard)

    assert (await project.execute()).error_kind == "guard_block"


async def test_the_reader_of_a_stream_hears_of_every_end(tmp_path: Path) -> None:
    class Cancelled(Scripted):
        async def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
            raise asyncio.CancelledError
            yield

    project = Project(tmp_path, [])
    project.one = Cancelled([])

    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(60):
            await stream(project.orchestrator())

    assert [record.error_kind for record in project.log] == ["cancelled"]


def says_false(value: Any) -> bool:
    return False


def says_a_list(value: Any) -> list[str]:
    return ["the amount is too high"]


@pytest.mark.parametrize(("rule", "kind"), [("says_false", "bool"), ("says_a_list", "list")])
async def test_a_rule_that_says_neither_none_nor_text_lets_nothing_pass(
    tmp_path: Path, rule: str, kind: str
) -> None:
    project = Project(tmp_path, [answer(GOOD)]).change(rules=(f"{__name__}:{rule}",))

    result = await project.execute()

    assert (result.status, result.error_kind) == ("error", "server")
    assert f"a rule returned {kind}" in (result.record.route_reason or "")


async def looks_up(value: Any) -> str | None:
    await asyncio.sleep(0)
    return "billing is closed today" if value["label"] == "billing" else None


async def test_an_async_rule_sends_an_answer_back_like_any_other(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(GOOD), answer('{"label": "delivery"}')])
    project.change(rules=(f"{__name__}:looks_up",))

    result = await project.execute()

    assert result.value == {"label": "delivery"}
    assert "billing is closed today" in project.one.asked[1].messages[-1]["content"]


async def test_an_async_rule_that_hangs_is_a_failure_of_the_call(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(GOOD)])
    project.change(rules=(f"{__name__}:never",), max_latency_ms=50)

    async with asyncio.timeout(60):
        result = await project.execute()

    assert (result.status, result.error_kind) == ("error", "timeout")


@pytest.mark.parametrize("function", ["broken", "not_json", "nowhere"])
async def test_a_degradation_that_fails_leaves_the_failure_as_it_is(
    tmp_path: Path, function: str
) -> None:
    project = Project(tmp_path, [answer("no JSON")]).change(
        retries=0, on_failure=f"degrade:{__name__}:{function}"
    )

    result = await project.execute()

    assert (result.status, result.error_kind) == ("error", "invalid_output")
    assert project.log == [result.record]


async def test_a_reader_that_fails_gets_its_own_error_and_the_call_is_recorded(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path, [answer("some text")]).change(output_schema=None)

    async def gone(text: str) -> None:
        raise ConnectionResetError("the browser went away")

    with pytest.raises(ConnectionResetError):
        await project.execute(emit=gone)

    [record] = project.log
    assert (record.status, len(record.attempts)) == ("error", 1)


async def test_a_call_cancelled_while_it_degrades_is_recorded(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer("no JSON")]).change(
        retries=0, on_failure=f"degrade:{__name__}:forever"
    )
    call = asyncio.create_task(project.execute())
    await BEGUN.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    [record] = project.log
    assert (record.error_kind, len(record.attempts)) == ("cancelled", 1)


BEGUN = asyncio.Event()


async def forever(*_: object) -> None:
    BEGUN.set()
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    "wrong",
    [{"max_tokens": 0}, {"retries": -1}, {"max_latency_ms": 0}, {"cache_ttl": -1},
     {"max_latency_ms": float("nan")}, {"max_latency_ms": "2000"}, {"retries": 2.5},
     {"on_failure": "txt:sorry"}],
)  # fmt: skip
async def test_a_calls_own_settings_are_held_to_what_the_configurations_are(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    project = Project(tmp_path, [answer(GOOD)])

    with pytest.raises(ConfigError, match=next(iter(wrong))):
        await project.execute(**wrong)

    assert project.one.asked == []


# --- what cannot be written down ---------------------------------------------------------


class Unreadable:
    def __str__(self) -> str:
        raise ValueError("no text")


async def test_an_input_that_cannot_be_looked_at_costs_the_record_its_input_alone(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path, [answer(GOOD)]).change(guard=False)

    result = await project.execute({"text": "Two invoices", "order": Unreadable()})

    assert (result.ok, result.output) == (True, GOOD)
    assert project.log == [result.record]
    assert (result.record.input, result.record.output) == (None, GOOD)
    assert result.record.cost_usd == pytest.approx(0.00012)


async def test_a_kept_answer_that_cannot_be_held_for_a_person_is_recorded(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(GOOD)]).change(cache_ttl=60, review="always")
    async with project.orchestrator() as orchestrator:
        await orchestrator.execute("classify", "Another order", idempotency_key="k")
        await orchestrator.execute("classify", "Two invoices", idempotency_key="k2")

        with pytest.raises(ReviewError, match="another feature, action or input"):
            await orchestrator.execute("classify", "Two invoices", idempotency_key="k")

    record = project.log[-1]
    assert (len(project.log), record.error_kind, record.cache_kind) == (3, "server", "exact")


@pytest.mark.parametrize("input", [["two", "invoices"], None, 3, b"text"])
async def test_an_input_without_fields_is_refused_as_such_and_recorded(
    tmp_path: Path, input: Any
) -> None:
    project = Project(tmp_path, [answer(GOOD)])

    result = await project.execute(input)

    assert (result.status, result.error_kind) == ("refused", "invalid_input")
    assert type(input).__name__ in (result.record.route_reason or "")
    assert (project.log, project.one.asked) == ([result.record], [])


# --- functions that hang ------------------------------------------------------------------


class Hangs:
    """A retriever, or a storage of answers, that never says anything."""

    index_version = "v1"
    errors = 0

    async def retrieve(self, query: str, *, k: int, filters: Any) -> Any:
        await asyncio.Event().wait()

    async def get(self, key: str) -> Any:
        await asyncio.Event().wait()

    async def put(self, key: str, cached: Any, ttl_s: float) -> None: ...

    async def aclose(self) -> None: ...


hangs = Hangs()


async def never(*_: object) -> Any:
    await asyncio.Event().wait()


class TakesSomeTime(Scripted):
    async def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
        await asyncio.sleep(0.01)
        async for event in super().stream(request):
            yield event


async def test_a_retriever_that_hangs_leaves_the_model_its_time(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(GOOD)]).change(
        max_latency_ms=1000, retriever=f"{__name__}:hangs", on_empty="allow"
    )
    model = TakesSomeTime([answer(GOOD)])
    orchestrator = Orchestrator(project.settings, providers={"one": model})

    async with asyncio.timeout(60):
        result = await orchestrator.execute("classify", "Two invoices")

    assert result.ok
    assert "the retriever gave no answer" in (result.record.route_reason or "")


async def test_a_cache_that_hangs_fails_no_call(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(GOOD)]).change(max_latency_ms=200, cache_ttl=60)
    orchestrator = Orchestrator(
        project.settings, providers={"one": project.one}, clock=project.clock.clock(), cache=hangs
    )

    async with asyncio.timeout(60):
        result = await orchestrator.execute("classify", "Two invoices")

    assert result.ok


async def test_a_tagger_that_hangs_costs_no_call(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(GOOD)]).change(
        max_latency_ms=200, tagger=f"{__name__}:never", routes={"x": "spare"}
    )

    async with asyncio.timeout(60):
        result = await project.execute()

    assert result.ok
    assert "tagger failed: TimeoutError" in (result.record.route_reason or "")


async def test_a_route_function_that_hangs_ends_with_the_deadline(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(GOOD)]).change(
        max_latency_ms=50, tagger=f"{__name__}:always_x", routes={"x": f"call:{__name__}:never"}
    )

    async with asyncio.timeout(60):
        result = await project.execute()

    assert (result.status, result.error_kind) == ("error", "timeout")


async def test_a_degradation_that_hangs_leaves_the_failure_as_it_is(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer("no JSON")]).change(
        max_latency_ms=50, retries=0, on_failure=f"degrade:{__name__}:never"
    )

    async with asyncio.timeout(60):
        result = await project.execute()

    assert (result.status, result.error_kind) == ("error", "invalid_output")
    assert "gave no answer in time" in (result.record.route_reason or "")


# --- another process writes --------------------------------------------------------------


async def goes_on(work: Awaitable[T]) -> T:
    """What `work` comes to; others have had their turns meanwhile."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    beside = asyncio.create_task(others())
    try:
        result = await work
    finally:
        beside.cancel()
    assert turns > 20
    return result


async def test_a_call_that_cannot_reserve_in_time_holds_nobody_up(tmp_path: Path) -> None:
    project = Project(tmp_path, [answer(GOOD)]).change(max_latency_ms=400)
    budgets = BudgetSettings(total=SpendCap(day_calls=9))
    project.settings = replace(project.settings, budgets=budgets)
    store = Path(project.settings.store_path)

    async with project.orchestrator() as orchestrator:
        orchestrator._parts.ledger.spent()
        with another_writes(store / "budget.sqlite"):
            late = await goes_on(orchestrator.execute("classify", "Two invoices"))
        after = await orchestrator.execute("classify", "Two invoices")

    assert (late.error_kind, len(late.record.attempts)) == ("budget", 0)
    assert "locked" in (late.record.route_reason or "")
    assert late.record.latency_ms < 400
    assert after.ok


async def test_an_answer_that_waits_for_its_place_before_a_person_holds_nobody_up(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path, [answer(GOOD)]).change(review="always")
    path = Path(project.settings.store_path) / "queue.sqlite"
    ReviewQueue(path).close()

    async with project.orchestrator() as orchestrator:
        asking = asyncio.create_task(goes_on(orchestrator.execute("classify", "Two invoices")))
        with another_writes(path):
            await asyncio.sleep(0.2)
            assert not asking.done()
        held = await asking

    assert held.status == "pending_review"
    with closing(ReviewQueue(path)) as queue:
        assert len(queue.list()) == 1
