"""`evalkit report`: which verdict it shows, what it writes, what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.cli.main import main
from evalkit.store.views import Store
from tests.decide.report_world import (
    BASELINE,
    CANDIDATE,
    comparison,
    little_store,
    passed,
    verdict,
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    return little_store(tmp_path / "store")


def report(*arguments: str) -> int:
    return main(["report", *arguments, "-o", "r.html", "--store", "store"])


def test_the_newest_kept_verdict_on_the_run_is_shown(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.save_verdict("0001", verdict(comparison()))
    other = comparison(candidate={**comparison()["candidate"], "run_id": "run-other"})
    store.save_verdict("0002", verdict(passed(), word="pass"))
    store.save_verdict("0003", verdict(other))

    status = report(CANDIDATE, "--json")

    assert status == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"path": "r.html", "runs": [CANDIDATE], "verdict": "pass"}
    assert "No significant drop" in Path("r.html").read_text("utf-8")


def test_with_a_baseline_it_is_compared_now(store: Store) -> None:
    store.save_verdict("0001", verdict(passed(), word="pass"))

    status = report(CANDIDATE, "--baseline", BASELINE)

    assert status == 0
    html = Path("r.html").read_text("utf-8")
    assert "No significant drop" not in html
    assert "0.500" in html


def test_without_any_baseline_metrics_are_shown(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    status = report(BASELINE, "--json")

    assert status == 0
    assert json.loads(capsys.readouterr().out)["verdict"] is None
    assert "no baseline to compare with" in Path("r.html").read_text("utf-8")


def test_without_any_baseline_a_second_report_says_the_same(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    first = report(BASELINE, CANDIDATE, "--json"), capsys.readouterr().out

    second = report(BASELINE, CANDIDATE, "--json"), capsys.readouterr().out

    assert first == second
    assert json.loads(second[1])["verdict"] is None


def test_a_run_that_is_not_there_is_a_usage_error(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    status = report("run-nowhere")

    assert status == 2
    assert "run-nowhere" in capsys.readouterr().err
    assert not Path("r.html").exists()


def test_a_file_that_cannot_be_written_is_named(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("r.html").mkdir()

    status = report(CANDIDATE)

    assert status == 2
    assert "r.html" in capsys.readouterr().err
