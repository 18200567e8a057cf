"""One row of a file that cannot be meant: named by its line, and no harm to the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.store.emptying import rewrite
from evalkit.store.views import open_store
from tests.project import write_project

CALL = {"ts": 1760000000000000, "feature": "f", "model": "m", "input": "x", "output": "y"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path)


def evalkit(project: Path, *argv: str) -> int:
    return main([*argv, "--config", str(project / "evalkit.toml")])


def written(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize(
    "odd",
    [
        {"ts": 1e300}, {"ts": 10**30}, {"ts": "0001-01-01T00:00:00+23:59"}, {"user_id": ["a"]},
        {"user_id": {"a": 1}}, {"tenant": True}, {"quality": {"a": "b"}}, {"quality": ["a"]},
        {"stage_ms": {"a": [1]}}, {"guard_events": [5]}, {"cache_hit": "yes"}, {"retries": 0.5},
        {"retries": 2**70}, {"confidence": "high"}, {"output": 5}, {"served_model": ["m"]},
        {"repaired": 1}, {"finish_reason": {}}, {"attempts": [5]}, {"redactions": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_a_row_of_a_log_that_cannot_be_meant_is_named_and_the_others_are_taken(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], odd: dict[str, Any]
) -> None:
    rows = [CALL | {"trace_id": "a"}, CALL | {"trace_id": "odd"} | odd, CALL | {"trace_id": "b"}]

    status = evalkit(project, "logs", "import", "--format", "evalkit",
                     written(tmp_path / "log.jsonl", *rows))  # fmt: skip

    said = capsys.readouterr().err
    found = open_store(project / ".evalkit").sql("SELECT trace_id FROM calls ORDER BY 1")
    assert status == 0
    assert "log.jsonl:2: " in said
    assert "Traceback" not in said
    assert [row["trace_id"] for row in found] == ["a", "b"]


def test_an_id_that_is_a_number_is_its_text(project: Path, tmp_path: Path) -> None:
    row = CALL | {"trace_id": "a", "user_id": 5}

    status = evalkit(project, "logs", "import", written(tmp_path / "log.jsonl", row))

    found = open_store(project / ".evalkit").sql("SELECT user_id FROM calls")
    assert status == 0
    assert found == [{"user_id": "5"}]


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_label_of_no_moment_is_refused(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], at: str
) -> None:
    label = {"trace_id": "x", "metric": "m", "score": 1, "labelled_at": at}
    path = written(tmp_path / "labels.jsonl", label)

    assert evalkit(project, "label", "import", "--annotator", "ann", path) == 2
    assert "labels.jsonl:1: labelled_at is" in capsys.readouterr().err


def test_a_moment_that_python_has_no_word_for_hides_no_other(project: Path, tmp_path: Path) -> None:
    """It came in before it was refused, or from an address."""
    labels = [{"trace_id": name, "metric": "m", "score": 1} for name in ("x", "y")]
    path = written(tmp_path / "labels.jsonl", *labels)
    assert evalkit(project, "label", "import", "--annotator", "ann", path) == 0
    (file,) = (project / ".evalkit" / "labels").glob("*.parquet")
    rewrite(file, "labels", _in_the_year_0, only_if=lambda: True)

    rows = open_store(project / ".evalkit").sql("SELECT trace_id, labelled_at FROM labels")

    assert {row["trace_id"]: row["labelled_at"] for row in rows} == {"x": None, "y": None}


def _in_the_year_0(table: Any) -> Any:
    import pyarrow as pa

    at = table.schema.get_field_index("labelled_at")
    kind = table.schema.field(at).type
    times = pa.array([-(2**60)] * table.num_rows, pa.int64()).cast(kind)
    return table.set_column(at, table.schema.field(at), times)
