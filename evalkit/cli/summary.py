"""How a run ended: its table by golden set and pair, and its exit status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from evalkit.errors import EXIT_INTERRUPTED, EXIT_PASS, EXIT_UNMEASURABLE

if TYPE_CHECKING:
    from evalkit.score.summary import MetricSummary, RunSummary

NARROWEST = 60
"""Columns that the closing table needs."""


def exit_status(summary: RunSummary) -> int:
    """0 when all is measured; 3 when it is not, 130 when it was interrupted."""
    if summary.stopped == "cancelled":
        return EXIT_INTERRUPTED
    measured = any(metric.n for metric in summary.metrics.values())
    return EXIT_PASS if summary.complete and measured else EXIT_UNMEASURABLE


def print_summary(run_id: str, summary: RunSummary, *, resume: str = "evalkit run") -> None:
    """The closing table; `resume` is the command that goes on with --resume."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.width = max(console.width, NARROWEST)  # a terminal wraps what a table would drop
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
    _print_closing(run_id, summary, resume)


def _print_closing(run_id: str, summary: RunSummary, resume: str) -> None:
    from evalkit.cli.progress import describe

    click.echo(f"\nrun {run_id}: {summary.done} of {summary.planned} cases, {describe(summary)}")
    if summary.errors:
        kinds = ", ".join(f"{kind} {n}" for kind, n in summary.errors.most_common())
        click.echo(f"failed calls: {kinds} (which ones: evalkit show {run_id})")
    if summary.stopped:
        why, more = {
            "budget_stop": ("stopped at --max-cost", " --max-cost MORE"),
            "cancelled": ("interrupted", ""),
        }[summary.stopped]
        click.echo(f"{why}; go on with: {resume} --resume {run_id}{more}")
