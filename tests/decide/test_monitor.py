"""Watching means: alarms when they move, and seldom when they do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.cli.main import main
from evalkit.decide.monitor import Series, Worse, quality_alerts, series_of, watch
from evalkit.store.views import Store, open_store
from tests.store.journal_lines import AT, call, line, plain

DAY = 86_400_000_000


def series(values: Any, weights: Any = None, *, worse: Worse = "below") -> Series:
    values = np.asarray(values, dtype=np.float64)
    weights = np.ones(len(values)) if weights is None else np.asarray(weights)
    return Series(names=("f", "m", "v1", "q"), values=values, weights=weights, worse=worse)


def test_a_drop_is_found_soon_after_it_happened() -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.random(600) < 0.9, rng.random(600) < 0.6])

    found = watch(series(values))

    assert found.state == "drift"
    assert found.alarm_at is not None
    # The drop comes 400 observations after the reference.
    assert 400 < found.alarm_at < 550


def test_more_refusals_are_worse_and_fewer_are_not() -> None:
    rng = np.random.default_rng(2)
    more = np.concatenate([rng.random(400) < 0.02, rng.random(800) < 0.3])

    assert watch(series(more, worse="above")).state == "drift"
    assert watch(series(more[::-1].copy(), worse="above")).state == "steady"


def test_steady_series_seldom_alarm() -> None:
    rng = np.random.default_rng(3)
    n = 40

    alarms = sum(watch(series(rng.random(2200) < 0.8)).state == "drift" for _ in range(n))

    # 2000 observations at a run length of 10,000: an alarm in at most 20 % of series, or where
    # the reference's interval fails (5 %): mean 10 of 40, standard deviation 2.7.
    assert alarms <= 18


def test_few_observations_are_no_news() -> None:
    found = watch(series([1.0] * 150))

    assert (found.state, found.mean, found.interval) == ("too few", None, None)
    assert found.reference_mean == 1.0


def test_weights_take_out_what_the_draw_put_in() -> None:
    # Two strata, half of all calls each; the bad one drawn nine times as often.
    values = np.tile([1.0] + [0.0] * 9, 100)
    weights = np.tile([1.0] + [1 / 9] * 9, 100)

    found = watch(series(values, weights))

    assert found.mean == pytest.approx(0.5)
    assert found.interval is not None
    assert found.interval[0] < 0.5 < found.interval[1]


def job(store: Store, run_id: str, scores: list[float], *, until: int = AT + DAY) -> None:
    sample = {"since": AT, "until": until, "config": "c"}
    with store.create_run({"run_id": run_id, "kind": "sample", "sample": sample}) as writer:
        for number, value in enumerate(scores):
            one = line(number, run_id=run_id)
            one["calls"] = []
            one["key"][2] = f"{run_id}-{number}"
            one["scores"][0] |= {
                "score": value, "inclusion_prob": 0.5, "trace_id": f"{run_id}-{number:05d}",
                "slices": {"feature": "classify"}, "tier": 2, "metric": "fits",
            }  # fmt: skip
            writer.append(one)
        writer.seal("complete")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "evalkit.toml").write_text("", encoding="utf-8")
    return open_store(tmp_path / ".evalkit")


def test_jobs_follow_one_another_and_calls_have_rates(store: Store) -> None:
    job(store, "sample-a", [1.0] * 3)
    job(store, "sample-b", [0.0] * 2)
    rows = [call(trace_id=f"t-{n}", feature="classify", repaired=n < 2) for n in range(8)]
    store.add_calls("log", [plain(row) for row in rows])

    found = {one.names[3]: one for one in series_of(store)}

    assert list(found["fits"].values) == [1, 1, 1, 0, 0]
    assert found["repaired share"].values.sum() == 2
    assert found["refused share"].values.sum() == 0
    assert series_of(store, feature="another") == []


def test_a_call_in_two_jobs_counts_once(store: Store) -> None:
    job(store, "sample-a", [1.0] * 3)
    again = line(1, run_id="sample-c")
    again["calls"] = []
    again["scores"][0] |= {
        "trace_id": "sample-a-00000", "slices": {"feature": "classify"}, "inclusion_prob": 1.0,
        "metric": "fits", "score": 0.0, "created_at": AT + 1,
    }  # fmt: skip
    sample = {"since": AT, "until": AT + DAY, "config": "d"}
    with store.create_run({"run_id": "sample-c", "kind": "sample", "sample": sample}) as writer:
        writer.append(again)
        writer.seal("complete")

    (found,) = (one for one in series_of(store) if one.names[3] == "fits")

    assert list(found.values) == [0, 1, 1]


def test_the_command_fails_where_quality_has_moved(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    job(store, "sample-a", [1.0] * 200)
    job(store, "sample-b", [0.0] * 100)
    options = ["--config", str(store.path.parent / "evalkit.toml")]

    assert main(["drift", "--json", *options]) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert main(["drift", *options]) == 1

    assert (found["metric"], found["state"], found["mean"]) == ("fits", "drift", 0.0)
    assert "drift" in capsys.readouterr().out


def test_alerts_speak_of_quality_below_what_is_to_be_kept(store: Store) -> None:
    job(store, "sample-a", [0.0, 1.0] * 100)

    found = quality_alerts(store, now=AT + 2 * DAY, min_quality=0.8)

    assert [one.key for one in found] == ["quality/classify/small@v2/fits"]
    assert found[0].runbook == "docs/runbook.md#model-regression"
    assert quality_alerts(store, now=AT + 2 * DAY, min_quality=0.45) == []
    assert quality_alerts(store, now=AT + 60 * DAY, min_quality=0.8) == []
