"""`evalkit sample`: scores production's calls, judges on a drawn share of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import common_options, print_json, print_table, say
from evalkit.cli.periods import iso, moment, now
from evalkit.errors import EXIT_PASS

if TYPE_CHECKING:
    from evalkit.log_sampling import FinishedSample

DEFAULT_RATE = 0.05
LAG = 60_000_000
"""Calls of the last minute may still be on their way into the store, in microseconds."""


@click.command("sample")
@click.argument("golden_sets", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--since", type=moment, metavar="WHEN", help="Default: where the last such job ended."
)
@click.option("--until", type=moment, metavar="WHEN", help="Default: a minute ago.")
@click.option(
    "--rate", type=click.FloatRange(0, 1), help=f"Share for the judges.  [default: {DEFAULT_RATE}]"
)
@click.option("--per-stratum", type=click.IntRange(1), metavar="N", help="So many of each stratum.")
@click.option(
    "--by", default="feature,model,prompt_version", show_default=True, metavar="COLS",
    help="Columns of calls that make the strata.",
)  # fmt: skip
@click.option(
    "--active-share", type=click.FloatRange(0, 0.9), default=0.0, show_default=True,
    help="Share of the sample that goes to doubtful answers; in no estimate.",
)  # fmt: skip
@click.option("--salt", default="", help="Another salt, another sample.")
@click.option("--max-cost", type=click.FloatRange(0), metavar="USD", help="Stop judging before.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), help="Calls scored at once.")
@common_options
def command(
    golden_sets: tuple[Path, ...],
    since: int | None,
    until: int | None,
    rate: float | None,
    per_stratum: int | None,
    by: str,
    active_share: float,
    salt: str,
    max_cost: float | None,
    concurrency: int | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Score production's calls of a window, as the golden sets of their features say.

    Checks that need no expected value see every call, judges a sample. The same window
    and options give the same sample and ask no judge twice; an interrupted job goes on
    where it was. Without --since, the window follows the last one.
    """
    if rate is not None and per_stratum is not None:
        raise click.UsageError("--rate and --per-stratum exclude each other. Choose one.")
    from evalkit.cli.progress import run_progress
    from evalkit.cli.summary import exit_status
    from evalkit.config import load_settings
    from evalkit.log_sampling import MINUTE, SampleRequest, sample_log
    from evalkit.score.log_draw import DrawRule

    if rate is None and per_stratum is None:
        rate = DEFAULT_RATE
    done = sample_log(
        load_settings(config),
        SampleRequest(
            since=since,
            until=(now() - LAG) // MINUTE * MINUTE if until is None else until,
            rule=DrawRule(rate=rate, per_stratum=per_stratum, active_share=active_share, salt=salt),
            by=tuple(name.strip() for name in by.split(",") if name.strip()),
            golden_sets=golden_sets,
            max_cost_usd=max_cost,
            concurrency=concurrency,
        ),
        store=store,
        progress=run_progress,
    )
    if done is None:
        if as_json:
            print_json(None)
        say("nothing new since the last job")
        return EXIT_PASS
    if as_json:
        print_json(_as_json(done))
    else:
        _print(done)
    return EXIT_PASS if done.run.summary.complete else exit_status(done.run.summary)


def _as_json(done: FinishedSample) -> dict[str, Any]:
    return {
        "since": iso(done.since),
        "until": iso(done.until),
        "calls": done.calls,
        "drawn": dict(done.drawn),
        "already_done": done.already_done,
        **done.run.as_json(),
    }


def _print(done: FinishedSample) -> None:
    from rich.table import Table
    from rich.text import Text

    from evalkit.cli.progress import describe
    from evalkit.cli.query import shown

    run, summary = done.run, done.run.summary
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("golden set", "pair", "metric"):
        table.add_column(name, overflow="fold")
    for name in ("mean", "scored", "missing"):
        table.add_column(name, justify="right")
    for names, totals in summary.metrics.items():
        mean = "-" if totals.mean is None else f"{totals.mean:.3f}"
        cells = (Text(shown(name)) for name in names)
        table.add_row(*cells, mean, str(totals.n), str(totals.missing or ""))
    print_table(table)
    click.echo(
        f"\nrun {run.run_id}: {summary.done} of {summary.planned} scored, {describe(summary)}\n"
        f"{done.calls} calls from {iso(done.since)} to {iso(done.until)}; for judges: "
        f"{done.drawn['random']} drawn at random, {done.drawn['active']} picked"
    )
    if done.already_done:
        click.echo("this window was done already; nothing was asked again")
    if summary.stopped:
        click.echo("stopped before its end; the same command goes on with it")
