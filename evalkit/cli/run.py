"""`evalkit run`: golden sets down the call path, scored and stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import SEED, USD, common_options, print_json, say
from evalkit.cli.ray_options import cluster_at, ray_options

if TYPE_CHECKING:
    from evalkit.session import FinishedRun
    from evalkit.settings import Settings


@click.command("run")
@click.argument("golden_sets", nargs=-1, type=click.Path(path_type=Path))
@click.option("--model", "models", multiple=True, metavar="M", help="A model; repeatable.")
@click.option(
    "--prompt", "prompts", multiple=True, metavar="NAME@V", help="A prompt version; repeatable."
)
@click.option("--trials", type=click.IntRange(1, 1000), help="Executions of each case.")
@click.option("--limit", type=click.IntRange(1), help="Only so many cases of each golden set.")
@click.option(
    "--max-cost",
    type=USD,
    metavar="USD",
    help="Stop before this; default: [run] max_cost_usd.",
)
@click.option(
    "--record", type=click.Path(path_type=Path), metavar="FILE", help="Write every response there."
)
@click.option(
    "--replay",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Answer from the responses recorded there; no model is asked, no key needed.",
)
@click.option("--resume", metavar="RUN", help="Finish a run that was interrupted.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), help="Cases in flight.")
@click.option(
    "--seed", type=SEED, help="For the draw of --limit, and sent to the model; default: [run] seed."
)
@click.option("--stop-early", is_flag=True, help="End as soon as every gating metric is decided.")
@click.option(
    "--baseline-pair",
    metavar="MODEL/PROMPT@V",
    help="Run this pair, too, for --stop-early to compare with; default: the first of two.",
)
@click.option(
    "--batch", is_flag=True, help="Through the providers' batch endpoints: a day, half the price."
)
@click.option(
    "--drift", is_flag=True,
    help="Then compare with the first run of the same pairs, prompts and cases; one alpha for "
    "all such runs.",
)  # fmt: skip
@click.option("--shard", metavar="I/N", help="Only the I-th of N parts; then evalkit merge.")
@ray_options
@common_options
def command(
    golden_sets: tuple[Path, ...],
    models: tuple[str, ...],
    prompts: tuple[str, ...],
    trials: int | None,
    limit: int | None,
    max_cost: float | None,
    record: Path | None,
    replay: Path | None,
    resume: str | None,
    concurrency: int | None,
    seed: int | None,
    stop_early: bool,
    baseline_pair: str | None,
    batch: bool,
    drift: bool,
    shard: str | None,
    ray: str | None,
    workers: int | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Run golden sets (default: all under golden_sets/) and store the scores.

    Each case goes down the same call path as production, once for every model, prompt
    version and trial. Interrupted at any point, it goes on with --resume.

    With --stop-early, cases run in random order until every gating metric is decided or
    one regression is certain. Of two prompts (or models) the first named is the
    baseline, the last the candidate; --baseline-pair names another.
    """
    if baseline_pair is not None and not stop_early:
        raise click.UsageError("--baseline-pair belongs to --stop-early. Add it, or leave both.")
    if shard is not None and stop_early:
        raise click.UsageError("--shard runs a fixed part of the cases: leave out --stop-early.")
    if batch and stop_early:
        raise click.UsageError("--batch sends all cases at once: leave out --stop-early.")
    if ray is not None and (batch or record is not None):
        raise click.UsageError("--ray takes neither --batch nor --record. Leave out one of them.")
    if drift and (stop_early or shard is not None or limit is not None):
        raise click.UsageError("--drift compares whole runs: no --stop-early, --shard, --limit.")
    _check_tape(record, replay, resume)
    from evalkit.cli.progress import run_progress
    from evalkit.cli.stop_early import early_lines, early_rule
    from evalkit.cli.summary import exit_status, print_summary
    from evalkit.config import load_settings
    from evalkit.session import run_golden_sets
    from evalkit.settings import RunSettings
    from evalkit.wiring import RunRequest

    settings = load_settings(config)
    # A run that goes on does so as it was started, whatever the configuration says by now.
    usual = settings.run if resume is None else RunSettings()
    request = RunRequest(
        golden_sets=golden_sets,
        models=models,
        prompts=prompts,
        trials=trials,
        limit=limit,
        concurrency=concurrency,
        seed=usual.seed if seed is None else seed,
        max_cost_usd=usual.max_cost_usd if max_cost is None else max_cost,
        stop_early=stop_early,
        baseline_pair=baseline_pair,
        batch=batch,
        shard=_read_shard(shard),
        record=None if record is None else str(record.absolute()),
        replay=None if replay is None else str(replay.absolute()),
    )
    with cluster_at(ray, workers) as cluster:
        finished = run_golden_sets(
            settings,
            request,
            store=store,
            resume=resume,
            progress=run_progress,
            on_start=say,
            stop_rule=early_rule(settings.gate),
            crew_of=None if cluster is None else cluster.crew_of_run,
        )
    verdict = _against_first(finished, settings) if drift else None
    if as_json:
        print_json(finished.as_json() | ({"drift": verdict} if drift else {}))
    else:
        print_summary(finished.run_id, finished.summary)
        for line in (
            early_lines(finished.stop_early, finished.run_id) if finished.stop_early else ()
        ):
            click.echo(line)
        for note in finished.notes:
            click.echo(f"note: {note}")
        if replay is not None and finished.summary.errors["not_found"]:
            click.echo(_not_recorded(replay, finished.summary.errors["not_found"]))
    return exit_status(finished.summary) if verdict is None else _told(verdict, as_json)


def _against_first(finished: FinishedRun, settings: Settings) -> dict[str, Any] | None:
    """The verdict on the run and the first like it; None when it is that, or not complete."""
    from evalkit.cli.run_drift import against_first
    from evalkit.store.views import open_store

    if not finished.summary.complete:
        return None
    found = against_first(open_store(finished.store), finished.run_id, settings)
    if found is None:
        say("the first complete run of these pairs, prompts and cases: nothing to compare with")
    return found


def _told(verdict: dict[str, Any], as_json: bool) -> int:
    from evalkit.cli.gate import print_verdict
    from evalkit.decide.gate import exit_code

    if not as_json:
        print_verdict(verdict)
    return exit_code(verdict)


def _check_tape(record: Path | None, replay: Path | None, resume: str | None) -> None:
    if record is not None and replay is not None:
        raise click.UsageError("--record asks models, --replay does not: leave out one of them.")
    if resume is not None and (record or replay):
        raise click.UsageError(
            "--resume goes on as the run was started: leave out --record/--replay."
        )
    if record is not None and record.exists():
        raise click.UsageError(f"--record: {record} is there already. Delete it, or name another.")


def _not_recorded(replay: Path, missing: int) -> str:
    return (
        f"{missing} requests are not in {replay}: prompts, cases or models have changed since. "
        "Record again, with a key: evalkit run --record FILE"
    )


def _read_shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    number, slash, of = text.partition("/")
    if not (slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise click.UsageError(f"--shard {text!r} is not I/N with 1 <= I <= N, e.g. 2/4.")
    return int(number), int(of)
