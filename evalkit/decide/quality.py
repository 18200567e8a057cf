"""Quality of production's pairs over time, from what sampling jobs scored.

Means weigh each score by its inverse chance of having been drawn (Hájek). Intervals are
Wilson's at the effective sample size (Kish 1965; Dean & Pagano 2015): inside 0..1, and not
empty where all scores are the same. They hold at one look; `decide.monitor` watches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from evalkit.store.engine import Engine

Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean score, 0..1, with its 95 % interval."""

    n: int
    """Scores it is made of."""
    missing: int
    """Calls that were drawn and have no score."""
    mean: float
    low: float
    high: float

    def as_json(self) -> dict[str, Any]:
        return {
            "n": self.n,
            "missing": self.missing,
            "mean": self.mean,
            "ci": [self.low, self.high],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PairQuality:
    """One metric of one pair, as a whole and step by step."""

    feature: str
    model: str
    prompt: str
    """NAME@VERSION"""
    metric: str
    tier: int
    whole: Estimate
    steps: Mapping[int, Estimate]
    """Start of a step (microseconds since 1970) -> what was sampled in it."""

    @property
    def pair(self) -> str:
        return f"{self.model}/{self.prompt}"

    def as_json(self) -> dict[str, Any]:
        return {
            "feature": self.feature,
            "pair": self.pair,
            "metric": self.metric,
            "tier": self.tier,
            **self.whole.as_json(),
            "over_time": [{"at": at, **one.as_json()} for at, one in self.steps.items()],
        }


_SUMS = ("drawn", "scored", "w", "ws", "wss", "ww", "wws", "wwss")
_NAMES = ("feature", "model", "prompt_name", "prompt_version", "metric", "tier")


def pair_quality(engine: Engine, *, step_us: int) -> list[PairQuality]:
    """All pairs and metrics of the view `samples`, by name; of each the newest scorer's.

    A job belongs to the step it begins in. Scorers of different versions are never mixed.
    """
    names = ", ".join(_NAMES)
    rows = engine.rows(
        f"""
        WITH marked AS (
            SELECT *, arg_max(scorer_version, until) OVER (PARTITION BY {names}) AS newest
            FROM samples
        )
        SELECT {names}, since // {step_us} * {step_us} AS at,
            {", ".join(f"sum({name})::DOUBLE AS {name}" for name in _SUMS)}
        FROM marked WHERE scorer_version IS NOT DISTINCT FROM newest
        GROUP BY ALL ORDER BY ALL
        """
    )
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["scored"]:
            groups.setdefault(tuple(row[name] for name in _NAMES), []).append(row)
    return [_pair(key, of) for key, of in groups.items()]


def _pair(key: tuple[Any, ...], rows: list[Mapping[str, Any]]) -> PairQuality:
    feature, model, prompt_name, prompt_version, metric, tier = key
    whole = {name: sum(row[name] for row in rows) for name in _SUMS}
    return PairQuality(
        feature=feature or "",
        model=model or "",
        prompt=f"{prompt_name or '?'}@{prompt_version or '?'}",
        metric=metric,
        tier=tier,
        whole=_estimate(whole),
        steps={row["at"]: _estimate(row) for row in rows},
    )


def _estimate(sums: Mapping[str, float]) -> Estimate:
    n = int(sums["scored"])
    mean = min(max(sums["ws"] / sums["w"], 0.0), 1.0)
    squares = sums["wwss"] - 2 * mean * sums["wws"] + mean**2 * sums["ww"]
    variance = max(squares, 0.0) / sums["w"] ** 2 * n / max(n - 1, 1)
    spread = max(sums["wss"] / sums["w"] - mean**2, 0.0)
    low, high = wilson(mean, effective(mean, variance, spread, sums["w"] ** 2 / sums["ww"]))
    missing = int(sums["drawn"]) - n
    return Estimate(n=n, missing=missing, mean=mean, low=low, high=high)


def effective(mean: float, variance: float, spread: float, alike: float) -> float:
    """Yes-or-no answers that would make a weighted mean as certain as it is.

    `variance` is the mean's, `spread` that of all scores, `alike` how many of one weight would
    say as much (Kish 1965): that certain, and no more, even if the few that weigh most happen to
    agree. Where no score differs, as many as there are.
    """
    variance = max(variance, spread / alike)
    return mean * (1 - mean) / variance if variance > 1e-12 else alike


def share_of(yes: int, n: int) -> Estimate:
    """A share of all calls; `n` is at least 1."""
    low, high = wilson(yes / n, n)
    return Estimate(n=n, missing=0, mean=yes / n, low=low, high=high)


def wilson(mean: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927) of `n` observations, which may be no integer."""
    middle = mean + z**2 / (2 * n)
    reach = z * sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2))
    scale = 1 + z**2 / n
    low, high = (middle - reach) / scale, (middle + reach) / scale
    return min(max(low, 0.0), mean), max(min(high, 1.0), mean)  # rounding moves them past it
