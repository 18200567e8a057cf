"""Options that every command has, and how a command prints."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from evalkit.errors import shown

if TYPE_CHECKING:
    from rich.text import Text

    from evalkit.settings import Settings
    from evalkit.store.views import Store

F = TypeVar("F", bound=Callable[..., Any])
LEAST = 1e-9
"""Of a number that is not 0: what is smaller overflows when something is divided by it."""

MAX_SEED = 2**63 - 1
"""Of either sign: a column of the store has 64 bits."""


class Number(click.FloatRange):
    """A finite number within bounds; click's own range lets NaN pass."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number) or 0 < abs(number) < LEAST:
            self.fail(f"{value!r} is no number that can be reckoned with.", param, ctx)
        return number


class Seed(click.types.IntParamType):
    """A whole number that a column of the store can hold."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        number: int = super().convert(value, param, ctx)
        if not -MAX_SEED <= number <= MAX_SEED:
            self.fail(f"{value} is not between -{MAX_SEED} and {MAX_SEED}.", param, ctx)
        return number


SHARE = Number(0, 1)
ALPHA = Number(0, 0.5, min_open=True)
USD = Number(0)
SEED = Seed()


def common_options(function: F) -> F:
    """`--json`, `--store` and `--config`, in this order at the end of a command's help."""
    function = _alone_on_stdout(function)
    for option in (
        click.option(
            "--config",
            type=click.Path(path_type=Path, dir_okay=False),
            help="The configuration; default: evalkit.toml here or above.",
        ),
        click.option("--store", "store", metavar="DIR", help="The store; default: as configured."),
        click.option("--json", "as_json", is_flag=True, help="Machine-readable result on stdout."),
    ):
        function = option(function)
    return function


_STDOUT = "evalkit.stdout"
"""Where a click context keeps the stream that machine output goes to."""


def _alone_on_stdout(function: F) -> F:
    """With `--json`, what anything else prints, the user's code above all, goes to stderr."""

    @wraps(function)
    def command(*arguments: Any, as_json: bool, **options: Any) -> Any:
        if not as_json:
            return function(*arguments, as_json=as_json, **options)
        click.get_current_context().meta[_STDOUT] = sys.stdout
        with redirect_stdout(sys.stderr):
            return function(*arguments, as_json=as_json, **options)

    return cast(F, command)


def open_project(store: str | None, config: Path | None) -> tuple[Settings, Store]:
    """The settings, and the store that `--store` names, else they."""
    from evalkit.config import load_settings
    from evalkit.store.views import open_store

    settings = load_settings(config)
    return settings, open_store(store or settings.store_path)


def store_of(store: str | None, config: Path | None) -> Store:
    """The store alone: where `--store` names it, there need not be a configuration."""
    from evalkit.store.views import open_store

    return open_store(store) if store else open_project(None, config)[1]


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """One JSON document on stdout."""
    echo_json(json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False))


def echo_json(text: str) -> None:
    """A JSON document that is written already, on stdout."""
    context = click.get_current_context(silent=True)
    click.echo(text, file=None if context is None else context.meta.get(_STDOUT))


def print_table(
    left: Sequence[str], right: Sequence[str], rows: Iterable[Sequence[str | Text]]
) -> None:
    """A table on stdout, names to the left and figures to the right; in a pipe a row is a line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    Console(highlight=False, width=None if sys.stdout.isatty() else 1_000_000).print(table)


def say(message: str) -> None:
    """A line for the person at the terminal: stderr."""
    click.echo(shown(message, but="\n\t"), err=True)


def warn(problems: Iterable[str]) -> None:
    """Say what could not be read."""
    for problem in problems:
        say(f"warning: {problem}")


def count(number: int, thing: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
