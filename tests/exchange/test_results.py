"""Results of any runner: what is read, and what a bad file is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evalkit.errors import InputFileError
from evalkit.exchange import result_lines, results
from evalkit.exchange.results import load_results


def csv_file(folder: Path, text: str | bytes) -> Path:
    path = folder / "r.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problem(path: Path) -> str:
    with pytest.raises(InputFileError) as caught:
        load_results(path)
    return str(caught.value).replace(f"{path.parent}/", "")


def rows_of(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = load_results(path).table.to_pylist()
    return rows


# --- what is read -----------------------------------------------------------------------


def test_the_three_formats_give_the_same_rows(tmp_path: Path) -> None:
    rows = [
        {"case_id": "a,1", "metric": "label", "score": 0.5, "trial": 1, "outcome": "scored"},
        {"case_id": "b", "metric": "label", "score": None, "trial": 0, "outcome": "infra_error"},
    ]
    csv = csv_file(
        tmp_path,
        'case_id,metric,score,trial,outcome\n"a,1",label,0.5,1,scored\nb,label,,0,infra_error\n',
    )
    jsonl = tmp_path / "r.jsonl"
    jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet = tmp_path / "r.parquet"
    pq.write_table(pa.Table.from_pylist(rows), parquet)

    read = [rows_of(path) for path in (csv, jsonl, parquet)]

    assert read[0] == read[1] == read[2]
    assert [(r["case_id"], r["score"], r["trial"]) for r in read[0]] == [
        ("a,1", 0.5, 1),
        ("b", None, 0),
    ]


def test_an_empty_score_is_missing_and_a_product_failure_scores_zero(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path,
        "case_id,metric,score,outcome\na,m,,\nb,m,NaN,scored\nc,m,,product_failure\n"
        "d,m,nan,product_failure\ne,m,1,\n",
    )

    read = [(r["case_id"], r["score"], r["outcome"]) for r in rows_of(path)]

    assert read == [
        ("a", None, "no_score"),
        ("b", None, "no_score"),
        ("c", 0.0, "product_failure"),
        ("d", 0.0, "product_failure"),
        ("e", 1.0, "scored"),
    ]


def test_a_byte_order_mark_is_taken_off_csv(tmp_path: Path) -> None:
    path = csv_file(tmp_path, b"\xef\xbb\xbfcase_id,metric,score\r\na,m,1\r\n\r\nb,m,0\r\n")

    assert [r["case_id"] for r in rows_of(path)] == ["a", "b"]


def test_other_columns_are_let_be_and_a_misspelt_one_is_noted(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "case_id,metric,score,clusters,comment\na,m,1,x,fine\n")

    assert load_results(path).notes == (
        'r.csv: the column "clusters" is not used. Is it meant to be cluster?',
    )


def test_a_large_plain_file_reads_as_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'case_id,metric,score,cluster\n"a",m,1,\nb,"m",,"x"\n\nc,m,0.25,y\n'
    path = csv_file(tmp_path, text)
    slowly = load_results(path).table

    monkeypatch.setattr(result_lines, "LARGE_CSV_BYTES", 0)
    monkeypatch.setattr(results, "text_table", None)
    at_once = load_results(path).table

    assert at_once.equals(slowly)


@pytest.mark.parametrize("text", ['x,"say ""hi"""', 'x,"two\nlines"', 'x,",",', 'a"b,c'])
def test_quotes_inside_cells_are_left_to_the_strict_reader(text: str) -> None:
    plain = result_lines._is_plainly_quoted(text.encode())

    assert plain == (text == 'x,"two\nlines"')


# --- what is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            "r.csv: the file is empty. Its first line names the columns: case_id, metric, score.",
        ),
        ("case_id,metric,score\n", "r.csv: no rows. Give one for every case and metric."),
        (
            "case,metric,score\na,m,1\n",
            'r.csv:1: no column case_id. "case" looks like case_id: rename it.',
        ),
        (
            "id,value\na,1\n",
            "r.csv:1: no column case_id, metric, score. There are: id, value.",
        ),
        (
            "case_id;metric;score\na;m;1\n",
            "r.csv:1: the columns are separated by semicolons. Separate them by commas.",
        ),
        (
            "case_id,metric,score,score\na,m,1,1\n",
            'r.csv:1: the column "score" is there twice. Keep one.',
        ),
        (
            "case_id,metric,score\na,m,1,2\n",
            (
                "r.csv:2: 4 cells, but the header names 3 columns. "
                "Put quotes around cells that contain commas or line breaks."
            ),
        ),
        (
            'case_id,metric,score\na,m,"1"x\n',
            "r.csv:2: not CSV: ',' expected after '\"'. Quotes inside a cell are doubled.",
        ),
        (
            "case_id,metric,score\na,m,good\n",
            (
                'r.csv:2: score "good" is not a number. '
                "Write a number from 0 to 1, or nothing where there is no score."
            ),
        ),
        (
            "case_id,metric,score\na,m,1\nb,m,1.5\nc,m,inf\nd,m,-0.1\n",
            (
                'r.csv:3: score "1.5" is not within 0 and 1. '
                "Write a number from 0 to 1, or nothing where there is no score.\n"
                'r.csv:4: score "inf" is not within 0 and 1. '
                "Write a number from 0 to 1, or nothing where there is no score.\n"
                'r.csv:5: score "-0.1" is not within 0 and 1. '
                "Write a number from 0 to 1, or nothing where there is no score."
            ),
        ),
        (
            "case_id,metric,score\n,m,1\n",
            "r.csv:2: no case_id. Every row names its case.",
        ),
        (
            "case_id,metric,score,trial\na,m,1,first\n",
            'r.csv:2: trial "first" is not a whole number. Number the trials 0, 1, 2, …',
        ),
        (
            "case_id,metric,score,outcome\na,m,1,timeout\n",
            (
                'r.csv:2: outcome "timeout" is not known. Outcomes are: scored, product_failure, '
                "infra_error, judge_error, check_error, budget_stop, cancelled."
            ),
        ),
        (
            "case_id,metric,score,outcome\na,m,1,infra_error\n",
            (
                'r.csv:2: outcome "infra_error" with a score of "1". '
                "A row that failed has no score: leave it empty, or write outcome scored."
            ),
        ),
        (
            "case_id,metric,score\na,m,1\nb,m,1\na,m,0\n",
            (
                'r.csv:4: case "a", metric "m" stands on line 2 already. '
                "Keep one, or number the trials in a column trial."
            ),
        ),
        (
            "case_id,metric,score,trial\na,m,1,0\na,m,1,1\na,m,0,1\n",
            (
                'r.csv:4: case "a", metric "m", trial 1 stands on line 3 already. '
                "Keep one, or number the trials in a column trial."
            ),
        ),
    ],
)
def test_a_bad_csv_file_is_told_where_and_how_to_put_it_right(
    tmp_path: Path, text: str, message: str
) -> None:
    assert problem(csv_file(tmp_path, text)) == message


def test_lines_are_counted_through_cells_with_line_breaks(tmp_path: Path) -> None:
    path = csv_file(tmp_path, 'case_id,metric,score,note\na,m,1,"two\nlines"\n\nb,m,2,\n')

    assert problem(path).startswith('r.csv:5: score "2"')


def test_a_bad_row_of_a_large_file_is_named_by_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(result_lines, "LARGE_CSV_BYTES", 0)
    path = csv_file(tmp_path, "case_id,metric,score\na,m,1\n\nb,m,x\n")

    assert problem(path).startswith('r.csv:4: score "x"')


def test_bytes_that_are_not_utf8_are_named(tmp_path: Path) -> None:
    latin = csv_file(tmp_path, "case_id,metric,score\na,m,1\nstraße,m,1\n".encode("latin-1"))
    assert problem(latin) == "r.csv:3: byte 0xdf is not UTF-8. Save the file as UTF-8."

    utf16 = csv_file(tmp_path, "case_id,metric,score\na,m,1\n".encode("utf-16"))
    assert problem(utf16) == "r.csv:1: the file is UTF-16. Save it as UTF-8."


def test_many_problems_are_cut_at_twenty(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "case_id,metric,score\n" + "".join(f"c{n},m,9\n" for n in range(99)))

    lines = problem(path).splitlines()

    assert len(lines) == 21
    assert lines[-1] == "… and more like these."


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1]", "r.jsonl:2: not an object. Write one object per line."),
        (
            '{"case_id": "a", "metric": "m"}',
            "r.jsonl:2: no column score. There are: case_id, metric.",
        ),
        (
            '{"case_id": "a", "metric": "m", "score": "0.5"}',
            (
                'r.jsonl:2: score is "0.5", not a number. '
                "Write a number from 0 to 1, or nothing where there is no score."
            ),
        ),
        (
            '{"case_id": "a", "metric": "m", "score": true}',
            (
                "r.jsonl:2: score is true, not a number. "
                "Write a number from 0 to 1, or nothing where there is no score."
            ),
        ),
        (
            '{"case_id": {"x": 1}, "metric": "m", "score": 1}',
            'r.jsonl:2: case_id is {"x": 1}, not text. Every row names its case.',
        ),
    ],
)
def test_a_bad_json_line_is_told_where_and_how_to_put_it_right(
    tmp_path: Path, line: str, message: str
) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"case_id": "z", "metric": "m", "score": 1}\n' + line + "\n")

    assert problem(path) == message


def test_json_that_is_not_json_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"case_id": "z", "metric": "m", "score": NaN}\n')

    assert problem(path).startswith("r.jsonl:1: ")


def test_a_parquet_file_without_numbers_or_without_parquet_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.parquet"
    pq.write_table(pa.table({"case_id": ["a"], "metric": ["m"], "score": ["1"]}), text)
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and no more")
    high = tmp_path / "high.parquet"
    pq.write_table(pa.table({"case_id": ["a", "b"], "metric": ["m"] * 2, "score": [1, 2]}), high)

    assert "the column score is VARCHAR, not a number" in problem(text)
    assert "cannot be read as Parquet" in problem(broken)
    assert problem(high).startswith('high.parquet: row 2: score "2.0" is not within 0 and 1.')


def test_text_of_the_file_is_shown_cut_and_without_control_characters(tmp_path: Path) -> None:
    path = csv_file(tmp_path, f"case_id,metric,score\na,m,\x1b[31m{'x' * 500}\n")

    message = problem(path)

    assert "\x1b" not in message
    assert len(message) < 250


def test_a_file_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    assert problem(tmp_path / "none.csv") == "none.csv: no such file."


def test_a_column_of_nothing_and_numbers_with_holes_are_read_as_they_are_meant(
    tmp_path: Path,
) -> None:
    """As pandas writes a column of None, and ids of clusters that some rows have."""
    path = tmp_path / "r.parquet"
    columns = {
        "case_id": ["a", "b", "c"], "metric": ["m"] * 3, "score": pa.nulls(3),
        "cluster": pa.array([1.0, float("nan"), None]),
    }  # fmt: skip
    pq.write_table(pa.table(columns), path)

    table = load_results(path).table

    assert table["score"].to_pylist() == [None] * 3
    assert table["cluster"].to_pylist() == ["1.0", None, None]


def test_a_score_of_single_precision_is_the_number_that_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    columns = {
        "case_id": ["a", "b", "c"], "metric": ["m"] * 3,
        "score": pa.array([0.9, 1 / 3, None], pa.float32()),
    }  # fmt: skip
    pq.write_table(pa.table(columns), path)

    assert load_results(path).table["score"].to_pylist() == [0.9, pytest.approx(1 / 3), None]
