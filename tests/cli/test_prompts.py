"""`evalkit prompts`: versions, their texts, and the one that somebody edited."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.call.prompts import PromptRegistry
from evalkit.cli.main import main
from evalkit.frozen import by_field
from evalkit.store.views import open_store
from tests.project import write_project
from tests.store.journal_lines import call, line, manifest


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_project(tmp_path, cases=1)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hash_of(project: Path, version: str) -> str:
    return PromptRegistry(project).get("classify", version).hash


def edit(project: Path, version: str) -> None:
    path = project / "prompts" / "classify" / f"{version}.md"
    path.write_text(path.read_text(encoding="utf-8").replace("Say", "Tell"), encoding="utf-8")


def test_list_shows_each_version_its_hash_and_its_users(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["prompts", "list", "--json"])

    first, second = json.loads(capsys.readouterr().out)["prompts"]
    assert status == 0
    assert (first["name"], first["version"]) == ("classify", "v1")
    assert first["hash"] == hash_of(project, "v1")
    assert first["used_by"] == ["feature classify"]
    assert (second["version"], second["used_by"]) == ("v2", [])


def test_a_version_edited_after_a_run_used_it_is_an_error_with_the_fix(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = {"classify@v1": hash_of(project, "v1"), "classify@v2": hash_of(project, "v2")}
    with open_store(project / ".evalkit").create_run(manifest() | {"prompts": prompts}) as writer:
        writer.append(line(1))
        writer.seal("complete")
    edit(project, "v1")

    status = main(["prompts", "list"])

    shown = capsys.readouterr()
    assert status == 2
    assert "EDITED" in shown.out.splitlines()[0]
    assert "EDITED" not in shown.out.splitlines()[1]
    assert "save the new text as v3" in shown.err


def test_a_version_edited_after_production_used_it_is_an_error_too(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = {"prompt_name": "classify", "prompt_version": "v2"}
    made = call(**prompt, prompt_hash=hash_of(project, "v2"))
    open_store(project / ".evalkit").add_calls("log-1", [by_field(made)])
    edit(project, "v2")

    status = main(["prompts", "list", "--json"])

    v1, v2 = json.loads(capsys.readouterr().out)["prompts"]
    assert status == 2
    assert v1["problem"] is None
    assert "prompts/classify/v2.md:1: has been edited" in v2["problem"]


def test_a_prompt_that_cannot_be_read_does_not_hide_the_others(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "prompts" / "classify" / "v2.md").write_text("no sections", encoding="utf-8")

    status = main(["prompts", "list"])

    shown = capsys.readouterr()
    assert status == 2
    assert shown.out.splitlines()[0].startswith("classify@v1")
    assert "UNUSABLE" in shown.out.splitlines()[1]


def test_show_prints_the_text_and_nothing_else_on_stdout(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["prompts", "show", "classify@v2"])

    text = (project / "prompts" / "classify" / "v2.md").read_text(encoding="utf-8")
    assert status == 0
    assert capsys.readouterr().out == text


def test_show_as_json_has_the_sections_with_their_lines(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["prompts", "show", "classify@v1", "--json"])

    shown = json.loads(capsys.readouterr().out)
    assert [section["role"] for section in shown["sections"]] == ["system", "user"]
    assert shown["sections"][1] == {"role": "user", "text": "{{ text }}", "line": 5}
    assert shown["path"] == "prompts/classify/v1.md"


def test_diff_shows_what_a_version_says_otherwise(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["prompts", "diff", "classify@v1", "v2", "--json"])

    shown = json.loads(capsys.readouterr().out)
    assert status == 0
    assert "-Prompt v1. Say which label fits." in shown["diff"]
    assert "+Prompt v2. Say which label fits." in shown["diff"]
    assert shown["after"]["prompt"] == "classify@v2"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "classify"], "not NAME@VERSION"),
        (["show", "classify@v9"], "there are: v1, v2"),
        (["diff", "clasify@v1", "v2"], 'Did you mean "classify"'),
    ],
)
def test_what_is_not_there_is_named_with_what_is(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    status = main(["prompts", *arguments])

    assert status == 2
    assert says in capsys.readouterr().err
