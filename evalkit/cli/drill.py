"""`evalkit drill failover`: fail providers on purpose, and see who answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import common_options, print_json, say
from evalkit.errors import EXIT_PASS, EXIT_REGRESSION, ConfigError

if TYPE_CHECKING:
    from evalkit.call.drill import Drilled
    from evalkit.config import FeatureSettings, Settings

LINE = "  {:<16} {:>6}  {:<20} {:<9} {}"


@click.group("drill")
def command() -> None:
    """Rehearse an outage before there is one."""


@command.command("failover")
@click.option(
    "--feature", "names", multiple=True, metavar="F",
    help="Only this feature; default: all. Repeatable.",
)  # fmt: skip
@click.option(
    "--input", "input_json", metavar="JSON",
    help="What the feature gets; default: the first case of a golden set it has.",
)  # fmt: skip
@common_options
def failover(
    names: tuple[str, ...],
    input_json: str | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Run the failure table against the configured providers: who answers when one fails?

    Faults are put in front of a feature's first model; its fallbacks are asked for real,
    and paid. Nothing is stored. The exit status is 1 when something else happens than the
    failure table says.
    """
    from evalkit.config import load_settings

    settings = load_settings(config)
    rows: dict[str, list[Drilled]] = {}
    for feature in _features(names, settings):
        input = _input(feature.name, input_json, settings)
        if not as_json:
            _print_header(feature, settings)
        rows[feature.name] = _run(settings, feature, input, quiet=as_json)
    sound = all(one.as_expected for drilled in rows.values() for one in drilled)
    if as_json:
        features = [
            {"feature": name, "drills": [_as_json(one) for one in drilled]}
            for name, drilled in rows.items()
        ]
        print_json({"as_expected": sound, "features": features})
    elif not sound:
        say("something else happened than the failure table says: see the lines marked NO")
    return EXIT_PASS if sound else EXIT_REGRESSION


def _features(names: tuple[str, ...], settings: Settings) -> list[FeatureSettings]:
    known = ", ".join(sorted(settings.features)) or "none"
    for name in names:
        if name not in settings.features:
            raise ConfigError(f"--feature {name}: no such feature. There are: {known}.")
    if not settings.features:
        raise ConfigError("no feature in the configuration to drill. Add [features.NAME].")
    return [settings.features[name] for name in names or settings.features]


def _input(name: str, input_json: str | None, settings: Settings) -> dict[str, Any]:
    """The given input, or the one of the first case of the feature's first golden set."""
    from evalkit.score.golden import HEADER, find_golden_sets, load_golden_set
    from evalkit.strict import StrictError, loads_json

    if input_json is not None:
        try:
            given = loads_json(input_json, where="--input")
        except StrictError as error:
            raise ConfigError(f"--input: {error.message}.") from None
        return dict(given) if isinstance(given, dict) else {"text": given}
    has_any = any((settings.root / "golden_sets").rglob(HEADER))
    for path in find_golden_sets([], settings=settings) if has_any else ():
        golden = load_golden_set(path, settings=settings)
        if golden.feature == name and len(golden.cases):
            return dict(golden.cases[0].input)
    raise ConfigError(
        f"feature {name}: no golden set has a case for it. Give an input: --input JSON."
    )


def _run(
    settings: Settings, feature: FeatureSettings, input: dict[str, Any], *, quiet: bool
) -> list[Drilled]:
    from evalkit.call.drill import drill_failover

    def show(done: Drilled) -> None:
        if not quiet:
            _print_row(done)

    return asyncio.run(drill_failover(settings, feature, input, on_done=show))


# --- what is shown -----------------------------------------------------------------


def _print_header(feature: FeatureSettings, settings: Settings) -> None:
    models = (feature.model, *feature.fallbacks)
    chain = " -> ".join(f"{name} ({settings.models[name].provider})" for name in models)
    click.secho(f"{feature.name}: {chain}", bold=True)
    click.echo(
        f"  {'fault':<16} {'failed':>6}  {'answered by':<20} {'status':<9} as the table says"
    )


def _print_row(done: Drilled) -> None:
    verdict = "yes" if done.as_expected else f"NO: {_wanted(done)}"
    note = f" ({done.note})" if done.note else ""
    answered_by = done.answered_by or "nobody"
    click.echo(LINE.format(done.kind, done.failed, answered_by, done.status, verdict + note))


def _wanted(done: Drilled) -> str:
    tries = done.expected.failed
    count = str(tries[0]) if len(tries) == 1 else f"{tries[0]} to {tries[-1]}"
    return f"{done.expected.answered_by or 'nobody'} after {count} failed"


def _as_json(done: Drilled) -> dict[str, Any]:
    tries = done.expected.failed
    return {
        "kind": done.kind,
        "attempts": done.attempts,
        "failed": done.failed,
        "answered_by": done.answered_by,
        "status": done.status,
        "error_kind": done.error_kind,
        "expected": {"failed": [tries[0], tries[-1]], "answered_by": done.expected.answered_by},
        "as_expected": done.as_expected,
        "latency_ms": done.latency_ms,
        "cost_usd": done.cost_usd,
        "note": done.note,
    }
