"""Builds what a run needs from the settings, once, for the CLI, pytest and scripts alike.

Golden sets meet pairs, metrics become scorers, judges become features of their own on
the same call path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

from evalkit.call.budget import Budget
from evalkit.call.orchestrator import Orchestrator
from evalkit.call.prompts import PromptRegistry
from evalkit.call.sharing import Gates, Sharing
from evalkit.config import Settings
from evalkit.errors import ConfigError, GoldenSetError
from evalkit.records import Answer, CallRecord, Case, Mark, Pair
from evalkit.score.bias import self_preference
from evalkit.score.checks import check_version, compile_check
from evalkit.score.golden import (
    GoldenSet,
    MetricSpec,
    load_golden_sets,
    shared_names,
)
from evalkit.score.judge import JudgeSpec
from evalkit.score.judging import Judging, find_judge, with_judge_features
from evalkit.score.opponents import Opponents
from evalkit.score.own_code import OwnCode
from evalkit.score.runner import PlannedSet, RunPlan, Scorer, order_cases, shuffle_drawn


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
    stop_early: bool = False
    """Cases in random order, so that a run may end when enough is known."""
    baseline_pair: str | None = None
    """MODEL/PROMPT@VERSION that runs beside those asked for, to be compared with."""
    batch: bool = False
    """Through the providers' batch endpoints: within a day, at half the price."""
    shard: tuple[int, int] | None = None
    """(i, n): every n-th case from the i-th, counted from 1; other machines run the others."""
    record: str | None = None
    """File to append every response to."""
    replay: str | None = None
    """File of responses to answer from; no model is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRun:
    """A plan with the orchestrator that runs it."""

    plan: RunPlan
    orchestrator: Orchestrator
    baseline_pair: str | None = None
    """The pair the others are compared with, where the request names one."""
    notes: tuple[str, ...] = ()
    """What should be known of the run before its first call."""


def prepare_run(
    settings: Settings,
    request: RunRequest,
    *,
    run_id: str,
    sets: Sequence[GoldenSet] | None = None,
    sharing: Sharing | None = None,
) -> PreparedRun:
    """Load golden sets (unless `sets` are there already), prompts and judges; decide what runs.

    `sharing` is what this process has together with others that run parts of the same.

    Raises ConfigError, ContentError or GoldenSetError with every problem found, before
    any call.
    """
    if sets is None:
        sets = load_golden_sets(request.golden_sets, settings=settings)
    if shared := shared_names(sets, root=settings.root):
        raise GoldenSetError([str(problem) for problem in shared])
    limit = request.max_cost_usd
    own = None if limit is None else Budget(limit_usd=limit)
    bench = make_bench(
        settings,
        sets,
        budget=own if sharing is None else sharing.budget,
        batch_scope=run_id if request.batch else None,
        fresh=request.record is not None,  # a kept judgement would be missing on the tape
        tape=_tape(request),
        secret=run_id,
        gates=None if sharing is None else sharing.gates,
    )
    orchestrator = bench.orchestrator
    planned = tuple(_plan_set(golden, request, bench, run_id=run_id) for golden in sets)
    plan = RunPlan(
        run_id=run_id,
        sets=planned,
        concurrency=_concurrency(planned, request, orchestrator.settings),
        seed=request.seed,
        budget=bench.budget,
    )
    return PreparedRun(
        plan=plan,
        orchestrator=orchestrator,
        baseline_pair=request.baseline_pair,
        notes=(
            *bench.notes(pair.model for one in planned for pair in one.pairs),
            *_played(request),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What scores answers: the judges, the call path they use, and what they may spend."""

    settings: Settings
    orchestrator: Orchestrator
    judges: Mapping[str, JudgeSpec]
    judging: Judging
    budget: Budget | None
    opponents: Opponents | None = None
    """The answers that pairwise judges compare with; None: they have nothing to compare."""
    own_code: OwnCode = field(default_factory=OwnCode)

    def notes(self, models: Iterable[str]) -> list[str]:
        """What speaks against these judges of these models."""
        return self_preference(self.judges, models, self.settings)

    def scorers(self, golden: GoldenSet) -> tuple[Scorer, ...]:
        """The golden set's own scorers; people (tier 3) score later."""
        return tuple(self._scorer(metric, golden) for metric in golden.metrics if metric.tier != 3)

    def case_scorers(self, golden: GoldenSet, case: Case) -> list[Scorer]:
        """Scorers of the case's own checks."""
        return [
            _check_scorer(metric, golden.path, self.own_code)
            for metric in golden.case_metrics(case)
        ]

    def _scorer(self, metric: MetricSpec, golden: GoldenSet) -> Scorer:
        if metric.kind == "judge":
            spec = self.judges[metric.params["judge"]]
            return _judge_scorer(metric, spec, self.judging, self.opponents, golden.name)
        return _check_scorer(metric, golden.path, self.own_code)


def make_bench(
    settings: Settings,
    sets: Sequence[GoldenSet],
    *,
    budget: Budget | None,
    batch_scope: str | None = None,
    opponents: Opponents | None = None,
    fresh: bool = False,
    tape: Tape | None = None,
    secret: str | None = None,
    gates: Gates | None = None,
) -> Bench:
    """Load the judges that these golden sets name, each as a feature of its own.

    `batch_scope`, a run's id, has all calls go through the providers' batch endpoints;
    `fresh` has judges asked again where what they said of the same answer is kept; `tape`
    stands between the call path and the providers. Of one `secret`, that of a run, the same
    questions are the same bytes.
    """
    judges = _load_judges(sets, settings)
    all_features = with_judge_features(settings, judges.values())
    if batch_scope is not None:
        from evalkit.call.batch import batch_settings

        all_features = batch_settings(all_features, scope=batch_scope)
    orchestrator = (
        Orchestrator.from_config(all_features, secret=secret, gates=gates)
        if tape is None
        else tape(all_features)
    )
    return Bench(
        settings=settings,
        orchestrator=orchestrator,
        judges=judges,
        judging=Judging(orchestrator=orchestrator, budget=budget, fresh=fresh, secret=secret),
        budget=budget,
        opponents=opponents,
    )


Tape: TypeAlias = Callable[[Settings], Orchestrator]
"""Builds an orchestrator with a tape between it and the providers."""


def _tape(request: RunRequest) -> Tape | None:
    path = request.record if request.replay is None else request.replay
    if path is None:
        return None
    from evalkit.call.functions import make_importable
    from evalkit.call.tape import Playing, Recording

    kind = Recording if request.replay is None else Playing

    def build(settings: Settings) -> Orchestrator:
        make_importable(settings.root)
        return Orchestrator(settings, providers=kind(Path(path), settings.providers))

    return build


def _played(request: RunRequest) -> list[str]:
    if request.replay is None:
        return []
    return [f"answers are those recorded in {request.replay}: no model was asked"]


def _plan_set(golden: GoldenSet, request: RunRequest, bench: Bench, *, run_id: str) -> PlannedSet:
    numbers = order_cases(len(golden.cases), limit=request.limit, seed=request.seed)
    if request.shard is not None:
        number, of = request.shard
        numbers = numbers[number - 1 :: of]
    if request.stop_early:
        # The order must be the same when the run is resumed, and another in the next run.
        seed = run_id if request.seed is None else request.seed
        clusters = [case.cluster for case in golden.cases]
        numbers = shuffle_drawn(numbers, clusters, seed=seed)
    return PlannedSet(
        golden=golden,
        pairs=tuple(pairs_of(golden, request, bench.settings)),
        trials=request.trials or golden.trials,
        case_numbers=numbers,
        scorers=bench.scorers(golden),
        case_scorers=lambda case: bench.case_scorers(golden, case),
    )


def pairs_of(
    golden: GoldenSet, request: RunRequest, settings: Settings, *, option: str = "--"
) -> list[Pair]:
    """Models x prompt versions that run a golden set: those asked for, else its feature's own.

    `option` is what begins the options by which they were asked for.

    Raises ConfigError for a model or prompt that is not there, or when none of the
    prompts asked for is this feature's.
    """
    feature = settings.features[golden.feature]
    models = list(request.models) or [feature.model]
    for model in models:
        if model not in settings.models:
            known = ", ".join(sorted(settings.models))
            raise ConfigError(f"{option}model {model}: no such model. There are: {known}.")
    versions = []
    for prompt in request.prompts:
        name, at, version = prompt.rpartition("@")
        if not (at and name and version):
            raise ConfigError(
                f"{option}prompt {prompt}: not NAME@VERSION, e.g. classify-ticket@v2."
            )
        if name == feature.prompt_name:
            versions.append(version)
    if request.prompts and not versions:
        raise ConfigError(
            f"golden set {golden.name}: none of {option}prompt {', '.join(request.prompts)} is a "
            f"version of its feature's prompt {feature.prompt_name}."
        )
    pairs = [
        Pair(model=model, prompt_name=feature.prompt_name, prompt_version=version)
        for version in (versions or [feature.prompt_version])
        for model in models
    ]
    if request.baseline_pair is not None:
        pairs.insert(0, _baseline_pair(request.baseline_pair, golden, settings))
    registry = PromptRegistry(settings.root)
    for pair in pairs:
        registry.get(pair.prompt_name, pair.prompt_version)
    return list(dict.fromkeys(pairs))


def _baseline_pair(text: str, golden: GoldenSet, settings: Settings) -> Pair:
    try:
        pair = Pair.parse(text)
    except ValueError as error:
        raise ConfigError(f"--baseline-pair {error}") from None
    if pair.model not in settings.models:
        known = ", ".join(sorted(settings.models))
        raise ConfigError(f"--baseline-pair {text}: no model {pair.model!r}. There are: {known}.")
    wanted = settings.features[golden.feature].prompt_name
    if pair.prompt_name != wanted:
        raise ConfigError(
            f"--baseline-pair {text}: golden set {golden.name} runs prompt {wanted}. "
            f"Name a version of it: {pair.model}/{wanted}@VERSION."
        )
    return pair


def _concurrency(planned: Sequence[PlannedSet], request: RunRequest, settings: Settings) -> int:
    """Cases in flight: as asked, but never more than the slowest provider's own limit.

    A case waiting for a provider's bulkhead would spend its deadline waiting. A batch is
    the better the more waits together.
    """
    limits = [
        settings.providers[settings.models[pair.model].provider].max_in_flight
        for one in planned
        for pair in one.pairs
    ]
    usual = settings.run.concurrency
    if request.batch:
        from evalkit.call.batch import MAX_CONCURRENCY

        usual = min(MAX_CONCURRENCY, sum(len(s.case_numbers) * len(s.pairs) for s in planned))
    return max(1, min([request.concurrency or usual, *limits]))


# --- scorers ---------------------------------------------------------------------


def _check_scorer(metric: MetricSpec, base: Path, own_code: OwnCode) -> Scorer:
    folder = base if base.is_dir() else base.parent
    check = compile_check(metric.check_spec(), base=folder)

    async def beside_the_loop(answer: Answer) -> tuple[Mark, Sequence[CallRecord]]:
        return await own_code.score(check, answer), ()

    return Scorer(
        metric=metric.name,
        tier=1,
        name=metric.kind,
        version=check_version(metric.check_spec(), base=folder),
        gate=metric.gate,
        must_pass=metric.must_pass,
        score=beside_the_loop if metric.kind == "python" else check,
    )


def _judge_scorer(
    metric: MetricSpec, spec: JudgeSpec, judging: Judging, opponents: Opponents | None, name: str
) -> Scorer:
    against = None if opponents is None else partial(opponents.answer_to, golden_set=name)
    rate = judging.rater(spec, against=against)
    compared = f":against={opponents.name}" if spec.pairwise and opponents else ""
    asks = against is not None or not spec.pairwise
    null_answers = judging.null_answers(spec)

    async def score(answer: Answer) -> tuple[Mark, Sequence[CallRecord]]:
        objection, calls = await null_answers.objection() if asks else (None, ())
        if objection is not None:
            return objection, calls
        judgement = await rate(answer)
        return judgement.mark, (*calls, *judgement.records)

    return Scorer(
        metric=metric.name,
        tier=2,
        name=spec.name,
        version=f"{judging.version(spec)}{compared}",
        gate=metric.gate,
        must_pass=metric.must_pass,
        score=score,
    )


def _load_judges(sets: Sequence[GoldenSet], settings: Settings) -> dict[str, JudgeSpec]:
    names = {m.params["judge"] for golden in sets for m in golden.metrics if m.kind == "judge"}
    return {name: find_judge(name, settings=settings) for name in sorted(names)}
