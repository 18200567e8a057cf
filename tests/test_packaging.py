"""The wheel, installed where there is no checkout, does the whole job."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
WRITTEN_BY_USERS = ("evalkit.toml", "golden_sets", "prompts")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder)]
    done = subprocess.run([*command, str(CHECKOUT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_what_the_package_needs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    shipped = [
        f"evalkit/_shipped/{path.relative_to(CHECKOUT)}"
        for folder in ("judges", "reports")
        for path in (CHECKOUT / folder).rglob("*")
        if path.is_file() and path.suffix in {".yaml", ".jinja", ".sql"}
    ]
    assert len(shipped) >= 2
    assert set(shipped) <= names
    assert {"evalkit/py.typed", "evalkit/schemas/config.schema.json"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


@pytest.mark.slow
def test_the_wheel_runs_the_demo_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    environment, project = tmp_path / "env", tmp_path / "project"
    venv.create(environment, with_pip=True)
    install = [environment / "bin" / "python", "-m", "pip", "install", "-q", wheel]
    subprocess.run(install, check=True, cwd=tmp_path)
    project.mkdir()
    for name in WRITTEN_BY_USERS:
        source = CHECKOUT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, project / name)

    done = subprocess.run(
        ["sh", CHECKOUT / "scripts" / "demo.sh"],
        cwd=project,
        env={"PATH": os.environ["PATH"], "EVALKIT": str(environment / "bin" / "evalkit")},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "stopped v3" in done.stdout
    assert "<html" in (project / "report.html").read_text(encoding="utf-8")
    assert list((project / ".evalkit" / "scores").glob("run=*.parquet"))
