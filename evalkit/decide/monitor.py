"""Watches quality in production: has a mean moved, however often one looks?

Scores of sampling jobs, and what all calls say of themselves (repairs, refusals, unusual
latency, cost and length), by feature, model, prompt version and metric, a day after
another. A series alarms falsely with probability at most alpha in its whole life
(`FallTest`). Judges' scores weigh by their inverse chance of having been drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from evalkit.decide.alerts import Alert
from evalkit.decide.sequential import FallTest, Floats, MeanSequence, fall_prior
from evalkit.errors import StoreError
from evalkit.store.engine import Engine

if TYPE_CHECKING:
    from evalkit.store.views import Store

State = Literal["steady", "drift", "too few"]
Worse = Literal["below", "above"]

ALPHA = 0.05
ENOUGH = 100
"""Observations that a series is called steady with."""
USUAL_DAYS = 7
"""What is unusual for a call's latency, cost or length is learnt in its first days."""
DAY = 86_400_000_000
WEEK = 7 * DAY
MONTH = 30 * DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A day's observations: each value and weight so many times."""

    at: int
    """The day's beginning, microseconds since 1970."""
    values: Floats
    weights: Floats
    """Inverse chances over the largest of the series, 0..1."""
    counts: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Observations by day, in the days' order."""

    names: tuple[str, str, str, str]
    """Feature, model, prompt version, metric."""
    blocks: Sequence[Block]
    worse: Worse

    @property
    def key(self) -> str:
        feature, model, prompt_version, metric = self.names
        return f"{feature}/{model}@{prompt_version or '?'}/{metric}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One series, and what is known of it."""

    series: Series
    state: State
    n: int
    """Observations, all days together."""
    reference_mean: float | None
    """Design-weighted, before what was found; None: nothing was."""
    mean: float | None
    """Design-weighted, since then; of all days when nothing was found."""
    interval: tuple[float, float] | None
    """Holds that mean at all looks at once, with probability 1 - alpha."""
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
            "n": self.n,
            "reference_mean": self.reference_mean,
            "mean": self.mean,
            "interval": None if self.interval is None else list(self.interval),
            "since": self.since,
            "alarm_at": self.alarm_at,
        }


def watch(series: Series, *, alpha: float = ALPHA) -> Watched:
    """Hold each day against all days before it.

    H0: the mean never gets worse. An alarm under H0 has probability at most `alpha`, over all
    days together.
    """
    blocks = series.blocks
    test = FallTest(alpha=alpha)
    for block in blocks:
        values = block.values if series.worse == "below" else 1 - block.values
        if test.add(values, block.weights, block.counts):
            break
    n = int(sum(block.counts.sum() for block in blocks))
    drifted, at = test.alarm_at is not None, test.start or 0
    # An interval from a day on that the data chose: each day has its share of alpha.
    share = float(np.exp(fall_prior(at))) if drifted else 1.0
    since = blocks[at:] if drifted else blocks
    return Watched(
        series=series,
        state="drift" if drifted else "steady" if n >= ENOUGH else "too few",
        n=n,
        reference_mean=_mean(blocks[:at]) if drifted else None,
        mean=_mean(since),
        interval=_interval(since, alpha=alpha * share) if n else None,
        since=blocks[at].at if drifted else None,
        alarm_at=None if test.alarm_at is None else blocks[test.alarm_at - 1].at,
    )


def _mean(blocks: Sequence[Block]) -> float | None:
    weight = sum(float((one.weights * one.counts).sum()) for one in blocks)
    total = sum(float((one.values * one.weights * one.counts).sum()) for one in blocks)
    return total / weight if weight else None


def _interval(blocks: Sequence[Block], *, alpha: float) -> tuple[float, float]:
    sequence = MeanSequence(alpha=alpha)
    for block in blocks:
        sequence.add(block.values, block.weights, block.counts)
    return sequence.interval


# --- what is watched -----------------------------------------------------------------


def series_of(store: Store, *, feature: str | None = None, since: int = 0) -> list[Series]:
    """All series of calls from `since` on (microseconds since 1970), by name."""
    found = [*_scored(store, since), *_counted(store, since)]
    return sorted(
        (one for one in found if feature in (None, one.names[0])), key=lambda one: one.names
    )


_SCORED = """
    WITH drawn AS (
        SELECT *, slices['feature'] AS feature FROM scores
        WHERE score IS NOT NULL AND inclusion_prob > 0
    ), newest AS (
        SELECT feature, model, prompt_version, metric,
            arg_max(scorer_version, created_at) AS scorer_version
        FROM drawn GROUP BY 1, 2, 3, 4
    ), once AS (
        SELECT feature, model, prompt_version, metric, trace_id,
            unnest(max_by({'score': score, 'p': inclusion_prob, 'made_at': created_at},
                (created_at, run_id))),
        FROM drawn JOIN newest USING (feature, model, prompt_version, metric, scorer_version)
        GROUP BY 1, 2, 3, 4, 5
    )
    SELECT feature, model, prompt_version, metric, epoch_us(made_at) // $day * $day AS day,
        round(score, 2) AS value, p, count(*) AS n
    FROM once GROUP BY ALL ORDER BY ALL
"""


def _scored(store: Store, since: int) -> Iterator[Series]:
    """Scores of complete sampling jobs: each call once, by the newest version of its scorer."""
    files = []
    for run in store.runs():
        sample = run.get("sample") or {}
        if (run.get("kind"), run["status"]) == ("sample", "complete") and sample["until"] > since:
            try:
                files += store.score_files(run["run_id"])
            except StoreError as error:
                store.problems.append(str(error))
    if not files:
        return
    with Engine() as engine:
        engine.add_files("scores", files)
        rows = engine.rows(_SCORED, {"day": DAY})
    yield from _series(rows, worse="below")


_RATES = {
    "repaired share": "repaired",
    "refused share": "coalesce(error_kind IN ('refusal', 'content_filter'), false)",
    "invalid share": "NOT schema_ok",
}
"""Rate of all calls that a model answered -> its SQL; more of it is worse."""

_UNUSUAL = {
    "slow share": ("latency_ms", 0.9, ">"),
    "dear share": ("cost_usd", 0.9, ">"),
    "long input share": ("prompt_tokens", 0.9, ">"),
    "short input share": ("prompt_tokens", 0.1, "<"),
    "long answer share": ("completion_tokens", 0.9, ">"),
    "short answer share": ("completion_tokens", 0.1, "<"),
}
"""Share of calls beyond a quantile of the first days: column, quantile, side."""


def _counted(store: Store, since: int) -> Iterator[Series]:
    """What all calls of production say of themselves, a day after another."""
    with store.production() as engine:
        rows = engine.rows(_counting(), {"since": since, "day": DAY, "usual": USUAL_DAYS})
    for name in (*_RATES, *_UNUSUAL):
        counted = []
        for row in rows:
            n, k = row[f"{name} n"], row[f"{name} k"]
            for value, count in ((0.0, n - k), (1.0, k)):
                if count:
                    counted.append({**row, "metric": name, "value": value, "p": 1.0, "n": count})
        yield from _series(counted, worse="above")


def _counting() -> str:
    """Numbers of observations and of bad ones, for each series and day."""
    usual = ", ".join(
        f"quantile_cont({column}, {at}) AS usual_{n}"
        for n, (column, at, _) in enumerate(_UNUSUAL.values())
    )
    tests = dict(_RATES)
    for n, (name, (column, _, side)) in enumerate(_UNUSUAL.items()):
        # Only later days are observations: what is usual does not depend on them.
        tests[name] = f"CASE WHEN day >= first + $usual * $day THEN {column} {side} usual_{n} END"
    counts = ", ".join(
        f'count({sql}) AS "{name} n", count(*) FILTER ({sql}) AS "{name} k"'
        for name, sql in tests.items()
    )
    return f"""
        WITH answered AS (
            SELECT *, epoch_us(ts) // $day * $day AS day FROM calls
            WHERE NOT cache_hit AND epoch_us(ts) >= $since
        ), first AS (
            SELECT feature, model, prompt_version, min(day) AS first
            FROM answered GROUP BY 1, 2, 3
        ), usual AS (
            SELECT feature, model, prompt_version, any_value(first) AS first, {usual}
            FROM answered JOIN first USING (feature, model, prompt_version)
            WHERE day < first + $usual * $day GROUP BY 1, 2, 3
        )
        SELECT feature, model, prompt_version, day, {counts}
        FROM answered JOIN usual USING (feature, model, prompt_version)
        GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
    """


def _series(rows: Sequence[dict[str, Any]], *, worse: Worse) -> Iterator[Series]:
    """Rows (a value, its chance, how many, of a series and day) in their order as series."""
    by_names: dict[tuple[str, str, str, str], dict[int, list[dict[str, Any]]]] = {}
    for row in rows:
        names = (row["feature"] or "", row["model"] or "", row["prompt_version"] or "",
                 row["metric"])  # fmt: skip
        by_names.setdefault(names, {}).setdefault(row["day"], []).append(row)
    for names, days in by_names.items():
        least = min(row["p"] for of_day in days.values() for row in of_day)
        blocks = [
            Block(
                at=day,
                values=np.array([row["value"] for row in of_day], dtype=np.float64),
                weights=np.array([least / row["p"] for row in of_day], dtype=np.float64),
                counts=np.array([row["n"] for row in of_day], dtype=np.float64),
            )
            for day, of_day in days.items()
        ]
        yield Series(names=names, blocks=blocks, worse=worse)


# --- alerts --------------------------------------------------------------------------


def quality_alerts(store: Store, *, now: int, min_quality: float | None) -> list[Alert]:
    """What alarmed within a month, and what a week's sample shows below `min_quality`.

    A series is always watched from its beginning: who starts anew every day, forgets what
    earlier looks have cost.
    """
    series = series_of(store)
    found = []
    for one in map(watch, series):
        if one.alarm_at is not None and one.alarm_at >= now - MONTH:
            assert one.mean is not None
            assert one.reference_mean is not None
            found.append(
                Alert(
                    key=f"drift/{one.key}",
                    severity="warning",
                    message=f"{one.key} has moved from {one.reference_mean:.3f} to {one.mean:.3f}",
                    value=one.mean,
                    limit=one.reference_mean,
                    anchor="model-regression",
                )
            )
    if min_quality is not None:
        scored = (one for one in series if one.worse == "below")
        found += [alert for one in scored for alert in _too_low(one, now, min_quality)]
    return found


def _too_low(series: Series, now: int, min_quality: float) -> Iterator[Alert]:
    blocks = [block for block in series.blocks if block.at >= now - WEEK - DAY]
    mean, high = _mean(blocks), _interval(blocks, alpha=ALPHA)[1]
    if mean is not None and high < min_quality:
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
