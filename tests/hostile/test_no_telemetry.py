"""evalkit speaks to the hosts of its configuration and to nobody else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.loopback import Loopback
from tests.project import write_project

ROOT = Path(__file__).resolve().parent.parent.parent


def commands(config: Path, store: Path) -> list[list[str]]:
    """What the demo does: check, run, gate, report, look."""
    own = ["--config", str(config), "--store", str(store)]
    page = str(store.parent / "page.html")
    return [
        ["check", "--config", str(config)],
        ["run", *own, "--limit", "3"],
        ["run", *own, "--limit", "3"],
        ["gate", *own, "--html", page, "--junit", f"{page}.xml", "--markdown", f"{page}.md"],
        ["report", "latest", *own, "-o", page],
        ["show", "latest", *own],
        ["query", "SELECT count(*) FROM scores", *own],
        ["cost", *own],
        ["baseline", "list", *own],
    ]


def listened(config: Path, store: Path, cwd: Path, *prefix: str) -> dict[str, Any]:
    command = [*prefix, sys.executable, "-m", "tests.hostile.listened"]
    done = subprocess.run(
        [*command, json.dumps(commands(config, store))],
        cwd=cwd, capture_output=True, text=True, timeout=300, env=None,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
def test_the_demo_speaks_to_nobody(tmp_path: Path) -> None:
    found = listened(ROOT / "evalkit.toml", tmp_path / "store", ROOT)

    assert found["statuses"][:3] == [0, 0, 0]
    assert found["heard"] == []


@pytest.mark.slow
def test_only_the_configured_provider_is_spoken_to(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, base_url=server.url + "/v1", cases=3)

        found = listened(tmp_path / "evalkit.toml", tmp_path / "store", ROOT)

        assert server.stats.requests == 6
        at = urlsplit(server.url)
    assert found["heard"] == [f"{at.hostname}:{at.port}"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_kernel_sees_no_other_connection_either(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, base_url=server.url + "/v1", cases=3)
        trace = tmp_path / "trace"
        strace = ("strace", "-f", "-qq", "-e", "trace=connect,sendto", "-o", str(trace))

        listened(tmp_path / "evalkit.toml", tmp_path / "store", ROOT, *strace)

        port = urlsplit(server.url).port
    inet = re.findall(r"sin6?_port=htons\((\d+)\)", trace.read_text(encoding="utf-8"))
    assert set(inet) == {str(port)}
