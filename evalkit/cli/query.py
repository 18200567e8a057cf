"""`evalkit query`: one SELECT over the store, as a table, JSON or CSV."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from evalkit.cli.options import common_options, print_json, say
from evalkit.errors import EXIT_PASS, ConfigError, DamagedStore, StoreError, shown

if TYPE_CHECKING:
    from rich.table import Table

    from evalkit.store.views import Engine

SHOWN_ROWS = 1000
"""Rows of a table on the terminal; --json and --csv print all."""


@click.command("query")
@click.argument("sql")
@click.option("--csv", "as_csv", is_flag=True, help="CSV with a header on stdout.")
@common_options
def command(sql: str, as_csv: bool, as_json: bool, store: str | None, config: Path | None) -> int:
    """Ask the store in SQL: one SELECT over runs, calls, scores, labels and verdicts.

    The query can read the store and nothing else, and changes nothing. In CSV, a text
    that a spreadsheet would take for a formula has an apostrophe before it.

    \b
        evalkit query "SELECT metric, avg(score) FROM scores GROUP BY ALL"
        evalkit query "DESCRIBE calls"
    """
    if as_csv and as_json:
        raise click.UsageError("--json and --csv exclude each other. Choose one.")
    columns, rows = _ask(sql, _store_path(store, config))
    if as_json:
        print_json([{name: plain(row[name]) for name in columns} for row in rows])
    elif as_csv:
        _print_csv(columns, rows)
    else:
        _print_table(columns, rows)
    return EXIT_PASS


def _store_path(store: str | None, config: Path | None) -> str:
    if store is not None:
        return store
    from evalkit.config import load_settings

    return load_settings(config).store_path


def _ask(sql: str, path: str) -> tuple[list[str], list[dict[str, Any]]]:
    from evalkit.store.schema import TABLES
    from evalkit.store.views import open_store

    store = open_store(path)
    if not store.path.is_dir():
        raise ConfigError(f"no store at {path}. Make one with: evalkit run; or name one: --store")
    try:
        with store.engine(sql) as engine:
            columns, rows = _answered(engine, sql)
    except DamagedStore:
        raise
    except StoreError as error:
        raise StoreError(f"{error}\nThe views are: {', '.join(TABLES)}.") from None
    finally:
        for problem in store.problems:
            say(f"warning: {shown(problem)}")
    return columns, rows


def _answered(engine: Engine, sql: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Ask in a thread: deep in a join, DuckDB does not look whether Ctrl-C was pressed."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(engine.names_and_rows, sql)
        try:
            return asked.result()
        except KeyboardInterrupt:
            while not asked.done():
                engine.interrupt()
                wait([asked], timeout=0.1)
            raise


def _print_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console

    # A pipe has no width: there, a row is a line.
    width = None if sys.stdout.isatty() else 1_000_000
    console = Console(highlight=False, width=width)
    if not rows:
        say("no rows")
    elif sum(len(name) + 2 for name in columns) > console.width:
        for row in rows[:SHOWN_ROWS]:
            console.print(_record(columns, row), "")
    else:
        console.print(_table(columns, rows[:SHOWN_ROWS]))
    if len(rows) > SHOWN_ROWS:
        say(f"{len(rows) - SHOWN_ROWS} more rows; --json or --csv prints all")


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        numbers = rows and all(isinstance(row[name], int | float | None) for row in rows)
        justify: Literal["left", "right"] = "right" if numbers else "left"
        table.add_column(Text(shown(name)), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row[name])) for name in columns))
    return table


def _record(columns: Sequence[str], row: Mapping[str, Any]) -> Table:
    """One row of more columns than the terminal is wide: a line for each column."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name in columns:
        table.add_row(Text(shown(name)), Text(_cell(row[name])))
    return table


def _print_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    import csv
    import io

    for cells in (columns, *([_text(row[name]) for name in columns] for row in rows)):
        line = io.StringIO()
        # Quoted as for CR LF: spreadsheets begin a row at a lone CR, too.
        csv.writer(line, lineterminator="\r\n").writerow([_harmless(cell) for cell in cells])
        sys.stdout.write(line.getvalue().removesuffix("\r\n") + "\n")


def _cell(value: Any) -> str:
    return "-" if value is None else shown(_text(value))


def _text(value: Any) -> Any:
    """A value for a cell: text and numbers as they are, what is nested as JSON."""
    import json

    value = plain(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else value


def _harmless(value: Any) -> Any:
    """A text that no spreadsheet computes; numbers stay numbers."""
    if isinstance(value, str) and value.startswith(tuple("=+-@\t\r\n＝＋－＠")):
        return "'" + value
    return value


def one_line(text: str, at_most: int) -> str:
    """The beginning of foreign text, on one line that a terminal may print."""
    return "".join(c if c.isprintable() else " " for c in text)[:at_most]


def plain(value: Any) -> Any:
    """A value as JSON has it: times in ISO 8601, bytes in hex; NaN and infinity are null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Decimal):
        return float(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value if isinstance(value, str | int | None) else str(value)
