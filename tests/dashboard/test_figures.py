"""A dashboard's figures: what the log says, whole and step by step."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from evalkit.cli.main import main
from evalkit.dashboard.figures import FITS_SCHEMA, Figures
from evalkit.dashboard.times import times_of
from evalkit.dashboard.window import Window
from evalkit.store.tallies import tallied
from evalkit.store.views import open_store
from tests.dashboard.world import DAY, FROM, UNTIL, figures, project, week, world
from tests.store.journal_lines import call, plain


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Figures:
    """What a look at the whole world shows."""
    return figures(*world(tmp_path_factory.mktemp("world")))


def test_sums_shares_and_times_of_a_week(found: Figures) -> None:
    [feature] = found.features
    assert (found.total.calls, found.total.errors, found.total.cache_hits) == (70, 7, 14)
    assert found.total.cost_usd == Decimal("4.9")
    assert feature.latency is not None
    assert feature.ttft is not None
    assert feature.latency.p50 == pytest.approx(40, rel=0.01)
    assert feature.latency.p99 == pytest.approx(400, rel=0.01)
    assert (feature.latency.budget, feature.latency.over) == (100, pytest.approx(0.1))
    assert (feature.ttft.budget, feature.ttft.over) == (50, pytest.approx(1 / 7))
    assert {name: spend.calls for name, spend in found.models.items()} == {"small": 63, "large": 7}
    assert [(one.kind, one.calls, one.by_feature) for one in found.failures] == [
        ("server", 7, {"classify-ticket": 7})
    ]


def test_each_day_has_its_own(found: Figures) -> None:
    [feature] = found.features
    assert [step.at for step in feature.steps] == [FROM + day * DAY for day in range(7)]
    assert {(step.calls, step.errors, step.cache_hits) for step in feature.steps} == {(10, 1, 2)}
    assert {round(step.cost_usd or 0, 9) for step in feature.steps} == {0.7}


def test_pairs_are_told_apart_and_caches_left_out(found: Figures) -> None:
    pairs = {one.prompt: (one.calls, one.errors) for one in found.pairs}
    assert pairs == {"classify-ticket@v2": (32, 4), "classify-ticket@v3": (24, 3)}
    assert [one.cost_per_call for one in found.pairs] == [pytest.approx(0.0875)] * 2


def test_quality_is_that_of_jobs_and_of_all_answers_with_a_schema(found: Figures) -> None:
    means = {(one.metric, one.prompt[-2:]): (one.whole.n, one.whole.mean) for one in found.quality}
    assert means == {
        ("grounded", "v2"): (40, 1.0), ("grounded", "v3"): (30, 0.8),
        (FITS_SCHEMA, "v2"): (28, 1.0), (FITS_SCHEMA, "v3"): (21, 1.0),
    }  # fmt: skip
    dropped = next(one for one in found.quality if one.prompt.endswith("v3"))
    assert list(dropped.steps) == [FROM + day * DAY for day in (4, 5, 6)]


def test_alerts_reviews_and_limits_are_there(found: Figures) -> None:
    assert [(one.feature, one.pending, one.oldest) for one in found.reviews] == [
        ("classify-ticket", 3, FROM)
    ]
    assert [one["message"] for one in found.look.firing] == ["too dear"]
    [limit] = found.limits
    assert (limit.key, limit.used) == ("month_usd", Decimal("4.9"))
    assert limit.days_until_full is not None


def test_the_time_before_is_there_to_compare_with(tmp_path: Path) -> None:
    store, settings = world(tmp_path)

    found = figures(store, settings, days=3)

    assert (found.total.calls, found.before.calls) == (30, 30)


def test_an_empty_store_has_figures_too(tmp_path: Path) -> None:
    found = figures(open_store(tmp_path / ".evalkit"), project(tmp_path))

    assert found.total.calls == 0
    assert found.look.looked_at is None
    assert not found.quality
    assert not (tmp_path / ".evalkit").exists()


def test_looking_changes_nothing_but_counts(tmp_path: Path) -> None:
    store, settings = world(tmp_path)
    before = {p: p.read_bytes() for p in store.path.rglob("*") if p.is_file()}

    first, again = figures(store, settings), figures(store, settings)

    after = {p: p.read_bytes() for p in store.path.rglob("*") if p.is_file()}
    assert {p: after[p] for p in before} == before
    new = {p.relative_to(store.path).parts[0] for p in after.keys() - before.keys()}
    assert new - {"queue.sqlite-wal", "queue.sqlite-shm"} == {"tallies"}  # SQLite's own to read
    assert first.as_json() == again.as_json()


def test_a_broken_queue_or_look_is_named_and_the_rest_shown(tmp_path: Path) -> None:
    store, settings = world(tmp_path)
    for name in ("queue.sqlite", "alerts.json"):
        (store.path / name).write_bytes(b"what is this")
    for more in ("queue.sqlite-wal", "queue.sqlite-shm"):
        (store.path / more).unlink(missing_ok=True)

    found = figures(store, settings)

    assert found.total.calls == 70
    assert len(found.problems) == 2


@pytest.mark.parametrize(
    ("days", "step", "n"), [(1, "hour", 24), (3, "hour", 72), (30, "day", 30), (364, "week", 52)]
)
def test_steps_are_few_enough_to_be_seen(days: int, step: str, n: int) -> None:
    window = Window.of(UNTIL - days * DAY, UNTIL)

    assert window.step_name == step
    assert n <= len(window.steps) <= n + 1


def test_quantiles_of_counts_are_within_one_percent_of_the_calls_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    values = np.round(rng.lognormal(6, 0.7, 2_000), 3)
    store = open_store(tmp_path)
    store.add_calls(
        "log",
        (
            plain(call(trace_id=f"t-{n}", ts=FROM, latency_ms=float(v)))
            for n, v in enumerate(values)
        ),
    )

    with tallied(store, since=FROM, until=FROM) as engine:
        rows = engine.rows(
            "SELECT bin, sum(n)::BIGINT AS n FROM times WHERE what = 'latency_ms'"
            " GROUP BY 1 ORDER BY 1"
        )
    found = times_of([(row["bin"], row["n"]) for row in rows], budget=500.0)

    assert found is not None
    exact = np.quantile(values, [0.5, 0.95, 0.99])
    assert (found.p50, found.p95, found.p99) == tuple(pytest.approx(v, rel=0.01) for v in exact)
    assert found.over == pytest.approx(float((values > 500).mean()), abs=0.01)


def test_the_command_prints_the_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world(tmp_path)
    window = ["--since", "2026-03-02", "--until", "2026-03-09"]

    status = main(["dashboard", "--config", str(tmp_path / "evalkit.toml"), "--json", *window])

    printed = json.loads(capsys.readouterr().out)
    assert status == 0
    assert printed["total"]["calls"] == 70
    assert printed["quality"][0]["ci"][0] < printed["quality"][0]["mean"]
    assert printed["alerts"]["firing"][0]["runbook"] == "docs/runbook.md#cost-spike"


def test_a_window_that_ends_before_it_begins_is_refused(tmp_path: Path) -> None:
    week(open_store(project(tmp_path).store_path))
    window = ["--since", "2026-03-09", "--until", "2026-03-02"]

    assert main(["dashboard", "--config", str(tmp_path / "evalkit.toml"), "--json", *window]) == 2
