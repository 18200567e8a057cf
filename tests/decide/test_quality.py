"""Quality over time: weighted means whose intervals hold what they promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.decide.quality import PairQuality, pair_quality, share_of, wilson
from evalkit.store.sample_tallies import sampled
from evalkit.store.tallies import FOLDER
from evalkit.store.views import Store, open_store
from tests.store.journal_lines import AT, plain, score

DAY = 86_400_000_000
FROM = AT // DAY * DAY


def job(store: Store, run_id: str, *scores: dict[str, Any], day: int = 0) -> None:
    """A complete sampling job of one day."""
    sample = {"since": FROM + day * DAY, "until": FROM + (day + 1) * DAY, "config": "c"}
    with store.create_run({"run_id": run_id, "kind": "sample", "sample": sample}) as writer:
        for number, changes in enumerate(scores):
            common = {
                "run_id": run_id, "trace_id": f"{run_id}-{number}", "inclusion_prob": 1.0,
                "slices": {"feature": "classify-ticket", "share": "random"},
            }  # fmt: skip
            row = plain(score(**common | changes))
            writer.append({"key": [run_id, number], "calls": [], "scores": [row]})
        writer.seal("complete")


def quality(store: Store, *, days: int = 10) -> list[PairQuality]:
    with sampled(store, since=FROM, until=FROM + days * DAY) as engine:
        return pair_quality(engine, step_us=DAY)


def test_each_day_has_its_mean_and_the_whole_has_one_too(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    job(store, "one", *[{"score": 1.0}] * 8)
    job(store, "two", *[{"score": 0.0}] * 2, *[{"score": 1.0}] * 6, day=3)

    [found] = quality(store)

    assert {at: (one.n, one.mean) for at, one in found.steps.items()} == {
        FROM: (8, 1.0), FROM + 3 * DAY: (8, 0.75),
    }  # fmt: skip
    assert found.whole.mean == 0.875
    assert found.steps[FROM].low < 1.0 == found.steps[FROM].high


def test_scores_weigh_by_their_chance_of_having_been_drawn(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    often = [{"score": 0.0, "inclusion_prob": 0.9}] * 9
    job(store, "one", *often, *[{"score": 1.0, "inclusion_prob": 0.1}])
    by_doubt = {"score": 0.0, "inclusion_prob": None}
    job(store, "two", by_doubt)

    [found] = quality(store)

    assert found.whole.mean == pytest.approx(0.5)
    assert found.whole.n == 10


def test_what_has_no_score_is_missing_and_not_bad(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    failed = {"score": None, "passed": None, "outcome": "judge_error"}
    job(store, "one", {"score": 1.0}, failed)

    [found] = quality(store)

    assert (found.whole.mean, found.whole.n, found.whole.missing) == (1.0, 1, 1)


def test_another_version_of_a_judge_is_not_mixed_in(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    job(store, "one", {"score": 0.0, "scorer_version": "1"})
    job(store, "two", {"score": 1.0, "scorer_version": "2"}, day=1)

    [found] = quality(store)

    assert (found.whole.mean, list(found.steps)) == (1.0, [FROM + DAY])


def test_prompt_versions_and_metrics_are_apart_and_other_weeks_left_out(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    job(store, "one", {"prompt_version": "v2"}, {"prompt_version": "v3"}, {"metric": "tone"})
    job(store, "later", {"prompt_version": "v9"}, day=20)

    found = quality(store)

    assert sorted((one.prompt.partition("@")[2], one.metric) for one in found) == [
        ("v2", "label"), ("v2", "tone"), ("v3", "label"),
    ]  # fmt: skip


def test_sums_are_made_once_and_a_damaged_job_is_named(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for name in ("one", "two"):
        job(store, name, {"score": 1.0})
    (tmp_path / "scores" / "run=two.parquet").write_bytes(b"PAR1 no more")

    first = quality(store)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / FOLDER).glob("run=*")}
    again = quality(store)

    assert first == again
    assert first[0].whole.n == 1
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / FOLDER).glob("run=*")} == before
    assert "run=two" in store.problems[0]


def test_the_interval_of_a_share_is_that_of_textbooks() -> None:
    # Brown, Cai & DasGupta 2001, by hand: 8 of 10.
    found = share_of(8, 10)

    assert (round(found.low, 4), round(found.high, 4)) == (0.4902, 0.9433)


@pytest.mark.parametrize("kind", ["yes or no", "graded"])
def test_intervals_of_stratified_draws_hold_the_mean_as_often_as_they_say(
    tmp_path: Path, kind: str
) -> None:
    rng = np.random.default_rng(11)
    chances, sizes = np.array([0.9, 0.1]), np.array([60, 40])
    share = sizes / chances / (sizes / chances).sum()
    jobs = 60
    for name in range(jobs):
        drawn = []
        for stratum, mean in enumerate((0.95, 0.7)):
            draw = (
                rng.random(sizes[stratum]) < mean
                if kind == "yes or no"
                else rng.beta(8 * mean, 8 * (1 - mean), sizes[stratum])
            )
            chance = float(chances[stratum])
            drawn += [{"score": float(one), "inclusion_prob": chance} for one in draw]
        job(open_store(tmp_path), f"job-{name:03d}", *drawn, day=name)
    truth = float(share @ np.array([0.95, 0.7]))

    [found] = quality(open_store(tmp_path), days=jobs)

    holds = sum(one.low <= truth <= one.high for one in found.steps.values())
    # 95 % of 60 are 57; four standard deviations below: 50.
    assert len(found.steps) == jobs
    assert holds >= 50


@pytest.mark.parametrize(("mean", "n"), [(0.0, 3), (1.0, 3), (0.5, 0.7)])
def test_intervals_stay_within_the_scale(mean: float, n: float) -> None:
    low, high = wilson(mean, n)

    assert 0.0 <= low <= mean <= high <= 1.0
