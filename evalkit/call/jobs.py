"""Many calls that nobody waits for: bounded concurrency, and a queue that outlives its workers.

`execute_many` runs items from memory and forgets. `JobQueue` keeps them in a file: killed
at any point, the next worker goes on. A job whose worker was killed in the middle of it
runs again (at least once), and a job that kills its workers is given up.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from evalkit.call.durable import transaction
from evalkit.call.processes import is_gone, this_process
from evalkit.call.queue_file import open_queue, to_json
from evalkit.errors import ConfigError
from evalkit.records import CallResult, Json

log = logging.getLogger(__name__)

CONCURRENCY = 16
AHEAD = 4
"""Finished results kept for their turn, as a multiple of the concurrency."""
LEASE_S = 120.0
"""How long a job stays a worker's that cannot be seen and does not say it lives."""
MAX_CLAIMS = 5
"""After so many workers died over a job it has failed."""
ADDED_AT_ONCE = 1000


class Executor(Protocol):
    """What makes the calls: an `Orchestrator`."""

    async def execute(
        self, feature: str, input: Mapping[str, Any] | str, **options: Any
    ) -> CallResult: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One call to make."""

    feature: str
    input: Mapping[str, Any] | str
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of `execute`; in a `JobQueue` only such as JSON has."""
    key: str | None = None
    """What a `JobQueue` knows it by; None: its number in the batch."""


async def execute_many(
    orchestrator: Executor, items: Iterable[Item], *, concurrency: int = CONCURRENCY
) -> AsyncGenerator[CallResult, None]:
    """The results in the order of the items, which are taken as they are needed.

    At most `concurrency` calls are in flight, and at most four times as many items are
    begun before the first one's result is taken. Closing the iterator cancels what is in
    flight. Raises what `execute` raises: a ConfigError for an unknown feature; ValueError
    for a `concurrency` below 1; and what `items` raises, once the results of those before
    are out: they are paid for.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency is {concurrency}: at least 1 call has to be in flight.")
    places = asyncio.Semaphore(concurrency)
    waiting = iter(items)

    async def call(item: Item) -> CallResult:
        async with places:
            return await orchestrator.execute(item.feature, item.input, **item.options)

    calls: list[asyncio.Task[CallResult]] = []
    broken: Exception | None = None
    try:
        while True:
            room = concurrency * AHEAD - len(calls)
            try:
                for item in islice(waiting, room if broken is None else 0):
                    calls.append(asyncio.create_task(call(item)))
            except Exception as error:
                broken = error
            if not calls and broken is not None:
                raise broken
            if not calls:
                return
            yield await calls[0]
            del calls[0]
    finally:
        for task in calls:
            task.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One item of a batch, claimed by this process."""

    id: int
    key: str
    feature: str
    input: Mapping[str, Any] | str
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """What became of a job."""

    key: str
    state: str
    """waiting | running | done | failed: given up"""
    result: Json
    """Of a call that was made: status, output, value, error_kind, message, trace_id,
    cost_usd; of one that could not be made, status and message. None before, and for a job
    over which its workers died."""


class JobQueue:
    """Jobs in a file. Several workers, in several processes, may share it."""

    def __init__(self, path: str | Path, *, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._file = open_queue(path)

    def add(self, batch: str, items: Iterable[Item]) -> int:
        """Add the items to a batch; returns how many are new.

        One whose key is there already is left as it is: adding the same again after a
        crash completes the batch. Raises ConfigError for options that JSON does not have.
        """
        new, rows = 0, (_row(batch, n, item) for n, item in enumerate(items))
        while some := list(islice(rows, ADDED_AT_ONCE)):
            with self._lock, transaction(self._file):
                before = self._file.total_changes
                self._file.executemany(
                    "INSERT INTO jobs (batch, key, feature, input, options, state, claims) "
                    "VALUES (?, ?, ?, ?, ?, 'waiting', 0) ON CONFLICT DO NOTHING",
                    some,
                )
                new += self._file.total_changes - before
        return new

    def claim(self, batch: str) -> Job | None:
        """Take one job to work on; None when none waits now."""
        with self._lock, transaction(self._file):
            row = self._next(batch)
            if row is None:
                self._take_back(batch)
                row = self._next(batch)
            if row is None:
                return None
            self._file.execute(
                "UPDATE jobs SET state = 'running', claims = claims + 1, owner = ?, until = ? "
                "WHERE id = ?",
                (this_process(), self._micros(LEASE_S), row["id"]),
            )
        return Job(
            id=row["id"],
            key=row["key"],
            feature=row["feature"],
            input=json.loads(row["input"]),
            options=json.loads(row["options"]),
        )

    def keep(self, job_ids: Iterable[int]) -> None:
        """Say that these are still worked on."""
        with self._lock, transaction(self._file):
            self._file.executemany(
                "UPDATE jobs SET until = ? WHERE id = ? AND owner = ?",
                [(self._micros(LEASE_S), job_id, this_process()) for job_id in job_ids],
            )

    def finish(self, job: Job, result: CallResult) -> None:
        """Write the result down; of a job done twice, the first result stands."""
        told = {
            "status": result.status,
            "output": result.output,
            "value": result.value,
            "error_kind": result.error_kind,
            "message": result.message,
            "trace_id": result.record.trace_id,
            "cost_usd": result.record.cost_usd,
        }
        with self._lock:
            self._file.execute(
                "UPDATE jobs SET state = 'done', result = ?, owner = NULL "
                "WHERE id = ? AND state <> 'done'",
                (to_json(told), job.id),
            )

    def give_up(self, job: Job, reason: str) -> None:
        """Write down that a job cannot be done, and why; `retry` has it done again."""
        told = {"status": "error", "message": reason[:1000]}
        with self._lock:
            self._file.execute(
                "UPDATE jobs SET state = 'failed', result = ?, owner = NULL "
                "WHERE id = ? AND state <> 'done'",
                (to_json(told), job.id),
            )

    def give_back(self, job: Job) -> None:
        """Put a job back that was not done; this counts against nobody."""
        with self._lock:
            self._file.execute(
                "UPDATE jobs SET state = 'waiting', claims = claims - 1, owner = NULL "
                "WHERE id = ? AND owner = ? AND state = 'running'",
                (job.id, this_process()),
            )

    def retry(self, batch: str, *, statuses: Iterable[str] = ("error",)) -> int:
        """Have jobs done again: the given up, and those whose call ended with such a status."""
        wanted = list(statuses)
        marks = ", ".join("?" * len(wanted))
        with self._lock:
            return self._file.execute(
                "UPDATE jobs SET state = 'waiting', claims = 0, result = NULL WHERE batch = ? "
                f"AND (state = 'failed' OR json_extract(result, '$.status') IN ({marks}))",
                (batch, *wanted),
            ).rowcount

    def counts(self, batch: str) -> dict[str, int]:
        """Number of jobs by state: waiting, running, done, failed."""
        with self._lock:
            rows = self._file.execute(
                "SELECT state, count(*) FROM jobs WHERE batch = ? GROUP BY state", (batch,)
            ).fetchall()
        counts = {"waiting": 0, "running": 0, "done": 0, "failed": 0}
        counts.update((row[0], row[1]) for row in rows)
        return counts

    def batches(self) -> list[str]:
        """Names of all batches, oldest first."""
        with self._lock:
            rows = self._file.execute("SELECT batch FROM jobs GROUP BY batch ORDER BY min(id)")
            return [row["batch"] for row in rows]

    def results(self, batch: str) -> Iterator[JobResult]:
        """What became of every job, in the order they were added; whatever size the batch has."""
        last = 0
        while True:
            with self._lock:
                rows = self._file.execute(
                    "SELECT id, key, state, result FROM jobs WHERE batch = ? AND id > ? "
                    "ORDER BY id LIMIT ?",
                    (batch, last, ADDED_AT_ONCE),
                ).fetchall()
            for row in rows:
                last = row["id"]
                result = json.loads(row["result"] or "null")
                yield JobResult(key=row["key"], state=row["state"], result=result)
            if not rows:
                return

    def remove(self, batch: str) -> int:
        """Delete a batch with all that was said in it; returns the number of its jobs."""
        with self._lock:
            return self._file.execute("DELETE FROM jobs WHERE batch = ?", (batch,)).rowcount

    def close(self) -> None:
        with self._lock:
            self._file.close()

    # --- inside the lock -----------------------------------------------------------

    def _next(self, batch: str) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._file.execute(
            "SELECT * FROM jobs WHERE batch = ? AND state = 'waiting' ORDER BY id LIMIT 1",
            (batch,),
        ).fetchone()
        return row

    def _take_back(self, batch: str) -> None:
        """Jobs of workers that ended, or fell silent, wait again; or have failed for good."""
        for row in self._file.execute(
            "SELECT id, owner, until, claims FROM jobs WHERE batch = ? AND state = 'running'",
            (batch,),
        ).fetchall():
            if is_gone(row["owner"]) or row["until"] < self._micros():
                state = "failed" if row["claims"] >= MAX_CLAIMS else "waiting"
                self._file.execute(
                    "UPDATE jobs SET state = ?, owner = NULL WHERE id = ?", (state, row["id"])
                )

    def _micros(self, later_s: float = 0.0) -> int:
        return int((self._now() + later_s) * 1_000_000)


async def work_off(
    queue: JobQueue,
    batch: str,
    orchestrator: Executor,
    *,
    concurrency: int = CONCURRENCY,
    on_done: Callable[[Job, CallResult], None] = lambda job, result: None,
) -> dict[str, int]:
    """Do the jobs of a batch until none waits; returns the counts by state.

    Call it again after a crash, or in several processes at once. Cancelled, it puts back
    what is in flight. A job whose own call cannot be made (an input that its prompt has no
    use for) has failed; what the others would meet as well, a ConfigError or a file that
    cannot be written, stops all and is raised.
    """
    held: dict[int, Job] = {}

    async def work() -> None:
        while (job := queue.claim(batch)) is not None:
            held[job.id] = job
            try:
                result = await orchestrator.execute(job.feature, job.input, **job.options)
            except (ConfigError, OSError, sqlite3.Error):
                raise
            except Exception as error:
                log.warning("job %s of batch %s failed", job.key, batch, exc_info=True)
                queue.give_up(job, f"{type(error).__name__}: {error}")
                del held[job.id]
                continue
            queue.finish(job, result)
            del held[job.id]
            on_done(job, result)

    async def stay() -> None:
        while True:
            await asyncio.sleep(LEASE_S / 4)
            queue.keep(list(held))

    staying = asyncio.create_task(stay())
    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(work())
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    finally:
        staying.cancel()
        with suppress(asyncio.CancelledError):
            await staying
        for job in held.values():
            queue.give_back(job)
    return queue.counts(batch)


def _row(batch: str, number: int, item: Item) -> tuple[str, str, str, str, str]:
    key = str(number) if item.key is None else item.key
    try:
        input, options = json.dumps(item.input), json.dumps(dict(item.options), allow_nan=False)
        return batch, key, item.feature, input, options
    except (TypeError, ValueError) as error:
        raise ConfigError(f"job {key} of batch {batch} cannot be written down: {error}.") from None
