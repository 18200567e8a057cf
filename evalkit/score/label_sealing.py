"""Marks of the label queue into Parquet files of `labels`, each mark in exactly one.

A file's name is on the disk before the file: killed in between, the next seal finds the
file, or writes it again under the same name. Several processes may seal; one does.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

from evalkit.call.durable import transaction
from evalkit.errors import StoreError
from evalkit.ids import new_id
from evalkit.score.label_file import open_label_file
from evalkit.score.label_queue import LabelQueue, read_question
from evalkit.score.labels import Said, label_values
from evalkit.store.files import lock
from evalkit.store.views import Store


def seal_labels(store: Store) -> int:
    """Write the marks that are in no file yet; returns how many. 0, too, while another seals."""
    if not LabelQueue.exists(store.path):
        return 0
    try:
        unlock = lock(store.path / "labels.lock", holder="labels are being sealed")
    except StoreError:
        return 0
    try:
        with closing(open_label_file(store.path)) as file:
            return _seal(file, store)
    finally:
        unlock()


def _seal(file: sqlite3.Connection, store: Store) -> int:
    with transaction(file):
        file.execute("UPDATE marks SET file = ? WHERE file IS NULL", (new_id(),))
    sealed = 0
    for (file_id,) in file.execute("SELECT DISTINCT file FROM marks WHERE sealed = 0").fetchall():
        if not (store.path / "labels" / f"{file_id}.parquet").exists():
            store.add_labels(file_id, _rows_of(file, file_id))
        done = file.execute("UPDATE marks SET sealed = 1 WHERE file = ?", (file_id,))
        sealed += done.rowcount
    return sealed


def _rows_of(file: sqlite3.Connection, file_id: str) -> list[dict[str, Any]]:
    marks = file.execute(
        "SELECT marks.*, facts, inclusion_prob, question, replaced.label_ids AS replaced_ids "
        "FROM marks JOIN items ON items.id = marks.item JOIN batches ON batches.id = items.batch "
        "LEFT JOIN marks AS replaced ON replaced.id = marks.supersedes "
        "WHERE marks.file = ? ORDER BY marks.at, marks.id",
        (file_id,),
    ).fetchall()
    return [row for mark in marks for row in _rows(mark)]


def _rows(mark: sqlite3.Row) -> list[dict[str, Any]]:
    passed = None if mark["passed"] is None else bool(mark["passed"])
    said = Said(score=mark["score"], passed=passed, choices=json.loads(mark["choices"]))
    ids, facts = json.loads(mark["label_ids"]), json.loads(mark["facts"])
    replaced = json.loads(mark["replaced_ids"] or "[]") or [None] * len(ids)
    values = label_values(read_question(mark["question"]), said)
    return [
        {
            **facts[of],
            "label_id": label_id,
            "metric": metric,
            "score": score,
            "passed": verdict,
            "annotator": mark["annotator"],
            "comment": mark["comment"],
            "inclusion_prob": mark["inclusion_prob"],
            "labelled_at": mark["at"],
            "supersedes": old,
        }
        for label_id, old, (of, metric, score, verdict) in zip(ids, replaced, values, strict=True)
    ]
