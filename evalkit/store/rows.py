"""Rows as JSON text, in the form that Arrow's JSON reader takes.

A row is encoded once, when its case finishes; sealing copies the bytes. Columns that
the reader has no type for are JSON text (kind json) or lists of pairs (kind map).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from math import isfinite
from typing import Any

from evalkit import json_bytes
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
_NUMBERS = {
    table: [column.name for column in columns if column.kind == "float"]
    for table, columns in TABLES.items()
}


def encode_row(row: Row, table: str) -> bytes:
    """One row of `table`. A lone surrogate, which UTF-8 cannot hold, becomes a question mark.

    Raises ValueError for a number that is NaN or infinite.
    """
    readable = dict(row)
    for name in _NUMBERS[table]:
        number = readable.get(name)
        if number is not None and not isfinite(number):
            raise ValueError(f"{name} is {number}")
    for name, kind in _FOREIGN[table]:
        value = readable.get(name)
        if value is None:
            continue
        readable[name] = (
            json_bytes.encode(value).decode()
            if kind == "json"
            else [{"key": key, "value": item} for key, item in value.items()]
        )
    return json_bytes.encode(readable)


def decode_row(readable: Row, table: str) -> dict[str, Any]:
    """The row that `encode_row` was given, from its parsed text."""
    row = dict(readable)
    for name, kind in _FOREIGN[table]:
        value = row.get(name)
        if value is None:
            continue
        row[name] = (
            json_bytes.decode(value)
            if kind == "json"
            else {pair["key"]: pair["value"] for pair in value}
        )
    return row


# --- a line of a file that only grows, with its checksum ----------------------------------

CRC_TAIL = len(b',"crc":"01234567"}\n')
_HEX = re.compile(rb"[0-9a-f]")


def closed_line(body: bytes) -> bytes:
    """A JSON object without its closing brace, as a line that says when it is damaged."""
    return b'%b,"crc":"%08x"}\n' % (body, zlib.crc32(body))


def is_whole(line: bytes) -> bool:
    """Whether a line is what `closed_line` made."""
    return line[-CRC_TAIL:] == b',"crc":"%08x"}\n' % zlib.crc32(line[:-CRC_TAIL])


def has_checksum(line: bytes) -> bool:
    """Whether a line says what it has to be, or did but for one byte: older ones do not, nor
    does one that was never finished."""
    end = line[-CRC_TAIL:-1]
    digits = end[8:16]
    wanted = b',"crc":"%b"}' % digits
    wrong = sum(a != b for a, b in zip(end, wanted, strict=False))
    return len(end) == len(wanted) and wrong + len(_HEX.sub(b"", digits)) <= 1
