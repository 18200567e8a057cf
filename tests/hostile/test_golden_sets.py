"""Golden sets are data: what is wrong is told at once, cheaply, and before any call."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.store.views import open_store
from tests.hostile.hostile_sets import SETS
from tests.loopback import Loopback
from tests.project import case, write_project

MAX_S = 2.0
MAX_MB = 200.0


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Each set, run in one process; with what the provider was asked."""
    with Loopback() as server:
        command = [sys.executable, "-m", "tests.hostile.hostile_sets", f"{server.url}/v1"]
        folder = tmp_path_factory.mktemp("sets")
        done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=600)
        requests = server.stats.requests
    assert done.returncode == 0, done.stderr
    found = {one["name"]: one for one in map(json.loads, done.stdout.splitlines())}
    return {name: one | {"requests": requests} for name, one in found.items()}


@pytest.mark.parametrize("name", SETS)
def test_a_hostile_set_is_refused_before_any_call(
    name: str, attempts: dict[str, dict[str, Any]]
) -> None:
    one = attempts[name]

    assert (one["status"], one["requests"]) == (2, 0), one["said"]
    assert SETS[name][1] in one["said"]
    assert "Traceback" not in one["said"]
    assert one["took_s"] < MAX_S
    assert one["peak_mb"] < MAX_MB


# --- what stands in a case is never more than text -------------------------------------

PAYLOADS = (
    "{{ 7*7 }}{% if 1 %}{{ cycler.__init__.__globals__.os.popen('touch CANARY') }}{% endif %}",
    "${7*7} %s %n {0.__class__} {input[text]}",
    "file:///etc/passwd",
    "../../../../CANARY",
    "$(touch CANARY) `touch CANARY` ; touch CANARY | touch CANARY",
    "x'); DROP TABLE scores; COPY (SELECT 1) TO 'CANARY'; --",
    "<script>fetch('//127.0.0.1:9/CANARY')</script>",
    "=cmd|'/C touch CANARY'!A0",
)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_payload_in_every_field_stays_the_text_that_it_is(
    payload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    row = case(0) | {
        "id": payload,
        "input": {"text": payload},
        "expected": {"label": payload},
        "metadata": {"channel": payload},
        "cluster": payload,
    }
    with Loopback() as server:
        write_project(
            tmp_path, base_url=server.url + "/v1", cases=[row], header="slices: [channel]"
        )
        config = ("--config", str(tmp_path / "evalkit.toml"))

        assert main(["run", *config]) == 0
        [run_id] = [run["run_id"] for run in open_store(tmp_path / ".evalkit").runs()]
        main(["gate", *config, "--allow-no-baseline", "--junit", "j.xml", "--markdown", "m.md"])
        main(["report", run_id, *config, "-o", "r.html"])
        main(["show", payload, *config])

        [sent] = [one.json["messages"][-1]["content"] for one in server.requests]
    escaped = payload.replace("<", "&lt;")
    assert payload in sent or escaped in sent
    assert "49" not in sent
    scores = open_store(tmp_path / ".evalkit").sql("SELECT case_id, slices, cluster FROM scores")
    assert {(one["case_id"], one["cluster"]) for one in scores} == {(payload, payload)}
    assert not list(tmp_path.rglob("CANARY*"))
    assert not list(tmp_path.parent.glob("CANARY*"))
    assert "Traceback" not in "".join(capfd.readouterr())
