"""Where kept answers are: one SQLite file, or a Redis server.

Whatever goes wrong with the storage is counted and stays here: a cache fails open.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from evalkit import json_bytes
from evalkit.call.cache import Cached
from evalkit.call.durable import not_usable, open_sqlite, transaction
from evalkit.config import Settings
from evalkit.errors import ConfigError
from evalkit.records import Finish, Pair, ToolCall, Usage

if TYPE_CHECKING:
    from evalkit.call.redis_cache import RedisCache

logger = logging.getLogger(__name__)

MAX_BYTES = 256 * 1024 * 1024
MAX_UNWRITTEN = 1_000
"""Answers that wait for a slow disk; more are not kept."""
GATHER_S = 0.2
"""How long answers are gathered, to be written together."""
REST_S = 5.0
"""How long a cache that failed is left alone, so that calls do not wait for it."""
SLOW_S = 0.02
"""A cache that keeps a caller waiting so long in vain is too slow."""
READ_WAIT_S = 0.02
URL_ENV = "EVALKIT_CACHE_URL"
"""A Redis server to keep answers in; its address may hold a password."""

VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS responses (
    key TEXT NOT NULL PRIMARY KEY,  -- cache_key()
    data BLOB NOT NULL,             -- encode()
    stored_at REAL NOT NULL,        -- seconds since 1970
    expires_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS responses_by_end ON responses (expires_at);
"""
DELETED_AT_ONCE = 32


def open_cache(settings: Settings) -> SqliteCache | RedisCache:
    """The cache of a project: a file in its store, or the Redis that EVALKIT_CACHE_URL names."""
    if url := os.environ.get(URL_ENV):
        from evalkit.call.redis_cache import RedisCache

        return RedisCache(url)
    return SqliteCache(cache_path(settings))


def clear_cache(
    settings: Settings, feature: str | None = None, *, stored_before: float | None = None
) -> int:
    """Delete the kept answers of a feature, or all; returns how many.

    `stored_before`, in seconds since 1970, leaves younger ones. Raises ConfigError when the
    storage cannot be used.
    """
    cache = open_cache(settings)
    if isinstance(cache, SqliteCache):
        if not cache_path(settings).exists():
            return 0
        return cache.clear(feature, stored_before=stored_before)

    async def clear() -> int:
        try:
            return await cache.clear(feature, stored_before=stored_before)
        finally:
            await cache.aclose()

    return asyncio.run(clear())


def cache_path(settings: Settings) -> Path:
    """The cache's file; a store elsewhere than on this disk leaves it beside the project."""
    store = settings.store_path
    folder = settings.root / ".evalkit" if "://" in store else Path(store)
    return folder / "cache" / "responses.sqlite"


# --- how an answer is stored ----------------------------------------------------------


class Damaged(ValueError):
    """What was kept is not what comes back."""


def encode(cached: Cached, *, stored_at: float) -> bytes:
    """An answer, and when it is kept (seconds since 1970), as bytes: CRC-32, then JSON."""
    finish, usage, pair = cached.finish, cached.finish.usage, cached.pair
    body = json_bytes.encode_exactly(
        {
            "output": cached.output,
            "finish_reason": finish.finish_reason,
            "tokens": [usage.prompt_tokens, usage.completion_tokens, usage.cached_prompt_tokens],
            "served_as": finish.served_model,
            "tool_calls": [[call.id, call.name, call.arguments] for call in finish.tool_calls],
            "confidence": finish.confidence,
            "model": cached.model,
            "served_model": cached.served_model,
            "pair": [pair.model, pair.prompt_name, pair.prompt_version],
            "stored_at": stored_at,
            "asked": cached.asked,
        }
    )
    return zlib.crc32(body).to_bytes(4, "big") + body


def decode(data: bytes) -> Cached:
    """The answer that `encode` made bytes of; raises Damaged for anything else."""
    body = data[4:]
    if zlib.crc32(body).to_bytes(4, "big") != data[:4]:
        raise Damaged("a kept answer does not have the checksum it was written with")
    try:
        found = json_bytes.decode(body)
        prompt, completion, cached = found["tokens"]
        model, prompt_name, prompt_version = found["pair"]
        return Cached(
            output=found["output"],
            finish=Finish(
                finish_reason=found["finish_reason"],
                usage=Usage(
                    prompt_tokens=prompt, completion_tokens=completion, cached_prompt_tokens=cached
                ),
                served_model=found["served_as"],
                tool_calls=tuple(
                    ToolCall(id=id_, name=name, arguments=arguments)
                    for id_, name, arguments in found["tool_calls"]
                ),
                confidence=found["confidence"],
            ),
            model=found["model"],
            served_model=found["served_model"],
            pair=Pair(model=model, prompt_name=prompt_name, prompt_version=prompt_version),
            stored_at=found["stored_at"],
            asked=found["asked"],
        )
    except (ValueError, LookupError, TypeError) as error:
        raise Damaged(f"a kept answer cannot be read: {error!r}") from None


# --- a file ---------------------------------------------------------------------------


class Health:
    """Keeps a cache's failures from its callers, counts them, and rests after one.

    with health:
        ...             # an exception ends the block, and goes no further
    """

    def __init__(self, what: str, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.errors = 0
        self._what = what
        self._monotonic = monotonic
        self._rests_until = float("-inf")

    @property
    def resting(self) -> bool:
        return self._monotonic() < self._rests_until

    def given_up(self, waited_s: float) -> None:
        """A caller waited so long and no longer: if that was long, the cache is at fault."""
        if waited_s >= SLOW_S:
            self.errors += 1
            self._rests_until = self._monotonic() + REST_S
            logger.warning("%s: no answer in %.3g s", self._what, waited_s)

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self.errors += 1
        if not isinstance(error, Damaged):
            self._rests_until = self._monotonic() + REST_S
        # A driver's own message may quote what was kept.
        ours = isinstance(error, Damaged | ConfigError)
        logger.warning("%s: %s", self._what, error if ours else type(error).__name__)
        return True


@dataclass(frozen=True, slots=True)
class _Row:
    data: bytes
    expires_at: float


class SqliteCache:
    """Answers in one SQLite file, shared by processes, never larger than about `max_bytes`.

    Reads are on the caller's thread: they take less than handing over to another one, and
    in WAL mode they wait for nobody. Writes are on a thread of their own, where another
    process's lock or a slow disk holds up no call; until written, an answer is found in
    memory. The answers that expire soonest make room.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = Path(path)
        self._max_bytes = max_bytes
        self._clock = clock
        self._health = Health(f"response cache {path}", monotonic)
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None
        self._unwritten: dict[str, _Row] = {}
        self._closing = threading.Event()
        self._lock = threading.Lock()

    @property
    def errors(self) -> int:
        return self._health.errors

    async def get(self, key: str) -> Cached | None:
        if self._health.resting:
            return None
        with self._health:
            row = self._unwritten.get(key) or self._read(key)
            if row is not None and self._clock() < row.expires_at:
                return decode(row.data)
        return None

    async def put(self, key: str, cached: Cached, ttl_s: float) -> None:
        if ttl_s <= 0 or self._health.resting:
            return
        with self._health:
            now = self._clock()
            data = encode(cached, stored_at=now)
            if len(data) <= self._max_bytes // 8:
                self._hand_over(key, _Row(data, now + ttl_s))

    async def aclose(self) -> None:
        self._closing.set()
        while (writing := self._writing) is not None:
            await asyncio.wrap_future(writing)
        self._closing.clear()
        if self._thread is not None:
            self._thread.shutdown(wait=False)
        for connection in (self._reader, self._writer):
            _close(connection)
        self._thread = self._reader = self._writer = None

    def clear(self, namespace: str | None = None, *, stored_before: float | None = None) -> int:
        """Delete the answers of a namespace (a feature), or of all; returns how many.

        `stored_before`, in seconds since 1970, leaves younger ones. Deleted text does not
        stay in the file. Raises ConfigError when the file cannot be used.
        """
        where: str = "1"
        values: list[str | float] = []
        if namespace is not None:
            where = "(key >= ? AND key < ? OR key >= ? AND key < ?)"
            values += [f"{namespace}{end}" for end in (":", ";", "/", "0")]
        if stored_before is not None:
            where += " AND stored_at < ?"
            values.append(stored_before)
        try:
            with closing(open_sqlite(self._path, SCHEMA, version=VERSION)) as connection:
                with transaction(connection):
                    deleted = connection.execute(f"DELETE FROM responses WHERE {where}", values)
                connection.execute("VACUUM")
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                return deleted.rowcount
        except sqlite3.Error as error:
            raise not_usable(f"{self._path}: cannot be cleared", error) from None

    # --- on the caller's thread -------------------------------------------------------

    def _read(self, key: str) -> _Row | None:
        try:
            if self._reader is None:
                self._reader = open_sqlite(self._path, SCHEMA, version=VERSION)
                self._reader.execute(f"PRAGMA busy_timeout = {int(READ_WAIT_S * 1000)}")
                self._reader.text_factory = bytes  # damage is for the checksum to find
            found = self._reader.execute(
                "SELECT data, expires_at FROM responses WHERE key = ?", (key,)
            ).fetchone()
        except sqlite3.Error:
            _close(self._reader)
            self._reader = None  # the file may be another one after the rest
            raise
        return None if found is None else _Row(*found)

    def _hand_over(self, key: str, row: _Row) -> None:
        with self._lock:
            if len(self._unwritten) >= MAX_UNWRITTEN:
                return
            self._unwritten[key] = row
            if self._writing is None:
                self._thread = self._thread or ThreadPoolExecutor(1, "evalkit-cache")
                self._writing = self._thread.submit(self._write_all)

    # --- on the writing thread --------------------------------------------------------

    def _write_all(self) -> None:
        while True:
            self._closing.wait(GATHER_S)
            with self._lock:
                rows = dict(self._unwritten)
                if not rows:
                    self._writing = None
                    return
            with self._health:
                self._write(rows)
            with self._lock:
                for key, row in rows.items():
                    if self._unwritten.get(key) is row:
                        del self._unwritten[key]

    def _write(self, rows: Mapping[str, _Row]) -> None:
        now = self._clock()
        try:
            if self._writer is None:
                self._writer = open_sqlite(self._path, SCHEMA, version=VERSION)
            with transaction(self._writer):
                self._writer.executemany(
                    "INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?)",
                    [(key, row.data, now, row.expires_at) for key, row in rows.items()],
                )
                self._make_room(self._writer, now)
        except sqlite3.Error:
            _close(self._writer)
            self._writer = None
            raise

    def _make_room(self, connection: sqlite3.Connection, now: float) -> None:
        _delete_soonest(connection, now)
        gone = 1
        while gone and _used_bytes(connection) > self._max_bytes:
            gone = _delete_soonest(connection, float("inf"))


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        connection.close()


def _used_bytes(connection: sqlite3.Connection) -> int:
    """What the file holds, indexes included, without pages that are free again."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _delete_soonest(connection: sqlite3.Connection, before: float) -> int:
    """Delete a few of what expires by `before`, the soonest first; returns how many."""
    return connection.execute(
        "DELETE FROM responses WHERE rowid IN "
        "(SELECT rowid FROM responses WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
        (before, DELETED_AT_ONCE),
    ).rowcount
