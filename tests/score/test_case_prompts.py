"""A case whose prompt would have gaps is known before the first call, whatever its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.store.views import open_store
from tests.project import case, write_project


def project(folder: Path, inputs: Mapping[int, Any], *, user: str = "{{ text }}") -> Path:
    cases = [case(n, **({"input": inputs[n]} if n in inputs else {})) for n in range(30)]
    if not (folder / "evalkit.toml").exists():
        write_project(folder, cases=1)
    lines = "".join(json.dumps(one) + "\n" for one in cases)
    (folder / "golden_sets/tickets/cases.jsonl").write_text(lines)
    prompt = folder / "prompts/classify/v1.md"
    prompt.write_text(f"## system\nSay which label fits.\n\n## user\n{user}\n")
    return folder


def run(folder: Path, *argv: str) -> int:
    return main(["run", "--config", str(folder / "evalkit.toml"), *argv])


def test_all_of_them_are_named_and_nothing_is_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project(tmp_path, {17: {"other": "x"}, 25: {}})

    status = run(folder)

    said = capsys.readouterr().err
    assert status == 2
    assert "cases.jsonl:18: case t-0017: prompts/classify/v1.md:5" in said
    assert "cases.jsonl:26: case t-0025: " in said
    assert not (folder / ".evalkit").exists()


def test_a_prompt_that_branches_is_filled_for_every_case(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user = '{{ text }}{% if channel == "mail" %}{{ order }}{% endif %}'
    inputs: dict[int, Any] = {
        n: {"text": f"a question on billing {n}", "channel": "phone"} for n in range(30)
    }
    inputs[23] = {"text": "a question on billing", "channel": "mail"}

    status = run(project(tmp_path, inputs, user=user))

    assert status == 2
    assert "cases.jsonl:24: case t-0023: " in capsys.readouterr().err


def test_a_gap_deep_in_the_input_is_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs: dict[int, Any] = {n: {"mail": {"text": "on billing"}} for n in range(30)}
    inputs[9] = {"mail": {"txt": "on billing"}}

    status = run(project(tmp_path, inputs, user="{{ mail.text }}"))

    assert status == 2
    assert "cases.jsonl:10: case t-0009: " in capsys.readouterr().err


def test_a_case_that_does_not_run_is_not_asked_for(tmp_path: Path) -> None:
    drawn = ("--limit", "5", "--seed", "1")
    folder = project(tmp_path, {})
    assert run(folder, *drawn) == 0
    rows = open_store(folder / ".evalkit").sql("SELECT DISTINCT case_id FROM scores")
    ran = {row["case_id"] for row in rows}
    other = next(n for n in range(30) if case(n)["id"] not in ran)

    project(folder, {other: {"other": "x"}})

    assert len(ran) == 5
    assert run(folder, *drawn) == 0
    assert run(folder) == 2


def test_a_retriever_may_still_find_the_documents(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = project(tmp_path, {}, user="{{ text }}{{ documents }}")
    (folder / "documents").mkdir()
    line = json.dumps({"id": "d", "text": "a question on billing"})
    (folder / "documents" / "d.jsonl").write_text(line + "\n")
    config = folder / "evalkit.toml"
    config.write_text(
        config.read_text().replace("max_tokens", 'retriever = "documents"\nmax_tokens')
    )

    status = main(["check", "--config", str(config)])

    assert status == 0, capsys.readouterr().out
