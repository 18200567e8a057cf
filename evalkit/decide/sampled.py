"""What a sampling job says of its window: means over all calls, not over those drawn.

Design-weighted (`quality`). Where people labelled some of the answers that a judge scored,
their labels take the judge's bias out (`ppi`): of values weighted by their inverse chance,
around a first estimate, so that their mean is the weighted mean (Taylor linearisation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalkit.decide.ppi import LABELS_AT_LEAST, Powered, powered_mean
from evalkit.decide.quality import Estimate, effective, wilson
from evalkit.store.engine import Engine

if TYPE_CHECKING:
    from evalkit.store.views import Store

Floats: TypeAlias = NDArray[np.float64]
ROUNDS = 2
"""First estimates: people's own, and the one that it leads to."""
TUNED_FROM = 100
"""Labels, as many as are worth as much unweighted, from which on the judge's weight is tuned:
in simulation 120 labels worth 73 tuned it too sharply, and covered 90 % instead of 95 %."""
SAME = 1e-9

_SCORES = """
    SELECT slices['feature'] AS feature, model, prompt_name, prompt_version, metric, tier,
        list(coalesce(score, 'nan'::DOUBLE) ORDER BY trace_id) AS score,
        list(inclusion_prob ORDER BY trace_id) AS chance, list(trace_id ORDER BY trace_id) AS trace
    FROM scores WHERE inclusion_prob > 0 GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY ALL
"""
_LABELS = """
    SELECT trace_id, metric, avg(coalesce(score, passed::DOUBLE)) AS score,
        CASE WHEN bool_and(inclusion_prob IS NOT NULL) THEN max(inclusion_prob) END AS chance
    FROM labels WHERE coalesce(score, passed::DOUBLE) IS NOT NULL AND label_id NOT IN
        (SELECT supersedes FROM labels WHERE supersedes IS NOT NULL)
    GROUP BY 1, 2
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledMetric:
    """One metric of one pair in the window."""

    feature: str
    model: str
    prompt_name: str
    prompt_version: str
    metric: str
    tier: int
    estimate: Estimate | None
    """By the scorer alone; None: nothing was scored."""
    missing: int
    powered: Estimate | None
    """As people would score; None: too few labels."""
    n_labelled: int
    judge_bias: float | None
    """Judge minus people; None without labels enough."""

    def as_json(self) -> dict[str, Any]:
        return {
            "feature": self.feature,
            "pair": f"{self.model}/{self.prompt_name}@{self.prompt_version}",
            "metric": self.metric,
            "tier": self.tier,
            "estimate": None if self.estimate is None else self.estimate.as_json(),
            "missing": self.missing,
            "n_labelled": self.n_labelled,
            "powered": None if self.powered is None else self.powered.as_json(),
            "judge_bias": self.judge_bias,
        }


def sampled_metrics(store: Store, run_id: str) -> list[SampledMetric]:
    """All pairs and metrics of a sealed job, by name.

    Raises NotComparable when it is not sealed, DamagedStore when a file differs.
    """
    with Engine() as engine:
        engine.add_files("scores", store.score_files(run_id))
        rows = engine.rows(_SCORES)
    labels = {(row["trace_id"], row["metric"]): row for row in store.sql(_LABELS)}
    return [_measured(row, labels) for row in rows]


def _measured(row: Mapping[str, Any], labels: Mapping[tuple[str, str], Any]) -> SampledMetric:
    scores = np.asarray(row["score"], dtype=np.float64)
    is_scored = np.isfinite(scores)
    scores = scores[is_scored]
    chances = np.asarray(row["chance"], dtype=np.float64)[is_scored]
    traces = [trace for trace, scored in zip(row["trace"], is_scored, strict=True) if scored]
    said = [labels.get((trace, row["metric"])) for trace in traces]
    people = np.array([np.nan if one is None else one["score"] for one in said], dtype=np.float64)
    missing = int(len(is_scored) - len(scores))
    n_labelled = int(np.isfinite(people).sum())
    powered = None
    if row["tier"] > 1 and n_labelled >= LABELS_AT_LEAST:
        powered = weighted_powered_mean(scores, people, chances, _chances_of(said))
    return SampledMetric(
        feature=row["feature"] or "",
        model=row["model"] or "",
        prompt_name=row["prompt_name"] or "",
        prompt_version=row["prompt_version"] or "",
        metric=row["metric"],
        tier=row["tier"],
        estimate=weighted_mean(scores, chances, missing=missing) if len(scores) else None,
        missing=missing,
        powered=None if powered is None else _as_estimate(powered, missing),
        n_labelled=n_labelled,
        judge_bias=None if powered is None else powered.judge_bias,
    )


def weighted_mean(scores: Floats, chances: Floats, *, missing: int = 0) -> Estimate:
    """Mean over all calls, of scores that were drawn with these chances; (n_scores,) each."""
    w = 1 / chances
    mean = float(np.average(scores, weights=w))
    n = len(scores)
    variance = float((w**2 @ (scores - mean) ** 2) / w.sum() ** 2) * n / max(n - 1, 1)
    alike = float(w.sum() ** 2 / (w**2).sum())
    spread = float(np.average((scores - mean) ** 2, weights=w))
    low, high = wilson(mean, effective(mean, variance, spread, alike))
    return Estimate(n=n, missing=missing, mean=mean, low=low, high=high)


def weighted_powered_mean(
    judge: Floats, people: Floats, chances: Floats, label_chances: Floats | None = None
) -> Powered:
    """The same as people would score, from labels (NaN: none) of some of what was drawn.

    `label_chances`: of a call that was drawn to be labelled; None: the same for all.
    """
    w = len(judge) / (1 / chances).sum() / chances
    if float(np.ptp(w)) < SAME:
        return powered_mean(judge, people, inclusion=label_chances, alpha=0.025)
    labelled = np.isfinite(people)
    v = w[labelled] if label_chances is None else (w / label_chances)[labelled]
    around = float(np.average(people[labelled], weights=v))
    trust = None if v.sum() ** 2 / (v**2).sum() >= TUNED_FROM else 1.0
    for _ in range(ROUNDS):
        found = powered_mean(
            w * (judge - around),
            w * (people - around),
            inclusion=label_chances,
            alpha=0.025,
            judge_weight=trust,
        )
        if found.estimate is None or found.ci is None:
            return found
        low, high = (end + around for end in found.ci)
        around += found.estimate
    return replace(found, estimate=around, ci=(low, high))


def _chances_of(said: Sequence[Mapping[str, Any] | None]) -> Floats | None:
    """Chances of a label, where every labelled call has one and they differ; else None."""
    known = [one["chance"] for one in said if one is not None]
    if None in known or min(known) == max(known):
        return None
    # Of those without a label it is not needed, but has to be a chance.
    return np.array([1.0 if one is None else one["chance"] for one in said], dtype=np.float64)


def _as_estimate(found: Powered, missing: int) -> Estimate | None:
    if found.estimate is None or found.ci is None:
        return None
    low, high = (min(max(end, 0.0), 1.0) for end in found.ci)
    mean = min(max(found.estimate, low), high)
    return Estimate(n=found.n, missing=missing, mean=mean, low=low, high=high)
