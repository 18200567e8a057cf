"""`evalkit baseline`: choose which run others are compared with, and carry it elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from evalkit.cli.options import common_options, print_json, say, store_of
from evalkit.errors import EXIT_PASS, ConfigError, shown

FILE = click.Path(path_type=Path, dir_okay=False)


@click.group("baseline")
def command() -> None:
    """Choose which run others are compared with.

    Without a choice it is the newest complete run of the default branch.
    """


@command.command("set")
@click.argument("run")
@click.option("--golden-set", "only", multiple=True, metavar="NAME", help="Only for this one.")
@click.option("--expect", metavar="RUN|none", help="Only if that is what is chosen now.")
@common_options
def set_(
    run: str,
    only: tuple[str, ...],
    expect: str | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Compare with RUN from now on, for each golden set it has.

    All of them or none. Whoever is not first, of several at once, is told (exit status 2).
    """
    from evalkit.decide.naming import run_named
    from evalkit.decide.selectors import require_complete
    from evalkit.exchange.baseline_file import baselines_of

    opened = store_of(store, config)
    seen = opened.baselines.all()
    manifest = require_complete(run_named(opened, run))
    _refuse_shard(manifest)
    golden_sets = manifest["golden_sets"]
    for name in only:
        if name not in golden_sets:
            raise ConfigError(
                f"--golden-set {name}: run {manifest['run_id']} has none of that name. "
                f"It has: {', '.join(golden_sets)}."
            )
    opened.score_files(manifest["run_id"])
    chosen = {
        (name, golden_sets[name].get("feature") or ""): manifest["run_id"]
        for name in only or golden_sets
    }
    if expect is not None:
        old = None if expect == "none" else run_named(opened, expect)["run_id"]
        seen = {} if old is None else dict.fromkeys(chosen, str(old))
    opened.baselines.choose(chosen, seen=seen)
    for name, _ in chosen:
        say(f"{name}: compared with run {manifest['run_id']} from now on")
    if as_json:
        print_json({"baselines": baselines_of(opened)})
    return EXIT_PASS


def _refuse_shard(run: Mapping[str, Any]) -> None:
    """A part of the cases is no baseline for all of them."""
    if run.get("shard"):
        raise ConfigError(
            f"run {run['run_id']} is shard {run['shard']['number']} of {run['shard']['of']}, and "
            "no baseline by itself. Merge the shards (evalkit merge), and set the run they make."
        )


@command.command("list")
@common_options
def list_(as_json: bool, store: str | None, config: Path | None) -> int:
    """The baselines that were chosen."""
    from evalkit.exchange.baseline_file import baselines_of

    chosen = baselines_of(store_of(store, config))
    if as_json:
        print_json({"baselines": chosen})
        return EXIT_PASS
    for entry in chosen:
        click.echo(shown(f"{entry['golden_set']} ({entry['feature']}): run {entry['run_id']}"))
    if not chosen:
        click.echo("none chosen: the newest complete run of the default branch is compared with")
    return EXIT_PASS


@command.command("export")
@click.argument("file", type=FILE)
@common_options
def export(file: Path, as_json: bool, store: str | None, config: Path | None) -> int:
    """Write the chosen baselines, with their runs' scores, to FILE (zip)."""
    from evalkit.exchange.baseline_file import export_baselines

    chosen = export_baselines(store_of(store, config), file)
    if as_json:
        print_json({"baselines": chosen})
    say(f"wrote {file}")
    return EXIT_PASS


@command.command("import")
@click.argument("file", type=FILE)
@common_options
def import_(file: Path, as_json: bool, store: str | None, config: Path | None) -> int:
    """Take over the baselines, and the runs, that an export holds."""
    from evalkit.exchange.baseline_file import import_baselines

    chosen = import_baselines(store_of(store, config), file)
    for entry in chosen:
        say(f"{entry['golden_set']}: compared with run {entry['run_id']} from now on")
    if as_json:
        print_json({"baselines": chosen})
    return EXIT_PASS
