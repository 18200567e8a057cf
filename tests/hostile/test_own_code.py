"""Code of the user's own that ends the process: never green, never a regression."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit.cli.main import main
from tests.project import write_project

ENDS = ("sys.exit(0)", "sys.exit('x')", "raise SystemExit(1)", "exit()")


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A project with a check `own.py:check` that gates."""
    before = set(sys.modules)
    write_project(tmp_path, cases=3)
    header = tmp_path / "golden_sets/tickets/golden_set.yaml"
    own = "metrics:\n  - {name: own, check: python, function: 'own.py:check', gate: true}\n"
    header.write_text(header.read_text().replace("metrics:\n", own))
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("evalkit_check_"):
            del sys.modules[name]


def run(folder: Path, code: str) -> int:
    (folder / "golden_sets/tickets/own.py").write_text(f"import sys\n{code}")
    return main(["run", "--json", "--config", str(folder / "evalkit.toml")])


@pytest.mark.parametrize("ends", ENDS)
def test_a_check_that_ends_the_process_could_not_tell(
    project: Path, capsys: pytest.CaptureFixture[str], ends: str
) -> None:
    run(project, f"def check(answer):\n    {ends}\n")

    said = json.loads(capsys.readouterr().out)
    assert said["outcomes"] == {"check_error": 3}
    assert {one["metric"]: one["missing"] for one in said["metrics"]}["own"] == 3


def test_what_own_code_prints_is_not_among_the_json(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(project, "print('loaded')\ndef check(answer):\n    print('debug')\n    return True\n")

    printed = capsys.readouterr()
    assert json.loads(printed.out)["outcomes"] == {"scored": 3}
    assert printed.err.count("debug") == 3
    assert "loaded" in printed.err


@pytest.mark.parametrize("ends", ENDS)
def test_a_check_that_ends_the_process_when_it_is_loaded_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str], ends: str
) -> None:
    status = run(project, f"{ends}\n")

    assert status == 2
    assert "cannot be imported: SystemExit" in capsys.readouterr().err


def test_an_exception_without_a_text_is_a_check_error(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = """
class Mute(Exception):
    def __str__(self):
        raise ZeroDivisionError
def check(answer):
    raise Mute
"""

    run(project, code)

    assert json.loads(capsys.readouterr().out)["outcomes"] == {"check_error": 3}


@pytest.mark.parametrize("error", ["SystemExit(0)", "SystemExit(1)", "GeneratorExit"])
def test_whatever_ends_a_command_it_is_neither_green_nor_a_regression(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: str,
) -> None:
    """A rule of the configuration, which runs where no check is."""
    monkeypatch.syspath_prepend(str(project))
    (project / "rules_of_ours.py").write_text(f"def rule(facts):\n    raise {error}\n")
    config = project / "evalkit.toml"
    guard = '[guard]\noutput_rules = ["rules_of_ours:rule"]\n'
    config.write_text(config.read_text() + guard)

    status = run(project, "def check(answer):\n    return True\n")

    assert status == 3
    assert "error: " in capsys.readouterr().err
