"""Takes out of `queue.sqlite` what people said: of old reviews and jobs, or of one user.

What was decided, by whom and when stays, and so do idempotency keys: an action whose texts
are gone is never run twice. What still waits for a person is left, and counted.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.call.durable import erasing
from evalkit.call.queue_file import NAME, open_queue, to_json

Before = Callable[[str | None], int | None]
"""Feature -> when its texts have to be younger than (microseconds since 1970); None: never."""
ENDED = ("done", "rejected")
RECORD_TEXTS = ("input", "output", "user_feedback")


@dataclass(slots=True, kw_only=True)
class QueuePurged:
    """What went, or would go."""

    reviews_emptied: int = 0
    reviews_removed: int = 0
    reviews_open: int = 0
    """Due, but somebody has yet to decide on them, or an action has yet to run."""
    jobs_emptied: int = 0
    jobs_removed: int = 0


def forget_queued(
    store: Path, before: Before, *, user_ids: Collection[str] = (), dry_run: bool = False
) -> QueuePurged:
    """Empty what ended and is due; remove what is of these users."""
    done = QueuePurged()
    if not (store / NAME).exists():
        return done
    with (
        closing(open_queue(store / NAME, full_sync=True)) as file,
        erasing(file, dry_run=dry_run),
    ):
        _reviews(file, before, user_ids, done)
        _jobs(file, before, user_ids, done)
    return done


def _reviews(
    file: sqlite3.Connection, before: Before, user_ids: Collection[str], done: QueuePurged
) -> None:
    for row in file.execute("SELECT id, state, record, output FROM reviews").fetchall():
        record = json.loads(row["record"])
        if record.get("user_id") in user_ids and user_ids:
            if row["state"] == "running":
                done.reviews_open += 1
                continue
            file.execute("DELETE FROM review_events WHERE review = ?", (row["id"],))
            file.execute("DELETE FROM reviews WHERE id = ?", (row["id"],))
            done.reviews_removed += 1
        elif _is_old(record.get("ts"), before(record.get("feature"))) and _says_any(row, record):
            if row["state"] not in ENDED:
                done.reviews_open += 1
                continue
            file.execute(
                "UPDATE reviews SET record = ?, output = NULL, result = NULL, reason = NULL "
                "WHERE id = ?",
                (to_json(without_said(record)), row["id"]),
            )
            file.execute("UPDATE review_events SET note = NULL WHERE review = ?", (row["id"],))
            done.reviews_emptied += 1


def _is_old(at: int | None, limit: int | None) -> bool:
    return at is not None and limit is not None and at < limit


def _says_any(row: sqlite3.Row, record: Mapping[str, Any]) -> bool:
    return row["output"] is not None or any(record.get(name) is not None for name in RECORD_TEXTS)


def without_said(record: Mapping[str, Any]) -> dict[str, Any]:
    """A call record with what was counted, and nothing that anybody said."""
    emptied = {**record, **dict.fromkeys(RECORD_TEXTS)}
    emptied["attempts"] = [{**one, "reply": None} for one in record.get("attempts") or ()]
    emptied["tool_calls"] = [{**one, "arguments": ""} for one in record.get("tool_calls") or ()]
    return emptied


def _jobs(
    file: sqlite3.Connection, before: Before, user_ids: Collection[str], done: QueuePurged
) -> None:
    """Done jobs are as old as their calls, whose ids begin with the time."""
    rows = file.execute(
        "SELECT id, feature, state, options, result FROM jobs WHERE input <> '{}'"
    ).fetchall()
    for row in rows:
        is_theirs = bool(user_ids) and json.loads(row["options"]).get("user_id") in user_ids
        result = json.loads(row["result"] or "null") or {}
        if is_theirs and row["state"] in ("waiting", "failed"):
            file.execute("DELETE FROM jobs WHERE id = ?", (row["id"],))
            done.jobs_removed += 1
        elif row["state"] == "done" and (
            is_theirs or _is_old(_time_of(result.get("trace_id")), before(row["feature"]))
        ):
            told = {**result, **dict.fromkeys(("output", "value", "message"))}
            file.execute(
                "UPDATE jobs SET input = '{}', options = '{}', result = ? WHERE id = ?",
                (to_json(told), row["id"]),
            )
            done.jobs_emptied += 1


def _time_of(trace_id: Any) -> int | None:
    """Microseconds since 1970 that an id of ours begins with."""
    try:
        return int(str(trace_id)[:12], 16) * 1000
    except ValueError:
        return None
