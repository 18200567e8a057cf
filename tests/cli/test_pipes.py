"""A reader that goes away, as `head` does, changes no exit status."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.decide.results import write_csv
from tests.project import write_project

CHECKOUT = Path(__file__).resolve().parent.parent.parent


def test_json_is_alone_in_a_pipe_whatever_the_application_prints(tmp_path: Path) -> None:
    write_project(tmp_path, target="app:chatty", cases=2)
    (tmp_path / "app.py").write_text(
        "def chatty(input):\n    print('debug')\n    return {'label': 'billing'}\n", "utf-8"
    )
    path = os.pathsep.join((str(CHECKOUT), str(tmp_path)))

    done = subprocess.run(
        [sys.executable, "-m", "evalkit", "run", "--json"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
    )

    assert json.loads(done.stdout)["done"] == 2, done.stderr
    assert done.stderr.count("debug") == 2


@pytest.mark.parametrize(("candidate", "status"), [(1, 0), (0, 1)], ids=["pass", "regression"])
@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_the_verdicts_status_stays(
    tmp_path: Path, candidate: int, status: int, closed: str
) -> None:
    for name, score in (("a.csv", 1), ("b.csv", candidate)):
        write_csv(tmp_path / name, [(f"c{n}", score) for n in range(100)])
    reading, writing = os.pipe()
    os.close(reading)
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, closed: writing}

    done = subprocess.run(
        [sys.executable, "-m", "evalkit", "gate", "--baseline", "a.csv", "--candidate", "b.csv"],
        cwd=tmp_path,
        **streams,  # type: ignore[call-overload]
    )

    os.close(writing)
    assert done.returncode == status


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["text", "json"])
def test_a_stream_that_was_closed_from_the_start_changes_no_status(
    tmp_path: Path, closed: str, as_json: list[str]
) -> None:
    for name, score in (("a.csv", 1), ("b.csv", 0)):
        write_csv(tmp_path / name, [(f"c{n}", score) for n in range(100)])
    command = [sys.executable, "-m", "evalkit", "gate", "--baseline", "a.csv"]

    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *command, "--candidate", "b.csv", *as_json],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("variable", "colored"), [("NO_COLOR=1", False), ("TERM=dumb", False), ("TERM=xterm", True)]
)
def test_a_terminal_gets_no_colour_where_none_is_wanted(
    tmp_path: Path, variable: str, colored: bool
) -> None:
    write_project(tmp_path, target="app:unused", cases=2)
    prompt = next(tmp_path.glob("prompts/*/*.md"))
    (prompt.parent / "other.md").write_text(prompt.read_text("utf-8") + "More.\n", "utf-8")
    name = prompt.parent.name
    terminal, inside = pty.openpty()
    plain = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}

    subprocess.run(
        [sys.executable, "-m", "evalkit", "prompts", "diff", f"{name}@{prompt.stem}", "other"],
        cwd=tmp_path,
        env=plain | {"TERM": "xterm"} | dict([variable.split("=")]),
        stdout=inside,
        check=True,
    )

    os.close(inside)
    said = os.read(terminal, 100_000)
    os.close(terminal)
    assert b"More." in said
    assert (b"\x1b[" in said) is colored
