"""What importing costs: nothing heavy loads until somebody asks for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("pandas", "scipy", "numpy", "duckdb", "pyarrow", "httpx", "aiohttp", "jinja2", "rich")


def loaded_by(code: str) -> set[str]:
    """Names of the heavy packages that a fresh interpreter has after `code`."""
    script = f"{code}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import evalkit",
        "import evalkit.pytest_plugin",
        "import evalkit.cli.main",
        "import evalkit.records, evalkit.errors",
    ],
)
def test_importing_loads_nothing_heavy(code: str) -> None:
    assert loaded_by(code) == set()


def test_help_answers_without_loading_a_command() -> None:
    code = (
        "from evalkit.cli.main import main\nimport io, contextlib\n"
        "with contextlib.redirect_stdout(io.StringIO()): main(['--help'])"
    )

    assert loaded_by(code) == set()


def test_a_run_in_a_store_without_production_loads_no_database_to_begin(tmp_path: Path) -> None:
    code = (
        "from evalkit.session import prompts_seen\nfrom evalkit.store.views import open_store\n"
        f"assert prompts_seen(open_store({str(tmp_path)!r})) == {{}}"
    )

    assert loaded_by(code) & {"duckdb", "pyarrow", "numpy"} == set()


def test_public_names_resolve() -> None:
    code = "import evalkit\nfor name in evalkit.__all__: getattr(evalkit, name)"

    subprocess.run([sys.executable, "-c", code], check=True)
