"""`evalkit ci gate` off GitHub: what stands in the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.cli.main import main


def test_what_keeps_it_from_comparing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)

    status = main(["ci", "gate"])

    said = capsys.readouterr().out
    verdict = json.loads((tmp_path / "evalkit-ci" / "verdict.json").read_text())
    assert status == 2
    assert "evalkit init" in said
    assert said.splitlines()[1:] == verdict["notes"]
