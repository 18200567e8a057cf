"""`labels.sqlite`: what waits to be labelled, and what was said, until it is Parquet.

Columns only; label_queue.py says what happens to them. Marks are added and never changed:
one that corrects another names it in `supersedes`.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from evalkit.call.durable import open_sqlite

NAME = "labels.sqlite"
VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
    id TEXT PRIMARY KEY,
    made_at INTEGER NOT NULL,        -- microseconds since 1970, as every time here
    run TEXT NOT NULL,
    against TEXT NOT NULL,           -- the other run of side-by-side items; empty: none
    metric TEXT NOT NULL,
    question TEXT NOT NULL,          -- JSON
    design TEXT NOT NULL             -- how it was drawn, JSON
);
CREATE UNIQUE INDEX IF NOT EXISTS batches_once ON batches (run, against, metric);
CREATE TABLE IF NOT EXISTS items (
    id TEXT PRIMARY KEY,
    batch TEXT NOT NULL,
    facts TEXT NOT NULL,             -- per answer its columns of `labels`, JSON
    shown TEXT NOT NULL,             -- input, documents, reference, outputs, JSON
    share TEXT NOT NULL,             -- random active
    why TEXT NOT NULL,               -- what the active share saw in it
    stratum TEXT NOT NULL,
    inclusion_prob REAL,
    wanted INTEGER NOT NULL          -- annotators
);
CREATE INDEX IF NOT EXISTS items_by_batch ON items (batch);
CREATE TABLE IF NOT EXISTS marks (
    id TEXT PRIMARY KEY,
    item TEXT NOT NULL,
    annotator TEXT NOT NULL,
    at INTEGER NOT NULL,
    choices TEXT NOT NULL,           -- aspect to option, JSON; empty: could not tell
    score REAL,
    passed INTEGER,
    comment TEXT,
    withdrawn INTEGER NOT NULL,      -- taken back; the item is open again
    supersedes TEXT,                 -- id of the mark it replaces
    label_ids TEXT NOT NULL,         -- of the rows it becomes, JSON
    file TEXT,                       -- labels/<file>.parquet; null: not assigned yet
    sealed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS marks_by_item ON marks (item);
CREATE INDEX IF NOT EXISTS marks_by_annotator ON marks (annotator);
CREATE INDEX IF NOT EXISTS marks_by_superseded ON marks (supersedes);
CREATE INDEX IF NOT EXISTS marks_unsealed ON marks (file) WHERE sealed = 0;
CREATE VIEW IF NOT EXISTS standing AS
    SELECT * FROM marks WHERE withdrawn = 0 AND NOT EXISTS (
        SELECT 1 FROM marks AS later WHERE later.supersedes = marks.id
    );
CREATE VIEW IF NOT EXISTS own AS
    SELECT * FROM marks WHERE withdrawn = 0 AND annotator NOT LIKE 'adjudicator:%' AND NOT EXISTS (
        SELECT 1 FROM marks AS later
        WHERE later.supersedes = marks.id AND later.annotator = marks.annotator
    );
CREATE TABLE IF NOT EXISTS claims (
    item TEXT NOT NULL,
    annotator TEXT NOT NULL,
    until INTEGER NOT NULL,          -- somebody is looking at it
    PRIMARY KEY (item, annotator)
) WITHOUT ROWID
"""


def open_label_file(folder: Path) -> sqlite3.Connection:
    """Open the file in a store's folder; rows come by column name."""
    connection = open_sqlite(folder / NAME, SCHEMA, version=VERSION, full_sync=True)
    connection.row_factory = sqlite3.Row
    return connection
