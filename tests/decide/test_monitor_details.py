"""Each figure of a watched series, and each word of an alert, beside what it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from evalkit.decide.alerts import Alert
from evalkit.decide.anchor_series import FAMILY as ANCHORS
from evalkit.decide.monitor import Block, Series, Worse, alerts_of, watch, watch_all
from evalkit.decide.sequential import FallTest, MeanSequence, fall_prior
from evalkit.decide.series import alpha_shares

DAY = 86_400_000_000
NAMES = ("classify", "small", "v2", "fits")


def day(at: int, *values: tuple[float, float, int]) -> Block:
    """Of values with their weights and how often they came."""
    table = np.array(values, dtype=np.float64).reshape(-1, 3)
    return Block(at=at * DAY, values=table[:, 0], weights=table[:, 1], counts=table[:, 2])


def series(
    *days: Sequence[tuple[float, float, int]], worse: Worse = "below", first: int = 0, **more: Any
) -> Series:
    blocks = [day(at, *values) for at, values in enumerate(days, first)]
    return Series(**{"names": NAMES, "blocks": blocks, "worse": worse, **more})


GOOD, BAD = [(1.0, 1.0, 45), (0.2, 0.5, 10)], [(1.0, 1.0, 20), (0.2, 0.5, 60)]
FALLS = series(*[GOOD] * 8, *[BAD] * 6)


def fall_test(blocks: Sequence[Block], *, alpha: float) -> FallTest:
    test = FallTest(alpha=alpha)
    for one in blocks:
        if test.add(one.values, one.weights, one.counts):
            break
    return test


def held(blocks: Sequence[Block], *, alpha: float) -> tuple[float, float]:
    sequence = MeanSequence(alpha=alpha)
    for one in blocks:
        sequence.add(one.values, one.weights, one.counts)
    return sequence.interval


# --- one series -------------------------------------------------------------------------


def test_a_fall_is_told_with_what_was_before_and_since() -> None:
    found = watch(FALLS, alpha=0.1, share=0.5)

    test = fall_test(FALLS.blocks, alpha=0.05)
    assert test.start is not None
    assert test.alarm_at is not None
    since = FALLS.blocks[test.start :]
    chosen = float(np.exp(fall_prior(test.start)))
    assert (found.state, found.alpha, found.n) == ("drift", 0.05, 8 * 55 + 6 * 80)
    assert (found.since, found.alarm_at) == (test.start * DAY, (test.alarm_at - 1) * DAY)
    assert test.start == 8
    assert found.reference_mean == pytest.approx((45 + 0.2 * 5) / 50)
    assert found.mean == pytest.approx((20 + 0.2 * 30) / 50)
    assert found.interval == pytest.approx(held(since, alpha=0.1 * chosen))


def test_a_steady_series_is_told_with_the_mean_and_interval_of_all_its_days() -> None:
    steady = series(*[GOOD] * 8)

    found = watch(steady)

    assert (found.state, found.alpha, found.n) == ("steady", 0.05, 440)
    assert (found.reference_mean, found.since, found.alarm_at) == (None, None, None)
    assert found.mean == pytest.approx((45 + 0.2 * 5) / 50)
    assert found.interval == pytest.approx(held(steady.blocks, alpha=0.05))
    assert found.interval != (0.0, 1.0)


def test_what_is_worse_above_alarms_when_it_rises() -> None:
    rises = series(*[[(0.0, 1.0, 50)]] * 6, *[[(1.0, 1.0, 50)]] * 3, worse="above")

    found, other = watch(rises), watch(series(*[[(0.0, 1.0, 50)]] * 6, *[[(1.0, 1.0, 50)]] * 3))

    assert (found.state, found.reference_mean, found.mean) == ("drift", 0.0, 1.0)
    assert other.state == "steady"


@pytest.mark.parametrize(("n", "state"), [(99, "too few"), (100, "steady")])
def test_a_hundred_observations_are_enough(n: int, state: str) -> None:
    found = watch(series([(1.0, 1.0, n - 1)], [(1.0, 1.0, 1)]))

    assert (found.state, found.n) == (state, n)


def test_a_series_without_a_day_is_nothing_yet() -> None:
    found = watch(series())

    assert (found.state, found.n, found.mean, found.interval) == ("too few", 0, None, None)


def test_only_what_a_series_may_spend_is_asked_of_it() -> None:
    whole = watch(FALLS)
    sparing = watch(FALLS, share=1e-90)

    assert (whole.state, sparing.state) == ("drift", "steady")
    assert watch(FALLS, alpha=1e-90).state == "steady"


def test_all_series_that_go_on_are_watched_each_with_its_share() -> None:
    ended = series(*[GOOD] * 3, version="1", is_current=False)
    later = series(*[GOOD] * 3, version="2", first=3)

    found = watch_all([ended, FALLS, later], alpha=0.1)

    shares = alpha_shares([ended, FALLS, later])
    assert [one.series for one in found] == [FALLS, later]
    assert [one.alpha for one in found] == pytest.approx([0.1 * shares[1], 0.1 * shares[2]])
    assert watch_all([FALLS])[0].alpha == pytest.approx(0.05 * alpha_shares([FALLS])[0])


def test_a_series_is_plain_data() -> None:
    found = watch(FALLS)

    assert found.as_json() == {
        "feature": "classify", "model": "small", "prompt_version": "v2", "metric": "fits",
        "worse": "below", "state": "drift", "alpha": found.alpha, "n": found.n,
        "reference_mean": found.reference_mean, "mean": found.mean,
        "interval": list(found.interval or ()), "since": found.since, "alarm_at": found.alarm_at,
    }  # fmt: skip
    assert watch(series()).as_json()["interval"] is None
    assert found.key == "classify/small@v2/fits"


# --- alerts -----------------------------------------------------------------------------


def alerts(*watched: Series, now: int, min_quality: float | None = None) -> list[Alert]:
    return alerts_of(watched, now=now * DAY, min_quality=min_quality)


ONES, NOUGHTS = [(1.0, 1.0, 200)], [(0.0, 1.0, 200)]


def moved(*, worse: Worse = "below", **more: Any) -> Series:
    """On the third day all is worse; the day is 1970-01-03."""
    days = (ONES, ONES, NOUGHTS) if worse == "below" else (NOUGHTS, NOUGHTS, ONES)
    return series(*days, worse=worse, **more)


def test_what_has_moved_is_told_with_its_means_and_since_when() -> None:
    [alert] = alerts(moved(), now=3)

    assert alert == Alert(
        key="drift/classify/small@v2/fits",
        severity="warning",
        message="classify/small@v2/fits has moved from 1.000 to 0.000, probably since 1970-01-03",
        value=0.0,
        limit=1.0,
        anchor="model-regression",
    )


def test_what_is_steady_is_no_alert() -> None:
    assert alerts(series(ONES, ONES, ONES), now=3) == []


def test_an_alarm_is_told_for_a_month() -> None:
    assert len(alerts(moved(), now=2 + 30)) == 1
    assert alerts(moved(), now=2 + 31) == []


@pytest.mark.parametrize(
    ("metric", "anchor"),
    [
        ("dear share", "cost-spike"),
        ("slow share", "provider-outage"),
        ("long input share", "traffic-changed"),
        ("short input share", "traffic-changed"),
        ("repaired share", "model-regression"),
    ],
)
def test_the_runbook_is_open_where_it_speaks_of_the_metric(metric: str, anchor: str) -> None:
    [alert] = alerts(moved(worse="above", names=(*NAMES[:3], metric)), now=3)

    assert alert.anchor == anchor


def test_a_kind_of_input_that_has_risen_is_told_as_a_share_of_calls() -> None:
    names = ("classify", "", "", "language de")

    [alert] = alerts(moved(worse="above", names=names, family="language mix"), now=3)

    assert alert.message == (
        "classify: language 'de' has risen from 0.0% to 100.0% of calls, "
        "probably since 1970-01-03"
    )  # fmt: skip
    assert (alert.key, alert.anchor) == ("drift/classify/language de", "traffic-changed")


@pytest.mark.parametrize(("worse", "how"), [("below", "lower"), ("above", "higher")])
def test_a_judge_that_grades_its_anchors_otherwise_has_changed(worse: Worse, how: str) -> None:
    # 0.5 is a grade as at first, so that from there to an end is a whole point of grade.
    first, then = [(0.5, 1.0, 200)], [(0.25 if worse == "below" else 0.75, 1.0, 200)]
    anchors = series(
        first, first, *[then] * 3, worse=worse, family=ANCHORS, names=("tone", "", "", "anchors")
    )

    [alert] = alerts(anchors, now=5)

    assert alert.message == (
        f"tone grades its anchors {how} than before, by 0.50 on average: the judge has changed, "
        "probably since 1970-01-03"
    )
    assert alert.anchor == "judge-drift"


def test_quality_below_what_is_to_be_kept_is_critical() -> None:
    low = series(*[[(1.0, 1.0, 60), (0.0, 1.0, 40)]] * 4)

    [alert] = alerts(low, now=4, min_quality=0.8)

    high = held(low.blocks, alpha=0.05)[1]
    assert alert == Alert(
        key="quality/classify/small@v2/fits",
        severity="critical",
        message=f"classify/small@v2/fits: mean 0.600 of 400 sampled answers, at most {high:.3f} "
        "with 95 %; 0.800 is to be kept",
        value=0.6,
        limit=0.8,
        anchor="model-regression",
    )
    assert alerts(low, now=4) == []
    assert alerts(low, now=4, min_quality=high) == []
    assert len(alerts(low, now=4, min_quality=high + 1e-6)) == 1


def test_a_weeks_quality_is_that_of_the_days_within_it() -> None:
    low = series(NOUGHTS, ONES, ONES)

    assert [len(alerts(low, now=now, min_quality=0.8)) for now in (7, 8)] == [0, 0]
    first_bad = series(NOUGHTS)
    assert [len(alerts(first_bad, now=now, min_quality=0.8)) for now in (8, 9)] == [1, 0]


def test_quality_is_asked_of_scores_that_go_on_alone() -> None:
    low = [NOUGHTS, NOUGHTS]

    ended = series(*low, is_current=False)
    of_inputs = series(*low, family="language mix")
    of_calls = series(*low, worse="above")

    assert alerts(ended, of_inputs, of_calls, now=2, min_quality=0.8) == []
    assert len(alerts(series(*low), now=2, min_quality=0.8)) == 1


def test_means_that_fit_no_interval_say_nothing_of_a_minimum() -> None:
    mixed = series(*[[(0.2, 1.0, 2_000)]] * 2, *[[(0.9, 1.0, 2_000)]] * 2)

    assert watch(mixed).interval is None
    assert alerts(mixed, now=4, min_quality=0.95) == []
