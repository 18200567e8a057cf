"""Labelled answers read from files: rows, annotators, ranges, and what is wrong with a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalkit.config import load_settings
from evalkit.errors import ContentError
from evalkit.score.golden import load_golden_set
from evalkit.score.labelled import Labelled, read_labels
from tests.project import write_project

ROW = {"id": "q1", "input": "Who?", "expected": "Ada", "output": "It was Ada.", "label": 1}


def write(tmp_path: Path, *rows: Any, name: str = "labels.jsonl") -> Path:
    path = tmp_path / name
    text = rows[0] if name.endswith("csv") else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8", newline="")
    return path


def read(path: Path, **options: Any) -> list[Labelled]:
    return read_labels(path, **{"pairwise": False, **options})


def test_a_row_is_an_answer_with_its_case_and_a_label(tmp_path: Path) -> None:
    [one] = read(write(tmp_path, {**ROW, "model": "small", "slices": {"kind": "who"}}))

    assert (one.answer.output, one.answer.expected) == ("It was Ada.", "Ada")
    assert one.answer.input == {"text": "Who?"}
    assert one.labels == {"people": 1.0}
    assert (one.pair, one.slices) == ("small", {"kind": "who"})


def test_annotators_of_one_answer_come_together(tmp_path: Path) -> None:
    rows = [{**ROW, "annotator": name, "label": label} for name, label in [("a", 1), ("b", 0)]]

    [one] = read(write(tmp_path, *rows))

    assert one.labels == {"a": 1.0, "b": 0.0}


def test_rows_that_name_nobody_are_one_more_persons_word_each(tmp_path: Path) -> None:
    rows = [ROW, {**ROW, "label": 0}, {**ROW, "annotator": None, "label": 0}]

    [one] = read(write(tmp_path, *rows))

    assert one.labels == {"people": 1.0, "people 2": 0.0, "people 3": 0.0}


def test_people_and_models_may_be_numbers(tmp_path: Path) -> None:
    [one] = read(write(tmp_path, {**ROW, "annotator": 7, "model": 3}))

    assert (one.labels, one.pair) == ({"7": 1.0}, "3")


def test_answers_of_two_models_to_one_case_stay_apart(tmp_path: Path) -> None:
    found = read(write(tmp_path, {**ROW, "model": "x"}, {**ROW, "model": "y"}))

    assert [one.pair for one in found] == ["x", "y"]


@pytest.mark.parametrize(
    ("label", "label_range", "value"),
    [(True, (0, 1), 1.0), ("false", (0, 1), 0.0), (4, (1, 5), 0.75), ("3", (1, 5), 0.5)],
)
def test_labels_are_mapped_to_0_to_1(
    tmp_path: Path, label: object, label_range: tuple[float, float], value: float
) -> None:
    [one] = read(write(tmp_path, {**ROW, "label": label}), label_range=label_range)

    assert one.labels == {"people": value}


def test_csv_keeps_line_ends_in_quotes_and_json_in_cells(tmp_path: Path) -> None:
    text = (
        "id,input,documents,output,label,slice.kind\r\n"
        'q1,Who?,"[{""id"": ""d1"", ""text"": ""Ada""}]","two\nlines\u2028of\x85it",0.5,who\r\n'
    )

    [one] = read(write(tmp_path, text, name="labels.csv"))

    assert one.answer.output == "two\nlines\u2028of\x85it"
    assert one.answer.input["documents"] == [{"id": "d1", "text": "Ada"}]
    assert one.slices == {"kind": "who"}


def test_a_csv_cell_may_hold_a_long_answer(tmp_path: Path) -> None:
    text = f"id,input,output,label\nq1,Who?,{'x' * 200_000},1\n"

    [one] = read(write(tmp_path, text, name="labels.csv"))

    assert len(one.answer.output) == 200_000


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("q1,Who?,No, 1,0", "labels.csv:2: 5 cells, but the header names 4 columns."),
        ('q1,Who?,"Ada,1', "labels.csv:2: not CSV"),
    ],
)
def test_a_csv_row_that_would_be_misread_is_refused(
    tmp_path: Path, line: str, problem: str
) -> None:
    path = write(tmp_path, f"id,input,output,label\n{line}\n", name="labels.csv")

    with pytest.raises(ContentError, match=problem):
        read(path)


@pytest.mark.parametrize(("label", "value"), [("1", 1.0), (2, 0.0), ("tie", 0.5)])
def test_a_preference_is_for_output_against_other(
    tmp_path: Path, label: object, value: float
) -> None:
    row = {**ROW, "other": "Bob", "label": label}

    [one] = read(write(tmp_path, row), pairwise=True)

    assert (one.against, one.labels) == ("Bob", {"people": value})


def test_a_golden_set_gives_case_and_slices(tmp_path: Path) -> None:
    write_project(tmp_path, header="slices: [kind]", cases=[
        {"id": "t-1", "input": {"text": "a"}, "expected": {"label": "billing"},
         "metadata": {"kind": "short"}}
    ])  # fmt: skip
    golden = load_golden_set(
        tmp_path / "golden_sets/tickets", settings=load_settings(tmp_path / "evalkit.toml")
    )
    row = {"case_id": "t-1", "output": "billing", "label": 1}

    [one] = read(write(tmp_path, row), golden=golden)

    assert one.answer.input == {"text": "a"}
    assert one.answer.expected == {"label": "billing"}
    assert one.slices == {"kind": "short"}
    with pytest.raises(ContentError, match="case_id is 't-9'"):
        read(write(tmp_path, {**row, "case_id": "t-9"}), golden=golden)
    with pytest.raises(ContentError, match="case_id is \\['t-1'\\]"):
        read(write(tmp_path, {**row, "case_id": ["t-1"]}), golden=golden)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"output": 5}, 'labels.jsonl:2: no "output". Add the answer, as text.'),
        ({"label": None}, 'labels.jsonl:2: no "label"'),
        ({"label": 4}, "label is 4, not 0 to 1. Name the range: --label-range 1:5."),
        ({"label": "good"}, "label is 'good'. Write a number."),
        ({"input": [1]}, "input is neither text nor an object"),
    ],
)
def test_a_bad_row_names_line_and_fix(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ContentError) as error:
        read(write(tmp_path, ROW, {**ROW, **changes}))

    assert message in str(error.value)


def test_an_empty_file_and_no_json_are_told(tmp_path: Path) -> None:
    with pytest.raises(ContentError, match="no labels in it"):
        read(write(tmp_path))
    (tmp_path / "labels.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(ContentError, match=r"labels\.jsonl:1: "):
        read(tmp_path / "labels.jsonl")
