"""Commands that take a run where what they need is damaged: named, kept, exit status 3."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from evalkit.cli.main import main
from evalkit.store.views import open_store
from tests.project import write_project

TAKES_A_RUN = [
    ["show", "RUN"],
    ["rescore", "RUN"],
    ["report", "RUN", "-o", "page.html"],
    ["baseline", "set", "RUN"],
    ["label", "queue", "RUN", "--metric", "label"],
]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two runs."""
    folder = write_project(
        tmp_path_factory.mktemp("ran"), target="tests.apps:always_billing", cases=4
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run"]) == 0
        assert main(["run"]) == 0
    return folder


@pytest.fixture
def project(ran: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(ran, folder)
    monkeypatch.chdir(folder)
    return folder


def runs_of(project: Path) -> list[str]:
    """Ids, the newest first."""
    return [run["run_id"] for run in open_store(project / ".evalkit").runs()]


def cut(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-50])


def manifest(project: Path, run_id: str) -> Path:
    return project / ".evalkit" / "runs" / run_id / "manifest.json"


@pytest.mark.parametrize("command", TAKES_A_RUN, ids=lambda words: words[0])
@pytest.mark.parametrize("name", ["latest", "its id"])
@pytest.mark.parametrize("of", ["the newest run", "all runs"])
def test_a_run_whose_manifest_is_damaged_is_named_and_no_other_taken(
    project: Path, capsys: pytest.CaptureFixture[str], command: list[str], name: str, of: str
) -> None:
    newest, older = runs_of(project)
    for run_id in (newest,) if of == "the newest run" else (newest, older):
        cut(manifest(project, run_id))
    named = newest if name == "its id" else name

    status = main([named if word == "RUN" else word for word in command])

    assert status == 3
    assert f"{newest}/manifest.json is damaged" in capsys.readouterr().err


def test_a_gate_of_damaged_runs_alone_names_them(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest, older = runs_of(project)
    cut(manifest(project, newest))
    cut(manifest(project, older))

    status = main(["gate", "--json"])

    said = capsys.readouterr().out
    assert status == 3
    assert f"run {newest} cannot be read" in said
    assert f"{newest}/manifest.json is damaged" in said


def test_a_shard_whose_manifest_is_damaged_is_named(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest, _ = runs_of(project)
    cut(manifest(project, newest))

    assert main(["merge", newest]) == 3
    assert f"{newest}/manifest.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [["show", "RUN"], ["show", "latest"], ["show", "t-0001"], ["show", "no-such-name"],
     ["report", "RUN", "-o", "page.html"], ["report", "latest", "-o", "page.html"]],
    ids=lambda words: " ".join(words[:2]),
)  # fmt: skip
def test_damaged_scores_are_named_and_missed(
    project: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    newest, _ = runs_of(project)
    cut(project / ".evalkit" / "scores" / f"run={newest}.parquet")

    status = main([newest if word == "RUN" else word for word in command])

    assert status == 3
    assert f"run={newest}.parquet is damaged" in capsys.readouterr().err


def test_a_run_is_not_disturbed_by_another_that_is_damaged(project: Path) -> None:
    newest, older = runs_of(project)
    cut(manifest(project, newest))

    assert main(["show", older]) == 0
    assert main(["report", older, "-o", "page.html"]) == 0
    assert main(["rescore", older]) == 0


def test_a_name_that_nobody_has_is_a_mistake_of_the_command_line(project: Path) -> None:
    newest, _ = runs_of(project)
    cut(manifest(project, newest))

    assert main(["show", "no-such-run", "--as", "run"]) == 2
    assert main(["rescore", "no-such-run"]) == 2
