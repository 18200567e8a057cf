"""The coverage benchmark of labels and judge together runs, holds, and can fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import ppi_coverage


def test_short_coverage_holds_its_bounds_and_is_shorter_than_labels_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"

    code = ppi_coverage.main(["--short", "--json", str(figures)])

    lines = json.loads(figures.read_text(encoding="utf-8"))
    printed = capsys.readouterr().out
    assert code == 0
    assert "| two versions, bias moved by 10 points | 9" in printed
    assert len(lines) == len(ppi_coverage.WORLDS)
    assert all(line["width"] < line["labels_width"] for line in lines if line["helps"])
    assert any(line["judge_covers"] < 0.1 for line in lines)


def test_an_interval_that_misses_too_often_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ppi_coverage, "LOW", 0.999)

    code = ppi_coverage.main(["--replicates", "200"])

    assert code == 1
    assert "| NO |" in capsys.readouterr().out
