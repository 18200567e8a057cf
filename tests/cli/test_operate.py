"""What cost, drift, dashboard and logs say of windows, features and files that are not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.cli.main import main
from evalkit.store.views import open_store
from tests.store.journal_lines import AT, call, plain

DAY = 86_400_000_000
LONG = ("--days", "3660")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with two days of calls, a file each."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evalkit.toml").write_text("", encoding="utf-8")
    store = open_store(tmp_path / ".evalkit")
    store.add_calls("log", [plain(call(trace_id=f"t-{n}", ts=AT + n * DAY)) for n in range(2)])
    return tmp_path


def cut_one(project: Path) -> Path:
    path = min((project / ".evalkit").glob("calls/date=*/*.parquet"))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-50])
    return path


@pytest.mark.parametrize(
    "command",
    [["cost", "--json"], ["dashboard", "--json", *LONG],
     ["dashboard", "--html", "page.html", *LONG], ["logs", "push", "file://{project}/bucket"]],
    ids=" ".join,
)  # fmt: skip
def test_where_calls_cannot_be_read_the_status_is_3(
    project: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    words = [word.format(project=project) for word in command]
    assert main(words) == 0
    path = cut_one(project)

    assert main(words) == 3

    assert f"{path.name} is damaged" in capsys.readouterr().err


def test_what_can_be_read_is_told_all_the_same(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_one(project)

    main(["cost", "--json"])

    assert json.loads(capsys.readouterr().out)["total"]["calls"] == 1


@pytest.mark.parametrize(
    "command", [["cost"], ["sample"], ["logs", "export"], ["dashboard", "--json"]], ids=" ".join
)
def test_a_window_that_ends_before_it_begins_is_a_mistake(
    project: Path, command: list[str]
) -> None:
    assert main([*command, "--since", "2026-03-02", "--until", "2026-03-01"]) == 2


@pytest.mark.parametrize("when", ["9999-12-31T23:59-12:00", "0001-01-01T00:00+14:00"])
def test_a_moment_that_no_calendar_has_in_utc_is_a_mistake(
    project: Path, capsys: pytest.CaptureFixture[str], when: str
) -> None:
    assert main(["cost", "--since", when]) == 2

    assert "is no moment" in capsys.readouterr().err


def test_drift_of_a_feature_that_nobody_has_is_a_mistake(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = call(trace_id="t").feature

    assert main(["drift", "--feature", known]) == 0
    assert main(["drift", "--feature", f"{known}s"]) == 2

    assert f"--feature {known}s: not in the configuration" in capsys.readouterr().err
