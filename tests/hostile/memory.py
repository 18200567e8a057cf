"""The most memory that this process ever had."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_mb() -> float:
    """In MB. Linux's own count starts with the program; getrusage's, with whoever forked it."""
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [one for one in status.read_text().splitlines() if one.startswith("VmHWM")]
        return int(line.split()[1]) / 1000
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1_000_000 if sys.platform == "darwin" else 1000)
