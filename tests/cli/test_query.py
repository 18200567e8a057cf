"""`evalkit query`: what a person, a script and a hostile answer see of it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.cli import query
from evalkit.cli.main import main
from evalkit.store.views import Store, open_store
from tests.store.journal_lines import line, manifest


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = open_store(tmp_path / "store")
    with store.create_run(manifest()) as writer:
        writer.append(line(1, output="\x1b[31m[bold]red\u202e\nline two"))
        writer.append(line(2, output="=HYPERLINK(1)"))
        writer.seal("complete")
    return store


def ask(store: Store, sql: str, *options: str) -> int:
    return main(["query", sql, "--store", str(store.path), *options])


def test_json_is_a_list_of_rows_with_times_in_iso(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    status = ask(
        store,
        "SELECT case_id, score, slices, created_at, cluster FROM scores ORDER BY case_id LIMIT 1",
        "--json",
    )

    assert status == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "case_id": "t-001",
            "score": 1.0,
            "slices": {"channel": "mail"},
            "created_at": "2025-10-09T08:53:20.123456+00:00",
            "cluster": None,
        }
    ]


def test_nan_infinity_and_rare_types_are_still_json(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    sql = (
        "SELECT 'nan'::DOUBLE AS a, '-inf'::DOUBLE AS b, sum(score) AS c, 1.5::DECIMAL(3, 1) AS d, "
        "'ab'::BLOB AS e, DATE '2025-01-02' AS f, [1.5::DECIMAL(3, 1)] AS g, INTERVAL 3 DAY AS h "
        "FROM scores"
    )

    assert ask(store, sql, "--json") == 0

    (row,) = json.loads(capsys.readouterr().out)
    assert (row.pop("h") or "") != ""
    assert row == {
        "a": None, "b": None, "c": 2.0, "d": 1.5, "e": "6162", "f": "2025-01-02", "g": [1.5],
    }  # fmt: skip


def test_no_row_is_an_empty_list(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(store, "FROM labels", "--json") == 0

    assert json.loads(capsys.readouterr().out) == []


def test_a_table_shows_control_characters_and_takes_no_markup(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(store, "SELECT output AS \"[bold]o\" FROM calls WHERE output LIKE '%red%'") == 0

    header, row = capsys.readouterr().out.splitlines()
    assert header.strip() == "[bold]o"
    assert row.strip() == r"\x1b[31m[bold]red\u202e\nline two"


def test_a_row_in_a_pipe_is_a_line_however_long(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(store, "SELECT repeat('x', 5000) AS x, * FROM scores") == 0

    assert len(capsys.readouterr().out.splitlines()) == 3


def test_a_narrow_terminal_shows_many_columns_one_a_line(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")

    assert ask(store, "FROM scores ORDER BY case_id") == 0

    lines = [text.split() for text in capsys.readouterr().out.splitlines()]
    assert ["case_id", "t-001"] in lines
    assert ["case_id", "t-002"] in lines
    assert ["cluster", "-"] in lines


def test_a_long_table_is_cut_and_says_so(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "SHOWN_ROWS", 3)

    assert ask(store, "SELECT range AS n FROM range(10)") == 0

    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 4
    assert printed.err == "7 more rows; --json or --csv prints all\n"


def test_csv_has_a_header_and_no_formula(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    sql = (
        "SELECT output, -1 AS n, passed, slices, cluster FROM calls JOIN scores USING (trace_id) "
        "WHERE output LIKE '=%'"
    )

    assert ask(store, sql, "--csv") == 0

    header, row = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header == ["output", "n", "passed", "slices", "cluster"]
    assert row == ["'=HYPERLINK(1)", "-1", "true", '{"channel": "mail"}', ""]


def test_a_csv_cell_cannot_begin_a_row_of_its_own(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(store, "SELECT 'a' || chr(13) || '=1' AS said, 2 AS n", "--csv") == 0

    assert capsys.readouterr().out == 'said,n\n"a\r=1",2\n'


def test_bad_sql_is_a_usage_error_with_the_engines_words_and_the_views(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    status = ask(store, "SELECT scroe FROM scores")

    printed = capsys.readouterr()
    assert status == 2
    assert printed.out == ""
    assert 'Referenced column "scroe" not found' in printed.err
    assert "The views are: runs, calls, scores, labels, feedback, verdicts." in printed.err


LONG = "SELECT max(a.range * b.range) FROM range(3000000) AS a, range(3000000) AS b"


def test_ctrl_c_ends_a_long_query_at_once_and_says_so(store: Store) -> None:
    program = f"""
import os, signal, sys, threading
from evalkit.cli.main import main
threading.Timer(2, os.kill, (os.getpid(), signal.SIGINT)).start()
sys.exit(main(["query", {LONG!r}, "--store", {str(store.path)!r}]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 130
    assert "Traceback" not in ended.stderr


def test_a_query_that_speaks_of_interruption_is_none(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(store, "SELECT interrupted FROM scores") == 2

    assert '"interrupted" not found' in capsys.readouterr().err


@pytest.mark.parametrize("sql", ["DROP VIEW scores", "SELECT 1; SELECT 2", "FROM '/etc/passwd'"])
def test_what_is_not_one_select_over_the_views_is_refused(
    store: Store, capsys: pytest.CaptureFixture[str], sql: str
) -> None:
    assert ask(store, sql) == 2

    assert capsys.readouterr().out == ""


def test_no_store_is_a_usage_error_with_the_fix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["query", "FROM runs", "--store", str(tmp_path / "nowhere")])

    assert status == 2
    assert "evalkit run" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


def test_a_damaged_run_is_named_on_stderr_and_the_rest_is_shown(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with store.create_run(manifest("run-2")) as writer:
        writer.append(line(1, run_id="run-2"))
        writer.seal("complete")
    path = store.path / "scores" / "run=run-1.parquet"
    path.write_bytes(path.read_bytes()[:-1])

    status = ask(store, "SELECT DISTINCT run_id FROM scores", "--json")

    printed = capsys.readouterr()
    assert status == 0
    assert json.loads(printed.out) == [{"run_id": "run-2"}]
    assert printed.err.startswith("warning: ")
    assert "run=run-1.parquet is damaged" in printed.err


def test_what_python_has_no_value_for_hides_no_other(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = "DATE 'infinity' a, [TIMESTAMP '290000-01-01'] b, MAP {[1]: 2} c"

    status = ask(store, f"SELECT {odd}, DATE '2025-01-02' d", "--json")

    assert status == 0
    row = {"a": None, "b": None, "c": [[[1], 2]], "d": "2025-01-02"}
    assert json.loads(capsys.readouterr().out) == [row]


def test_two_formats_at_once_are_refused(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(store, "FROM runs", "--json", "--csv") == 2

    assert "Choose one" in capsys.readouterr().err
