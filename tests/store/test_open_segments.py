"""Open segments of the call log: every flipped bit is said, and no line stops the others."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import threading
import time
from pathlib import Path

import pytest

from evalkit import Orchestrator
from evalkit.cli.main import main
from evalkit.store.call_log import CallLog, seal_left_segments, segments_folder
from evalkit.store.rows import CRC_TAIL
from evalkit.store.views import open_store
from tests.project import write_project
from tests.store.journal_lines import call

RECORDS = 5


def left_segment(store: Path, *, bad_user: object = "u") -> Path:
    """What a process that was killed leaves: five records, one of them with this user."""
    log = CallLog(store, flush_s=60)
    for number in range(RECORDS):
        user = bad_user if number == 2 else "u"
        log(call(trace_id=f"t-{number}", user_id=user))
    assert log.flush()
    (segment,) = segments_folder(store).glob("*.jsonl")
    data = segment.read_bytes()
    log.close()
    for sealed in (store / "calls").glob("date=*/*.parquet"):
        sealed.unlink()
    segment.write_bytes(data)
    return segment


def _compact(line: dict[str, object]) -> str:
    return json.dumps(line, separators=(",", ":"))


def traces(store: Path) -> tuple[list[str], list[str]]:
    opened = open_store(store)
    rows = opened.sql("SELECT trace_id FROM calls ORDER BY 1")
    return [row["trace_id"] for row in rows], opened.problems


def test_every_flipped_bit_of_an_open_segment_is_said_or_does_no_harm(tmp_path: Path) -> None:
    segment = left_segment(tmp_path)
    data = segment.read_bytes()
    whole = open_store(tmp_path).sql("FROM calls ORDER BY trace_id")
    # Places all over, and each of the last line's checksum.
    ends_at = 8 * len(data)
    unsaid = []

    for bit in [*range(0, ends_at, 397), *range(ends_at - 8 * CRC_TAIL, ends_at)]:
        at = bit // 8
        segment.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit % 8]) + data[at + 1 :])
        opened = open_store(tmp_path)
        rows = opened.sql("FROM calls ORDER BY trace_id")
        if not opened.problems and rows != whole:
            unsaid.append(bit)

    assert unsaid == []


def test_a_damaged_line_is_left_out_and_named_by_queries_doctor_and_the_seal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    write_project(tmp_path)
    store = tmp_path / ".evalkit"
    segment = left_segment(store)
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join([*lines[:2], lines[2].replace(b"t-2", b"t-9"), *lines[3:]]))
    rest = ["t-0", "t-1", "t-3", "t-4"]

    found, problems = traces(store)
    argv = ["doctor", "--files", "--json", "--config", str(tmp_path / "evalkit.toml")]
    status = main(argv)
    findings = json.loads(capsys.readouterr().out)["findings"]
    with caplog.at_level(logging.ERROR):
        seal_left_segments(store)

    assert found == rest
    assert problems == [f"{segment}:3: damaged line. It is left out."]
    assert status == 3
    assert [one["detail"] for one in findings if one["status"] == "damaged"] == problems
    assert f"{segment.name}: a call is left out: {segment}:3: damaged line." in caplog.text
    assert traces(store) == (rest, [])


def test_a_record_that_is_no_call_stops_no_other(tmp_path: Path) -> None:
    segment = left_segment(tmp_path, bad_user=["a", "list"])

    before = traces(tmp_path)
    assert seal_left_segments(tmp_path) == 1

    assert before[0] == ["t-0", "t-1", "t-3", "t-4"]
    assert "user_id" in before[1][0]
    assert traces(tmp_path) == (before[0], [])
    assert not segment.exists()


def test_a_living_log_counts_what_it_could_not_seal(tmp_path: Path) -> None:
    with CallLog(tmp_path) as log:
        log(call(trace_id="t-1", user_id={"an": "object"}))
        log(call(trace_id="t-2"))

    assert traces(tmp_path)[0] == ["t-2"]
    assert log.lost == 1


def test_segments_of_before_lines_had_checksums_are_read(tmp_path: Path) -> None:
    segment = left_segment(tmp_path)
    lines = [json.loads(line) for line in segment.read_bytes().splitlines()]
    old = [{name: value for name, value in line.items() if name != "crc"} for line in lines]
    segment.write_text("".join(_compact(line) + "\n" for line in old) + '{"half a li')

    before = traces(tmp_path)
    seal_left_segments(tmp_path)

    assert before == ([f"t-{n}" for n in range(RECORDS)], [])
    assert traces(tmp_path) == before


def test_a_map_without_a_key_is_left_out_and_ends_no_process(tmp_path: Path) -> None:
    segment = left_segment(tmp_path)
    lines = [json.loads(line) for line in segment.read_bytes().splitlines()]
    for line in lines:
        del line["crc"]
    lines[2]["stage_ms"] = [{"kez": "prompt", "value": 1.0}]
    segment.write_text("".join(_compact(line) + "\n" for line in lines))

    found, problems = traces(tmp_path)

    assert found == ["t-0", "t-1", "t-3", "t-4"]
    assert "a map has a pair without a key" in problems[0]


@pytest.mark.parametrize("odd", [5, 1.5, True, ["a"], {"a": 1}, b"x", float("nan"), 2**70])
def test_an_id_that_is_no_text_is_logged_as_text(tmp_path: Path, odd: object) -> None:
    write_project(tmp_path)
    with CallLog(tmp_path / ".evalkit") as log:
        app = Orchestrator.from_config(tmp_path / "evalkit.toml", sink=log)
        text = {"text": "a question on billing"}
        ids = {"user_id": odd, "tenant": odd, "session_id": odd}
        result = app.execute_sync("classify", text, **ids)

    rows = open_store(tmp_path / ".evalkit").sql("SELECT user_id, tenant, session_id FROM calls")
    assert result.ok
    assert rows == [{name: str(odd) for name in ids}]


def test_records_that_come_while_others_are_taken_end_no_log(tmp_path: Path) -> None:
    """Another thread may come between any two steps of the writing one: here at each collection."""
    log = CallLog(tmp_path, flush_s=0.001)
    came = itertools.count()
    before = gc.get_threshold()

    def comes_between(phase: str, info: dict[str, int]) -> None:
        if threading.current_thread() is log._thread and (number := next(came)) < 2000:
            log(call(trace_id=f"came-{number:06d}"))

    gc.callbacks.append(comes_between)
    gc.set_threshold(1, 1, 1)
    try:
        log(call(trace_id="first"))
        deadline = time.monotonic() + 20
        while next(came) < 2000 and log._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(comes_between)

    assert log._thread.is_alive()
    log.close()
    assert "first" in traces(tmp_path)[0]
