"""Bring the lines of a results file, CSV or JSON Lines, into one table of text.

The first half of reading `results`: it knows the formats and their lines, not what a
score is. Foreign files are data: nothing is guessed, and what cannot be read is named
with its line and what would be right.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from evalkit.errors import InputFileError
from evalkit.strict import StrictError, iter_jsonl

if TYPE_CHECKING:
    import pyarrow as pa

REQUIRED = ("case_id", "metric", "score")
COLUMNS = (
    *REQUIRED,
    "trial",
    "cluster",
    "slice",
    "model",
    "prompt_version",
    "case_hash",
    "outcome",
    "scorer_version",
    "golden_set",
    "prompt_name",
    "served_model",
    "tier",
    "latency_ms",
    "cost_usd",
)
OUTCOMES = (
    "scored",
    "product_failure",
    "infra_error",
    "judge_error",
    "check_error",
    "budget_stop",
    "cancelled",
)
FIXES = {
    "case_id": " Every row names its case.",
    "metric": " Every row names its metric.",
    "score": " Write a number from 0 to 1, or nothing where there is no score.",
    "trial": " Number the trials 0, 1, 2, …",
    "tier": " Write 1, 2 or 3.",
    "latency_ms": " Write milliseconds, or nothing.",
    "cost_usd": " Write US dollars, or nothing.",
    "outcome": f" Outcomes are: {', '.join(OUTCOMES)}.",
}
"""What to write into a column instead, by its name."""

CHUNK = 50_000
"""Rows handed to the engine at a time."""
MAX_ROWS = 20_000_000
LARGE_CSV_BYTES = 1_000_000

Row: TypeAlias = tuple[int, list[str | None]]
"""Line number and the cells, in the order of the columns found."""


# --- CSV --------------------------------------------------------------------------


def read_csv(path: Path) -> tuple[list[str], Iterator[Row]]:
    header = next(_csv_rows(path), None)
    if header is None:
        raise InputFileError(
            f"{path}: the file is empty. Its first line names the columns: {', '.join(REQUIRED)}."
        )
    line, names = header
    found = [name.strip() for name in names]
    _check_header(found, f"{path}:{line}", names)
    return found, _csv_cells(path, len(found))


def plain_csv_table(path: Path, found: Sequence[str]) -> pa.Table | None:
    """All rows at once, of a large file whose lines are its records; else None."""
    if path.stat().st_size < LARGE_CSV_BYTES or not _is_plainly_quoted(path.read_bytes()):
        return None
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    try:
        table = arrow_csv.read_csv(
            path,
            read_options=arrow_csv.ReadOptions(column_names=found, skip_rows=1),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(found, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_rows > MAX_ROWS:
        return None
    lines = _line_array(range(2, table.num_rows + 2))
    nothing = pa.nulls(table.num_rows, pa.string())
    columns = [table[name] if name in found else nothing for name in COLUMNS]
    return pa.Table.from_arrays([lines, *columns], schema=_raw_schema())


def _is_plainly_quoted(data: bytes) -> bool:
    """Whether every quote begins or ends a cell: then any two CSV readers agree."""
    begin = data.count(b',"') + data.count(b'\n"') + data.startswith(b'"')
    end = data.count(b'",') + data.count(b'"\n') + data.count(b'"\r') + data.endswith(b'"')
    return begin == end and begin + end == data.count(b'"')


def _csv_cells(path: Path, width: int) -> Iterator[Row]:
    rows = _csv_rows(path)
    next(rows)
    for line, cells in rows:
        if not cells:
            continue
        if len(cells) != width:
            raise InputFileError(
                f"{path}:{line}: {len(cells)} cells, but the header names {width} columns. "
                "Put quotes around cells that contain commas or line breaks."
            )
        yield line, [cell or None for cell in cells]


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number (of a record's last line) and cells; a UTF-8 byte order mark is taken off."""
    with path.open("rb") as binary:
        _refuse_utf16(binary, path)
        text = io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
        reader = csv.reader(text, strict=True)
        try:
            for cells in reader:
                yield reader.line_num, cells
        except csv.Error as error:
            raise InputFileError(
                f"{path}:{reader.line_num}: not CSV: {error}. Quotes inside a cell are doubled."
            ) from None
        except UnicodeDecodeError:
            raise InputFileError(_bad_utf8(path)) from None


def _refuse_utf16(binary: IO[bytes], path: Path) -> None:
    if binary.read(2) in (b"\xff\xfe", b"\xfe\xff"):
        raise InputFileError(f"{path}:1: the file is UTF-16. Save it as UTF-8.")
    binary.seek(0)


def _bad_utf8(path: Path) -> str:
    """Where the first byte that is not UTF-8 stands; read again, only to say so."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                return f"{path}:{number}: byte 0x{byte:02x} is not UTF-8. Save the file as UTF-8."
    return f"{path}: the file ends inside a UTF-8 character. Save the file as UTF-8."


def _check_header(found: Sequence[str], where: str, cells: Sequence[str]) -> None:
    if len(cells) == 1:
        for mark, called in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
            if mark in cells[0]:
                raise InputFileError(
                    f"{where}: the columns are separated by {called}. Separate them by commas."
                )
    for name in found:
        if found.count(name) > 1:
            raise InputFileError(f'{where}: the column "{name}" is there twice. Keep one.')
    require(found, where)


def require(found: Sequence[str], where: str) -> None:
    missing = [name for name in REQUIRED if name not in found]
    if missing:
        hints = [
            f'"{near[0]}" looks like {name}: rename it'
            for name in missing
            if (near := get_close_matches(name, [f for f in found if f not in COLUMNS], n=1))
        ]
        fix = "; ".join(hints) or f"There are: {', '.join(found) or 'none'}"
        raise InputFileError(f"{where}: no column {', '.join(missing)}. {fix}.")


# --- JSON Lines -------------------------------------------------------------------


def read_jsonl(path: Path) -> tuple[list[str], Iterator[Row]]:
    """All known columns; a key that a line does not have is an empty cell."""
    return list(COLUMNS), _jsonl_cells(path)


def _jsonl_cells(path: Path) -> Iterator[Row]:
    try:
        for line, _, value in iter_jsonl(path):
            if not isinstance(value, dict):
                raise InputFileError(f"{path}:{line}: not an object. Write one object per line.")
            require([*value], f"{path}:{line}")
            yield line, [_cell(value.get(name), name, f"{path}:{line}") for name in COLUMNS]
    except StrictError as error:
        raise InputFileError(f"{path}:{error.line}: {error.message}.") from None


def _cell(value: Any, name: str, where: str) -> str | None:
    numeric = name in ("score", "latency_ms", "cost_usd")
    if value is None or value == "":
        return None
    if isinstance(value, (dict, list, bool)) or (numeric and isinstance(value, str)):
        kind = "a number" if numeric else "text"
        shown = _clean(json.dumps(value, ensure_ascii=False))
        raise InputFileError(f"{where}: {name} is {shown}, not {kind}.{FIXES.get(name, '')}")
    return value if isinstance(value, str) else repr(value)


# --- rows as a table -----------------------------------------------------------------


def text_table(found: Sequence[str], rows: Iterable[Row], path: Path) -> pa.Table:
    """All known columns as text, and the line; built piece by piece, so that memory is bounded."""
    import pyarrow as pa

    at = {name: found.index(name) for name in COLUMNS if name in found}
    batches = []
    for chunk in _chunks(rows, path):
        cells = list(zip(*(row for _, row in chunk), strict=True))
        texts = [
            _text_array(cells[at[name]]) if name in at else pa.nulls(len(chunk), pa.string())
            for name in COLUMNS
        ]
        lines = _line_array([line for line, _ in chunk])
        batches.append(pa.RecordBatch.from_arrays([lines, *texts], schema=_raw_schema()))
    return pa.Table.from_batches(batches, schema=_raw_schema())


def _raw_schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema([("line", pa.int64()), *((name, pa.string()) for name in COLUMNS)])


# `pyarrow.array` of Python values imports pandas, a third of a second: these do not.


def _text_array(cells: Sequence[str | None]) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    pieces = [b"" if cell is None else cell.encode() for cell in cells]
    ends = np.cumsum([0, *map(len, pieces)], dtype=np.int32)
    known = np.packbits([cell is not None for cell in cells], bitorder="little")
    buffers = [pa.py_buffer(known), pa.py_buffer(ends), pa.py_buffer(b"".join(pieces))]
    return pa.Array.from_buffers(pa.string(), len(cells), buffers)


def _line_array(numbers: Sequence[int]) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    values = np.asarray(numbers, dtype=np.int64)
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values)])


def _chunks(rows: Iterable[Row], path: Path) -> Iterator[list[Row]]:
    rows, n_rows = iter(rows), 0
    while chunk := list(islice(rows, CHUNK)):
        n_rows += len(chunk)
        if n_rows > MAX_ROWS:
            raise InputFileError(f"{path}: more than {MAX_ROWS:,} rows. Split the file.")
        yield chunk


# --- words ------------------------------------------------------------------------


def quoted(text: str) -> str:
    return f'"{_clean(text)}"'


def _clean(text: str, limit: int = 60) -> str:
    """One line of at most `limit` letters that a terminal shows as it is."""
    line = "".join(c if c.isprintable() else "�" for c in text)
    return line if len(line) <= limit else line[: limit - 1] + "…"
