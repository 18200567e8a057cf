"""One real hour of a production service, replayed as calls: nothing is lost on the way."""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from evalkit.decide.costs import CostReport, cost_report, counted_costs
from evalkit.records import Usage
from evalkit.settings import FeatureSettings, ModelSettings, Price, Settings
from evalkit.store.tallies import tallied
from evalkit.store.views import Store, open_store
from tests.store.journal_lines import attempt, call, plain

PRICE = Price(input=0.15, output=0.60)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = 86_400_000_000

Row = tuple[int, int, int]
"""When, prompt tokens, completion tokens."""


def trace_rows(path: Path) -> list[Row]:
    """Arrivals in microseconds since 1970; the file has ten digits a microsecond."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            (
                (datetime.fromisoformat(row["TIMESTAMP"][:26]).replace(tzinfo=UTC) - EPOCH)
                // timedelta(microseconds=1),
                int(row["ContextTokens"]),
                int(row["GeneratedTokens"]),
            )
            for row in csv.DictReader(file)
        ]


def replayed(folder: Path, rows: list[Row]) -> Store:
    """Each row as a call that the log wrote, priced as the call path prices it."""
    store = open_store(folder)
    store.add_calls("trace", (_call(number, row) for number, row in enumerate(rows)))
    return store


def _call(number: int, row: Row) -> dict[str, Any]:
    at, prompt, completion = row
    cost = PRICE.cost_usd(Usage(prompt_tokens=prompt, completion_tokens=completion))
    tokens: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion}
    # A model that reads 2,000 and writes 50 tokens a second.
    latency = prompt / 2 + completion * 20
    made = call(
        trace_id=f"t-{number:05d}", ts=at, cost_usd=cost, latency_ms=latency,
        total_tokens=prompt + completion, tool_calls=(), **tokens,
        attempts=(attempt(cost_usd=cost, latency_ms=latency, **tokens),),
    )  # fmt: skip
    return plain(made)


def settings(root: Path) -> Settings:
    small = ModelSettings(name="small", provider="p", id="small", price=PRICE)
    feature = FeatureSettings(
        name="classify-ticket", prompt_name="c", prompt_version="v1", model="small"
    )
    return Settings(root=root, models={"small": small}, features={"classify-ticket": feature})


def assert_nothing_is_lost(store: Store, rows: list[Row]) -> None:
    prompt, completion = (sorted(row[n] for row in rows) for n in (1, 2))
    cost = (sum(prompt) * Decimal("0.15") + sum(completion) * Decimal("0.60")) / 1_000_000
    since, until = min(row[0] for row in rows), max(row[0] for row in rows) + 1
    known = settings(store.path)

    with store.production() as engine:
        report = cost_report(engine, known, by=("feature",))
    with tallied(store, since=since, until=until) as engine:
        counted = counted_costs(engine, known, by=("feature",), since=since, until=until)
        latencies = engine.rows(
            "SELECT bin, sum(n)::BIGINT AS n FROM times WHERE what = 'latency_ms' GROUP BY 1"
        )

    for found in (report, counted):
        assert sums(found) == (len(rows), sum(prompt), sum(completion), cost)
    for name, sizes in (("prompt_tokens", prompt), ("completion_tokens", completion)):
        found_sizes = report.sizes[name]
        shown = (found_sizes.p50, found_sizes.p95, found_sizes.p99)
        assert shown == tuple(nearest_rank(sizes, q) for q in (50, 95, 99))
    assert sum(row["n"] for row in latencies) == len(rows)


def sums(report: CostReport) -> tuple[int, int, int, Decimal]:
    total = report.total
    return (total.calls, total.prompt_tokens, total.completion_tokens, total.cost_usd)


def nearest_rank(values: list[int], percent: int) -> int:
    """The least value that `percent` of all do not exceed."""
    return values[-(-len(values) * percent // 100) - 1]


def test_a_replayed_hour_has_the_sums_and_quantiles_of_the_trace(
    tmp_path: Path, shared_data: Callable[[str], Path]
) -> None:
    rows = trace_rows(shared_data("traffic/AzureLLMInferenceTrace_code.csv"))

    store = replayed(tmp_path, rows)

    assert len(rows) > 8_000
    assert_nothing_is_lost(store, rows)


@pytest.mark.parametrize("n", [1, 2, 99, 250])
def test_small_traces_keep_their_sums_and_quantiles_too(tmp_path: Path, n: int) -> None:
    rows = [(DAY + k * 7_000_000, 1 + k * k % 4_801, 1 + k * 31 % 407) for k in range(n)]

    assert_nothing_is_lost(replayed(tmp_path, rows), rows)
