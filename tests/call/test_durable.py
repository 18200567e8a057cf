"""Opening the SQLite files: who may read them, what several processes see, what is refused."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
from pathlib import Path

import pytest

from evalkit.call.durable import explained, open_sqlite, transaction
from evalkit.errors import ConfigError

SCHEMA = """
CREATE TABLE IF NOT EXISTS numbers (number INTEGER PRIMARY KEY, note TEXT DEFAULT ';');
CREATE INDEX IF NOT EXISTS notes ON numbers (note);
"""


def count_up(path: Path, times: int) -> None:
    connection = open_sqlite(path, SCHEMA, version=1)
    for _ in range(times):
        with transaction(connection):
            (last,) = connection.execute("SELECT coalesce(max(number), 0) FROM numbers").fetchone()
            connection.execute("INSERT INTO numbers (number) VALUES (?)", (last + 1,))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_file_and_new_folders_are_for_this_user_only_and_ignored_by_git(tmp_path: Path) -> None:
    path = tmp_path / "store" / "cache" / "responses.sqlite"

    count_up(path, 1)

    assert {mode_of(file) for file in path.parent.iterdir()} == {0o600}
    assert mode_of(path.parent) == mode_of(tmp_path / "store") == 0o700
    assert (tmp_path / "store" / ".gitignore").read_text() == "*\n"


def test_processes_that_open_and_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "numbers.sqlite"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=count_up, args=(path, 25)) for _ in range(3)]

    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    counted = open_sqlite(path, SCHEMA, version=1).execute("SELECT count(*) FROM numbers")
    assert counted.fetchone() == (75,)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]


def test_a_transaction_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    connection = open_sqlite(tmp_path / "numbers.sqlite", SCHEMA, version=1)

    with pytest.raises(sqlite3.IntegrityError), transaction(connection):
        connection.executemany("INSERT INTO numbers (number) VALUES (?)", [(1,), (1,)])

    assert connection.execute("SELECT count(*) FROM numbers").fetchone() == (0,)
    assert not connection.in_transaction


@pytest.mark.parametrize(("full_sync", "level"), [(False, 1), (True, 2)])
def test_readers_never_wait_and_syncing_is_as_asked(
    tmp_path: Path, full_sync: bool, level: int
) -> None:
    connection = open_sqlite(tmp_path / "n.sqlite", SCHEMA, version=1, full_sync=full_sync)

    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (level,)


def test_a_file_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "numbers.sqlite"
    open_sqlite(path, SCHEMA, version=2).close()
    before = path.read_bytes()

    with pytest.raises(ConfigError, match="is of version 2, this evalkit reads version 1"):
        open_sqlite(path, SCHEMA, version=1)

    assert path.read_bytes() == before


def test_what_is_no_sqlite_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "numbers.sqlite"
    path.write_bytes(b"not a database " * 100)

    with pytest.raises(ConfigError, match=r"numbers\.sqlite: cannot be used: file is not") as no:
        open_sqlite(path, SCHEMA, version=1)

    assert no.value.exit_code == 3  # a damaged store


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(ConfigError, match=r"numbers\.sqlite: cannot be opened"):
        open_sqlite(tmp_path / "file" / "numbers.sqlite", SCHEMA, version=1)


def test_a_full_disk_is_unmeasurable_and_a_mistake_of_ours_is_not_explained(
    tmp_path: Path,
) -> None:
    connection = open_sqlite(tmp_path / "numbers.sqlite", SCHEMA, version=1)
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(sqlite3.OperationalError) as full:
        connection.execute("INSERT INTO numbers (note) VALUES (?)", ("x" * 100_000,))
    with pytest.raises(sqlite3.OperationalError) as mistaken:
        connection.execute("SELECT letter FROM numbers")

    told = explained(full.value)
    assert told is not None
    assert told.exit_code == 3
    assert "full. Free some space" in str(told)
    assert explained(mistaken.value) is None
