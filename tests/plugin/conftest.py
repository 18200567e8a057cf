"""pytester runs in a process of its own: the plugin meets a fresh pytest, as users' do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.project import write_project

CHECKOUT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with a project of ten cases, whose application answers by rule."""
    path = os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    write_project(pytester.path, target="tests.apps:by_prompt")
    return pytester
