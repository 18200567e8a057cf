"""The processes of a build: `evalkit run` and `evalkit gate`, each with its --json read.

They see no token of the job, and while they print, GitHub takes no line for a command.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from evalkit.cli.ci_github import commands_off, for_code_under_test

LOOK_S = 0.05
BEGIN_S = 60.0
"""How long the second of two waits for the first to begin."""

Printed: TypeAlias = tuple[int, dict[str, Any] | None]
"""Exit status, and what was printed, if it was JSON."""


class Command(NamedTuple):
    """`evalkit ARGUMENTS` in a folder."""

    arguments: tuple[str, ...]
    cwd: Path


class Commands:
    """Runs them."""

    def __init__(self, say: Callable[[str], object], *, on_github: bool) -> None:
        self._say, self._on_github = say, on_github

    def run(self, command: Command) -> Printed:
        with commands_off(self._say, on=self._on_github):
            return _ended(_start(command))

    def side_by_side(
        self, first: Command, second: Command, *, begun: Callable[[], bool]
    ) -> tuple[Printed, Printed]:
        """Both at once; the second as soon as the first has `begun`, or ended."""
        with commands_off(self._say, on=self._on_github):
            earlier = _start(first)
            until = time.monotonic() + BEGIN_S
            while earlier.poll() is None and not begun() and time.monotonic() < until:
                time.sleep(LOOK_S)
            later = _ended(_start(second))
            return _ended(earlier), later


def _start(command: Command) -> subprocess.Popen[str]:
    name, *rest = command.arguments
    line = [sys.executable, "-m", "evalkit", name, "--json", *rest]
    env = for_code_under_test()
    return subprocess.Popen(line, cwd=command.cwd, env=env, stdout=subprocess.PIPE, text=True)


def _ended(process: subprocess.Popen[str]) -> Printed:
    with process:
        printed, _ = process.communicate()
    try:
        found = json.loads(printed)
    except ValueError:
        found = None
    return process.returncode, found if isinstance(found, dict) else None
