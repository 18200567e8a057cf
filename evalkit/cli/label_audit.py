"""`evalkit label audit`: who was shown what, and what they said of it."""

from __future__ import annotations

from pathlib import Path

import click

from evalkit.cli.options import common_options, print_json, say, store_of
from evalkit.cli.periods import iso, moment
from evalkit.errors import EXIT_PASS, shown


@click.command("audit")
@click.option("--who", metavar="NAME", help="Only of this annotator or reviewer.")
@click.option("--trace", metavar="TRACE", help="Only of this call.")
@click.option("--since", type=moment, metavar="WHEN", help="From then on: 2026-03-01, or 7d.")
@common_options
def audit(
    who: str | None,
    trace: str | None,
    since: int | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Say who was shown which answer, labels and reviews alike, and what they said."""
    from dataclasses import asdict

    from evalkit.labelling.auditing import events

    folder = store_of(store, config).path
    found = events(folder, who=who, trace_id=trace, since=since or 0)
    if as_json:
        print_json([{**asdict(one), "at": iso(one.at)} for one in found])
        return EXIT_PASS
    for one in found:
        item = f"{one.kind} {shown(one.item)}"
        calls = " ".join(shown(trace_id) for trace_id in one.trace_ids)
        click.echo(f"{iso(one.at)[:19]}  {shown(one.who)}  {one.did}  {item}  {calls}")
    if not found:
        say("nobody was shown anything")
    return EXIT_PASS
