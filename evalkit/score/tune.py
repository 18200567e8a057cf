"""What a cascade would have scored and cost at each threshold, from a run of all its models.

Every model has answered every case, so that no threshold needs a call of its own: the
sweep walks down each case's answers as `evalkit.call.routing` would, and counts what it
passes. Not known is not zero: a case without a score is left out and counted, a cost
that one step lacks is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from evalkit.call.failures import FAILURES
from evalkit.call.routing import is_unsure

if TYPE_CHECKING:
    from evalkit.store.views import Store

GRID = tuple(n / 20 for n in range(21))
"""Thresholds of the table."""
MAX_STEPS_SHOWN = 400
"""Thresholds of the plot at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One model's answer to one trial of a case."""

    model: str
    score: float
    confidence: float | None
    cost_usd: float | None
    latency_ms: float
    failed: bool = False
    """Whether it was no answer: an unsure one before it stands."""
    failed_over: bool = False
    """Whether the next model is then asked, whatever the threshold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """One trial of a case: the answers of all models, in the cascade's order."""

    case_id: str
    cluster: str | None
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    """What a sweep is made from."""

    models: tuple[str, ...]
    metric: str
    paths: tuple[Path, ...]
    missing: int
    """Trials left out, as one of the models has no score for them."""
    without_confidence: int
    """Answers of all models but the last that came without a confidence: never escalated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What one threshold gives, as means over the cases."""

    threshold: float | None
    """None: one model alone answers all."""
    model: str | None
    """That model; None for a cascade."""
    quality: float
    cost_usd: float | None
    """Of one call; None when a price or a token count is not known."""
    latency_ms: float
    escalated: float
    """Share of the calls that more than one model was asked for, 0..1."""
    shares: Mapping[str, float]
    """Share of the calls that each model answered, 0..1."""
    scores: tuple[float, ...]
    """One mean score per case, in the order of their first trial."""


@dataclass(frozen=True, slots=True)
class _Walk:
    """Where one trial ends at a threshold, and what it took."""

    answer: Step
    asked: tuple[Step, ...]

    @property
    def cost_usd(self) -> float | None:
        costs = [step.cost_usd for step in self.asked]
        return None if None in costs else sum(cost for cost in costs if cost is not None)


def walk(steps: Sequence[Step], below: float) -> _Walk:
    """The cascade's way down: an unsure answer is asked further, and stands if that fails."""
    asked: list[Step] = []
    answer: Step | None = None
    for step in steps:
        asked.append(step)
        if step.failed and (answer is not None or not step.failed_over):
            break
        if not step.failed:
            answer = step
            if not is_unsure(step.confidence, below):
                break
    return _Walk(answer or asked[-1], tuple(asked))


def sweep(paths: Paths, thresholds: Iterable[float]) -> list[Point]:
    """A point for each threshold, in the order given."""
    return [
        _point(paths, [walk(path.steps, below) for path in paths.paths], threshold=below)
        for below in thresholds
    ]


def single_models(paths: Paths) -> list[Point]:
    """A point for each model that answers all alone: what the cascade is held against."""
    return [
        _point(paths, [_Walk(p.steps[at], (p.steps[at],)) for p in paths.paths], model=model)
        for at, model in enumerate(paths.models)
    ]


def steps_of(paths: Paths) -> list[float]:
    """Thresholds at which anything changes: just above each confidence that was seen."""
    seen = sorted(
        {
            step.confidence
            for path in paths.paths
            for step in path.steps[:-1]
            if step.confidence is not None
        }
    )
    thin = seen[:: -(-len(seen) // MAX_STEPS_SHOWN)] if seen else []
    return [0.0, *(value + 1e-9 for value in thin)]


def _point(
    paths: Paths,
    walks: Sequence[_Walk],
    *,
    threshold: float | None = None,
    model: str | None = None,
) -> Point:
    """Means over the cases, each the mean over its trials."""
    by_case: dict[str, list[_Walk]] = {}
    for path, walked in zip(paths.paths, walks, strict=True):
        by_case.setdefault(path.case_id, []).append(walked)
    cases = list(by_case.values())
    scores = tuple(fmean(w.answer.score for w in trials) for trials in cases)
    costs = [w.cost_usd for w in walks]
    return Point(
        threshold=threshold,
        model=model,
        quality=fmean(scores),
        cost_usd=None if None in costs else _mean(cases, lambda w: w.cost_usd or 0.0),
        latency_ms=_mean(cases, lambda w: sum(step.latency_ms for step in w.asked)),
        escalated=_mean(cases, lambda w: float(len(w.asked) > 1)),
        shares={name: _mean(cases, _answered_by(name)) for name in paths.models},
        scores=scores,
    )


def _mean(cases: Sequence[Sequence[_Walk]], value: Callable[[_Walk], float]) -> float:
    return fmean(fmean(value(walked) for walked in trials) for trials in cases)


def _answered_by(model: str) -> Callable[[_Walk], float]:
    return lambda walked: float(walked.answer.model == model)


def clusters_of(paths: Paths) -> list[str] | None:
    """What each case was drawn with, in the order of `Point.scores`; None without clusters.

    A case without a cluster is one of its own.
    """
    found: dict[str, str | None] = {}
    for path in paths.paths:
        found.setdefault(path.case_id, path.cluster)
    if not any(found.values()):
        return None
    return [cluster or f"\0{case_id}" for case_id, cluster in found.items()]


def read_paths(
    store: Store, run_id: str, *, golden_set: str, models: Sequence[str], prompt: str, metric: str
) -> Paths:
    """The answers of a sealed run, case by case and trial by trial.

    `prompt` is NAME@VERSION. Raises NotComparable when the run is not sealed, DamagedStore
    when a file of it differs from what was sealed.
    """
    from evalkit.store.engine import Engine

    with Engine() as engine:
        engine.add_files("scores", store.score_files(run_id))
        engine.add_files("calls", store.call_files(run_id))
        rows = engine.rows(_ANSWERS, [golden_set, metric, prompt, list(models)])
    found: dict[tuple[str, int], dict[str, Step | None]] = {}
    clusters: dict[str, str | None] = {}
    for row in rows:
        found.setdefault((row["case_id"], row["trial"]), {})[row["model"]] = _step(row)
        clusters[row["case_id"]] = row["cluster"]
    paths = []
    for (case_id, _), by_model in found.items():
        steps = [step for step in map(by_model.get, models) if step is not None]
        if len(steps) == len(models):
            paths.append(Path(case_id=case_id, cluster=clusters[case_id], steps=tuple(steps)))
    return Paths(
        models=tuple(models),
        metric=metric,
        paths=tuple(paths),
        missing=len(found) - len(paths),
        without_confidence=sum(
            step.confidence is None and not step.failed
            for path in paths
            for step in path.steps[:-1]
        ),
    )


_ANSWERS = """
    SELECT s.case_id, s.trial, s.model, s.cluster, s.score, s.outcome, s.error_kind,
        c.confidence, s.cost_usd, s.latency_ms
    FROM scores AS s LEFT JOIN calls AS c USING (trace_id)
    WHERE s.golden_set = $1 AND s.metric = $2
        AND s.prompt_name || '@' || s.prompt_version = $3 AND list_contains($4, s.model)
    ORDER BY s.case_id, s.trial
    """


def _step(row: Mapping[str, Any]) -> Step | None:
    """None where there is no score: then nothing is known of this trial."""
    if row["score"] is None:
        return None
    failed = row["outcome"] == "product_failure"
    strategy = FAILURES.get(row["error_kind"]) if failed else None
    return Step(
        model=row["model"],
        score=row["score"],
        confidence=row["confidence"],
        cost_usd=row["cost_usd"],
        latency_ms=row["latency_ms"] or 0.0,
        failed=failed,
        failed_over=strategy is not None and strategy.fail_over,
    )
