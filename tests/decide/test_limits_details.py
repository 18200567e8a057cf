"""Periods, paces and forecasts of spending limits, each beside what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from evalkit.decide.limits import (
    LimitUse,
    limits_in_use,
    limits_of,
    named_caps,
    period_start,
    reads_since,
    spent_by_counts,
)
from evalkit.settings import BudgetSettings, SpendCap
from evalkit.store.engine import Engine

HOUR, DAY = 3_600_000_000, 86_400_000_000


def at(text: str) -> int:
    """Microseconds since 1970 of a time in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


NOW = at("2026-03-10T12:00")
Row = Mapping[str, Any]


class Ledger:
    """Spending by scope, as it is asked for: of the week before, or since the period began."""

    def __init__(self, week: Sequence[Row] = (), period: Sequence[Row] = ()) -> None:
        self.week, self.period = week, period
        self.asked: list[tuple[str, int, int]] = []

    def __call__(self, scope: str, since: int, until: int) -> Sequence[Row]:
        self.asked.append((scope, since, until))
        rows = self.week if since == NOW - 7 * DAY else self.period
        return [row for row in rows if (row["name"] == "all") is (scope == "total")]


def spent(name: str = "all", *, first: int = NOW - 2 * DAY, **amounts: Any) -> Row:
    return {"name": name, "usd": "0", "tokens": "0", "calls": "0", "first": first} | amounts


def of(budgets: BudgetSettings, week: Sequence[Row], period: Sequence[Row]) -> list[LimitUse]:
    return limits_in_use(Ledger(week, period), budgets, now=NOW)


USE = LimitUse(
    scope="user", name="ann", period="month", amount="usd", used=Decimal(30), limit=Decimal(40),
    per_day=Decimal(2), left_days=Decimal(10),
)  # fmt: skip


# --- one limit --------------------------------------------------------------------------


def test_a_limit_says_whose_it_is_and_what_of_it_is_used() -> None:
    total = replace(USE, scope="total", name="all")

    assert (USE.whose, USE.key, USE.share) == ("user ann", "month_usd", Decimal("0.75"))
    assert total.whose == "all calls"
    assert replace(USE, limit=Decimal(0)).share == 1


def test_a_forecast_is_what_is_used_and_the_pace_for_the_days_left() -> None:
    assert USE.forecast == 50
    assert replace(USE, per_day=None).forecast is None


@pytest.mark.parametrize(
    ("changes", "days"),
    [
        ({}, 5.0),
        ({"used": Decimal(40)}, 0.0),
        ({"used": Decimal(41)}, 0.0),
        ({"per_day": Decimal(1)}, 10.0),
        ({"per_day": Decimal("0.99")}, None),
        ({"per_day": Decimal(0)}, None),
        ({"per_day": None}, None),
        ({"used": Decimal(40), "per_day": None}, 0.0),
    ],
)
def test_a_limit_is_full_when_the_pace_reaches_it_within_the_period(
    changes: dict[str, Any], days: float | None
) -> None:
    assert replace(USE, **changes).days_until_full == days


def test_a_limit_is_plain_data() -> None:
    assert USE.as_json() == {
        "scope": "user", "name": "ann", "limit_of": "month_usd", "used": 30.0, "limit": 40.0,
        "share": 0.75, "forecast": 50.0, "days_until_full": 5.0,
    }  # fmt: skip
    total = replace(USE, scope="total", per_day=None).as_json()
    assert (total["name"], total["forecast"], total["days_until_full"]) == (None, None, None)


def test_a_cap_has_the_limits_of_its_period_in_exact_decimals() -> None:
    cap = SpendCap(day_usd=0.1, month_usd=1.0, month_calls=5)

    assert limits_of(cap, "day") == {"usd": Decimal("0.1")}
    assert limits_of(cap, "month") == {"usd": Decimal("1.0"), "calls": Decimal(5)}
    assert limits_of(SpendCap(), "day") == {}


# --- periods ----------------------------------------------------------------------------


def test_days_and_months_begin_at_midnight_utc() -> None:
    assert period_start(NOW, "day") == at("2026-03-10T00:00")
    assert period_start(NOW, "month") == at("2026-03-01T00:00")
    assert period_start(at("2026-03-01T00:00"), "month") == at("2026-03-01T00:00")


@pytest.mark.parametrize(
    ("now", "period", "left"),
    [
        ("2026-03-10T12:00", "day", "0.5"),
        ("2026-03-10T12:00", "month", "21.5"),
        ("2026-01-31T00:00", "month", "1"),
        ("2026-02-28T18:00", "month", "0.25"),
        ("2028-02-28T00:00", "month", "2"),
        ("2027-02-28T00:00", "month", "1"),
        ("2026-12-31T12:00", "month", "0.5"),
    ],
)
def test_what_is_left_of_a_period_ends_with_the_day_or_the_month(
    now: str, period: str, left: str
) -> None:
    budgets = BudgetSettings(total=SpendCap(day_calls=5, month_calls=5))

    uses = limits_in_use(lambda *asked: [spent(calls="1")], budgets, now=at(now))

    assert {use.period: use.left_days for use in uses}[period] == Decimal(left)


def test_calls_are_read_from_the_week_before_or_since_a_month_with_a_limit_began() -> None:
    daily, monthly = SpendCap(day_usd=1.0), SpendCap(month_usd=1.0)
    late, early = at("2026-03-20T12:00"), at("2026-03-03T12:00")

    assert reads_since(BudgetSettings(total=daily), late) == late - 7 * DAY
    assert reads_since(BudgetSettings(total=monthly), late) == at("2026-03-01T00:00")
    assert reads_since(BudgetSettings(users={"ann": monthly}), late) == at("2026-03-01T00:00")
    assert reads_since(BudgetSettings(total=monthly), early) == early - 7 * DAY


def test_caps_of_users_and_tenants_are_what_no_counts_know() -> None:
    caps = {name: SpendCap(day_calls=n) for n, name in enumerate("abcdef", 1)}
    budgets = BudgetSettings(
        total=caps["a"], feature=caps["b"], features={"f": caps["b"]}, user=caps["c"],
        users={"ann": caps["d"]}, tenant=caps["e"], tenants={"t": caps["f"]},
    )  # fmt: skip

    assert [cap.day_calls for cap in named_caps(budgets)] == [3, 4, 5, 6]


# --- all limits -------------------------------------------------------------------------


def test_use_is_of_the_period_and_the_pace_of_the_week() -> None:
    budgets = BudgetSettings(total=SpendCap(month_usd=40.0, month_tokens=1_000))

    uses = of(
        budgets,
        [spent(usd="8.5", tokens="10", first=NOW - 4 * DAY)],
        [spent(usd="20.25", tokens="500")],
    )

    assert [(use.key, use.used, use.per_day) for use in uses] == [
        ("month_usd", Decimal("20.25"), Decimal("2.125")),
        ("month_tokens", Decimal(500), Decimal("2.5")),
    ]
    assert {use.name for use in uses} == {"all"}


def test_each_scope_is_asked_for_its_week_and_its_period_only_where_it_has_a_limit() -> None:
    ledger = Ledger()

    limits_in_use(ledger, BudgetSettings(tenant=SpendCap(day_calls=5)), now=NOW)

    assert ledger.asked == [
        ("tenant", NOW - 7 * DAY, NOW), ("tenant", at("2026-03-10T00:00"), NOW)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("first", "per_day"),
    [(NOW - DAY, Decimal(3)), (NOW - DAY + 1, None), (NOW - 3 * DAY, Decimal(1))],
)
def test_a_pace_needs_a_day(first: int, per_day: Decimal | None) -> None:
    budgets = BudgetSettings(total=SpendCap(month_calls=5))

    [use] = of(budgets, [spent(calls="3", first=first)], [spent(calls="3")])

    assert use.per_day == per_day


def test_the_first_call_of_anybody_begins_the_days_that_are_counted() -> None:
    budgets = BudgetSettings(user=SpendCap(month_calls=50))
    week = [spent("ann", calls="4", first=NOW - 4 * DAY), spent("bob", calls="8", first=NOW - HOUR)]

    uses = of(budgets, week, [spent("ann", calls="4"), spent("bob", calls="8")])

    assert {use.name: use.per_day for use in uses} == {"ann": Decimal(1), "bob": Decimal(2)}


def test_who_did_nothing_in_the_week_before_has_a_pace_of_nothing() -> None:
    budgets = BudgetSettings(user=SpendCap(month_calls=50))

    uses = of(
        budgets, [spent("ann", calls="4")], [spent("ann", calls="4"), spent("bob", calls="1")]
    )

    assert {use.name: use.per_day for use in uses} == {"ann": Decimal(2), "bob": Decimal(0)}
    assert of(budgets, [], [spent("bob", calls="1")])[0].per_day is None


def test_a_limit_of_ones_own_stands_in_place_of_the_general_one() -> None:
    budgets = BudgetSettings(
        feature=SpendCap(day_calls=10), features={"classify": SpendCap(month_calls=20)}
    )

    uses = of(budgets, [], [spent("classify", calls="5"), spent("answer", calls="5")])

    assert [(use.name, use.key, use.limit) for use in uses] == [
        ("answer", "day_calls", 10), ("classify", "month_calls", 20)
    ]  # fmt: skip


def test_the_fullest_comes_first_and_of_equals_by_name_and_limit() -> None:
    budgets = BudgetSettings(
        total=SpendCap(day_calls=20, day_tokens=20), users={"ann": SpendCap(day_calls=10)}
    )

    uses = of(budgets, [], [spent("all", calls="5", tokens="5"), spent("ann", calls="5")])

    assert [(use.whose, use.key) for use in uses] == [
        ("user ann", "day_calls"), ("all calls", "day_calls"), ("all calls", "day_tokens")
    ]  # fmt: skip


# --- counts by the hour -----------------------------------------------------------------


def counted(hour: int, calls: int, *, feature: str | None = "classify") -> dict[str, Any]:
    return {
        "hour": hour, "feature": feature, "calls": calls, "cost_usd": Decimal("0.25") * calls,
        "prompt_tokens": 10 * calls, "completion_tokens": calls,
    }  # fmt: skip


def test_counts_are_summed_over_the_hours_from_first_to_last() -> None:
    rows = [counted(hour, 2**hour) for hour in range(6)]
    rows += [counted(3, 100, feature="answer"), counted(3, 1_000, feature=None)]

    with Engine() as engine:
        engine.add_table("counts", pa.Table.from_pylist(rows))
        spent = spent_by_counts(engine)
        of_features = spent("feature", 2 * HOUR + 5, 4 * HOUR + 5)
        [total] = spent("total", 2 * HOUR, 4 * HOUR)
        nobody = [*spent("user", 0, 9 * HOUR), *spent("tenant", 0, 9 * HOUR)]

    assert sorted(tuple(row.values()) for row in of_features) == [
        ("answer", "25.00", "1100", "100", 3 * HOUR),
        ("classify", "7.00", "308", "28", 2 * HOUR),
    ]
    assert (total["name"], total["calls"]) == ("all", "128")
    assert nobody == []
