"""A reader that goes away, as `head` does, changes no exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.decide.results import write_csv


@pytest.mark.parametrize(("candidate", "status"), [(1, 0), (0, 1)], ids=["pass", "regression"])
@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_the_verdicts_status_stays(
    tmp_path: Path, candidate: int, status: int, closed: str
) -> None:
    for name, score in (("a.csv", 1), ("b.csv", candidate)):
        write_csv(tmp_path / name, [(f"c{n}", score) for n in range(100)])
    reading, writing = os.pipe()
    os.close(reading)
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, closed: writing}

    done = subprocess.run(
        [sys.executable, "-m", "evalkit", "gate", "--baseline", "a.csv", "--candidate", "b.csv"],
        cwd=tmp_path,
        **streams,  # type: ignore[call-overload]
    )

    os.close(writing)
    assert done.returncode == status
