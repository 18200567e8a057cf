"""Parquet files are sealed: not one bit of one changes in silence, and every reader reads them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from evalkit.cli.main import main
from evalkit.errors import DamagedStore, StoreError
from evalkit.store.compaction import compact
from evalkit.store.parquet import verify_parquet
from evalkit.store.remote import push
from evalkit.store.retention import PurgeRule, purge
from evalkit.store.views import Store, open_store
from tests.store.journal_lines import AT, call, plain

DAY = 86_400_000_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two files of calls in one day."""
    (tmp_path / "evalkit.toml").write_text("", encoding="utf-8")
    opened = open_store(tmp_path / ".evalkit")
    for name in ("one", "two"):
        opened.add_calls(name, [plain(call(trace_id=name, user_id="ann", latency_ms=12.5))])
    return opened


def file_of(store: Store, name: str) -> Path:
    (path,) = (store.path / "calls").glob(f"date=*/{name}.parquet")
    return path


def damage(path: Path, *, at: int, bit: int = 0) -> None:
    """Flip a bit; the time of change differs, as it does where a disk is restored."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)
    os.utime(path, ns=(at, bit + 1))


def damage_in_silence(path: Path) -> None:
    """A flipped bit that readers do not notice."""
    data = path.read_bytes()
    for at in range(4, len(data), 7):
        damage(path, at=at)
        with duckdb.connect() as reader:  # its own: other tests close or lock the shared one
            try:
                row = reader.sql(f"SELECT hash(one) FROM '{path}' AS one").fetchall()
            except duckdb.Error:
                row = []
        if row:
            return
        path.write_bytes(data)
    raise AssertionError("every reader notices")


def test_every_reader_reads_what_is_sealed(store: Store) -> None:
    path = file_of(store, "one")

    verify_parquet(path)

    assert len(pq.read_table(path, page_checksum_verification=True)) == 1
    assert duckdb.sql(f"SELECT trace_id, latency_ms FROM '{path}'").fetchall() == [("one", 12.5)]


def test_no_bit_flips_in_silence(store: Store) -> None:
    path = file_of(store, "one")
    whole = path.read_bytes()

    for number in range(0, 8 * len(whole), 41):
        damage(path, at=number // 8, bit=number % 8)
        with pytest.raises(DamagedStore, match=r"one\.parquet is damaged"):
            verify_parquet(path)
        path.write_bytes(whole)


@pytest.mark.parametrize("size", [0, 3, 11, 2000])
def test_a_file_that_was_cut_is_damaged(store: Store, size: int) -> None:
    path = file_of(store, "one")
    path.write_bytes(path.read_bytes()[:size])

    with pytest.raises(DamagedStore, match="is damaged"):
        verify_parquet(path)


def test_pages_of_an_older_file_are_held_to_their_own_checksums(store: Store) -> None:
    path = file_of(store, "one")
    table = pq.read_table(path)
    pq.write_table(table, path, compression="none", write_page_checksum=True)
    verify_parquet(path)
    at = path.read_bytes().index(b"classify-ticket")

    damage(path, at=at)

    with pytest.raises(DamagedStore, match=r"one\.parquet is damaged"):
        verify_parquet(path)


READERS: dict[str, Callable[[Store], object]] = {
    "a sampling job": lambda store: store.verify_production(since=AT, until=AT + DAY),
    "a push": lambda store: push(store, store.path.parent.joinpath("far").as_uri()),
}


@pytest.mark.parametrize("reader", READERS)
def test_damage_that_queries_do_not_see_stops(store: Store, reader: str) -> None:
    damage_in_silence(file_of(store, "one"))

    with pytest.raises(DamagedStore, match=r"one\.parquet is damaged") as stopped:
        READERS[reader](store)

    assert "two.parquet" not in str(stopped.value)


def test_damage_on_other_days_stops_no_sampling_job(store: Store) -> None:
    damage_in_silence(file_of(store, "one"))

    store.verify_production(since=AT + 10 * DAY, until=AT + 11 * DAY)


def test_what_is_damaged_is_not_made_whole_by_a_compaction_or_a_purge(store: Store) -> None:
    path = file_of(store, "one")
    damage_in_silence(path)
    damaged = path.read_bytes()

    compact(store, keep_s=0)
    done = purge(store, PurgeRule(user_ids=frozenset({"ann"})))

    assert path.read_bytes() == damaged
    assert done.calls_removed == 1
    assert any("not compacted" in problem for problem in store.problems)
    assert any("It was not purged." in problem for problem in store.problems)


def test_a_purge_that_could_not_read_a_file_says_so(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    damage_in_silence(file_of(store, "one"))
    config = store.path.parent / "evalkit.toml"

    status = main(["purge", "--user", "ann", "--config", str(config)])

    assert status == 3
    assert "one.parquet is damaged" in "".join(capsys.readouterr().err.split("\n"))


def test_doctor_reads_every_file_when_asked(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(store.path.parent / "evalkit.toml")
    store.add_labels("people", [{"label_id": "l", "labelled_at": AT}])
    store.add_feedback("one", label="up")

    whole = main(["doctor", "--config", config, "--files"])
    said_whole = capsys.readouterr().out
    damage_in_silence(file_of(store, "two"))
    damaged = main(["doctor", "--config", config, "--files"])
    said_damaged = capsys.readouterr().out

    assert (whole, damaged) == (0, 3)
    assert "each is what was written" in said_whole
    assert "two.parquet is damaged" in said_damaged


def test_a_flipped_bit_of_feedback_is_named_and_left_out(store: Store) -> None:
    for label in ("up", "down"):
        store.add_feedback("one", label=label)
    (path,) = (store.path / "feedback").glob("*.jsonl")
    damage(path, at=path.read_bytes().index(b'"up"') + 1)

    rows = store.sql("SELECT label FROM feedback")

    assert rows == [{"label": "down"}]
    assert [problem.partition(": ")[2] for problem in store.problems] == [
        "damaged line. It is left out."
    ]


def test_feedback_from_before_lines_had_a_checksum_is_read(store: Store) -> None:
    folder = store.path / "feedback"
    folder.mkdir()
    (folder / "date=2026-01-01.jsonl").write_bytes(
        b'{"feedback_id":"f","trace_id":"one","label":"up"}\n'
    )

    assert store.sql("SELECT trace_id, label FROM feedback") == [{"trace_id": "one", "label": "up"}]
    assert store.problems == []


def test_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file"):
        verify_parquet(tmp_path / "gone.parquet")
