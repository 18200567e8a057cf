"""What is wrong with a golden set: where, what, and what would be right.

A problem is a value until all of them are known; then they are shown together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from evalkit.strict import StrictError, real_path

MAX_PROBLEMS = 200
"""Of one golden set; a file of another kind would have one a line."""

_BEFORE_FIX = re.compile(r"[.?] (?=[A-Z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong, at one line of one file; as text `file:line: problem. fix`."""

    file: str
    line: int
    problem: str
    fix: str = ""
    case_id: str | None = None

    def __str__(self) -> str:
        case = f"case {self.case_id}: " if self.case_id is not None else ""
        fix = f" {self.fix}" if self.fix else ""
        end = "" if fix.endswith((".", "?")) else "."
        return f"{self.file}:{self.line}: {case}{self.problem}{'.' if fix else ''}{fix}{end}"


def strict_problem(error: StrictError, *, file: str, fix: str = "") -> Problem:
    """A text that could not be read; `fix` is for where the error has no advice of its own."""
    problem, own_fix = split_fix(error.message)
    return Problem(file=file, line=error.line, problem=problem, fix=own_fix or fix)


def split_fix(message: str) -> tuple[str, str]:
    """`problem. Fix` as its two parts; the second is empty where there is no advice."""
    found = _BEFORE_FIX.search(message)
    if found is None:
        return message.rstrip("."), ""
    return message[: found.start()], message[found.end() :]


def shown_path(path: Path, *, root: Path) -> str:
    """A path as people know it: from the project's root where it is inside, else whole."""
    resolved, base = real_path(path), real_path(root)
    return str(resolved.relative_to(base)) if resolved.is_relative_to(base) else str(path)
