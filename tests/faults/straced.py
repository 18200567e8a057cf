"""Faults below Python: strace fails or kills at the n-th system call, DuckDB's, Arrow's and all.

Slower by far than the fault layer, and blind to which file is meant: every such call of
the whole process counts, from its start. Linux with strace only.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from tests.faults.crashes import World
from tests.faults.forks import CHECKOUT, LIMIT_S, Ended
from tests.faults.table import Bench, Scenario, Skipped
from tests.faults.world import RUN

CALLS = {
    "fsync": "fsync,fdatasync",
    "link": "link,linkat,rename,renameat,renameat2,unlink,unlinkat",
    "write": "write,pwrite64,writev",
    "open": "mkdir,mkdirat,flock,ftruncate",
}
ACTIONS = {"kill": "signal=KILL", "eio": "error=EIO", "enospc": "error=ENOSPC"}
FEWER = 1 / 4
"""Of the places of other faults: each takes a whole process."""


def strace_in_a_run(bench: Bench, *, calls: str, action: str) -> None:
    """At each system call of a kind in turn."""
    if not _can_trace():
        raise Skipped("no strace that may trace here")
    world = World(bench)
    folder = bench.copy(world.template)
    n_calls = _count(folder, calls)
    for at in bench.some(range(1, n_calls + 1), times=FEWER):
        with bench.fault(f"{action} at {calls} {at}") as found:
            folder = bench.copy(world.template)
            inject = f"inject={CALLS[calls]}:{ACTIONS[action]}:when={at}"
            ended = _strace(folder, "-e", inject, calls=calls)
            # A write may have been to stdout, and its failure is Python's to tell.
            found.wrong(ended.crashed and calls != "write", f"no error message but {ended}")
            world.check_end(found, folder, ended, certain=True)


def _can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    done = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True)
    return done.returncode == 0


def _count(folder: Path, calls: str) -> int:
    trace = folder.parent / "trace"
    ended = _strace(folder, calls=calls, output=trace)
    if ended.status != 0:
        raise RuntimeError(str(ended))
    return len(
        re.findall(rf"^\d+ +(?:{CALLS[calls].replace(',', '|')})\(", trace.read_text(), re.M)
    )


def _strace(folder: Path, *options: str, calls: str, output: Path | None = None) -> Ended:
    command = [
        "strace", "-f", "--seccomp-bpf", "-o", str(output or os.devnull),
        "-e", f"trace={CALLS[calls]}", *options,
        sys.executable, "-B", "-m", "evalkit", *RUN,
    ]  # fmt: skip
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    # strace dies of the signal that its child died of.
    status = done.returncode
    return Ended(
        status=status, output=done.stdout, errors=done.stderr, calls=0, places=[], hit=True
    )


SCENARIOS: dict[str, Scenario] = {
    f"strace {calls}: {action}": partial(strace_in_a_run, calls=calls, action=action)
    for calls, action in (
        ("fsync", "kill"),
        ("fsync", "eio"),
        ("link", "kill"),
        ("link", "eio"),
        ("write", "kill"),
        ("write", "enospc"),
        ("open", "eio"),
    )
}
