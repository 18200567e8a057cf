"""What git says of a folder: nothing without git, outside a repository, or when it refuses."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any


def git(folder: Path, *arguments: str, timeout_s: float = 10) -> str | None:
    """What a git command in `folder` prints; None when it fails or takes too long."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def git_state(root: Path) -> dict[str, Any]:
    """Commit, branch and whether the tree differs; each None outside a repository."""
    status = git(root, "status", "--porcelain", "--untracked-files=no")
    return {
        "commit": git(root, "rev-parse", "HEAD"),
        "branch": git(root, "rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": None if status is None else bool(status),
    }
