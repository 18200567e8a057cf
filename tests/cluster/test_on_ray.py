"""A run and a sampling job on a Ray cluster: as they are without, also when workers die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.config import load_settings
from evalkit.errors import EvalkitError, StoreError
from evalkit.session import FinishedRun, run_golden_sets
from evalkit.store.views import open_store
from evalkit.wiring import RunRequest
from tests.cluster.apps import asked
from tests.loopback import Loopback, Request
from tests.project import case, write_project
from tests.test_log_sampling import log
from tests.test_log_sampling_killed import job, judgement, score_files
from tests.test_rescoring import judged_by

pytest.importorskip("ray", reason="Ray is not installed here: make ray")

from evalkit.cluster.on_ray import RayCluster, ray_cluster

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    """Two workers on this machine, which find this checkout's tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(CHECKOUT))
        with ray_cluster("local", workers=2) as cluster:
            yield cluster


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls.txt"


def project(folder: Path, calls: Path, *, cases: int, **more: Any) -> Path:
    rows = [case(n) for n in range(cases)]
    for row in rows:
        row["input"]["calls"] = str(calls)
    target = more.pop("target", "tests.cluster.apps:noted")
    return write_project(folder, target=target, cases=rows, **more)


def run(
    folder: Path,
    cluster: RayCluster | None = None,
    *,
    watch: Callable[[Any], None] | None = None,
    resume: str | None = None,
    **request: Any,
) -> FinishedRun:
    @contextmanager
    def progress(planned: int) -> Iterator[Callable[[Any], None]]:
        yield watch or (lambda summary: None)

    return run_golden_sets(
        load_settings(folder / "evalkit.toml"),
        RunRequest(**request),
        resume=resume,
        progress=progress,
        crew_of=None if cluster is None else cluster.crew_of_run,
    )


def scores(folder: Path, run_id: str) -> list[dict[str, Any]]:
    sql = (
        "SELECT case_id, case_hash, metric, prompt_version, trial, score, outcome FROM scores"
        " WHERE run_id = ? ORDER BY ALL"
    )
    return open_store(folder / ".evalkit").sql(sql, [run_id])


def test_a_run_on_workers_is_the_run_made_here(
    cluster: RayCluster, tmp_path: Path, calls: Path
) -> None:
    folder = project(tmp_path / "project", calls, cases=20)
    here = run(folder, trials=2)

    there = run(folder, cluster, trials=2)

    assert there.summary.complete
    assert scores(folder, there.run_id) == scores(folder, here.run_id)
    processes = Counter(pid for pid, _ in asked(calls))
    assert processes.pop(os.getpid()) == 40
    assert len(processes) == 2
    assert sum(processes.values()) == 40


def test_a_killed_worker_loses_nothing_and_doubles_nothing(
    cluster: RayCluster, tmp_path: Path, calls: Path
) -> None:
    folder = project(tmp_path / "project", calls, cases=120)
    killed: list[int] = []

    def kill_one(summary: Any) -> None:
        if summary.done == 30 and not killed:
            killed.append(asked(calls)[-1][0])
            os.kill(killed[0], signal.SIGKILL)

    finished = run(folder, cluster, watch=kill_one, concurrency=16)

    assert finished.summary.complete
    found = scores(folder, finished.run_id)
    assert len(found) == 240
    assert Counter(row["case_id"] for row in found) == {f"t-{n:04d}": 2 for n in range(120)}
    assert {row["score"] for row in found} == {1.0}
    assert asked(calls)[-1][0] != killed[0]
    again = [text for text, n in Counter(text for _, text in asked(calls)).items() if n > 1]
    assert 0 < len(again) <= 16  # what it had in hand


def test_a_case_that_kills_every_worker_ends_the_run_which_then_goes_on_without_ray(
    cluster: RayCluster, tmp_path: Path, calls: Path
) -> None:
    folder = project(tmp_path / "project", calls, cases=10, target="tests.cluster.apps:deadly")

    with pytest.raises(EvalkitError, match="3 workers were lost with the same case"):
        run(folder, cluster, concurrency=1)

    (unfinished,) = open_store(folder / ".evalkit").runs()
    assert unfinished["status"] == "incomplete"
    config = folder / "evalkit.toml"
    config.write_text(config.read_text().replace("apps:deadly", "apps:noted"))
    resumed = run(folder, resume=unfinished["run_id"])
    assert resumed.summary.complete
    assert resumed.summary.resumed == 7
    assert len(scores(folder, resumed.run_id)) == 20


def test_workers_together_stay_below_one_limit_also_when_one_dies(
    cluster: RayCluster, tmp_path: Path, calls: Path
) -> None:
    # A call costs 20 millionths, and sets aside what all its attempts may cost: many times that.
    folder = project(tmp_path / "project", calls, cases=400)
    most_usd = 300 * 20e-6
    killed: list[int] = []

    def kill_one(summary: Any) -> None:
        if summary.done == 10 and not killed:
            killed.append(asked(calls)[-1][0])
            os.kill(killed[0], signal.SIGKILL)

    finished = run(folder, cluster, watch=kill_one, max_cost_usd=most_usd, concurrency=8)

    assert finished.summary.stopped == "budget_stop"
    assert finished.summary.done > 40
    assert finished.summary.cost_usd == pytest.approx(finished.summary.done * 20e-6)
    assert finished.summary.done < len(asked(calls)) <= 300


def test_workers_have_one_rate_together(cluster: RayCluster, tmp_path: Path, calls: Path) -> None:
    folder = project(tmp_path / "project", calls, cases=8, feature="max_latency_ms = 1000")
    config = folder / "evalkit.toml"
    config.write_text(config.read_text().replace('wire = "python"', 'wire = "python"\nrpm = 1'))
    started = time.monotonic()

    finished = run(folder, cluster, concurrency=8)

    # Each worker by itself would make one call at once.
    allowed = 1 + (time.monotonic() - started) // 60
    assert finished.summary.complete
    assert 1 <= len(asked(calls)) <= allowed
    assert finished.summary.outcomes["infra_error"] >= 8 - allowed


def test_a_worker_with_another_golden_set_is_refused(
    cluster: RayCluster, tmp_path: Path, calls: Path
) -> None:
    folder = project(tmp_path / "project", calls, cases=5)
    settings = load_settings(folder / "evalkit.toml")
    cases = folder / "golden_sets" / "tickets" / "cases.jsonl"

    def edit(line: str) -> None:
        cases.write_text(cases.read_text().replace("question", "query"))

    with pytest.raises(StoreError, match="golden set tickets has changed"):
        run_golden_sets(settings, RunRequest(), crew_of=cluster.crew_of_run, on_start=edit)
    assert asked(calls) == []


def test_a_sampling_job_whose_worker_is_killed_gives_the_files_of_one_made_here(
    cluster: RayCluster, tmp_path: Path
) -> None:
    here, there = (write_project(tmp_path / name) for name in ("here", "there"))
    killed: list[int] = []

    def kill_one(request: Request) -> Any:
        if server.stats.requests == 10 and not killed:
            killed.append(workers_here()[0])
            os.kill(killed[0], signal.SIGKILL)
        return judgement(request)

    for folder in (here, there):
        log(folder, "log", range(60))
    with Loopback(answer=judgement) as server:
        judged_by(here, server.url)
        assert main(job(here)) == 0
    with Loopback(answer=kill_one, delay_ms=20) as server:
        judged_by(there, server.url)
        assert main([*job(there), "--ray", "local", "--workers", "2"]) == 0
        requests = server.stats.requests

    assert killed
    assert score_files(there) == score_files(here)
    judged = "SELECT count(*) n FROM scores WHERE tier = 2"
    (of_judges,) = open_store(there / ".evalkit").sql(judged)
    assert of_judges["n"] <= requests <= of_judges["n"] + 8  # those in its hands


def workers_here() -> list[int]:
    """Processes below this one that are workers of a crew."""
    parents: dict[int, int] = {}
    workers = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            stat, title = (entry / "stat").read_text(), (entry / "cmdline").read_bytes()
        except OSError:
            continue
        parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
        if title.startswith(b"ray::Worker"):
            workers.append(int(entry.name))
    return [pid for pid in workers if os.getpid() in _ancestors(pid, parents)]


def _ancestors(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while pid := parents.get(pid, 0):
        yield pid


def test_the_command_says_who_works_and_resumes_what_was_killed(
    tmp_path: Path, calls: Path
) -> None:
    folder = project(tmp_path / "project", calls, cases=150)
    command = [sys.executable, "-m", "evalkit", "run", "--config", str(folder / "evalkit.toml")]
    options = ["--json", "--ray", "local", "--workers", "2", "--concurrency", "4"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    driver = subprocess.Popen([*command, *options], env=environment, stdout=subprocess.PIPE)
    while len(asked(calls)) < 20 and driver.poll() is None:
        time.sleep(0.02)
    driver.kill()
    driver.communicate()
    (unfinished,) = open_store(folder / ".evalkit").runs()
    before = len(asked(calls))

    again = subprocess.Popen(
        [*command, "--resume", unfinished["run_id"], *options],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while len(asked(calls)) < before + 10 and again.poll() is None:
        time.sleep(0.02)
    os.kill(asked(calls)[-1][0], signal.SIGKILL)
    said, told = again.communicate()

    assert again.returncode == 0, told
    assert "ray local: 2 workers" in told
    result = json.loads(said)
    assert result["status"] == "complete"
    assert result["resumed"] > 0
    assert len(scores(folder, unfinished["run_id"])) == 300
