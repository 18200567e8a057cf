"""`evalkit review`: what a person at the terminal decides, and is told."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.call.review import ReviewQueue
from evalkit.cli.main import main
from tests.score.answers import RECORD

PAID = "shop_actions_of_test:pay"

Ask = Callable[..., int]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "evalkit.toml").write_text('store = "kept"\n', encoding="utf-8")
    (tmp_path / "shop_actions_of_test.py").write_text(
        "from pathlib import Path\n"
        "def pay(review):\n"
        "    with (Path(__file__).parent / 'paid').open('a') as file:\n"
        "        file.write(f'{review.key}: {review.output}\\n')\n"
        "    return {'receipt': 17}\n"
        "def fail(review):\n"
        "    raise ConnectionError('bank is \\x1b[31mdown')\n",
        encoding="utf-8",
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.delitem(sys.modules, PAID.partition(":")[0], raising=False)
    return tmp_path


def held(project: Path, action: str | None = PAID, **changes: Any) -> str:
    queue = ReviewQueue(project / "kept" / "queue.sqlite")
    try:
        return queue.hold(replace(RECORD, **{"output": "refund 900 EUR"} | changes), action)
    finally:
        queue.close()


def paid(project: Path) -> list[str]:
    path = project / "paid"
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def test_before_anything_was_held_the_list_is_empty_and_makes_no_file(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["review", "list", "--json"]) == 0

    assert json.loads(capsys.readouterr().out) == []
    assert not (project / "kept").exists()


def test_the_list_shows_what_waits(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    review_id = held(project, output="\x1b[31mrefund\n900")

    assert main(["review", "list"]) == 0

    printed = capsys.readouterr()
    assert printed.out.split() == [
        review_id, printed.out.split()[1], "pending", "classify-ticket", r"\x1b[31mrefund\n900",
    ]  # fmt: skip
    assert printed.err == "1 pending\n"


def test_approve_runs_the_projects_action_once(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    review_id = held(project)

    first = main(["review", "approve", review_id, "--json"])
    told = json.loads(capsys.readouterr().out)
    second = main(["review", "approve", review_id, "--by", "bob"])

    assert (first, second) == (0, 2)
    assert (told["state"], told["decided_by"], told["result"]) == ("done", "ann", {"receipt": 17})
    assert "was approved by ann at" in capsys.readouterr().err
    assert paid(project) == ["trace-1: refund 900 EUR"]


def test_an_edited_answer_is_what_the_action_gets(project: Path) -> None:
    (project / "answer.txt").write_text("refund 90 EUR", encoding="utf-8")
    review_id = held(project)

    assert main(["review", "approve", review_id, "--output-file", "answer.txt"]) == 0

    assert paid(project) == ["trace-1: refund 90 EUR"]


def test_no_run_leaves_the_action_to_the_service(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    review_id = held(project)

    assert main(["review", "approve", review_id, "--no-run"]) == 0
    assert main(["review", "list", "--state", "approved", "--json"]) == 0

    assert [review["id"] for review in json.loads(capsys.readouterr().out)] == [review_id]
    assert paid(project) == []
    assert [main(["review", "resume", review_id]) for _ in range(2)] == [0, 0]
    assert paid(project) == ["trace-1: refund 900 EUR"]


def test_reject_needs_a_reason_and_keeps_the_action_from_running(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    review_id = held(project)

    assert main(["review", "reject", review_id]) == 2
    assert main(["review", "reject", review_id, "--reason", "wrong customer"]) == 0
    assert main(["review", "approve", review_id]) == 2

    assert "rejected by ann" in capsys.readouterr().err
    assert paid(project) == []


def test_an_action_that_cannot_be_imported_is_not_approved(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    review_id = held(project, "no_such_module:pay")

    assert main(["review", "approve", review_id]) == 2

    assert "no_such_module" in capsys.readouterr().err
    assert main(["review", "list", "--json"]) == 0
    assert [r["state"] for r in json.loads(capsys.readouterr().out)] == ["pending"]


def test_a_failed_action_is_told_and_runs_again_only_when_ordered(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    review_id = held(project, "shop_actions_of_test:fail")

    first = main(["review", "approve", review_id])
    without = main(["review", "approve", review_id])
    again = main(["review", "approve", review_id, "--again"])

    told = capsys.readouterr().err
    assert (first, without, again) == (2, 2, 2)
    assert r"ConnectionError: bank is \x1b[31mdown" in told
    assert "--again" in told


def test_show_has_input_answer_and_history(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    review_id = held(project, input={"text": "money back\u202e!"}, output="line one\nline\x07 two")
    main(["review", "reject", review_id, "--reason", "no", "--by", "bob"])

    assert main(["review", "show", review_id]) == 0
    text = capsys.readouterr().out
    assert main(["review", "show", review_id, "--json"]) == 0
    value = json.loads(capsys.readouterr().out)

    assert "    line one\n    line\\x07 two\n" in text
    assert r'"text": "money back\u202e!"' in text
    assert "rejected  bob no" in text
    assert value["record"]["input"] == {"text": "money back\u202e!"}
    assert [event["state"] for event in value["events"]] == ["pending", "rejected"]


def test_an_unknown_id_and_an_empty_store_are_told(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["review", "show", "x"]) == 2
    held(project)
    assert main(["review", "show", "x"]) == 2

    told = capsys.readouterr().err
    assert "nothing was ever held for review" in told
    assert "no review 'x'" in told


def test_a_store_at_a_url_has_no_reviews(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["review", "list", "--store", "s3://bucket/evalkit"]) == 2

    assert "folder of this machine" in capsys.readouterr().err
