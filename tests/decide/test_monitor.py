"""Watching means: alarms when they move, and seldom when they do not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.cli.main import main
from evalkit.decide.monitor import (
    Block,
    Series,
    Worse,
    quality_alerts,
    series_of,
    watch,
    watch_all,
)
from evalkit.decide.sequential import MeanSequence
from evalkit.decide.series import alpha_shares
from evalkit.decide.series_rows import made_series
from evalkit.store.views import Store, open_store
from tests.store.journal_lines import AT, call, line, plain

DAY = 86_400_000_000


def series(means: Any, n: int = 200, *, worse: Worse = "below", seed: int = 1) -> Series:
    """`n` answers a day, as many of them good as chance has it."""
    rng = np.random.default_rng(seed)
    good = [int(rng.binomial(n, mean)) for mean in means]
    blocks = [block(day, [0.0, 1.0], counts=[n - k, k]) for day, k in enumerate(good)]
    return Series(names=("f", "m", "v1", "q"), blocks=blocks, worse=worse)


def block(day: int, values: list[float], *, weights: Any = None, counts: Any = None) -> Block:
    ones = np.ones(len(values))
    return Block(
        at=day * DAY,
        values=np.array(values),
        weights=ones if weights is None else np.array(weights),
        counts=ones if counts is None else np.array(counts, dtype=np.float64),
    )


def test_a_drop_is_found_soon_after_it_happened_and_dated() -> None:
    found = watch(series([0.9] * 60 + [0.8] * 20))

    assert found.state == "drift"
    assert found.since is not None
    assert found.alarm_at is not None
    assert 57 <= found.since // DAY <= 63
    assert 60 <= found.alarm_at // DAY <= 66
    assert found.reference_mean == pytest.approx(0.9, abs=0.01)
    assert found.mean == pytest.approx(0.8, abs=0.02)


def drawn(day: int, good: int, bad: int, *, p: float) -> list[dict[str, Any]]:
    names = {"feature": "f", "model": "m", "prompt_version": "v1", "metric": "q"}
    return [
        {**names, "day": day * DAY, "value": value, "p": p, "n": n}
        for value, n in ((0.0, bad), (1.0, good))
    ]


def test_a_day_of_another_rate_takes_no_alarm_back() -> None:
    rows = [row for day in range(30) for row in drawn(day, 45, 5, p=0.5)]
    rows += [row for day in range(30, 60) for row in drawn(day, 35, 15, p=0.5)]
    [before] = made_series(rows, worse="below")
    [after] = made_series([*rows, *drawn(60, 40, 10, p=0.01)], worse="below")

    found, later = watch(before), watch(after)

    assert found.state == "drift"
    assert (later.state, later.alarm_at, later.since) == ("drift", found.alarm_at, found.since)
    # 30 days of 100 calls for the 50 drawn, and one of 5,000.
    assert later.mean == pytest.approx((30 * 100 * 0.7 + 5000 * 0.8) / 8000)


def test_more_refusals_are_worse_and_fewer_are_not() -> None:
    more = [0.02] * 20 + [0.1] * 20

    assert watch(series(more, worse="above")).state == "drift"
    assert watch(series(more[::-1], worse="above")).state == "steady"


def test_better_answers_are_no_alarm_and_a_later_fall_is_one() -> None:
    better = [0.6] * 30 + [0.9] * 30

    assert watch(series(better)).state == "steady"
    assert watch(series([*better, *[0.8] * 20])).state == "drift"


def test_daily_looks_at_a_steady_series_seldom_alarm() -> None:
    n, alpha = 40, 0.2

    alarms = sum(
        watch(series([0.85] * 60, n=50, seed=seed), alpha=alpha).state == "drift"
        for seed in range(n)
    )

    # At most 8 of 40 on average. Two months are not for ever and the bets are not sharp: fewer.
    # benchmarks/drift_year.py looks at 2,000 years.
    assert alarms <= 8


def test_an_interval_that_does_not_hold_the_mean_beside_it_is_none() -> None:
    better = series([0.7] * 30 + [0.75] * 30)
    sequence = MeanSequence(alpha=0.05)
    for one in better.blocks:
        sequence.add(one.values, one.weights, one.counts)
    low, high = sequence.interval

    found = watch(better)

    # Of two means, all looks together leave what is between them, and not their own mean.
    assert found.mean is not None
    assert low < high < found.mean
    assert (found.state, found.interval) == ("steady", None)


def test_a_mean_that_rose_has_no_one_interval() -> None:
    found = watch(series([0.3] * 20 + [0.9] * 20))

    assert (found.state, found.interval) == ("steady", None)


def begun(day: int, name: str, *, family: str = "", version: str = "") -> Series:
    blocks = [block(day, [0.0, 1.0], counts=[20, 80])]
    names = ("f", "m", "v1", name)
    return Series(names=names, blocks=blocks, worse="below", family=family, version=version)


def test_series_share_one_alpha_however_many_come() -> None:
    now = [begun(day, f"m{n}") for day in range(60) for n in range(day % 7 + 1)]

    shares = alpha_shares(now)
    later = alpha_shares([*now, begun(60, "one more")])

    assert sum(later) < 1
    # What comes later takes nothing from those that are there.
    assert later[:-1] == shares
    assert shares[0] == pytest.approx(0.493, abs=0.001)


def test_the_kinds_of_one_mix_are_one_question() -> None:
    kinds = [begun(0, f"language {code}", family="language mix") for code in ("de", "en", "fr")]

    shares = alpha_shares([*kinds, begun(0, "fits")])

    assert shares[3] == pytest.approx(sum(shares[:3]))


def test_a_scorer_that_was_replaced_keeps_its_share_and_is_not_watched() -> None:
    old, new = begun(0, "fits", version="1"), begun(3, "fits", version="2")
    ended = Series(
        names=old.names, blocks=old.blocks, worse="below", version="1", is_current=False
    )  # fmt: skip

    (found,) = watch_all([ended, new])

    assert found.series is new
    assert found.alpha == pytest.approx(0.05 * alpha_shares([ended, new])[1])
    assert found.alpha < watch_all([new])[0].alpha


def test_few_observations_are_no_news() -> None:
    found = watch(series([1.0] * 9, n=10))

    assert (found.state, found.mean) == ("too few", 1.0)
    assert found.reference_mean is None


def test_weights_take_out_what_the_draw_put_in() -> None:
    # Two strata, half of all calls each; the bad one drawn nine times as often.
    blocks = [block(day, [1.0, 0.0], weights=[1.0, 1 / 9], counts=[10, 90]) for day in range(10)]

    found = watch(Series(names=("f", "m", "v1", "q"), blocks=blocks, worse="below"))

    assert found.mean == pytest.approx(0.5)
    assert found.interval is not None
    assert found.interval[0] < 0.5 < found.interval[1]
    assert found.state == "steady"


def job(
    store: Store, run_id: str, scores: list[float], *, since: int = AT, until: int = AT + DAY
) -> None:
    """A sampling job whose scores are of its window's end."""
    sample = {"since": since, "until": until, "config": "c"}
    with store.create_run({"run_id": run_id, "kind": "sample", "sample": sample}) as writer:
        for number, value in enumerate(scores):
            one = line(number, run_id=run_id)
            one["calls"] = []
            one["key"][2] = f"{run_id}-{number}"
            one["scores"][0] |= {
                "score": value, "inclusion_prob": 0.5, "trace_id": f"{run_id}-{number:05d}",
                "slices": {"feature": "classify"}, "tier": 2, "metric": "fits",
                "created_at": until,
            }  # fmt: skip
            writer.append(one)
        writer.seal("complete")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "evalkit.toml").write_text("", encoding="utf-8")
    return open_store(tmp_path / ".evalkit")


def test_jobs_follow_one_another_and_calls_have_rates(store: Store) -> None:
    job(store, "sample-a", [1.0] * 3)
    job(store, "sample-b", [0.0] * 2, until=AT + 2 * DAY)
    rows = [call(trace_id=f"t-{n}", feature="classify", repaired=n < 2) for n in range(8)]
    store.add_calls("log", [plain(row) for row in rows])

    found = {one.names[3]: one for one in series_of(store)}

    assert seen(found["fits"]) == [[(1.0, 3)], [(0.0, 2)]]
    assert seen(found["repaired share"]) == [[(0.0, 6), (1.0, 2)]]
    assert seen(found["refused share"]) == [[(0.0, 8)]]


def seen(series: Series) -> list[list[tuple[float, int]]]:
    """Value and how often, a list for each day."""
    return [
        [(float(value), int(n)) for value, n in zip(one.values, one.counts, strict=True)]
        for one in series.blocks
    ]


def test_what_is_unusual_is_learnt_in_the_first_week(store: Store) -> None:
    rows = [
        call(trace_id=f"t-{day}-{n}", ts=AT + day * DAY, latency_ms=100.0 * (n + 1 + 5 * (day > 7)))
        for day in range(10)
        for n in range(10)
    ]
    store.add_calls("log", [plain(row) for row in rows])

    found = {one.names[3]: one for one in series_of(store)}

    # The 90th percentile is 910 ms; from the eighth day on half of the calls are slower.
    assert seen(found["slow share"]) == [[(0.0, 9), (1.0, 1)], *[[(0.0, 4), (1.0, 6)]] * 2]
    assert seen(found["long input share"]) == [[(0.0, 10)]] * 3


def test_a_second_look_reads_no_call(store: Store) -> None:
    rows = [call(trace_id=f"t-{n}", ts=AT + n * DAY, repaired=n > 5) for n in range(9)]
    paths = store.add_calls("log", [plain(row) for row in rows])
    first = series_of(store)
    for path in paths:
        # Of the same size and age: only who reads it would see.
        stat = path.stat()
        path.write_bytes(b"x" * stat.st_size)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    second = series_of(open_store(store.path))

    assert [(one.names, seen(one)) for one in second] == [(one.names, seen(one)) for one in first]


def test_scores_of_a_job_that_stands_alone_are_read_once(store: Store) -> None:
    job(store, "sample-a", [1.0] * 3)
    job(store, "sample-b", [0.0] * 2, since=AT + DAY, until=AT + 2 * DAY)
    (first,) = (one for one in series_of(store) if one.names[3] == "fits")
    for path in (store.path / "scores").glob("*.parquet"):
        path.unlink()

    again = open_store(store.path)
    (second,) = (one for one in series_of(again) if one.names[3] == "fits")

    assert again.problems == []
    assert seen(second) == seen(first) == [[(1.0, 3)], [(0.0, 2)]]


def test_a_call_in_two_jobs_counts_once(store: Store) -> None:
    job(store, "sample-a", [1.0] * 3)
    again = line(1, run_id="sample-c")
    again["calls"] = []
    again["scores"][0] |= {
        "trace_id": "sample-a-00000", "slices": {"feature": "classify"}, "inclusion_prob": 1.0,
        "metric": "fits", "score": 0.0, "created_at": AT + DAY + 1,
    }  # fmt: skip
    sample = {"since": AT, "until": AT + DAY, "config": "d"}
    with store.create_run({"run_id": "sample-c", "kind": "sample", "sample": sample}) as writer:
        writer.append(again)
        writer.seal("complete")

    (found,) = (one for one in series_of(store) if one.names[3] == "fits")

    assert seen(found) == [[(0.0, 1), (1.0, 2)]]


def test_the_command_fails_where_quality_has_moved(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    job(store, "sample-a", [1.0] * 200)
    job(store, "sample-b", [0.0] * 100, until=AT + 2 * DAY)
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


def test_series_begin_on_the_day_that_is_asked_for(store: Store) -> None:
    rows = [call(trace_id=f"t-{n}", ts=AT + n * DAY, repaired=n > 5) for n in range(6)]
    store.add_calls("log", [plain(row) for row in rows])
    for n in range(4):
        job(store, f"sample-{n}", [1.0] * 2, since=AT + n * DAY, until=AT + (n + 1) * DAY)
    first = AT // DAY

    found = {one.names[3]: one for one in series_of(store, since=(first + 3) * DAY + 5)}

    days = {name: [block.at // DAY - first for block in one.blocks] for name, one in found.items()}
    assert (days["repaired share"], days["fits"]) == ([3, 4, 5], [3, 4])
