"""`evalkit sample`: scores production's calls, judges on a drawn share of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import SHARE, USD, Number, common_options, print_json, print_table, say
from evalkit.cli.periods import iso, moment, now, refuse_backwards
from evalkit.cli.ray_options import cluster_at, ray_options
from evalkit.errors import EXIT_PASS

if TYPE_CHECKING:
    from evalkit.decide.quality import Estimate
    from evalkit.decide.sampled import SampledMetric
    from evalkit.log_sampling import FinishedSample
    from evalkit.settings import Settings

DEFAULT_RATE = 0.05
LAG = 60_000_000
"""Calls of the last minute may still be on their way into the store, in microseconds."""


@click.command("sample")
@click.argument("golden_sets", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--since", type=moment, metavar="WHEN", help="Default: where the last such job ended."
)
@click.option("--until", type=moment, metavar="WHEN", help="Default: a minute ago.")
@click.option("--rate", type=SHARE, help=f"Share for the judges.  [default: {DEFAULT_RATE}]")
@click.option("--per-stratum", type=click.IntRange(1), metavar="N", help="So many of each stratum.")
@click.option(
    "--by", default="feature,model,prompt_version", show_default=True, metavar="COLS",
    help="Columns of calls that make the strata.",
)  # fmt: skip
@click.option(
    "--active-share", type=Number(0, 0.9), default=0.0, show_default=True,
    help="Share of the sample that goes to doubtful answers; in no estimate.",
)  # fmt: skip
@click.option("--salt", default="", help="Another salt, another sample.")
@click.option("--max-cost", type=USD, metavar="USD", help="Stop judging before.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), help="Calls scored at once.")
@ray_options
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
    ray: str | None,
    workers: int | None,
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
    refuse_backwards(since, until)
    from evalkit.cli.progress import run_progress
    from evalkit.cli.summary import exit_status
    from evalkit.config import load_settings
    from evalkit.log_sampling import MINUTE, SampleRequest, sample_log
    from evalkit.score.log_draw import DrawRule

    if rate is None and per_stratum is None:
        rate = DEFAULT_RATE
    request = SampleRequest(
        since=since,
        until=(now() - LAG) // MINUTE * MINUTE if until is None else until,
        rule=DrawRule(rate=rate, per_stratum=per_stratum, active_share=active_share, salt=salt),
        by=tuple(name.strip() for name in by.split(",") if name.strip()),
        golden_sets=golden_sets,
        max_cost_usd=max_cost,
        concurrency=concurrency,
    )
    settings = load_settings(config)
    with cluster_at(ray, workers) as cluster:
        done = sample_log(
            settings,
            request,
            store=store,
            progress=run_progress,
            crew_of=None if cluster is None else cluster.crew_of_sample,
        )
    if done is None:
        if as_json:
            print_json(None)
        say("nothing new since the last job")
        return EXIT_PASS
    metrics = _metrics(done)
    anchors = _anchors(done, settings, max_cost)
    if as_json:
        found = {"estimates": [one.as_json() for one in metrics], "anchors": anchors}
        print_json(_as_json(done) | found)
    else:
        _print(done, metrics)
    return EXIT_PASS if done.run.summary.complete else exit_status(done.run.summary)


def _anchors(
    done: FinishedSample, settings: Settings, max_cost: float | None
) -> list[dict[str, Any]]:
    """What judges made of their anchors today, for what the job left of its budget."""
    from evalkit.cli.anchors import grade_anchors
    from evalkit.store.views import open_store

    summary = done.run.summary
    if not summary.complete:
        return []
    if max_cost is not None and summary.unpriced_calls:
        say("anchors are not graded: what the job left of --max-cost is not known")
        return []
    left = None if max_cost is None else max(0.0, max_cost - summary.judge_cost_usd)
    found = grade_anchors(settings, open_store(done.run.store), left)
    return [one.as_json() for one in found]


def _as_json(done: FinishedSample) -> dict[str, Any]:
    return {
        "since": iso(done.since),
        "until": iso(done.until),
        "calls": done.calls,
        "drawn": dict(done.drawn),
        "already_done": done.already_done,
        **done.run.as_json(),
    }


def _metrics(done: FinishedSample) -> list[SampledMetric]:
    """What the job says of its window; nothing while it is not complete."""
    from evalkit.decide.sampled import sampled_metrics
    from evalkit.store.views import open_store

    if not done.run.summary.complete:
        return []
    return sampled_metrics(open_store(done.run.store), done.run.run_id)


def _print(done: FinishedSample, metrics: Sequence[SampledMetric]) -> None:
    from evalkit.cli.progress import describe

    run, summary = done.run, done.run.summary
    if metrics:
        _print_table(metrics)
    click.echo(
        f"\nrun {run.run_id}: {summary.done} of {summary.planned} scored, {describe(summary)}\n"
        f"{done.calls} calls from {iso(done.since)} to {iso(done.until)}; for judges: "
        f"{done.drawn['random']} drawn at random, {done.drawn['active']} picked"
    )
    if done.already_done:
        click.echo("this window was done already; nothing was asked again")
    if summary.stopped:
        more = ", with a higher --max-cost" if summary.stopped == "budget_stop" else ""
        click.echo(f"stopped before its end; the same command goes on with it{more}")


def _print_table(metrics: Sequence[SampledMetric]) -> None:
    from evalkit.errors import shown

    rows = []
    for one in metrics:
        pair = f"{one.model}/{one.prompt_name}@{one.prompt_version}"
        n = 0 if one.estimate is None else one.estimate.n
        rows.append((
            *(shown(name) for name in (one.feature, pair, one.metric)),
            *_cells(one.estimate),
            str(n),
            str(one.missing or ""),
            *_cells(one.powered),
            str(one.n_labelled or ""),
        ))  # fmt: skip
    figures = ("mean", "95 %", "scored", "missing", "as people score", "95 %", "labels")
    print_table(("feature", "pair", "metric"), figures, rows)


def _cells(one: Estimate | None) -> tuple[str, str]:
    return ("-", "") if one is None else (f"{one.mean:.3f}", f"{one.low:.3f} to {one.high:.3f}")
