"""`evalkit rescore`: what it takes and what it prints; see tests/test_rescoring.py for the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.cli.main import main
from tests.project import write_project


@pytest.fixture
def run_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.chdir(tmp_path)
    write_project(tmp_path)
    assert main(["run", "--json"]) == 0
    return str(json.loads(capsys.readouterr().out)["run_id"])


def test_it_prints_the_new_run_and_what_is_left_out(
    run_id: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = tmp_path / "golden_sets" / "tickets" / "cases.jsonl"
    lines = cases.read_text(encoding="utf-8").splitlines(keepends=True)
    cases.write_text("".join(lines[1:]), encoding="utf-8")

    status = main(["rescore", run_id])

    shown = capsys.readouterr()
    assert status == 0
    assert "9 of 9 cases" in shown.out
    assert "left out: tickets t-0000: gone" in shown.out
    assert "no model under test is called" in shown.err


def test_json_names_both_runs(run_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rescore", run_id, "--metric", "label", "--json"]) == 0

    document = json.loads(capsys.readouterr().out)
    assert document["rescored_from"] == run_id
    assert document["run_id"] != run_id
    assert document["status"] == "complete"


@pytest.mark.parametrize("arguments", [[], ["x" * 8, "--resume", "y" * 8], ["no-such-run"]])
def test_it_needs_one_run(
    run_id: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rescore", *arguments]) == 2
