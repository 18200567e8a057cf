"""What is wrong in production, as of now: costs, budgets, failures, latency, caches.

Calls and settings in, a list of alerts out; what is new since the last look is decided
apart, from what was said then. Sends nothing, writes nothing. A share or percentile of
fewer than `MIN_CALLS` calls, and a ratio to a day without calls, are not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from evalkit.decide.costs import cost_report
from evalkit.settings import AlertSettings, BudgetSettings, Settings, SpendCap
from evalkit.store.engine import Engine

Severity = Literal["warning", "critical"]

RUNBOOK = "docs/runbook.md"
MIN_CALLS = 20
MAX_NAMES = 20
"""Users, tenants or features that are named for one limit; the others are counted."""
BUDGET_WARNING = Decimal("0.8")
REMIND_US = 86_400_000_000
"""An alert that goes on is said again after a day."""
_HOUR = 3_600_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One thing that is wrong."""

    key: str
    """What it is known by from one look to the next."""
    severity: Severity
    message: str
    value: float
    limit: float
    anchor: str
    """Section of the runbook."""

    @property
    def runbook(self) -> str:
        return f"{RUNBOOK}#{self.anchor}"

    def as_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "severity": self.severity,
            "message": self.message,
            "value": self.value,
            "limit": self.limit,
            "runbook": self.runbook,
        }


def find_alerts(engine: Engine, settings: Settings, *, now: int, hours: float = 1.0) -> list[Alert]:
    """All that fires at `now` (microseconds since 1970), worst first.

    Spend is that of the 24 hours before `now` against the 24 before them; shares and
    latency are those of the last `hours`.
    """
    found = [
        *_spend(engine, settings, now),
        *_budgets(engine, settings.budgets, now),
        *_traffic(engine, settings.alerts, now - int(hours * _HOUR), now),
    ]
    return sorted(found, key=lambda alert: (alert.severity, alert.key))


# --- spend -------------------------------------------------------------------------


def _spend(engine: Engine, settings: Settings, now: int) -> Iterator[Alert]:
    day = 24 * _HOUR
    after = cost_report(engine, settings, by=("feature",), since=now - day, until=now)
    before = cost_report(engine, settings, by=("feature",), since=now - 2 * day, until=now - day)
    sides = {"all calls": (before.total, after.total)}
    for names, spend in after.groups.items():
        if names in before.groups:
            sides[f"feature {names[0]}"] = (before.groups[names], spend)
    least, ratio = (
        Decimal(str(settings.alerts.min_spend_usd)),
        Decimal(str(settings.alerts.spend_ratio)),
    )
    for name, (old, new) in sides.items():
        # Without a priced call yesterday there is nothing that today could be a multiple of.
        if old.calls - old.unpriced_calls <= 0 or new.cost_usd < least:
            continue
        if new.cost_usd >= ratio * old.cost_usd:
            times = f"{new.cost_usd / old.cost_usd:.1f} times" if old.cost_usd else "far above"
            yield Alert(
                key=f"spend/{name}",
                severity="critical",
                message=f"{name} cost ${new.cost_usd:.2f} in 24 hours, {times} the "
                f"${old.cost_usd:.2f} of the 24 hours before",
                value=float(new.cost_usd),
                limit=float(ratio * old.cost_usd),
                anchor="cost-spike",
            )


# --- budgets -----------------------------------------------------------------------

_SCOPES = {"total": "'all'", "user": "user_id", "tenant": "tenant", "feature": "feature"}
_AMOUNTS = {
    "usd": "coalesce(sum(TRY_CAST(cost_usd AS DECIMAL(38, 12))), 0)",
    "tokens": "coalesce(sum(coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0)), 0)",
    "calls": "count(*)",
}


def _budgets(engine: Engine, budgets: BudgetSettings, now: int) -> Iterator[Alert]:
    for scope, column in _SCOPES.items():
        general: SpendCap = getattr(budgets, scope)
        own: Mapping[str, SpendCap] = {} if scope == "total" else getattr(budgets, f"{scope}s")
        for period in ("day", "month"):
            caps = (general, *own.values())
            if not any(_limits(cap, period) for cap in caps):
                continue
            spent = engine.rows(_spent_query(column), [_start(now, period), now])
            yield from _over_budget(scope, period, spent, general, own)


def _spent_query(column: str) -> str:
    amounts = ", ".join(f"{sql}::VARCHAR AS {name}" for name, sql in _AMOUNTS.items())
    return (
        f"SELECT {column} AS name, {amounts} FROM calls"
        f" WHERE epoch_us(ts) >= $1 AND epoch_us(ts) <= $2 AND {column} IS NOT NULL GROUP BY 1"
    )


def _over_budget(
    scope: str,
    period: str,
    spent: Sequence[Mapping[str, Any]],
    general: SpendCap,
    own: Mapping[str, SpendCap],
) -> Iterator[Alert]:
    over: dict[str, list[tuple[Decimal, str, Decimal, Decimal]]] = {}
    for row in spent:
        for amount, limit in _limits(own.get(row["name"], general), period).items():
            used = Decimal(row[amount])
            share = used / limit if limit else Decimal(1)
            if share >= BUDGET_WARNING:
                over.setdefault(amount, []).append((share, row["name"], used, limit))
    for amount, named in over.items():
        named.sort(key=lambda one: (-one[0], one[1]))
        more = f" (and {len(named) - MAX_NAMES} more)" if len(named) > MAX_NAMES else ""
        for share, name, used, limit in named[:MAX_NAMES]:
            whose = "all calls" if scope == "total" else f"{scope} {name}"
            yield Alert(
                key=f"budget/{whose}/{period}_{amount}",
                severity="critical" if share >= 1 else "warning",
                message=f"{whose}: {share:.0%} of {period}_{amount} is used, {used.normalize():f} "
                f"of {limit:f}{more}",
                value=float(used),
                limit=float(limit),
                anchor="cost-spike",
            )


def _limits(cap: SpendCap, period: str) -> dict[str, Decimal]:
    found = {amount: getattr(cap, f"{period}_{amount}") for amount in _AMOUNTS}
    return {amount: Decimal(str(limit)) for amount, limit in found.items() if limit is not None}


def _start(now: int, period: str) -> int:
    """When the UTC day or month of `now` began."""
    at = _EPOCH + timedelta(microseconds=now)
    start = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "month":
        start = start.replace(day=1)
    return (start - _EPOCH) // timedelta(microseconds=1)


# --- failures, latency, caches -------------------------------------------------------


def _traffic(engine: Engine, limits: AlertSettings, since: int, now: int) -> Iterator[Alert]:
    rows = engine.rows(
        """
        SELECT feature, count(*) AS calls,
            count(*) FILTER (status = 'error') AS errors,
            count(*) FILTER (cache_hit) AS hits,
            quantile_cont(latency_ms, 0.95) AS p95
        FROM calls WHERE epoch_us(ts) >= $1 AND epoch_us(ts) <= $2
        GROUP BY feature ORDER BY feature
        """,
        [since, now],
    )
    for row in rows:
        if row["calls"] >= MIN_CALLS:
            yield from _of_feature(row, limits)
    calls, hits = sum(row["calls"] for row in rows), sum(row["hits"] for row in rows)
    if limits.cache_hit_share is not None and calls >= MIN_CALLS:
        share = hits / calls
        if share < limits.cache_hit_share:
            yield Alert(
                key="cache_hit_share",
                severity="warning",
                message=f"caches answered {share:.1%} of {calls} calls, below "
                f"{limits.cache_hit_share:.1%}",
                value=share,
                limit=limits.cache_hit_share,
                anchor="cost-spike",
            )


def _of_feature(row: Mapping[str, Any], limits: AlertSettings) -> Iterator[Alert]:
    feature, share = row["feature"], row["errors"] / row["calls"]
    if limits.error_share is not None and share > limits.error_share:
        yield Alert(
            key=f"error_share/{feature}",
            severity="critical",
            message=f"{feature}: {share:.1%} of {row['calls']} calls failed, above "
            f"{limits.error_share:.1%}",
            value=share,
            limit=limits.error_share,
            anchor="provider-outage",
        )
    if limits.latency_p95_ms is not None and (row["p95"] or 0) > limits.latency_p95_ms:
        yield Alert(
            key=f"latency_p95_ms/{feature}",
            severity="warning",
            message=f"{feature}: 5% of {row['calls']} calls took longer than {row['p95']:.0f} ms; "
            f"{limits.latency_p95_ms:.0f} ms are allowed",
            value=row["p95"],
            limit=limits.latency_p95_ms,
            anchor="provider-outage",
        )


# --- what is new ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What changed since the last look, and what the next one has to know."""

    say: tuple[Alert, ...]
    """New, worse than when it was last said, or going on for another day."""
    recovered: tuple[str, ...]
    """Messages of alerts that fired last time and do no more."""
    state: dict[str, dict[str, Any]]


def news_since(state: Mapping[str, Any], alerts: Sequence[Alert], *, now: int) -> News:
    """Hold `alerts` against the `state` of the last look; an alert is said once a day."""
    firing, say = {}, []
    for alert in alerts:
        known: Mapping[str, Any] = state.get(alert.key) or {}
        worse = (known.get("severity"), alert.severity) == ("warning", "critical")
        again = not known or worse or now - known["said_at"] >= REMIND_US
        if again:
            say.append(alert)
        firing[alert.key] = {
            "severity": alert.severity,
            "message": alert.message,
            "since": known.get("since", now),
            "said_at": now if again else known["said_at"],
        }
    recovered = tuple(one["message"] for key, one in state.items() if key not in firing)
    return News(say=tuple(say), recovered=recovered, state=firing)
