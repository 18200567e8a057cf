"""Labels out of the store and in again, in three formats, with nothing lost or computed."""

from __future__ import annotations

import csv
import json
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from evalkit.errors import InputFileError
from evalkit.exchange.labels import COLUMNS, export_labels, format_of, import_labels
from evalkit.score.label_sealing import seal_labels
from evalkit.score.labels import Said
from evalkit.store.views import open_store
from tests.decide.report_world import line, seal
from tests.labelling.world import judged_run, labels, queue_of

COMMENTS = [
    "=HYPERLINK(\"http://evil.example\",\"x\")", "+1", "-1", "@cmd", "\ttab", "'=1", "''=1", "it's",
    "two\nlines, \"quoted\"", "ünï ☃", None, "fine\r=cmd()", "\n=1", "＝1",
]  # fmt: skip


def labelled(folder: Path) -> Path:
    queue = queue_of(folder, len(COMMENTS))
    for at, (item, comment) in enumerate(zip(queue.items(), COMMENTS, strict=True)):
        score = (1.0, 0.0, None)[at % 3]
        passed = None if score is None else bool(score)
        queue.mark(item["id"], "ann", Said(score=score, passed=passed), comment)
    queue.close()
    seal_labels(open_store(folder))
    return folder


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.csv"])
def test_a_round_trip_keeps_every_column(tmp_path: Path, name: str) -> None:
    store = labelled(tmp_path / "a")
    file = tmp_path / name

    n = export_labels(open_store(store), file, format_of(file))
    done = import_labels(open_store(tmp_path / "b"), file, format_of(file))

    assert n == done.added == len(COMMENTS)
    assert labels(tmp_path / "b") == labels(store)


def test_label_studio_gives_back_what_it_was_given(tmp_path: Path) -> None:
    store = labelled(tmp_path / "a")
    file = tmp_path / "tasks.json"

    export_labels(open_store(store), file, "labelstudio")
    done = import_labels(open_store(tmp_path / "b"), file, "labelstudio")

    assert done.added == len(COMMENTS)
    assert labels(tmp_path / "b") == labels(store)


def test_what_is_asked_becomes_tasks_and_annotations_made_there_labels(tmp_path: Path) -> None:
    queue_of(tmp_path, 2).close()
    file = tmp_path / "tasks.json"
    export_labels(open_store(tmp_path), file, "labelstudio")
    tasks = json.loads(file.read_text("utf-8"))
    tasks[0]["annotations"] = [
        {
            "id": 7, "completed_by": 3, "created_at": "2026-01-31T12:00:00.5Z", "result": [
                {"from_name": "label", "type": "choices", "value": {"choices": ["Fail"]}},
                {"from_name": "comment", "type": "textarea", "value": {"text": ["curt"]}},
            ],
        },
        {"id": 8, "was_cancelled": True, "result": []},
    ]  # fmt: skip
    file.write_text(json.dumps(tasks), encoding="utf-8")

    done = import_labels(open_store(tmp_path), file, "labelstudio")

    assert tasks[0]["data"]["output"].startswith("Answer ")
    assert "secret-model" not in json.dumps({k: v for k, v in tasks[0]["data"].items()
                                             if k != "evalkit"})  # fmt: skip
    [row] = labels(tmp_path)
    assert (row["annotator"], row["score"], row["comment"]) == ("label-studio:3", 0.0, "curt")
    assert (row["inclusion_prob"], row["metric"]) == (0.25, "tone")
    assert done.added == 1


def test_no_cell_of_a_csv_file_is_a_formula(tmp_path: Path) -> None:
    store = labelled(tmp_path / "a")
    file = tmp_path / "labels.csv"

    export_labels(open_store(store), file, "csv")

    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.reader(opened))
    assert rows[0] == COLUMNS
    assert not [cell for row in rows for cell in row if cell[:1] in tuple("=+-@\t\r\n＝＋－＠")]
    # Many programs end a row at a lone CR that is not quoted.
    assert re.search(r'"fine\r=cmd\(\)"', file.read_bytes().decode())


def test_a_csv_file_that_a_spreadsheet_saved_with_a_byte_order_mark_is_read(
    tmp_path: Path,
) -> None:
    store = judged_run(tmp_path / "store", n=4)
    trace_id = store.sql("SELECT min(trace_id) AS id FROM scores")[0]["id"]
    file = tmp_path / "labels.csv"
    text = f"metric;annotator;trace_id;passed\r\ntone;ann;{trace_id};TRUE\r\n".replace(";", ",")
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())

    done = import_labels(store, file, "csv")

    assert done.added == 1
    assert [row["score"] for row in labels(tmp_path / "store")] == [1.0]


def test_blanks_around_a_name_make_no_other_person(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("trace_id,metric,score,annotator\nt,tone,1, ann  b \nu,tone,1,  \n", "utf-8")

    import_labels(open_store(tmp_path / "store"), file, "csv", annotator="bob")

    assert {row["annotator"] for row in labels(tmp_path / "store")} == {"ann b", "bob"}


@pytest.mark.parametrize("older", [{"A": "A"}, {"A": "B", "B": "A"}])
def test_labels_that_replace_each_other_in_a_circle_are_refused(
    tmp_path: Path, older: dict[str, str]
) -> None:
    file = tmp_path / "labels.jsonl"
    rows = [GOOD | {"label_id": new, "supersedes": old} for new, old in older.items()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    with pytest.raises(InputFileError, match="supersedes itself"):
        import_labels(open_store(tmp_path / "store"), file, "jsonl")


def test_labels_that_are_here_are_left_out(tmp_path: Path) -> None:
    store = labelled(tmp_path / "a")
    file = tmp_path / "labels.jsonl"
    export_labels(open_store(store), file, "jsonl")

    done = import_labels(open_store(store), file, "jsonl")

    assert (done.added, done.known) == (0, len(COMMENTS))
    assert len(labels(store)) == len(COMMENTS)


def test_a_file_without_ids_is_imported_once(tmp_path: Path) -> None:
    judged_run(tmp_path)
    said = {"run_id": "run-new", "case_id": "t-001", "metric": "tone", "score": 1.0}
    rows = [said | {"annotator": "ann"}, said | {"annotator": "ann"}, said | {"annotator": "ben"}]
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    first = import_labels(open_store(tmp_path), file, "jsonl")
    with file.open("a", encoding="utf-8") as more:
        more.write(json.dumps(said | {"annotator": "ben", "score": 0.0}) + "\n")
    again = import_labels(open_store(tmp_path), file, "jsonl")

    # Equal ones of a file may be of several trials: both are kept.
    assert (first.added, first.known) == (3, 0)
    assert (again.added, again.known) == (1, 3)
    assert len(labels(tmp_path)) == 4


def test_two_imports_at_once_add_a_label_once(tmp_path: Path) -> None:
    store = labelled(tmp_path / "a")
    file = tmp_path / "labels.jsonl"
    export_labels(open_store(store), file, "jsonl")

    with ThreadPoolExecutor(2) as pool:
        with open_store(tmp_path / "b").importing("labels"):
            both = [
                pool.submit(import_labels, open_store(tmp_path / "b"), file, "jsonl")
                for _ in range(2)
            ]
        added = sorted((one.result().added, one.result().known) for one in both)

    assert added == [(0, len(COMMENTS)), (len(COMMENTS), 0)]
    assert len(labels(tmp_path / "b")) == len(COMMENTS)


def test_an_annotation_changed_in_label_studio_replaces_its_label_once(tmp_path: Path) -> None:
    store = labelled(tmp_path / "a")
    file = tmp_path / "tasks.json"
    export_labels(open_store(store), file, "labelstudio")
    tasks = json.loads(file.read_text("utf-8"))
    changed = tasks[0]["annotations"][0]
    old = changed["unique_id"]
    counts = []

    for word in ("Fail", "Fail", "Pass", "Fail"):
        # Label Studio writes ids with hyphens.
        changed["unique_id"] = str(uuid.UUID(old))
        changed["result"] = [{"from_name": "label", "value": {"choices": [word]}}]
        file.write_text(json.dumps(tasks), encoding="utf-8")
        done = import_labels(open_store(store), file, "labelstudio")
        counts.append((done.added, done.known, done.corrected))

    n = len(COMMENTS)
    assert counts == [(1, n - 1, 1), (0, n, 0), (1, n - 1, 1), (1, n - 1, 1)]
    rows = labels(store)
    replaced = {row["supersedes"] for row in rows}
    about = tasks[0]["data"]["evalkit"]["trace_id"]
    [row] = [r for r in rows if r["trace_id"] == about and r["label_id"] not in replaced]
    assert (row["score"], row["passed"], row["comment"]) == (0.0, False, None)


@pytest.mark.parametrize("name", ["labels.jsonl", "labels.csv"])
def test_a_label_edited_in_a_file_is_refused_not_dropped(tmp_path: Path, name: str) -> None:
    store = labelled(tmp_path / "a")
    file = tmp_path / name
    export_labels(open_store(store), file, format_of(file))
    text = file.read_text("utf-8")
    file.write_text(text.replace("it's", "it is"), encoding="utf-8", newline="")

    with pytest.raises(InputFileError, match=r":\d+: label \w+ says something else here"):
        import_labels(open_store(store), file, format_of(file))


def test_a_trace_id_is_enough_to_know_the_answer(tmp_path: Path) -> None:
    store = judged_run(tmp_path / "store", n=4)
    file = tmp_path / "labels.jsonl"
    file.write_text(
        json.dumps({"trace_id": "run-new-t-002-0", "metric": "tone", "passed": False}) + "\n",
        encoding="utf-8",
    )

    import_labels(store, file, "jsonl", annotator="ann")

    [row] = labels(store.path)
    assert (row["run_id"], row["case_id"], row["model"]) == ("run-new", "t-002", "small")
    assert (row["score"], row["annotator"], row["inclusion_prob"]) == (0.0, "ann", None)


@pytest.mark.parametrize("given", [{}, {"trace_id": "run-new-t-002-0"}], ids=["run", "trace"])
def test_run_and_case_are_enough_to_know_the_answer(tmp_path: Path, given: dict[str, str]) -> None:
    store = judged_run(tmp_path / "store", n=4)
    file = tmp_path / "labels.jsonl"
    said = {"run_id": "run-new", "case_id": "t-002", "metric": "tone", "score": 1} | given
    file.write_text(json.dumps(said) + "\n", encoding="utf-8")

    import_labels(store, file, "jsonl", annotator="ann")

    [row] = labels(store.path)
    [known] = store.sql("FROM scores WHERE case_id = 't-002' LIMIT 1")
    names = ["trace_id", "golden_set", "case_hash", "trial", "model", "prompt_version"]
    assert [row[name] for name in names] == [known[name] for name in names]
    assert None not in [row[name] for name in names]


def test_labels_about_no_scored_answer_are_counted(tmp_path: Path) -> None:
    store = judged_run(tmp_path / "store", n=4)
    file = tmp_path / "labels.jsonl"
    about = [
        {"run_id": "run-new", "case_id": "t-002"}, {"run_id": "run-new", "case_id": "t-200"},
        {"run_id": "run-old", "case_id": "t-002"}, {"trace_id": "nobody's"},
    ]  # fmt: skip
    said = [one | {"metric": "tone", "score": 1} for one in about]
    file.write_text("".join(json.dumps(one) + "\n" for one in said), encoding="utf-8")

    done = import_labels(store, file, "jsonl", annotator="ann")

    assert (done.added, done.strays) == (4, 3)


def test_a_label_that_could_be_of_several_pairs_is_refused(tmp_path: Path) -> None:
    lines = [line("run-new", "t-002", trial=at, model=f"model-{at}") for at in (0, 1)]
    store = seal(tmp_path / "store", "run-new", lines)
    file = tmp_path / "labels.jsonl"
    said = {"run_id": "run-new", "case_id": "t-002", "metric": "tone", "score": 1}
    file.write_text(json.dumps(said) + "\n", encoding="utf-8")

    with pytest.raises(InputFileError, match=r"jsonl:1: run run-new has several .* by model"):
        import_labels(store, file, "jsonl", annotator="ann")

    file.write_text(json.dumps(said | {"model": "model-1"}) + "\n", encoding="utf-8")
    assert import_labels(store, file, "jsonl", annotator="ann").added == 1
    [row] = labels(store.path)
    assert (row["trial"], row["prompt_version"]) == (1, "v3")


def test_all_of_a_file_is_of_one_moment_where_it_does_not_say(tmp_path: Path) -> None:
    """The two labels of a preference know each other by it."""
    store = judged_run(tmp_path / "store", n=4)
    file = tmp_path / "labels.jsonl"
    said = {"run_id": "run-new", "metric": "tone", "score": 1}
    rows = [said | {"case_id": f"t-00{n}"} for n in range(4)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    import_labels(store, file, "jsonl", annotator="ann")

    assert len({row["labelled_at"] for row in labels(store.path)}) == 1


GOOD = {"trace_id": "t", "metric": "tone", "annotator": "ann", "score": 1.0}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"score": 1.5}, "score is 1.5"),
        ({"score": True}, "score is True"),
        ({"passed": "maybe"}, "passed is 'maybe'"),
        ({"trial": -1}, "trial is -1"),
        ({"annotator": None}, "no annotator"),
        ({"metric": 7}, "metric is 7"),
        ({"trace_id": None}, "no trace_id"),
        ({"inclusion_prob": 2}, "inclusion_prob is 2"),
        ({"labelled_at": "yesterday"}, "labelled_at is 'yesterday'"),
        ({"grade": 1}, "no such column: 'grade'"),
    ],
    ids=str,
)
def test_a_bad_label_is_named_by_line_and_none_is_taken(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    file = tmp_path / "labels.jsonl"
    lines = [json.dumps(GOOD), json.dumps(GOOD | changes)]
    file.write_text("\n".join(lines), encoding="utf-8")

    with pytest.raises(InputFileError) as caught:
        import_labels(open_store(tmp_path / "store"), file, "jsonl")

    assert str(caught.value).startswith(f"{file}:2: {told}")
    assert not (tmp_path / "store").exists()


GREAT = '{"result": [{"value": {"choices": ["Great"]}}]}'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", "{}"),
        ("a.json", '[{"data": {}}]'),
        ("a.json", f'[{{"data": {{"evalkit": {{}}}}, "annotations": [{GREAT}]}}]'),
        ("a.json", '[{"data": {"evalkit": {}}, "annotations": 5}]'),
        ("a.json", "[1"),
        ("a.csv", "nonsense\n1\n"),
        ("a.csv", "metric,score\ntone\n"),
        ("a.csv", "trace_id,metric,metric,score,annotator\nt,tone,look,1,ann\n"),
        ("a.jsonl", "[]\n"),
        ("a.jsonl", '{"a": NaN}\n'),
    ],
)  # fmt: skip
def test_a_file_that_is_something_else_is_refused(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")

    with pytest.raises(InputFileError, match=str(tmp_path / name)):
        import_labels(open_store(tmp_path / "store"), tmp_path / name, format_of(tmp_path / name))
