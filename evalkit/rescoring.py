"""Carries out one rescoring, from a sealed run to a new one, for the CLI and scripts.

The new run has the old one's answers, pairs and trials, and scores by the scorers as they
are now. Journalled, resumed, drained and sealed like any run; the old run is only read.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any

from evalkit import __version__
from evalkit.call.budget import Budget
from evalkit.config import Settings
from evalkit.errors import ConfigError, NotComparable, StoreError
from evalkit.git import git_state
from evalkit.ids import new_id
from evalkit.records import Pair
from evalkit.schemas import nearest
from evalkit.score.golden import GoldenSet, load_golden_set
from evalkit.score.notes import run_notes
from evalkit.score.opponents import Opponents
from evalkit.score.rescore import LeftOut, RescorePlan, choose_executions, run_rescore
from evalkit.score.runner import PlannedSet, RunSummary
from evalkit.score.stored import StoredRun
from evalkit.session import (
    FinishedRun,
    Progress,
    golden_manifest,
    run_async,
    silent,
    until_interrupted,
)
from evalkit.store.views import RunWriter, Store, open_store
from evalkit.wiring import Bench, make_bench


@dataclass(frozen=True, slots=True, kw_only=True)
class RescoreRequest:
    """What is to be scored again; only speed and money may change when it is resumed."""

    run_id: str
    judges: tuple[str, ...] = ()
    """Only metrics of these judges are scored anew; with `metrics` both."""
    metrics: tuple[str, ...] = ()
    edited: bool = False
    """Also cases whose input is as it was, though expected values or checks are not."""
    against: str | None = None
    """The run, or RUN:MODEL/PROMPT@VERSION, whose answers pairwise judges compare with."""
    fresh: bool = False
    """Judges are asked again even where what they said of the same answer is kept."""
    concurrency: int | None = None
    max_cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescored:
    """A rescoring as it ended, complete or not."""

    run: FinishedRun
    rescored_from: str
    left_out: tuple[LeftOut, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            **self.run.as_json(),
            "rescored_from": self.rescored_from,
            "left_out": [asdict(one) for one in self.left_out],
        }


def rescore_run(
    settings: Settings,
    request: RescoreRequest,
    *,
    store: str | None = None,
    resume: str | None = None,
    progress: Progress | None = None,
    on_start: Callable[[str], None] = lambda line: None,
) -> Rescored:
    """Score a sealed run's answers again, or finish the rescoring `resume`.

    Raises NotComparable when the run is not complete or nothing of it can be scored
    again, DamagedStore when a file differs from its seal, ConfigError for an unknown
    metric or judge.
    """
    settings = settings.with_store(store)
    opened = open_store(settings.store_path)
    with ExitStack() as stack:
        writer = None
        if resume is not None:
            writer = stack.enter_context(opened.open_run(resume))
            request = _request_of(writer, request)
        source = opened.manifest(request.run_id)
        opponents = _opponents(opened, request.against)
        sets, bench = _load(source, settings, request, opponents)
        stored = stack.enter_context(StoredRun(opened, request.run_id))
        new_run_id = new_id() if writer is None else writer.run_id
        plan = _plan(stored, sets, bench, request, run_id=new_run_id)
        if writer is None:
            manifest = _manifest(source, plan, request, settings)
            writer = stack.enter_context(opened.create_run(manifest))
        else:
            _refuse_if_changed(writer, sets)
        on_start(_describe(plan, request))
        show = stack.enter_context((progress or silent)(len(plan.executions)))
        summary = run_async(_run(plan, bench, stored, writer, show))
        notes = _notes(source, sets, bench, summary)
        if summary.complete:
            writer.seal("complete", counts=dict(summary.outcomes), facts={"notes": notes})
        run = FinishedRun(
            run_id=writer.run_id, store=str(opened.path), summary=summary, notes=tuple(notes)
        )
        return Rescored(run=run, rescored_from=request.run_id, left_out=plan.left_out)


def _notes(
    source: Mapping[str, Any], sets: Mapping[str, PlannedSet], bench: Bench, summary: RunSummary
) -> list[str]:
    """Those of the old run hold, too: its answers are the same."""
    models = {pair.model for planned in sets.values() for pair in planned.pairs}
    golden_sets = {name: planned.golden for name, planned in sets.items()}
    now = [*bench.notes(models), *run_notes(golden_sets, summary)]
    return list(dict.fromkeys([*source.get("notes", ()), *now]))


def _opponents(store: Store, against: str | None) -> Opponents | None:
    """The answers of `RUN` or `RUN:MODEL/PROMPT@VERSION`."""
    if against is None:
        return None
    run_id, _, pair = against.partition(":")
    with StoredRun(store, run_id) as stored:
        return Opponents(stored, run_id=run_id, pair=Pair.parse(pair) if pair else None)


async def _run(
    plan: RescorePlan,
    bench: Bench,
    stored: StoredRun,
    journal: RunWriter,
    on_progress: Callable[[RunSummary], None],
) -> RunSummary:
    async with bench.orchestrator:
        return await until_interrupted(
            lambda stop: run_rescore(
                plan, stored=stored, journal=journal, on_progress=on_progress, stop=stop
            ),
            go_on=f"evalkit rescore --resume {plan.run_id}",
        )


# --- what is scored again -----------------------------------------------------------


def _load(
    source: Mapping[str, Any],
    settings: Settings,
    request: RescoreRequest,
    opponents: Opponents | None,
) -> tuple[dict[str, PlannedSet], Bench]:
    """The golden sets of a run as they are now, with their scorers."""
    golden_sets = {
        name: load_golden_set(settings.root / one["path"], settings=settings)
        for name, one in source["golden_sets"].items()
    }
    limit = request.max_cost_usd
    budget = None if limit is None else Budget(limit_usd=limit)
    bench = make_bench(
        settings,
        list(golden_sets.values()),
        budget=budget,
        opponents=opponents,
        fresh=request.fresh,
    )
    return {
        name: _planned(golden, source["golden_sets"][name], bench)
        for name, golden in golden_sets.items()
    }, bench


def _planned(golden: GoldenSet, before: Mapping[str, Any], bench: Bench) -> PlannedSet:
    return PlannedSet(
        golden=golden,
        pairs=tuple(Pair.parse(pair) for pair in before["pairs"]),
        trials=before["trials"],
        case_numbers=range(len(golden.cases)),
        scorers=bench.scorers(golden),
        case_scorers=lambda case: bench.case_scorers(golden, case),
    )


def _plan(
    stored: StoredRun,
    sets: Mapping[str, PlannedSet],
    bench: Bench,
    request: RescoreRequest,
    *,
    run_id: str,
) -> RescorePlan:
    executions, left_out = choose_executions(stored, sets, edited=request.edited)
    if not executions:
        raise NotComparable(
            f"run {request.run_id}: nothing can be scored again: {describe_left_out(left_out)}."
        )
    metrics = None
    if request.metrics or request.judges:
        goldens = [planned.golden for planned in sets.values()]
        metrics = _chosen_metrics(request, goldens, own=stored.metrics())
    return RescorePlan(
        run_id=run_id,
        sets=sets,
        executions=executions,
        left_out=left_out,
        metrics=metrics,
        concurrency=request.concurrency or bench.settings.run.concurrency,
        budget=bench.budget,
    )


def _chosen_metrics(
    request: RescoreRequest, goldens: Iterable[GoldenSet], *, own: Collection[str]
) -> set[str]:
    """Metrics by name and by judge; `own` are those that stored scores have."""
    specs = [metric for golden in goldens for metric in golden.metrics]
    known = {metric.name for metric in specs} | set(own)
    judges = {metric.params["judge"] for metric in specs if metric.kind == "judge"}
    for option, names, there in (
        ("--metric", request.metrics, known),
        ("--judge", request.judges, judges),
    ):
        for name in names:
            if name not in there:
                hint = nearest(name, there) if there else "There is none."
                raise ConfigError(f"{option} {name}: not in this run's golden sets. {hint}")
    by_judge = {m.name for m in specs if m.kind == "judge" and m.params["judge"] in request.judges}
    return {*request.metrics, *by_judge}


def describe_left_out(left_out: Sequence[LeftOut]) -> str:
    """How many cases are left out, for each reason."""
    words = {
        "gone": "gone from the golden set",
        "changed": "with another input now",
        "edited": "with other expected values or checks now (--edited scores these, too)",
        "no_call": "without a stored answer",
    }
    parts = []
    for why, text in words.items():
        n = sum(one.why == why for one in left_out)
        if n:
            parts.append(f"{n} case{'s' * (n != 1)} {text}")
    return ", ".join(parts) or "it has no scores"


def _describe(plan: RescorePlan, request: RescoreRequest) -> str:
    what = "all metrics" if plan.metrics is None else ", ".join(sorted(plan.metrics))
    text = (
        f"run {plan.run_id}: {len(plan.executions)} stored answers of run {request.run_id}, "
        f"{what}; no model under test is called"
    )
    return f"{text}\nleft out: {describe_left_out(plan.left_out)}" if plan.left_out else text


# --- the manifest ----------------------------------------------------------------


def _manifest(
    source: Mapping[str, Any], plan: RescorePlan, request: RescoreRequest, settings: Settings
) -> dict[str, Any]:
    """As a run's, with the old run's origin: what is compared is how its answers came about."""
    facts: dict[str, Any] = {
        "run_id": plan.run_id,
        "rescored_from": request.run_id,
        "git": source.get("git"),
        "versions": {"evalkit": __version__, "python": platform.python_version()},
        "seed": source.get("seed"),
        "concurrency": plan.concurrency,
        "planned": len(plan.executions),
        "request": asdict(request),
        "pairs": source["pairs"],
        "prompts": source["prompts"],
        "golden_sets": {
            name: {
                **golden_manifest(planned.golden, settings),
                "n_cases": len({e.case_id for e in plan.executions if e.golden_set == name}),
                "trials": planned.trials,
                "pairs": source["golden_sets"][name]["pairs"],
            }
            for name, planned in plan.sets.items()
        },
        "rescored": {
            "git": git_state(settings.root),
            "golden_set_hashes": {n: one["hash"] for n, one in source["golden_sets"].items()},
            "scorers": _scorer_versions(plan.sets),
            "left_out": [asdict(one) for one in plan.left_out],
        },
    }
    if (source.get("stop_early") or {}).get("stopped"):
        # What was decided then was decided on other scores; that it stopped stays true.
        facts["stop_early"] = {**source["stop_early"], "comparisons": []}
    return facts


def _scorer_versions(sets: Mapping[str, PlannedSet]) -> dict[str, dict[str, str]]:
    return {
        name: {scorer.metric: scorer.version for scorer in planned.scorers}
        for name, planned in sets.items()
    }


def _request_of(writer: RunWriter, asked: RescoreRequest) -> RescoreRequest:
    """What a rescoring to be resumed was asked to do."""
    run_id = writer.run_id
    if not writer.manifest.get("rescored_from"):
        raise ConfigError(
            f"run {run_id} is no rescoring. Finish it with: evalkit run --resume {run_id}"
        )
    if asked.run_id or asked.judges or asked.metrics or asked.edited or asked.against:
        raise ConfigError(
            "--resume finishes the rescoring as it was started: leave out RUN, --judge, "
            "--metric, --against and --edited, or start a new one."
        )
    before = writer.manifest["request"]
    names = {key: tuple(before[key]) for key in ("judges", "metrics")}
    original = RescoreRequest(**{**before, **names})
    limit = original.max_cost_usd if asked.max_cost_usd is None else asked.max_cost_usd
    return replace(
        original, max_cost_usd=limit, concurrency=asked.concurrency or original.concurrency
    )


def _refuse_if_changed(writer: RunWriter, sets: Mapping[str, PlannedSet]) -> None:
    """Half a run by one judge and half by another would be neither."""
    hashes = {name: planned.golden.hash for name, planned in sets.items()}
    before = {name: one["hash"] for name, one in writer.manifest["golden_sets"].items()}
    if hashes != before or writer.manifest["rescored"]["scorers"] != _scorer_versions(sets):
        raise StoreError(
            f"run {writer.run_id}: a golden set or a judge has changed since the rescoring was "
            "started. Restore it, or start a new one: evalkit rescore "
            f"{writer.manifest['rescored_from']}"
        )
