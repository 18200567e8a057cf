"""`evalkit import`: golden sets and results of other tools, and what stayed behind."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from evalkit.cli.options import common_options, count, print_json
from evalkit.errors import EXIT_PASS

if TYPE_CHECKING:
    from evalkit.exchange.golden_sets import Imported

FORMATS = ("promptfoo", "openai-evals", "inspect", "deepeval")


@click.command("import")
@click.argument("format", type=click.Choice(FORMATS))
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    "folder",
    default=".",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="The project; default: here.",
)
@click.option("--feature", metavar="NAME", help="The feature that answers; default: FILE's name.")
@common_options
def command(
    format: str,
    file: Path,
    folder: Path,
    feature: str | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Bring over a golden set, or results, of another tool.

    Writes golden_sets/NAME/, prompts and judges where FILE has some, and scores it holds
    as results/NAME.jsonl, which evalkit gate compares. Says what has no counterpart.
    Nothing in FILE is run, no file that is there is changed, and a feature that has
    prompts keeps them.
    """
    from evalkit.exchange.golden_sets import read_foreign, write_golden_set

    imported = write_golden_set(read_foreign(format, file), folder, feature=feature)
    if as_json:
        print_json(
            {
                "written": [str(path) for path in imported.written],
                "cases": imported.n_cases,
                "results": imported.n_results,
                "not_carried_over": list(imported.lost),
                "config": imported.config,
            }
        )
    else:
        _print(imported)
    return EXIT_PASS


def _print(imported: Imported) -> None:
    from evalkit.errors import shown

    for path in imported.written:
        click.echo(f"wrote {path}")
    click.echo(f"\n{count(imported.n_cases, 'case')}, {count(imported.n_results, 'score')}")
    if imported.lost:
        click.echo("\nnot carried over:")
        for line in imported.lost:
            click.echo(f"  {shown(line)}")
    results = [path for path in imported.written if path.suffix == ".jsonl" and
               path.parent.name == "results"]  # fmt: skip
    if imported.config:
        click.echo("\nfor evalkit.toml, with the model you want:\n")
        click.echo("\n".join(f"    {line}".rstrip() for line in imported.config.splitlines()))
    if imported.n_cases:
        click.echo("\nthen: evalkit check")
    if results:
        click.echo(f"\ncompare: evalkit gate --baseline {quote(str(results[0]))} --candidate OTHER")
