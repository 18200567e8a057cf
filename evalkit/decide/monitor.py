"""Watches production: has a mean moved for the worse, however often one looks?

Each series (`decide.series`), a day after another, by `FallTest`. All of them together raise a
false alarm with probability at most alpha in their whole lives, however many there are:
each has its share of alpha (`alpha_shares`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from evalkit.decide.alerts import Alert
from evalkit.decide.anchor_series import FAMILY as ANCHORS
from evalkit.decide.sequential import FallTest, MeanSequence, fall_prior
from evalkit.decide.series import alpha_shares, series_of
from evalkit.decide.series_rows import DAY, Block, Series, Worse

if TYPE_CHECKING:
    from evalkit.store.views import Store

__all__ = ["Block", "Series", "Watched", "Worse", "alerts_of", "quality_alerts", "series_of",
           "watch", "watch_all"]  # fmt: skip

State = Literal["steady", "drift", "too few"]

ALPHA = 0.05
ENOUGH = 100
"""Observations that a series is called steady with."""
_RUNBOOK = {
    "dear share": "cost-spike",
    "slow share": "provider-outage",
    "long input share": "traffic-changed",
    "short input share": "traffic-changed",
}
"""Metric -> where the runbook speaks of it; of the others under model regression."""
WEEK = 7 * DAY
MONTH = 30 * DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One series, and what is known of it."""

    series: Series
    state: State
    alpha: float
    """What its own false alarm has of probability."""
    n: int
    """Observations, all days together."""
    reference_mean: float | None
    """Design-weighted, before what was found; None: nothing was."""
    mean: float | None
    """Design-weighted, since then; of all days when nothing was found."""
    interval: tuple[float, float] | None
    """Holds that mean at all looks at once, with probability 0.95 unless asked otherwise; None
    where no one mean fits, as after a move for the better."""
    since: int | None
    """The day on which it probably moved, microseconds since 1970."""
    alarm_at: int | None
    """The day of the alarm, which is for ever."""

    @property
    def key(self) -> str:
        return self.series.key

    def as_json(self) -> dict[str, Any]:
        feature, model, prompt_version, metric = self.series.names
        return {
            "feature": feature,
            "model": model,
            "prompt_version": prompt_version,
            "metric": metric,
            "worse": self.series.worse,
            "state": self.state,
            "alpha": self.alpha,
            "n": self.n,
            "reference_mean": self.reference_mean,
            "mean": self.mean,
            "interval": None if self.interval is None else list(self.interval),
            "since": self.since,
            "alarm_at": self.alarm_at,
        }


def watch_all(series: Sequence[Series], *, alpha: float = ALPHA) -> list[Watched]:
    """Watch all series that go on.

    If none ever gets worse, an alarm of any has probability at most `alpha`, over all days
    together.
    """
    shares = alpha_shares(series)
    return [
        watch(one, alpha=alpha, share=share)
        for one, share in zip(series, shares, strict=True)
        if one.is_current
    ]


def watch(series: Series, *, alpha: float = ALPHA, share: float = 1.0) -> Watched:
    """Hold each day against all days before it.

    H0: the mean never gets worse. An alarm under H0 has probability at most `share` times
    `alpha`, over all days together. The interval is by itself: it may miss with `alpha`.
    """
    blocks = series.blocks
    test = FallTest(alpha=alpha * share)
    for block in blocks:
        values = block.values if series.worse == "below" else 1 - block.values
        if test.add(values, block.weights, block.counts):
            break
    n = int(sum(block.counts.sum() for block in blocks))
    drifted, at = test.alarm_at is not None, test.start or 0
    # An interval from a day on that the data chose: each day has its share of alpha.
    chosen = float(np.exp(fall_prior(at))) if drifted else 1.0
    since = blocks[at:] if drifted else blocks
    mean = _mean(since)
    interval = _interval(since, alpha=alpha * chosen) if n else None
    fits = mean is not None and interval is not None and interval[0] <= mean <= interval[1]
    return Watched(
        series=series,
        state="drift" if drifted else "steady" if n >= ENOUGH else "too few",
        alpha=alpha * share,
        n=n,
        reference_mean=_mean(blocks[:at]) if drifted else None,
        mean=mean,
        interval=interval if fits else None,
        since=blocks[at].at if drifted else None,
        alarm_at=None if test.alarm_at is None else blocks[test.alarm_at - 1].at,
    )


def _mean(blocks: Sequence[Block]) -> float | None:
    weight = sum(float((one.weights * one.counts).sum()) / one.least for one in blocks)
    total = sum(float((one.values * one.weights * one.counts).sum()) / one.least for one in blocks)
    return total / weight if weight else None


def _interval(blocks: Sequence[Block], *, alpha: float) -> tuple[float, float] | None:
    """None where no one mean fits all days: it has moved, and not for the worse."""
    sequence = MeanSequence(alpha=alpha)
    for block in blocks:
        sequence.add(block.values, block.weights, block.counts)
    low, high = sequence.interval
    return (low, high) if low <= high else None


# --- alerts --------------------------------------------------------------------------


def quality_alerts(store: Store, *, now: int, min_quality: float | None) -> list[Alert]:
    """What alarmed within a month, and what a week's sample shows below `min_quality`.

    A series is always watched from its beginning: who starts anew every day, forgets what
    earlier looks have cost.
    """
    return alerts_of(series_of(store), now=now, min_quality=min_quality)


def alerts_of(series: Sequence[Series], *, now: int, min_quality: float | None) -> list[Alert]:
    """The alerts of all series there are, those that have ended among them."""
    found = []
    for one in watch_all(series):
        if one.alarm_at is not None and one.alarm_at >= now - MONTH:
            found.append(_moved(one))
    if min_quality is not None:
        scored = (
            one for one in series if one.is_current and not one.family and one.worse == "below"
        )
        found += [alert for one in scored for alert in _too_low(one, now, min_quality)]
    return found


def _moved(one: Watched) -> Alert:
    assert one.mean is not None
    assert one.reference_mean is not None
    before, now = one.reference_mean, one.mean
    message = f"{one.key} has moved from {before:.3f} to {now:.3f}"
    anchor = _RUNBOOK.get(one.series.names[3], "model-regression")
    if one.series.family == ANCHORS:
        by = f"by {2 * abs(now - before):.2f} on average"
        judge, how = one.series.names[0], "lower" if now < before else "higher"
        message = f"{judge} grades its anchors {how} than before, {by}: the judge has changed"
        anchor = "judge-drift"
    elif one.series.family:
        what, _, kind = one.series.names[3].partition(" ")
        share = f"from {before:.1%} to {now:.1%} of calls"
        message = f"{one.series.names[0]}: {what} {kind!r} has risen {share}"
        anchor = "traffic-changed"
    assert one.since is not None
    since = datetime.fromtimestamp(one.since / 1e6, tz=UTC).date().isoformat()
    return Alert(
        key=f"drift/{one.key}",
        severity="warning",
        message=f"{message}, probably since {since}",
        value=now,
        limit=before,
        anchor=anchor,
    )


def _too_low(series: Series, now: int, min_quality: float) -> Iterator[Alert]:
    blocks = [block for block in series.blocks if block.at >= now - WEEK - DAY]
    mean, interval = _mean(blocks), _interval(blocks, alpha=ALPHA)
    if mean is not None and interval is not None and (high := interval[1]) < min_quality:
        n = int(sum(block.counts.sum() for block in blocks))
        yield Alert(
            key=f"quality/{series.key}",
            severity="critical",
            message=f"{series.key}: mean {mean:.3f} of {n} sampled answers, at "
            f"most {high:.3f} with 95 %; {min_quality:.3f} is to be kept",
            value=mean,
            limit=min_quality,
            anchor="model-regression",
        )
