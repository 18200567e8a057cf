"""Rows as JSON text, in the form that Arrow's JSON reader takes.

A row is encoded once, when its case finishes; sealing copies the bytes. Columns that
the reader has no type for are JSON text (kind json) or lists of pairs (kind map).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from evalkit.store.files import dump_json
from evalkit.store.schema import TABLES, Kind

Row = Mapping[str, Any]

_FOREIGN: dict[str, list[tuple[str, Kind]]] = {
    table: [
        (column.name, column.kind)
        for column in columns
        if column.kind == "json" or column.kind.endswith("map")
    ]
    for table, columns in TABLES.items()
}


def encode_row(row: Row, table: str) -> bytes:
    """One row of `table`. A lone surrogate, which UTF-8 cannot hold, becomes a question mark."""
    readable = dict(row)
    for name, kind in _FOREIGN[table]:
        value = readable.get(name)
        if value is None:
            continue
        readable[name] = (
            dump_json(value)
            if kind == "json"
            else [{"key": key, "value": item} for key, item in value.items()]
        )
    return dump_json(readable).encode("utf-8", errors="replace")


def decode_row(readable: Row, table: str) -> dict[str, Any]:
    """The row that `encode_row` was given, from its parsed text."""
    row = dict(readable)
    for name, kind in _FOREIGN[table]:
        value = row.get(name)
        if value is None:
            continue
        row[name] = (
            json.loads(value) if kind == "json" else {pair["key"]: pair["value"] for pair in value}
        )
    return row
