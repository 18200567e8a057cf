"""Who saw what, and what they said of it: labels and reviews, in the order it happened.

Merges what the pages noted before they showed it with the marks and decisions themselves.
Reads; changes nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from evalkit.call.queue_file import NAME as REVIEWS
from evalkit.call.queue_file import open_queue
from evalkit.score.label_file import NAME as LABELS
from evalkit.score.label_file import open_label_file
from evalkit.store.audit import Event, read_seen


def events(
    store: Path, *, who: str | None = None, trace_id: str | None = None, since: int = 0
) -> list[Event]:
    """What happened from `since` on (microseconds since 1970), of one person or one call."""
    found = [*read_seen(store), *_labelled(store), *_reviewed(store)]
    return sorted(
        (
            one
            for one in found
            if one.at >= since
            and who in (None, one.who)
            and (trace_id is None or trace_id in one.trace_ids)
        ),
        key=lambda one: one.at,
    )


def _labelled(store: Path) -> Iterator[Event]:
    if not (store / LABELS).exists():
        return
    with closing(open_label_file(store)) as file:
        rows = file.execute(
            "SELECT marks.at, annotator, withdrawn, item, facts, batch FROM marks"
            " JOIN items ON items.id = marks.item"
        ).fetchall()
    for row in rows:
        if row["item"].startswith("review:"):
            continue  # the decision itself is among the reviews
        yield Event(
            at=row["at"],
            who=row["annotator"],
            did="labelled, and withdrew it" if row["withdrawn"] else "labelled",
            kind="item",
            item=row["item"],
            trace_ids=tuple(one.get("trace_id") or "" for one in json.loads(row["facts"])),
        )


def _reviewed(store: Path) -> Iterator[Event]:
    if not (store / REVIEWS).exists():
        return
    with closing(open_queue(store / REVIEWS)) as file:
        rows: list[sqlite3.Row] = file.execute(
            "SELECT at, by, review_events.state, review,"
            " json_extract(record, '$.trace_id') AS trace_id"
            " FROM review_events JOIN reviews ON reviews.id = review WHERE by IS NOT NULL"
        ).fetchall()
    for row in rows:
        yield Event(
            at=row["at"],
            who=row["by"],
            did=row["state"],
            kind="review",
            item=row["review"],
            trace_ids=(row["trace_id"] or "",),
        )
