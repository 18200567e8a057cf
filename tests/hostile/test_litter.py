"""What has no business in a store: pipes, folders, links and bytes where files should be."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from evalkit.cli.main import main
from evalkit.store.feedback import feedback_table
from evalkit.store.views import open_store
from tests.project import write_project
from tests.store.journal_lines import call, plain

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.mkdir()


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 8 + b"\n")


PLACES = (
    "runs/zz/manifest.json", "calls/date=2026-01-02/z.parquet", "calls/open/z.jsonl",
    "labels/z.parquet", "verdicts/z.json",
)  # fmt: skip


@pytest.mark.parametrize("make", [pipe, folder, noise], ids=lambda make: make.__name__)
@pytest.mark.parametrize("place", PLACES)
def test_it_is_named_by_doctor_and_hides_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], None],
    place: str,
) -> None:
    write_project(tmp_path, cases=3)
    config = ("--config", str(tmp_path / "evalkit.toml"))
    assert main(["run", *config]) == 0
    store = open_store(tmp_path / ".evalkit")
    store.add_calls("log-1", [plain(call(trace_id="one"))])
    litter = store.path / place
    litter.parent.mkdir(parents=True, exist_ok=True)
    make(litter)
    capsys.readouterr()

    doctor = main(["doctor", "--files", *config])

    assert doctor == 3
    assert str(litter) in capsys.readouterr().out
    opened = open_store(store.path)
    assert opened.sql("SELECT count(*) AS n FROM calls") == [{"n": 4}]
    assert opened.sql("SELECT count(*) AS n FROM scores") == [{"n": 6}]
    assert opened.sql("SELECT count(*) AS n FROM labels") == [{"n": 0}]
    assert main(["gate", "--allow-no-baseline", *config]) == 0


def test_an_open_segment_that_is_a_link_to_itself_hides_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.add_calls("log-1", [plain(call(trace_id="one"))])
    (tmp_path / "calls" / "open").mkdir()
    loop(tmp_path / "calls" / "open" / "z.jsonl")

    assert store.sql("SELECT count(*) AS n FROM calls") == [{"n": 1}]
    assert "not a regular file" in store.problems[0]


def test_every_flipped_bit_of_a_line_of_feedback_is_named_or_does_no_harm(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.add_calls("log-1", [plain(call(trace_id="one"))])
    for label in ("up", "down"):
        store.add_feedback("one", label=label)
    (path,) = (tmp_path / "feedback").glob("*.jsonl")
    data = path.read_bytes()
    whole = store.sql("FROM feedback ORDER BY feedback_id")
    unsaid = []

    for bit in range(8 * (data.index(b"\n") + 1)):
        at = bit // 8
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << bit % 8]) + data[at + 1 :])
        problems: list[str] = []
        rows = feedback_table(tmp_path, problem=problems.append).num_rows
        if rows != len(whole) and not problems:
            unsaid.append((bit, data[at : at + 1]))

    assert unsaid == []
