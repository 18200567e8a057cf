"""Arrows go down only: which file of the package may import which."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "evalkit"

FLOORS = [
    "errors", "git", "ids", "frozen", "records", "strict", "json_schema", "schemas", "national_ids",
    "plain_text", "json_bytes", "pii", "redaction", "content", "settings", "prices",
    "config_checks", "config",
]  # fmt: skip
"""Every file may use these, each only those before it (and itself)."""

MAY_IMPORT = {
    "call": {"call"},
    "store": {"store"},
    "score": {"score", "call", "store"},
    "decide": {"decide", "store"},
    "exchange": {"exchange", "store", "score"},
    "wiring": {"call", "store", "score"},
    "merging": {"score", "store"},
    "forgetting": {"call", "score", "store"},
    "session": {"call", "store", "score", "wiring", ""},
    "log_sampling": {"call", "store", "score", "wiring", "session", ""},
    "rescoring": {"call", "store", "score", "wiring", "session", ""},
    "cluster": {"cluster", "call", "score", "wiring", "session", "log_sampling", ""},
    "local_page": {"local_page"},
    "labelling": {"labelling", "local_page", "call", "store", "score", "decide"},
    "dashboard": {"dashboard", "local_page", "call", "store", "score", "decide"},
    "cli": {
        "cli",
        "call",
        "store",
        "score",
        "decide",
        "exchange",
        "labelling",
        "dashboard",
        "wiring",
        "session",
        "rescoring",
        "log_sampling",
        "merging",
        "forgetting",
        "cluster",
        "",
    },
    "pytest_options": set(),
    "testing": {"score"},
    "pytest_plugin": {"pytest_session", "pytest_options", "call", ""},
    "pytest_session": {
        "pytest_session",
        "pytest_options",
        "call",
        "store",
        "score",
        "decide",
        "wiring",
        "session",
    },
    "__main__": {"cli"},
}
"""Room -> rooms it may import, beyond the floors below everything."""

HEAVY = {
    "aiohttp", "duckdb", "httpx", "httpx_aiohttp", "jinja2", "jsonschema", "jsonschema_rs",
    "markdown_it", "numpy", "pandas", "pyarrow", "ray", "rich", "scipy", "starlette", "uvicorn",
    "yaml",
}  # fmt: skip

LAZY = {
    "__init__", "errors", "frozen", "records", "content", "pytest_plugin",
    "pytest_options",
    "strict", "schemas/__init__", "settings", "prices", "config_checks", "config", "call/prompts",
}  # fmt: skip
"""Modules that any pytest run or `import evalkit` loads: nothing heavy at import."""


def modules() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if "_shipped" not in p.parts)


def room_of(module: str) -> str:
    """`evalkit.call.trace` -> call; `evalkit` itself -> the empty name."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(("evalkit", *(p for p in parts if p != "__init__")))


def imports_of(tree: ast.AST) -> list[tuple[int, str]]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "evalkit":
            names = [alias.name for alias in node.names if alias.name != "__version__"]
            found += [(node.lineno, f"evalkit.{name}") for name in names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.lineno, node.module))
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(name_of(path))

    bad = []
    for line, module in imports_of(ast.parse(path.read_text(encoding="utf-8"))):
        if module.split(".")[0] != "evalkit" or room == "":
            continue
        target = room_of(module)
        if target in FLOORS:
            allowed = room not in FLOORS or FLOORS.index(target) <= FLOORS.index(room)
        else:
            allowed = target in MAY_IMPORT.get(room, set())
        if not allowed:
            bad.append(f"{path.name}:{line} imports {module}")

    assert not bad


@pytest.mark.parametrize("name", sorted(LAZY))
def test_modules_that_everybody_loads_import_nothing_heavy(name: str) -> None:
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))

    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    loaded = {module.split(".")[0] for node in top for _, module in imports_of(node)}

    assert not loaded & HEAVY
