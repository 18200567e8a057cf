"""`evalkit tune`: quality and cost of a cascade at each threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import USD, common_options, open_project, print_json, say
from evalkit.errors import EXIT_PASS, ConfigError, Interrupted, NotComparable

if TYPE_CHECKING:
    from evalkit.config import FeatureSettings, Settings
    from evalkit.score.tune import Paths, Point
    from evalkit.store.views import Store


@click.command("tune")
@click.argument("feature", metavar="FEATURE")
@click.option(
    "--golden-set", type=click.Path(path_type=Path), help="Default: the feature's, if it has one."
)
@click.option("--metric", metavar="M", help="What quality is; default: the first that gates.")
@click.option("--run", "run_id", metavar="RUN", help="A run of all the models; no call is made.")
@click.option("--trials", type=click.IntRange(1, 1000), help="Executions of each case.")
@click.option("--limit", type=click.IntRange(1), help="Only so many cases.")
@click.option("--max-cost", type=USD, metavar="USD", help="Stop before this.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write table and plot here."
)
@common_options
def command(
    feature: str,
    golden_set: Path | None,
    metric: str | None,
    run_id: str | None,
    trials: int | None,
    limit: int | None,
    max_cost: float | None,
    html: Path | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Say what FEATURE's cascade would score and cost at each value of escalate_below.

    Runs the golden set once with the feature's model and once with each of its fallbacks
    (or reads a --run that did), then counts for every threshold which answers would have
    stood. The suggested threshold is the cheapest one whose interval excludes a drop of
    the gate's max_drop against the last model alone. It was chosen on these cases:
    confirm it on others.
    """
    from evalkit.score.tune import read_paths

    settings, opened = open_project(store, config)
    asked = _cascade(settings, feature)
    models = (asked.model, *asked.fallbacks)
    if run_id is None:
        run_id = _run(settings, asked, golden_set, store, trials, limit, max_cost)
    else:
        from evalkit.decide.naming import run_named

        run_id = str(run_named(opened, run_id)["run_id"])
    name, metric = _what(opened, run_id, feature, golden_set, metric)
    paths = read_paths(
        opened,
        run_id,
        golden_set=name,
        models=models,
        prompt=f"{asked.prompt_name}@{asked.prompt_version}",
        metric=metric,
    )
    _refuse_empty(paths, run_id)
    tuned = _tuned(paths, settings, asked) | {"run_id": run_id, "golden_set": name}
    if html is not None:
        from evalkit.cli.tune_page import write_page

        write_page(tuned, html)
        say(f"wrote {html}")
    if as_json:
        print_json(tuned)
    else:
        _print(tuned)
    return EXIT_PASS


def _cascade(settings: Settings, name: str) -> FeatureSettings:
    feature = settings.features.get(name)
    if feature is None:
        known = ", ".join(sorted(settings.features)) or "none"
        raise ConfigError(f"no feature {name!r} in the configuration. There are: {known}.")
    if not feature.fallbacks:
        raise ConfigError(
            f"feature {name} has one model alone. Add the model that unsure answers go to "
            f'under [features.{name}]: fallbacks = ["…"].'
        )
    return feature


def _run(
    settings: Settings,
    feature: FeatureSettings,
    golden_set: Path | None,
    store: str | None,
    trials: int | None,
    limit: int | None,
    max_cost: float | None,
) -> str:
    """Run the golden set with every model of the cascade; returns the run's id."""
    from evalkit.cli.progress import run_progress
    from evalkit.session import run_golden_sets
    from evalkit.wiring import RunRequest

    if feature.escalate_below is None:  # with it, providers are asked for confidences
        unset = replace(feature, escalate_below=0.0)
        settings = replace(settings, features={**settings.features, feature.name: unset})
    finished = run_golden_sets(
        settings,
        RunRequest(
            golden_sets=(_golden_set(settings, feature, golden_set),),
            models=(feature.model, *feature.fallbacks),
            trials=trials,
            limit=limit,
            max_cost_usd=max_cost,
        ),
        store=store,
        progress=run_progress,
        on_start=say,
    )
    if not finished.summary.complete:
        stopped = Interrupted if finished.summary.stopped == "cancelled" else NotComparable
        raise stopped(
            f"run {finished.run_id} is not complete. Finish it with evalkit run --resume "
            f"{finished.run_id}, then: evalkit tune {feature.name} --run {finished.run_id}"
        )
    return finished.run_id


def _golden_set(settings: Settings, feature: FeatureSettings, asked: Path | None) -> Path:
    """The one golden set of the feature, or the one asked for."""
    from evalkit.score.golden import load_golden_sets

    loaded = load_golden_sets(() if asked is None else (asked,), settings=settings)
    found = [golden for golden in loaded if golden.feature == feature.name]
    if len(found) != 1:
        names = ", ".join(golden.name for golden in found) or "none"
        raise ConfigError(
            f"feature {feature.name} has golden sets: {names}. Name one with --golden-set."
        )
    return found[0].path


def _what(
    store: Store, run_id: str, feature: str, golden_set: Path | None, metric: str | None
) -> tuple[str, str]:
    """Which golden set and metric of the run are looked at."""
    sets: Mapping[str, Any] = store.manifest(run_id)["golden_sets"]
    names = [name for name, one in sets.items() if one["feature"] == feature]
    if golden_set is not None:
        names = [name for name in names if name in (golden_set.name, golden_set.parent.name)]
    if len(names) != 1:
        told = ", ".join(names) or "none"
        raise ConfigError(
            f"run {run_id} has golden sets of feature {feature}: {told}. "
            "Name one with --golden-set, or another --run."
        )
    metrics = sets[names[0]]["metrics"]
    known = [one["name"] for one in metrics if one["tier"] != 3]
    gating = [one["name"] for one in metrics if one["gate"] and one["name"] in known]
    if metric is not None and metric not in known:
        raise ConfigError(
            f"--metric {metric}: golden set {names[0]} has no such metric. "
            f"There are: {', '.join(known)}."
        )
    return names[0], metric or [*gating, *known][0]


def _refuse_empty(paths: Paths, run_id: str) -> None:
    if not paths.paths:
        raise NotComparable(
            f"run {run_id} has no case that all of {', '.join(paths.models)} answered with a "
            f"score of {paths.metric}. Run it with each: --model M, repeated."
        )
    asked = len(paths.paths) * (len(paths.models) - 1)
    if paths.without_confidence == asked:
        raise NotComparable(
            f"{', '.join(paths.models[:-1])}: no answer has a confidence, so that no threshold "
            "changes anything. Ask the provider for token probabilities, or route by kind."
        )


# --- what is said ----------------------------------------------------------------------


def _tuned(paths: Paths, settings: Settings, feature: FeatureSettings) -> dict[str, Any]:
    """Everything that is printed, as JSON."""
    from evalkit.score.tune import GRID, single_models, steps_of, sweep

    alone = single_models(paths)
    last = alone[-1]
    table = [_row(point, last, paths, settings) for point in sweep(paths, GRID)]
    return {
        "feature": feature.name,
        "metric": paths.metric,
        "models": list(paths.models),
        "escalate_below": feature.escalate_below,
        "cases": len(last.scores),
        "trials_left_out": paths.missing,
        "answers_without_confidence": paths.without_confidence,
        "max_drop": settings.gate.max_drop,
        "level": 1 - 2 * settings.gate.alpha,
        "suggested": _suggested(table, settings.gate.max_drop),
        "alone": [_row(point, last, paths, settings) for point in alone],
        "thresholds": table,
        "steps": [
            {"threshold": p.threshold, "quality": p.quality, "cost_usd": p.cost_usd,
             "escalated": p.escalated}
            for p in sweep(paths, steps_of(paths))
        ],
    }  # fmt: skip


def _row(point: Point, last: Point, paths: Paths, settings: Settings) -> dict[str, Any]:
    """A point beside the last model alone, with the interval of what it loses."""
    from evalkit.decide.stats import compare
    from evalkit.score.tune import clusters_of

    compared = compare(
        [one - other for one, other in zip(point.scores, last.scores, strict=True)],
        clusters=clusters_of(paths),
        alpha=settings.gate.alpha,
        max_drop=settings.gate.max_drop,
    )
    share = None
    if point.cost_usd is not None and last.cost_usd:
        share = point.cost_usd / last.cost_usd
    return {
        "threshold": point.threshold,
        "model": point.model,
        "quality": point.quality,
        "delta": compared.delta,
        "ci": compared.ci,
        "cost_usd": point.cost_usd,
        "cost_share": share,
        "latency_ms": point.latency_ms,
        "escalated": point.escalated,
        "shares": dict(point.shares),
    }


def _suggested(table: Sequence[Mapping[str, Any]], max_drop: float) -> float | None:
    """The cheapest threshold whose interval excludes a drop of `max_drop`; None: there is none."""
    good = [row for row in table if row["ci"] is not None and row["ci"][0] > -max_drop]
    if not good or any(row["cost_usd"] is None for row in good):
        return None
    return float(min(good, key=lambda row: (row["cost_usd"], row["escalated"]))["threshold"])


def _print(tuned: Mapping[str, Any]) -> None:
    chain = " -> ".join(tuned["models"])
    click.secho(f"{tuned['feature']}: {chain}, {tuned['metric']} on {tuned['cases']} cases of "
                f"{tuned['golden_set']}", bold=True)  # fmt: skip
    click.echo("  threshold  quality   against last alone      USD/1000     cost   escalated")
    for row in [*tuned["thresholds"], *tuned["alone"]]:
        click.echo("  " + _line(row))
    for text in notes_of(tuned):
        click.echo(text)


def _line(row: Mapping[str, Any]) -> str:
    name = row["model"][:20] if row["threshold"] is None else f"{row['threshold']:.2f}"
    ci = "not known" if row["ci"] is None else f"[{row['ci'][0]:+.3f}, {row['ci'][1]:+.3f}]"
    usd = "not known" if row["cost_usd"] is None else f"{1000 * row['cost_usd']:.4f}"
    share = "-" if row["cost_share"] is None else f"{100 * row['cost_share']:.0f} %"
    return (
        f"{name:<9}  {row['quality']:>7.3f}   {row['delta']:+.3f} {ci:<17} {usd:>9}  "
        f"{share:>6}   {100 * row['escalated']:>5.0f} %"
    )


def notes_of(tuned: Mapping[str, Any]) -> list[str]:
    """What has to be said beside the table."""
    notes = []
    if tuned["suggested"] is None:
        notes.append(
            f"suggested: none; no threshold excludes a drop of {tuned['max_drop']:g} against "
            f"{tuned['models'][-1]} alone, or a cost is not known."
        )
    else:
        row = next(r for r in tuned["thresholds"] if r["threshold"] == tuned["suggested"])
        shares = ", ".join(f"{name} {100 * s:.0f} %" for name, s in row["shares"].items())
        notes.append(f"suggested: escalate_below = {tuned['suggested']:.2f} ({shares}). "
                     "Chosen on these cases: confirm it on others.")  # fmt: skip
    if tuned["trials_left_out"]:
        notes.append(f"left out: {tuned['trials_left_out']} trials without a score of each model")
    if tuned["answers_without_confidence"]:
        notes.append(
            f"without a confidence, never escalated: {tuned['answers_without_confidence']} answers"
        )
    return notes
