"""What lands on the disk: who may read it, and where it may be."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from evalkit import Orchestrator
from evalkit.cli.main import main
from evalkit.store.call_log import CallLog
from tests.project import write_project

FOR_EVERYBODY = {".gitignore"}
"""Says that git is to leave the store alone; git has to read it."""


@pytest.fixture
def open_umask() -> Iterator[None]:
    """A process that asks for files that everybody may write."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_what_a_project_leaves_behind_is_for_its_owner_only(
    tmp_path: Path, open_umask: None
) -> None:
    write_project(tmp_path, cases=3, feature="cache_ttl = 60")
    store = tmp_path / ".evalkit"
    config = ("--config", str(tmp_path / "evalkit.toml"))

    assert [main(["run", *config]) for _ in range(2)] == [0, 0]
    main(["gate", *config, "--html", str(tmp_path / "gate.html")])
    assert main(["baseline", "set", "latest", *config]) == 0
    with CallLog(store) as log:
        app = Orchestrator.from_config(tmp_path / "evalkit.toml", sink=log)
        app.execute_sync("classify", {"text": "a question on billing"})

    found = [store, *store.rglob("*"), tmp_path / "gate.html"]
    open_to_others = {
        str(path.relative_to(tmp_path)): oct(stat.S_IMODE(path.stat().st_mode))
        for path in found
        if stat.S_IMODE(path.stat().st_mode) & 0o077 and path.name not in FOR_EVERYBODY
    }
    assert len(found) > 10
    assert open_to_others == {}
