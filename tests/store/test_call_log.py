"""The call log: every record there once, whatever dies, and no call that waits for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from evalkit.records import CallRecord
from evalkit.store.call_log import CallLog, seal_left_segments, segments_folder
from evalkit.store.files import sweep
from evalkit.store.views import open_store
from tests.store.journal_lines import call, plain

CHECKOUT = Path(__file__).resolve().parents[2]
HOUR = 3600


def traces(store: Path) -> list[str]:
    return [
        row["trace_id"] for row in open_store(store).sql("SELECT trace_id FROM calls ORDER BY 1")
    ]


def test_what_was_logged_is_sealed_when_the_log_is_closed(tmp_path: Path) -> None:
    with CallLog(tmp_path) as log:
        for number in range(100):
            log(call(trace_id=f"t-{number:03d}"))

    assert traces(tmp_path) == [f"t-{n:03d}" for n in range(100)]
    assert not list(segments_folder(tmp_path).glob("*"))
    assert len(list((tmp_path / "calls").glob("date=*/*.parquet"))) == 1


def test_records_can_be_read_before_they_are_sealed(tmp_path: Path) -> None:
    with CallLog(tmp_path) as log:
        log(call(trace_id="t-1"))
        assert log.flush()

        assert traces(tmp_path) == ["t-1"]


def test_each_hour_is_a_file_of_its_own(tmp_path: Path) -> None:
    clock = [0.0]
    with CallLog(tmp_path, flush_s=0.01, now=lambda: clock[0]) as log:
        log(call(trace_id="t-1"))
        log.flush()
        clock[0] += 2 * HOUR
        wait_until(lambda: not list(segments_folder(tmp_path).glob("*.jsonl")))
        log(call(trace_id="t-2"))

    assert traces(tmp_path) == ["t-1", "t-2"]
    assert len(list((tmp_path / "calls").glob("date=*/*.parquet"))) == 2


def test_a_step_of_the_clock_keeps_no_segment_open() -> None:
    assert signature(CallLog).parameters["now"].default is time.monotonic


def wait_until(holds: Callable[[], bool]) -> None:
    """Bounded by a minute."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


LOGS_FOR_EVER = """
import sys, time
from evalkit.store.call_log import CallLog
from tests.store.journal_lines import call
log = CallLog(sys.argv[1], flush_s=0.05)
for number in range(10**6):
    log(call(trace_id=f"{sys.argv[2]}-{number:06d}"))
    if number == 500:
        log.flush()
        print("flushed", flush=True)
    time.sleep(0.0005)
"""


def leave_a_segment(store: Path) -> None:
    """Have a process log, and kill it once 501 records are in its segment."""
    command = [sys.executable, "-c", LOGS_FOR_EVER, str(store), "a"]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)


def test_what_a_killed_process_had_written_is_sealed_by_the_next(tmp_path: Path) -> None:
    leave_a_segment(tmp_path)

    before = traces(tmp_path)
    assert seal_left_segments(tmp_path) == 1

    assert len(before) >= 501
    assert traces(tmp_path) == before
    assert not list(segments_folder(tmp_path).glob("*.jsonl"))


def test_a_living_process_keeps_its_segment(tmp_path: Path) -> None:
    with CallLog(tmp_path) as log:
        log(call(trace_id="t-1"))
        log.flush()

        done = subprocess.run(
            [sys.executable, "-c", SEALS, str(tmp_path)],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
        )

    assert done.stdout.strip() == "0", done.stderr


SEALS = """
import sys
from pathlib import Path
from evalkit.store.call_log import seal_left_segments
print(seal_left_segments(Path(sys.argv[1])))
"""


def test_a_seal_that_was_killed_is_done_again(tmp_path: Path) -> None:
    leave_a_segment(tmp_path)
    (segment,) = segments_folder(tmp_path).glob("*.jsonl")
    kept = segment.read_bytes()
    before = traces(tmp_path)
    seal_left_segments(tmp_path)
    segment.write_bytes(kept)  # as if the process had died before it removed the segment

    assert traces(tmp_path) == before
    assert seal_left_segments(tmp_path) == 1
    assert traces(tmp_path) == before


LOGS_AND_ENDS = """
import sys, time
from evalkit.store.call_log import CallLog
from tests.store.journal_lines import call
log = CallLog(sys.argv[1], flush_s=0.05, roll_bytes=100_000)
for number in range(int(sys.argv[3])):
    log(call(trace_id=f"{sys.argv[2]}-{number:06d}"))
    time.sleep(0.0005)
"""


@pytest.mark.slow
def test_every_record_of_sixteen_processes_is_there_once(tmp_path: Path) -> None:
    # They roll ten files each, and none of them says goodbye.
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOGS_AND_ENDS, str(tmp_path), f"p{n:02d}", "700"], cwd=CHECKOUT
        )
        for n in range(16)
    ]

    # Readers while they write see no record twice.
    while any(process.poll() is None for process in processes):
        found = traces(tmp_path)
        assert len(found) == len(set(found))

    assert [process.returncode for process in processes] == [0] * 16
    assert traces(tmp_path) == [f"p{p:02d}-{n:06d}" for p in range(16) for n in range(700)]
    assert not list(segments_folder(tmp_path).glob("*.jsonl"))


SAYS_WHAT_IT_LOGGED = """
import sys, time
from evalkit.store.call_log import CallLog
from tests.store.journal_lines import call
log = CallLog(sys.argv[1], roll_bytes=200_000)
for number in range(10**6):
    log(call(trace_id=f"t-{number:06d}"))
    print(number, flush=True)
    time.sleep(0.001)
"""


def test_kill_minus_nine_loses_less_than_a_second_of_records(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAYS_WHAT_IT_LOGGED, str(tmp_path)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        logged = [int(process.stdout.readline()) for _ in range(1500)]
        process.send_signal(signal.SIGKILL)
        logged += map(int, process.stdout.read().split("\n")[:-1])
    seal_left_segments(tmp_path)

    found = traces(tmp_path)

    assert found == [f"t-{n:06d}" for n in range(len(found))]
    # At least a millisecond lies between two, more where the machine is slow.
    assert len(logged) - len(found) < 1000


FILLS_ITS_DISK = """
import logging, resource, sys, time
from evalkit.store.call_log import CallLog
from tests.store.journal_lines import call
logging.basicConfig()
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
log = CallLog(sys.argv[1], flush_s=0.01)
slowest = slowest_sleep = 0.0
for number in range(300):
    started = time.perf_counter()
    log(call(trace_id=f"t-{number:03d}"))
    ended = time.perf_counter()
    time.sleep(0.0005)
    slowest = max(slowest, ended - started)
    slowest_sleep = max(slowest_sleep, time.perf_counter() - ended)
while not log.failures:
    time.sleep(0.01)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(log.flush(), log.failures > 0, log.lost, slowest < 0.25 + 2 * slowest_sleep)
"""


def test_a_full_disk_fails_no_call_and_loses_nothing_once_there_is_room(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILLS_ITS_DISK, str(tmp_path)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )

    assert done.stdout.split() == ["True", "True", "0", "True"], done.stderr
    assert traces(tmp_path) == [f"t-{n:03d}" for n in range(300)]
    assert "not written" in done.stderr
    assert "records held" in done.stderr


def test_a_record_that_json_cannot_hold_is_counted_and_the_others_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with CallLog(tmp_path) as log:
        log(call(trace_id="t-1"))
        log(call(trace_id="t-2", confidence=float("nan")))
        log(call(trace_id="t-3"))

    assert traces(tmp_path) == ["t-1", "t-3"]
    assert log.lost == 1
    assert "t-2 cannot be logged" in caplog.text


def test_a_record_that_comes_after_the_log_was_closed_is_counted_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with CallLog(tmp_path) as log:
        log(call(trace_id="t-1"))
    log(call(trace_id="t-2"))
    log(call(trace_id="t-3"))

    assert (traces(tmp_path), log.lost) == (["t-1"], 2)
    assert caplog.text.count("after the call log was closed") == 1


@dataclass
class Customer:
    since: date


class Unreadable:
    def __str__(self) -> str:
        raise ValueError("no text")


def holds_itself() -> dict[str, Any]:
    input: dict[str, Any] = {"text": "hi"}
    input["again"] = [input, input]
    return input


def deep() -> dict[str, Any]:
    input: dict[str, Any] = {}
    for _ in range(3000):
        input = {"a": input}
    return input


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(1), '"1 day, 0:00:00"'), (deque([1]), '"deque([1])"'),
        (Fraction(1, 3), '"1/3"'), (ValueError("x"), '"x"'), (bytearray(b"x"), '"x"'),
        ({(1, 2): 3}, '{"(1, 2)":3}'), ({Decimal(1): 2}, '{"1":2}'), (1j, '"1j"'),
        ({("ann@example.org", 1): Decimal(3)}, None), (Customer(date(2026, 1, 2)), '"2026-01-02"'),
        (10**5000, "[TOO LONG]"), (10**30, str(10**30)), (holds_itself(), "[TOO DEEP]"),
        (deep(), "[TOO DEEP]"), (Unreadable(), None), ({"a": float("nan"), "b": {1}}, "null"),
    ],
    ids=lambda one: type(one).__name__,
)  # fmt: skip
def test_no_input_costs_a_call_its_record(tmp_path: Path, value: Any, text: str | None) -> None:
    with CallLog(tmp_path) as log:
        log(call(trace_id="t-1", input={"it": value}))

    assert log.lost == 0
    [row] = open_store(tmp_path).sql("SELECT trace_id, input FROM calls")
    assert row["trace_id"] == "t-1"
    assert text is None or text in row["input"]
    assert "ann@example.org" not in str(row["input"])


def test_what_an_application_hands_in_is_written_as_text_where_json_has_no_word(
    tmp_path: Path,
) -> None:
    given = {
        "when": datetime(2026, 1, 2, 3, 4, tzinfo=UTC), "day": date(2026, 1, 2),
        "sum": Decimal("1.10"), "file": Path("a/b"), "raw": b"\xff!", "kinds": {"b", "a"},
    }  # fmt: skip
    with CallLog(tmp_path) as log:
        log(call(input=given))

    assert log.lost == 0
    [row] = open_store(tmp_path).sql("SELECT input FROM calls")
    assert json.loads(row["input"]) == {
        "when": "2026-01-02 03:04:00+00:00", "day": "2026-01-02", "sum": "1.10", "file": "a/b",
        "raw": "\ufffd!", "kinds": ["a", "b"],
    }  # fmt: skip


def test_a_segment_that_a_dead_disk_spoilt_keeps_its_whole_lines(tmp_path: Path) -> None:
    leave_a_segment(tmp_path)
    (segment,) = segments_folder(tmp_path).glob("*.jsonl")
    whole = traces(tmp_path)
    with segment.open("ab") as file:
        file.write(b"\0" * 512 + b'\n{"trace_id":"half')

    assert traces(tmp_path) == whole
    assert seal_left_segments(tmp_path) == 1
    assert traces(tmp_path) == whole


def test_a_disk_that_refuses_is_tried_again_and_nothing_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "calls"
    blocked.write_text("a file where the folder should be")
    with CallLog(tmp_path, flush_s=0.01) as log:
        log(call(trace_id="t-1"))
        wait_until(lambda: log.failures > 0)
        blocked.unlink()
        assert log.flush()

    assert traces(tmp_path) == ["t-1"]
    assert log.lost == 0
    assert "not written" in caplog.text


def test_what_a_disk_refuses_waits_in_the_spool_and_comes_home(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, spool = tmp_path / "store", tmp_path / "spool"
    store.mkdir()
    blocked = store / "calls"
    blocked.write_text("a file where the folder should be")
    clock = [0.0]
    with CallLog(store, spool=spool, flush_s=0.01, now=lambda: clock[0]) as log:
        log(call(trace_id="t-1"))
        assert log.flush()
        blocked.unlink()
        clock[0] += 61
        wait_until(lambda: not list(segments_folder(spool).glob("*.jsonl")))
        log(call(trace_id="t-2"))

    assert traces(store) == ["t-1", "t-2"]
    assert log.lost == 0
    assert "not written" in caplog.text


def test_the_spool_of_a_process_that_died_is_brought_home_by_the_next(tmp_path: Path) -> None:
    store, spool = tmp_path / "store", tmp_path / "spool"
    leave_a_segment(spool)
    killed = len(list(open_store(spool).sql("SELECT trace_id FROM calls")))

    with CallLog(store, spool=spool) as log:
        log(call(trace_id="z"))

    assert traces(store)[-1] == "z"
    assert len(traces(store)) == killed + 1
    assert not list(segments_folder(spool).glob("*.jsonl"))


def test_what_finds_no_room_is_counted_and_nobody_waits(tmp_path: Path) -> None:
    (tmp_path / "calls").write_text("a file where the folder should be")
    log = CallLog(tmp_path, flush_s=0.01, max_held=10)

    for number in range(15):
        log(call(trace_id=f"t-{number}"))

    assert log.lost >= 5
    log.close()


def test_a_forked_process_has_a_segment_of_its_own(tmp_path: Path) -> None:
    code = """
import os, sys
from evalkit.store.call_log import CallLog
from tests.store.journal_lines import call
log = CallLog(sys.argv[1])
log(call(trace_id="parent-1")); log.flush()
child = os.fork()
log(call(trace_id="child" if child == 0 else "parent-2"))
log.close()
if child: os.waitpid(child, 0)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)], cwd=CHECKOUT, check=True
    )

    assert done.returncode == 0
    assert traces(tmp_path) == ["child", "parent-1", "parent-2"]


def test_taking_a_record_is_cheap() -> None:
    record: CallRecord = call(trace_id="t-1")
    log = CallLog(os.devnull + "-nowhere", flush_s=60)

    started = time.process_time()
    for _ in range(10_000):
        log(record)

    assert (time.process_time() - started) / 10_000 < 100e-6
    log._held.clear()
    log.close()


def test_a_window_reads_the_files_of_its_days_alone(tmp_path: Path) -> None:
    store, day = open_store(tmp_path), 86_400_000_000
    for number in range(3):
        store.add_calls(f"log-{number}", [plain(call(trace_id=f"t-{number}", ts=number * day))])

    with store.production(since=day, until=2 * day - 1) as engine:
        found = engine.rows("SELECT trace_id FROM calls")

    assert found == [{"trace_id": "t-1"}]
    assert list(store.production_parts()[0]) == ["1970-01-01", "1970-01-02", "1970-01-03"]


def test_nothing_is_lost_when_others_sweep_the_store_meanwhile(tmp_path: Path) -> None:
    # A log that closes opens its last segment, and what finds no disk then is lost.
    done = threading.Event()

    def sweep_on() -> None:
        while not done.is_set():
            sweep(segments_folder(tmp_path))

    sweeper = threading.Thread(target=sweep_on)
    sweeper.start()
    try:
        for number in range(100):
            with CallLog(tmp_path) as log:
                log(call(trace_id=f"t-{number:03d}"))
            assert (log.lost, log.failures) == (0, 0)
    finally:
        done.set()
        sweeper.join()

    assert traces(tmp_path) == [f"t-{n:03d}" for n in range(100)]
