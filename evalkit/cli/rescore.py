"""`evalkit rescore`: a sealed run's answers, scored again by the scorers as they are now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalkit.cli.options import USD, common_options, open_project, print_json, say

if TYPE_CHECKING:
    from evalkit.store.views import Store

SHOWN_LEFT_OUT = 20


@click.command("rescore")
@click.argument("run", required=False)
@click.option("--judge", "judges", multiple=True, metavar="J", help="Only this judge; repeatable.")
@click.option("--metric", "metrics", multiple=True, metavar="M", help="Only this; repeatable.")
@click.option(
    "--edited",
    is_flag=True,
    help="Also cases whose expected value or checks have changed, but not their input.",
)
@click.option(
    "--against",
    metavar="RUN2[:PAIR]",
    help="Whose answers pairwise judges compare with; 1 is a win of RUN, 0.5 a tie.",
)
@click.option("--fresh", is_flag=True, help="Ask judges again though their judgement is kept.")
@click.option("--max-cost", type=USD, metavar="USD", help="Stop judging before.")
@click.option("--resume", metavar="RUN", help="Finish a rescoring that was interrupted.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), help="Answers scored at once.")
@common_options
def command(
    run: str | None,
    judges: tuple[str, ...],
    metrics: tuple[str, ...],
    edited: bool,
    against: str | None,
    fresh: bool,
    max_cost: float | None,
    resume: str | None,
    concurrency: int | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Score the stored answers of RUN again, as a new run; no model under test is called.

    With --judge or --metric, the other metrics keep the scores they have. Cases that have
    changed since, or are gone, are listed and left out. RUN stays as it is. What a judge
    said of the same answer before is kept and not paid again.
    """
    if (run is None) == (resume is None):
        raise click.UsageError("name the run whose answers are scored again, or one to --resume.")
    from evalkit.cli.progress import run_progress
    from evalkit.cli.summary import exit_status, print_summary
    from evalkit.decide.naming import run_named
    from evalkit.rescoring import RescoreRequest, rescore_run

    settings, opened = open_project(store, config)
    rescored = rescore_run(
        settings,
        RescoreRequest(
            run_id="" if run is None else str(run_named(opened, run)["run_id"]),
            judges=judges,
            metrics=metrics,
            edited=edited,
            against=None if against is None else _find_opponent(opened, against),
            fresh=fresh,
            concurrency=concurrency,
            max_cost_usd=max_cost,
        ),
        store=store,
        resume=resume,
        progress=run_progress,
        on_start=say,
    )
    if as_json:
        print_json(rescored.as_json())
    else:
        summary = rescored.run.summary
        print_summary(rescored.run.run_id, summary, resume="evalkit rescore")
        for one in rescored.left_out[:SHOWN_LEFT_OUT]:
            click.echo(f"left out: {one.golden_set} {one.case_id}: {one.why}")
        if len(rescored.left_out) > SHOWN_LEFT_OUT:
            click.echo(f"… and {len(rescored.left_out) - SHOWN_LEFT_OUT} more; --json lists all")
        for note in rescored.run.notes:
            click.echo(f"note: {note}")
    return exit_status(rescored.run.summary)


def _find_opponent(store: Store, text: str) -> str:
    """`RUN` or `RUN:PAIR` with the run's whole id."""
    from evalkit.decide.naming import run_named
    from evalkit.errors import ConfigError
    from evalkit.records import Pair

    run, colon, pair = text.partition(":")
    run_id = str(run_named(store, run)["run_id"])
    try:
        return f"{run_id}:{Pair.parse(pair)}" if colon else run_id
    except ValueError as error:
        raise ConfigError(f"--against {error}") from None
