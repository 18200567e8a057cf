"""Labels as files: JSON Lines, CSV that no spreadsheet computes, Label Studio's JSON; both ways.

Foreign files are data: every label is checked, a bad one is named with its line and what
would be right, and then none is taken. A label that is here already, by its id, is left out.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import InputFileError, StoreError
from evalkit.exchange.label_studio import read_tasks, tasks_of
from evalkit.exchange.log_record import EARLIEST, LATEST
from evalkit.score.labels import ADJUDICATOR
from evalkit.store.files import write_whole
from evalkit.store.schema import column_names
from evalkit.strict import MAX_JSONL_BYTES, StrictError, iter_jsonl, loads_json, read_text

if TYPE_CHECKING:
    from evalkit.store.views import Store

COLUMNS = column_names("labels")
KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".json": "labelstudio"}
SHOWN_PROBLEMS = 20
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""A cell that a spreadsheet would compute, or one that was made harmless before."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a file."""

    added: int
    known: int
    """Labels that were in the store already."""
    corrected: int
    """Of the added, those that replace one of the store, as it was changed in Label Studio."""


def format_of(path: Path, kind: str | None = None) -> str:
    """The format of a file: as named, else by its suffix."""
    found = kind or KINDS.get(path.suffix.lower())
    if found is None:
        raise InputFileError(f"{path}: a name in {', '.join(KINDS)} tells the format; or --format.")
    return found


# --- out --------------------------------------------------------------------------------


def export_labels(
    store: Store, path: Path, kind: str, *, metric: str | None = None, run_id: str | None = None
) -> int:
    """Write the labels of a store; returns how many, or how many tasks."""
    rows = [
        row | {"labelled_at": _iso(row["labelled_at"])}
        for row in store.sql("SELECT * FROM labels ORDER BY labelled_at, label_id")
        if metric in (None, row["metric"]) and run_id in (None, row["run_id"])
    ]
    if kind == "labelstudio":
        listed = tasks_of(rows, _queued(store, metric, run_id))
        text = json.dumps(listed, ensure_ascii=False, indent=1)
        _write(path, text + "\n")
        return len(listed)
    _write(path, _csv(rows) if kind == "csv" else _jsonl(rows))
    return len(rows)


def _write(path: Path, text: str) -> None:
    with write_whole(path, replace=True) as file:
        file.write(text.encode("utf-8", "replace"))


def _queued(store: Store, metric: str | None, run_id: str | None) -> list[Row]:
    """What the queue asks: so that it can be answered in Label Studio."""
    from evalkit.score.label_queue import LabelQueue

    if not LabelQueue.exists(store.path):
        return []
    with closing(LabelQueue(store.path)) as queue:
        return [
            item
            for item in queue.items()
            if metric in (None, item["metric"]) and run_id in (None, item["facts"][0]["run_id"])
        ]


def _jsonl(rows: list[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _csv(rows: list[Row]) -> str:
    written = io.StringIO()
    # The writer quotes what is in its line end, and spreadsheets begin a row at a lone CR, too.
    writer = csv.writer(written, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([_cell(row[name]) for name in COLUMNS])
    return written.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat()


# --- in -----------------------------------------------------------------------------------


def import_labels(store: Store, path: Path, kind: str, *, annotator: str | None = None) -> Imported:
    """Take the labels of a file into the store, all or none.

    What a label lacks of its answer (run, case, pair) is looked up by its trace id. Raises
    InputFileError with one `file:line: problem. fix` for each bad label, the first 20.
    """
    from evalkit.ids import new_id

    here = {row["label_id"]: row for row in store.sql("SELECT * FROM labels")}
    problems: list[str] = []
    rows: list[Row] = []
    try:
        for place, raw in _read(path, kind):
            try:
                row = _row(raw, annotator)
                rows.append(_if_changed(row, here, may_replace=kind == "labelstudio"))
            except ValueError as error:
                problems.append(f"{place}: {error}")
    except StrictError as error:
        raise InputFileError(f"{path}:{error.line}: {error.message}.") from None
    if problems:
        more = len(problems) - SHOWN_PROBLEMS
        told = [*problems[:SHOWN_PROBLEMS], *([f"… and {more} more"] if more > 0 else [])]
        raise InputFileError("\n".join(told))
    ids = {row["label_id"] for row in rows if row["label_id"]}
    if len(ids) < sum(row["label_id"] is not None for row in rows):
        raise InputFileError(f"{path}: a label_id comes twice. Each label has its own, or none.")
    new = [row | {"label_id": row["label_id"] or new_id()} for row in rows
           if row["label_id"] not in here]  # fmt: skip
    if new:
        store.add_labels(new_id(), _with_answers(store, new))
    return Imported(
        added=len(new),
        known=len(rows) - len(new),
        corrected=sum(kind == "labelstudio" and row["supersedes"] in here for row in new),
    )


def _if_changed(row: Row, here: Mapping[str, Row], *, may_replace: bool) -> Row:
    """A label whose id is here but that says something else, as one that replaces it.

    Label Studio keeps an annotation's id when somebody changes it. Its new id follows from
    what it says, so that the file may be read twice. Raises ValueError where the file has
    labels as they are kept, of which none ever changes. Any other label is left as it is.
    """
    label_id = row["label_id"]
    if label_id not in here:
        return row
    if not may_replace:
        if _said(row) != _said(here[label_id]):
            raise ValueError(
                f"label {label_id} says something else here. Labels are added, never changed: "
                f"leave label_id empty, and write {label_id} under supersedes"
            )
        return row
    later = {one["supersedes"]: one for one in here.values() if _is_annotators(one)}
    last = here[label_id]
    while last["label_id"] in later:
        last = later[last["label_id"]]
    if _said(row) == _said(last):
        return row
    text = json.dumps([last["label_id"], _said(row)])
    return row | {
        "label_id": blake2b(text.encode(), digest_size=16).hexdigest(),
        "supersedes": last["label_id"],
    }


def _is_annotators(row: Row) -> bool:
    return row["supersedes"] is not None and not row["annotator"].startswith(ADJUDICATOR)


def _said(row: Row) -> tuple[float | None, bool | None, str]:
    score = row["passed"] if row["score"] is None else row["score"]
    return (
        None if score is None else round(float(score), 9),
        row["passed"],
        " ".join((row["comment"] or "").split()),
    )


def _read(path: Path, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(file:line, label) of each label."""
    if kind == "jsonl":
        for line, _, value in iter_jsonl(path):
            yield f"{path}:{line}", value if isinstance(value, dict) else {"": value}
    elif kind == "csv":
        yield from _read_csv(path)
    else:
        text = read_text(path, max_bytes=MAX_JSONL_BYTES)
        for number, label in read_tasks(loads_json(text, where=""), str(path)):
            yield f"{path}: task {number}", label


def _read_csv(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    text = read_text(path, max_bytes=MAX_JSONL_BYTES, skip_mark=True)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if "metric" not in header:
            raise InputFileError(f"{path}:1: no column metric. Columns are: {', '.join(COLUMNS)}.")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise InputFileError(
                    f"{path}:{reader.line_num}: {len(cells)} cells, and {len(header)} columns."
                )
            row = {name: _uncell(cell) for name, cell in zip(header, cells, strict=True)}
            yield f"{path}:{reader.line_num}", row
    except csv.Error as error:
        raise InputFileError(f"{path}:{reader.line_num}: {error}.") from None


def _uncell(cell: str) -> str | None:
    if cell.startswith("'") and _FORMULA.match(cell):
        return cell[1:]
    return cell or None


def _row(raw: Mapping[str, Any], annotator: str | None) -> Row:
    """A label with every column, of its type. ValueError says what is wrong and right."""
    unknown = sorted(set(raw) - set(COLUMNS))
    if unknown:
        raise ValueError(f"no such column: {unknown[0]!r}. Columns are: {', '.join(COLUMNS)}")
    row: Row = {name: _read_text_column(raw.get(name), name) for name in _TEXTS}
    row["annotator"] = row["annotator"] or annotator
    for name, why in (("metric", "what was asked"), ("annotator", "or name one: --annotator")):
        if row[name] is None:
            raise ValueError(f"no {name}. Give it: {why}")
    if row["trace_id"] is None and (row["run_id"] is None or row["case_id"] is None):
        raise ValueError("no trace_id. Give it, or run_id and case_id")
    row["score"] = _read_share(raw.get("score"), "score")
    row["inclusion_prob"] = _read_share(raw.get("inclusion_prob"), "inclusion_prob")
    row["passed"] = _read_bool(raw.get("passed"))
    if row["score"] is None and row["passed"] is not None:
        row["score"] = float(row["passed"])
    row["trial"] = _read_trial(raw.get("trial"))
    row["labelled_at"] = _read_time(raw.get("labelled_at"))
    return row


_TEXTS = [
    n for n in COLUMNS if n not in ("score", "passed", "trial", "inclusion_prob", "labelled_at")
]


def _read_text_column(value: Any, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}, not a text")
    return value or None


def _read_share(value: Any, name: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(value, bool) or not 0 <= number <= 1:
        raise ValueError(f"{name} is {value!r}. Give a number from 0 to 1, or nothing")
    return number


def _read_bool(value: Any) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "false": False, "0": False}
    found = known.get(str(value).strip().lower())
    if found is None:
        raise ValueError(f"passed is {value!r}. Give true, false, or nothing")
    return found


def _read_trial(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}", str(value)):
        raise ValueError(f"trial is {value!r}. Give a whole number from 0")
    return int(value)


def _read_time(value: Any) -> int:
    """Microseconds since 1970; now, where the file does not say."""
    if value is None:
        return int(datetime.now(UTC).timestamp() * 1e6)
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(
            f"labelled_at is {value!r}. Give ISO 8601, as 2026-01-31T12:00:00Z"
        ) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    at = int(moment.timestamp() * 1e6)
    if not EARLIEST <= at <= LATEST:
        raise ValueError(f"labelled_at is {value!r}: no calendar has that moment in UTC")
    return at


def _with_answers(store: Store, rows: list[Row]) -> list[Row]:
    """The rows, with what they lack of the answer they are about."""
    ids = sorted({row["trace_id"] for row in rows if row["trace_id"] and not row["case_id"]})
    if not ids:
        return rows
    names = ("run_id", "golden_set", "case_id", "case_hash", "trial", "model", "prompt_name",
             "prompt_version")  # fmt: skip
    try:
        found = store.sql(
            f"SELECT trace_id, {', '.join(f'any_value({name}) AS {name}' for name in names)} "
            "FROM scores WHERE list_contains(?, trace_id) GROUP BY trace_id",
            [ids],
        )
    except StoreError:
        return rows
    by_trace = {one["trace_id"]: one for one in found}
    return [
        {**row, **{name: row[name] if row[name] is not None else of.get(name) for name in names}}
        for row in rows
        for of in [by_trace.get(row["trace_id"], {})]
    ]
