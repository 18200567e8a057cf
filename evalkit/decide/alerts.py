"""What is wrong in production, as of now: costs, budgets, failures, latency, caches.

Calls and settings in, a list of alerts out; what is new since the last look is decided
apart, from what was said then. Sends nothing, writes nothing. A share or percentile of
fewer than `MIN_CALLS` calls, and a ratio to a day without calls, are not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from evalkit.decide.costs import cost_sums
from evalkit.decide.limits import (
    COUNTED,
    PERIODS,
    LimitUse,
    Spent,
    limits_in_use,
    limits_of,
    named_caps,
    reads_since,
    spent_by_calls,
    spent_by_counts,
)
from evalkit.settings import AlertSettings, BudgetSettings, FeatureSettings, Settings
from evalkit.store.engine import Engine
from evalkit.store.tallies import tallied
from evalkit.store.views import Store

Severity = Literal["warning", "critical"]

RUNBOOK = "docs/runbook.md"
STATE = "alerts.json"
"""What the last look found, in the store."""
MIN_CALLS = 20
MAX_NAMES = 20
"""Users, tenants or features that are named for one limit; the others are counted."""
BUDGET_WARNING = Decimal("0.8")
REMIND_US = 86_400_000_000
"""An alert that goes on is said again after a day."""
_HOUR = 3_600_000_000


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
    book: str = RUNBOOK
    """The runbook's address, or its path in the documentation."""

    @property
    def runbook(self) -> str:
        return f"{self.book}#{self.anchor}"

    def as_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "severity": self.severity,
            "message": self.message,
            "value": self.value,
            "limit": self.limit,
            "runbook": self.runbook,
        }


def find_alerts(store: Store, settings: Settings, *, now: int, hours: float = 1.0) -> list[Alert]:
    """All that fires at `now` (microseconds since 1970), worst first.

    Spend is that of the 24 hours before `now` against the 24 before them; shares and
    latency are those of the last `hours`. Limits of users and tenants take the calls of
    their whole period, others only counts of them.
    """
    budgets = settings.budgets
    since = now - max(48 * _HOUR, int(hours * _HOUR))
    if any(limits_of(cap, period) for cap in named_caps(budgets) for period in PERIODS):
        since = min(since, reads_since(budgets, now))
    with (
        store.production(since=since) as calls,
        tallied(store, since=reads_since(budgets, now), until=now, views=("counts",)) as counts,
    ):
        by_calls, by_counts = spent_by_calls(calls), spent_by_counts(counts)

        def spent(scope: str, since: int, until: int) -> Sequence[Mapping[str, Any]]:
            return (by_counts if scope in COUNTED else by_calls)(scope, since, until)

        window = now - int(hours * _HOUR)
        found = [
            *_spend(calls, settings, now),
            *_budgets(spent, budgets, now),
            *_traffic(calls, settings, window, now),
            *_providers(calls, window, now),
        ]
    return sorted(found, key=lambda alert: (alert.severity, alert.key))


# --- spend -------------------------------------------------------------------------


def _spend(engine: Engine, settings: Settings, now: int) -> Iterator[Alert]:
    day = 24 * _HOUR
    after = cost_sums(engine, settings, by=("feature",), since=now - day, until=now)
    before = cost_sums(engine, settings, by=("feature",), since=now - 2 * day, until=now - day)
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


def _budgets(spent: Spent, budgets: BudgetSettings, now: int) -> Iterator[Alert]:
    over: dict[tuple[str, str], list[LimitUse]] = {}
    for use in limits_in_use(spent, budgets, now=now):
        if use.share >= BUDGET_WARNING:
            over.setdefault((use.scope, use.key), []).append(use)
    for named in over.values():
        more = f" (and {len(named) - MAX_NAMES} more)" if len(named) > MAX_NAMES else ""
        for use in named[:MAX_NAMES]:
            yield Alert(
                key=f"budget/{use.whose}/{use.key}",
                severity="critical" if use.share >= 1 else "warning",
                message=f"{use.whose}: {use.share:.0%} of {use.key} is used, {_used(use)}{more}",
                value=float(use.used),
                limit=float(use.limit),
                anchor="cost-spike",
            )


def _used(use: LimitUse) -> str:
    if use.amount == "usd":
        return f"${use.used:,.2f} of ${use.limit:,.2f}"
    return f"{use.used:,} of {use.limit:,}"


# --- failures, latency, caches -------------------------------------------------------


def _traffic(engine: Engine, settings: Settings, since: int, now: int) -> Iterator[Alert]:
    limits = settings.alerts
    rows = engine.rows(
        """
        SELECT feature, count(*) AS calls,
            count(*) FILTER (status = 'error') AS errors,
            count(*) FILTER (cache_hit) AS hits,
            quantile_cont(latency_ms, 0.95) AS p95,
            count(ttft_ms) AS streamed,
            quantile_cont(ttft_ms, 0.95) AS ttft_p95
        FROM calls WHERE epoch_us(ts) >= $1 AND epoch_us(ts) <= $2
        GROUP BY feature ORDER BY feature
        """,
        [since, now],
    )
    for row in rows:
        if row["calls"] >= MIN_CALLS:
            yield from _of_feature(row, limits)
            if row["feature"] in settings.features:
                yield from _over_own_budget(row, settings.features[row["feature"]])
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


def _over_own_budget(row: Mapping[str, Any], feature: FeatureSettings) -> Iterator[Alert]:
    """The latency that the feature itself promises: its deadline, its first token."""
    promises = (
        ("max_latency_ms", "p95", row["calls"], "took longer"),
        ("ttft_ms", "ttft_p95", row["streamed"], "waited longer for the first token"),
    )
    for name, of, calls, did in promises:
        limit, value = getattr(feature, name), row[of]
        if limit is not None and value is not None and calls >= MIN_CALLS and value > limit:
            yield Alert(
                key=f"{name}/{feature.name}",
                severity="warning",
                message=f"{feature.name}: 5% of {calls} calls {did} than {value:.0f} ms; its "
                f"{name} is {limit:.0f}",
                value=value,
                limit=limit,
                anchor="provider-outage",
            )


# --- providers -----------------------------------------------------------------------

_DOWN = {
    "breaker_open": "its breaker is open: calls go elsewhere, or fail",
    "quota_exhausted": "its quota is exhausted",
}
"""What a provider can be until it answers again -> in words."""


def _providers(engine: Engine, since: int, now: int) -> Iterator[Alert]:
    """Providers that were given up and have answered nothing since."""
    rows = engine.rows(
        """
        WITH asked AS (
            SELECT ts, unnest(attempts) AS attempt FROM calls
            WHERE epoch_us(ts) >= $1 AND epoch_us(ts) <= $2
        ), told AS (
            SELECT ts, attempt.provider AS provider, attempt.error_kind AS kind FROM asked
            UNION ALL
            SELECT ts, provider, error_kind FROM calls
            WHERE epoch_us(ts) >= $1 AND epoch_us(ts) <= $2
                AND coalesce(len(attempts), 0) = 0 AND NOT coalesce(cache_hit, false)
        ), answered AS (
            SELECT provider, max(ts) AS answered_at FROM told WHERE kind IS NULL GROUP BY provider
        )
        SELECT provider, kind, count(*) AS n FROM told LEFT JOIN answered USING (provider)
        WHERE list_contains($3, kind) AND provider IS NOT NULL
            AND (answered_at IS NULL OR ts > answered_at)
        GROUP BY ALL ORDER BY ALL
        """,
        [since, now, list(_DOWN)],
    )
    for row in rows:
        calls = f"{row['n']} call{'s' * (row['n'] != 1)}"
        yield Alert(
            key=f"{row['kind']}/{row['provider']}",
            severity="critical",
            message=f"provider {row['provider']}: {_DOWN[row['kind']]}; {calls} met it, and it "
            "has answered none since",
            value=float(row["n"]),
            limit=0.0,
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
    state: dict[str, Any]


def news_since(state: Mapping[str, Any], alerts: Sequence[Alert], *, now: int) -> News:
    """Hold `alerts` against the `state` of the last look; an alert is said once a day."""
    before, firing, say = firing_in(state), {}, []
    for alert in alerts:
        known: Mapping[str, Any] = before.get(alert.key) or {}
        worse = (known.get("severity"), alert.severity) == ("warning", "critical")
        again = not known or worse or now - known["said_at"] >= REMIND_US
        if again:
            say.append(alert)
        firing[alert.key] = {
            **{name: value for name, value in alert.as_json().items() if name != "key"},
            "since": known.get("since", now),
            "said_at": now if again else known["said_at"],
        }
    recovered = tuple(one["message"] for key, one in before.items() if key not in firing)
    return News(say=tuple(say), recovered=recovered, state={"looked_at": now, "firing": firing})


def firing_in(state: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Key -> what fired at the look that left `state`."""
    found = state.get("firing", {}) if "looked_at" in state else state
    return found if isinstance(found, Mapping) else {}
