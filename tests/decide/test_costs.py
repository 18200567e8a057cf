"""Costs: exact sums, and nothing unknown that becomes a zero."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.decide.costs import cost_report, counted_costs, frontier_price
from evalkit.settings import FeatureSettings, ModelSettings, Price, Settings
from evalkit.store.tallies import tallied
from evalkit.store.views import open_store
from tests.store.journal_lines import AT, attempt, call, line, manifest, plain

DAY = 86_400_000_000


def settings(root: Path) -> Settings:
    big = ModelSettings(
        name="big", provider="p", id="big", tier="frontier", price=Price(input=10, output=20)
    )
    small = ModelSettings(name="small", provider="p", id="small", price=Price(input=1, output=2))
    feature = FeatureSettings(
        name="classify-ticket", prompt_name="c", prompt_version="v1", model="small",
        fallbacks=("big",),
    )  # fmt: skip
    return Settings(
        root=root, models={"big": big, "small": small}, features={"classify-ticket": feature}
    )


def report(tmp_path: Path, *calls: dict[str, Any], **options: Any) -> Any:
    store = open_store(tmp_path / "store")
    rows = [plain(call(**{"trace_id": f"t-{n}", **one})) for n, one in enumerate(calls)]
    store.add_calls("log", rows)
    with store.production() as engine:
        return cost_report(engine, settings(tmp_path), **options)


def test_sums_are_exact_where_floating_point_is_not(tmp_path: Path) -> None:
    found = report(tmp_path, *[{"cost_usd": 0.1}] * 1000, *[{"cost_usd": 1e-12}] * 3)

    assert found.total.cost_usd == Decimal("100.000000000003")


def test_an_unpriced_call_is_counted_and_in_no_sum(tmp_path: Path) -> None:
    found = report(tmp_path, {"cost_usd": 0.5}, {"cost_usd": None})

    assert (found.total.calls, found.total.unpriced_calls) == (2, 1)
    assert found.total.cost_usd == Decimal("0.5")


def test_a_cost_that_nothing_can_have_is_not_known_and_ends_no_sum(tmp_path: Path) -> None:
    costs = [{"cost_usd": usd} for usd in (0.5, 9e25, 9e25, 2e12)]

    total = report(tmp_path, *costs).total

    assert (total.calls, total.unpriced_calls, total.cost_usd) == (4, 3, Decimal("0.5"))


def test_where_no_price_is_known_the_cost_is_none(tmp_path: Path) -> None:
    found = report(tmp_path, {"cost_usd": None})

    assert found.as_json()["total"]["cost_usd"] is None


def test_cache_hits_are_a_share_and_no_part_of_the_comparison_with_frontier(tmp_path: Path) -> None:
    hit = {"cache_hit": True, "cost_usd": 0.0, "prompt_tokens": None, "completion_tokens": None}
    found = report(tmp_path, {"cost_usd": 0.000134}, {**hit, "attempts": ()})

    assert found.total.cache_hit_share == 0.5
    assert found.total.compared_calls == 1
    # 120 tokens in at 10 USD, 7 out at 20 USD per million.
    assert found.total.frontier_usd == Decimal("0.00134")
    assert found.total.against_frontier == pytest.approx(0.1)


def test_an_escalated_call_is_held_against_one_frontier_answer_not_two(tmp_path: Path) -> None:
    both = (attempt(), attempt(model="big"))
    found = report(
        tmp_path,
        {"attempts": both, "prompt_tokens": 240, "completion_tokens": 14, "served_model": "big"},
    )

    assert found.total.frontier_usd == Decimal("0.00134")


def test_tokens_of_an_escalation_that_failed_are_not_those_of_the_answer(tmp_path: Path) -> None:
    kept = (attempt(), attempt(model="big", error_kind="truncated", completion_tokens=9_000))
    found = report(tmp_path, {"attempts": kept, "prompt_tokens": 240, "completion_tokens": 9_007})

    assert found.total.frontier_usd == Decimal("0.00134")


def test_no_call_costs_nothing_and_has_no_shares(tmp_path: Path) -> None:
    shown = report(tmp_path).as_json()

    assert shown["groups"] == []
    assert shown["tokens_per_call"] == {}
    assert shown["total"] == dict.fromkeys(shown["total"], 0) | {
        "cost_usd": 0.0,
        **dict.fromkeys(
            ("cache_hit_share", "cheap_share", "compared_usd", "always_frontier_usd",
             "against_frontier")
        ),
    }  # fmt: skip


def test_what_was_compared_and_how_large_calls_are_is_said(tmp_path: Path) -> None:
    sizes = [{"prompt_tokens": n, "attempts": (attempt(prompt_tokens=n),)} for n in range(1, 101)]
    uncounted = {"completion_tokens": None, "attempts": (attempt(completion_tokens=None),)}
    shown = report(tmp_path, *sizes, uncounted).as_json()

    assert shown["tokens_per_call"]["prompt_tokens"] == {"p50": 51, "p95": 96, "p99": 100}
    assert shown["tokens_per_call"]["completion_tokens"] == {"p50": 7, "p95": 7, "p99": 7}
    assert shown["total"]["compared_calls"] == 100
    assert shown["total"]["compared_usd"] == pytest.approx(0.002)
    # 5,050 tokens in at 10 USD and 700 out at 20 USD per million.
    assert shown["total"]["always_frontier_usd"] == pytest.approx(0.0645)


def test_the_dearest_group_comes_first(tmp_path: Path) -> None:
    costs = {"middling": 0.2, "dear": 0.3, "cheap": 0.1, None: 0.25}
    found = report(
        tmp_path,
        *({"tenant": name, "cost_usd": usd} for name, usd in costs.items()),
        by=("tenant",),
    )

    assert [name for (name,) in found.groups] == ["dear", None, "middling", "cheap"]


def test_days_come_in_order_however_dear_they_were(tmp_path: Path) -> None:
    days = [{"ts": AT + n * DAY, "cost_usd": usd} for n, usd in enumerate((0.1, 0.3, 0.2))]
    found = report(tmp_path, *days, by=("day",))

    assert [day for (day,) in found.groups] == ["2025-10-09", "2025-10-10", "2025-10-11"]


def test_counts_by_the_hour_cover_each_hour_that_the_window_touches(tmp_path: Path) -> None:
    hour = 3_600_000_000
    first = AT // hour * hour
    store = open_store(tmp_path / "store")
    times = [first - 1, first, first + hour, first + 2 * hour - 1, first + 2 * hour]
    rows = [call(trace_id=f"t-{n}", ts=ts) for n, ts in enumerate(times)]
    store.add_calls("log", [plain(row) for row in rows])

    counted = {}
    with tallied(store, since=first - 1, until=first + 3 * hour) as engine:
        for since, until in ((0, hour), (hour - 1, hour + 1), (0, 2 * hour), (-1, 1)):
            found = counted_costs(
                engine, settings(tmp_path), since=first + since, until=first + until
            )
            counted[since, until] = found.total.calls

    assert counted == {(0, hour): 1, (hour - 1, hour + 1): 3, (0, 2 * hour): 3, (-1, 1): 2}


def test_frontier_is_what_the_feature_would_fall_back_to_or_the_cheapest(tmp_path: Path) -> None:
    models = {
        name: ModelSettings(name=name, provider="p", id=name, tier=tier, price=price)
        for name, tier, price in (
            ("dear", "frontier", Price(input=10, output=30)),
            ("fair", "frontier", Price(input=20, output=20)),
            ("good", "frontier", Price(input=10, output=20)),
            ("free", "frontier", None),
            ("small", "cheap", Price(input=1, output=2)),
        )
    }
    known = settings(tmp_path)
    own = FeatureSettings(
        name="own", prompt_name="c", prompt_version="v1", model="small", fallbacks=("gone", "dear")
    )
    none = FeatureSettings(name="none", prompt_name="c", prompt_version="v1", model="small")
    known = Settings(root=known.root, models=models, features={"own": own, "none": none})

    assert frontier_price(known, "own") == models["dear"].price
    assert frontier_price(known, "none") == models["good"].price
    assert frontier_price(known, None) == models["good"].price
    assert frontier_price(Settings(root=known.root), None) is None


def test_the_share_on_cheap_models_is_of_calls_whose_tier_is_known(tmp_path: Path) -> None:
    found = report(
        tmp_path,
        {"served_model": "small(small-2026)"},
        {"served_model": "small"},
        {"served_model": "big"},
        {"served_model": "somebody-elses"},
    )

    assert found.total.cheap_share == pytest.approx(2 / 3)
    assert (found.total.tiered_calls, found.total.cheap_calls) == (3, 2)


def test_groups_have_their_names_and_days_are_in_order(tmp_path: Path) -> None:
    found = report(
        tmp_path,
        {"ts": AT + DAY, "tenant": "a"},
        {"ts": AT, "tenant": "a"},
        {"ts": AT, "tenant": None},
        by=("day", "tenant"),
    )

    assert sorted(found.groups, key=str) == [
        ("2025-10-09", "a"), ("2025-10-09", None), ("2025-10-10", "a"),
    ]  # fmt: skip
    assert list(found.groups)[-1] == ("2025-10-10", "a")


def test_only_the_window_counts(tmp_path: Path) -> None:
    found = report(tmp_path, {"ts": AT}, {"ts": AT + DAY}, since=AT + 1, until=AT + DAY + 1)

    assert found.total.calls == 1


def test_calls_of_runs_are_left_out_unless_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(tmp_path / "store")
    store.add_calls("log", [plain(call())])
    with store.create_run(manifest()) as writer:
        writer.append(line(1))
        writer.seal("complete")
    (tmp_path / "evalkit.toml").write_text("", encoding="utf-8")
    common = ["--json", "--store", str(store.path), "--config", str(tmp_path / "evalkit.toml")]

    counts = []
    for option in ([], ["--runs"]):
        assert main(["cost", *common, *option]) == 0
        counts.append(json.loads(capsys.readouterr().out)["total"]["calls"])

    assert counts == [1, 2]


def test_the_table_names_groups_without_control_characters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(tmp_path / "store")
    store.add_calls("log", [plain(call(user_id="\x1b[31mred"))])
    (tmp_path / "evalkit.toml").write_text("", encoding="utf-8")

    options = ["--store", str(store.path), "--config", str(tmp_path / "evalkit.toml")]
    assert main(["cost", "--by", "user", *options]) == 0

    out = capsys.readouterr().out
    assert r"\x1b[31mred" in out
    assert "target of 30% is missed" in out


def test_an_unknown_group_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cost", "--by", "colour"]) == 2

    assert "Known: feature" in capsys.readouterr().err
