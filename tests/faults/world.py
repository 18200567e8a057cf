"""A project with a sealed baseline, the run that is to come, and how that has to end.

Small, so that it can be run a thousand times: eight cases, two in flight, one of them
must pass and does not under prompt v2. Whatever happens on the way, the run has to end
as `Expected` says.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.errors import StoreError
from evalkit.store.views import open_store
from tests.faults.apps import log_of
from tests.faults.forks import Forks
from tests.project import case, write_project

CASES = 8
IN_FLIGHT = 2
RUN = ("run", "--json", "--prompt", "classify@v2", "--concurrency", str(IN_FLIGHT))

_TIMES = ("run_id", "trace_id", "created_at", "ts", "latency_ms", "ttft_ms", "wait_ms", "stage_ms")
"""Columns and fields that no two executions have in common."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What an uninterrupted run leaves, and what the gate says of it."""

    scores: list[str]
    calls: list[str]
    counts: dict[str, int]
    gate_status: int
    gate: str


def make_project(folder: Path) -> None:
    """A project without a store."""
    cases = [case(n, **({"must_pass": True} if n == 1 else {})) for n in range(CASES)]
    write_project(folder, target="tests.faults.apps:counted", cases=cases)


def make_baseline(folder: Path, forks: Forks) -> None:
    """One sealed run, of prompt v1, chosen as the baseline."""
    for argv in (("run",), ("baseline", "set", "latest")):
        ended = forks.run(folder, *argv)
        if ended.status != 0:
            raise RuntimeError(f"{argv}: {ended}")
    log_of(folder).unlink()


def expected_of(folder: Path, forks: Forks) -> Expected:
    """What comes of the run in `folder` when nothing goes wrong."""
    ended = forks.run(folder, *RUN)
    if ended.status != 0 or sum(calls_made(folder).values()) != CASES:
        raise RuntimeError(str(ended))
    return state_of(folder, ended.json()["run_id"], forks)


def state_of(folder: Path, run_id: str, forks: Forks) -> Expected:
    """Content of a sealed run, and what the gate says of it. Raises StoreError if damaged."""
    store = open_store(folder / ".evalkit")
    manifest = store.manifest(run_id)
    gate = forks.run(folder, "gate", "--json", "--candidate", run_id)
    return Expected(
        scores=_rows(store.score_files(run_id)),
        calls=_rows(store.call_files(run_id)),
        counts=manifest["counts"],
        gate_status=gate.status,
        gate=_without_names(gate.output, run_id),
    )


def differences(found: Expected, expected: Expected) -> Iterator[str]:
    """Where a run's end is not that of an uninterrupted one."""
    for part in ("scores", "calls", "counts"):
        if getattr(found, part) != getattr(expected, part):
            yield f"other {part} than an uninterrupted run's"


def _rows(files: list[Path]) -> list[str]:
    import pyarrow.parquet as pq

    rows = [
        row
        for path in files
        for row in pq.read_table(path, use_threads=False, partitioning=None).to_pylist()
    ]
    return sorted(json.dumps(_lasting(row), sort_keys=True, default=str) for row in rows)


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lasting(item) for name, item in value.items() if name not in _TIMES}
    return [_lasting(item) for item in value] if isinstance(value, list) else value


def _without_names(verdict: str, run_id: str) -> str:
    """The verdict as JSON, but for what it calls the run and itself, and what took time."""
    try:
        value = json.loads(verdict)
    except ValueError:
        return verdict
    value.pop("verdict_id", None)
    value.pop("budget", None)
    return json.dumps(value, sort_keys=True).replace(run_id, "RUN")


# --- what is there --------------------------------------------------------------------


def calls_made(folder: Path) -> Counter[str]:
    """How often each case was called since the project was made."""
    log = log_of(folder)
    return Counter(log.read_text().splitlines() if log.exists() else [])


def fingerprints(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def new_runs(folder: Path, before: dict[str, str]) -> list[str]:
    """Ids of runs that were not there, and have a manifest. Raises StoreError if damaged."""
    store = open_store(folder / ".evalkit")
    known = {name.split("/")[1] for name in before if name.startswith("runs/")}
    found = [run["run_id"] for run in store.runs() if run["run_id"] not in known]
    if store.problems:
        raise StoreError("; ".join(store.problems))
    return found
