"""The failure table, where no model is at fault: what is refused before a request, what goes on
without its cache or its log, and what a cancelled call leaves.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from evalkit.call.budget import Budget
from evalkit.call.failures import FAILURES
from evalkit.call.one_attempt import Clock
from evalkit.config import BudgetSettings, FlagSettings, GuardSettings, Price, SpendCap
from evalkit.records import CallRecord
from tests.call.failing import GOOD, World, kinds
from tests.loopback import Behaviour, Request

SORRY = "Sorry, please call us."


def by_rule(input: Any) -> dict[str, str]:
    return {"label": "billing" if "invoice" in str(input) else "delivery"}


def with_documents(folder: Path) -> None:
    (folder / "help").mkdir()
    (folder / "help" / "guarantee.md").write_text(
        "# Guarantee\n\nThe guarantee runs for two years.\n", encoding="utf-8"
    )


# --- guard_block, policy ------------------------------------------------------------------------


async def test_an_input_that_does_not_follow_its_schema_makes_no_request(tmp_path: Path) -> None:
    schema = tmp_path / "ticket.schema.json"
    schema.write_text(
        '{"type": "object", "required": ["text"], "additionalProperties": false, '
        '"properties": {"text": {"type": "string", "maxLength": 40}}}',
        encoding="utf-8",
    )
    async with World(tmp_path, input_schema=schema) as world:
        good = await world.call("Two invoices")
        bad = [await world.call({"text": "x" * 41}), await world.call({"txt": "Two invoices"})]

        assert good.ok
        assert {(r.status, r.error_kind) for r in bad} == {("refused", "invalid_input")}
        assert {r.message for r in bad} == {FAILURES["invalid_input"].message}
        assert world.requests == (1, 0)


async def test_guard_block_of_an_input_makes_no_request(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.set(guard=GuardSettings(pii="block"))

        result = await world.call("Write to jane.doe@example.com")

        assert (result.status, result.error_kind) == ("refused", "guard_block")
        assert world.requests == (0, 0)
        assert result.message == FAILURES["guard_block"].message
        assert "jane.doe" not in str(result.record)


async def test_guard_block_of_an_answer_is_neither_retried_nor_shown(tmp_path: Path) -> None:
    leak = Behaviour(text="Her address is jane.doe@example.com")
    async with World(tmp_path, leak, output_schema=None) as world:
        world.set(guard=GuardSettings(output_pii="block"))

        result = await world.call()

        assert (result.status, result.error_kind) == ("refused", "guard_block")
        assert (result.output, world.requests) == (None, (1, 0))


async def test_policy_refuses_an_undeclared_tool_without_a_request(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        result = await world.call(tools=[{"name": "refund"}])

        assert (result.status, result.error_kind) == ("refused", "policy")
        assert world.requests == (0, 0)


# --- retriever, no_documents --------------------------------------------------------------------


async def test_no_documents_makes_no_request(tmp_path: Path) -> None:
    with_documents(tmp_path)
    async with World(tmp_path, retriever="help") as world:
        result = await world.call("xyzzy plugh")

        assert (result.status, result.error_kind) == ("refused", "no_documents")
        assert world.requests == (0, 0)


async def test_no_documents_may_degrade(tmp_path: Path) -> None:
    with_documents(tmp_path)
    settings = {"retriever": "help", "on_empty": "degrade", "on_failure": f"text:{SORRY}"}
    async with World(tmp_path, **settings) as world:
        result = await world.call("xyzzy plugh")

        assert (result.status, result.output) == ("degraded", SORRY)
        assert world.requests == (0, 0)


async def test_retriever_that_fails_makes_no_request(tmp_path: Path) -> None:
    failing = "evalkit.call.providers.recorded:retriever_that_fails"
    async with World(tmp_path, retriever=failing, on_empty="degrade") as world:
        result = await world.call()

        assert (result.status, result.error_kind) == ("error", "retriever")
        assert world.requests == (0, 0)


# --- budget, killed, breaker_open -----------------------------------------------------------------

DEGRADES = pytest.mark.parametrize(
    ("on_failure", "output"),
    [(f"text:{SORRY}", SORRY), (f"degrade:{__name__}:by_rule", '{"label": "billing"}')],
    ids=["stored text", "rule"],
)


@DEGRADES
async def test_budget_spent_takes_the_degrade_path_without_a_request(
    tmp_path: Path, on_failure: str, output: str
) -> None:
    async with World(tmp_path, on_failure=on_failure) as world:
        world.set(budgets=BudgetSettings(user=SpendCap(day_calls=1)))
        await world.call(user_id="u-1")

        result = await world.call("One invoice", user_id="u-1")

        assert (result.status, result.error_kind) == ("degraded", "budget")
        assert (result.output, result.message) == (output, FAILURES["budget"].message)
        assert world.requests == (1, 0)
        assert result.record.cost_usd == 0.0


@DEGRADES
async def test_killed_takes_the_degrade_path_without_a_request(
    tmp_path: Path, on_failure: str, output: str
) -> None:
    async with World(tmp_path, on_failure=on_failure, flag="sorting") as world:
        world.set(flags={"sorting": FlagSettings(name="sorting", enabled=False)})

        result = await world.call("One invoice")

        assert (result.status, result.error_kind) == ("degraded", "killed")
        assert (result.output, world.requests) == (output, (0, 0))


@DEGRADES
async def test_breaker_open_takes_the_degrade_path_without_a_request(
    tmp_path: Path, on_failure: str, output: str
) -> None:
    async with World(tmp_path, Behaviour(status=402), on_failure=on_failure) as world:
        await world.call(fallbacks=())

        result = await world.call("One invoice", fallbacks=())

        assert (result.status, result.error_kind) == ("degraded", "breaker_open")
        assert (result.output, world.requests) == (output, (1, 0))


async def test_budget_that_a_dearer_fallback_could_pass_refuses_before_a_request(
    tmp_path: Path,
) -> None:
    async with World(tmp_path) as world:
        world.set_model("spare", price=Price(input=100.0, output=2000.0))
        world.set(budgets=BudgetSettings(total=SpendCap(month_usd=0.01)))

        alone, with_fallback = await world.call(fallbacks=()), await world.call()

        assert alone.ok
        assert with_fallback.error_kind == "budget"
        assert world.requests == (1, 0)


UNPRICED_FIRST = {
    "fallback": ([Behaviour(status=503)], {}),
    "escalation": ([Behaviour(logprob=-3.0)], {"escalate_below": 0.6}),
}


@pytest.mark.parametrize("first", UNPRICED_FIRST)
async def test_budget_sees_a_dear_model_behind_one_without_a_price(
    tmp_path: Path, first: str
) -> None:
    rules, changes = UNPRICED_FIRST[first]
    async with World(tmp_path, *rules, retries=0, **changes) as world:
        world.set_model("small", price=None)
        world.set_model("spare", price=Price(input=100.0, output=2000.0))
        world.set(budgets=BudgetSettings(total=SpendCap(month_usd=0.2)))
        world.two.script(answer=lambda request: Behaviour(text=GOOD, usage=used(request)))

        results = [await world.call(f"Order {n}") for n in range(3)]

        assert [result.error_kind for result in results] == [None, "budget", "budget"]
        assert world.requests == (1, 1)
        ledger = world.orchestrator._parts.ledger
        month = next(s for s in ledger.spent() if (s.scope, len(s.period)) == ("total", 7))
        assert month.cost_usd == pytest.approx((20 * 100.0 + 64 * 2000.0) / 1e6)
        assert month.unknown_calls == (first == "escalation")


async def test_budget_is_not_used_up_by_the_answers_of_a_model_without_a_price(
    tmp_path: Path,
) -> None:
    async with World(tmp_path, retries=0) as world:
        world.set_model("small", price=None)
        world.set_model("spare", price=Price(input=100.0, output=2000.0))
        world.set(budgets=BudgetSettings(total=SpendCap(month_usd=0.2)))

        results = [await world.call(f"Order {n}") for n in range(3)]

        assert all(result.ok for result in results)
        assert [result.record.cost_usd for result in results] == [None] * 3
        assert world.requests == (3, 0)


WORST = {
    "re-asked and failed over": (
        lambda request: Behaviour(text="no JSON", usage=used(request)),
        {},
    ),
    "truncated": (
        lambda request: Behaviour(text="Dear", finish_reason="length", usage=used(request)),
        {"output_schema": None, "retries": 1},
    ),
    "hedged": (
        lambda request: Behaviour(text=GOOD, usage=used(request), delay_ms=60),
        {"hedge_after_ms": 10, "retries": 0},
    ),
}


def used(request: Request) -> dict[str, int]:
    """All that was asked for; the prompt as long as it is."""
    return {"prompt": 20, "completion": request.json["max_tokens"]}


@pytest.mark.parametrize("worst", WORST)
@pytest.mark.parametrize("limit", ["day_usd", "month_tokens"])
async def test_no_attempt_of_any_call_passes_a_limit(
    tmp_path: Path, worst: str, limit: str
) -> None:
    answer, changes = WORST[worst]
    most = {"day_usd": 0.0019, "month_tokens": 1900}[limit]
    async with World(tmp_path, **changes) as world:
        for server in (world.one, world.two):
            server.script(answer=answer)
        world.set(budgets=BudgetSettings(total=SpendCap(**{limit: most})))
        world.build(clock=Clock())

        await asyncio.gather(*(world.call(f"Order {n}") for n in range(12)))
        results = [await world.call(f"Another order {n}") for n in range(12)]

        asked = [request.json for server in (world.one, world.two) for request in server.requests]
        tokens = sum(20 + body["max_tokens"] for body in asked)
        cost_usd = sum(20 + 2 * body["max_tokens"] for body in asked) / 1e6
        assert {"day_usd": cost_usd, "month_tokens": tokens}[limit] <= most
        assert results[-1].error_kind == "budget"


async def test_a_retry_that_a_limit_has_no_room_for_is_not_made(tmp_path: Path) -> None:
    cut = Behaviour(text="Dear", finish_reason="length", usage={"prompt": 20, "completion": 64})
    async with World(tmp_path, cut, output_schema=None, retries=1) as world:
        budget = Budget(limit_usd=0.0004)

        result = await world.call(budget=budget)

        assert kinds(result) == ["truncated", "budget"]
        assert world.requests == (1, 0)
        assert budget.spent_usd == pytest.approx(result.record.cost_usd)
        assert budget.reserved_usd == 0.0


async def test_a_hedge_that_the_limit_refuses_does_not_decide_over_the_fallback(
    tmp_path: Path,
) -> None:
    slow_failure = Behaviour(status=500, delay_ms=60)
    async with World(tmp_path, slow_failure, hedge_after_ms=10, retries=0) as world:
        world.set(budgets=BudgetSettings(total=SpendCap(day_usd=0.0003)))
        world.build(clock=Clock())

        result = await world.call()

        assert result.ok
        assert world.requests == (1, 1)
        kinds = [a.error_kind for a in result.record.attempts]
        assert kinds[0] == "budget"
        # On a busy machine the fallback is slow, too, and its hedge refused like the first.
        assert [kind for kind in kinds if kind != "budget"] == ["server", None]


async def test_a_fallback_without_a_price_is_no_free_one_when_it_is_given_more_room(
    tmp_path: Path,
) -> None:
    cut = Behaviour(text="Dear", finish_reason="length", usage={"prompt": 20, "completion": 64})
    async with World(tmp_path, Behaviour(status=500), output_schema=None, retries=1) as world:
        world.two.script(answer=lambda request: cut)
        world.set_model("spare", price=None)
        budget = Budget(limit_usd=0.0004)

        result = await world.call(budget=budget)

        assert result.error_kind == "budget"
        assert len(world.two.requests) == 1


async def test_without_a_degrade_path_the_failure_is_typed_and_told(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.set(budgets=BudgetSettings(total=SpendCap(month_usd=0.0)))

        result = await world.call()

        assert (result.status, result.error_kind) == ("refused", "budget")
        assert result.message == FAILURES["budget"].message
        assert world.requests == (0, 0)


# --- cache and log --------------------------------------------------------------------------------


async def test_a_broken_cache_file_is_counted_and_the_call_goes_on(tmp_path: Path) -> None:
    file = tmp_path / ".evalkit" / "cache" / "responses.sqlite"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not a database " * 500)
    async with World(tmp_path, cache_ttl=60) as world:
        first, second = await world.call(), await world.call()

        assert first.ok
        assert second.ok
        assert world.orchestrator.storage.errors >= 1


async def test_a_cache_that_cannot_be_opened_is_counted_and_the_call_goes_on(
    tmp_path: Path,
) -> None:
    (tmp_path / ".evalkit").mkdir()
    (tmp_path / ".evalkit" / "cache").write_text("a file, not a folder")
    async with World(tmp_path, cache_ttl=60) as world:
        result = await world.call()

        assert result.ok
        assert world.requests == (1, 0)
        assert world.orchestrator.storage.errors >= 1


async def test_a_log_that_fails_is_counted_and_the_call_goes_on(tmp_path: Path) -> None:
    def full(record: CallRecord) -> None:
        raise OSError("disk full")

    async with World(tmp_path) as world:
        world.build(sink=full)

        result = await world.call()

        assert result.ok
        assert world.orchestrator.log_failures == 1


# --- cancelled ------------------------------------------------------------------------------------


async def test_cancelled_propagates_settles_the_budget_and_leaves_a_record(tmp_path: Path) -> None:
    async with World(tmp_path, Behaviour(stall_after=-1)) as world:
        budget = Budget(limit_usd=1.0)
        calling = asyncio.create_task(world.call(budget=budget))
        await world.first_request()

        calling.cancel()

        with pytest.raises(asyncio.CancelledError):
            await calling
        (record,) = world.log
        assert (record.status, record.error_kind) == ("error", "cancelled")
        assert [a.error_kind for a in record.attempts] == ["cancelled"]
        assert record.cost_usd is None
        assert budget.reserved_usd == 0.0
        assert 0.0 < budget.spent_usd < 0.01
        assert world.requests == (1, 0)


async def test_cancelled_before_a_request_gives_the_budget_back(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.set_provider("one", max_in_flight=1)
        world.one.delay_ms = 200
        budget = Budget(limit_usd=1.0)
        first = asyncio.create_task(world.call())
        await world.first_request()
        waiting = asyncio.create_task(world.call(budget=budget))
        await asyncio.sleep(0)

        waiting.cancel()

        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await first).ok
        assert world.requests == (1, 0)
        assert (budget.reserved_usd, budget.spent_usd) == (0.0, 0.0)


async def test_closing_a_stream_leaves_a_record_too(tmp_path: Path) -> None:
    long = Behaviour(text="word " * 200, tokens_per_s=50.0)
    async with World(tmp_path, long, output_schema=None) as world:
        stream = world.orchestrator.stream("sort", "Where is it?")
        await anext(stream)

        await stream.aclose()

        (record,) = world.log
        assert record.error_kind == "cancelled"
        assert kinds_of(record) == ["cancelled"]


def kinds_of(record: CallRecord) -> list[str | None]:
    return [attempt.error_kind for attempt in record.attempts]
