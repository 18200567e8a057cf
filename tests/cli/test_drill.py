"""`evalkit drill failover`: what a team sees before an outage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.cli.main import main
from tests.project import write_project

TWO_MODELS = """
[providers.other]
wire = "python"
target = "tests.apps:by_rule"

[models.spare]
provider = "other"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_project(tmp_path, cases=1, feature='fallbacks = ["spare"]')
    config = tmp_path / "evalkit.toml"
    config.write_text(config.read_text(encoding="utf-8") + TWO_MODELS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_fault_is_a_line_and_all_is_as_the_table_says(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["drill", "failover"])

    lines = capsys.readouterr().out.splitlines()
    assert status == 0
    assert lines[0] == "classify: small (app) -> spare (other)"
    server = next(line for line in lines if line.strip().startswith("server"))
    assert server.split() == ["server", "3", "spare", "ok", "yes"]


def test_json_says_who_answered_and_what_was_expected(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["drill", "failover", "--feature", "classify", "--json"])

    shown = json.loads(capsys.readouterr().out)
    assert status == 0
    assert shown["as_expected"] is True
    drills = {one["kind"]: one for one in shown["features"][0]["drills"]}
    assert drills["connect"]["attempts"] == 3
    assert drills["connect"]["answered_by"] == "spare"
    assert drills["connect"]["expected"] == {"failed": [2, 2], "answered_by": "spare"}


def test_a_fallback_that_shares_the_outage_fails_the_drill(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = project / "evalkit.toml"
    text = config.read_text(encoding="utf-8").replace('provider = "other"', 'provider = "app"')
    config.write_text(text, encoding="utf-8")

    status = main(["drill", "failover"])

    shown = capsys.readouterr()
    assert status == 1
    assert "NO: spare after 3 failed (spare is at the same provider, app)" in shown.out
    assert "marked NO" in shown.err


def test_a_drill_stores_nothing(project: Path) -> None:
    before = sorted(project.rglob("*"))

    main(["drill", "failover"])

    assert sorted(project.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--feature", "clasify"], "no such feature. There are: classify"),
        (["--input", "{"], "--input: not valid JSON"),
    ],
)
def test_what_cannot_be_drilled_is_said(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    status = main(["drill", "failover", *arguments])

    assert status == 2
    assert says in capsys.readouterr().err


def test_a_feature_without_a_case_needs_an_input(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "golden_sets" / "tickets" / "golden_set.yaml").unlink()

    without = main(["drill", "failover"])
    says = capsys.readouterr().err
    with_input = main(["drill", "failover", "--input", '{"text": "billing"}'])

    assert without == 2
    assert "--input" in says
    assert with_input == 0
