"""What comes into the log of production from outside: users' words, files, addresses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.cli.main import main
from evalkit.store.remote import attach
from evalkit.store.views import Store, open_store
from tests.store.journal_lines import call, plain

WORDS = "\x1b[31m<script>alert(1)</script>\u202e =HYPERLINK(1) ann@example.com {{ 7 * 7 }}"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "evalkit.toml").write_text("", encoding="utf-8")
    opened = open_store(tmp_path / ".evalkit")
    opened.add_calls("log", [plain(call(trace_id="trace-1"))])
    return opened


def evalkit(store: Store, *argv: str) -> int:
    return main([*argv, "--config", str(store.path.parent / "evalkit.toml")])


def test_what_a_user_says_of_an_answer_is_text_without_personal_data(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    said = evalkit(store, "logs", "feedback", "trace-1", "--comment", WORDS, "--label", WORDS[:60])
    shown = evalkit(store, "show", "trace-1")

    out = capsys.readouterr().out
    written = b"".join(path.read_bytes() for path in (store.path / "feedback").iterdir())
    assert (said, shown) == (0, 0)
    assert b"ann@example.com" not in written
    assert "<script>alert(1)</script>" in out
    assert "{{ 7 * 7 }}" in out
    assert not {"\x1b", "\u202e"} & set(out)


def test_an_imported_log_is_text_without_personal_data(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    row = plain(call(trace_id="trace-2", output=WORDS, input={"text": WORDS}))
    log.write_text(json.dumps(row) + "\n", encoding="utf-8")

    imported = evalkit(store, "logs", "import", str(log), "--format", "evalkit")
    shown = evalkit(store, "show", "trace-2")

    out = capsys.readouterr().out
    written = b"".join(path.read_bytes() for path in store.path.rglob("*") if path.is_file())
    assert (imported, shown) == (0, 0)
    assert b"ann@example.com" not in written
    assert "<script>alert(1)</script>" in out
    assert not {"\x1b", "\u202e"} & set(out)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"<html>not found</html>", b"PAR1" + bytes(64)])
def test_an_object_at_an_address_that_is_no_file_of_calls_is_an_error(
    store: Store, tmp_path: Path, data: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    far = tmp_path / "far" / "date=2026-01-01"
    far.mkdir(parents=True)
    (far / "x.parquet").write_bytes(data)
    attach(store.path, far.parent.as_uri())

    status = evalkit(store, "query", "SELECT count(*) FROM calls")

    said = capsys.readouterr()
    assert status in (2, 3)
    assert "error: " in said.err
    assert "Traceback" not in said.err


def test_an_object_with_columns_of_other_types_is_an_error(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    far = tmp_path / "far" / "date=2026-01-01"
    far.mkdir(parents=True)
    table = pa.table({"trace_id": ["x"], "latency_ms": ["'; DROP TABLE calls"]})
    pq.write_table(table, far / "x.parquet")
    attach(store.path, far.parent.as_uri())

    status = evalkit(store, "query", "SELECT sum(latency_ms) FROM calls")

    assert status in (2, 3)
    assert "Traceback" not in capsys.readouterr().err


def test_a_list_of_addresses_that_was_changed_by_hand_is_damaged(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    attach(store.path, store.path.as_uri())
    path = store.path / "remotes.json"
    path.write_text(path.read_text().replace("file:", "http:"), encoding="utf-8")

    status = evalkit(store, "query", "SELECT count(*) FROM calls")

    assert status == 3
    assert "is damaged" in " ".join(capsys.readouterr().err.split())
