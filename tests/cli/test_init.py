"""`evalkit init`: a project that runs, gates and passes, and files that stay as they are."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from evalkit.cli.init import FIRST_PROMPT, GOLDEN_SET, PROJECT, WORKFLOWS
from evalkit.cli.main import main
from evalkit.config import load_settings
from evalkit.content import content_dirs
from evalkit.store.views import open_store


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_three_commands_lead_from_nothing_to_a_verdict(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert main(["check"]) == 0
    assert main(["run", "--json"]) == 0
    capsys.readouterr()
    assert main(["gate", "--json"]) == 0

    verdict = json.loads(capsys.readouterr().out)
    gating = [one for one in verdict["comparisons"] if one["gate"]]
    assert verdict["verdict"] == "pass"
    assert {one["baseline"]["run_id"] for one in gating} == {made["baseline_run"]}
    assert min(one["delta"] for one in gating) > 0.05


def test_a_careless_edit_of_the_new_prompt_fails_the_gate(here: Path) -> None:
    main(["init"])
    main(["run"])
    main(["baseline", "set", "latest"])
    shorter = here / "prompts/answer-question/v3.md"
    shorter.write_text((here / "prompts/answer-question/v1.md").read_text())

    main(["run", "--prompt", "answer-question@v3"])

    assert main(["gate"]) == 1


def test_a_file_that_is_there_stays_and_is_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "evalkit.toml").write_text("# mine\n")
    (here / ".gitignore").write_text("mine/\n")

    assert main(["init", "--json"]) == 0

    made = json.loads(capsys.readouterr().out)
    assert made["kept"] == ["evalkit.toml", ".gitignore"]
    assert (here / "evalkit.toml").read_text() == "# mine\n"
    assert made["baseline_run"] is None
    assert not (here / ".evalkit").exists()


@pytest.mark.parametrize(
    ("lines", "advised"), [("mine/\n", True), (".evalkit/\n", False), ("/.evalkit\n", False)]
)
def test_what_gitignore_lacks_is_said_and_only_that(
    here: Path, capsys: pytest.CaptureFixture[str], lines: str, advised: bool
) -> None:
    (here / ".gitignore").write_text(lines)

    assert main(["init", "--no-run"]) == 0

    assert ("add to it: .evalkit/" in capsys.readouterr().out) is advised


def test_what_to_do_next_is_said_with_the_folder(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "my app", "--no-run"]) == 0

    said = capsys.readouterr().out
    assert "cd 'my app'" in said
    assert f"evalkit run --prompt {FIRST_PROMPT}" in said
    assert "wrote prompts/answer-question/v2.md" in said


def test_the_first_run_is_the_chosen_baseline(here: Path) -> None:
    main(["init", "new"])

    store = open_store(here / "new/.evalkit")

    assert store.baselines.all() == {GOLDEN_SET: store.runs()[0]["run_id"]}


def test_a_folder_that_cannot_be_made_is_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "file").write_text("")

    assert main(["init", "file/inside"]) == 2
    assert "file/inside" in capsys.readouterr().err


def test_a_full_disk_leaves_no_half_of_a_file(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Path.open

    def full(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if mode != "x" or self.name != "cases.jsonl":
            return plain(self, mode, *args, **options)
        self.touch()
        return plain(Path("/dev/full"), "w", encoding="utf-8")

    monkeypatch.setattr(Path, "open", full)

    assert main(["init"]) == 3
    assert "cases.jsonl: cannot be written: No space left" in capsys.readouterr().err
    assert not (here / "golden_sets/library-help/cases.jsonl").exists()


def test_workflows_come_only_when_asked_for_and_name_this_version(here: Path) -> None:
    main(["init", "plain", "--no-run"])
    main(["init", "ci", "--no-run", "--ci", "github"])

    assert not (here / "plain/.github").exists()
    assert set(WORKFLOWS) == {
        str(path.relative_to(here / "ci")) for path in (here / "ci/.github").rglob("*.yml")
    }
    assert "EVALKIT_VERSION" not in (here / "ci/.github/workflows/evalkit-gate.yml").read_text()


CONFIGURATIONS = {
    "evalkit.toml": 'store = ".evalkit"\n',
    "pyproject.toml": '[tool.evalkit]\nstore = ".evalkit"\n',
}


@pytest.mark.parametrize(("name", "text"), CONFIGURATIONS.items(), ids=CONFIGURATIONS)
def test_a_project_that_is_there_gets_the_workflows_alone(
    here: Path, name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / name).write_text(text)

    assert main(["init", "--ci", "github"]) == 0

    found = {str(path.relative_to(here)) for path in here.rglob("*") if path.is_file()}
    assert found == {name, *WORKFLOWS}
    assert "library-help" not in capsys.readouterr().out


def test_a_configuration_in_pyproject_is_not_hidden_by_a_new_one(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "pyproject.toml").write_text(CONFIGURATIONS["pyproject.toml"])

    assert main(["init", "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["baseline_run"] is None
    assert not (here / "evalkit.toml").exists()


def test_every_template_belongs_to_some_project() -> None:
    (folder,) = content_dirs("scaffold", project=Path("/nowhere"))[:1]

    known = {*PROJECT.values(), *WORKFLOWS.values(), "project/gitignore"}

    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == known


def test_a_repository_whose_default_branch_is_not_main_is_scaffolded_for_it(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GIT_DIR", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    subprocess.run(["git", "init", "-q", "-b", "master", str(here)], check=True)

    main(["init", "new", "--no-run", "--ci", "github"])

    gate = (here / "new/.github/workflows/evalkit-gate.yml").read_text()
    assert yaml.safe_load(gate)[True]["push"]["branches"] == ["master"]
    assert load_settings(here / "new/evalkit.toml").gate.default_branch == "master"


def test_without_a_repository_the_default_branch_is_main(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(here))

    main(["init", "--no-run", "--ci", "github"])

    assert "branches: [main]" in (here / ".github/workflows/evalkit-gate.yml").read_text()
    assert "default_branch" not in (here / "evalkit.toml").read_text()
