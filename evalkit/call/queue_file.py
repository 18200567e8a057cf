"""`queue.sqlite`: what waits for people (reviews), for workers (jobs), for providers (batches).

One file, so that one copy of it holds all that is under way. Columns only; what they
mean to whom stands in review.py, jobs.py and batch_file.py.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from evalkit.call.durable import open_sqlite

NAME = "queue.sqlite"
VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS reviews (
    id TEXT PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,        -- idempotency key
    fingerprint TEXT NOT NULL,       -- of feature, action and input: what the key is for
    state TEXT NOT NULL,             -- pending rejected approved running done failed unknown
    created_at INTEGER NOT NULL,     -- microseconds since 1970, as every time here
    action TEXT,                     -- module:function; null: the answer itself is released
    record TEXT NOT NULL,            -- the call record, JSON
    output TEXT,                     -- the approved answer, perhaps edited
    decided_by TEXT,
    decided_at INTEGER,
    reason TEXT,
    owner TEXT,                      -- process that runs the action, see processes.py
    started_at INTEGER,
    result TEXT,                     -- what the action returned, JSON
    error TEXT
);
CREATE INDEX IF NOT EXISTS reviews_by_state ON reviews (state);
CREATE TABLE IF NOT EXISTS review_events (
    review TEXT NOT NULL,
    at INTEGER NOT NULL,
    state TEXT NOT NULL,             -- the new one
    by TEXT,
    note TEXT
);
CREATE INDEX IF NOT EXISTS events_by_review ON review_events (review);
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    batch TEXT NOT NULL,
    key TEXT NOT NULL,               -- unique in its batch: added twice it is there once
    feature TEXT NOT NULL,
    input TEXT NOT NULL,             -- JSON
    options TEXT NOT NULL,           -- keywords of execute, JSON
    state TEXT NOT NULL,             -- waiting running done failed
    claims INTEGER NOT NULL,         -- how often a worker took it
    owner TEXT,
    until INTEGER,                   -- end of the worker's lease
    result TEXT,                     -- JSON
    UNIQUE (batch, key)
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (batch, state, id);
CREATE TABLE IF NOT EXISTS batches (
    id TEXT PRIMARY KEY,             -- the provider's own id
    provider TEXT NOT NULL,
    scope TEXT NOT NULL,             -- the run it belongs to
    state TEXT NOT NULL,             -- sent ended
    sent_at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS batch_requests (
    batch TEXT NOT NULL,
    custom_id TEXT NOT NULL,
    digest TEXT NOT NULL,            -- of the request's body
    owner TEXT,                      -- process that waits for the answer
    PRIMARY KEY (batch, custom_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS batch_requests_by_digest ON batch_requests (digest);
"""


def open_queue(path: str | Path, *, full_sync: bool = False) -> sqlite3.Connection:
    """Open the queue file at `path`; rows come by column name."""
    connection = open_sqlite(path, SCHEMA, version=VERSION, full_sync=full_sync)
    connection.row_factory = sqlite3.Row
    return connection


def to_json(value: Any) -> str:
    """JSON text of a value; what JSON does not have becomes text."""
    return json.dumps(value, ensure_ascii=True, default=_plain)


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    return str(value)
