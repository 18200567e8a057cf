"""Which process holds what: an id for this one, and whether another one is gone.

What a killed process had taken (a spending hold, a job, a running action) is given up at
once where that can be known: on the same machine, in the same container. Elsewhere only
its lease says so. A process id that was used again is not taken for the old process.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path


def this_process() -> str:
    """An id of this process that no other one ever has: machine, process id, start."""
    return _id_of(os.getpid())


@lru_cache(maxsize=4)
def _id_of(pid: int) -> str:
    return f"{_machine()} {pid} {_started(pid) or '-'}"


def is_gone(owner: str) -> bool:
    """Whether the process of that id has ended for certain; False when it cannot be known."""
    machine, pid, started = owner.split(" ")
    if started == "-" or machine != _machine():
        return False
    return _started(int(pid)) != started


def is_alive(owner: str) -> bool:
    """Whether the process of that id runs for certain; False when it cannot be known."""
    machine, pid, started = owner.split(" ")
    return started != "-" and machine == _machine() and _started(int(pid)) == started


@lru_cache(maxsize=1)
def _machine() -> str:
    """The boot and the space of process ids; `-` where there is no /proc to tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return "-"


def _started(pid: int) -> str | None:
    """When a process began, in clock ticks since the boot; None when there is none such."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    state, started = fields[0], fields[19]
    return None if state in (b"Z", b"X") else started.decode("ascii")
