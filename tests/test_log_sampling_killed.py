"""A sampling job that is killed, wherever, ends with the files of one that was not."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.cli.periods import iso
from tests.loopback import Loopback, Request
from tests.loopback.samples import sample
from tests.project import write_project
from tests.store.journal_lines import AT
from tests.test_log_sampling import HOUR, files, log, rows
from tests.test_rescoring import judged_by

CHECKOUT = Path(__file__).resolve().parents[1]
CALLS, KILLS, CONCURRENCY = 60, 10, 8
ENDS_AFTER_S = 300


def job(project: Path) -> list[str]:
    """Six judges of ten, several at once: they finish in an order that nobody knows."""
    return [
        "sample", "--config", str(project / "evalkit.toml"), "--since", iso(AT), "--until",
        iso(AT + HOUR), "--rate", "0.6", "--concurrency", str(CONCURRENCY),
    ]  # fmt: skip


def judgement(request: Request) -> Any:
    """A judge of settled opinion: of the same answer it always says the same."""
    number = re.search(r"question (\d+)", request.body.decode())
    assert number
    return sample(request.json["response_format"]["json_schema"]["schema"], int(number[1]))


def score_files(project: Path) -> dict[str, bytes]:
    return {Path(path).name: data for path, data in files(project).items() if "/scores/" in path}


def test_the_same_calls_give_the_same_bytes(tmp_path: Path) -> None:
    found = []
    for name in ("one", "other"):
        project = write_project(tmp_path / name)
        log(project, "log", range(CALLS))
        with Loopback(answer=judgement, delay_ms=5) as server:
            judged_by(project, server.url)
            assert main(job(project)) == 0
        found.append(score_files(project))

    assert found[0] == found[1]
    assert len(found[0]) == 1


@pytest.mark.slow
def test_killed_at_ten_points_and_run_again_it_gives_the_same_bytes(tmp_path: Path) -> None:
    chance = random.Random(7)
    # So slow that somebody who looks now and then still finds it at work.
    with Loopback(answer=judgement, delay_ms=100) as server:
        whole = write_project(tmp_path / "whole")
        log(whole, "log", range(CALLS))
        judged_by(whole, server.url)
        assert main(job(whole)) == 0
        asked = server.stats.requests
        killed = write_project(tmp_path / "killed")
        log(killed, "log", range(CALLS))
        judged_by(killed, server.url)

        ends = [kill_when(killed, lines, chance) for lines in points(chance)]
        assert main(job(killed)) == 0
        again = main(job(killed))

        # What was in flight when it was killed is asked again, nothing else is.
        assert server.stats.requests - asked <= asked + KILLS * CONCURRENCY
    assert again == 0
    assert ends.count("killed") >= KILLS // 2
    assert score_files(killed) == score_files(whole)
    found = rows(killed, "SELECT count(*) n, count(DISTINCT (trace_id, metric)) d FROM scores")
    assert found[0]["n"] == found[0]["d"] == CALLS + asked


def points(chance: random.Random) -> list[int]:
    """Lines in the journal when the signal comes: none, some, all."""
    return sorted([0, *(chance.randrange(1, CALLS) for _ in range(KILLS - 2)), CALLS])


def kill_when(project: Path, lines: int, chance: random.Random) -> str:
    """Start the job and kill it as soon as its journal has so many lines."""
    command = [sys.executable, "-m", "evalkit", *job(project)]
    process = subprocess.Popen(
        command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + ENDS_AFTER_S
    while process.poll() is None and journal_lines(project) < lines:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(chance.random() * 0.12)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    return "killed" if process.wait() == -signal.SIGKILL else "ended"


def journal_lines(project: Path) -> int:
    journals = (project / ".evalkit" / "runs").glob("sample-*/journal.jsonl")
    return sum(path.read_bytes().count(b"\n") for path in journals)
