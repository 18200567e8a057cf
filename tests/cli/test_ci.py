"""`evalkit ci gate` off GitHub: what stands in the terminal."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

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


def test_what_an_earlier_build_left_is_not_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("GITHUB_OUTPUT", str(outputs))
    out = tmp_path / "evalkit-ci"
    (out / "scores").mkdir(parents=True)
    for name in ("report.html", "baseline.zip", "scores/run=1.parquet", "scores/mine", "notes"):
        (out / name).write_text("old")

    main(["ci", "gate"])

    written = outputs.read_text()
    assert "report.html" not in written
    assert "baseline.zip" not in written
    left = {path.name for path in out.rglob("*") if path.is_file() and path.read_text() == "old"}
    assert left == {"mine", "notes"}


def test_a_build_that_compared_nothing_leaves_an_error_where_ci_systems_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    main(["ci", "gate"])

    (case,) = ElementTree.parse("evalkit-ci/junit.xml").getroot()
    (result,) = json.loads(Path("evalkit-ci/results.sarif").read_text())["runs"][0]["results"]
    assert "evalkit init" in str(case[0].get("message"))
    assert (case[0].tag, result["level"]) == ("error", "error")
    assert "evalkit init" in result["message"]["text"]


@pytest.mark.parametrize("event", ["[]", "{", None])
def test_an_event_that_cannot_be_read_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    event: str | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_REPOSITORY", "shop/app")
    monkeypatch.setenv("GITHUB_EVENT_PATH", str(tmp_path / "event.json"))
    if event is not None:
        (tmp_path / "event.json").write_text(event)

    main(["ci", "gate"])

    (said,) = [one for one in capsys.readouterr().out.splitlines() if "GITHUB_EVENT_PATH" in one]
    assert said.startswith("::warning title=evalkit::")
    assert "no base commit is known" in said
