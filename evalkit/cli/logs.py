"""`evalkit logs`: calls that other tools logged, what users said of calls, compaction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalkit.cli.options import SHARE, common_options, open_project, print_json, say, store_of, warn
from evalkit.cli.periods import moment, now, refuse_backwards, span
from evalkit.errors import EXIT_PASS, EXIT_UNMEASURABLE, EXIT_USAGE, ConfigError

if TYPE_CHECKING:
    from evalkit.exchange.logs import Imported
    from evalkit.records import CallRecord
    from evalkit.settings import Settings

NAMES = ("evalkit", "otel", "openinference", "litellm", "langfuse")
SHOWN_PROBLEMS = 20


@click.group("logs")
def command() -> None:
    """The log of production's calls."""


@command.command("import")
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE…",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
)  # fmt: skip
@click.option("--format", "format", type=click.Choice(NAMES), help="Default: by their first row.")
@click.option("--feature", metavar="NAME", help="The feature of all these calls.")
@common_options
def import_command(
    files: tuple[Path, ...],
    format: str | None,
    feature: str | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Add the calls in JSON or JSON Lines files to the store.

    A call that is there already is not added again. A row that cannot be read is named
    with its line and left out; where no call could be read the exit status is 2. Costs
    that a log does not say are computed where the configuration has the model's price.
    """
    from evalkit.exchange.logs import import_log

    settings, opened = open_project(store, config)
    done = [
        import_log(
            path, opened, format=format, feature=feature, models=settings.models,
            clean=_cleaner(settings),
        )
        for path in files
    ]  # fmt: skip
    warn(opened.problems)
    if as_json:
        print_json([one.as_json() for one in done])
    else:
        _print(done)
    unread = any(one.bad_rows and not one.added + one.known for one in done)
    return EXIT_USAGE if unread else EXIT_PASS


@command.command("feedback")
@click.argument("trace_id", metavar="TRACE")
@click.option("--score", type=SHARE, help="0 is the worst, 1 the best.")
@click.option("--label", metavar="WORD", help="Such as up or down.")
@click.option("--comment", metavar="TEXT", help="The user's words; personal data is taken out.")
@click.option("--user", "user_id", metavar="ID", help="Who said it.")
@common_options
def feedback_command(
    trace_id: str,
    score: float | None,
    label: str | None,
    comment: str | None,
    user_id: str | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Attach what a user said to a call, whenever they said it.

    TRACE is the call's trace id, or its beginning. Nothing is ever overwritten: the view
    feedback has all that was said, and evalkit show TRACE prints it.
    """
    from evalkit.cli.show import traces_named

    opened = store_of(store, config)
    calls = traces_named(trace_id, opened) if trace_id else []
    if not calls:
        raise ConfigError(f"no call {trace_id!r} in {opened.path}. Is it in another --store?")
    found = calls[0]["trace_id"]
    feedback_id = opened.add_feedback(
        found, score=score, label=label, comment=comment, user_id=user_id
    )
    if as_json:
        print_json({"feedback_id": feedback_id, "trace_id": found})
    else:
        click.echo(f"attached to {found}")
    return EXIT_PASS


@command.command("compact")
@click.option(
    "--keep", "keep_s", type=span, default="1d", show_default=True, metavar="TIME",
    help="How long the joined files stay for queries that read them.",
)  # fmt: skip
@common_options
def compact_command(keep_s: float, as_json: bool, store: str | None, config: Path | None) -> int:
    """Join a day's small files of calls into few large ones.

    Readers do not notice; killed at any point, no call is lost or there twice. Calls are
    counted for the dashboard, too, so that nobody waits for that.
    """
    from evalkit.store.compaction import compact
    from evalkit.store.tallies import count_all

    opened = store_of(store, config)
    done = compact(opened, keep_s=keep_s)
    count_all(opened)
    warn(opened.problems)
    if as_json:
        print_json(done.as_json())
    else:
        click.echo(
            f"{done.joined} files joined into {done.written}, {done.calls} calls; "
            f"{done.removed} files of earlier compactions removed"
        )
    return EXIT_UNMEASURABLE if opened.problems else EXIT_PASS


@command.command("push")
@click.argument("url", metavar="URL")
@click.option("--move", is_flag=True, help="Read them there; remove them here after --keep.")
@click.option(
    "--keep", "keep_s", type=span, default="1d", show_default=True, metavar="TIME",
    help="How long moved files stay here for queries that read them.",
)  # fmt: skip
@common_options
def push_command(
    url: str, move: bool, keep_s: float, as_json: bool, store: str | None, config: Path | None
) -> int:
    """Copy the sealed calls to an object store, s3://bucket/folder.

    What is there already is left alone; exit status 3 where it is no longer what is here,
    or something here could not be read. Needs evalkit[s3] where pyarrow does not know
    the address itself.
    """
    from evalkit.store.remote import push

    opened = store_of(store, config)
    done = push(opened, url, move=move, keep_s=keep_s)
    warn(opened.problems)
    if done.changed:
        say(
            f"warning: {done.changed} files are at {url} as they were before a purge changed them "
            "here, and are not overwritten: delete them there, then push again"
        )
    if as_json:
        print_json(done.as_json())
    else:
        click.echo(f"{done.sent} files sent, {done.there} were there, {done.removed} removed here")
    return EXIT_UNMEASURABLE if opened.problems or done.changed else EXIT_PASS


@command.command("attach")
@click.argument("url", metavar="URL")
@click.option("--remove", is_flag=True, help="Leave the calls at URL out again.")
@common_options
def attach_command(
    url: str, remove: bool, as_json: bool, store: str | None, config: Path | None
) -> int:
    """Read the calls at URL as if they were in the store: query, sample, show, drift."""
    from evalkit.store.remote import attach, attached, detach

    opened = store_of(store, config)
    (detach if remove else attach)(opened.path, url)
    urls = attached(opened.path)
    if as_json:
        print_json({"calls": urls})
    else:
        click.echo("\n".join(urls) or "no address is attached")
    return EXIT_PASS


@command.command("export")
@click.option("--endpoint", metavar="URL", help="The collector; default: as OTEL_* variables say.")
@click.option("--since", type=moment, metavar="WHEN", help="Calls from then on.")
@click.option("--until", type=moment, metavar="WHEN", help="Default: now.")
@click.option("--run", "runs", multiple=True, metavar="RUN", help="Scores of this run; repeatable.")
@click.option("--texts", is_flag=True, help="Send inputs and answers, too.")
@common_options
def export_command(
    endpoint: str | None,
    since: int | None,
    until: int | None,
    runs: tuple[str, ...],
    texts: bool,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Send what the store has to an OpenTelemetry collector, over OTLP/HTTP.

    Calls become spans and metrics, scores become gen_ai.evaluation.result events on the
    span of their call. Needs evalkit[otel].
    """
    from evalkit.decide.naming import run_named
    from evalkit.exchange.otel import OtelSink
    from evalkit.exchange.otel_export import export_calls, export_scores

    if since is None and not runs:
        raise click.UsageError("nothing to export. Give --since, --run, or both.")
    refuse_backwards(since, until)
    opened = store_of(store, config)
    found = [str(run_named(opened, run)["run_id"]) for run in runs]
    with OtelSink(endpoint, texts=texts) as sink:
        end = now() if until is None else until
        calls = 0 if since is None else export_calls(opened, sink, since=since, until=end)
        scores = sum(export_scores(opened, sink, run_id) for run_id in found)
    warn(opened.problems)
    if as_json:
        print_json({"calls": calls, "scores": scores, "failed": sink.failed})
    else:
        click.echo(f"{calls} calls and {scores} scores sent")
    return EXIT_UNMEASURABLE if sink.failed or opened.problems else EXIT_PASS


def _cleaner(settings: Settings) -> Callable[[CallRecord], CallRecord]:
    """What [retention] lets be written down of a call."""
    from evalkit.redaction import redact_record, without_texts

    def clean(call: CallRecord) -> CallRecord:
        if not settings.retention.log_text:
            call = without_texts(call)
        return redact_record(call) if settings.retention.redact else call

    return clean


def _print(done: Sequence[Imported]) -> None:
    from evalkit.errors import shown

    for one in done:
        click.echo(f"{shown(one.file)} ({one.format or 'no call'}): {one.added} calls added")
        for number, what in (
            (one.known, "were there already"),
            (one.no_calls, "rows are no call of a model"),
            (
                one.without_prompt_version,
                "have no prompt version: no run can be compared with them",
            ),
            (one.unpriced, "have no known cost"),
            (one.bad_rows, "rows could not be read"),
        ):
            if number:
                click.echo(f"    {number} {what}")
        for problem in one.problems[:SHOWN_PROBLEMS]:
            say(shown(problem))
        if len(one.problems) > SHOWN_PROBLEMS:
            say(f"{len(one.problems) - SHOWN_PROBLEMS} more; --json prints all")
