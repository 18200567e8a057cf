"""`evalkit run`: golden sets down the call path, scored and stored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalkit.cli.options import common_options, print_json, say
from evalkit.errors import EXIT_INTERRUPTED, EXIT_PASS, EXIT_UNMEASURABLE

if TYPE_CHECKING:
    from evalkit.score.summary import MetricSummary, RunSummary


@click.command("run")
@click.argument("golden_sets", nargs=-1, type=click.Path(path_type=Path))
@click.option("--model", "models", multiple=True, metavar="M", help="A model; repeatable.")
@click.option(
    "--prompt", "prompts", multiple=True, metavar="NAME@V", help="A prompt version; repeatable."
)
@click.option("--trials", type=click.IntRange(1, 1000), help="Executions of each case.")
@click.option("--limit", type=click.IntRange(1), help="Only so many cases of each golden set.")
@click.option("--max-cost", type=click.FloatRange(0), metavar="USD", help="Stop before this.")
@click.option("--resume", metavar="RUN", help="Finish a run that was interrupted.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), help="Cases in flight.")
@click.option("--seed", type=int, help="For the draw of --limit, and sent to the model.")
@common_options
def command(
    golden_sets: tuple[Path, ...],
    models: tuple[str, ...],
    prompts: tuple[str, ...],
    trials: int | None,
    limit: int | None,
    max_cost: float | None,
    resume: str | None,
    concurrency: int | None,
    seed: int | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Run golden sets (default: all under golden_sets/) and store the scores.

    Each case goes down the same call path as production, once for every model, prompt
    version and trial. Interrupted at any point, it goes on with --resume.
    """
    from evalkit.config import load_settings
    from evalkit.session import run_golden_sets
    from evalkit.wiring import RunRequest

    settings = load_settings(config)
    request = RunRequest(
        golden_sets=golden_sets,
        models=models,
        prompts=prompts,
        trials=trials,
        limit=limit,
        concurrency=concurrency,
        seed=seed,
        max_cost_usd=max_cost,
    )
    from evalkit.cli.progress import run_progress

    finished = run_golden_sets(
        settings, request, store=store, resume=resume, progress=run_progress, on_start=say
    )
    if as_json:
        print_json(finished.as_json())
    else:
        _print_table(finished.run_id, finished.summary)
    return _exit_status(finished.summary)


def _exit_status(summary: RunSummary) -> int:
    if summary.stopped == "cancelled":
        return EXIT_INTERRUPTED
    measured = any(metric.n for metric in summary.metrics.values())
    return EXIT_PASS if summary.complete and measured else EXIT_UNMEASURABLE


def _print_table(run_id: str, summary: RunSummary) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    groups: dict[tuple[str, str], dict[str, MetricSummary]] = {}
    for (golden_set, pair, metric), totals in summary.metrics.items():
        groups.setdefault((golden_set, pair), {})[metric] = totals
    for (golden_set, pair), metrics in groups.items():
        table = Table(
            box=None, pad_edge=False, header_style="bold", title_justify="left",
            title=Text(f"\n{golden_set}  {pair}"), title_style="bold",
        )  # fmt: skip
        table.add_column("  metric", overflow="fold", min_width=24)
        for column in ("mean", "scored", "missing"):
            table.add_column(column, justify="right", min_width=8)
        for metric, totals in metrics.items():
            mean = "-" if totals.mean is None else f"{totals.mean:.3f}"
            missing = str(totals.missing or "")
            table.add_row(Text(f"  {metric}"), mean, str(totals.n), missing)
        console.print(table)
    for golden_set, pair, case_id, metric in summary.must_pass_failures[:10]:
        click.echo(f"must-pass case {case_id} failed {metric} ({golden_set}, {pair})")
    _print_closing(run_id, summary)


def _print_closing(run_id: str, summary: RunSummary) -> None:
    from evalkit.cli.progress import describe

    click.echo(f"\nrun {run_id}: {summary.done} of {summary.planned} cases, {describe(summary)}")
    if summary.errors:
        kinds = ", ".join(f"{kind} {n}" for kind, n in summary.errors.most_common())
        click.echo(f"failed calls: {kinds}")
    if summary.stopped:
        why = {
            "budget_stop": "stopped at --max-cost",
            "cancelled": "interrupted",
        }[summary.stopped]
        click.echo(f"{why}; go on with: evalkit run --resume {run_id}")
