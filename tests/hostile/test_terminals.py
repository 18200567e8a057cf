"""What files of others say reaches a terminal as text, in whatever message it stands."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evalkit.cli.main import main
from evalkit.errors import ConfigError, GoldenSetError, InputFileError
from evalkit.store.views import open_store
from tests.project import case, write_project

ORDER = "\x1b]52;c;QQ==\x07\u202e\x9b2J\r\n::error::x"
"""Fills the clipboard, turns the text, clears the screen, begins a line that GitHub obeys."""


def _slices(folder: Path) -> None:
    write_project(folder, cases=[case(0, metadata={ORDER: "x"})], header="slices: [channel]")


def _schema(folder: Path) -> None:
    check = {"name": "shape", "check": "json_schema", "schema": ORDER}
    write_project(folder, cases=[case(0, checks=[check])])


def _prompt(folder: Path) -> None:
    write_project(folder, cases=1)
    text = f'## user\n{{{{ input["{ORDER[:8]}"] }}}}\n'
    (folder / "prompts/classify/v1.md").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("made", [_slices, _schema, _prompt])
def test_a_problem_is_told_on_its_own_line_without_orders(
    made: Callable[[Path], None],
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    made(tmp_path)

    assert main([command]) == 2

    said = "".join(capsys.readouterr())
    assert "\\x1b]52" in said
    assert all(char.isprintable() for char in said.replace("\n", ""))
    assert "\n::error" not in said


def test_the_name_of_a_call_is_shown_without_orders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, store = tmp_path / "log.jsonl", tmp_path / "store"
    row = {"trace_id": f"t{ORDER}", "feature": "f", "ts": datetime.now(UTC).isoformat()}
    log.write_text(json.dumps(row), encoding="utf-8")
    assert main(["logs", "import", str(log), "--format", "evalkit", "--store", str(store)]) == 0
    capsys.readouterr()

    assert main(["show", row["trace_id"], "--store", str(store)]) == 0

    assert capsys.readouterr().out.startswith("call t\\x1b]52")


def test_a_baseline_that_was_brought_along_is_listed_without_orders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_store(tmp_path).baselines.choose({(ORDER, "f"): "r-1"}, seen={})

    assert main(["baseline", "list", "--store", str(tmp_path)]) == 0

    assert capsys.readouterr().out.startswith("\\x1b]52")


def test_errors_keep_their_own_lines_alone() -> None:
    assert str(GoldenSetError(["a\nb", "c"])) == "a\\nb\nc"
    assert str(ConfigError("a\nb\x1b")) == "a\nb\\x1b"
    assert str(InputFileError("a\n\tb\x07")) == "a\n\tb\\x07"
