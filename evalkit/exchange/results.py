"""Read any runner's results, from CSV, JSON Lines or Parquet, into rows the gate compares.

Stands beside the store: what it gives has the columns that a run's scores have. Foreign
files are data: every row is checked, a bad one is named with its line and what would be
right, and nothing is guessed. A score that is empty or NaN is missing.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from evalkit.errors import InputFileError, StoreError
from evalkit.store.views import Engine
from evalkit.strict import StrictError, iter_jsonl

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
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
CHUNK = 50_000
"""Rows handed to the engine at a time."""
SHOWN_PROBLEMS = 20
MAX_ROWS = 20_000_000
LARGE_CSV_BYTES = 1_000_000

Row: TypeAlias = tuple[int, list[str | None]]
"""Line number and the cells, in the order of the columns found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """A results file, read and checked."""

    path: Path
    table: pa.Table
    """The columns of `decide.pairing`'s rows."""
    notes: tuple[str, ...]
    """What the reader of a verdict should know, e.g. a column that looks misspelt."""


def is_results_file(text: str) -> bool:
    """Whether a selector names a file rather than a run."""
    return Path(text).suffix.lower() in SUFFIXES


def load_results(path: Path) -> Results:
    """Read and check `path`.

    Raises InputFileError with one `file:line: problem. fix` per bad row, the first 20.
    """
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise InputFileError(
            f"{path}: results are read from .csv, .jsonl and .parquet. Rename or convert the file."
        )
    if not path.is_file():
        raise InputFileError(f"{path}: no such file.")
    try:
        found, table = _checked(path, kind)
    except OSError as error:
        raise InputFileError(f"{path}: cannot be read: {error.strerror or error}.") from None
    if table.num_rows == 0:
        raise InputFileError(f"{path}: no rows. Give one for every case and metric.")
    return Results(path=path, table=table, notes=tuple(_notes(found, path)))


def _checked(path: Path, kind: str) -> tuple[list[str], pa.Table]:
    """The columns found and the typed rows.

    A large plain CSV file is read at once; only if something is wrong in it is it read
    again line by line, to say where.
    """
    with Engine() as engine:
        if kind == "parquet":
            found = _add_parquet(engine, path)
            _refuse_bad_rows(engine, path, unit="row")
            return found, engine.arrow(_TYPED)
        found, rows = _read_csv(path) if kind == "csv" else _read_jsonl(path)
        at_once = _plain_csv_table(path, found) if kind == "csv" else None
        if at_once is not None:
            engine.add_table("raw", at_once)
            if not _problems(engine, path, unit="line"):
                return found, engine.arrow(_TYPED)
        engine.add_table("raw", _text_table(found, rows, path))
        _refuse_bad_rows(engine, path, unit="line")
        return found, engine.arrow(_TYPED)


# --- CSV --------------------------------------------------------------------------


def _read_csv(path: Path) -> tuple[list[str], Iterator[Row]]:
    header = next(_csv_rows(path), None)
    if header is None:
        raise InputFileError(
            f"{path}: the file is empty. Its first line names the columns: {', '.join(REQUIRED)}."
        )
    line, names = header
    found = [name.strip() for name in names]
    _check_header(found, f"{path}:{line}", names)
    return found, _csv_cells(path, len(found))


def _plain_csv_table(path: Path, found: Sequence[str]) -> pa.Table | None:
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
    _require(found, where)


def _require(found: Sequence[str], where: str) -> None:
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


def _read_jsonl(path: Path) -> tuple[list[str], Iterator[Row]]:
    """All known columns; a key that a line does not have is an empty cell."""
    return list(COLUMNS), _jsonl_cells(path)


def _jsonl_cells(path: Path) -> Iterator[Row]:
    try:
        for line, _, value in iter_jsonl(path):
            if not isinstance(value, dict):
                raise InputFileError(f"{path}:{line}: not an object. Write one object per line.")
            _require([*value], f"{path}:{line}")
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
        raise InputFileError(f"{where}: {name} is {shown}, not {kind}.{_FIXES.get(name, '')}")
    return value if isinstance(value, str) else repr(value)


# --- Parquet ----------------------------------------------------------------------


def _add_parquet(engine: Engine, path: Path) -> list[str]:
    """A view over the file with every known column, text but for the numbers."""
    engine.add_files("file", [path])
    try:
        types = {
            str(row["column_name"]): str(row["column_type"]) for row in engine.rows("DESCRIBE file")
        }
    except StoreError as error:
        reason = str(error).splitlines()[0]
        raise InputFileError(f"{path}: cannot be read as Parquet: {reason}") from None
    _require([*types], str(path))
    if not types["score"].startswith(_NUMERIC):
        raise InputFileError(
            f"{path}: the column score is {types['score']}, not a number.{_FIXES['score']}"
        )
    cells = ", ".join(
        _parquet_cell(name, types[name]) if name in types else f"NULL::VARCHAR AS {name}"
        for name in COLUMNS
    )
    engine.rows(f"CREATE TEMP VIEW raw AS SELECT row_number() OVER () AS line, {cells} FROM file")
    return [*types]


_NUMERIC = ("DOUBLE", "FLOAT", "DECIMAL", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UINTEGER")


def _parquet_cell(name: str, kind: str) -> str:
    if name in ("score", "latency_ms", "cost_usd"):
        return f"try_cast({name} AS DOUBLE) AS {name}"
    return f"nullif(CAST({name} AS VARCHAR), '') AS {name}"


# --- rows as a table -----------------------------------------------------------------


def _text_table(found: Sequence[str], rows: Iterable[Row], path: Path) -> pa.Table:
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


_TYPED = """
    SELECT
        coalesce(golden_set, '') AS golden_set,
        metric,
        coalesce(model, '') AS model,
        coalesce(prompt_name, '') AS prompt_name,
        coalesce(prompt_version, '') AS prompt_version,
        case_id,
        coalesce(case_hash, '') AS case_hash,
        cluster,
        coalesce(try_cast(trial AS BIGINT), 0) AS trial,
        CASE
            WHEN outcome = 'product_failure' THEN 0.0
            WHEN NOT isnan(try_cast(score AS DOUBLE)) THEN try_cast(score AS DOUBLE)
        END AS score,
        CASE
            WHEN coalesce(outcome, 'scored') <> 'scored' THEN outcome
            WHEN isnan(coalesce(try_cast(score AS DOUBLE), 'nan'::DOUBLE)) THEN 'no_score'
            ELSE 'scored'
        END AS outcome,
        scorer_version,
        served_model,
        CASE WHEN slice IS NULL THEN []::VARCHAR[] ELSE [slice] END AS slices,
        coalesce(try_cast(tier AS INTEGER), 0) AS tier,
        NULL::BOOLEAN AS passed,
        NULL::VARCHAR AS reason,
        try_cast(latency_ms AS DOUBLE) AS latency_ms,
        try_cast(cost_usd AS DOUBLE) AS cost_usd
    FROM raw
    """


# --- problems -----------------------------------------------------------------------

_FIXES = {
    "case_id": " Every row names its case.",
    "metric": " Every row names its metric.",
    "score": " Write a number from 0 to 1, or nothing where there is no score.",
    "trial": " Number the trials 0, 1, 2, …",
    "tier": " Write 1, 2 or 3.",
    "latency_ms": " Write milliseconds, or nothing.",
    "cost_usd": " Write US dollars, or nothing.",
    "outcome": f" Outcomes are: {', '.join(OUTCOMES)}.",
}

_KEY = "golden_set, model, prompt_name, prompt_version, case_id, case_hash, trial, metric"


def _refuse_bad_rows(engine: Engine, path: Path, *, unit: str) -> None:
    problems = _problems(engine, path, unit=unit)
    if problems:
        more = ["… and more like these."] if len(problems) > SHOWN_PROBLEMS else []
        raise InputFileError("\n".join([*problems[:SHOWN_PROBLEMS], *more]))


def _problems(engine: Engine, path: Path, *, unit: str) -> list[str]:
    """What is wrong with the rows of `raw`, a line each; a few more than are shown."""
    at = "" if unit == "line" else " row "
    bad = engine.rows(_problem_sql())
    twice = engine.rows(_DUPLICATES)
    return [f"{path}:{at}{row['line']}: {_problem(row)}" for row in bad] + [
        f"{path}:{at}{row['again']}: case {_cut(row['case_id'])}, metric {_cut(row['metric'])}"
        f"{'' if row['trial'] is None else ', trial ' + row['trial']} stands on {unit} "
        f"{row['line']} already. Keep one, or number the trials in a column trial."
        for row in twice
    ]


def _problem(row: dict[str, Any]) -> str:
    name, value = row["problem"], row["value"]
    fix = _FIXES[name.split(":")[0]]
    if name in ("case_id", "metric"):
        return f"no {name}.{fix}"
    if name == "score:outcome":
        return (
            f"outcome {_cut(row['outcome'])} with a score of {_cut(value)}. "
            "A row that failed has no score: leave it empty, or write outcome scored."
        )
    if name == "score:range":
        return f"score {_cut(value)} is not within 0 and 1.{fix}"
    if name == "outcome":
        return f"outcome {_cut(value)} is not known.{fix}"
    return f"{name} {_cut(value)} is not a {'number' if name != 'trial' else 'whole number'}.{fix}"


def _problem_sql() -> str:
    outcomes = ", ".join(f"'{name}'" for name in OUTCOMES)

    def not_a(kind: str, name: str) -> str:
        return f"{name} IS NOT NULL AND try_cast({name} AS {kind}) IS NULL"

    cases = {
        "case_id": "case_id IS NULL",
        "metric": "metric IS NULL",
        "score": not_a("DOUBLE", "score"),
        "score:range": (
            "NOT isnan(try_cast(score AS DOUBLE)) AND try_cast(score AS DOUBLE) NOT BETWEEN 0 AND 1"
        ),
        "outcome": f"outcome IS NOT NULL AND outcome NOT IN ({outcomes})",
        "score:outcome": (
            "outcome NOT IN ('scored', 'product_failure') AND NOT isnan(try_cast(score AS DOUBLE))"
        ),
        "trial": not_a("BIGINT", "trial"),
        "tier": not_a("INTEGER", "tier"),
        "latency_ms": not_a("DOUBLE", "latency_ms"),
        "cost_usd": not_a("DOUBLE", "cost_usd"),
    }
    whens = " ".join(f"WHEN {condition} THEN '{name}'" for name, condition in cases.items())
    values = " ".join(f"WHEN '{name}' THEN CAST({name.split(':')[0]} AS VARCHAR)" for name in cases)
    return f"""
        SELECT line, problem, outcome, CASE problem {values} END AS value
        FROM (SELECT *, CASE {whens} END AS problem FROM raw)
        WHERE problem IS NOT NULL ORDER BY line LIMIT {SHOWN_PROBLEMS + 1}
        """


# By hash first, so that a clean file costs little.
_DUPLICATES = f"""
    WITH twice AS (
        SELECT hash({_KEY}) AS h FROM raw GROUP BY h HAVING count(*) > 1
    ), doubtful AS (
        SELECT {_KEY}, line FROM raw WHERE hash({_KEY}) IN (SELECT h FROM twice)
    )
    SELECT case_id, metric, trial, min(line) AS line, min(line, 2)[2] AS again
    FROM doubtful WHERE case_id IS NOT NULL AND metric IS NOT NULL
    GROUP BY {_KEY} HAVING count(*) > 1
    ORDER BY again LIMIT {SHOWN_PROBLEMS + 1}
    """


def _notes(found: Sequence[str], path: Path) -> Iterator[str]:
    absent = [name for name in COLUMNS if name not in found]
    for name in found:
        near = [] if name in COLUMNS else get_close_matches(name, absent, n=1, cutoff=0.8)
        if near:
            yield f"{path.name}: the column {_cut(name)} is not used. Is it meant to be {near[0]}?"


def _cut(text: str) -> str:
    return f'"{_clean(text)}"'


def _clean(text: str, limit: int = 60) -> str:
    """One line of at most `limit` letters that a terminal shows as it is."""
    line = "".join(c if c.isprintable() else "�" for c in text)
    return line if len(line) <= limit else line[: limit - 1] + "…"
