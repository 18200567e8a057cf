"""`evalkit run`: what the configuration's `[run]` says where the command does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.store.views import open_store
from tests.loopback import Loopback
from tests.project import write_project


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Loopback) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_project(tmp_path, base_url=f"{server.url}/v1", cases=20)


def configure(project: Path, text: str) -> None:
    config = project / "evalkit.toml"
    config.write_text(config.read_text("utf-8").replace("[run]", f"[run]\n{text}"), "utf-8")


def run(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    capsys.readouterr()
    main(["run", "--json", *options])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def manifest(project: Path, run_id: str) -> dict[str, Any]:
    path = project / ".evalkit" / "runs" / run_id / "manifest.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def test_the_seed_is_the_commands_else_the_configurations(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(project, "seed = 7")

    configured = run(capsys, "--limit", "5")
    given = run(capsys, "--limit", "5", "--seed", "0")

    assert manifest(project, configured["run_id"])["seed"] == 7
    assert manifest(project, given["run_id"])["seed"] == 0


def test_the_configurations_limit_of_money_stops_a_run(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(project, "max_cost_usd = 0.0012\nconcurrency = 1")

    stopped = run(capsys)
    allowed = run(capsys, "--max-cost", "1")

    assert stopped["stopped"] == "budget_stop"
    assert 0 < stopped["done"] < 20
    assert allowed["done"] == 20


def test_a_run_out_of_money_says_that_it_goes_on_with_more(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["run", "--max-cost", "0.0012", "--concurrency", "1"])

    (run_id,) = (one.name for one in (project / ".evalkit" / "runs").iterdir())
    hint = f"stopped at --max-cost; go on with: evalkit run --resume {run_id} --max-cost MORE"
    assert hint in capsys.readouterr().out


def test_a_run_goes_on_with_what_it_was_started_with(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(project, "seed = 7")
    begun = run(capsys, "--limit", "8", "--max-cost", "0.0012", "--concurrency", "1")
    configure(project, "max_cost_usd = 0.0001")
    text = (project / "evalkit.toml").read_text("utf-8")
    (project / "evalkit.toml").write_text(text.replace("seed = 7", "seed = 8"), encoding="utf-8")

    ended = run(capsys, "--resume", begun["run_id"], "--max-cost", "1")

    assert begun["stopped"] == "budget_stop"
    assert (ended["status"], ended["done"], ended["resumed"]) == ("complete", 8, begun["done"])
    assert manifest(project, ended["run_id"])["seed"] == 7


def copied(project: Path, place: str, name: str | None = None) -> Path:
    """The project's golden set once more, below golden_sets/."""
    copy = project / "golden_sets" / place
    shutil.copytree(project / "golden_sets" / "tickets", copy)
    if name is not None:
        header = copy / "golden_set.yaml"
        header.write_text(header.read_text("utf-8").replace("name: tickets", f"name: {name}"))
    return copy


def test_two_golden_sets_of_one_name_are_run_by_nobody(
    project: Path, server: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    copied(project, "again")

    assert main(["run"]) == 2

    said = capsys.readouterr().err
    assert 'golden_sets/again/golden_set.yaml is called "tickets" too. Rename one' in said
    assert server.stats.requests == 0


def test_a_golden_set_in_a_folder_of_folders_is_known_by_its_own_name(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied(project, "sub/deep/two", "two")

    found = run(capsys, "two", "--limit", "2")
    assert {metric["golden_set"] for metric in found["metrics"]} == {"two"}
    assert main(["run", "tiket"]) == 2
    assert 'Did you mean "tickets"?' in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "purge"])
def test_a_store_at_an_address_is_refused_and_no_folder_is_made_of_it(
    project: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    status = main([command, "--store", "s3://bucket/folder"])

    assert status == 2
    assert "only a folder can be a store" in capsys.readouterr().err
    assert not (project / "s3:").exists()


def test_slices_have_their_values_as_the_cases_write_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    metadata = {"new": True, "level": 1, "share": 0.5, "city": "Zürich"}
    case = {"id": "t-1", "input": "a", "expected": {"label": "x"}, "metadata": metadata}
    write_project(tmp_path, cases=[case], header="slices: [new, level, share, city]")

    main(["run"])

    [row] = open_store(tmp_path / ".evalkit").sql("SELECT DISTINCT slices FROM scores")
    assert dict(row["slices"]) == {"new": "true", "level": "1", "share": "0.5", "city": "Zürich"}
