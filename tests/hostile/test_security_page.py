"""SECURITY.md promises nothing that no test shows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "SECURITY.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def test_every_test_that_is_named_exists() -> None:
    named = NAMED.findall(PAGE.read_text(encoding="utf-8"))

    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).exists() or test not in functions_of(ROOT / file)
    ]
    assert len(named) > 40
    assert not missing


def test_every_line_of_what_is_promised_names_one() -> None:
    promised = PAGE.read_text(encoding="utf-8").partition("## What is promised")[2]
    lines = [line for line in promised.splitlines() if line.startswith("|")]
    rows = [line for line in lines if not line.startswith(("| line", "| ---"))]

    assert rows
    assert [row for row in rows if not NAMED.search(row)] == []
