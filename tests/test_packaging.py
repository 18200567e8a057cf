"""The wheel, installed where there is no checkout, does the whole job."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

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
        for folder in ("judges", "reports", "scaffold")
        for path in (CHECKOUT / folder).rglob("*")
        if path.is_file() and path.name != ".keep"
    ]
    assert len(shipped) >= 20
    assert set(shipped) <= names
    assert {"evalkit/py.typed", "evalkit/schemas/config.schema.json"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel, what it depends on, and nothing else."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=False)
    [packages] = folder.glob("lib/python*/site-packages")
    for one in needed("evalkit") - {"evalkit"}:
        for name in {file.parts[0] for file in distribution(one).files or ()}:
            source, link = Path(str(distribution(one).locate_file(name))), packages / name
            if source.exists() and name != ".." and not link.exists():
                link.symlink_to(source)
    pip = [sys.executable, "-m", "pip", "-q", "--python", folder / "bin" / "python"]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", wheel], check=True, cwd=folder)
    subprocess.run([*pip, "check"], check=True, cwd=folder)
    return folder


def needed(name: str) -> set[str]:
    """The package and what it depends on here, without extras nobody asked for."""
    found: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(name)]
    while waiting:
        one = waiting.pop()
        if (one.name, frozenset(one.extras)) in found:
            continue
        found.add((one.name, frozenset(one.extras)))
        for text in distribution(one.name).requires or ():
            more = Requirement(text)
            asked = [{"extra": extra} for extra in (*one.extras, "")]
            if more.marker is None or any(more.marker.evaluate(at) for at in asked):
                waiting.append(more)
    return {package for package, _ in found}


@pytest.mark.slow
def test_the_wheel_runs_the_demo_in_an_empty_environment(environment: Path, tmp_path: Path) -> None:
    for name in WRITTEN_BY_USERS:
        source = CHECKOUT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)

    done = subprocess.run(
        ["sh", CHECKOUT / "scripts" / "demo.sh"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "EVALKIT": str(environment / "bin" / "evalkit")},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "stopped v3" in done.stdout
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert list((tmp_path / ".evalkit" / "scores").glob("run=*.parquet"))


@pytest.mark.slow
def test_the_wheel_starts_runs_and_gates_a_project_in_an_empty_folder(
    environment: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        ["sh", "-c", "evalkit init --ci github && evalkit run && evalkit gate && evalkit doctor"],
        cwd=tmp_path,
        env={"PATH": f"{environment / 'bin'}:{os.environ['PATH']}", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "pass: no drop beyond what is allowed" in done.stdout
    assert str(environment) in done.stdout
    assert str(CHECKOUT) not in done.stdout
