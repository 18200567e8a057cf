"""The work of `evalkit ci gate`: check, baseline, run, gate, then write everything down.

Every way it can end leaves a verdict, the step's outputs and an exit status: what could
not be measured says so, and is never a pass.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from evalkit.cli.ci_baseline import Baseline, BaseRun, find_baseline
from evalkit.cli.ci_commands import Command, Commands, Printed
from evalkit.cli.ci_github import (
    Context,
    prefix_of,
    read_context,
    write_outputs,
    write_summary,
)
from evalkit.decide.selectors import NONE
from evalkit.errors import (
    EXIT_INTERRUPTED,
    EXIT_UNMEASURABLE,
    EXIT_USAGE,
    EvalkitError,
    StoreError,
)

if TYPE_CHECKING:
    from evalkit.decide.github import Annotation
    from evalkit.decide.rows import Group
    from evalkit.settings import Settings
    from evalkit.store.views import Store

VERDICT = "verdict.json"
BASELINE = "baseline.zip"
WRITTEN = (
    VERDICT, "verdict.md", "code-quality.json", "junit.xml", "results.sarif", "report.html",
    BASELINE,
)  # fmt: skip
"""Files in --out; beside them the scores."""
SCORES = "scores/run=*.parquet"
MAX_OUTPUT_CHARS = 500_000
"""Of the verdict as a step's output; a job's outputs may have 1 MB together."""
GATE_STATUSES = (0, 1, 3)
SAME = 1e-9
"""Shares closer than this are one, as in the gate."""

Say = Callable[[str], object]
Verdict = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the build wants."""

    out: Path
    golden_sets: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    baseline: str = "auto"
    alpha: float | None = None
    max_drop: float | None = None
    strict: bool = False
    max_cost_usd: float | None = None
    replay: Path | None = None
    """Recorded responses to answer from."""
    require_baseline: bool = False
    report: Path | None = None
    store: str | None = None
    config: Path | None = None


@dataclass(slots=True)
class Ended:
    """How it ended, and what is to be shown of it."""

    status: int
    verdict: Verdict
    run_id: str | None = None
    baseline: Baseline | None = None
    pointed_at: list[Annotation] = field(default_factory=list)
    """Beside what the verdict itself points at."""
    made_baseline: bool = False
    """Whether this run is the next builds' baseline."""
    why: str | None = None
    """Why nothing was compared; None where the gate has spoken."""


def run_ci_gate(asked: Asked, *, say: Say) -> Ended:
    """Do it all; the exit status and the verdict."""
    context = read_context()
    asked.out.mkdir(parents=True, exist_ok=True)
    _clear(asked)
    if context.problem is not None:
        say(_warning(context.problem) if context.on_github else f"warning: {context.problem}")
    root = Path.cwd()
    try:
        settings = _settings(asked)
        root = settings.root
        ended = _CiGate(asked, context, settings, say).run()
    except EvalkitError as error:
        ended = _not_done(str(error), status=error.exit_code)
    _show(ended, asked, context, root, say)
    return ended


def _warning(text: str) -> str:
    from evalkit.decide.github import Annotation, workflow_commands

    found = [Annotation(level="warning", title="evalkit", text=text)]
    return workflow_commands(found, prefix=PurePosixPath())[0]


def _clear(asked: Asked) -> None:
    """Remove what an earlier build wrote: nothing of it may be taken for this one's."""
    old = [*(asked.out / name for name in WRITTEN), *asked.out.glob(SCORES)]
    if asked.report is not None:
        old.append(asked.report)
    for path in old:
        if path.is_file() and path.absolute() != Path(asked.baseline).absolute():
            path.unlink()


def _settings(asked: Asked) -> Settings:
    from evalkit.config import load_settings

    return load_settings(asked.config)


def _not_done(why: str, *, status: int, run_id: str | None = None) -> Ended:
    """Nothing was decided, and this is why."""
    verdict: Verdict = {
        "verdict": "unmeasurable",
        "alpha": 0.05,
        "correction": "holm",
        "strict": False,
        "comparisons": [],
        "must_pass_failures": [],
        "must_pass_missing": [],
        "budget": {},
        "golden_sets": {},
        "notes": why.splitlines() or ["nothing is known"],
    }
    return Ended(status=status or EXIT_UNMEASURABLE, verdict=verdict, run_id=run_id, why=why)


class _CiGate:
    """From what was asked to how it ended; `run` is the order of the work."""

    def __init__(self, asked: Asked, context: Context, settings: Settings, say: Say) -> None:
        self._asked, self._context, self._settings, self._say = asked, context, settings, say
        self._store = str(Path(asked.store or settings.store_path).absolute())
        self._commands = Commands(say, on_github=context.on_github)
        self._ran: Printed | None = None
        """The candidate's run, where it was made beside the base's."""

    def run(self) -> Ended:
        problems = self._problems()
        if problems is not None:
            return problems
        opened = self._open()
        self._before = {run["run_id"] for run in opened.runs()}
        baseline = self._baseline(opened)
        self._say(f"baseline: {baseline.words}")
        chosen = opened.baselines.all()
        status, run = self._ran or self._commands.run(self._candidate())
        run_id = str(run["run_id"]) if run else None
        if run_id is None:
            known = {*self._before, baseline.selector}
            begun = [one["run_id"] for one in opened.runs() if one["run_id"] not in known]
            return _no_run(status, begun[0] if begun else None)
        ended = self._gate(run_id, baseline)
        ended.made_baseline = self._keep(run_id, opened, chosen)
        return ended

    def _open(self) -> Store:
        from evalkit.store.views import open_store

        return open_store(self._store)

    # --- before any call ---------------------------------------------------------------

    def _problems(self) -> Ended | None:
        """Mistakes in the files, each at its line; None when there are none."""
        from evalkit.cli.check import check_project
        from evalkit.decide.github import Annotation

        found = check_project([Path(one) for one in self._asked.golden_sets], self._asked.config)
        if not found.problems:
            return None
        ended = _not_done("\n".join(str(one) for one in found.problems), status=EXIT_USAGE)
        ended.pointed_at = [
            Annotation(
                level="error",
                title="evalkit check",
                text=f"{f'case {one.case_id}: ' if one.case_id else ''}{one.problem}. {one.fix}",
                file=one.file,
                line=one.line,
            )
            for one in found.problems
        ]
        return ended

    def _baseline(self, opened: Store) -> Baseline:
        from evalkit.score.golden import find_golden_sets

        paths = [Path(one) for one in self._asked.golden_sets]
        return find_baseline(
            self._asked.baseline,
            context=self._context,
            settings=self._settings,
            store=opened,
            golden_sets=find_golden_sets(paths, settings=self._settings),
            run_base=self._run_base,
            say=self._say,
        )

    def _run_base(self, project: Path) -> BaseRun:
        """The base as its own configuration has it: what the default branch would serve.

        Beside the change, so that both meet the same hour of the same models.
        """
        base = Command(("run", "--store", self._store, *self._how()), project)
        opened = self._open()
        (status, run), self._ran = self._commands.side_by_side(
            base,
            self._candidate(),
            begun=lambda: any(one["run_id"] not in self._before for one in opened.runs()),
        )
        if run and run.get("status") == "complete":
            return BaseRun(run_id=str(run["run_id"]))
        return BaseRun(why=_why_no_base(status, run))

    # --- run and gate ------------------------------------------------------------------

    def _candidate(self) -> Command:
        models = [part for name in self._asked.models for part in ("--model", name)]
        prompts = [part for name in self._asked.prompts for part in ("--prompt", name)]
        config = ["--config", str(self._asked.config)] if self._asked.config else []
        store = ["--store", self._store]
        how = [*models, *prompts, *self._how(), *store, *config]
        return Command(("run", *how, "--", *self._asked.golden_sets), Path.cwd())

    def _how(self) -> list[str]:
        """What holds for every run of this build."""
        limit, replay = self._asked.max_cost_usd, self._asked.replay
        return [
            *([] if limit is None else ["--max-cost", str(limit)]),
            *([] if replay is None else ["--replay", str(replay)]),
        ]

    def _gate(self, run_id: str, baseline: Baseline) -> Ended:
        asked, out = self._asked, self._asked.out
        options = {
            "--candidate": run_id,
            "--baseline": baseline.selector,
            "--alpha": asked.alpha,
            "--max-drop": asked.max_drop,
            "--markdown": out / "verdict.md",
            "--junit": out / "junit.xml",
            "--sarif": out / "results.sarif",
            "--html": asked.report,
            "--store": self._store,
            "--config": asked.config,
        }
        words = [f"{name}={value}" for name, value in options.items() if value is not None]
        words += ["--strict"] if asked.strict else []
        required = asked.require_baseline or baseline.failed or baseline.named
        words += [] if required else ["--allow-no-baseline"]
        status, verdict = self._commands.run(Command(("gate", *words), Path.cwd()))
        if verdict is None or status not in GATE_STATUSES:
            why = f"the gate ended with status {status} and no verdict: see the step's log."
            known = status if status == EXIT_USAGE else EXIT_UNMEASURABLE
            return _not_done(why, status=known, run_id=run_id)
        ended = Ended(status=status, verdict=verdict, run_id=run_id, baseline=baseline)
        if not any(one["baseline"] for one in verdict["comparisons"]):
            ended.pointed_at.append(_no_baseline(baseline, verdict, error=required))
            if baseline.failed:
                ended.why = baseline.words
        if baseline.failed:
            verdict["notes"].insert(0, baseline.words)
        return ended

    # --- what is left behind -------------------------------------------------------------

    def _keep(self, run_id: str, opened: Store, seen: Mapping[tuple[str, str], str]) -> bool:
        """The run's scores beside the verdict; from the default branch as a baseline, too.

        Returns whether it is one.
        The store is told so where its baselines are still those that were `seen` before the run.
        """
        try:
            files = opened.score_files(run_id)
        except EvalkitError:
            return False
        folder = self._asked.out / "scores"
        folder.mkdir(exist_ok=True)
        for path in files:
            shutil.copyfile(path, folder / path.name)
        own = self._measured(run_id, opened) if self._context.is_default_push else {}
        if not own:
            return False
        from evalkit.exchange.baseline_file import export_baselines

        try:
            opened.baselines.choose(own, seen=seen)
        except StoreError as error:
            self._say(f"{BASELINE} is of this run; the store's choice was left alone: {error}")
        export_baselines(opened, self._asked.out / BASELINE, instead=own)
        return True

    def _measured(self, run_id: str, opened: Store) -> dict[tuple[str, str], str]:
        """The run for each golden set that it may be the baseline of: what gates has scores.

        An outage of a push would fail every change after it.
        """
        least = self._settings.gate.min_coverage - SAME
        short: dict[str, str] = {}
        golden_sets = opened.manifest(run_id)["golden_sets"]
        for group in _groups(opened, run_id):
            gating = {m["name"] for m in golden_sets[group.golden_set]["metrics"] if m["gate"]}
            if group.metric in gating and group.n_scored < least * group.n_rows:
                missing = f"{group.n_rows - group.n_scored} of {group.n_rows}"
                short[group.golden_set] = f"{missing} scores of {group.metric} are missing"
        for name, why in short.items():
            self._say(f"this run is no baseline for {name}: {why}")
        return {
            (name, one.get("feature") or ""): run_id
            for name, one in golden_sets.items()
            if name not in short
        }


def _groups(store: Store, run_id: str) -> list[Group]:
    """The run's metrics by golden set and pair, counted as the gate counts them."""
    from evalkit.decide.rows import Source, gather_rows, groups_of
    from evalkit.store.views import Engine

    with Engine() as engine:
        engine.add_files("of_run", store.score_files(run_id))
        gather_rows(engine, [Source(name=run_id, run_id=run_id, view="of_run")])
        return groups_of(engine)


def _no_run(status: int, run_id: str | None) -> Ended:
    """The run's process ended without saying how: refused, or killed."""
    how = f"with status {status}" if status >= 0 else f"by signal {-status}"
    known = status if status in (EXIT_USAGE, EXIT_INTERRUPTED) else EXIT_UNMEASURABLE
    resume = f" Go on with: evalkit run --resume {run_id}" if run_id else ""
    why = f"the run ended {how} and left no result: see the step's log.{resume}"
    return _not_done(why, status=known, run_id=run_id)


def _why_no_base(status: int, run: Mapping[str, Any] | None) -> str:
    """What kept the base commit's run from being complete."""
    if run is None:
        how = f"with status {status}" if status >= 0 else f"by signal {-status}"
        return f"the base commit's run ended {how} and left no result: see the step's log."
    stops = {"budget_stop": "stopped at --max-cost", "cancelled": "was interrupted"}
    how = stops.get(str(run.get("stopped")), "did not complete")
    return f"the base commit's run {how} (run {run['run_id']})"


def _no_baseline(baseline: Baseline, verdict: Verdict, *, error: bool) -> Annotation:
    from evalkit.decide.github import Annotation

    if baseline.failed or baseline.selector == NONE:
        text = baseline.words
    elif baseline.found:
        told = "; ".join(verdict["notes"]) or "it has nothing of what this build measures"
        text = f"Nothing could be compared with the baseline ({baseline.words}): {told}"
    else:
        text = (
            "There is nothing to compare with yet. A push to the default branch makes a baseline; "
            "or commit one: evalkit baseline set RUN, evalkit baseline export "
            "golden_sets/NAME/baseline.zip."
        )
    return Annotation(
        level="error" if error else "warning", title="evalkit: no baseline", text=text
    )


# --- shown -----------------------------------------------------------------------------


def _show(ended: Ended, asked: Asked, context: Context, root: Path, say: Say) -> None:
    """Files in --out; on GitHub annotations, summary and outputs as well."""
    from evalkit.decide import render
    from evalkit.decide.code_quality import code_quality
    from evalkit.decide.github import annotations_of, fact, summary, title, workflow_commands

    verdict = ended.verdict
    written = json.dumps(verdict, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    quality = code_quality(verdict, root=root)
    facts = [fact("run", ended.run_id)] if ended.run_id else []
    facts += [fact("baseline", ended.baseline.words)] if ended.baseline else []
    page = summary(verdict, facts=facts)
    for name, text in (
        (VERDICT, written), ("code-quality.json", quality), ("verdict.md", page),
    ):  # fmt: skip
        (asked.out / name).write_text(text, encoding="utf-8")
    if not verdict["comparisons"]:
        # The gate writes these; it may not have come to that.
        (asked.out / "junit.xml").write_text(render.junit(verdict), encoding="utf-8")
        (asked.out / "results.sarif").write_text(render.sarif(verdict, root=root), encoding="utf-8")
    say(title(verdict))
    if context.on_github:
        is_pointed_at = ended.pointed_at and ended.run_id is None
        own = [] if is_pointed_at else annotations_of(verdict, root=root)
        for line in workflow_commands([*ended.pointed_at, *own], prefix=prefix_of(root, context)):
            say(line)
        write_summary(page)
    elif ended.why is not None:
        say(ended.why)
    write_outputs(_outputs(ended, asked))


def _outputs(ended: Ended, asked: Asked) -> dict[str, str]:
    report, baseline = asked.report, asked.out / BASELINE
    return {
        "verdict": str(ended.verdict["verdict"]),
        "run-id": ended.run_id or "",
        "report-path": str(report) if report and report.is_file() else "",
        "verdict-json": _short_json(ended.verdict),
        "baseline-path": str(baseline) if ended.made_baseline else "",
    }


def _short_json(verdict: Verdict) -> str:
    """On one line; without lists of cases where it would be too long."""
    text = json.dumps(verdict)
    if len(text) <= MAX_OUTPUT_CHARS:
        return text
    lists: dict[str, list[str]] = {"regressed_cases": [], "improved_cases": []}
    bare = {
        **verdict,
        "comparisons": [{**c, **lists} for c in verdict["comparisons"]],
        "must_pass_failures": verdict["must_pass_failures"][:100],
        "must_pass_missing": [],
    }
    text = json.dumps(bare)
    if len(text) <= MAX_OUTPUT_CHARS:
        return text
    return json.dumps({"verdict": verdict["verdict"], "notes": ["too long: see verdict.json"]})
