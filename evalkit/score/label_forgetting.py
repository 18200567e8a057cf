"""Takes what people said out of tier 3: of answers of production that are due to be forgotten.

Labels keep their scores and who gave them; what was shown and what was noted goes. An item
that nobody has labelled goes whole: without its texts it cannot be. Items of golden sets
are the project's own, and stay.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalkit.call.durable import erasing
from evalkit.score.label_file import open_label_file
from evalkit.score.label_queue import REVIEWS, LabelQueue
from evalkit.store.emptying import rewrite
from evalkit.store.views import Store

if TYPE_CHECKING:
    import pyarrow as pa

Before = Callable[[str | None], int | None]
"""Feature -> when its texts have to be younger than (microseconds since 1970); None: never."""


@dataclass(slots=True, kw_only=True)
class LabelsPurged:
    """What went, or would go."""

    items_emptied: int = 0
    """What annotators were shown, and their notes."""
    items_removed: int = 0
    """Items that nobody had labelled."""
    comments_removed: int = 0
    """Of sealed labels."""


def forget_labelled(
    store: Store, before: Before, *, user_ids: Collection[str] = (), dry_run: bool = False
) -> LabelsPurged:
    """Forget what is due by the age of its call, or is of these users."""
    done = LabelsPurged()
    traces = _Traces(store, before, user_ids)
    if LabelQueue.exists(store.path):
        with closing(open_label_file(store.path)) as file, erasing(file, dry_run=dry_run):
            _items(file, traces, done)
    _sealed(store, traces, done, dry_run=dry_run)
    return done


class _Traces:
    """Which calls of production are due."""

    def __init__(self, store: Store, before: Before, user_ids: Collection[str]) -> None:
        self._store, self._before, self._users = store, before, set(user_ids)
        self._samples = {r["run_id"] for r in store.runs() if r.get("kind") == "sample"}
        self._known: dict[str, Mapping[str, Any]] = {}

    def read(self, trace_ids: Collection[str]) -> None:
        """Learn when these calls were made, whose, and of which feature."""
        wanted = sorted(set(trace_ids) - self._known.keys())
        if not wanted:
            return
        with self._store.production() as engine:
            rows = engine.rows(
                "SELECT trace_id, epoch_us(ts) AS at, feature, user_id FROM calls"
                " WHERE trace_id IN (SELECT unnest($1))",
                [wanted],
            )
        self._known |= {row["trace_id"]: row for row in rows}

    def is_production(self, run_id: str | None) -> bool:
        return not run_id or run_id in self._samples

    def is_due(self, trace_id: str | None, *, at_the_latest: int) -> bool:
        """A call that the log has no more is as old as it can be: its item came after it."""
        call = self._known.get(trace_id or "") or {}
        if call.get("user_id") in self._users and self._users:
            return True
        limit = self._before(call.get("feature"))
        return limit is not None and call.get("at", at_the_latest) < limit


def _items(file: sqlite3.Connection, traces: _Traces, done: LabelsPurged) -> None:
    rows = file.execute(
        "SELECT items.id, items.batch, facts, made_at, (SELECT count(*) FROM marks WHERE item = "
        "items.id) AS n_marks, (SELECT max(at) FROM marks WHERE item = items.id) AS marked_at "
        "FROM items JOIN batches ON batches.id = items.batch"
        " WHERE json_extract(shown, '$.purged') IS NULL"
    ).fetchall()
    facts = {row["id"]: json.loads(row["facts"]) for row in rows}
    traces.read([one["trace_id"] for of in facts.values() for one in of if one.get("trace_id")])
    for row in rows:
        of = facts[row["id"]]
        if row["batch"] != REVIEWS and not all(traces.is_production(one["run_id"]) for one in of):
            continue
        latest = row["marked_at"] if row["batch"] == REVIEWS else row["made_at"]
        if not any(traces.is_due(one.get("trace_id"), at_the_latest=latest) for one in of):
            continue
        if not row["n_marks"]:
            file.execute("DELETE FROM claims WHERE item = ?", (row["id"],))
            file.execute("DELETE FROM items WHERE id = ?", (row["id"],))
            done.items_removed += 1
            continue
        shown = json.dumps({"outputs": [None] * len(of), "purged": True})
        # Who has yet to look would see nothing.
        file.execute("UPDATE items SET shown = ?, wanted = 0 WHERE id = ?", (shown, row["id"]))
        file.execute("UPDATE marks SET comment = NULL WHERE item = ?", (row["id"],))
        done.items_emptied += 1


def _sealed(store: Store, traces: _Traces, done: LabelsPurged, *, dry_run: bool) -> None:
    for path in store.readable((store.path / "labels").glob("*.parquet"), whole=True):
        removed = 0

        def change(labels: pa.Table) -> pa.Table:
            nonlocal removed
            due = _due_comments(labels, traces)
            removed += sum(due)
            return _without_comments(labels, due)

        rewrite(path, "labels", change, only_if=lambda: not dry_run and removed > 0)  # noqa: B023
        done.comments_removed += removed


def _due_comments(labels: pa.Table, traces: _Traces) -> list[bool]:
    names = ("trace_id", "run_id", "comment")
    rows = list(zip(*(labels[name].to_pylist() for name in names), strict=True))
    at = labels["labelled_at"].cast("int64").to_pylist()
    mine = [comment is not None and traces.is_production(run_id) for _, run_id, comment in rows]
    traces.read([row[0] for row, is_mine in zip(rows, mine, strict=True) if is_mine and row[0]])
    return [
        is_mine and traces.is_due(row[0], at_the_latest=when or 0)
        for row, is_mine, when in zip(rows, mine, at, strict=True)
    ]


def _without_comments(labels: pa.Table, due: list[bool]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = labels["comment"].combine_chunks()
    emptied = pc.if_else(pa.array(due, pa.bool_()), pa.scalar(None, column.type), column)
    at = labels.schema.get_field_index("comment")
    return labels.set_column(at, labels.schema.field(at), emptied)
