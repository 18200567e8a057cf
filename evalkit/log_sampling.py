"""Carries out one sampling job over production's log, for the CLI and scripts.

A job is a run whose id is its window and configuration: asked for again it is found
complete, or finished from its journal, and no judge is asked twice. Without a start, the
window goes on where the newest complete one of the same configuration ended.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from evalkit import __version__
from evalkit.call.budget import Budget
from evalkit.call.sharing import Sharing
from evalkit.config import Settings
from evalkit.errors import ConfigError
from evalkit.git import git_state
from evalkit.score.golden import GoldenSet, load_golden_sets
from evalkit.score.log_draw import DrawRule
from evalkit.score.metric_specs import MetricSpec, canonical, needs_of
from evalkit.score.online import (
    STRATA,
    Do,
    DrawnWindow,
    OnlineSet,
    SamplePlan,
    draw_window,
    run_sample,
    window_name,
)
from evalkit.score.runner import RunSummary
from evalkit.session import (
    FinishedRun,
    Progress,
    golden_manifest,
    run_async,
    silent,
    until_interrupted,
)
from evalkit.store.runs import RunWriter
from evalkit.store.views import Store, open_store
from evalkit.wiring import Bench, make_bench

SECOND = 1_000_000
MINUTE = 60 * SECOND
DAY = 24 * 60 * MINUTE


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRequest:
    """What is to be sampled."""

    since: int | None = None
    """None: where the last job of this configuration ended, else a day ago."""
    until: int
    rule: DrawRule
    by: tuple[str, ...] = ("feature", "model", "prompt_version")
    golden_sets: Sequence[Path] = ()
    max_cost_usd: float | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedSample:
    """A job as it ended."""

    run: FinishedRun
    since: int
    until: int
    calls: int
    """Calls of the window that could be scored."""
    drawn: Mapping[str, int]
    """Share (random, active) -> calls that judges were asked about."""
    already_done: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSample:
    """All of a job but its window."""

    bench: Bench
    sets: tuple[OnlineSet, ...]
    config: str
    """Hash of all that decides the job's scores, but for its window and its calls."""

    def plan(
        self, settings: Settings, request: SampleRequest, *, since: int, until: int
    ) -> SamplePlan:
        return SamplePlan(
            run_id=f"sample-{window_name(since, until)}-{self.config}",
            since=since,
            until=until,
            rule=request.rule,
            by=request.by,
            sets=self.sets,
            limits_ms={name: one.max_latency_ms for name, one in settings.features.items()},
            concurrency=request.concurrency or settings.run.concurrency,
            budget=self.bench.budget,
        )


CrewOf = Callable[
    [Settings, SampleRequest, PreparedSample, SamplePlan], AbstractAsyncContextManager[Do]
]
"""Makes the crew that asks the judges in place of this process."""


def prepare_sample(
    settings: Settings, request: SampleRequest, *, sharing: Sharing | None = None
) -> PreparedSample:
    """Load golden sets and judges; `sharing` is what other processes of the same job have part in.

    Raises ConfigError, ContentError or GoldenSetError before any judge is asked.
    """
    goldens = load_golden_sets(request.golden_sets, settings=settings)
    limit = request.max_cost_usd
    own = None if limit is None else Budget(limit_usd=limit)
    bench = make_bench(
        settings,
        goldens,
        budget=own if sharing is None else sharing.budget,
        gates=None if sharing is None else sharing.gates,
    )
    sets = tuple(_online_set(golden, bench, settings) for golden in goldens)
    return PreparedSample(bench=bench, sets=sets, config=_config_hash(sets, request))


def sample_log(
    settings: Settings,
    request: SampleRequest,
    *,
    store: str | None = None,
    progress: Progress | None = None,
    crew_of: CrewOf | None = None,
) -> FinishedSample | None:
    """Do the job, or the rest of it; None when its window is empty.

    `crew_of` makes the workers that ask the judges (`evalkit.cluster`).

    Raises ConfigError, ContentError, GoldenSetError or DamagedStore before any judge is asked.
    """
    settings = settings.with_store(store)
    for name in request.by:
        if name not in STRATA:
            raise ConfigError(f"--by {name}: not a column to sample by: {', '.join(STRATA)}.")
    opened = open_store(settings.store_path)
    prepared = prepare_sample(settings, request)
    # Whole seconds, as the run's id says them.
    since, until = (at // SECOND * SECOND for at in _window(opened, request, prepared.config))
    if until <= since:
        return None
    plan = prepared.plan(settings, request, since=since, until=until)
    crew = None if crew_of is None else crew_of(settings, request, prepared, plan)
    return _carry_out(plan, prepared, opened, settings, progress or silent, crew)


def _carry_out(
    plan: SamplePlan,
    prepared: PreparedSample,
    store: Store,
    settings: Settings,
    show: Progress,
    crew: AbstractAsyncContextManager[Do] | None,
) -> FinishedSample:
    said = store.feedback()
    plan = replace(plan, with_feedback=len(said) > 0)
    store.verify_production(since=plan.since, until=plan.until)
    with (
        store.production(since=plan.since, until=plan.until) as engine,
        _writer(plan, store, settings, prepared.config) as writer,
    ):
        engine.add_table("feedback", said)
        window = draw_window(engine, plan)
        already = writer.is_complete
        with show(window.size) as on_progress:

            async def work() -> RunSummary:
                async with prepared.bench.orchestrator:
                    return await until_interrupted(
                        lambda stop: run_sample(
                            plan,
                            window if not already else DrawnWindow(calls={}, drawn={}),
                            engine=engine,
                            journal=writer,
                            on_progress=on_progress,
                            stop=stop,
                            crew=None if already else crew,
                        ),
                        go_on="evalkit sample, and the options it was started with",
                    )

            summary = run_async(work())
        if summary.complete and not already:
            writer.seal("complete", counts=dict(summary.outcomes), facts=_facts(writer, window))
        if already:
            summary.planned = summary.done
        return FinishedSample(
            run=FinishedRun(run_id=plan.run_id, store=str(store.path), summary=summary),
            since=plan.since,
            until=plan.until,
            calls=window.size,
            drawn=window.shares,
            already_done=already,
        )


def _writer(plan: SamplePlan, store: Store, settings: Settings, config: str) -> RunWriter:
    """The run of this window: the one that is there, or a new one."""
    if (store.path / "runs" / plan.run_id / "manifest.json").exists():
        return store.open_run(plan.run_id)
    return store.create_run(
        {
            "run_id": plan.run_id,
            "kind": "sample",
            "git": git_state(settings.root),
            "versions": {"evalkit": __version__, "python": platform.python_version()},
            # Not under golden_sets: no gate and no baseline is to take a sample for a run of cases.
            "golden_sets": {},
            "sample": {
                "since": plan.since,
                "until": plan.until,
                "by": list(plan.by),
                "config": config,
                **asdict(plan.rule),
                "golden_sets": {
                    one.golden.name: golden_manifest(one.golden, settings) for one in plan.sets
                },
            },
        }
    )


def _facts(writer: RunWriter, window: DrawnWindow) -> dict[str, Any]:
    sample = {**writer.manifest["sample"], "calls": window.size, "drawn": window.shares}
    return {"sample": sample, "planned": window.size}


def _online_set(golden: GoldenSet, bench: Bench, settings: Settings) -> OnlineSet:
    """The metrics that can score a call without an expected value."""
    by_name = {scorer.metric: scorer for scorer in bench.scorers(golden)}
    usable = []
    for metric in golden.metrics:
        scorer = by_name.get(metric.name)
        if scorer is None or _is_pairwise(metric, bench):
            continue
        missing = needs_of(metric, project=settings.root)
        asks_for_expected = missing is not None and (missing(_ANY_INPUT) is not None)
        if not asks_for_expected:
            usable.append((scorer, missing))
    return OnlineSet(golden=golden, scorers=tuple(usable))


_ANY_INPUT = {"input": {"documents": [{"id": "d1", "text": "…"}]}}
"""A call that has all a call can have: what it lacks is an expected value."""


def _is_pairwise(metric: MetricSpec, bench: Bench) -> bool:
    """Whether a judge compares two answers; production has one."""
    if metric.kind != "judge":
        return False
    return any(leaf.pairwise for leaf in bench.judges[metric.params["judge"]].leaves)


def _config_hash(sets: Sequence[OnlineSet], request: SampleRequest) -> str:
    """Of all that decides a job's scores, but for its window and its calls."""
    scorers = [
        [one.golden.name, scorer.metric, scorer.version]
        for one in sets
        for scorer, _ in one.scorers
    ]
    whole = [sorted(scorers), asdict(request.rule), list(request.by)]
    return hashlib.sha256(canonical(whole).encode()).hexdigest()[:12]


def _window(store: Store, request: SampleRequest, config: str) -> tuple[int, int]:
    """The window asked for; without a start the one after the newest, or what is left of it."""
    if request.since is not None:
        return request.since, request.until
    jobs = [
        run
        for run in store.runs()
        if run.get("kind") == "sample" and run["sample"]["config"] == config
    ]
    open_jobs = [run["sample"] for run in jobs if run["status"] != "complete"]
    if open_jobs:
        oldest = min(open_jobs, key=lambda sample: int(sample["since"]))
        return oldest["since"], oldest["until"]
    ended = max(map(_looked_until, jobs), default=None)
    return (request.until - DAY if ended is None else ended), request.until


def _looked_until(job: Mapping[str, Any]) -> int:
    """The end of a job's window, or its own start where that came first: no call was later."""
    started = datetime.fromisoformat(job["created_at"]) - datetime(1970, 1, 1, tzinfo=UTC)
    return min(int(job["sample"]["until"]), started // timedelta(microseconds=1))
