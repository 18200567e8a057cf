"""What production's calls cost: sums by feature, model, user, tenant or day.

Reads `calls` and the configured prices; changes nothing. Sums are decimal, exact however
many calls there are. A call without a known cost is counted as such and never as 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from evalkit.settings import ModelSettings, Price, Settings
from evalkit.store.engine import Engine
from evalkit.store.tallies import HOUR_US, MEASURES, MODEL

CACHE_TARGET = 0.30
"""Share of calls that a cache should answer."""
BY = {
    "feature": "feature",
    "model": MODEL,
    "user": "user_id",
    "tenant": "tenant",
    "day": "epoch_us(ts) // 86400000000",
}
"""What can be grouped by -> its SQL."""
BY_COUNTED = {"feature": "feature", "model": "answered_by", "day": "hour // 24"}
"""The same over counts by the hour."""
_SUMMED = (
    "calls", "unpriced", "cost_usd", "prompt_tokens", "completion_tokens", "uncounted",
    "answered", "comparable", "comparable_usd", "last_prompt", "last_completion",
)  # fmt: skip


_WINDOW = """
WHERE ($since IS NULL OR epoch_us(ts) >= $since) AND ($until IS NULL OR epoch_us(ts) < $until)
"""


@dataclass(slots=True, kw_only=True)
class Spend:
    """Sums over some calls."""

    calls: int = 0
    errors: int = 0
    unpriced_calls: int = 0
    """Of these nobody knows the cost; it is in no sum."""
    cost_usd: Decimal = Decimal(0)
    """Of the priced calls."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    uncounted_calls: int = 0
    """Calls that a model answered without its tokens being counted."""
    cache_hits: int = 0
    cheap_calls: int = 0
    tiered_calls: int = 0
    """Calls answered by a model whose tier is known."""
    compared_calls: int = 0
    """Calls of which is known what they cost and what a frontier model would have."""
    compared_usd: Decimal = Decimal(0)
    frontier_usd: Decimal = Decimal(0)

    @property
    def cache_hit_share(self) -> float | None:
        return self.cache_hits / self.calls if self.calls else None

    @property
    def cheap_share(self) -> float | None:
        """Of the calls that a model of known tier answered."""
        return self.cheap_calls / self.tiered_calls if self.tiered_calls else None

    @property
    def against_frontier(self) -> float | None:
        """Cost over what the same answers by a frontier model would have cost; cache hits apart."""
        return float(self.compared_usd / self.frontier_usd) if self.frontier_usd else None

    def as_json(self) -> dict[str, Any]:
        all_unpriced = self.unpriced_calls == self.calls > 0
        return {
            "calls": self.calls,
            "errors": self.errors,
            "cost_usd": None if all_unpriced else float(self.cost_usd),
            "unpriced_calls": self.unpriced_calls,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "uncounted_calls": self.uncounted_calls,
            "cache_hits": self.cache_hits,
            "cache_hit_share": self.cache_hit_share,
            "cheap_share": self.cheap_share,
            "compared_calls": self.compared_calls,
            "compared_usd": float(self.compared_usd) if self.compared_calls else None,
            "always_frontier_usd": float(self.frontier_usd) if self.compared_calls else None,
            "against_frontier": self.against_frontier,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSizes:
    """How large calls are: the least number of tokens that so many of them do not exceed."""

    p50: int
    p95: int
    p99: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CostReport:
    """The sums of each group, dearest first, and of all."""

    by: tuple[str, ...]
    groups: Mapping[tuple[str | None, ...], Spend]
    total: Spend = field(default_factory=Spend)
    sizes: Mapping[str, TokenSizes] = field(default_factory=dict)
    """prompt_tokens, completion_tokens -> of a call; only those that were counted."""

    def as_json(self) -> dict[str, Any]:
        return {
            "by": list(self.by),
            "total": self.total.as_json(),
            "cache_hit_target": CACHE_TARGET,
            "tokens_per_call": {name: asdict(sizes) for name, sizes in self.sizes.items()},
            "groups": [
                dict(zip(self.by, names, strict=True)) | spend.as_json()
                for names, spend in self.groups.items()
            ],
        }


def cost_report(
    engine: Engine,
    settings: Settings,
    *,
    by: Sequence[str] = (),
    since: int | None = None,
    until: int | None = None,
) -> CostReport:
    """Sum the calls that `engine` has, of `since` <= ts < `until` (microseconds since 1970)."""
    report = cost_sums(engine, settings, by=by, since=since, until=until)
    return replace(report, sizes=_sizes(engine, {"since": since, "until": until}))


def cost_sums(
    engine: Engine,
    settings: Settings,
    *,
    by: Sequence[str] = (),
    since: int | None = None,
    until: int | None = None,
) -> CostReport:
    """The same without how large calls are, which takes as long again."""
    return _report(engine.rows(_query(by), {"since": since, "until": until}), settings, by)


def _sizes(engine: Engine, window: Mapping[str, int | None]) -> dict[str, TokenSizes]:
    found = {}
    for name in ("prompt_tokens", "completion_tokens"):
        [row] = engine.rows(
            f"SELECT quantile_disc({name}, [0.5, 0.95, 0.99]) AS sizes FROM calls {_WINDOW}", window
        )
        if row["sizes"]:
            p50, p95, p99 = row["sizes"]
            found[name] = TokenSizes(p50=p50, p95=p95, p99=p99)
    return found


def counted_costs(
    engine: Engine, settings: Settings, *, by: Sequence[str] = (), since: int, until: int
) -> CostReport:
    """The same of `store.tallies`, for whole hours, by keys of `BY_COUNTED` only."""
    columns = "".join(f"{BY_COUNTED[key]} AS by_{key}, " for key in by)
    sums = ", ".join(f"sum({name})::VARCHAR AS {name}" for name in _SUMMED)
    rows = engine.rows(
        f"""
        SELECT {columns} feature, answered_by AS model, cache_hit, {sums},
            coalesce(sum(calls) FILTER (status = 'error'), 0)::VARCHAR AS errors
        FROM counts WHERE hour >= $1 AND hour < $2 GROUP BY ALL
        """,
        [since // HOUR_US, -(-until // HOUR_US)],
    )
    return _report(rows, settings, by)


def _report(rows: Iterable[Mapping[str, Any]], settings: Settings, by: Sequence[str]) -> CostReport:
    total = Spend()
    groups: dict[tuple[str | None, ...], Spend] = {}
    prices = {name: frontier_price(settings, name) for name in settings.features}
    general = frontier_price(settings, None)
    for row in rows:
        names = tuple(_name(key, row[f"by_{key}"]) for key in by)
        price = prices.get(row["feature"], general)
        model = settings.models.get(row["model"] or "")
        for spend in (total, groups.setdefault(names, Spend())):
            _add(spend, row, model, price)
    order = sorted(groups.items(), key=lambda item: (-item[1].cost_usd, _sortable(item[0])))
    if "day" in by:
        order.sort(key=lambda item: item[0][by.index("day")] or "")
    return CostReport(by=tuple(by), groups=dict(order), total=total)


def _query(by: Iterable[str]) -> str:
    """One row for each group, feature and model; `by` names keys of `BY` only."""
    columns = "".join(f"{BY[key]} AS by_{key}, " for key in by)
    sums = ", ".join(f"({MEASURES[name]})::VARCHAR AS {name}" for name in _SUMMED)
    return f"""
        SELECT {columns} feature, {MODEL} AS model, cache_hit, {sums},
            count(*) FILTER (status = 'error') AS errors
        FROM calls {_WINDOW}
        GROUP BY ALL
        """


def _add(
    spend: Spend, row: Mapping[str, Any], model: ModelSettings | None, price: Price | None
) -> None:
    spend.calls += int(row["calls"])
    spend.errors += int(row["errors"])
    spend.unpriced_calls += int(row["unpriced"])
    spend.cost_usd += Decimal(row["cost_usd"])
    spend.prompt_tokens += int(row["prompt_tokens"])
    spend.completion_tokens += int(row["completion_tokens"])
    spend.uncounted_calls += int(row["uncounted"])
    spend.cache_hits += int(row["calls"]) if row["cache_hit"] else 0
    if model is not None:
        spend.tiered_calls += int(row["answered"])
        spend.cheap_calls += int(row["answered"]) if model.tier == "cheap" else 0
    if price is not None:
        spend.compared_calls += int(row["comparable"])
        spend.compared_usd += Decimal(row["comparable_usd"])
        tokens = int(row["last_prompt"]), int(row["last_completion"])
        spend.frontier_usd += _cost(price, *tokens)


def _cost(price: Price, prompt_tokens: int, completion_tokens: int) -> Decimal:
    prompt = prompt_tokens * Decimal(str(price.input))
    return (prompt + completion_tokens * Decimal(str(price.output))) / 1_000_000


def frontier_price(settings: Settings, feature: str | None) -> Price | None:
    """Of the frontier model that the feature can fall back to, else of the cheapest there is."""
    own = settings.features[feature] if feature is not None else None
    chain = (own.model, *own.fallbacks) if own is not None else ()
    models = [settings.models[name] for name in chain if name in settings.models]
    for candidates in (models, settings.models.values()):
        prices = [m.price for m in candidates if m.tier == "frontier" and m.price is not None]
        if prices:
            return min(prices, key=lambda price: (price.output, price.input))
    return None


def _name(key: str, value: Any) -> str | None:
    if value is None or key != "day":
        return None if value is None else str(value)
    return (date(1970, 1, 1) + timedelta(days=int(value))).isoformat()


def _sortable(names: tuple[str | None, ...]) -> tuple[str, ...]:
    return tuple(name or "" for name in names)
