"""The spending ledger: exact with many calls at once, whoever makes them and whoever dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from evalkit.call.allowance import Allowance, Most
from evalkit.call.ledger import HOLD_S, Hold, Ledger, Spent
from evalkit.call.tokens import TokenEstimator
from evalkit.config import ModelSettings, Price
from evalkit.errors import CallError, ConfigError
from evalkit.records import ModelRequest
from evalkit.settings import BudgetSettings, SpendCap
from tests.call.failing import another_writes

NEW_YEARS_EVE = 1_798_761_599.0
"""2026-12-31 23:59:59 UTC"""


class WallClock:
    now = NEW_YEARS_EVE - 86_400 * 10.5

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store" / "budget.sqlite"


def of(ledger: Ledger, scope: str, name: str = "") -> Iterator[Spent]:
    """The day's and the month's sums of one scope."""
    return (spent for spent in ledger.spent() if (spent.scope, spent.name) == (scope, name))


async def test_call_n_plus_1_is_refused_and_names_the_limit(path: Path) -> None:
    caps = BudgetSettings(user=SpendCap(month_usd=0.3))
    ledger = Ledger(path, caps, now=WallClock())
    for _ in range(3):
        ledger.settle(await ledger.reserve(0.1, 10, user="alice"), 0.1, 10)

    with pytest.raises(CallError) as refused:
        await ledger.reserve(0.1, 10, user="alice")

    assert refused.value.kind == "budget"
    assert str(refused.value) == (
        "budgets.user (for alice).month_usd is 0.3 USD: 0.3 USD are spent or reserved in 2026-12, "
        "and this call may take 0.1 USD"
    )
    await ledger.reserve(0.1, 10, user="bob")


async def test_a_call_under_way_sets_more_aside_as_far_as_its_limits_go(path: Path) -> None:
    ledger = Ledger(path, BudgetSettings(user=SpendCap(day_usd=0.3, day_calls=1)), now=WallClock())
    hold = await ledger.reserve(0.1, 10, user="alice")

    await ledger.extend(hold, 0.2, 5)
    with pytest.raises(CallError, match=r"day_usd is 0\.3 USD: 0\.3 USD are spent or reserved"):
        await ledger.extend(hold, 0.1, 0)

    assert (hold.amount, hold.tokens) == (3 * 10**11, 15)
    ledger.settle(hold, 0.25, 12)
    today = next(of(ledger, "user", "alice"))
    assert (today.cost_usd, today.tokens, today.calls) == (0.25, 12, 1)


async def test_what_was_reserved_and_not_used_may_be_spent(path: Path) -> None:
    ledger = Ledger(path, BudgetSettings(total=SpendCap(day_usd=1.0)))

    hold = await ledger.reserve(0.9, 100)
    ledger.settle(hold, 0.2, 20)
    ledger.settle(await ledger.reserve(0.8, 100), 0.8, 30)

    day, month = of(ledger, "total")
    assert (day.cost_usd, day.tokens, day.calls) == (1.0, 50, 2)
    assert (month.cost_usd, month.tokens, month.calls) == (1.0, 50, 2)


async def test_of_many_calls_at_once_one_is_settled_as_the_next_reserves(path: Path) -> None:
    caps = BudgetSettings(total=SpendCap(day_usd=100.0))
    ledger, other = Ledger(path, caps), Ledger(path, caps)
    holds = [await ledger.reserve(1.0, 10) for _ in range(20)]

    ledger.settle(holds.pop(), 0.25, 5)
    waiting = next(of(other, "total"))
    holds.append(await ledger.reserve(1.0, 10))
    settled = next(of(other, "total"))

    assert (waiting.cost_usd, waiting.calls) == (20.0, 20)
    assert (settled.cost_usd, settled.tokens, settled.calls) == (20.25, 205, 21)


async def test_the_last_of_many_calls_leave_nothing_unsettled(path: Path) -> None:
    caps = BudgetSettings(total=SpendCap(day_usd=100.0))
    ledger, other = Ledger(path, caps), Ledger(path, caps)
    holds = [await ledger.reserve(1.0, 10) for _ in range(20)]

    for hold in holds:
        ledger.settle(hold, 0.25, 5)

    total = next(of(other, "total"))
    assert (total.cost_usd, total.tokens, total.calls) == (5.0, 100, 20)


async def test_a_refused_call_does_not_undo_what_waits_to_be_settled(path: Path) -> None:
    ledger = Ledger(path, BudgetSettings(total=SpendCap(day_usd=20.0)))
    holds = [await ledger.reserve(1.0, 10) for _ in range(20)]
    ledger.settle(holds.pop(), 0.25, 5)

    with pytest.raises(CallError):
        await ledger.reserve(1.0, 10)
    await ledger.reserve(0.75, 10)

    assert next(of(ledger, "total")).cost_usd == 20.0


async def test_a_released_hold_leaves_nothing_behind(path: Path) -> None:
    ledger = Ledger(path, BudgetSettings(total=SpendCap(day_calls=1)))

    ledger.release(await ledger.reserve(0.5, 100))

    day, _ = of(ledger, "total")
    assert (day.cost_usd, day.tokens, day.calls, day.unknown_calls) == (0.0, 0, 0, 0)
    await ledger.reserve(0.5, 100)


@pytest.mark.parametrize(
    ("caps", "place"),
    [
        (BudgetSettings(total=SpendCap(day_usd=0.1)), "budgets.total.day_usd"),
        (BudgetSettings(total=SpendCap(month_tokens=99)), "budgets.total.month_tokens"),
        (BudgetSettings(tenant=SpendCap(day_calls=0)), "budgets.tenant (for acme).day_calls"),
        (BudgetSettings(feature=SpendCap(day_tokens=5)), "budgets.feature (for sort).day_tokens"),
        (BudgetSettings(users={"alice": SpendCap(month_usd=0)}), "budgets.users.alice.month_usd"),
        (BudgetSettings(tenants={"acme": SpendCap(day_usd=0)}), "budgets.tenants.acme.day_usd"),
        (BudgetSettings(features={"sort": SpendCap(day_usd=0)}), "budgets.features.sort.day_usd"),
    ],
)
async def test_every_scope_and_unit_can_be_limited(
    path: Path, caps: BudgetSettings, place: str
) -> None:
    ledger = Ledger(path, caps)

    with pytest.raises(CallError, match="budget") as refused:
        await ledger.reserve(0.2, 100, user="alice", tenant="acme", feature="sort")

    assert str(refused.value).startswith(f"{place} is ")
    assert ledger.spent() == []


async def test_a_named_limit_replaces_the_general_one(path: Path) -> None:
    caps = BudgetSettings(
        user=SpendCap(day_calls=1),
        users={"vip": SpendCap(day_calls=3), "free": SpendCap()},
    )
    ledger = Ledger(path, caps)

    for _ in range(3):
        await ledger.reserve(0.1, 1, user="vip")
    for _ in range(9):
        await ledger.reserve(0.1, 1, user="free")

    with pytest.raises(CallError, match=r"users\.vip"):
        await ledger.reserve(0.1, 1, user="vip")


async def test_an_unknown_price_is_counted_and_never_zero(path: Path) -> None:
    ledger = Ledger(path, BudgetSettings(total=SpendCap(day_usd=1.0)))

    ledger.settle(await ledger.reserve(None, 100), None, 80)

    day, _ = of(ledger, "total")
    assert (day.cost_usd, day.tokens, day.calls, day.unknown_calls) == (0.0, 80, 1, 1)


async def test_a_used_up_limit_also_stops_calls_of_unknown_price_but_not_free_ones(
    path: Path,
) -> None:
    ledger = Ledger(path, BudgetSettings(total=SpendCap(day_usd=1.0)))
    ledger.settle(await ledger.reserve(1.0, 10), 1.0, 10)

    with pytest.raises(CallError, match="unknown amount"):
        await ledger.reserve(None, 10)

    await ledger.reserve(0.0, 10)


async def test_a_cost_that_nobody_counted_stays_spent_as_reserved(path: Path) -> None:
    ledger = Ledger(path, BudgetSettings(total=SpendCap(day_usd=1.0)))

    ledger.settle(await ledger.reserve(0.7, 100), None, None)

    day, _ = of(ledger, "total")
    assert (day.cost_usd, day.tokens, day.unknown_calls) == (0.7, 100, 1)


async def test_100_concurrent_calls_cannot_pass_a_limit_together(path: Path) -> None:
    ledger = Ledger(path, BudgetSettings(tenant=SpendCap(month_usd=1.0)))
    requests = 0

    async def call() -> bool:
        nonlocal requests
        try:
            hold = await ledger.reserve(0.1, 10, tenant="acme")
        except CallError:
            return False
        requests += 1
        await asyncio.sleep(0)
        ledger.settle(hold, 0.1, 10)
        return True

    allowed = await asyncio.gather(*(call() for _ in range(100)))

    assert sum(allowed) == requests == 10
    _, month = of(ledger, "tenant", "acme")
    assert month.cost_usd == 1.0


SPENDER = """
import asyncio, sys
from evalkit.call.ledger import Ledger
from evalkit.errors import CallError
from evalkit.settings import BudgetSettings, SpendCap
caps = BudgetSettings(total=SpendCap(day_usd=0.5), user=SpendCap(day_calls=400))

async def spend():
    ledger = Ledger(sys.argv[1], caps)
    done = 0
    for _ in range(300):
        try:
            ledger.settle(await ledger.reserve(0.001, 5, user="u"), 0.001, 5)
        except CallError:
            continue
        done += 1
    await ledger.aclose()
    return done

print(asyncio.run(spend()))
"""


def test_processes_share_one_limit_exactly(path: Path) -> None:
    command = [sys.executable, "-c", SPENDER, str(path)]
    spenders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]

    done = [int(spender.communicate(timeout=300)[0]) for spender in spenders]

    assert sum(done) == 400
    day, _ = of(Ledger(path, BudgetSettings()), "total")
    assert (day.cost_usd, day.calls, day.tokens) == (0.4, 400, 2000)


HOLDER = """
import asyncio, sys, time
from evalkit.call.ledger import Ledger
from evalkit.settings import BudgetSettings, SpendCap
ledger = Ledger(sys.argv[1], BudgetSettings(total=SpendCap(day_usd=1.0)))

async def hold():
    ledger.settle(await ledger.reserve(0.25, 5), 0.25, 5)
    await ledger.reserve(0.75, 5)

asyncio.run(hold())
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to see processes in")
def test_a_hold_of_a_killed_process_is_given_back_and_counted(path: Path) -> None:
    ledger = Ledger(path, BudgetSettings(total=SpendCap(day_usd=1.0)))
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CallError):
            asyncio.run(ledger.reserve(0.75, 5))

        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        asyncio.run(ledger.reserve(0.75, 5))

    day, _ = of(ledger, "total")
    assert (day.cost_usd, day.calls, day.unknown_calls) == (1.0, 3, 1)


async def test_a_hold_of_a_process_that_cannot_be_seen_expires(
    path: Path, clock: WallClock
) -> None:
    ledger = Ledger(path, BudgetSettings(total=SpendCap(day_usd=1.0)), now=clock)
    hold = await ledger.reserve(1.0, 5)
    with sqlite3.connect(path) as file:
        file.execute("UPDATE holds SET owner = 'elsewhere 1 2'")
    with pytest.raises(CallError):
        await ledger.reserve(1.0, 5)

    clock.now += HOLD_S + 1
    other = await ledger.reserve(1.0, 5)
    ledger.release(other)
    ledger.settle(hold, 0.4, 4)

    day, _ = of(ledger, "total")
    assert (day.cost_usd, day.tokens, day.calls, day.unknown_calls) == (0.4, 4, 1, 0)


async def test_a_hold_of_a_living_process_does_not_expire(path: Path, clock: WallClock) -> None:
    ledger = Ledger(path, BudgetSettings(total=SpendCap(month_usd=1.0)), now=clock)
    hold = await ledger.reserve(1.0, 5)

    clock.now += 3 * 3600
    with pytest.raises(CallError):
        await ledger.reserve(0.1, 5)
    ledger.settle(hold, 0.4, 4)

    _, month = of(ledger, "total")
    assert (month.cost_usd, month.calls) == (0.4, 1)


async def test_days_and_months_begin_anew_in_utc(path: Path, clock: WallClock) -> None:
    caps = BudgetSettings(total=SpendCap(day_calls=1, month_calls=2))
    ledger = Ledger(path, caps, now=clock)
    await ledger.reserve(0.1, 1)

    clock.now += 86_400
    await ledger.reserve(0.1, 1)
    clock.now += 86_400
    with pytest.raises(CallError, match=r"month_calls.*2026-12"):
        await ledger.reserve(0.1, 1)
    clock.now = NEW_YEARS_EVE + 1
    await ledger.reserve(0.1, 1)

    day, month = of(ledger, "total")
    assert (day.period, day.calls) == ("2027-01-01", 1)
    assert (month.period, month.calls) == ("2027-01", 1)


async def test_a_call_over_midnight_belongs_to_the_day_it_began(
    path: Path, clock: WallClock
) -> None:
    clock.now = NEW_YEARS_EVE
    ledger = Ledger(path, BudgetSettings(), now=clock)
    late = await ledger.reserve(0.5, 10)
    clock.now += 5
    ledger.settle(await ledger.reserve(0.2, 1), 0.2, 1)

    ledger.settle(late, 0.1, 1)

    day, month = of(ledger, "total")
    assert (day.cost_usd, month.cost_usd, month.calls) == (0.2, 0.2, 1)


async def test_a_million_small_amounts_add_up_exactly(path: Path) -> None:
    ledger = Ledger(path, BudgetSettings())

    for _ in range(1000):
        ledger.settle(await ledger.reserve(0.1, 1), 0.000_000_075, 1)

    day, _ = of(ledger, "total")
    assert day.cost_usd == 0.000_075


async def test_a_ledger_that_cannot_be_written_stops_the_spending(path: Path) -> None:
    ledger = Ledger(path, BudgetSettings(total=SpendCap(day_usd=1.0)))
    with sqlite3.connect(path) as file:
        file.execute("DROP TABLE holds")

    with pytest.raises(CallError, match="cannot be written") as refused:
        await ledger.reserve(0.1, 1)

    assert refused.value.kind == "budget"
    assert list(of(ledger, "total")) == []


async def test_a_settlement_that_cannot_be_written_is_logged_not_raised(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(path, BudgetSettings(total=SpendCap(day_usd=1.0)))
    hold = await ledger.reserve(0.1, 1)
    with sqlite3.connect(path) as file:
        file.execute("DROP TABLE holds")

    ledger.settle(hold, 0.05, 1)

    assert "cannot be written" in caplog.text


async def test_a_call_that_ends_after_the_ledger_was_closed_is_settled(path: Path) -> None:
    caps = BudgetSettings(total=SpendCap(day_usd=1.0))
    ledger, other = Ledger(path, caps), Ledger(path, caps)
    one, two = await ledger.reserve(0.5, 100), await ledger.reserve(0.5, 100)

    await ledger.aclose()
    ledger.settle(one, 0.3, 20)
    ledger.release(two)

    day, _ = of(other, "total")
    assert (day.cost_usd, day.tokens, day.calls) == (0.3, 20, 1)
    with pytest.raises(CallError, match="closed"):
        await ledger.reserve(0.1, 1)


def test_a_file_that_is_no_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "budget.sqlite"
    path.write_text("not a database, just a text of some length " * 50, encoding="utf-8")

    with pytest.raises(ConfigError, match=r"budget\.sqlite"):
        Ledger(path, BudgetSettings())


async def test_a_hold_knows_what_it_holds(path: Path) -> None:
    hold = await Ledger(path, BudgetSettings()).reserve(0.5, 7, user="a", feature="f")

    assert isinstance(hold, Hold)
    assert (hold.amount, hold.tokens) == (500_000_000_000, 7)
    assert hold.scopes == (("total", ""), ("user", "a"), ("feature", "f"))


def test_threads_share_one_limit_exactly(path: Path) -> None:
    ledger = Ledger(path, BudgetSettings(feature=SpendCap(day_usd=1.0)))

    async def spend(number: int) -> bool:
        try:
            hold = await ledger.reserve(0.02, 10, user=f"u{number}", feature="sort")
        except CallError:
            return False
        ledger.settle(hold, 0.02, 10)
        return True

    with ThreadPoolExecutor(20) as threads:
        allowed = list(threads.map(lambda number: asyncio.run(spend(number)), range(100)))

    assert sum(allowed) == 50


# --- another process writes ------------------------------------------------------------


async def test_who_reserves_waits_for_another_writer_and_the_event_loop_goes_on(path: Path) -> None:
    ledger = Ledger(path, BudgetSettings(total=SpendCap(day_calls=2)))
    hold = await ledger.reserve(0.1, 1)

    with another_writes(path):
        waiting = [
            asyncio.create_task(ledger.reserve(0.1, 1)),
            asyncio.create_task(ledger.extend(hold, 0.2, 5)),
        ]
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not any(task.done() for task in waiting)
    await asyncio.gather(*waiting)

    today = next(of(ledger, "total"))
    assert (today.cost_usd, today.tokens, today.calls) == (0.4, 7, 2)


async def test_a_ledger_that_another_writes_for_too_long_stops_the_spending(path: Path) -> None:
    ledger = Ledger(path, BudgetSettings(total=SpendCap(day_calls=2)))

    with another_writes(path), pytest.raises(CallError, match=r"cannot be written: .*locked"):
        await ledger.reserve(0.1, 1, wait_s=0.02)

    assert list(of(ledger, "total")) == []


async def test_a_caller_that_goes_away_while_another_writes_leaves_nothing(path: Path) -> None:
    ledger = Ledger(path, BudgetSettings(total=SpendCap(day_calls=1)))

    with another_writes(path):
        waiting = asyncio.create_task(ledger.reserve(0.1, 1))
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    await ledger.reserve(0.1, 1)


async def test_a_settlement_waits_for_another_writer_and_is_not_lost(path: Path) -> None:
    caps = BudgetSettings(total=SpendCap(day_usd=1.0))
    ledger, reader = Ledger(path, caps), Ledger(path, caps)
    hold = await ledger.reserve(0.5, 100)

    with another_writes(path):
        ledger.settle(hold, 0.2, 20)
        assert next(of(reader, "total")).cost_usd == 0.5

    for _ in range(1000):
        if next(of(reader, "total")).cost_usd == 0.2:
            break
        await asyncio.sleep(0.01)
    assert next(of(reader, "total")).cost_usd == 0.2


async def test_closing_waits_for_another_writer(path: Path) -> None:
    caps = BudgetSettings(total=SpendCap(day_usd=1.0))
    ledger, reader = Ledger(path, caps), Ledger(path, caps)
    hold = await ledger.reserve(0.5, 100)

    with another_writes(path):
        ledger.settle(hold, 0.2, 20)
        closing_it = asyncio.create_task(ledger.aclose())
        await asyncio.sleep(0.02)
        assert not closing_it.done()
    await closing_it

    assert next(of(reader, "total")).cost_usd == 0.2


async def test_a_request_and_its_hedge_set_aside_enough_for_both(path: Path) -> None:
    ledger = Ledger(path, BudgetSettings(total=SpendCap(day_usd=1.0)))
    model = ModelSettings(name="m", provider="p", id="m", price=Price(input=0, output=1_000_000))
    request = ModelRequest(model_id="m", messages=(), max_tokens=1)
    allowance = Allowance(
        request=request, models=(model,), once=Most(0.2, 10), estimator=TokenEstimator(),
        budget=None, ledger=ledger, hold=await ledger.reserve(0.1, 5),
        left_usd=0.1, left_tokens=5,
    )  # fmt: skip

    with another_writes(path):
        both = [asyncio.create_task(allowance.take(request, model, wait_s=5.0)) for _ in range(2)]
        await asyncio.sleep(0.02)
    await asyncio.gather(*both)

    today = next(of(ledger, "total"))
    assert (today.cost_usd, today.tokens) == (0.4, 20)
    assert allowance.left_usd == pytest.approx(0.0)
