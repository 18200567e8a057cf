"""`evalkit show`: cases, calls and runs by their names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from tests.project import case, write_project

Show = Callable[..., Any]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one run, in which every other case is wrong."""
    cases = [case(n) for n in range(6)] + [case(6, id="plain-case"), case(8, id="latest")]
    folder = write_project(
        tmp_path_factory.mktemp("ran"), target="tests.apps:always_billing", cases=cases
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run", "--json"]) == 0
    return folder


@pytest.fixture
def show(ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Show:
    monkeypatch.chdir(ran)
    capsys.readouterr()

    def run(*arguments: str) -> Any:
        assert main(["show", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_a_case_has_its_line_its_answer_and_its_scores(show: Show) -> None:
    page = show("t-0003")

    assert (page["kind"], page["golden_set"]) == ("case", "tickets")
    assert (page["file"], page["line"]) == ("golden_sets/tickets/cases.jsonl", 4)
    assert page["expected"] == {"label": "delivery"}
    assert json.loads(page["answer"]["output"]) == {"label": "billing"}
    assert [(one["metric"], one["score"]) for one in page["scores"]] == [
        ("label", 0.0), ("shape", 1.0),
    ]  # fmt: skip


def test_a_call_has_its_stages_attempts_versions_and_scores(show: Show) -> None:
    trace = show("t-0003")["scores"][0]["trace_id"]

    page = show(trace)

    assert (page["kind"], page["trace_id"], page["status"]) == ("trace", trace, "ok")
    assert page["prompt_version"] == "v1"
    assert "attempt" in page["stage_ms"]
    assert [one["provider"] for one in page["attempts"]] == ["app"]
    assert {one["case_id"] for one in page["scores"]} == {"t-0003"}


def test_a_run_has_its_metrics_and_the_cases_that_scored_least(show: Show) -> None:
    page = show("latest", "--as", "run")

    means = {one["metric"]: one["mean"] for one in page["metrics"]}
    assert (page["kind"], page["status"], means["label"]) == ("run", "complete", 0.625)
    assert [one["case_id"] for one in page["least"]] == ["t-0001", "t-0003", "t-0005"]
    assert show(page["run_id"])["run_id"] == page["run_id"]


def test_a_name_that_is_several_things_asks_which(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ran)

    assert main(["show", "latest"]) == 2

    assert "is a case and a run. Say which: --as case" in capsys.readouterr().err


def test_a_name_that_is_nothing_says_where_it_was_looked_for(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ran)

    assert main(["show", "t-9999"]) == 2

    said = capsys.readouterr().err
    assert "t-9999" in said
    assert ".evalkit" in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("plain-case", "golden_sets/tickets/cases.jsonl:7"),
        ("latest", "cases that scored least"),
    ],
)
def test_people_get_a_page(
    ran: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    name: str, said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(ran)
    kind = "case" if name == "plain-case" else "run"

    assert main(["show", name, "--as", kind]) == 0

    assert said in capsys.readouterr().out


def test_control_characters_of_an_answer_are_shown_as_escapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(tmp_path, cases=[case(0, metadata={"note": "\x1b[2Jcleared\u202e"})])
    monkeypatch.chdir(tmp_path)

    assert main(["show", "t-0000"]) == 0

    said = capsys.readouterr().out
    assert "\x1b[2J" not in said
    assert "\u202e" not in said
    assert "no scores yet: evalkit run" in said
