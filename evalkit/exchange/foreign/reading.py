"""Read a foreign JSON, JSON Lines, CSV or YAML file: bounded, and named when it is none.

More forgiving than our own files are read: NaN, which several tools write, is null.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evalkit.errors import InputFileError
from evalkit.strict import MAX_YAML_BYTES, StrictError, load_yaml, read_text

MAX_BYTES = 300_000_000
MAX_CELL_CHARS = 1_000_000


def text_of(path: Path, *, max_bytes: int = MAX_BYTES) -> str:
    """The file as text; a byte order mark, which Excel writes, is left out."""
    if path.stat().st_size > max_bytes:
        raise InputFileError(f"{path}: larger than {max_bytes // 1_000_000} MB. Split the file.")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputFileError(
            f"{path}: byte {error.start} is not UTF-8. Convert the file."
        ) from None


def parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda name: None, parse_float=_finite)
    except ValueError as error:
        raise InputFileError(f"{where}: is not JSON: {error}.") from None


def _finite(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def json_lines(text: str, where: str) -> Iterator[tuple[int, Any]]:
    """Line number and value of each line that is not empty."""
    for number, line in enumerate(io.StringIO(text), 1):
        if line.strip():
            yield number, parse_json(line, f"{where}:{number}")


def csv_rows(text: str, where: str) -> list[dict[str, str]]:
    """Rows by the names in the first line; cells that are missing are empty."""
    before = csv.field_size_limit(MAX_CELL_CHARS)
    try:
        rows = list(csv.DictReader(io.StringIO(text), restval="", restkey="\0more"))
    except csv.Error as error:
        raise InputFileError(f"{where}: is not CSV: {error}.") from None
    finally:
        csv.field_size_limit(before)
    return [{k: v for k, v in row.items() if k and k != "\0more"} for row in rows]


def parse_yaml(path: Path) -> Any:
    try:
        return load_yaml(read_text(path, max_bytes=MAX_YAML_BYTES), where="").value
    except StrictError as error:
        raise InputFileError(f"{path}:{error.line}: {error.message}.") from None


def share(value: Any) -> float | None:
    """A score from 0 to 1; None for anything else."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, int | float) and 0 <= value <= 1:
        return float(value)
    return None
