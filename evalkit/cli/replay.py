"""`evalkit replay`: what a recorded call decided, decided again; or asked of another pair."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import common_options, open_project, print_json, say, warn
from evalkit.errors import EXIT_PASS, EXIT_REGRESSION, ConfigError, StoreError

if TYPE_CHECKING:
    from evalkit.call.replay import Replayed
    from evalkit.config import Settings
    from evalkit.records import CallRecord, CallResult
    from evalkit.store.views import Store

FACTS = ("latency_ms", "cost_usd", "prompt_tokens", "completion_tokens")
"""Shown beside the decisions when another pair is asked."""


@click.command("replay")
@click.argument("trace")
@click.option(
    "--against", metavar="MODEL/PROMPT@V",
    help="Ask this pair the same, for real, and show what differs.",
)  # fmt: skip
@common_options
def command(
    trace: str, against: str | None, as_json: bool, store: str | None, config: Path | None
) -> int:
    """Replay the call TRACE (its trace id, or the beginning of it) from the store.

    Every decision is taken again from the recorded replies: no provider is asked. The
    exit status is 1 when one comes out otherwise. With --against the pair is asked, and
    paid, and the exit status does not tell a difference.
    """
    settings, opened = open_project(store, config)
    record = _find(trace, opened)
    if against is not None:
        return _against(record, settings, against, as_json)
    from evalkit.call.replay import decisions, replay

    done = asyncio.run(replay(record, settings))
    if as_json:
        print_json({
            **_header(record),
            "same": done.same,
            "recorded": decisions(record),
            "replayed": decisions(done.record) if done.record else None,
            "value": done.value,
            "differences": [
                {"decision": d.decision, "recorded": d.recorded, "replayed": d.replayed}
                for d in done.differences
            ],
            "notes": list(done.notes),
        })  # fmt: skip
    else:
        _print_call(record)
        _print_replay(done)
    return EXIT_PASS if done.same else EXIT_REGRESSION


def _find(trace: str, store: Store) -> CallRecord:
    from evalkit.cli.show import traces_named
    from evalkit.score.stored import call_record

    rows = traces_named(trace, store)
    warn(store.problems)
    if not rows:
        raise StoreError(
            f"no call {trace!r} in {store.path}. "
            'List some: evalkit query "SELECT trace_id, ts, feature, status FROM calls"'
        )
    return call_record(rows[0])


# --- a replay ----------------------------------------------------------------------


def _header(record: CallRecord) -> dict[str, Any]:
    return {
        "trace_id": record.trace_id,
        "feature": record.feature,
        "pair": f"{record.model}/{record.prompt_name}@{record.prompt_version}",
        "stage_ms": dict(record.stage_ms),
    }


def _print_call(record: CallRecord) -> None:
    """The call as it is on record: who was asked, in which order, and how it ended."""
    header = _header(record)
    click.secho(f"{record.trace_id}  {record.feature}  {header['pair']}", bold=True)
    if record.stage_ms:
        spent = ", ".join(f"{name} {ms:g}" for name, ms in record.stage_ms.items())
        click.echo(f"  stages, ms: {spent}")
    for number, one in enumerate(record.attempts, 1):
        waited = f", after {one.wait_ms:.0f} ms" if one.wait_ms else ""
        how = one.error_kind or "answered"
        click.echo(
            f"  attempt {number}: {one.model} at {one.provider}: {how} "
            f"({one.latency_ms:.0f} ms{waited})"
        )
    served = f", served by {record.served_model}" if record.served_model else ""
    kind = f" ({record.error_kind})" if record.error_kind else ""
    click.echo(f"  recorded: {record.status}{kind}{served}")


def _print_replay(done: Replayed) -> None:
    from evalkit.call.replay import DECISIONS

    for note in done.notes:
        say(f"note: {note}")
    if done.same:
        click.echo(f"  replayed: the same ({', '.join((*DECISIONS, 'attempts'))})")
        return
    click.echo("  replayed: otherwise")
    for one in done.differences:
        click.echo(f"    {one.decision}: {_text(one.recorded)} -> {_text(one.replayed)}")


# --- against another pair ----------------------------------------------------------


def _against(record: CallRecord, settings: Settings, text: str, as_json: bool) -> int:
    from evalkit.call.replay import decisions, run_against
    from evalkit.records import Pair

    try:
        pair = Pair.parse(text)
    except ValueError as error:
        raise ConfigError(f"--against {error}") from None
    result = asyncio.run(run_against(record, settings, pair))
    before, after = _facts(record), _facts(result.record)
    diff = _diff(record, result, before=str(_header(record)["pair"]), after=text)
    if as_json:
        print_json({
            **_header(record),
            "against": text,
            "recorded": decisions(record) | before,
            "replayed": decisions(result.record) | after,
            "value": result.value,
            "diff": diff,
        })  # fmt: skip
        return EXIT_PASS
    _print_call(record)
    click.secho(f"against {text}", bold=True)
    theirs = decisions(result.record)
    for name, was in decisions(record).items():
        if name != "output" and was != theirs[name]:
            click.echo(f"  {name}: {_text(was)} -> {_text(theirs[name])}")
    for name, number in before.items():
        click.echo(f"  {name}: {_text(number)} -> {_text(after[name])}")
    click.echo("  output: the same" if not diff else "  output:")
    for line in diff:
        click.echo(f"    {_shown(line)}")
    return EXIT_PASS


def _facts(record: CallRecord) -> dict[str, Any]:
    return {name: getattr(record, name) for name in FACTS}


def _diff(record: CallRecord, result: CallResult, *, before: str, after: str) -> list[str]:
    return list(
        unified_diff(
            _lines(record.output), _lines(result.output), before, after, lineterm="", n=2
        )
    )  # fmt: skip


def _lines(output: str | None) -> list[str]:
    """An answer as lines; JSON laid out so that a field is a line."""
    try:
        value = json.loads(output or "")
    except ValueError:
        return (output or "").splitlines()
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True).splitlines()


def _text(value: Any) -> str:
    if isinstance(value, Mapping) or (isinstance(value, Iterable) and not isinstance(value, str)):
        return _shown(json.dumps(value, ensure_ascii=False))
    return "-" if value is None else _shown(str(value))


def _shown(text: str) -> str:
    from evalkit.errors import shown

    return shown(text)
