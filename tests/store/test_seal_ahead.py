"""A long run's files are made beside it, are the same files, and never its only hope."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import DamagedStore
from evalkit.store import runs, sealing
from evalkit.store.runs import RunWriter, encode_line, split_journal
from evalkit.store.seal_ahead import SealAhead, follow
from evalkit.store.views import Store, open_store
from tests.store.journal_lines import line, manifest

CHECKOUT = Path(__file__).resolve().parents[2]
FROM_LINES = 3
N_CASES = 40


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(runs, "SEAL_AHEAD_FROM", FROM_LINES)
    return open_store(tmp_path / "store")


@pytest.fixture
def no_sealing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any, **named: Any) -> None:
        raise AssertionError("sealed in this process")

    monkeypatch.setattr(sealing, "seal_journal", refused)


def write(store: Store, n_cases: int = N_CASES, **of_manifest: Any) -> RunWriter:
    writer = store.create_run({**manifest(), **of_manifest})
    for number in range(n_cases):
        writer.append(line(number))
    return writer


def ahead_of(writer: RunWriter) -> SealAhead:
    ahead = writer._ahead
    assert ahead is not None
    return ahead


def process_of(writer: RunWriter) -> subprocess.Popen[bytes]:
    return ahead_of(writer)._process


def case_ids(store: Store) -> list[str]:
    return [row["case_id"] for row in store.sql("SELECT case_id FROM scores ORDER BY ALL")]


def files_of(store: Store) -> dict[str, bytes]:
    return {
        str(path.relative_to(store.path)): path.read_bytes()
        for path in store.path.rglob("*.parquet")
    }


def half_written(store: Store) -> list[Path]:
    return sorted(store.path.rglob("*.tmp"))


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked after does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def wait_until(happens: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.usefixtures("no_sealing_here")
def test_a_long_run_is_sealed_by_another_process(store: Store) -> None:
    with write(store) as writer:
        writer.seal("complete", counts={"scored": N_CASES})

    assert store.manifest("run-1")["status"] == "complete"
    assert len(case_ids(store)) == N_CASES
    assert half_written(store) == []


def test_a_short_run_needs_no_other_process(store: Store) -> None:
    with write(store, FROM_LINES - 1) as writer:
        assert writer._ahead is None
        writer.seal("complete")

    assert len(case_ids(store)) == FROM_LINES - 1


def test_the_files_are_those_that_the_run_itself_would_have_made(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with write(store) as writer:
        writer.seal("complete")
    monkeypatch.setattr(runs, "SEAL_AHEAD_FROM", 10**9)
    other = open_store(tmp_path / "other")
    with write(other) as writer:
        writer.seal("complete")

    assert files_of(store) == files_of(other) != {}
    assert store.manifest("run-1")["files"] == other.manifest("run-1")["files"]


def test_nothing_is_to_be_seen_before_the_run_has_said_that_it_is_over(store: Store) -> None:
    with write(store) as writer:
        wait_until(lambda: half_written(store))

        assert files_of(store) == {}
        writer.seal("complete")

    assert len(files_of(store)) == 2


@pytest.mark.parametrize("signalled", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_dies_leaves_the_run_to_seal_itself(
    store: Store, signalled: signal.Signals
) -> None:
    with write(store) as writer:
        process_of(writer).send_signal(signalled)
        process_of(writer).wait()
        writer.seal("complete")

    assert len(case_ids(store)) == N_CASES
    assert half_written(store) == []


@pytest.mark.parametrize("executable", ["/no/such/python", "/bin/true", "", None])
def test_a_process_that_cannot_be_started_is_done_without(
    store: Store, monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with write(store) as writer:
        writer.seal("complete")

    assert len(case_ids(store)) == N_CASES


def test_a_run_that_stops_takes_its_process_along_and_can_be_finished(store: Store) -> None:
    with write(store) as writer:
        process = process_of(writer)
        wait_until(lambda: half_written(store))

    assert process.poll() is not None
    assert half_written(store) == []
    assert files_of(store) == {}
    with store.open_run("run-1") as again:
        for number in range(N_CASES, N_CASES + FROM_LINES):
            again.append(line(number))
        again.seal("complete")
    assert len(case_ids(store)) == N_CASES + FROM_LINES


def test_ctrl_c_is_not_for_the_process(store: Store) -> None:
    with write(store) as writer:
        assert os.getpgid(process_of(writer).pid) != os.getpgid(0)
        writer.seal("complete")


def test_a_job_s_calls_stay_in_the_order_of_their_keys(store: Store) -> None:
    with write(store, kind="sample") as writer:
        assert writer._ahead is None


def test_a_damaged_line_is_named_as_ever(store: Store) -> None:
    with write(store, FROM_LINES - 1) as writer:
        journal = store.path / "runs" / "run-1" / "journal.jsonl"
        data = bytearray(journal.read_bytes())
        data[data.index(b"\n") - 20] ^= 1
        journal.write_bytes(data)
        writer.append(line(FROM_LINES))
        process_of(writer)
        with pytest.raises(DamagedStore, match=r"journal\.jsonl:1: damaged line"):
            writer.seal("complete")

    assert store.manifest("run-1")["status"] == "incomplete"


KILLED = """
import sys, time
from evalkit.store import runs
from evalkit.store.views import open_store
from tests.store.journal_lines import line, manifest

runs.SEAL_AHEAD_FROM = 3
writer = open_store(sys.argv[1]).create_run(manifest())
for number in range(10):
    writer.append(line(number))
print(writer._ahead._process.pid, flush=True)
time.sleep(600)
"""


def test_a_killed_run_can_be_finished_at_once_and_leaves_no_process(store: Store) -> None:
    command = [sys.executable, "-c", KILLED, str(store.path)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        wait_until(lambda: half_written(store))
        run.kill()

    with store.open_run("run-1") as again:
        again.seal("complete")
    assert len(case_ids(store)) == 10
    assert half_written(store) == []
    wait_until(lambda: not is_alive(pid))


@given(
    cuts=st.lists(st.integers(0, 100_000), max_size=8),
    n_lines=st.integers(0, 6),
)
def test_a_journal_that_grows_by_any_pieces_is_read_whole(cuts: list[int], n_lines: int) -> None:
    data = b"".join(encode_line(line(number)) for number in range(n_lines))
    places = sorted({0, *(cut % (len(data) + 1) for cut in cuts), len(data)})
    with tempfile.TemporaryDirectory() as scratch:
        journal = Path(scratch) / "journal.jsonl"
        journal.touch()
        said, say = os.pipe()

        def grow() -> None:
            with journal.open("ab", buffering=0) as file:
                for start, end in itertools.pairwise(places):
                    file.write(data[start:end])
            os.write(say, b"%d\n" % len(data))

        growing = threading.Thread(target=grow)
        growing.start()
        found = list(follow(journal, said))
        growing.join()
        os.close(said)
        os.close(say)

        assert found == list(split_journal(journal))
        assert len(found) == n_lines


def test_a_journal_of_another_size_than_told_is_refused(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(encode_line(line(1)))
    said, say = os.pipe()
    os.write(say, b"%d\n" % (journal.stat().st_size + 1))

    with pytest.raises(ValueError, match="were to be there"):
        list(follow(journal, said))
