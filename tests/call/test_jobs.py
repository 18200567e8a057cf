"""Batches of calls: bounded, in order, and none lost when a worker is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.call.jobs import LEASE_S, MAX_CLAIMS, Item, JobQueue, execute_many, work_off
from evalkit.call.orchestrator import Orchestrator
from evalkit.config import load_settings
from evalkit.errors import ConfigError
from evalkit.records import CallResult
from tests.loopback import Loopback
from tests.project import write_project
from tests.score.answers import RECORD

ROOT = Path(__file__).resolve().parents[2]


def result_of(text: str, status: Any = "ok") -> CallResult:
    return CallResult(
        status=status, output=text, value=None, error_kind=None, message=None,
        record=replace(RECORD, trace_id=f"trace-{text}", output=text),
    )  # fmt: skip


@dataclass
class Echo:
    """Answers with its input; a gate per input says when."""

    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    flying: int = 0
    most: int = 0
    asked: Counter[str] = field(default_factory=Counter)
    status: str = "ok"
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def execute(
        self, feature: str, input: Mapping[str, Any] | str, **options: Any
    ) -> CallResult:
        text = input if isinstance(input, str) else str(input["text"])
        self.asked[text] += 1
        self.flying += 1
        self.begun.set()
        self.most = max(self.most, self.flying)
        try:
            await asyncio.sleep(0)
            if text in self.gates:
                await self.gates[text].wait()
        finally:
            self.flying -= 1
        if feature == "unknown":
            raise ConfigError("no feature 'unknown'")
        return result_of(text, self.status)


def items(count: int, **changes: Any) -> Iterator[Item]:
    return (Item(feature="f", input=str(n), **changes) for n in range(count))


# --- execute_many ------------------------------------------------------------------


async def test_results_come_in_the_order_of_the_items_with_bounded_concurrency() -> None:
    echo = Echo(gates={"0": asyncio.Event()})
    asyncio.get_running_loop().call_later(0.01, echo.gates["0"].set)

    results = [result async for result in execute_many(echo, items(100), concurrency=7)]

    assert [result.output for result in results] == [str(n) for n in range(100)]
    assert echo.most == 7


async def test_items_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def endless() -> Iterator[Item]:
        n = 0
        while True:
            taken.append(n)
            yield Item(feature="f", input=str(n))
            n += 1

    results = execute_many(Echo(), endless(), concurrency=5)
    first = await anext(results)
    await results.aclose()

    assert first.output == "0"
    assert len(taken) == 20


async def test_closing_the_results_cancels_what_is_in_flight() -> None:
    echo = Echo(gates={"1": asyncio.Event()})
    results = execute_many(echo, items(3), concurrency=3)
    await anext(results)

    await results.aclose()

    assert echo.flying == 0


async def test_a_configuration_that_cannot_work_is_raised() -> None:
    broken = [Item(feature="f", input="0"), Item(feature="unknown", input="1")]
    results = execute_many(Echo(), broken)

    assert (await anext(results)).output == "0"
    with pytest.raises(ConfigError, match="unknown"):
        await anext(results)


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_items_that_break_off_are_raised_after_the_results_of_those_before(
    concurrency: int,
) -> None:
    def breaks_off() -> Iterator[Item]:
        yield from items(6)
        raise ValueError("line 7 is no item")

    echo = Echo()
    results = execute_many(echo, breaks_off(), concurrency=concurrency)
    told = [(await anext(results)).output for _ in range(6)]

    assert told == [str(n) for n in range(6)]
    with pytest.raises(ValueError, match="line 7"):
        await anext(results)
    assert echo.flying == 0


async def test_no_items_are_no_results() -> None:
    assert [result async for result in execute_many(Echo(), [])] == []


# --- the queue ------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store" / "queue.sqlite"


class WallClock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


async def test_jobs_are_done_and_their_results_kept_in_order(path: Path) -> None:
    queue = JobQueue(path)
    queue.add("night", [Item(feature="f", input={"text": str(n)}, key=f"k{n}") for n in range(30)])
    done: list[str] = []

    counts = await work_off(
        queue, "night", Echo(), concurrency=4, on_done=lambda job, result: done.append(job.key)
    )

    assert counts == {"waiting": 0, "running": 0, "done": 30, "failed": 0}
    assert sorted(done) == sorted(f"k{n}" for n in range(30))
    results = list(JobQueue(path).results("night"))
    assert [(r.key, r.state, r.result["output"]) for r in results] == [
        (f"k{n}", "done", str(n)) for n in range(30)
    ]
    assert results[7].result["trace_id"] == "trace-7"


def test_adding_the_same_again_adds_nothing(path: Path) -> None:
    queue = JobQueue(path)

    first = queue.add("night", items(2500))
    again = queue.add("night", items(2600))

    assert (first, again) == (2500, 100)
    assert queue.add("other", items(1)) == 1
    assert queue.batches() == ["night", "other"]


def test_a_job_is_claimed_once(path: Path) -> None:
    queue, other = JobQueue(path), JobQueue(path)
    queue.add("night", items(3))

    claimed = [q.claim("night") for q in (queue, other, queue, other)]

    assert [job.key if job else None for job in claimed] == ["0", "1", "2", None]


def test_a_silent_worker_loses_its_job_and_one_that_speaks_keeps_it(path: Path) -> None:
    clock = WallClock()
    queue = JobQueue(path, now=clock)
    queue.add("night", items(2))
    silent, speaking = queue.claim("night"), queue.claim("night")
    assert silent is not None
    assert speaking is not None

    clock.now += LEASE_S - 1
    queue.keep([speaking.id])
    clock.now += 2
    taken = queue.claim("night")

    assert taken is not None
    assert taken.id == silent.id
    assert queue.claim("night") is None


def test_a_job_that_kills_its_workers_is_given_up(path: Path) -> None:
    clock = WallClock()
    queue = JobQueue(path, now=clock)
    queue.add("night", items(1))

    claims = 0
    while queue.claim("night") is not None:
        claims += 1
        clock.now += LEASE_S + 1

    assert claims == MAX_CLAIMS
    assert queue.counts("night")["failed"] == 1
    assert queue.retry("night") == 1
    assert queue.claim("night") is not None


def test_of_a_job_done_twice_the_first_result_stands(path: Path) -> None:
    queue = JobQueue(path)
    queue.add("night", items(1))
    job = queue.claim("night")
    assert job is not None

    queue.finish(job, result_of("first"))
    queue.finish(job, result_of("second"))

    assert [r.result["output"] for r in queue.results("night")] == ["first"]


async def test_failed_calls_can_be_made_again(path: Path) -> None:
    queue, echo = JobQueue(path), Echo(status="error")
    queue.add("night", items(3))
    await work_off(queue, "night", echo)

    echo.status = "ok"
    again = queue.retry("night")
    await work_off(queue, "night", echo)

    assert again == 3
    assert [r.result["status"] for r in queue.results("night")] == ["ok"] * 3
    assert set(echo.asked.values()) == {2}


async def test_a_cancelled_worker_puts_its_jobs_back(path: Path) -> None:
    queue, echo = JobQueue(path), Echo(gates={"0": asyncio.Event()})
    queue.add("night", items(3))
    working = asyncio.create_task(work_off(queue, "night", echo, concurrency=1))
    await echo.begun.wait()

    working.cancel()
    await asyncio.wait({working})

    assert working.cancelled()
    assert queue.counts("night") == {"waiting": 3, "running": 0, "done": 0, "failed": 0}


async def test_a_configuration_error_stops_the_work_and_loses_no_job(path: Path) -> None:
    queue = JobQueue(path)
    queue.add("night", [Item(feature="unknown", input="0")])

    with pytest.raises(ConfigError, match="unknown"):
        await work_off(queue, "night", Echo())

    assert queue.counts("night")["waiting"] == 1


def test_options_that_json_does_not_have_are_refused(path: Path) -> None:
    queue = JobQueue(path)

    with pytest.raises(ConfigError, match="job 0 of batch night cannot be written"):
        queue.add("night", items(1, options={"budget": object()}))

    assert queue.batches() == []


def test_a_batch_can_be_removed(path: Path) -> None:
    queue = JobQueue(path)
    queue.add("night", items(2))

    assert queue.remove("night") == 2
    assert list(queue.results("night")) == []


WORKER = """
import asyncio, sys
from pathlib import Path
from evalkit.call.jobs import JobQueue, work_off
from evalkit.call.orchestrator import Orchestrator
from evalkit.config import load_settings
async def main():
    settings = load_settings(start=Path(sys.argv[1]))
    async with Orchestrator.from_config(settings) as orchestrator:
        queue = JobQueue(Path(settings.store_path) / "queue.sqlite")
        print("ready", flush=True)
        await work_off(queue, "night", orchestrator, concurrency=8,
                       on_done=lambda job, result: print(job.key, flush=True))
asyncio.run(main())
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to see processes in")
async def test_kill_9_loses_no_job_and_repeats_only_those_in_flight(tmp_path: Path) -> None:
    with Loopback(delay_ms=5) as server:
        project = write_project(tmp_path, base_url=server.url + "/v1", cases=1)
        settings = load_settings(start=project)
        queue = JobQueue(Path(settings.store_path) / "queue.sqlite")
        queue.add(
            "night",
            [Item(feature="classify", input={"text": f"[case j-{n}]"}) for n in range(60)],
        )
        killed_after = await asyncio.to_thread(_kill_a_worker_in_the_middle, project)
        before = queue.counts("night")

        async with Orchestrator.from_config(settings) as orchestrator:
            counts = await work_off(queue, "night", orchestrator, concurrency=8)
        asked = server.stats.by_case

    assert 20 <= killed_after <= before["done"] < 60
    assert counts == {"waiting": 0, "running": 0, "done": 60, "failed": 0}
    assert set(asked) == {f"j-{n}" for n in range(60)}
    assert sum(asked.values()) <= 60 + 8


def _kill_a_worker_in_the_middle(project: Path) -> int:
    """Returns how many jobs the worker had reported done."""
    command = [sys.executable, "-c", WORKER, str(project)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as worker:
        assert worker.stdout is not None
        told = [worker.stdout.readline() for _ in range(21)]
        os.kill(worker.pid, signal.SIGKILL)
        return len(told) - 1


async def test_one_job_that_cannot_be_done_holds_up_none(tmp_path: Path) -> None:
    class Fussy(Echo):
        async def execute(
            self, feature: str, input: Mapping[str, Any] | str, **options: Any
        ) -> CallResult:
            if input == "3":
                raise KeyError("text")
            return await super().execute(feature, input, **options)

    queue = JobQueue(tmp_path / "queue.sqlite")
    queue.add("night", items(8))

    counts = await work_off(queue, "night", Fussy(), concurrency=2)

    assert (counts["done"], counts["failed"]) == (7, 1)
    [failed] = [one for one in queue.results("night") if one.state == "failed"]
    assert failed.key == "3"
    assert failed.result == {"status": "error", "message": "KeyError: 'text'"}
    assert queue.retry("night") == 1


async def test_a_fault_that_every_job_would_meet_fails_none(tmp_path: Path) -> None:
    class Full(Echo):
        async def execute(self, *_: Any, **__: Any) -> CallResult:
            raise OSError(28, "No space left on device")

    queue = JobQueue(tmp_path / "queue.sqlite")
    queue.add("night", items(4))

    with pytest.raises(OSError, match="No space left"):
        await work_off(queue, "night", Full(), concurrency=2)

    assert (queue.counts("night")["waiting"], queue.counts("night")["failed"]) == (4, 0)


async def test_no_call_at_a_time_is_no_way_to_make_many(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        await anext(execute_many(Echo(), items(3), concurrency=0))
