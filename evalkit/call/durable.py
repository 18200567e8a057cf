"""Opens the SQLite files of the call path: private, and shared by threads and processes.

Every file is in WAL mode, so that readers never wait for a writer; writers wait for each
other up to `BUSY_S`, or in `when_free`, where an event loop must not. A transaction is what
stands in `with transaction(connection):`; a statement outside of one is a transaction of
its own.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from evalkit.errors import EXIT_UNMEASURABLE, OF_THE_DISK, ConfigError

BUSY_S = 5.0
"""How long a statement waits for another process's lock."""
RETRY_S = 0.01

T = TypeVar("T")


def open_sqlite(
    path: str | Path, schema: str, *, version: int, full_sync: bool = False
) -> sqlite3.Connection:
    """Open the file at `path`, made with `schema` (CREATE ... IF NOT EXISTS) when it is new.

    `full_sync` has every commit on the disk before it returns; without it a power cut may
    lose the last commits, a killed process none. File and new folders are for this user
    only. One thread at a time may use the connection. Raises ConfigError when the file is
    of another `version`, is no SQLite file, or cannot be opened.
    """
    path = Path(path)
    try:
        _make_private(path)
        connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
    except (OSError, sqlite3.Error) as error:
        raise not_usable(f"{path}: cannot be opened", error) from None
    try:
        _set_up(connection, schema, version=version, full_sync=full_sync)
    except sqlite3.Error as error:
        connection.close()
        raise not_usable(f"{path}: cannot be used", error) from None
    except _OtherVersion as other:
        connection.close()
        raise ConfigError(
            f"{path}: is of version {other}, this evalkit reads version {version}. "
            "Use the evalkit that wrote it, or move the file away."
        ) from None
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None, None, None]:
    """All of the block or nothing; no other process writes meanwhile.

    The write lock is taken at the start: what is read inside is still true when written.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def erasing(connection: sqlite3.Connection, *, dry_run: bool) -> Generator[None, None, None]:
    """A transaction whose deleted texts nobody can read in the file; `dry_run` undoes it all."""
    connection.execute("PRAGMA secure_delete = ON")
    with suppress(_DryRun), transaction(connection):
        yield
        if dry_run:
            raise _DryRun
    # What is only deleted would stay readable in the file that SQLite writes ahead.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


class _DryRun(Exception):
    pass


def wait_no_more(connection: sqlite3.Connection) -> None:
    """From now on a statement that meets another's lock fails at once: `is_busy`."""
    connection.execute("PRAGMA busy_timeout = 0")


def is_busy(error: Exception) -> bool:
    """Whether another process was writing."""
    return _code(error) == sqlite3.SQLITE_BUSY


async def when_free(write: Callable[[], T], *, wait_s: float = BUSY_S) -> T:
    """What `write` returns, tried again while another process writes; the event loop runs on.

    The connection is one that waits no more, and `write` does all or nothing. Raises what
    it raises, `is_busy` after `wait_s`. Cancelled while it waits, it has written nothing.
    """
    until = time.monotonic() + wait_s
    while True:
        try:
            return write()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= until:
                raise
        await asyncio.sleep(RETRY_S)


def not_usable(what: str, error: OSError | sqlite3.Error) -> ConfigError:
    """The error for a file that SQLite or the system refuses; 3 where the disk is to blame."""
    refused = ConfigError(f"{what}: {error}.{_ADVICE.get(_code(error), '')}")
    if _code(error) in _UNMEASURABLE or getattr(error, "errno", None) in OF_THE_DISK:
        refused.exit_code = EXIT_UNMEASURABLE
    return refused


def explained(error: BaseException) -> ConfigError | None:
    """The error for a statement that failed; None where its file is not to blame."""
    if not isinstance(error, sqlite3.Error) or _code(error) not in _ADVICE:
        return None
    return not_usable("a database in the store cannot be used", error)


def _code(error: Exception) -> int:
    """SQLite's primary result code; 0 where it was not SQLite that failed."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


_ADVICE = {
    sqlite3.SQLITE_FULL: " Free some space; what was written before is intact.",
    # The kind of a full disk, too, where SQLite maps its side files.
    sqlite3.SQLITE_IOERR: " Free some space, or see to the disk.",
    sqlite3.SQLITE_CORRUPT: " It is damaged, and kept as it is: put a copy in its place.",
    sqlite3.SQLITE_NOTADB: " It is damaged, and kept as it is: put a copy in its place.",
    sqlite3.SQLITE_BUSY: " Another process is writing: try again.",
    sqlite3.SQLITE_READONLY: " Choose a store that can be written.",
}
"""What would be right, by SQLite's primary result code."""
_UNMEASURABLE = {
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB,
}  # fmt: skip
"""A full disk and a damaged store are nobody's usage."""


class _OtherVersion(Exception):
    pass


def _make_private(path: Path) -> None:
    """Create file and folders for this user only; SQLite gives its side files the same mode."""
    new = [folder for folder in path.parents if not folder.exists()]
    for folder in reversed(new):
        folder.mkdir(mode=0o700, exist_ok=True)
    if new:
        (new[-1] / ".gitignore").write_text("*\n", encoding="utf-8")
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _set_up(connection: sqlite3.Connection, schema: str, *, version: int, full_sync: bool) -> None:
    _switch_to_wal(connection)
    connection.execute(f"PRAGMA synchronous = {'FULL' if full_sync else 'NORMAL'}")
    found = _version(connection)
    if found == 0:
        with transaction(connection):
            for statement in _statements(schema):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version}")
    elif found != version:
        raise _OtherVersion(found)


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait its usual time here when two processes open a new file at once."""
    patience = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > patience:
                raise
        time.sleep(RETRY_S)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(schema: str) -> list[str]:
    """`executescript` would commit the transaction it stands in."""
    found, piece = [], ""
    for part in schema.split(";"):
        piece += part + ";"
        if sqlite3.complete_statement(piece) and part.strip():
            found.append(piece)
            piece = ""
    return found
