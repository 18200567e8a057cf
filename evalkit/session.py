"""Carries out one run, from what was asked to sealed files, for the CLI and scripts.

Opens the store before the first paid call, journals every finished case, drains on the
first interruption and stops at once on the second, seals what is complete.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import platform
import signal
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    contextmanager,
    suppress,
)
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from evalkit import __version__
from evalkit.config import Settings
from evalkit.errors import ConfigError, Interrupted, StoreError
from evalkit.git import git_state
from evalkit.ids import new_id
from evalkit.score.case_prompts import refuse_unfit_cases
from evalkit.score.golden import GoldenSet
from evalkit.score.judging import JUDGE_TASK
from evalkit.score.notes import run_notes
from evalkit.score.runner import Do, RunSummary, run_plan
from evalkit.store.engine import Engine
from evalkit.store.views import Store, open_store
from evalkit.wiring import PreparedRun, RunRequest, prepare_run

T = TypeVar("T")
GC_EVERY = 5_000
"""Objects made between two looks of the garbage collector, while a run is on."""

Progress = Callable[[int], AbstractContextManager[Callable[[RunSummary], None]]]


CrewOf = Callable[[Settings, RunRequest, PreparedRun], AbstractAsyncContextManager[Do]]
"""Makes the crew that runs a plan's cases in place of this process."""


class EarlyRule(Protocol):
    """A stop rule that can say what it has decided; `evalkit.decide.early` has the real one."""

    def __call__(self, line: Mapping[str, Any], /) -> Collection[str]: ...

    def as_json(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """A run as it ended, complete or not."""

    run_id: str
    store: str
    summary: RunSummary
    stop_early: Mapping[str, Any] | None = None
    """What was decided while it ran; None where it was not to stop early."""
    notes: tuple[str, ...] = ()
    """What the numbers do not say by themselves."""

    def as_json(self) -> dict[str, Any]:
        summary = self.summary
        early = {} if self.stop_early is None else {"stop_early": self.stop_early}
        return {
            "run_id": self.run_id,
            "store": self.store,
            "status": "complete" if summary.complete else "incomplete",
            "stopped": summary.stopped,
            "planned": summary.planned,
            "done": summary.done,
            "resumed": summary.resumed,
            "cost_usd": round(summary.cost_usd, 6),
            "judge_cost_usd": round(summary.judge_cost_usd, 6),
            "unpriced_calls": summary.unpriced_calls,
            "outcomes": dict(summary.outcomes),
            "errors": dict(summary.errors),
            "must_pass_failures": [
                {"golden_set": g, "pair": p, "case_id": c, "metric": m}
                for g, p, c, m in summary.must_pass_failures
            ],
            "metrics": [
                {
                    "golden_set": golden_set,
                    "pair": pair,
                    "metric": metric,
                    "mean": totals.mean,
                    "n": totals.n,
                    "missing": totals.missing,
                    "passed": totals.passed,
                }
                for (golden_set, pair, metric), totals in summary.metrics.items()
            ],
            "notes": list(self.notes),
            **early,
        }


def run_golden_sets(
    settings: Settings,
    request: RunRequest,
    *,
    store: str | None = None,
    resume: str | None = None,
    progress: Progress | None = None,
    on_start: Callable[[str], None] = lambda line: None,
    stop_rule: Callable[[PreparedRun], EarlyRule] | None = None,
    crew_of: CrewOf | None = None,
) -> FinishedRun:
    """Run what `request` asks, or finish the run `resume`; returns how it ended.

    `stop_rule` makes the rule by which a run with `stop_early` may end before its last case;
    `crew_of` the workers that run the cases (`evalkit.cluster`).

    Raises ConfigError, ContentError or GoldenSetError before any call, StoreError when
    the store cannot be written, NotComparable when a resumed run's golden set changed.
    """
    settings = settings.with_store(store)
    opened = open_store(settings.store_path)
    with ExitStack() as stack:
        if resume is None:
            prepared = prepare_run(settings, request, run_id=new_id())
            refuse_unfit_cases(prepared.plan.sets, settings)
            refuse_edited_prompts(opened, prepared)
            rule = _early_rule(prepared, request, stop_rule)
            manifest = manifest_of(prepared, request, settings)
            manifest |= early_facts(rule, RunSummary(planned=0))
            writer = stack.enter_context(opened.create_run(manifest))
        else:
            writer = stack.enter_context(opened.open_run(resume))
            request = request_of(writer.manifest, request, root=settings.root)
            prepared = prepare_run(settings, request, run_id=writer.run_id)
            refuse_if_changed(writer.manifest, prepared)
            rule = _early_rule(prepared, request, stop_rule)
        on_start(f"run {writer.run_id}: {describe_plan(prepared)}")
        crew = None if crew_of is None else crew_of(settings, request, prepared)
        on_progress = stack.enter_context((progress or silent)(prepared.plan.size))
        summary = run_async(_run(prepared, writer, on_progress, rule, crew))
        notes = notes_of(prepared, summary)
        facts = {**early_facts(rule, summary), "notes": notes}
        if summary.complete:
            writer.seal("complete", counts=dict(summary.outcomes), facts=facts)
    return FinishedRun(
        run_id=writer.run_id,
        store=str(opened.path),
        summary=summary,
        stop_early=facts.get("stop_early"),
        notes=tuple(notes),
    )


def notes_of(prepared: PreparedRun, summary: RunSummary) -> list[str]:
    """What should be known of a run beside its scores; its manifest keeps it."""
    golden_sets = {one.golden.name: one.golden for one in prepared.plan.sets}
    return [*prepared.notes, *run_notes(golden_sets, summary)]


def _early_rule(
    prepared: PreparedRun,
    request: RunRequest,
    stop_rule: Callable[[PreparedRun], EarlyRule] | None,
) -> EarlyRule | None:
    if not request.stop_early:
        return None
    if stop_rule is None:
        raise ConfigError("a run with stop_early needs a stop rule: use evalkit run --stop-early.")
    return stop_rule(prepared)


def early_facts(rule: EarlyRule | None, summary: RunSummary) -> dict[str, Any]:
    """What the manifest says of a run that may stop early; nothing of any other."""
    if rule is None:
        return {}
    facts = {"stopped": summary.saved > 0, "calls_saved": summary.saved, **rule.as_json()}
    return {"stop_early": facts}


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run one coroutine to its end on the fastest event loop there is.

    What the imports left behind is taken out of the garbage collector's sight, and it
    looks less often: a run makes many small objects that die by reference count.
    """
    gc.freeze()
    before = gc.get_threshold()
    gc.set_threshold(GC_EVERY, 10, 10)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(work)
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed (not on Windows), else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _run(
    prepared: PreparedRun,
    journal: Any,
    on_progress: Callable[[RunSummary], None],
    rule: EarlyRule | None,
    crew: AbstractAsyncContextManager[Do] | None,
) -> RunSummary:
    async with prepared.orchestrator as orchestrator:
        return await until_interrupted(
            lambda stop: run_plan(
                prepared.plan,
                orchestrator=orchestrator,
                journal=journal,
                on_progress=on_progress,
                stop=stop,
                stop_rule=rule,
                crew=crew,
            ),
            go_on=f"evalkit run --resume {prepared.plan.run_id}",
        )


async def until_interrupted(
    work: Callable[[asyncio.Event], Awaitable[RunSummary]], *, go_on: str
) -> RunSummary:
    """Let `work` drain at the first Ctrl-C or SIGTERM (its event), and end at the second.

    Raises Interrupted at the second, naming `go_on`, the command that does the rest.
    """
    stop = asyncio.Event()
    main = asyncio.current_task()
    assert main is not None
    cancels = 0

    def interrupted() -> None:
        nonlocal cancels
        if stop.is_set():
            cancels += main.cancel()
        stop.set()

    with _on_signals(asyncio.get_running_loop(), interrupted):
        try:
            return await work(stop)
        except asyncio.CancelledError:
            if not cancels:
                raise
            # What closes after this may wait again: the task is not to stay cancelled.
            for _ in range(cancels):
                main.uncancel()
            raise Interrupted(f"interrupted at once; go on with: {go_on}") from None


@contextmanager
def _on_signals(loop: asyncio.AbstractEventLoop, handler: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM drain the run where signals can be handled at all (main thread)."""
    signals: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in signals:
            loop.add_signal_handler(number, handler)
    except (NotImplementedError, RuntimeError, ValueError):
        signals = ()
    try:
        yield
    finally:
        for number in signals:
            loop.remove_signal_handler(number)


@contextmanager
def silent(planned: int) -> Iterator[Callable[[RunSummary], None]]:
    yield lambda summary: None


# --- the manifest ----------------------------------------------------------------


def manifest_of(prepared: PreparedRun, request: RunRequest, settings: Settings) -> dict[str, Any]:
    """What a run's manifest says from its start; the store adds status, counts and files."""
    plan = prepared.plan
    return {
        "run_id": plan.run_id,
        "git": git_state(settings.root),
        "versions": {"evalkit": __version__, "python": platform.python_version()},
        "seed": plan.seed,
        "concurrency": plan.concurrency,
        **_shard_facts(request),
        "planned": plan.size,
        "request": {**asdict(request), "golden_sets": [str(s.golden.path) for s in plan.sets]},
        "pairs": sorted({str(pair) for one in plan.sets for pair in one.pairs}),
        "prompts": prompt_hashes(prepared),
        "made_with": made_with(prepared),
        "golden_sets": {one.golden.name: golden_manifest(one.golden, settings) | {
            "n_cases": len(one.case_numbers),
            "trials": one.trials,
            "pairs": [str(pair) for pair in one.pairs],
        } for one in plan.sets},
    }  # fmt: skip


def _shard_facts(request: RunRequest) -> dict[str, Any]:
    if request.shard is None:
        return {}
    number, of = request.shard
    return {"shard": {"number": number, "of": of}}


def golden_manifest(golden: GoldenSet, settings: Settings) -> dict[str, Any]:
    """What a manifest says of a golden set: where it is, and what its metrics are held to."""
    path = golden.path.resolve()
    root = settings.root.resolve()
    return {
        "hash": golden.hash,
        "path": str(path.relative_to(root) if path.is_relative_to(root) else path),
        "feature": golden.feature,
        "slices": list(golden.slices),
        "gating_slices": list(golden.gating_slices),
        "must_pass_cases": list(golden.must_pass),
        "metrics": [
            {
                "name": metric.name,
                "tier": metric.tier,
                "gate": metric.gate,
                "tolerance": metric.tolerance,
                "max_drop": metric.max_drop,
                "must_pass": metric.must_pass,
            }
            for metric in golden.metrics
        ],
    }


def request_of(manifest: Mapping[str, Any], asked: RunRequest, *, root: Path) -> RunRequest:
    """What a run to be resumed was asked to do; only speed and money may change now.

    The golden sets are where they were in the project, which may have moved to `root`.
    """
    if manifest.get("rescored_from"):
        raise ConfigError(
            f"run {manifest['run_id']} scores stored outputs again. Finish it with: "
            f"evalkit rescore --resume {manifest['run_id']}"
        )
    if manifest.get("kind") == "sample":
        raise ConfigError(
            f"run {manifest['run_id']} scores production's calls. Finish it with: evalkit sample, "
            "and the options it was started with."
        )
    stored = dict(manifest["request"])
    stored["golden_sets"] = tuple(root / one["path"] for one in manifest["golden_sets"].values())
    stored["models"], stored["prompts"] = tuple(stored["models"]), tuple(stored["prompts"])
    stored["shard"] = tuple(stored["shard"]) if stored.get("shard") else None
    changes = (
        asked.golden_sets, asked.models, asked.prompts, asked.trials, asked.limit,
        asked.stop_early, asked.baseline_pair, asked.batch, asked.shard,
    )  # fmt: skip
    if any(changes) or asked.seed is not None:
        raise ConfigError(
            "--resume finishes the run as it was started: leave out golden sets, --model, "
            "--prompt, --trials, --limit, --seed, --stop-early, --baseline-pair, --batch and "
            "--shard, or start a new run."
        )
    original = RunRequest(**stored)
    return replace(
        original,
        max_cost_usd=(original.max_cost_usd if asked.max_cost_usd is None else asked.max_cost_usd),
        concurrency=asked.concurrency or original.concurrency,
    )


def refuse_if_changed(manifest: Mapping[str, Any], prepared: PreparedRun) -> None:
    """A run is finished with all that it was started with, or not at all.

    Of what its scorers, features and models were, runs of an older evalkit say nothing.
    """
    for one in prepared.plan.sets:
        before = manifest["golden_sets"].get(one.golden.name, {}).get("hash")
        if before != one.golden.hash:
            raise StoreError(
                f"run {prepared.plan.run_id}: golden set {one.golden.name} has changed since the "
                f"run was started ({before} -> {one.golden.hash}). Restore it, or start a new run."
            )
    if manifest["prompts"] != prompt_hashes(prepared):
        raise StoreError(
            f"run {prepared.plan.run_id}: a prompt has changed since the run was started. "
            "Restore it, or start a new run."
        )
    before, now = manifest.get("made_with"), made_with(prepared)
    if before is not None and before != now:
        changed = sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))
        raise StoreError(
            f"run {prepared.plan.run_id}: {', '.join(changed)}: changed since the run was "
            "started. Restore what was there, or start a new run."
        )


def made_with(prepared: PreparedRun) -> dict[str, str]:
    """What scores hang on beside cases and prompts, by name: scorers, features, models.

    A version or a hash of each; of a provider its wire and host, and never a key.
    """
    settings = prepared.orchestrator.settings
    facts: dict[str, str] = {}
    models = {one.model for one in settings.features.values() if one.task == JUDGE_TASK}
    for one in prepared.plan.sets:
        feature = settings.features[one.golden.feature]
        facts[f"feature {feature.name}"] = _hash_of(asdict(feature))
        models |= {pair.model for pair in one.pairs}
        models |= {*feature.fallbacks, *feature.routes.values()} & settings.models.keys()
        for scorer in one.scorers:
            facts[f"metric {one.golden.name}/{scorer.metric}"] = scorer.version
    for name in models:
        model = settings.models[name]
        provider = settings.providers[model.provider]
        host = urlsplit(provider.base_url or "").hostname  # ports and paths change with a proxy
        answers = (model.id, dict(model.params), provider.wire, host, provider.target)
        facts[f"model {name}"] = _hash_of((*answers, provider.output_pointer))
    return dict(sorted(facts.items()))


def _hash_of(facts: Any) -> str:
    """The same wherever the project lies; of a file that is named, what is in it counts."""

    def plain(value: Any) -> Any:
        if not isinstance(value, Path):
            return repr(value)
        return hashlib.sha256(value.read_bytes()).hexdigest() if value.is_file() else value.name

    text = json.dumps(facts, sort_keys=True, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def prompt_hashes(prepared: PreparedRun) -> dict[str, str]:
    """`name@version` -> content hash, of every prompt that the run uses."""
    prompts = prepared.orchestrator.prompts
    return {
        f"{pair.prompt_name}@{pair.prompt_version}": prompts.get(
            pair.prompt_name, pair.prompt_version
        ).hash
        for one in prepared.plan.sets
        for pair in one.pairs
    }


FIRST_HASHES = """
    SELECT prompt_name AS name, prompt_version AS version, arg_min(prompt_hash, ts) AS hash
    FROM calls WHERE prompt_hash <> '' GROUP BY ALL
"""


def prompts_seen(store: Store) -> dict[tuple[str, str], str]:
    """(name, version) -> hash of the prompts that runs used, by the newest that did.

    Of those that no run used, the text that production had first. Attached addresses are not
    asked: a run waits for no network but its models'.
    """
    known: dict[tuple[str, str], str] = {}
    for run in store.runs():
        for identity, content_hash in (run.get("prompts") or {}).items():
            name, _, version = identity.rpartition("@")
            known.setdefault((name, version), content_hash)
    files = store.production_files()
    if not files:
        return known
    with Engine() as engine, suppress(StoreError):  # a damaged file of calls stops no run
        engine.add_files("calls", files)
        for row in engine.rows(FIRST_HASHES):
            known.setdefault((row["name"], row["version"]), row["hash"])
    return known


def refuse_edited_prompts(store: Store, prepared: PreparedRun) -> None:
    """A prompt version that the store has seen with another text is no version any more."""
    known = prompts_seen(store)
    used = {
        (pair.prompt_name, pair.prompt_version) for one in prepared.plan.sets for pair in one.pairs
    }
    prepared.orchestrator.prompts.check_unchanged(
        {identity: known[identity] for identity in used if identity in known}
    )


def describe_plan(prepared: PreparedRun) -> str:
    plan = prepared.plan
    sets = ", ".join(one.golden.name for one in plan.sets)
    pairs = len({pair for one in plan.sets for pair in one.pairs})
    return (
        f"{plan.size} calls ({sets}; {pairs} pair{'s' * (pairs != 1)}), "
        f"{plan.concurrency} in flight"
    )
