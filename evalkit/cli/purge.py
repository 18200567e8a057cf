"""`evalkit purge`: forgets old texts and calls, or all calls of one user."""

from __future__ import annotations

from pathlib import Path

import click

from evalkit.cli.options import common_options, print_json, say
from evalkit.cli.periods import DAY, now
from evalkit.errors import EXIT_PASS


@click.command("purge")
@click.option("--dry-run", is_flag=True, help="Say what would go, change nothing.")
@click.option("--user", "users", multiple=True, metavar="ID", help="All calls of this user.")
@common_options
def command(
    dry_run: bool, users: tuple[str, ...], as_json: bool, store: str | None, config: Path | None
) -> int:
    """Forget production's texts after retention.text_days, its calls after calls_days.

    Scores, counts, tokens and costs of what is left stay. With --user, only the calls of
    that user go, whatever their age. What sampling jobs said of such calls loses its texts.
    """
    from evalkit.config import load_settings
    from evalkit.store.retention import PurgeRule, purge
    from evalkit.store.views import open_store

    settings = load_settings(config)
    opened = open_store(store or settings.store_path)
    at, keep = now(), settings.retention
    if users:
        rule = PurgeRule(user_ids=frozenset(name for user in users for name in _as_logged(user)))
    else:
        rule = PurgeRule(
            texts_before=None if keep.text_days is None else at - keep.text_days * DAY,
            calls_before=None if keep.calls_days is None else at - keep.calls_days * DAY,
        )
        if rule == PurgeRule():
            say("nothing is to be purged: [retention] has no text_days and no calls_days")
    done = purge(opened, rule, dry_run=dry_run)
    for problem in opened.problems:
        say(f"warning: {problem}")
    if as_json:
        print_json({"dry_run": dry_run, **done.as_json()})
        return EXIT_PASS
    would = "would be " if dry_run else ""
    click.echo(
        f"{done.calls_removed} calls {would}removed, texts of {done.calls_emptied} calls and "
        f"{done.samples_emptied} sampling jobs {would}removed, in {done.files_changed} files"
    )
    if done.open_segments:
        say(f"{done.open_segments} files are still written to; purge again once they are sealed")
    return EXIT_PASS


def _as_logged(user: str) -> tuple[str, str]:
    """A user's id as it came, and as the log has it where it is personal data itself."""
    from evalkit.call.guards import redact_record
    from evalkit.exchange.log_record import record

    logged = redact_record(record(trace_id="-", ts=0, user_id=user)).user_id
    return user, logged or user
