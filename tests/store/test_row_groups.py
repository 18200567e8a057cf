"""Row groups of sealed calls: few and large, however the calls come."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from evalkit.store import sealing
from evalkit.store.views import open_store
from tests.store.journal_lines import AT, call, plain

DAY = 86_400_000_000
CALLS = 3_000
"""Some 4 MB of lines."""


def written(folder: Path, *, days: int = 1) -> list[pq.FileMetaData]:
    rows = [plain(call(trace_id=f"t-{n:05d}", ts=AT + n % days * DAY)) for n in range(CALLS)]
    paths = open_store(folder).add_calls("log", rows)
    return [pq.read_metadata(path) for path in paths]


def test_lines_that_are_read_in_parts_make_one_row_group(tmp_path: Path) -> None:
    (file,) = written(tmp_path)

    assert (file.num_rows, file.num_row_groups) == (CALLS, 1)


def test_columns_that_are_held_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "LINES_BYTES", 100_000)
    monkeypatch.setattr(sealing, "LOG_GROUP_BYTES", 300_000)

    (file,) = written(tmp_path)

    groups = [file.row_group(n).num_rows for n in range(file.num_row_groups)]
    assert sum(groups) == CALLS
    assert len(groups) > 3
    assert max(groups) < CALLS / 3


def test_calls_of_many_days_are_all_there_once(tmp_path: Path) -> None:
    files = written(tmp_path, days=5)

    found = open_store(tmp_path).sql("SELECT count(DISTINCT trace_id) AS n FROM calls")
    assert [file.num_rows for file in files] == [CALLS / 5] * 5
    assert found == [{"n": CALLS}]
