"""A project in a folder, and runs of pytest in it: in this process where that is enough.

Such a run forgets the modules it loads, and some cannot be loaded twice: they are here.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import aiohttp  # noqa: F401
import duckdb  # noqa: F401
import jinja2  # noqa: F401
import numpy as np  # noqa: F401
import pandas as pd  # noqa: F401
import pyarrow.parquet  # noqa: F401
import pytest
import scipy.stats  # noqa: F401
import yaml  # noqa: F401

import evalkit.decide.report
import evalkit.pytest_session.hooks  # noqa: F401
from evalkit.store.views import open_store
from tests.loopback import Loopback
from tests.project import case, write_project

CHECKOUT = Path(__file__).resolve().parent.parent.parent
SLOW_START = 300
CACHE = "cacheprovider"
OWN = "evalkit.pytest_plugin"

Run = Callable[..., pytest.RunResult]


class Project:
    """A small project, and `pytest` in it."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path
        self.cases = self.path / "golden_sets" / "tickets" / "cases.jsonl"

    def pytest(self, *arguments: str, plugins: tuple[str, ...] = ()) -> pytest.RunResult:
        """`pytest ARGUMENTS` in this process, with no plugin but ours and `plugins`."""
        return self.pytester.runpytest_inprocess(*_loaded(plugins), *arguments)

    def eval(self, *arguments: str, plugins: tuple[str, ...] = ()) -> pytest.RunResult:
        """`pytest --llm-eval ARGUMENTS`."""
        return self.pytest("--llm-eval", *arguments, plugins=plugins)

    def eval_apart(self, *arguments: str, plugins: tuple[str, ...] = ()) -> pytest.RunResult:
        """The same in a process of its own."""
        return self.pytester.runpytest_subprocess(
            *_loaded(plugins), "--llm-eval", *arguments, timeout=SLOW_START
        )

    def write_cases(self, cases: int | list[dict[str, object]]) -> None:
        rows = [case(n) for n in range(cases)] if isinstance(cases, int) else cases
        self.cases.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def make_baseline(self) -> str:
        """A run of all cases by v1; its id."""
        assert self.eval("--llm-eval-no-gate").ret == 0
        return self.run_ids()[0]

    def run_ids(self) -> list[str]:
        """Newest first."""
        return [str(run["run_id"]) for run in open_store(self.path / ".evalkit").runs()]

    def junit(self) -> dict[str, ElementTree.Element]:
        """Name -> test case of junit.xml."""
        root = ElementTree.fromstring((self.path / "junit.xml").read_text(encoding="utf-8"))
        return {str(one.get("name")): one for one in root.iter("testcase")}


def _loaded(plugins: tuple[str, ...]) -> list[str]:
    cache = [] if CACHE in plugins else [f"no:{CACHE}"]
    names = [OWN, *(name for name in plugins if name != CACHE), *cache]
    return [part for name in names for part in ("-p", name)]


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Ten cases, answered by a rule that is careless under prompt v2."""
    path = os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    write_project(pytester.path, target="tests.apps:by_prompt")
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
    return Project(pytester)


@pytest.fixture
def server() -> Iterator[Loopback]:
    """A provider that counts the calls for each case."""
    with Loopback() as server:
        yield server


@pytest.fixture
def served(project: Project, server: Loopback) -> Project:
    """The same cases, answered by the server."""
    shutil.rmtree(project.path / "golden_sets")
    shutil.rmtree(project.path / "prompts")
    write_project(project.path, base_url=f"{server.url}/v1")
    return project
