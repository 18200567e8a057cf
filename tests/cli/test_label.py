"""`evalkit label`: from a run to labels that the gate can use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from resource import RLIMIT_FSIZE, setrlimit
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.score.label_queue import LabelQueue
from evalkit.score.labels import read_reply
from tests.decide.report_world import BASELINE, CANDIDATE
from tests.labelling.world import judged_run, labels


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "evalkit.toml").write_text('store = "kept"\n', encoding="utf-8")
    (tmp_path / "judges").mkdir()
    monkeypatch.chdir(tmp_path)
    judged_run(tmp_path / "kept")
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    capsys.readouterr()
    assert main(["label", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_draw_covers_its_strata_and_keeps_the_budget(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = told(capsys, "queue", "latest", "--budget", "20", "--overlap", "0.25")

    assert (about["metric"], about["items"], about["population"]) == ("grounded", 20, 40)
    assert (about["overlap"], about["labels_wanted"]) == (5, 25)
    assert 3 <= about["active"] <= 9
    strata = {one["stratum"]: one["answers"] for one in about["strata"]}
    assert strata == {
        "tickets, failed, channel=mail": 10,
        "tickets, passed, channel=chat": 20,
        "tickets, passed, channel=mail": 10,
    }
    assert all(one["drawn"] >= 2 for one in about["strata"])
    queue = LabelQueue(project / "kept")
    items = queue.items()
    queue.close()
    assert sum(1 / item["inclusion_prob"] for item in items) == pytest.approx(40, rel=0.5)
    assert {item["share"] for item in items} == {"random", "active"}
    assert all(item["why"] for item in items if item["share"] == "active")


def test_asking_for_more_than_there_is_asks_for_all(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = told(capsys, "queue", "latest", "--budget", "500", "--metric", "tone")

    queue = LabelQueue(project / "kept")
    chances = {item["inclusion_prob"] for item in queue.items()}
    queue.close()
    assert about["items"] == 40
    assert chances == {1.0}


def test_labels_are_exported_imported_and_agreed_on(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(capsys, "queue", "latest", "--metric", "tone", "--overlap", "1", "--budget", "10")
    queue = LabelQueue(project / "kept")
    for at, item in enumerate(queue.items()):
        asked = queue.item(item["id"]).question
        queue.mark(item["id"], "ann", read_reply(asked, {"tone": ("pass", "fail")[at % 2]}))
        queue.mark(
            item["id"], "bob", read_reply(asked, {"tone": ("pass", "fail")[at % 2 or at == 2]})
        )
    queue.close()

    exported = told(capsys, "export", "labels.csv")
    [agreement] = told(capsys, "agreement")
    imported = told(capsys, "import", "labels.csv")

    assert exported["written"] == 20
    assert (imported["imported"], imported["known"]) == (0, 20)
    assert (agreement["metric"], agreement["statistic"]) == ("tone", "Cohen's kappa")
    assert (agreement["n_both"], agreement["n_same"]) == (10, 9)
    # Both say fail to 5 of 10, bob to one more: 0.9 seen, 0.5 by chance.
    assert agreement["overall"]["value"] == pytest.approx(0.8)


def test_both_runs_of_a_gate_are_asked_about_case_by_case_one_at_a_time(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged_run(project / "kept", BASELINE)

    about = told(capsys, "queue", CANDIDATE, "--with", BASELINE, "--budget", "24")

    queue = LabelQueue(project / "kept")
    items = [queue.item(one["id"]) for one in queue.items()]
    chances = {}
    for one in queue.items():
        [fact] = queue.item(one["id"]).facts
        chances.setdefault(fact["case_id"], {})[fact["run_id"]] = one["inclusion_prob"]
    queue.close()
    assert (about["metric"], about["items"], about["population"]) == ("grounded", 24, 80)
    assert all(len(item.shown["outputs"]) == 1 for item in items)
    assert len(chances) == 12
    assert all(set(of) == {BASELINE, CANDIDATE} for of in chances.values())
    assert all(len(set(of.values())) == 1 for of in chances.values())


def test_asking_one_at_a_time_and_side_by_side_is_refused(project: Path) -> None:
    assert main(["label", "queue", "latest", "--with", "x", "--against", "x"]) == 2


def test_two_runs_are_put_side_by_side(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judged_run(project / "kept", BASELINE, outputs=("Older.",))

    about = told(capsys, "queue", "run-new", "--against", "run-old", "--budget", "6")

    queue = LabelQueue(project / "kept")
    [first, *_] = queue.items()
    queue.mark(first["id"], "ann", read_reply(queue.item(first["id"]).question,
                                              {"preference": "first"}))  # fmt: skip
    queue.close()
    [agreement] = told(capsys, "agreement")
    assert about["metric"] == "preference"
    assert first["shown"]["outputs"] == ["Fine.", "Older."]
    rows = {(row["run_id"], row["score"]) for row in labels(project / "kept")}
    assert rows == {("run-new", 1.0), ("run-old", 0.0)}
    assert agreement["n_both"] == 0


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["queue", "nothing"], "no run is named"),
        (["queue", "latest", "--metric", "preference"], "--against RUN"),
        (["queue", "latest", "--against", "latest", "--metric", "tone"], "does not go with it"),
        (["queue", "latest", "--budget", "0"], "--budget"),
        (["queue", "latest:small/x@v9"], "no answer that could be labelled"),
        (["export", "labels.xlsx"], "tells the format"),
        (["serve", "--annotator", "adjudicator:x"], "Use another name"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_told(
    project: Path, capsys: pytest.CaptureFixture[str], argv: list[str], says: str
) -> None:
    assert main(["label", *argv]) == 2

    assert says in capsys.readouterr().err


def test_a_disk_that_fills_while_answers_are_queued_is_no_failure_of_evalkit(
    project: Path,
) -> None:
    LabelQueue(project / "kept").close()

    done = subprocess.run(
        [sys.executable, "-m", "evalkit", "label", "queue", "latest"],
        preexec_fn=lambda: setrlimit(RLIMIT_FSIZE, (16_384, 16_384)),
        capture_output=True,
        text=True,
    )

    assert done.returncode == 3
    assert "Free some space" in done.stderr
    assert "Traceback" not in done.stderr
    assert main(["label", "queue", "latest"]) == 0


def test_without_the_extra_the_page_says_what_to_install(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)

    assert main(["label", "serve"]) == 2

    assert 'pip install "evalkit[label]"' in capsys.readouterr().err
