"""A run's journal and seal: nothing finished is lost, nothing sealed is changed."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import DamagedStore, StoreError
from evalkit.store.runs import decode_line, encode_line
from evalkit.store.views import Store, open_store
from tests.store.journal_lines import AT, line, manifest

CHECKOUT = Path(__file__).resolve().parents[2]
DAY_US = 86_400_000_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def seal_run(store: Store, run_id: str = "run-1", *, cases: int = 2) -> None:
    with store.create_run(manifest(run_id)) as writer:
        for number in range(cases):
            writer.append(line(number, run_id=run_id))
        writer.seal("complete", counts={"scored": cases})


def journal_of(store: Store, run_id: str = "run-1") -> Path:
    return store.path / "runs" / run_id / "journal.jsonl"


def case_ids(store: Store) -> list[str]:
    return [row["case_id"] for row in store.sql("SELECT case_id FROM scores ORDER BY ALL")]


def python(code: str, *arguments: str | Path) -> subprocess.Popen[str]:
    """A process of its own that runs `code` with this test's packages."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        text=True,
    )


# --- the journal -------------------------------------------------------------------


def test_a_manifest_says_running_from_the_start(store: Store) -> None:
    with store.create_run(manifest()):
        found = json.loads((store.path / "runs" / "run-1" / "manifest.json").read_text())

    assert found["status"] == "running"
    assert found["schema_version"] == 1


def test_leaving_a_run_without_a_seal_marks_it_incomplete(store: Store) -> None:
    with store.create_run(manifest()) as writer:
        writer.append(line(1))

    assert store.manifest("run-1")["status"] == "incomplete"


def test_a_line_is_in_the_file_when_append_returns(store: Store) -> None:
    with store.create_run(manifest()) as writer:
        writer.append(line(1))

        assert len(journal_of(store).read_bytes().splitlines()) == 1


def test_a_reopened_run_gives_back_every_line_as_it_was(store: Store) -> None:
    lines = [line(number, output="née ✓\n\x00") for number in range(3)]
    with store.create_run(manifest()) as writer:
        for one in lines:
            writer.append(one)

    with store.open_run("run-1") as again:
        assert list(again.finished()) == lines


@pytest.mark.parametrize("cut", [1, 20, 400])
def test_a_half_written_last_line_is_dropped_and_the_next_one_is_whole(
    store: Store, cut: int
) -> None:
    with store.create_run(manifest()) as writer:
        writer.append(line(1))
        writer.append(line(2))
    journal = journal_of(store)
    journal.write_bytes(journal.read_bytes()[:-cut])

    with store.open_run("run-1") as again:
        assert list(again.finished()) == [line(1)]
        again.append(line(3))
        assert list(again.finished()) == [line(1), line(3)]


def test_a_journal_of_one_half_line_is_empty(store: Store) -> None:
    with store.create_run(manifest()) as writer:
        writer.append(line(1))
    os.truncate(journal_of(store), 300)

    with store.open_run("run-1") as again:
        assert list(again.finished()) == []


def test_a_last_line_longer_than_a_block_is_found(store: Store) -> None:
    long = line(2, output="x" * 200_000)
    with store.create_run(manifest()) as writer:
        writer.append(line(1))
        writer.append(long)
    with journal_of(store).open("ab") as file:
        file.write(b"y" * 150_000)

    with store.open_run("run-1") as again:
        again.append(line(3))
        assert list(again.finished()) == [line(1), long, line(3)]


def test_a_flipped_bit_in_the_last_line_drops_that_line(store: Store) -> None:
    with store.create_run(manifest()) as writer:
        writer.append(line(1))
        writer.append(line(2))
    flip(journal_of(store), at=-200)

    with store.open_run("run-1") as again:
        again.append(line(3))
        assert list(again.finished()) == [line(1), line(3)]


def test_damage_before_the_last_line_names_file_and_line(store: Store) -> None:
    with store.create_run(manifest()) as writer:
        for number in range(3):
            writer.append(line(number))
    second = journal_of(store).read_bytes().index(b"\n") + 50
    flip(journal_of(store), at=second)

    with (
        store.open_run("run-1") as again,
        pytest.raises(DamagedStore, match=r"journal\.jsonl:2: damaged line"),
    ):
        list(again.finished())


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_sealed_runs_journal_is_whole_or_damaged(store: Store, damage: str) -> None:
    seal_run(store)
    journal = journal_of(store)
    if damage == "flip":
        flip(journal, at=-200)
    elif damage == "cut":
        journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    else:
        journal.unlink()

    with store.open_run("run-1") as again, pytest.raises(DamagedStore, match=r"journal\.jsonl"):
        list(again.finished())


def flip(path: Path, *, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x04
    path.write_bytes(data)


@given(
    data=st.dictionaries(
        st.text(),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(st.characters(exclude_categories=["Cs"])),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=10,
        ),
        min_size=1,
    ),
    flipped=st.tuples(st.integers(min_value=0), st.integers(0, 7)),
)
def test_a_line_comes_back_as_it_was_and_one_flipped_bit_never_as_another(
    data: dict[str, Any], flipped: tuple[int, int]
) -> None:
    data.pop("crc", None)
    data |= {"key": "k", "calls": [], "scores": []}
    data.pop("sizes", None)
    encoded = encode_line(data)
    damaged = bytearray(encoded)
    damaged[flipped[0] % len(damaged)] ^= 1 << flipped[1]

    assert decode_line(encoded) == data
    assert decode_line(bytes(damaged)) is None


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_refused_and_nothing_is_written(store: Store, number: float) -> None:
    bad = line(1)
    bad["scores"][0]["score"] = number

    with store.create_run(manifest()) as writer:
        with pytest.raises(StoreError, match="t-001"):
            writer.append(bad)

        assert journal_of(store).read_bytes() == b""


def test_a_lone_surrogate_in_an_answer_does_not_stop_the_run(store: Store) -> None:
    with store.create_run(manifest()) as writer:
        writer.append(line(1, output="half \ud83d pair"))
        writer.seal()

    assert store.sql("SELECT output FROM calls") == [{"output": "half ? pair"}]


def test_a_full_disk_leaves_no_half_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.create_run(manifest()) as writer:
        writer.append(line(1))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        size = journal_of(store).stat().st_size
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
            with pytest.raises(StoreError, match=r"journal\.jsonl: File too large"):
                writer.append(line(2))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
        writer.append(line(3))

        assert list(writer.finished()) == [line(1), line(3)]


# --- one writer --------------------------------------------------------------------


def test_a_second_writer_of_a_run_is_told_so(store: Store) -> None:
    with store.create_run(manifest()), pytest.raises(StoreError, match="run-1 is being written"):
        store.open_run("run-1")

    store.open_run("run-1").close()


def test_a_second_process_is_told_so(store: Store) -> None:
    code = """
        import sys
        from evalkit.errors import StoreError
        from evalkit.store.views import open_store
        try:
            open_store(sys.argv[1]).open_run("run-1")
        except StoreError as error:
            print(error)
    """

    with store.create_run(manifest()):
        said, _ = python(code, store.path).communicate(timeout=300)

    assert "run run-1 is being written in another process" in said


def test_a_run_is_never_created_twice(store: Store) -> None:
    store.create_run(manifest()).close()

    with pytest.raises(StoreError, match="never overwritten"):
        store.create_run(manifest())


def test_an_unknown_run_is_named_with_the_newest(store: Store) -> None:
    seal_run(store)

    with pytest.raises(StoreError, match=r"no run nope .* Newest: run-1"):
        store.manifest("nope")
    with pytest.raises(StoreError, match="no run nope"):
        store.open_run("nope")
    assert not (store.path / "runs" / "nope").exists()


@pytest.mark.parametrize("run_id", ["../x", "a/b", "", ".", "..", "x" * 200, "a\0b", "a\n"])
def test_an_id_that_is_no_plain_name_reaches_no_file(store: Store, run_id: str) -> None:
    with pytest.raises(StoreError, match="no run id"):
        store.create_run(manifest(run_id))
    with pytest.raises(StoreError, match="no run id"):
        store.open_run(run_id)


def test_kill_9_while_writing_loses_no_finished_case(store: Store) -> None:
    code = """
        import sys
        from evalkit.store.views import open_store
        from tests.store.journal_lines import line, manifest
        with open_store(sys.argv[1]).create_run(manifest()) as writer:
            for number in range(1_000_000):
                writer.append(line(number, output="x" * 10_000))
                print(number, flush=True)
    """
    process = python(code, store.path)
    assert process.stdout is not None

    for last in process.stdout:
        if int(last) >= 50:
            break
    process.send_signal(signal.SIGKILL)
    said = [int(last), *map(int, process.stdout.read().split())]
    process.wait(timeout=300)
    process.stdout.close()

    with store.open_run("run-1") as again:
        found = [one["key"][2] for one in again.finished()]
        again.append(line(9_999_999))
        again.seal("complete")
    assert found[: said[-1] + 1] == [f"t-{number:03d}" for number in range(said[-1] + 1)]
    assert len(found) <= said[-1] + 2
    assert len(case_ids(store)) == len(found) + 1


# --- the seal ----------------------------------------------------------------------


def test_a_sealed_run_names_each_file_with_its_checksum_and_rows(store: Store) -> None:
    seal_run(store)

    found = store.manifest("run-1")

    assert found["status"] == "complete"
    assert found["counts"] == {"scored": 2}
    assert {name: facts["rows"] for name, facts in found["files"].items()} == {
        "scores/run=run-1.parquet": 2,
        "calls/date=2025-10-09/run-1.parquet": 2,
    }
    assert [path.name for path in store.score_files("run-1")] == ["run=run-1.parquet"]
    assert [path.name for path in store.call_files("run-1")] == ["run-1.parquet"]


def test_calls_of_several_days_are_in_a_file_for_each_day(store: Store) -> None:
    with store.create_run(manifest()) as writer:
        for number in range(4):
            writer.append(line(number, ts=AT + number % 2 * DAY_US))
        writer.seal()

    assert [path.parent.name for path in store.call_files("run-1")] == [
        "date=2025-10-09",
        "date=2025-10-10",
    ]
    assert store.sql("SELECT count(*) AS n FROM calls") == [{"n": 4}]


def test_the_first_of_several_lines_with_one_key_counts(store: Store) -> None:
    with store.create_run(manifest()) as writer:
        writer.append(line(1, output="first"))
        writer.append(line(1, output="second"))
        writer.seal()

    assert store.sql("SELECT output FROM calls") == [{"output": "first"}]
    assert case_ids(store) == ["t-001"]


def test_sealing_twice_changes_nothing(store: Store) -> None:
    with store.create_run(manifest()) as writer:
        writer.append(line(1))
        writer.seal("complete", counts={"scored": 1})
        before = {path: path.stat().st_mtime_ns for path in files_of(store)}

        writer.seal("complete", counts={"scored": 99})

    assert {path: path.stat().st_mtime_ns for path in files_of(store)} == before
    with store.open_run("run-1") as again:
        assert list(again.finished()) == [line(1)]
        with pytest.raises(StoreError, match="closed"):
            again.append(line(2))
        again.seal("complete")


def files_of(store: Store) -> list[Path]:
    return sorted(path for path in store.path.rglob("*") if path.is_file())


def test_a_seal_that_was_killed_is_done_again(store: Store) -> None:
    code = """
        import os, signal, sys
        from evalkit.store import runs
        from evalkit.store.views import open_store
        from tests.store.journal_lines import line, manifest
        def die(*arguments, **options):
            if options.get("replace"):
                os.kill(os.getpid(), signal.SIGKILL)
            return write_json(*arguments, **options)
        write_json, runs.write_json = runs.write_json, die
        with open_store(sys.argv[1]).create_run(manifest()) as writer:
            writer.append(line(1))
            writer.append(line(2))
            writer.seal("complete")
    """
    process = python(code, store.path)
    process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert (store.path / "scores" / "run=run-1.parquet").exists()
    assert case_ids(store) == []

    with store.open_run("run-1") as again:
        again.append(line(3))
        again.seal("complete")

    assert case_ids(store) == ["t-001", "t-002", "t-003"]
    assert store.sql("SELECT count(*) AS n FROM calls") == [{"n": 3}]


def test_a_run_sealed_as_incomplete_can_be_finished(store: Store) -> None:
    with store.create_run(manifest()) as writer:
        writer.append(line(1))
        writer.seal("incomplete")
    assert case_ids(store) == ["t-001"]

    with store.open_run("run-1") as again:
        again.append(line(2))
        again.seal("complete")

    assert case_ids(store) == ["t-001", "t-002"]
    assert store.manifest("run-1")["status"] == "complete"


def test_a_token_count_that_no_file_can_hold_is_not_known_and_the_run_is_sealed(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with store.create_run(manifest()) as writer:
        writer.append(line(1, prompt_tokens=10**30))
        writer.append(line(2))
        writer.seal()

    rows = store.sql("SELECT prompt_tokens, completion_tokens FROM calls ORDER BY trace_id")
    assert [row["prompt_tokens"] for row in rows] == [None, 120]
    assert [row["completion_tokens"] for row in rows] == [7, 7]
    assert "not known" in caplog.text


def test_a_value_of_the_wrong_type_is_named_and_the_journal_stays(store: Store) -> None:
    with store.create_run(manifest()) as writer:
        writer.append(line(1, prompt_tokens="many"))

        with pytest.raises(StoreError, match=r"calls: .*prompt_tokens"):
            writer.seal()

    assert store.manifest("run-1")["status"] == "incomplete"
    assert not list(store.path.rglob("*.parquet"))
    assert not list(store.path.rglob("*.tmp"))
    assert len(journal_of(store).read_bytes().splitlines()) == 1


def test_sealing_20000_cases_stays_within_memory(store: Store) -> None:
    code = """
        import sys
        from evalkit.store.views import open_store
        from tests.store.journal_lines import line, manifest
        def peak_mb():
            return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) // 1024
        with open_store(sys.argv[1]).create_run(manifest()) as writer:
            one = line(0, output="an answer of some length " * 40)
            for number in range(20_000):
                one["key"][2] = one["scores"][0]["case_id"] = f"t-{number}"
                writer.append(one)
            writer.seal("complete")
        print(peak_mb(), *[name for name in ("pandas", "duckdb") if name in sys.modules])
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc")

    said, _ = python(code, store.path).communicate(timeout=300)

    peak_mb, *heavy = said.split()
    assert heavy == []
    assert int(peak_mb) < 150
    assert store.sql("SELECT count(*) AS n FROM scores") == [{"n": 20_000}]
