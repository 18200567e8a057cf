"""`evalkit baseline`: choose which run others are compared with, and carry it elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import common_options, print_json, say
from evalkit.errors import EXIT_PASS, ConfigError, InputFileError

if TYPE_CHECKING:
    from evalkit.store.views import Store

FILE = click.Path(path_type=Path, dir_okay=False)


@click.group("baseline")
def command() -> None:
    """Choose which run others are compared with.

    Without a choice it is the newest complete run of the default branch.
    """


@command.command("set")
@click.argument("run")
@click.option("--golden-set", "only", multiple=True, metavar="NAME", help="Only for this one.")
@common_options
def set_(
    run: str, only: tuple[str, ...], as_json: bool, store: str | None, config: Path | None
) -> int:
    """Compare with RUN from now on, for each golden set it has."""
    from evalkit.decide.selectors import find_run, require_complete

    opened = _open(store, config)
    manifest = require_complete(find_run(opened.runs(), run))
    golden_sets = manifest["golden_sets"]
    for name in only:
        if name not in golden_sets:
            raise ConfigError(
                f"--golden-set {name}: run {manifest['run_id']} has none of that name. "
                f"It has: {', '.join(golden_sets)}."
            )
    opened.score_files(manifest["run_id"])
    for name in only or golden_sets:
        opened.baselines.set(name, golden_sets[name].get("feature") or "", manifest["run_id"])
        say(f"{name}: compared with run {manifest['run_id']} from now on")
    if as_json:
        print_json(_listed(opened))
    return EXIT_PASS


@command.command("list")
@common_options
def list_(as_json: bool, store: str | None, config: Path | None) -> int:
    """The baselines that were chosen."""
    chosen = _listed(_open(store, config))
    if as_json:
        print_json(chosen)
        return EXIT_PASS
    for entry in chosen["baselines"]:
        click.echo(f"{entry['golden_set']} ({entry['feature']}): run {entry['run_id']}")
    if not chosen["baselines"]:
        click.echo("none chosen: the newest complete run of the default branch is compared with")
    return EXIT_PASS


@command.command("export")
@click.argument("file", type=FILE)
@common_options
def export(file: Path, as_json: bool, store: str | None, config: Path | None) -> int:
    """Write the choice to FILE (JSON), to be kept under version control."""
    chosen = _listed(_open(store, config))
    try:
        file.write_text(json.dumps(chosen, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}.") from None
    if as_json:
        print_json(chosen)
    say(f"wrote {file}")
    return EXIT_PASS


@command.command("import")
@click.argument("file", type=FILE)
@common_options
def import_(file: Path, as_json: bool, store: str | None, config: Path | None) -> int:
    """Take over the choice that FILE holds; its runs have to be in this store."""
    from evalkit.decide.selectors import find_run, require_complete

    opened = _open(store, config)
    runs = opened.runs()
    entries = _read(file)
    for entry in entries:
        require_complete(find_run(runs, entry["run_id"]))
    for entry in entries:
        opened.baselines.set(entry["golden_set"], entry["feature"], entry["run_id"])
        say(f"{entry['golden_set']}: compared with run {entry['run_id']} from now on")
    if as_json:
        print_json(_listed(opened))
    return EXIT_PASS


def _open(store: str | None, config: Path | None) -> Store:
    from evalkit.config import load_settings
    from evalkit.store.views import open_store

    return open_store(store or load_settings(config).store_path)


def _listed(store: Store) -> dict[str, Any]:
    return {
        "baselines": [
            {"golden_set": golden_set, "feature": feature, "run_id": run_id}
            for (golden_set, feature), run_id in sorted(store.baselines.all().items())
        ]
    }


def _read(file: Path) -> list[dict[str, str]]:
    """The entries of an exported file. Raises InputFileError with what is wrong."""
    from evalkit.strict import StrictError, loads_json, read_text

    try:
        value = loads_json(read_text(file, max_bytes=10_000_000), where=str(file))
    except OSError as error:
        raise InputFileError(f"{file}: cannot be read: {error.strerror}.") from None
    except StrictError as error:
        raise InputFileError(f"{file}:{error.line}: {error.message}.") from None
    entries = value.get("baselines") if isinstance(value, dict) else None
    names = ("golden_set", "feature", "run_id")
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in names)
        for entry in entries
    ):
        raise InputFileError(
            f'{file}: not an export of baselines: {{"baselines": [{{"golden_set", "feature", '
            '"run_id"}, …]}. Write it with: evalkit baseline export FILE.'
        )
    return entries
