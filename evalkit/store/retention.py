"""Forgets what is old, or what belongs to one user: texts first, then whole calls.

Scores, counts, tokens and costs stay. A file is replaced whole or not at all; a run's
manifest names its rewritten files, under new names, before the old ones go. A purge that
was killed is finished by the next.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from evalkit.store.call_log import seal_left_segments, segments_folder
from evalkit.store.engine import Engine
from evalkit.store.feedback import forget_feedback
from evalkit.store.files import WholeFile, lock, write_json, write_whole
from evalkit.store.rows import encode_row
from evalkit.store.runs import run_folder
from evalkit.store.schema import TABLES
from evalkit.store.sealing import Rows
from evalkit.store.views import Store

Row = dict[str, Any]
Change = Callable[[Row], Row | None]
"""A row as it may stay; None when it goes."""

TEXTS = ("input", "output", "user_feedback")
"""Columns of `calls` that are texts whole; replies and arguments are inside others."""
GROUP_ROWS = 4_096


@dataclass(slots=True, kw_only=True)
class Purged:
    """What a purge did, or would do."""

    calls_emptied: int = 0
    calls_removed: int = 0
    samples_emptied: int = 0
    """Sampling jobs whose reasons and judges' replies went."""
    files_changed: int = 0
    feedback_changed: int = 0
    """What users said later that went, or lost its comment."""
    open_segments: int = 0
    """Files that living processes still write to: they are purged once they are sealed."""

    def as_json(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeRule:
    """What goes; times in microseconds since 1970, None: nothing for its age."""

    texts_before: int | None = None
    calls_before: int | None = None
    user_ids: frozenset[str] = frozenset()
    """All calls of these users, whatever their age."""


def purge(store: Store, rule: PurgeRule, *, dry_run: bool = False) -> Purged:
    """Apply `rule` to production's calls and to what sampling jobs said of them."""
    done = Purged()
    if not store.path.is_dir():
        return done
    if not dry_run:
        seal_left_segments(store.path)
    done.open_segments = len(list(segments_folder(store.path).glob("*.jsonl")))
    traces = _traces_of(store, rule.user_ids)
    for path in store.production_files():
        if _may_concern(path, rule):
            _purge_calls(path, rule, done, dry_run=dry_run)
    done.feedback_changed = forget_feedback(
        store.path, lambda row: _said_less(row, rule, traces), dry_run=dry_run
    )
    for run in store.runs():
        if run.get("kind") == "sample" and run["status"] == "complete":
            if not dry_run:
                _drop_old_names(store, run)
            old = rule.texts_before is not None and run["sample"]["until"] <= rule.texts_before
            if (old or _scores_any(store, run, traces)) and not run.get("texts_purged"):
                _empty_sample(store, run, done, dry_run=dry_run)
    return done


# --- production's calls --------------------------------------------------------------


def _traces_of(store: Store, user_ids: Collection[str]) -> set[str]:
    if not user_ids:
        return set()
    with store.production() as engine:
        rows = engine.rows(
            "SELECT trace_id FROM calls WHERE user_id IN (SELECT unnest($1))", [list(user_ids)]
        )
    return {row["trace_id"] for row in rows}


def _may_concern(path: Path, rule: PurgeRule) -> bool:
    """Whether a file has to be read: not when it is younger, or has no texts any more."""
    if rule.user_ids:
        return True
    day = datetime.fromisoformat(path.parent.name.removeprefix("date=") + "T00:00:00+00:00")
    started = int(day.timestamp()) * 1_000_000
    if rule.calls_before is not None and started < rule.calls_before:
        return True
    return (
        rule.texts_before is not None
        and started < rule.texts_before
        and not _has_no_texts(path, ("input", "output"))
    )


def _has_no_texts(path: Path, names: Iterable[str]) -> bool:
    """By the file's own statistics: every value of these columns is null."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    at = {metadata.schema.column(n).path: n for n in range(metadata.num_columns)}
    for name in names:
        for group in range(metadata.num_row_groups):
            column = metadata.row_group(group).column(at[name])
            statistics = column.statistics
            if statistics is None or statistics.null_count != column.num_values:
                return False
    return True


def _purge_calls(path: Path, rule: PurgeRule, done: Purged, *, dry_run: bool) -> None:
    emptied = removed = 0

    def change(row: Row) -> Row | None:
        nonlocal emptied, removed
        if row["user_id"] in rule.user_ids or _before(row, rule.calls_before):
            removed += 1
            return None
        if _before(row, rule.texts_before) and _has_texts(row):
            emptied += 1
            return without_texts(row)
        return row

    kept = [row for row in map(change, _rows_of(path, "calls")) if row is not None]
    if not emptied and not removed:
        return
    done.calls_emptied += emptied
    done.calls_removed += removed
    done.files_changed += 1
    if dry_run:
        return
    if kept:
        with write_whole(path, replace=True) as file:
            _write(file, kept, "calls")
    else:
        path.unlink()


def _said_less(row: Row, rule: PurgeRule, traces: Collection[str]) -> Row | None:
    """Feedback as it may stay; its age is that of what was said, not of the call."""
    aged = {"ts": row["given_at"]}
    if row["user_id"] in rule.user_ids or row["trace_id"] in traces:
        return None
    if _before(aged, rule.calls_before):
        return None
    return {**row, "comment": None} if _before(aged, rule.texts_before) else row


def _before(row: Mapping[str, Any], limit: int | None) -> bool:
    return limit is not None and row["ts"] < limit


def _has_texts(row: Mapping[str, Any]) -> bool:
    return (
        any(row[name] is not None for name in TEXTS)
        or any(one["reply"] is not None for one in row["attempts"] or ())
        or any(one["arguments"] for one in row["tool_calls"] or ())
    )


def without_texts(row: Row) -> Row:
    """A call with what was counted of it, and nothing that anybody said."""
    attempts = [{**one, "reply": None} for one in row["attempts"] or ()]
    tool_calls = [{**one, "arguments": ""} for one in row["tool_calls"] or ()]
    return {**row, **dict.fromkeys(TEXTS), "attempts": attempts, "tool_calls": tool_calls}


# --- sampling jobs -------------------------------------------------------------------


def _scores_any(store: Store, run: Mapping[str, Any], traces: set[str]) -> bool:
    if not traces:
        return False
    with Engine() as engine:
        engine.add_files("scores", store.score_files(run["run_id"]))
        query = "SELECT count(*) AS n FROM scores WHERE trace_id IN (SELECT unnest($1))"
        return bool(engine.rows(query, [sorted(traces)])[0]["n"])


def _empty_sample(store: Store, run: dict[str, Any], done: Purged, *, dry_run: bool) -> None:
    """Take the reasons and the judges' replies out of a job; its scores stay."""
    done.samples_emptied += 1
    done.files_changed += len(run["files"])
    if dry_run:
        return
    store.score_files(run["run_id"])  # damaged files are named, and stay
    folder = run_folder(store.path, run["run_id"])
    unlock = lock(folder / "lock", holder=f"run {run['run_id']} is being written")
    try:
        files = {}
        for name in run["files"]:
            table = "scores" if name.startswith("scores/") else "calls"
            change = without_texts if table == "calls" else _without_reason
            new = name.removesuffix(".parquet") + "~purged.parquet"
            (store.path / new).unlink(missing_ok=True)
            rows = [change(row) for row in _rows_of(store.path / name, table)]
            with write_whole(store.path / new) as file:
                _write(file, rows, table)
            files[new] = {"sha256": file.sha256, "size": file.size, "rows": len(rows)}
        changed = {**run, "files": files, "texts_purged": True}
        write_json(folder / "manifest.json", changed, replace=True)
        _drop_old_names(store, changed)
    finally:
        unlock()


def _without_reason(row: Row) -> Row:
    return {**row, "reason": None}


def _drop_old_names(store: Store, run: Mapping[str, Any]) -> None:
    """Remove what an emptied job had before: its files by their old names, and its journal."""
    if not run.get("texts_purged"):
        return
    for name in run["files"]:
        (store.path / name.replace("~purged.parquet", ".parquet")).unlink(missing_ok=True)
    with suppress(FileNotFoundError):
        (run_folder(store.path, run["run_id"]) / "journal.jsonl").unlink()


# --- rows of one file ----------------------------------------------------------------


def _rows_of(path: Path, table: str) -> Iterator[Row]:
    """Rows as `encode_row` takes them: times in microseconds, JSON as values."""
    kinds = {column.name: column.kind for column in TABLES[table]}
    with Engine() as engine:
        engine.add_files(table, [path])
        rows = engine.rows(f"SELECT * FROM {table}")
    for row in rows:
        yield {name: _plain(value, kinds[name]) for name, value in row.items() if name in kinds}


def _plain(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "time":
        return (value - _EPOCH) // timedelta(microseconds=1)
    return json.loads(value) if kind == "json" else value


_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _write(file: WholeFile, rows: list[Row], table: str) -> None:
    import pyarrow.parquet as pq

    held = Rows(table)
    with pq.ParquetWriter(
        file, held.schema, compression="zstd", write_page_checksum=True
    ) as writer:
        for start in range(0, len(rows), GROUP_ROWS):
            for row in rows[start : start + GROUP_ROWS]:
                held.add(encode_row(row, table))
            writer.write_batch(held.take())
