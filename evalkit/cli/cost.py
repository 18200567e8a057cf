"""`evalkit cost`: what production's calls cost, by feature, model, user, tenant or day."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalkit.cli.options import common_options, open_project, print_json, print_table, say, warn
from evalkit.cli.periods import moment, now, refuse_backwards
from evalkit.errors import EXIT_PASS, EXIT_UNMEASURABLE

if TYPE_CHECKING:
    from evalkit.decide.costs import CostReport, Spend
    from evalkit.decide.limits import LimitUse
    from evalkit.settings import Settings
    from evalkit.store.views import Store

GROUPS = ("feature", "model", "user", "tenant", "day")
SHOWN_GROUPS = 200
SHOWN_LIMITS = 20


@click.command("cost")
@click.option(
    "--by", default="feature", show_default=True, metavar="COLS",
    help=f"Any of {', '.join(GROUPS)}, with commas.",
)  # fmt: skip
@click.option("--since", type=moment, metavar="WHEN", help="Calls from then on: 2026-03-01, or 7d.")
@click.option("--until", type=moment, metavar="WHEN", help="Calls before then.")
@click.option("--runs", is_flag=True, help="With the calls of evaluation runs, judges included.")
@common_options
def command(
    by: str,
    since: int | None,
    until: int | None,
    runs: bool,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Say what production's calls cost, and what caches and cheap models saved.

    A call whose price is not known is counted as unpriced and never as 0. "Against
    frontier" is the cost over what the same tokens cost at a frontier model's price;
    answers from a cache are left out of it. Limits of [budgets] are shown with their use
    and where they are heading, at the pace of the last seven days. Exit status 3 where some
    calls could not be read: the sums are without them.
    """
    from evalkit.decide.costs import cost_report

    columns = _columns(by)
    refuse_backwards(since, until)
    settings, opened = open_project(store, config)
    with (
        opened.engine("FROM calls") if runs else opened.production(since=since, until=until)
    ) as engine:
        report = cost_report(engine, settings, by=columns, since=since, until=until)
    limits = _limits(opened, settings)
    warn(opened.problems)
    if as_json:
        which = {"calls": "all" if runs else "production"}
        print_json(which | report.as_json() | {"limits": [use.as_json() for use in limits]})
    else:
        _print(report)
        _print_limits(limits)
    return EXIT_UNMEASURABLE if opened.problems else EXIT_PASS


def _limits(store: Store, settings: Settings) -> list[LimitUse]:
    """Of [budgets], as of now: what is used of each, and where it is heading."""
    from evalkit.decide.limits import limits_in_use, reads_since, spent_by_calls
    from evalkit.settings import BudgetSettings

    if settings.budgets == BudgetSettings():
        return []
    with store.production(since=reads_since(settings.budgets, now())) as engine:
        return limits_in_use(spent_by_calls(engine), settings.budgets, now=now())


def _columns(text: str) -> list[str]:
    columns = [name.strip() for name in text.split(",") if name.strip()]
    for name in columns:
        if name not in GROUPS:
            raise click.UsageError(f"--by {name}: not known. Known: {', '.join(GROUPS)}.")
    return list(dict.fromkeys(columns))


def _print(report: CostReport) -> None:
    from rich.text import Text

    from evalkit.decide.costs import CACHE_TARGET
    from evalkit.errors import shown

    if not report.total.calls:
        say("no calls")
        return
    rows = list(report.groups.items()) if report.by else []
    label = (Text("all", style="bold"), *[Text()] * (len(report.by) - 1)) if report.by else ()
    figures = ("calls", "cost USD", "unpriced", "tokens", "cached", "cheap", "vs frontier")
    print_table(report.by, figures, [
        *((*("-" if n is None else shown(n) for n in names), *_cells(spend))
          for names, spend in rows[:SHOWN_GROUPS]),
        (*label, *_cells(report.total)),
    ])  # fmt: skip
    if len(rows) > SHOWN_GROUPS:
        say(f"{len(rows) - SHOWN_GROUPS} more groups; --json prints all")
    share = report.total.cache_hit_share or 0.0
    verb = "reached" if share >= CACHE_TARGET else "missed"
    click.echo(f"\ncache hits {share:.1%}: the target of {CACHE_TARGET:.0%} is {verb}")
    for what, sizes in report.sizes.items():
        told = f"median {sizes.p50:,}, p95 {sizes.p95:,}, p99 {sizes.p99:,}"
        click.echo(f"{what.replace('_', ' ')} of a call: {told}")


def _print_limits(limits: Sequence[LimitUse]) -> None:
    from evalkit.errors import shown

    if not limits:
        return
    click.echo()
    print_table(("limit",), ("used", "of", "share", "forecast", "full in days"), [
        (
            f"{shown(use.whose)}: {use.key}",
            _amount(use.used),
            _amount(use.limit),
            f"{use.share:.0%}",
            "-" if use.forecast is None else _amount(use.forecast),
            "" if use.days_until_full is None else f"{use.days_until_full:.1f}",
        )
        for use in limits[:SHOWN_LIMITS]
    ])  # fmt: skip
    if len(limits) > SHOWN_LIMITS:
        say(f"{len(limits) - SHOWN_LIMITS} more limits are less used; --json prints all")


def _amount(value: Decimal) -> str:
    return f"{value:,.2f}".removesuffix(".00")


def _cells(spend: Spend) -> list[str]:
    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.1%}"

    priced = spend.calls - spend.unpriced_calls
    return [
        str(spend.calls),
        f"{spend.cost_usd:.6f}" if priced else "-",
        str(spend.unpriced_calls or ""),
        str(spend.prompt_tokens + spend.completion_tokens),
        share(spend.cache_hit_share),
        share(spend.cheap_share),
        share(spend.against_frontier),
    ]
