"""Builds what a run needs from the settings, once, for the CLI, pytest and scripts alike.

Golden sets meet pairs, metrics become scorers, judges become features of their own on
the same call path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evalkit.call.orchestrator import Orchestrator
from evalkit.call.prompts import PromptRegistry
from evalkit.call.trace import Rendered
from evalkit.config import FeatureSettings, Settings
from evalkit.content import find_content
from evalkit.errors import ConfigError
from evalkit.records import Answer, CallRecord, CallResult, Case, Mark, Message, Pair
from evalkit.score.checks import check_version, compile_check
from evalkit.score.golden import GoldenSet, MetricSpec, find_golden_sets, load_golden_set
from evalkit.score.judge import Judge, JudgeSpec, load_judge
from evalkit.score.runner import PlannedSet, RunPlan, Scorer, order_cases

JUDGE_MAX_TOKENS = 512
JUDGE_LATENCY_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What somebody asked to run; None means as the golden set or configuration says."""

    golden_sets: Sequence[Path] = ()
    models: Sequence[str] = ()
    prompts: Sequence[str] = ()
    trials: int | None = None
    limit: int | None = None
    concurrency: int | None = None
    seed: int | None = None
    max_cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRun:
    """A plan with the orchestrator that runs it."""

    plan: RunPlan
    orchestrator: Orchestrator


def prepare_run(
    settings: Settings,
    request: RunRequest,
    *,
    run_id: str,
    sets: Sequence[GoldenSet] | None = None,
) -> PreparedRun:
    """Load golden sets (unless `sets` are there already), prompts and judges; decide what runs.

    Raises ConfigError, ContentError or GoldenSetError with every problem found, before
    any call.
    """
    if sets is None:
        paths = find_golden_sets(request.golden_sets, settings=settings)
        sets = [load_golden_set(path, settings=settings) for path in paths]
    judges = _load_judges(sets, settings)
    orchestrator = Orchestrator.from_config(_with_judge_features(settings, judges))
    planned = tuple(_plan_set(golden, request, settings, judges, orchestrator) for golden in sets)
    plan = RunPlan(
        run_id=run_id,
        sets=planned,
        concurrency=_concurrency(planned, request, orchestrator.settings),
        seed=request.seed,
        max_cost_usd=request.max_cost_usd,
    )
    return PreparedRun(plan=plan, orchestrator=orchestrator)


def _plan_set(
    golden: GoldenSet,
    request: RunRequest,
    settings: Settings,
    judges: Mapping[str, JudgeSpec],
    orchestrator: Orchestrator,
) -> PlannedSet:
    def scorer(metric: MetricSpec) -> Scorer:
        if metric.kind == "judge":
            return _judge_scorer(metric, judges[metric.params["judge"]], orchestrator)
        return _check_scorer(metric, golden.path)

    def case_scorers(case: Case) -> Sequence[Scorer]:
        return [_check_scorer(m, golden.path) for m in golden.case_metrics(case)]

    return PlannedSet(
        golden=golden,
        pairs=tuple(pairs_of(golden, request, settings)),
        trials=request.trials or golden.trials,
        case_numbers=order_cases(len(golden.cases), limit=request.limit, seed=request.seed),
        scorers=tuple(scorer(metric) for metric in golden.metrics if metric.tier != 3),
        case_scorers=case_scorers,
    )


def pairs_of(golden: GoldenSet, request: RunRequest, settings: Settings) -> list[Pair]:
    """Models x prompt versions that run a golden set: those asked for, else its feature's own.

    Raises ConfigError for a model or prompt that is not there, or when none of the
    prompts asked for is this feature's.
    """
    feature = settings.features[golden.feature]
    models = list(request.models) or [feature.model]
    for model in models:
        if model not in settings.models:
            known = ", ".join(sorted(settings.models))
            raise ConfigError(f"--model {model}: no such model. There are: {known}.")
    versions = []
    for prompt in request.prompts:
        name, at, version = prompt.rpartition("@")
        if not (at and name and version):
            raise ConfigError(f"--prompt {prompt}: not NAME@VERSION, e.g. classify-ticket@v2.")
        if name == feature.prompt_name:
            versions.append(version)
    if request.prompts and not versions:
        raise ConfigError(
            f"golden set {golden.name}: none of --prompt {', '.join(request.prompts)} is a "
            f"version of its feature's prompt {feature.prompt_name}."
        )
    registry = PromptRegistry(settings.root)
    pairs = [
        Pair(model=model, prompt_name=feature.prompt_name, prompt_version=version)
        for version in (versions or [feature.prompt_version])
        for model in models
    ]
    for pair in pairs:
        registry.get(pair.prompt_name, pair.prompt_version)
    return list(dict.fromkeys(pairs))


def _concurrency(planned: Sequence[PlannedSet], request: RunRequest, settings: Settings) -> int:
    """Cases in flight: as asked, but never more than the slowest provider's own limit.

    A case waiting for a provider's bulkhead would spend its deadline waiting.
    """
    limits = [
        settings.providers[settings.models[pair.model].provider].max_in_flight
        for one in planned
        for pair in one.pairs
    ]
    return max(1, min(request.concurrency or settings.run.concurrency, *limits))


# --- scorers ---------------------------------------------------------------------


def _check_scorer(metric: MetricSpec, base: Path) -> Scorer:
    folder = base if base.is_dir() else base.parent
    return Scorer(
        metric=metric.name,
        tier=1,
        name=metric.kind,
        version=check_version(metric.check_spec(), base=folder),
        gate=metric.gate,
        must_pass=metric.must_pass,
        score=compile_check(metric.check_spec(), base=folder),
    )


def _judge_scorer(metric: MetricSpec, spec: JudgeSpec, orchestrator: Orchestrator) -> Scorer:
    judge = Judge(spec, execute=judge_execute(spec, orchestrator))

    async def score(answer: Answer) -> tuple[Mark, Sequence[CallRecord]]:
        judgement = await judge.judge(answer)
        return judgement.mark, judgement.records

    return Scorer(
        metric=metric.name,
        tier=2,
        name=spec.name,
        version=f"{spec.hash}:{orchestrator.settings.features[judge_feature(spec)].model}",
        gate=metric.gate,
        must_pass=metric.must_pass,
        score=score,
    )


def judge_feature(spec: JudgeSpec) -> str:
    """Name of the feature that a judge is on the call path."""
    return f"judge:{spec.name}"


def judge_execute(spec: JudgeSpec, orchestrator: Orchestrator) -> Callable[..., Any]:
    """How a judge makes its calls: as a feature of its own, retries and records included."""

    async def execute(
        messages: tuple[Message, ...], response_schema: Mapping[str, Any], *, trial: int
    ) -> CallResult:
        return await orchestrator.execute(
            judge_feature(spec),
            {},
            rendered=Rendered(
                name=judge_feature(spec), version=spec.version, hash=spec.hash, messages=messages
            ),
            response_schema=response_schema,
            seed=trial,
        )

    return execute


def _load_judges(sets: Sequence[GoldenSet], settings: Settings) -> dict[str, JudgeSpec]:
    names = {m.params["judge"] for golden in sets for m in golden.metrics if m.kind == "judge"}
    return {
        name: load_judge(find_content("judges", f"{name}.yaml", project=settings.root))
        for name in sorted(names)
    }


def _with_judge_features(settings: Settings, judges: Mapping[str, JudgeSpec]) -> Settings:
    """Settings in which every judge is a feature, on the model that it or `[run]` names."""
    if not judges:
        return settings
    features = dict(settings.features)
    for spec in judges.values():
        model = spec.model or settings.run.judge_model
        if model is None:
            raise ConfigError(
                f"judge {spec.name}: no model. Name one in judges/{spec.name}.yaml (model: …) "
                "or for all judges in evalkit.toml ([run] judge_model = …)."
            )
        if model not in settings.models:
            known = ", ".join(sorted(settings.models))
            raise ConfigError(f"judge {spec.name}: no model {model!r}. There are: {known}.")
        features[judge_feature(spec)] = FeatureSettings(
            name=judge_feature(spec),
            task="judge",
            prompt_name=judge_feature(spec),
            prompt_version=spec.version,
            model=model,
            max_tokens=JUDGE_MAX_TOKENS,
            max_latency_ms=JUDGE_LATENCY_MS,
            retries=2,
            temperature=0.0,
        )
    return replace(settings, features=features)
