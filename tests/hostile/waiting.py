"""How long this process could have worked, had others left it a CPU."""

from __future__ import annotations

from pathlib import Path

_STATISTICS = Path("/proc/self/schedstat")


def queued_s() -> float:
    """Since the process began, as Linux counts it; 0 where nobody does."""
    if not _STATISTICS.exists():
        return 0.0
    return int(_STATISTICS.read_text().split()[1]) / 1e9
