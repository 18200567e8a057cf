"""Watches quality in production: has a mean moved, however often one looks?

Scores of sampling jobs, and all calls' repairs and refusals, by feature, model, prompt
version and metric. The first observations of a series are its reference; from then on an
e-detector (Shin, Ramdas & Rinaldo 2023) bets that the mean is worse than the reference's
own interval allows. Judges' scores weigh by their inverse chance of having been drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from evalkit.decide.alerts import Alert
from evalkit.decide.sequential import EDetector, Floats, MeanSequence
from evalkit.errors import StoreError
from evalkit.store.engine import Engine

if TYPE_CHECKING:
    from evalkit.store.views import Store

State = Literal["steady", "drift", "too few"]
Worse = Literal["below", "above"]

REFERENCE_N = 200
RUN_LENGTH = 10_000.0
"""Observations of a steady series until a false alarm, on average at least."""
ALPHA = 0.05
CHUNK = 20_000
WEEK = 7 * 86_400_000_000
MONTH = 30 * 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One series, and what is known of it."""

    feature: str
    model: str
    prompt_version: str
    metric: str
    state: State
    n: int
    """Observations after the reference."""
    reference_mean: float | None
    mean: float | None
    """Design-weighted, after the reference."""
    interval: tuple[float, float] | None
    """Holds that mean at all looks at once, with 95 %."""
    alarm_at: int | None
    """Observations after the reference until the alarm."""

    @property
    def key(self) -> str:
        return _key(self.feature, self.model, self.prompt_version, self.metric)

    def as_json(self) -> dict[str, Any]:
        return {
            "feature": self.feature,
            "model": self.model,
            "prompt_version": self.prompt_version,
            "metric": self.metric,
            "state": self.state,
            "n": self.n,
            "reference_mean": self.reference_mean,
            "mean": self.mean,
            "interval": None if self.interval is None else list(self.interval),
            "alarm_at": self.alarm_at,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Observations in the order of their calls."""

    names: tuple[str, str, str, str]
    """Feature, model, prompt version, metric."""
    values: Floats
    weights: Floats
    """Inverse chances over the largest of them, 0..1."""
    worse: Worse

    @property
    def key(self) -> str:
        return _key(*self.names)


def _key(feature: str, model: str, prompt_version: str, metric: str) -> str:
    return f"{feature}/{model}@{prompt_version or '?'}/{metric}"


def watch(
    series: Series, *, reference_n: int = REFERENCE_N, run_length: float = RUN_LENGTH
) -> Watched:
    """Hold what came after the first `reference_n` observations against them.

    H0: the mean is no worse than the near end of the reference's 95 % interval.
    """
    values, weights = series.values, series.weights
    before, after = values[:reference_n], values[reference_n:]
    state: State = "too few"
    mean = interval = alarm_at = None
    if len(after):
        reference = MeanSequence(alpha=ALPHA)
        low, high = reference.add(before, weights[:reference_n])
        bound = low if series.worse == "below" else high
        sequence = MeanSequence(alpha=ALPHA)
        interval = sequence.add(after, weights[reference_n:])
        mean = _mean(after, weights[reference_n:])
        if 0 < bound < 1:
            alarm_at = _alarm(after, weights[reference_n:], bound, series.worse, run_length)
            state = "steady" if alarm_at is None else "drift"
    feature, model, prompt_version, metric = series.names
    return Watched(
        feature=feature,
        model=model,
        prompt_version=prompt_version,
        metric=metric,
        state=state,
        n=len(after),
        reference_mean=_mean(before, weights[:reference_n]),
        mean=mean,
        interval=interval,
        alarm_at=alarm_at,
    )


def _alarm(
    values: Floats, weights: Floats, bound: float, worse: Worse, run_length: float
) -> int | None:
    detector = EDetector(bound, bet_on=worse, run_length=run_length)
    for start in range(0, len(values), CHUNK):
        part = slice(start, start + CHUNK)
        if detector.add(values[part], weights[part]) is not None:
            break
    return detector.alarm_at


def _mean(values: Floats, weights: Floats) -> float | None:
    return float(np.average(values, weights=weights)) if len(values) else None


# --- what is watched -----------------------------------------------------------------


def series_of(store: Store, *, feature: str | None = None, since: int = 0) -> list[Series]:
    """All series of calls from `since` on (microseconds since 1970), by name."""
    found = [*_scored(store, since), *_counted(store, since)]
    return sorted(
        (one for one in found if feature in (None, one.names[0])), key=lambda one: one.names
    )


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
        rows = engine.rows(
            """
            WITH drawn AS (
                SELECT *, slices['feature'] AS feature FROM scores
                WHERE score IS NOT NULL AND inclusion_prob > 0
            ), newest AS (
                SELECT feature, model, prompt_version, metric,
                    arg_max(scorer_version, created_at) AS scorer_version
                FROM drawn GROUP BY 1, 2, 3, 4
            ), once AS (
                SELECT feature, model, prompt_version, metric, trace_id,
                    arg_max(score, created_at) AS score,
                    arg_max(inclusion_prob, created_at) AS p,
                FROM drawn JOIN newest
                    USING (feature, model, prompt_version, metric, scorer_version)
                GROUP BY 1, 2, 3, 4, 5
            )
            SELECT feature, model, prompt_version, metric,
                list(score ORDER BY trace_id) AS score, list(p ORDER BY trace_id) AS p
            FROM once GROUP BY 1, 2, 3, 4
            """
        )
    for row in rows:
        chances = np.asarray(row["p"], dtype=np.float64)
        yield Series(
            names=_names(row, row["metric"]),
            values=np.asarray(row["score"], dtype=np.float64),
            weights=np.asarray(chances.min() / chances),
            worse="below",
        )


_RATES = {
    "repaired": "repaired",
    "refused": "coalesce(error_kind IN ('refusal', 'content_filter'), false)",
}
"""Rate -> its SQL; more of it is worse."""


def _counted(store: Store, since: int) -> Iterator[Series]:
    """Repairs and refusals over all calls of production."""
    rates = ", ".join(f"list(({sql})::INT ORDER BY ts) AS {name}" for name, sql in _RATES.items())
    with store.production() as engine:
        rows = engine.rows(
            f"SELECT feature, model, prompt_version, {rates} FROM calls"
            " WHERE NOT cache_hit AND epoch_us(ts) >= $1 GROUP BY 1, 2, 3",
            [since],
        )
    for row in rows:
        for name in _RATES:
            values = np.asarray(row[name], dtype=np.float64)
            yield Series(
                names=_names(row, f"{name} share"),
                values=values,
                weights=np.ones(len(values)),
                worse="above",
            )


def _names(row: dict[str, Any], metric: str) -> tuple[str, str, str, str]:
    return (row["feature"] or "", row["model"] or "", row["prompt_version"] or "", metric)


# --- alerts --------------------------------------------------------------------------


def quality_alerts(store: Store, *, now: int, min_quality: float | None) -> list[Alert]:
    """What has drifted within a month, and what a week's sample shows below `min_quality`."""
    found = []
    for series in series_of(store, since=now - MONTH):
        one = watch(series)
        if one.state == "drift" and one.mean is not None and one.reference_mean is not None:
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
    if min_quality is None:
        return found
    for series in series_of(store, since=now - WEEK):
        if series.worse != "below":
            continue
        high = MeanSequence(alpha=ALPHA).add(series.values, series.weights)[1]
        mean = _mean(series.values, series.weights)
        if high < min_quality and mean is not None:
            name = series.key
            found.append(
                Alert(
                    key=f"quality/{name}",
                    severity="critical",
                    message=f"{name}: mean {mean:.3f} of {len(series.values)} sampled answers, at "
                    f"most {high:.3f} with 95 %; {min_quality:.3f} is to be kept",
                    value=mean,
                    limit=min_quality,
                    anchor="model-regression",
                )
            )
    return found
