"""Each alert with its words and figures, where it begins to fire, and what is said again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.decide.alerts import Alert, News, find_alerts, firing_in, news_since
from evalkit.settings import (
    AlertSettings,
    BudgetSettings,
    FeatureSettings,
    Settings,
    SpendCap,
)
from evalkit.store.views import open_store
from tests.store.journal_lines import AT, attempt, call, plain

HOUR = 3_600_000_000
DAY = 24 * HOUR
NOW = AT + HOUR

Call = dict[str, Any]


def alerts(
    folder: Path, *calls: Call, now: int = NOW, hours: float | None = None, **settings: Any
) -> list[Alert]:
    store = open_store(folder)
    store.add_calls(
        "log", [plain(call(**{"trace_id": f"t-{n}", **one})) for n, one in enumerate(calls)]
    )
    window = {} if hours is None else {"hours": hours}
    return find_alerts(store, Settings(root=folder, **settings), now=now, **window)


def keys(found: list[Alert]) -> set[str]:
    return {one.key for one in found}


# --- spend -------------------------------------------------------------------------------


def spends(*costs: tuple[int, float | None]) -> list[Call]:
    """Calls so long before NOW, at such cost."""
    return [{"ts": NOW - before, "cost_usd": cost} for before, cost in costs]


def test_a_spike_is_told_with_both_days_and_what_would_have_been_allowed(tmp_path: Path) -> None:
    calls = spends((30 * HOUR, 2.0), (2 * HOUR, 5.0))

    [total, feature] = alerts(tmp_path, *calls, alerts=AlertSettings(spend_ratio=1.5))

    assert total == Alert(
        key="spend/all calls",
        severity="critical",
        message="all calls cost $5.00 in 24 hours, 2.5 times the $2.00 of the 24 hours before",
        value=5.0,
        limit=3.0,
        anchor="cost-spike",
    )
    assert feature == replace(
        total,
        key="spend/feature classify-ticket",
        message=total.message.replace("all calls", "feature classify-ticket"),
    )


@pytest.mark.parametrize(
    ("calls", "fires"),
    [
        (spends((DAY + 1, 1.0), (DAY, 2.0)), True),
        (spends((DAY + 1, 1.0), (DAY, 1.99)), False),
        (spends((2 * DAY, 1.0), (0, 9.0), (1, 2.0)), True),
        (spends((2 * DAY + 1, 1.0), (1, 9.0)), False),
        (spends((DAY + 1, 5.0), (DAY, 5.0), (0, 9.0)), False),
        (spends((DAY + 1, 0.4), (1, 1.0)), True),
        (spends((DAY + 1, 0.4), (1, 0.99)), False),
        (spends((DAY + 1, None), (1, 9.0)), False),
        (spends((DAY + 1, None), (DAY + 1, 1.0), (1, 2.0)), True),
    ],
    ids=[
        "just the ratio", "just below it", "the day before begins two days ago",
        "older calls are of no day", "a call of this very moment is of the next day",
        "just the least spend", "just below it", "nothing known of the day before",
        "something known of it",
    ],
)  # fmt: skip
def test_24_hours_are_held_against_the_24_before_them(
    tmp_path: Path, calls: list[Call], fires: bool
) -> None:
    assert bool(alerts(tmp_path, *calls)) is fires


def test_what_cost_nothing_the_day_before_is_far_above_it(tmp_path: Path) -> None:
    [total, _] = alerts(tmp_path, *spends((30 * HOUR, 0.0), (HOUR, 3.0)))

    assert "cost $3.00 in 24 hours, far above the $0.00" in total.message
    assert total.limit == 0.0


def test_a_feature_without_a_day_before_is_judged_among_all_calls_alone(tmp_path: Path) -> None:
    calls = spends((30 * HOUR, 1.0), (HOUR, 1.0))

    found = alerts(tmp_path, *calls, {"ts": NOW - HOUR, "cost_usd": 5.0, "feature": "new"})

    assert keys(found) == {"spend/all calls"}


# --- budgets -----------------------------------------------------------------------------


def test_a_budget_is_told_with_what_of_it_is_used(tmp_path: Path) -> None:
    budgets = BudgetSettings(
        total=SpendCap(day_usd=2_500.0), feature=SpendCap(month_tokens=1_000_000)
    )
    spent = {"cost_usd": 2_000.0, "prompt_tokens": 1_100_000, "completion_tokens": 134_567}

    [tokens, dollars] = alerts(tmp_path, spent, budgets=budgets)

    assert tokens == Alert(
        key="budget/feature classify-ticket/month_tokens",
        severity="critical",
        message="feature classify-ticket: 123% of month_tokens is used, 1,234,567 of 1,000,000",
        value=1_234_567.0,
        limit=1_000_000.0,
        anchor="cost-spike",
    )
    assert dollars == Alert(
        key="budget/all calls/day_usd",
        severity="warning",
        message="all calls: 80% of day_usd is used, $2,000.00 of $2,500.00",
        value=2_000.0,
        limit=2_500.0,
        anchor="cost-spike",
    )


@pytest.mark.parametrize(
    ("used", "severity"), [(79, None), (80, "warning"), (99, "warning"), (100, "critical")]
)
def test_a_budget_warns_from_80_percent_and_is_critical_from_100(
    tmp_path: Path, used: int, severity: str | None
) -> None:
    budgets = BudgetSettings(total=SpendCap(day_tokens=100))

    found = alerts(
        tmp_path, {"prompt_tokens": used - 7, "completion_tokens": 7}, budgets=budgets
    )  # fmt: skip

    assert [one.severity for one in found] == ([severity] if severity else [])


@pytest.mark.parametrize(("users", "more"), [(20, ""), (21, " (and 1 more)")])
def test_of_one_limit_twenty_names_are_told_and_the_others_counted(
    tmp_path: Path, users: int, more: str
) -> None:
    calls = [{"user_id": f"user-{n:02}"} for n in range(users)]

    found = alerts(tmp_path, *calls, budgets=BudgetSettings(user=SpendCap(month_calls=1)))

    assert keys(found) == {f"budget/user user-{n:02}/month_calls" for n in range(20)}
    assert found[0].message == f"user user-00: 100% of month_calls is used, 1 of 1{more}"


def test_each_limit_names_its_own_twenty(tmp_path: Path) -> None:
    calls = [{"user_id": f"user-{n:02}"} for n in range(20)]
    one = SpendCap(day_calls=1, month_calls=1)

    assert len(alerts(tmp_path, *calls, budgets=BudgetSettings(user=one))) == 40


def test_a_users_month_is_read_from_its_beginning(tmp_path: Path) -> None:
    # NOW is 9 October: the first is before the week whose pace is looked at.
    early = {"ts": NOW - 8 * DAY, "user_id": "ann"}

    [one] = alerts(tmp_path, early, budgets=BudgetSettings(user=SpendCap(month_calls=1)))

    assert one.key == "budget/user ann/month_calls"


# --- failures, latency, caches -----------------------------------------------------------


FAILED: Call = {"status": "error", "error_kind": "server"}


def test_failures_above_their_limit_are_told(tmp_path: Path) -> None:
    calls = [FAILED] * 3 + [{}] * 17

    found = alerts(tmp_path, *calls, alerts=AlertSettings(error_share=0.14))

    assert found == [
        Alert(
            key="error_share/classify-ticket",
            severity="critical",
            message="classify-ticket: 15.0% of 20 calls failed, above 14.0%",
            value=0.15,
            limit=0.14,
            anchor="provider-outage",
        )
    ]
    assert alerts(tmp_path / "as allowed", *calls, alerts=AlertSettings(error_share=0.15)) == []
    assert alerts(tmp_path / "no limit", *calls) == []


@pytest.mark.parametrize(
    ("ts", "counts"), [(NOW - HOUR - 1, False), (NOW - HOUR, True), (NOW, True), (NOW + 1, False)]
)
def test_a_window_is_the_hour_before_the_look(tmp_path: Path, ts: int, counts: bool) -> None:
    found = alerts(tmp_path, *[FAILED | {"ts": ts}] * 20, alerts=AlertSettings(error_share=0.1))

    assert bool(found) is counts


def test_a_longer_window_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    calls = [FAILED | {"ts": NOW - 100 * HOUR}] * 20
    limits = AlertSettings(error_share=0.1)

    assert alerts(tmp_path / "short", *calls, alerts=limits, hours=99.5) == []
    assert keys(alerts(tmp_path / "long", *calls, alerts=limits, hours=100.5)) == {
        "error_share/classify-ticket"
    }


def test_features_are_judged_apart_and_each_by_its_own_number_of_calls(tmp_path: Path) -> None:
    calls = [FAILED | {"feature": "few"}] * 19 + [FAILED | {"feature": "many"}] * 20

    found = alerts(tmp_path, *calls, alerts=AlertSettings(error_share=0.5))

    assert keys(found) == {"error_share/many"}


def test_slow_calls_are_told_by_their_95th_percentile(tmp_path: Path) -> None:
    # Between the 95th and 96th of 1, …, 100, at 0.05 of the way.
    calls = [{"latency_ms": float(n)} for n in range(1, 101)]

    found = alerts(tmp_path, *calls, alerts=AlertSettings(latency_p95_ms=95.0))

    assert found == [
        Alert(
            key="latency_p95_ms/classify-ticket",
            severity="warning",
            message="classify-ticket: 5% of 100 calls took longer than 95 ms; 95 ms are allowed",
            value=pytest.approx(95.05),
            limit=95.0,
            anchor="provider-outage",
        )
    ]
    even = [{"latency_ms": 95.0}] * 20
    assert alerts(tmp_path / "even", *even, alerts=AlertSettings(latency_p95_ms=95.0)) == []
    unknown = [{"latency_ms": None}] * 20
    assert alerts(tmp_path / "unknown", *unknown, alerts=AlertSettings(latency_p95_ms=0.5)) == []


def promising(**promises: float) -> dict[str, FeatureSettings]:
    feature = FeatureSettings(
        name="classify-ticket", prompt_name="p", prompt_version="v1", model="m", **promises
    )  # type: ignore[arg-type]
    return {"classify-ticket": feature}


def test_a_promise_of_a_feature_that_is_not_kept_is_told(tmp_path: Path) -> None:
    calls = [{"latency_ms": 500.0, "ttft_ms": 90.0}] * 20 + [{"latency_ms": 500.0}] * 5

    found = alerts(tmp_path, *calls, features=promising(max_latency_ms=499.6, ttft_ms=89.0))

    assert found == [
        Alert(
            key="max_latency_ms/classify-ticket",
            severity="warning",
            message="classify-ticket: 5% of 25 calls took longer than 500 ms; its max_latency_ms "
            "is 500",
            value=500.0,
            limit=499.6,
            anchor="provider-outage",
        ),
        Alert(
            key="ttft_ms/classify-ticket",
            severity="warning",
            message="classify-ticket: 5% of 20 calls waited longer for the first token than 90 ms; "
            "its ttft_ms is 89",
            value=90.0,
            limit=89.0,
            anchor="provider-outage",
        ),
    ]


@pytest.mark.parametrize(
    ("calls", "promises"),
    [
        ([{"latency_ms": 500.0, "ttft_ms": 90.0}] * 20, {"max_latency_ms": 500, "ttft_ms": 90}),
        ([{"latency_ms": 500.0, "ttft_ms": 90.0}] * 19, {"max_latency_ms": 1, "ttft_ms": 1}),
        ([{"ttft_ms": 90.0}] * 19 + [{}] * 9, {"ttft_ms": 1}),
        ([{"ttft_ms": 90.0}] * 20, {}),
        ([{"latency_ms": None}] * 20, {"max_latency_ms": 1}),
    ],
    ids=["just kept", "few calls", "few that streamed", "nothing promised", "nothing known"],
)
def test_a_promise_that_is_kept_or_not_judged_is_not_told(
    tmp_path: Path, calls: list[Call], promises: dict[str, float]
) -> None:
    assert alerts(tmp_path, *calls, features=promising(**promises)) == []


def test_cache_hits_are_those_of_all_features_together(tmp_path: Path) -> None:
    calls = [{"cache_hit": True, "feature": "a"}] * 5 + [{"feature": "b"}] * 15

    found = alerts(tmp_path, *calls, alerts=AlertSettings(cache_hit_share=0.3))

    assert found == [
        Alert(
            key="cache_hit_share",
            severity="warning",
            message="caches answered 25.0% of 20 calls, below 30.0%",
            value=0.25,
            limit=0.3,
            anchor="cost-spike",
        )
    ]
    others = (("enough", 0.25, calls), ("few", 0.3, calls[1:]), ("no limit", None, calls))
    for name, limit, some in others:
        settings = AlertSettings(cache_hit_share=limit)
        assert alerts(tmp_path / name, *some, alerts=settings) == []


# --- providers ---------------------------------------------------------------------------


def asked(*kinds: str | None, ts: int = AT, provider: str = "openai") -> Call:
    """A call whose attempts ended so."""
    tried = tuple(attempt(provider=provider, error_kind=kind) for kind in kinds)
    return {"attempts": tried, "ts": ts, "provider": provider}


def test_a_provider_that_was_given_up_is_told_with_how_many_calls_met_it(tmp_path: Path) -> None:
    found = alerts(
        tmp_path,
        asked("breaker_open"),
        asked("quota_exhausted", provider="other"),
        asked("server", "quota_exhausted", provider="other"),
    )

    assert found == [
        Alert(
            key="breaker_open/openai",
            severity="critical",
            message="provider openai: its breaker is open: calls go elsewhere, or fail; 1 call met "
            "it, and it has answered none since",
            value=1.0,
            limit=0.0,
            anchor="provider-outage",
        ),
        Alert(
            key="quota_exhausted/other",
            severity="critical",
            message="provider other: its quota is exhausted; 2 calls met it, and it has answered "
            "none since",
            value=2.0,
            limit=0.0,
            anchor="provider-outage",
        ),
    ]


def test_a_cached_answer_is_none_of_the_provider(tmp_path: Path) -> None:
    cached = {"attempts": (), "cache_hit": True, "ts": AT + 1}

    found = alerts(tmp_path, asked("breaker_open"), cached)

    assert keys(found) == {"breaker_open/openai"}


def test_what_is_critical_comes_first_then_by_name(tmp_path: Path) -> None:
    calls = [FAILED | {"feature": name} for name in "ba" for _ in range(20)]
    limits = AlertSettings(error_share=0.1, cache_hit_share=0.5)

    found = alerts(tmp_path, *calls, alerts=limits)

    assert [one.key for one in found] == ["error_share/a", "error_share/b", "cache_hit_share"]


# --- what is new -------------------------------------------------------------------------


ALERT = Alert(key="k", severity="warning", message="m", value=2.0, limit=1.0, anchor="cost-spike")


def after(news: News, *now_firing: Alert, at: int) -> News:
    return news_since(news.state, now_firing, now=at)


def test_what_fires_for_the_first_time_is_said_and_kept() -> None:
    news = news_since({}, [ALERT], now=5)

    assert (news.say, news.recovered) == ((ALERT,), ())
    assert news.state == {
        "looked_at": 5,
        "firing": {
            "k": {
                "severity": "warning", "message": "m", "value": 2.0, "limit": 1.0,
                "runbook": "docs/runbook.md#cost-spike", "since": 5, "said_at": 5,
            }
        },
    }  # fmt: skip
    assert firing_in(news.state) == news.state["firing"]


def test_what_goes_on_is_said_a_day_after_it_was_last_said() -> None:
    first = news_since({}, [ALERT], now=5)

    early = after(first, ALERT, at=5 + DAY - 1)
    daily = after(early, ALERT, at=5 + DAY)
    next_day = after(daily, ALERT, at=5 + 2 * DAY - 1)

    assert [len(one.say) for one in (early, daily, next_day)] == [0, 1, 0]
    kept = [one.state["firing"]["k"] for one in (early, daily, next_day)]
    assert [one["since"] for one in kept] == [5, 5, 5]
    assert [one["said_at"] for one in kept] == [5, 5 + DAY, 5 + DAY]


def test_what_gets_worse_is_said_at_once_and_what_gets_better_is_not() -> None:
    worse = replace(ALERT, severity="critical")
    first = news_since({}, [ALERT], now=5)

    then = after(first, worse, at=6)

    assert then.say == (worse,)
    assert then.state["firing"]["k"]["said_at"] == 6
    assert after(then, worse, at=7).say == ()
    assert after(then, ALERT, at=7).say == ()


def test_what_fires_no_more_is_over_once_and_begins_anew() -> None:
    other = replace(ALERT, key="other", message="o")
    first = news_since({}, [ALERT, other], now=5)

    gone = after(first, other, at=6)
    still = after(gone, other, at=7)
    again = after(still, other, ALERT, at=8)

    assert [(one.say, one.recovered) for one in (gone, still, again)] == [
        ((), ("m",)), ((), ()), ((ALERT,), ()),
    ]  # fmt: skip
    assert [one["since"] for one in again.state["firing"].values()] == [5, 8]


def test_a_state_without_anything_firing_is_read_as_such() -> None:
    assert firing_in({}) == {}
    assert firing_in({"looked_at": 5}) == {}
    assert firing_in({"looked_at": 5, "firing": None}) == {}
    # As kept before looks had a time.
    assert firing_in({"k": {"severity": "warning"}}) == {"k": {"severity": "warning"}}
