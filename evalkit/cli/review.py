"""`evalkit review`: answers that wait for a person, and what the person decides."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import common_options, print_json, say
from evalkit.errors import EXIT_PASS, EXIT_USAGE, ConfigError, shown

if TYPE_CHECKING:
    from evalkit.call.review import Review, ReviewQueue

TITLE_CHARS = 60
MAX_OUTPUT_BYTES = 10_000_000


@click.group("review")
def command() -> None:
    """Decide on answers that wait for a person.

    An approved answer's action runs once; what the states mean stands in docs/reviews.md.
    """


@command.command("list")
@click.option(
    "--state",
    type=click.Choice(
        ["pending", "approved", "running", "done", "rejected", "failed", "unknown", "all"]
    ),
    default="pending",
    show_default=True,
)
@common_options
def list_(state: str, as_json: bool, store: str | None, config: Path | None) -> int:
    """What waits, oldest first."""
    from evalkit.call.review import ReviewQueue

    path, _ = _place(store, config)
    reviews: Any = ()
    if path.exists():
        reviews = ReviewQueue(path).list(None if state == "all" else state)
    if as_json:
        print_json([_brief(review) for review in reviews])
        return EXIT_PASS
    for review in reviews:
        title = " ".join(shown(review.output or "").split())[:TITLE_CHARS]
        click.echo(f"{review.id}  {_time(review.created_at)}  {review.state:8}  "
                   f"{shown(review.feature)}  {title}")  # fmt: skip
    say(f"{len(reviews)} {'reviews' if state == 'all' else state}")
    return EXIT_PASS


@command.command("show")
@click.argument("review_id")
@common_options
def show(review_id: str, as_json: bool, store: str | None, config: Path | None) -> int:
    """One review whole: input, answer, action, and what happened so far."""
    from evalkit.store.audit import note_seen

    queue = _existing(store, config)[0]
    review, events = queue.get(review_id), queue.events(review_id)
    note_seen(
        _place(store, config)[0].parent,
        who=getpass.getuser(),
        kind="review",
        item=review.id,
        trace_ids=[str(review.record["trace_id"])],
    )
    if as_json:
        print_json(asdict(review) | {"events": list(events)})
        return EXIT_PASS
    for name in ("id", "state", "feature", "action", "key", "decided_by", "reason", "error"):
        value = getattr(review, name)
        if value is not None:
            click.echo(f"{name + ':':12}{shown(value)}")
    click.echo("input:")
    _echo_block(review.input)
    click.echo("answer:")
    _echo_block(review.output)
    for event in events:
        told = " ".join(shown(event[key]) for key in ("by", "note") if event[key])
        click.echo(f"{_time(event['at'])}  {event['state']:8}  {told}")
    return EXIT_PASS


def _by(function: Any) -> Any:
    option = click.option("--by", metavar="NAME", help="Who decides; default: the user name.")
    return option(function)


@command.command("approve")
@click.argument("review_id")
@_by
@click.option("--output", metavar="TEXT", help="Release this in place of the answer.")
@click.option(
    "--output-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="The same, from a file.",
)
@click.option("--no-run", is_flag=True, help="Leave the action to the service.")
@click.option("--again", is_flag=True, help="Once more, though it failed or its end is unknown.")
@common_options
def approve(
    review_id: str,
    by: str | None,
    output: str | None,
    output_file: Path | None,
    no_run: bool,
    again: bool,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Release the answer, and run its action, once."""
    import asyncio

    if output is not None and output_file is not None:
        raise click.UsageError("--output and --output-file exclude each other. Choose one.")
    if output_file is not None:
        from evalkit.strict import read_text

        output = read_text(output_file, max_bytes=MAX_OUTPUT_BYTES)
    queue, root = _existing(store, config)
    # Before anything is decided: an action that cannot be imported must not be approved.
    action = None if no_run else _action(queue.get(review_id), root)
    review = queue.approve(review_id, by or getpass.getuser(), output, again=again)
    if not no_run:
        review = asyncio.run(queue.resume(review_id, action))
    return _report(review, as_json)


@command.command("resume")
@click.argument("review_id")
@common_options
def resume(review_id: str, as_json: bool, store: str | None, config: Path | None) -> int:
    """Run the action of an approved review that has not run yet."""
    import asyncio

    queue, root = _existing(store, config)
    action = _action(queue.get(review_id), root)
    return _report(asyncio.run(queue.resume(review_id, action)), as_json)


@command.command("reject")
@click.argument("review_id")
@_by
@click.option("--reason", required=True, metavar="TEXT", help="Why not; kept with the review.")
@common_options
def reject(
    review_id: str,
    by: str | None,
    reason: str,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Keep the answer back; its action never runs."""
    queue, _ = _existing(store, config)
    return _report(queue.reject(review_id, by or getpass.getuser(), reason), as_json)


def _report(review: Review, as_json: bool) -> int:
    if as_json:
        print_json(_brief(review) | {"result": review.result})
    say(f"review {review.id}: {review.state}")
    if review.error is not None:
        say(shown(review.error))
    return EXIT_USAGE if review.state == "failed" else EXIT_PASS


def _brief(review: Review) -> dict[str, Any]:
    names = ("id", "key", "state", "feature", "action", "input", "output")
    about = {name: getattr(review, name) for name in names}
    return about | {
        "trace_id": review.record["trace_id"],
        "created_at": _time(review.created_at),
        "decided_by": review.decided_by,
        "decided_at": None if review.decided_at is None else _time(review.decided_at),
        "reason": review.reason,
        "error": review.error,
    }


def _action(review: Review, root: Path) -> Any:
    """The function that a review's action names; the project's own modules can be imported."""
    if review.action is None:
        return None
    from evalkit.call.functions import load_function, make_importable

    make_importable(root)
    return load_function(review.action)


def _place(store: str | None, config: Path | None) -> tuple[Path, Path]:
    """The queue file, and the project's folder."""
    from evalkit.call.queue_file import NAME
    from evalkit.config import load_settings

    settings = load_settings(config)
    path = store or settings.store_path
    if "://" in path:
        raise ConfigError(f"{path}: reviews are kept in a folder of this machine, not at a URL.")
    return Path(path) / NAME, settings.root


def _existing(store: str | None, config: Path | None) -> tuple[ReviewQueue, Path]:
    from evalkit.call.review import ReviewQueue

    path, root = _place(store, config)
    if not path.exists():
        raise ConfigError(f"nothing was ever held for review in {path.parent}.")
    return ReviewQueue(path), root


def _time(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _echo_block(value: Any) -> None:
    """A text with its line breaks, everything else as JSON; nothing that steers a terminal."""
    import json

    text = value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    for line in text.split("\n"):
        click.echo(f"    {shown(line)}")
