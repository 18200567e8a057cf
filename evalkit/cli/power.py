"""`evalkit power`: what drop a run would see, and what it takes to see more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalkit.cli.options import Number, common_options, open_project, print_json, warn
from evalkit.errors import EXIT_PASS, ConfigError

if TYPE_CHECKING:
    from evalkit.decide.planning import Design, Prospect
    from evalkit.score.golden import GoldenSet


@click.command("power")
@click.argument("golden_set", type=click.Path(path_type=Path))
@click.option(
    "--drop", type=Number(0, 1, min_open=True), default=0.05, show_default=True,
    help="Drop of the mean score that has to be seen, 0..1.",
)  # fmt: skip
@click.option("--trials", type=click.IntRange(1, 1000), help="Default: as the golden set says.")
@click.option(
    "--metric", "metrics", multiple=True, metavar="M",
    help="Only this metric; default: all that gate. Repeatable.",
)  # fmt: skip
@common_options
def command(
    golden_set: Path,
    drop: float,
    trials: int | None,
    metrics: tuple[str, ...],
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Say what drop a run of GOLDEN_SET would see with 80 % power, from the store's history.

    And how many cases or trials it takes to see --drop. Without earlier runs it assumes
    the worst case, and says so. The level is the gate's, shared by all gating metrics.
    """
    from evalkit.decide.history import spread_of
    from evalkit.decide.planning import prospect
    from evalkit.score.golden import load_golden_sets

    settings, opened = open_project(store, config)
    results = []
    for golden in load_golden_sets([golden_set], settings=settings):
        design = _design(golden, trials=trials, alpha=settings.gate.alpha)
        prospects = [
            prospect(name, spread_of(opened, golden.name, name), design, drop=drop)
            for name in _metrics(golden, metrics)
        ]
        results.append((golden.name, design, prospects))
    warn(opened.problems)
    if as_json:
        print_json([
            {"golden_set": name, "drop": drop, **asdict(design),
             "metrics": [asdict(one) for one in prospects]}
            for name, design, prospects in results
        ])  # fmt: skip
        return EXIT_PASS
    for name, design, prospects in results:
        _print(name, design, prospects, drop)
    return EXIT_PASS


def _design(golden: GoldenSet, *, trials: int | None, alpha: float) -> Design:
    from evalkit.decide.measure import MIN_SLICE
    from evalkit.decide.planning import Design

    clusters = [case.cluster for case in golden.cases]
    shared = {cluster for cluster in clusters if cluster is not None}
    gating = sum(metric.gate and metric.tier != 3 for metric in golden.metrics)
    slices = Counter(
        (key, str(case.metadata[key]))
        for case in golden.cases
        for key in golden.gating_slices
        if key in case.metadata
    )
    looked_at = 1 + sum(n >= MIN_SLICE for n in slices.values())
    return Design(
        n=len(clusters),
        n_clusters=len(shared) + clusters.count(None),
        trials=trials or golden.trials,
        alpha=alpha,
        comparisons=max(gating, 1) * looked_at,
    )


def _metrics(golden: GoldenSet, asked: Sequence[str]) -> list[str]:
    known = [metric.name for metric in golden.metrics]
    for name in asked:
        if name not in known:
            raise ConfigError(
                f"--metric {name}: golden set {golden.name} has no such metric. "
                f"There are: {', '.join(known)}."
            )
    gating = [m.name for m in golden.metrics if m.gate and m.tier != 3]
    return list(asked) or gating or known


def _print(name: str, design: Design, prospects: Sequence[Prospect], drop: float) -> None:
    clusters = "" if design.n_clusters == design.n else f" in {design.n_clusters} clusters"
    click.secho(
        f"{name}: {design.n} cases{clusters} x {design.trials} trials, alpha {design.alpha:g} "
        f"over {design.comparisons} gating comparison{'s' * (design.comparisons != 1)}",
        bold=True,
    )
    for one in prospects:
        seen = "none, not even a collapse" if one.mde is None else f"{100 * one.mde:.1f} points"
        cases = "more than can be" if one.cases_needed is None else str(one.cases_needed)
        trials = (
            ""
            if one.trials_needed is None
            else (f", or {one.trials_needed} trials a side at {design.n} cases")
        )
        click.echo(f"  {one.metric}")
        click.echo(f"    drop seen with 80 % power: {seen}")
        click.echo(f"    to see {100 * drop:g} points: {cases} cases{trials}")
        click.echo(f"    soonest: {one.soonest}")
        within = "not known" if one.within is None else f"{one.within:.4f}"
        click.echo(f"    variance of d: {one.between:.4f} between cases, {within} between trials")
        click.echo(f"    from: {one.source}")
