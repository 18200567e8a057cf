"""Limits: what is used of each, and where it is heading."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.cli.periods import now
from evalkit.decide.limits import LimitUse, limits_in_use, spent_by_calls
from evalkit.settings import BudgetSettings, SpendCap
from evalkit.store.views import open_store
from tests.store.journal_lines import call, plain

DAY = 86_400_000_000
NOON_ON_THE_TENTH = 1_773_144_000_000_000
"""2026-03-10 12:00 UTC."""


def used(tmp_path: Path, budgets: BudgetSettings, *calls: dict[str, Any]) -> list[LimitUse]:
    store = open_store(tmp_path)
    rows = [plain(call(**{"trace_id": f"t-{n}", **one})) for n, one in enumerate(calls)]
    store.add_calls("log", rows)
    with store.production() as engine:
        return limits_in_use(spent_by_calls(engine), budgets, now=NOON_ON_THE_TENTH)


def test_a_month_is_forecast_at_the_pace_of_the_week_before(tmp_path: Path) -> None:
    daily = [{"ts": NOON_ON_THE_TENTH - n * DAY, "cost_usd": 2.0} for n in range(7)]
    oldest = {"ts": NOON_ON_THE_TENTH - 7 * DAY, "cost_usd": 0.0}

    [use] = used(tmp_path, BudgetSettings(total=SpendCap(month_usd=40.0)), *daily, oldest)

    assert (use.used, use.per_day) == (Decimal(14), Decimal(2))
    assert use.forecast == Decimal(14) + 2 * Decimal("21.5")
    assert use.days_until_full == 13.0


def test_a_limit_that_holds_until_the_period_ends_is_never_full(tmp_path: Path) -> None:
    daily = [{"ts": NOON_ON_THE_TENTH - n * DAY, "user_id": "ann"} for n in range(4)]

    [use] = used(tmp_path, BudgetSettings(user=SpendCap(month_calls=1000)), *daily)

    assert (use.whose, use.used, use.days_until_full) == ("user ann", 4, None)
    assert use.forecast is not None
    assert use.forecast < 1000


def test_with_less_than_a_day_of_calls_nothing_is_forecast(tmp_path: Path) -> None:
    budgets = BudgetSettings(features={"classify-ticket": SpendCap(day_calls=4)})

    [use] = used(tmp_path, budgets, {"ts": NOON_ON_THE_TENTH - DAY // 4})

    assert (use.share, use.forecast, use.days_until_full) == (Decimal("0.25"), None, None)


def test_the_fullest_comes_first_and_a_full_one_says_so(tmp_path: Path) -> None:
    budgets = BudgetSettings(
        total=SpendCap(month_calls=100), users={"ann": SpendCap(month_calls=2)}
    )

    found = used(tmp_path, budgets, *[{"ts": NOON_ON_THE_TENTH - 5, "user_id": "ann"}] * 2)

    assert [(use.whose, use.days_until_full) for use in found] == [
        ("user ann", 0.0), ("all calls", None),
    ]  # fmt: skip


def test_the_command_tells_of_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "[budgets]\ntotal = { month_usd = 10.0 }\n"
    (tmp_path / "evalkit.toml").write_text(text, encoding="utf-8")
    row = plain(call(ts=now() - 1_000_000, cost_usd=4.0))
    open_store(tmp_path / ".evalkit").add_calls("log", [row])

    statuses = []
    printed = []
    for option in ([], ["--json"]):
        statuses.append(main(["cost", "--config", str(tmp_path / "evalkit.toml"), *option]))
        printed.append(capsys.readouterr().out)

    assert statuses == [0, 0]
    assert "all calls: month_usd" in printed[0]
    assert "40%" in printed[0]
    [limit] = json.loads(printed[1])["limits"]
    assert (limit["limit_of"], limit["used"], limit["share"]) == ("month_usd", 4.0, 0.4)
