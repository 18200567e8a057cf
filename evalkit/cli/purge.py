"""`evalkit purge`: forgets old texts and calls, or all of one user."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalkit.cli.options import common_options, print_json, say, warn
from evalkit.cli.periods import now
from evalkit.errors import EXIT_PASS, EXIT_UNMEASURABLE

if TYPE_CHECKING:
    from evalkit.forgetting import Forgotten


@click.command("purge")
@click.option("--dry-run", is_flag=True, help="Say what would go, change nothing.")
@click.option("--user", "users", multiple=True, metavar="ID", help="All of this user.")
@common_options
def command(
    dry_run: bool, users: tuple[str, ...], as_json: bool, store: str | None, config: Path | None
) -> int:
    """Forget production's texts after retention.text_days, its calls after calls_days.

    Scores, counts, tokens and costs of what is left stay. With --user, all that is of that
    user goes, whatever its age. Sampling jobs, feedback, reviews, jobs, labels and kept
    answers lose the texts of such calls, too. What is due at attached addresses stays, and
    is counted; of a user, the exit status is 3 then.
    """
    from evalkit.config import load_settings
    from evalkit.forgetting import forget, rule_of
    from evalkit.store.retention import PurgeRule
    from evalkit.store.views import open_store

    settings = load_settings(config).with_store(store)
    opened = open_store(settings.store_path)
    if users:
        rule = PurgeRule(user_ids=frozenset(name for user in users for name in _as_logged(user)))
    else:
        rule = rule_of(settings.retention, now=now())
        if rule == PurgeRule():
            say("nothing is to be purged: [retention] has no text_days and no calls_days")
    done = forget(opened, settings, rule, dry_run=dry_run)
    warn(opened.problems)
    if as_json:
        print_json({"dry_run": dry_run, **done.as_json()})
    else:
        _print(done, dry_run=dry_run)
    if done.log.open_segments:
        say(
            f"{done.log.open_segments} files are still written to; purge again once they are sealed"
        )
    if done.queue.reviews_open:
        say(f"{done.queue.reviews_open} reviews are due but not over: evalkit review list")
    if done.spending.spenders_open:
        say("this user has a call under way: purge again for what it spent")
    if stays := done.elsewhere.calls:
        say(
            f"{stays} calls that are due are at {', '.join(done.elsewhere.addresses)}, which no "
            "purge reaches: delete them there, or give the bucket a lifecycle rule"
        )
    # What cannot be read was not purged either, nor what of a user is elsewhere.
    is_left = opened.problems or (users and done.elsewhere.calls)
    return EXIT_UNMEASURABLE if is_left else EXIT_PASS


def _print(done: Forgotten, *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    log, queue, labels = done.log, done.queue, done.labels
    click.echo(
        f"{log.calls_removed} calls {would}removed, texts of {log.calls_emptied} calls and "
        f"{log.samples_emptied} sampling jobs {would}removed, in {log.files_changed} files"
    )
    reviews, jobs = queue.reviews_emptied, queue.jobs_emptied
    click.echo(
        f"texts of {reviews} reviews, {jobs} jobs and {labels.items_emptied} labelled items "
        f"{would}removed; {queue.reviews_removed} reviews, {queue.jobs_removed} jobs and "
        f"{labels.items_removed} items nobody labelled {would}removed"
    )
    click.echo(f"{done.spending.spenders_removed} users {would}removed from the spending ledger")
    if done.kept_answers is None:
        click.echo(f"kept answers in {done.kept_in} are only looked for when it is done")
    else:
        click.echo(f"{done.kept_answers} kept answers removed from {done.kept_in}")


def _as_logged(user: str) -> tuple[str, str]:
    """A user's id as it came, and as the log has it where it is personal data itself."""
    from evalkit.exchange.log_record import record
    from evalkit.redaction import redact_record

    logged = redact_record(record(trace_id="-", ts=0, user_id=user)).user_id
    return user, logged or user
