"""What a killed writer leaves half-written goes; what a living one is writing stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from evalkit.store.call_log import CallLog
from evalkit.store.compaction import compact
from evalkit.store.files import make_whole_folder, sweep, write_whole
from evalkit.store.retention import PurgeRule, purge
from evalkit.store.views import Store, open_store
from tests.store.journal_lines import AT, call, manifest, plain

CHECKOUT = Path(__file__).resolve().parents[2]
KILLED = """
import os, signal, sys
from evalkit.store.views import open_store
from tests.store.journal_lines import call, plain

def rows():
    yield plain(call(trace_id="half", output="said by ann"))
    os.kill(os.getpid(), signal.SIGKILL)

open_store(sys.argv[1]).add_calls(sys.argv[2], rows())
"""


def half_written(store: Path) -> list[Path]:
    return sorted(path for path in store.rglob("*") if path.suffix == ".tmp")


def kill_a_writer(store: Path, file_id: str = "log") -> None:
    command = [sys.executable, "-c", KILLED, str(store), file_id]
    ended = subprocess.run(command, cwd=CHECKOUT, timeout=300)
    assert ended.returncode == -signal.SIGKILL


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One sealed file of calls, and what a writer left that was killed at another."""
    opened = open_store(tmp_path / ".evalkit")
    opened.add_calls("sealed", [plain(call(trace_id="whole"))])
    kill_a_writer(opened.path)
    assert len(half_written(opened.path)) == 1
    return opened


def log_calls(store: Store) -> None:
    CallLog(store.path).close()


SWEEPERS: dict[str, Callable[[Store], object]] = {
    "a purge": lambda store: purge(store, PurgeRule(user_ids=frozenset({"nobody"}))),
    "a compaction": compact,
    "a call log": log_calls,
    "a new run": lambda store: store.create_run(manifest()).close(),
    "the same writer": lambda store: store.add_calls("log", [plain(call(trace_id="again"))]),
}


@pytest.mark.parametrize("sweeper", SWEEPERS)
def test_what_a_killed_writer_left_is_swept_away_by(store: Store, sweeper: str) -> None:
    SWEEPERS[sweeper](store)

    assert half_written(store.path) == []
    assert "whole" in {row["trace_id"] for row in store.sql("SELECT trace_id FROM calls")}


def test_what_an_earlier_evalkit_left_goes_as_well(store: Store) -> None:
    (store.path / "calls" / f"date={AT}").mkdir()
    (store.path / "calls" / f"date={AT}" / ".log.parquet.tmp").write_bytes(b"half")

    compact(store)

    assert half_written(store.path) == []


def test_a_segment_that_never_got_its_name_goes(store: Store) -> None:
    (store.path / "calls" / "open").mkdir()
    (store.path / "calls" / "open" / "01a1.new").write_bytes(b"")

    log_calls(store)

    assert half_written(store.path) == []


def test_the_file_of_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"

    with write_whole(path) as file:
        file.write(b"whole")
        sweep(tmp_path)

    assert path.read_bytes() == b"whole"


def test_somebody_who_sweeps_all_the_time_takes_nothing_from_anybody(tmp_path: Path) -> None:
    with always(lambda: sweep(tmp_path)):
        for number in range(300):
            with write_whole(tmp_path / f"{number}") as file:
                file.write(b"whole")

    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"whole"}
    assert len(list(tmp_path.iterdir())) == 300


@contextmanager
def always(do: Callable[[], None]) -> Iterator[None]:
    """Do something again and again, beside the block."""
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            do()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_what_cannot_be_removed_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / ".file.1234.tmp").mkdir()

    with write_whole(tmp_path / "file") as file:
        file.write(b"whole")

    assert (tmp_path / "file").read_bytes() == b"whole"


def test_a_store_that_was_never_finished_goes_when_one_is_made(tmp_path: Path) -> None:
    for name, age_s in (("old", 3600), ("young", 0)):
        left = tmp_path / f"..evalkit.{name}.tmp"
        left.mkdir()
        (left / ".gitignore").write_bytes(b"*\n")
        time = left.stat().st_mtime - age_s
        os.utime(left, (time, time))

    make_whole_folder(tmp_path / ".evalkit", {".gitignore": b"*\n"})

    assert sorted(path.name for path in tmp_path.iterdir()) == ["..evalkit.young.tmp", ".evalkit"]
