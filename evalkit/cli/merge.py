"""`evalkit merge`: parts of one run, made on several machines, into one."""

from __future__ import annotations

from pathlib import Path

import click

from evalkit.cli.options import common_options, print_json, say


@click.command("merge")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--from",
    "others",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A store that a shard is in, copied from its machine; repeatable.",
)
@common_options
def command(
    runs: tuple[str, ...],
    others: tuple[Path, ...],
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Merge the shards of one run (`evalkit run --shard i/n`) into a new, complete run.

    All shards have to be there, complete, and of the same golden sets and prompts.
    """
    from evalkit.cli.summary import exit_status, print_summary
    from evalkit.config import load_settings
    from evalkit.merging import merge_runs

    settings = load_settings(config)
    run_id, summary = merge_runs(store or settings.store_path, runs, others=others)
    if as_json:
        print_json({"run_id": run_id, "merged_from": list(runs), "done": summary.done})
    else:
        print_summary(run_id, summary)
        say(f"merged {len(runs)} shards into {run_id}")
    return exit_status(summary)
