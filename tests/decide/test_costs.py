"""Costs: exact sums, and nothing unknown that becomes a zero."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.decide.costs import cost_report
from evalkit.settings import FeatureSettings, ModelSettings, Price, Settings
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


def test_the_share_on_cheap_models_is_of_calls_whose_tier_is_known(tmp_path: Path) -> None:
    found = report(
        tmp_path,
        {"served_model": "small(small-2026)"},
        {"served_model": "big"},
        {"served_model": "somebody-elses"},
    )

    assert found.total.cheap_share == 0.5


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
