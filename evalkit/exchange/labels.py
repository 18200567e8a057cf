"""Labels as files: JSON Lines, CSV that no spreadsheet computes, Label Studio's JSON; both ways.

Foreign files are data: every label is checked, a bad one is named with its line and what
would be right, and then none is taken. A label that is here already, by its id, is left out;
one without an id has one that follows from what the file says of it.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
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
Answers = dict[tuple[str | None, ...], list[Row]]
"""By trace id, and by run and case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What became of a file."""

    added: int
    known: int
    """Labels that were in the store already."""
    corrected: int
    """Of the added, those that replace one of the store, as it was changed in Label Studio."""
    strays: int
    """Of the added, those about no scored answer of the store."""


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

    What a label lacks of its answer is looked up by its trace id, or its run and case. Raises
    InputFileError with one `file:line: problem. fix` for each bad label, the first 20.
    """
    rows, problems = _rows_of(path, kind, annotator)
    # A file that is refused makes no store.
    with nullcontext() if problems else store.importing("labels"):
        return _add(store, path, kind, rows, problems)


def _rows_of(
    path: Path, kind: str, annotator: str | None
) -> tuple[list[tuple[str, Row]], list[str]]:
    """(file:line, label) of each label, and what is wrong with others."""
    rows, problems = [], []
    seen: Counter[str] = Counter()
    now = int(datetime.now(UTC).timestamp() * 1e6)
    try:
        for place, raw in _read(path, kind):
            try:
                row = _row(raw, annotator, now=now)
                row["label_id"] = row["label_id"] or _id_of(row, seen, at=raw.get("labelled_at"))
                rows.append((place, row))
            except ValueError as error:
                problems.append(f"{place}: {error}")
    except StrictError as error:
        raise InputFileError(f"{path}:{error.line}: {error.message}.") from None
    return rows, problems


def _add(
    store: Store, path: Path, kind: str, said: Sequence[tuple[str, Row]], problems: list[str]
) -> Imported:
    """Add those that the store does not have; none where there are problems."""
    from evalkit.ids import new_id

    here = {row["label_id"]: row for row in store.sql("SELECT * FROM labels")}
    places: list[str] = []
    rows: list[Row] = []
    for place, row in said:
        try:
            rows.append(_if_changed(row, here, may_replace=kind == "labelstudio"))
            places.append(place)
        except ValueError as error:
            problems.append(f"{place}: {error}")
    if problems:
        more = len(problems) - SHOWN_PROBLEMS
        told = [*problems[:SHOWN_PROBLEMS], *([f"… and {more} more"] if more > 0 else [])]
        raise InputFileError("\n".join(told))
    if len({row["label_id"] for row in rows}) < len(rows):
        raise InputFileError(f"{path}: a label_id comes twice. Each label has its own, or none.")
    _refuse_circles(rows, here, path)
    placed = [one for one in zip(places, rows, strict=True) if one[1]["label_id"] not in here]
    answers = _answers_about(store, [row for _, row in placed])
    new = _with_answers(placed, answers)
    if new:
        store.add_labels(new_id(), new)
    return Imported(
        added=len(new),
        known=len(rows) - len(new),
        corrected=sum(kind == "labelstudio" and row["supersedes"] in here for row in new),
        strays=sum(_key(row) not in answers for _, row in placed),
    )


def _id_of(row: Row, seen: Counter[str], *, at: object) -> str:
    """An id out of what a file says of a label, so that the file may be read twice.

    `at` is when, as the file has it; `seen` tells equal labels of a file apart, which may be of
    several trials.
    """
    text = json.dumps([row | {"labelled_at": at and row["labelled_at"]}], sort_keys=True)
    seen[text] += 1
    return _digest(f"{text} {seen[text]}")


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _refuse_circles(rows: Sequence[Row], here: Mapping[str, Row], path: Path) -> None:
    """Labels that replace each other in a circle would all count no more."""
    replaces = {row["label_id"]: row["supersedes"] for row in [*here.values(), *rows]}
    checked: set[str | None] = {None}
    for row in rows:
        label_id, walked = row["label_id"], set()
        while label_id in replaces and label_id not in checked:
            walked.add(label_id)
            label_id = replaces[label_id]
            if label_id in walked:
                raise InputFileError(
                    f"{path}: label {label_id} supersedes itself, or one that replaces it. "
                    "A label supersedes an older one."
                )
        checked |= walked


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
        "label_id": _digest(text),
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
        twice = next((name for name in header if header.count(name) > 1), None)
        if twice is not None:
            raise InputFileError(f"{path}:1: column {twice} comes twice. Name each one once.")
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


def _row(raw: Mapping[str, Any], annotator: str | None, *, now: int) -> Row:
    """A label with every column, of its type. ValueError says what is wrong and right.

    `now` is when it was said where the file does not say: one moment for all of a file, as the
    two labels of a preference are of one moment.
    """
    unknown = sorted(set(raw) - set(COLUMNS))
    if unknown:
        raise ValueError(f"no such column: {unknown[0]!r}. Columns are: {', '.join(COLUMNS)}")
    row: Row = {name: _read_text_column(raw.get(name), name) for name in _TEXTS}
    # Blanks that a spreadsheet left around a name would make two people of one.
    row["annotator"] = " ".join((row["annotator"] or "").split()) or annotator
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
    said_at = raw.get("labelled_at")
    row["labelled_at"] = now if said_at is None else _read_time(said_at)
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
    """Microseconds since 1970."""
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


def _with_answers(rows: list[tuple[str, Row]], answers: Answers) -> list[Row]:
    """The rows, with what they lack of the answer they are about; `place` names a bad one."""
    filled = []
    for place, row in rows:
        try:
            filled.append(row | _answer_of(row, answers.get(_key(row), ())))
        except ValueError as error:
            raise InputFileError(f"{place}: {error}") from None
    return filled


def _key(row: Row) -> tuple[str | None, ...]:
    return (row["trace_id"],) if row["trace_id"] else (row["run_id"], row["case_id"])


def _answers_about(store: Store, rows: list[Row]) -> Answers:
    """The scored answers that rows may be about, by trace and by run and case."""
    wanted = {
        name: sorted({row[column] for row in rows if row[column]})
        for name, column in (("traces", "trace_id"), ("runs", "run_id"), ("cases", "case_id"))
    }
    try:
        found = store.sql(
            f"SELECT DISTINCT {', '.join(_ANSWER)} FROM scores WHERE list_contains($traces, "
            "trace_id) OR (list_contains($runs, run_id) AND list_contains($cases, case_id))",
            wanted,
        )
    except StoreError:
        return {}
    answers: Answers = {}
    for one in found:
        answers.setdefault((one["trace_id"],), []).append(one)
        answers.setdefault((one["run_id"], one["case_id"]), []).append(one)
    return answers


_ANSWER = ("trace_id", "run_id", "golden_set", "case_id", "case_hash", "trial", "model",
           "prompt_name", "prompt_version")  # fmt: skip


def _answer_of(row: Row, answers: Sequence[Row]) -> Row:
    """What is known of the answer that a row is about: where a run answered a case in several
    trials, what these share. ValueError where that is not even a pair."""
    fitting = [one for one in answers if all(row[name] in (None, one[name]) for name in _ANSWER)]
    # A rescoring has the same answers once more; they are its first run's.
    first = min((one["run_id"] for one in fitting), default=None)
    fitting = [one for one in fitting if one["run_id"] == first]
    known = {name: {one[name] for one in fitting} for name in _ANSWER}
    several = next((name for name in _PAIR if len(known[name]) > 1), None)
    if several is not None:
        raise ValueError(
            f"run {first} has several answers to case {row['case_id']}, by {several}. "
            "Give it, or the trace_id"
        )
    return {
        name: row[name] if row[name] is not None else values.pop() if len(values) == 1 else None
        for name, values in known.items()
    }


_PAIR = ("golden_set", "model", "prompt_name", "prompt_version")
