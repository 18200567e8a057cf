"""`evalkit dashboard`: production on one page."""

from __future__ import annotations

import getpass
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalkit.cli.options import common_options, open_project, print_json, say, warn
from evalkit.cli.periods import DAY, moment, now
from evalkit.errors import EXIT_PASS, EXIT_UNMEASURABLE

if TYPE_CHECKING:
    from evalkit.settings import Settings


@click.command("dashboard")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write one file that is complete in itself, and end.",
)  # fmt: skip
@click.option(
    "--days", type=click.IntRange(1, 3660), default=7, show_default=True,
    help="How far back it shows.",
)  # fmt: skip
@click.option(
    "--since", type=moment, metavar="WHEN", help="Instead, with --html or --json: from then on."
)
@click.option("--until", type=moment, metavar="WHEN", help="Until then; default: now.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, show_default=True,
    help="Of the local page; 0 takes a free one.",
)  # fmt: skip
@common_options
def command(
    html: Path | None,
    days: int,
    since: int | None,
    until: int | None,
    port: int,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Show production: quality, cost, latency, caches, failures, reviews and alerts.

    Serves a page for one browser on this machine, which only reads; --html writes it as a
    file, --json prints its figures. Quality is that of sampling jobs, alerts are those of
    the last evalkit alerts. Where some of the store could not be read the exit status is 3.
    """
    settings, opened = open_project(store, config)
    if html is None and not as_json:
        if since is not None or until is not None:
            raise click.UsageError("--since and --until go with --html or --json; else --days.")
        return _serve(opened.path, settings, days=days, port=port)
    from evalkit.dashboard.figures import gather
    from evalkit.dashboard.page import write_dashboard
    from evalkit.dashboard.window import Window

    at = now()
    end = at if until is None else until
    start = end - days * DAY if since is None else since
    if start >= end:
        raise click.UsageError("--since is not before --until.")
    figures = gather(opened, settings, Window.of(start, end), now=at)
    warn(figures.problems)
    if html is not None:
        write_dashboard(html, figures, project=settings.root)
        say(f"written: {html}")
    if as_json:
        print_json(figures.as_json())
    return EXIT_UNMEASURABLE if figures.problems else EXIT_PASS


def _serve(store: Path, settings: Settings, *, days: int, port: int) -> int:
    from evalkit.dashboard.serving import serve

    def announce(who: str, url: str) -> None:
        click.echo(url)
        sys.stdout.flush()

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    say("The address is good for one browser. Ctrl-C ends.")
    serve(
        store, settings, days=days, clock=now, port=port, who=getpass.getuser(), announce=announce
    )
    return EXIT_PASS
