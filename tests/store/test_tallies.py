"""Counts by the hour: what the calls themselves say, however often and late they are counted."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from benchmarks.traffic import START_US, write_calls
from evalkit.store.call_log import CallLog
from evalkit.store.remote import attach, push
from evalkit.store.retention import PurgeRule, purge
from evalkit.store.tallies import FOLDER, TALLIES, count_all, tallied
from evalkit.store.views import Store, open_store
from tests.store.journal_lines import AT, call, plain

DAY = 86_400_000_000


def counted(store: Store, *, since: int = 0, until: int = AT + 400 * DAY) -> dict[str, Any]:
    with tallied(store, since=since, until=until) as engine:
        found = engine.rows(
            "SELECT sum(calls)::BIGINT AS calls, sum(cost_usd)::VARCHAR AS cost_usd,"
            " sum(prompt_tokens)::BIGINT AS prompt_tokens, sum(retried)::BIGINT AS retried,"
            " sum(calls) FILTER (cache_hit)::BIGINT AS hits FROM counts"
        )[0]
        timed = engine.rows("SELECT sum(n)::BIGINT AS n FROM times WHERE what = 'latency_ms'")[0]
    return {**found, "timed": timed["n"]}


def written(store: Store) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in sorted((store.path / FOLDER).glob("*.parquet"))}


def test_counts_are_what_the_calls_say(tmp_path: Path) -> None:
    write_calls(tmp_path, rows=3_000, days=2, seed=3)
    store = open_store(tmp_path)

    found = [counted(store, until=START_US + 2 * DAY) for _ in range(2)]

    said = store.sql(
        "SELECT count(*) AS calls, sum(cost_usd::DECIMAL(38, 12))::VARCHAR AS cost_usd,"
        " sum(prompt_tokens)::BIGINT AS prompt_tokens, count(*) FILTER (retries > 0) AS retried,"
        " count(*) FILTER (cache_hit) AS hits, count(latency_ms) AS timed FROM calls"
    )[0]
    assert found == [said, said]


def test_what_was_counted_is_not_counted_again(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.add_calls("one", [plain(call(trace_id="t-1", ts=AT))])
    counted(store)
    before = written(store)

    counted(store)

    assert len(before) == 2
    assert written(store) == before


def test_files_that_come_later_are_added(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for name in ("one", "two", "three"):
        store.add_calls(name, [plain(call(trace_id=name, ts=AT, cost_usd=0.1))])
        found = counted(store)

    assert (found["calls"], Decimal(found["cost_usd"])) == (3, Decimal("0.3"))


def test_calls_that_are_still_open_are_counted_too(tmp_path: Path) -> None:
    with CallLog(tmp_path) as log:
        log(call(trace_id="t-1", ts=AT))
        log.flush()
        while_open = counted(open_store(tmp_path))

    assert while_open["calls"] == counted(open_store(tmp_path))["calls"] == 1


def test_what_a_purge_took_away_is_counted_no_more(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    rows = [plain(call(trace_id=name, ts=AT, user_id=name)) for name in ("ann", "ben")]
    store.add_calls("log", rows)
    counted(store)

    purge(store, PurgeRule(user_ids=frozenset({"ann"})))

    assert counted(store)["calls"] == 1


@pytest.mark.parametrize("harm", ["damaged", "deleted", "locked folder"])
def test_counts_that_are_lost_are_made_again(tmp_path: Path, harm: str) -> None:
    store = open_store(tmp_path)
    store.add_calls("log", [plain(call(trace_id="t-1", ts=AT))])
    expected = counted(store)

    for path in written(store):
        path.unlink()
        if harm == "damaged":
            path.write_bytes(b"PAR1 no more")
    if harm == "locked folder":
        folder = store.path / FOLDER
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        folder.write_text("a file where a folder should be")

    assert counted(store) == expected


def test_a_damaged_log_is_named_and_the_others_are_counted(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for name in ("good", "bad"):
        [path] = store.add_calls(name, [plain(call(trace_id=name, ts=AT))])
    path.write_bytes(b"PAR1 no more")

    found = counted(store)

    assert found["calls"] == 1
    assert "bad.parquet is damaged" in store.problems[0]


def test_a_file_that_is_not_what_was_written_is_named_and_not_counted(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for name in ("good", "bad"):
        [path] = store.add_calls(name, [plain(call(trace_id=name, ts=AT))])
    data = bytearray(path.read_bytes())
    data[60] ^= 1  # its footer is as it was
    path.write_bytes(data)

    found = counted(store)

    assert found["calls"] == 1
    assert "bad.parquet is damaged" in store.problems[0]


def test_all_can_be_counted_before_anybody_looks(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for day in range(2):
        store.add_calls(f"log-{day}", [plain(call(trace_id=f"t-{day}", ts=AT + day * DAY))])

    count_all(store)

    before = written(store)
    assert len(before) == 2 * len(TALLIES)
    assert counted(store)["calls"] == 2
    assert written(store) == before


def test_a_window_reads_its_own_days(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for day in range(3):
        store.add_calls(f"log-{day}", [plain(call(trace_id=f"t-{day}", ts=AT + day * DAY))])

    assert counted(store, since=AT + DAY, until=AT + DAY)["calls"] == 1
    assert len(written(store)) == 2


def test_calls_elsewhere_are_counted_once_and_not_again_when_they_moved(tmp_path: Path) -> None:
    store, far = open_store(tmp_path / "here"), tmp_path / "far"
    for name in ("one", "two"):
        store.add_calls(name, [plain(call(trace_id=name, ts=AT))])
    far.mkdir()
    counted(store)
    before = written(store)

    for _ in range(2):  # the second finds them there, and lets go of them here
        push(store, far.as_uri(), move=True, keep_s=0)
    assert not store.production_files()
    moved = counted(store)
    after = written(store)
    other = open_store(tmp_path / "other")
    other.path.mkdir()
    attach(other.path, far.as_uri())

    assert moved["calls"] == counted(other)["calls"] == counted(other)["calls"] == 2
    assert after == before
