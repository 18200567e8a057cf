"""How much of each spending limit production has used, and where it is heading.

Reads calls, or their counts, and the configured caps; refuses nothing (the call path's
ledger does). A forecast takes the mean day of the week before; with less than a day of calls
there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from evalkit.settings import BudgetSettings, SpendCap
from evalkit.store.engine import Engine
from evalkit.store.tallies import HOUR_US, MONEY

DAY_US = 86_400_000_000
RATE_DAYS = 7
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SCOPES = {"total": "'all'", "user": "user_id", "tenant": "tenant", "feature": "feature"}
AMOUNTS = {
    "usd": f"coalesce(sum({MONEY}), 0)",
    "tokens": "coalesce(sum(coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0)), 0)",
    "calls": "count(*)",
}
PERIODS = ("day", "month")
COUNTED = ("total", "feature")
"""Scopes whose use can be told from counts by the hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitUse:
    """One limit, and what of it is used."""

    scope: str
    """total | user | tenant | feature"""
    name: str
    """The user, tenant or feature; all."""
    period: str
    """day | month, UTC"""
    amount: str
    """usd | tokens | calls"""
    used: Decimal
    limit: Decimal
    per_day: Decimal | None
    """Of the days before, on average; None when there was less than one."""
    left_days: Decimal
    """Until the period ends."""

    @property
    def whose(self) -> str:
        return "all calls" if self.scope == "total" else f"{self.scope} {self.name}"

    @property
    def key(self) -> str:
        return f"{self.period}_{self.amount}"

    @property
    def share(self) -> Decimal:
        return self.used / self.limit if self.limit else Decimal(1)

    @property
    def forecast(self) -> Decimal | None:
        """What is used when the period ends, at the pace of the days before."""
        return None if self.per_day is None else self.used + self.per_day * self.left_days

    @property
    def days_until_full(self) -> float | None:
        """0 when it is full; None when it is not by the end of the period."""
        if self.used >= self.limit:
            return 0.0
        if not self.per_day or self.forecast is None or self.forecast < self.limit:
            return None
        return float((self.limit - self.used) / self.per_day)

    def as_json(self) -> dict[str, Any]:
        return {
            "scope": self.scope,
            "name": None if self.scope == "total" else self.name,
            "limit_of": self.key,
            "used": float(self.used),
            "limit": float(self.limit),
            "share": float(self.share),
            "forecast": None if self.forecast is None else float(self.forecast),
            "days_until_full": self.days_until_full,
        }


Spent = Callable[[str, int, int], Sequence[Mapping[str, Any]]]
"""Scope, since, until -> a row of `name` and `AMOUNTS` for each name; times are microseconds."""


def limits_in_use(spent: Spent, budgets: BudgetSettings, *, now: int) -> list[LimitUse]:
    """Every limit that has any use at `now` (microseconds since 1970), the fullest first."""
    found = [
        use
        for scope in SCOPES
        for period in PERIODS
        for use in _of_scope(spent, budgets, scope, period, now)
    ]
    return sorted(found, key=lambda use: (-use.share, use.whose, use.key))


def spent_by_calls(engine: Engine) -> Spent:
    """Sums over the view `calls`."""
    amounts = ", ".join(f"{sql}::VARCHAR AS {name}" for name, sql in AMOUNTS.items())

    def spent(scope: str, since: int, until: int) -> Sequence[Mapping[str, Any]]:
        column = SCOPES[scope]
        return engine.rows(
            f"SELECT {column} AS name, {amounts}, min(epoch_us(ts)) AS first FROM calls"
            f" WHERE epoch_us(ts) >= $1 AND epoch_us(ts) <= $2 AND {column} IS NOT NULL GROUP BY 1",
            [since, until],
        )

    return spent


def spent_by_counts(engine: Engine) -> Spent:
    """The same over the views of `store.tallies`: whole hours, no users and no tenants."""

    def spent(scope: str, since: int, until: int) -> Sequence[Mapping[str, Any]]:
        if scope not in COUNTED:
            return ()
        return engine.rows(
            f"""
            SELECT {SCOPES[scope]} AS name, sum(cost_usd)::VARCHAR AS usd,
                sum(prompt_tokens + completion_tokens)::VARCHAR AS tokens,
                sum(calls)::VARCHAR AS calls, min(hour) * {HOUR_US} AS first
            FROM counts WHERE hour >= $1 AND hour <= $2 AND feature IS NOT NULL GROUP BY 1
            """,
            [since // HOUR_US, until // HOUR_US],
        )

    return spent


def reads_since(budgets: BudgetSettings, now: int) -> int:
    """From when on calls are needed for it."""
    is_monthly = any(
        limits_of(cap, "month")
        for scope in SCOPES
        for cap in (getattr(budgets, scope), *_own(budgets, scope).values())
    )
    started = period_start(now, "month" if is_monthly else "day")
    return min(started, now - RATE_DAYS * DAY_US)


def named_caps(budgets: BudgetSettings) -> list[SpendCap]:
    """Caps of users and tenants, which no counts know."""
    return [
        cap
        for scope in SCOPES
        if scope not in COUNTED
        for cap in (getattr(budgets, scope), *_own(budgets, scope).values())
    ]


def _own(budgets: BudgetSettings, scope: str) -> Mapping[str, SpendCap]:
    return {} if scope == "total" else getattr(budgets, f"{scope}s")


def _of_scope(
    spent: Spent, budgets: BudgetSettings, scope: str, period: str, now: int
) -> Iterator[LimitUse]:
    general: SpendCap = getattr(budgets, scope)
    own = _own(budgets, scope)
    if not any(limits_of(cap, period) for cap in (general, *own.values())):
        return
    week = spent(scope, now - RATE_DAYS * DAY_US, now)
    before = {row["name"]: row for row in week}
    days = Decimal(now - min((row["first"] for row in week), default=now)) / DAY_US
    left = Decimal(_period_end(now, period) - now) / DAY_US
    for row in spent(scope, period_start(now, period), now):
        name, pace = row["name"], before.get(row["name"])
        for amount, limit in limits_of(own.get(name, general), period).items():
            total = Decimal(pace[amount]) if pace else Decimal(0)
            yield LimitUse(
                scope=scope,
                name=name,
                period=period,
                amount=amount,
                used=Decimal(row[amount]),
                limit=limit,
                per_day=total / days if days >= 1 else None,
                left_days=left,
            )


def limits_of(cap: SpendCap, period: str) -> dict[str, Decimal]:
    """Amount -> limit of a day or a month, where there is one."""
    found = {amount: getattr(cap, f"{period}_{amount}") for amount in AMOUNTS}
    return {amount: Decimal(str(limit)) for amount, limit in found.items() if limit is not None}


def period_start(now: int, period: str) -> int:
    """When the UTC day or month of `now` began."""
    start = _midnight(now)
    return _micros(start.replace(day=1) if period == "month" else start)


def _period_end(now: int, period: str) -> int:
    start = _midnight(now)
    if period == "month":
        return _micros((start.replace(day=28) + timedelta(days=4)).replace(day=1))
    return _micros(start + timedelta(days=1))


def _midnight(now: int) -> datetime:
    at = _EPOCH + timedelta(microseconds=now)
    return at.replace(hour=0, minute=0, second=0, microsecond=0)


def _micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)
