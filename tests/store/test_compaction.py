"""Small files joined into large ones: nobody notices, whatever dies."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evalkit.cli.main import main
from evalkit.errors import StoreError
from evalkit.store.compaction import changing_calls, compact, drop_replaced
from evalkit.store.retention import PurgeRule, purge
from evalkit.store.tallies import tallied
from evalkit.store.views import Store, open_store
from tests.store.journal_lines import AT, call, plain

CHECKOUT = Path(__file__).resolve().parents[2]
DAY = 86_400_000_000
EVERYTHING = "SELECT * FROM calls ORDER BY trace_id"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two days, six files each, two calls in a file."""
    (tmp_path / "evalkit.toml").write_text("", encoding="utf-8")
    opened = open_store(tmp_path / ".evalkit")
    for day in range(2):
        for n in range(6):
            add(opened, f"log-{day}-{n}", [f"t-{day}-{n}-{k}" for k in range(2)], at=AT + day * DAY)
    return opened


def add(store: Store, file_id: str, traces: list[str], *, at: int = AT) -> None:
    rows = [plain(call(trace_id=trace, ts=at, user_id=trace)) for trace in traces]
    store.add_calls(file_id, rows)


def calls_of(store: Store) -> list[Path]:
    return sorted((store.path / "calls").glob("date=*/*.parquet"))


def test_a_day_is_one_file_afterwards_with_the_same_calls(store: Store) -> None:
    before = store.sql(EVERYTHING)

    done = compact(store, keep_s=0)

    assert store.sql(EVERYTHING) == before
    assert len(calls_of(store)) == 2
    assert (done.joined, done.written, done.calls, done.removed) == (12, 2, 24, 12)
    assert compact(store, keep_s=0).as_json() == {
        "joined": 0, "written": 0, "calls": 0, "removed": 0,
    }  # fmt: skip


def test_a_query_under_way_keeps_its_files(store: Store) -> None:
    engine = store.production()
    before = engine.rows(EVERYTHING)

    compact(store)
    engine.close()  # what opens its files anew finds them

    assert engine.rows(EVERYTHING) == before
    assert store.sql(EVERYTHING) == before
    assert len(calls_of(store)) == 14


def test_what_was_joined_goes_when_its_time_is_over(store: Store) -> None:
    compact(store)
    for path in calls_of(store):
        os.utime(path, (time.time() - 90_000, time.time() - 90_000))

    assert compact(store).removed == 12
    assert len(calls_of(store)) == 2


def test_a_joined_file_may_be_joined_again_while_what_it_stands_for_is_there(
    store: Store,
) -> None:
    compact(store)
    add(store, "later", ["t-later"])
    before = store.sql(EVERYTHING)

    compact(store)

    assert store.sql(EVERYTHING) == before
    drop_replaced(store.path)
    assert store.sql(EVERYTHING) == before
    assert len(calls_of(store)) == 2


def test_a_name_that_was_joined_stays_taken(store: Store) -> None:
    compact(store, keep_s=0)

    with pytest.raises(StoreError, match="never overwritten"):
        add(store, "log-0-0", ["t-new"])


def test_a_purge_forgets_in_all_copies(store: Store) -> None:
    compact(store)

    purge(store, PurgeRule(user_ids=frozenset(["t-0-0-0"])))

    assert len(store.sql(EVERYTHING)) == 23
    assert not [path for path in calls_of(store) if b"t-0-0-0" in path.read_bytes()]
    assert len(calls_of(store)) == 2


def test_two_do_not_rewrite_at_once(store: Store) -> None:
    with changing_calls(store.path), pytest.raises(StoreError, match="rewritten"):
        compact(store)


def test_a_damaged_file_is_named_and_keeps_its_day_as_it_is(store: Store) -> None:
    damaged = calls_of(store)[0]
    data = bytearray(damaged.read_bytes())
    data[40:200] = bytes(160)
    damaged.write_bytes(data)

    done = compact(store, keep_s=0)

    assert done.joined == 6
    assert "not compacted" in store.problems[-1]
    assert damaged.read_bytes() == bytes(data)


COMPACTS = """
import sys
from evalkit.store import compaction
from evalkit.store.views import open_store
compaction.compact(open_store(sys.argv[1]), keep_s=0)
"""


@pytest.mark.slow
def test_killed_at_any_point_it_loses_and_doubles_nothing(store: Store) -> None:
    chance = random.Random(3)
    before = store.sql(EVERYTHING)

    for number in range(5):
        process = subprocess.Popen([sys.executable, "-c", COMPACTS, str(store.path)], cwd=CHECKOUT)
        files = len(calls_of(store))
        deadline = time.monotonic() + 300
        while process.poll() is None and len(calls_of(store)) == files:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(chance.random() * 0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert store.sql(EVERYTHING) == before
        add(store, f"more-{number}", [f"u-{number}"])
        before = store.sql(EVERYTHING)

    compact(store, keep_s=0)
    assert store.sql(EVERYTHING) == before
    assert len(calls_of(store)) == 2


def test_the_command_says_what_it_did(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--config", str(store.path.parent / "evalkit.toml")]

    assert main(["logs", "compact", "--json", *options]) == 0
    assert main(["logs", "compact", "--keep", "0m", *options]) == 0
    assert main(["logs", "compact", "--keep", "soon", *options]) == 2

    out = capsys.readouterr().out
    assert json.loads(out[: out.index("}") + 1])["joined"] == 12
    assert "12 files of earlier compactions removed" in out


def test_the_command_leaves_the_calls_counted(store: Store) -> None:
    options = ["--config", str(store.path.parent / "evalkit.toml")]
    with tallied(store, since=0, until=AT + 2 * DAY):
        before = counts_of(store)

    assert main(["logs", "compact", *options]) == 0

    after = counts_of(store)
    assert {path.name for path in before} < {path.name for path in after}
    assert not set(before.items()) & set(after.items())
    with tallied(store, since=0, until=AT + 2 * DAY) as engine:
        assert engine.rows("SELECT sum(calls)::BIGINT AS n FROM counts") == [{"n": 24}]
    assert counts_of(store) == after


def counts_of(store: Store) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (store.path / "tallies").glob("*.parquet")}
