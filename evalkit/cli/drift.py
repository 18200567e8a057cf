"""`evalkit drift`: has the quality of production's answers moved since its beginning?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalkit.cli.options import (
    USD,
    Number,
    common_options,
    open_project,
    print_json,
    print_table,
    say,
    warn,
)
from evalkit.cli.periods import iso, moment, now
from evalkit.errors import EXIT_PASS, EXIT_REGRESSION, EXIT_UNMEASURABLE

if TYPE_CHECKING:
    from evalkit.decide.monitor import Watched


@click.command("drift")
@click.option("--feature", metavar="NAME", help="Only this feature.")
@click.option("--since", type=moment, metavar="WHEN", help="Series begin then; default: ever.")
@click.option(
    "--alpha", type=Number(0, 1, min_open=True, max_open=True), default=0.05,
    show_default=True, help="Chance that anything ever alarms while all is steady.",
)  # fmt: skip
@click.option(
    "--judges", "judges", is_flag=True,
    help="First have judges grade their anchors, once a day: this asks models.",
)  # fmt: skip
@click.option("--max-cost", type=USD, metavar="USD", help="Of --judges: stop before.")
@common_options
def command(
    feature: str | None,
    since: int | None,
    alpha: float,
    judges: bool,
    max_cost: float | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Watch production by feature, model, prompt version and metric, from the first day on.

    Sampled scores; shares of repaired, refused, invalid, slow and dear answers, of unusually
    long and short ones; languages, routes, topics and labels; how judges grade their anchors.
    May be looked at as often as one likes. Exit status 1 when something has moved for the
    worse; 3 when nothing is seen to have, but some of the store could not be read.
    """
    from evalkit.cli.anchors import grade_anchors
    from evalkit.decide.monitor import series_of, watch_all
    from evalkit.score.inputs import describe_inputs

    settings, opened = open_project(store, config)
    if judges:
        grade_anchors(settings, opened, max_cost)
    describe_inputs(opened, settings.features, now=now())
    found = watch_all(series_of(opened, since=since or 0), alpha=alpha)
    names = {one.series.names[0] for one in found} | settings.features.keys()
    if feature is not None and feature not in names:
        raise click.UsageError(
            f"--feature {feature}: not in the configuration, and none of its calls in the store."
        )
    watched = [one for one in found if feature in (None, one.series.names[0])]
    warn(opened.problems)
    if as_json:
        print_json([one.as_json() for one in watched])
    else:
        _print(watched)
    if any(one.state == "drift" for one in watched):
        return EXIT_REGRESSION
    return EXIT_UNMEASURABLE if opened.problems else EXIT_PASS


def _print(watched: list[Watched]) -> None:
    from evalkit.errors import shown

    if not watched:
        say("nothing to watch: evalkit sample scores production's calls")
        return
    rows = []
    for one in watched:
        low, high = one.interval or (None, None)
        rows.append((
            *(shown(name) for name in (*one.series.names, one.state)),
            _number(one.reference_mean),
            _number(one.mean),
            "-" if low is None else f"{low:.3f} to {high:.3f}",
            str(one.n),
            "-" if one.since is None else iso(one.since)[:10],
        ))  # fmt: skip
    names = ("feature", "model", "prompt", "metric", "state")
    print_table(names, ("before", "mean", "interval", "n", "since"), rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
