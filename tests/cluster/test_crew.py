"""Tasks go to the least busy worker, and again when it is lost; a task has one line."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from evalkit.cluster.crew import MOST_HIRED, Crew, Hand, Line, Lost
from evalkit.errors import ConfigError, EvalkitError


class Worker:
    """Does tasks at once, until the one it dies of."""

    def __init__(self, number: int, *, dies_at: int | None = None, deadly: Any = None) -> None:
        self.number, self.deadly = number, deadly
        self.left = dies_at
        self.dismissed = 0

    async def work(self, task: Any) -> Line | None:
        await asyncio.sleep(0)
        if self.left is not None:
            self.left -= 1
        if self.left == 0 or task == self.deadly:
            self.left = 0
        if self.left is not None and self.left <= 0:
            raise Lost
        return {"key": task, "by": self.number}

    async def dismiss(self) -> None:
        self.dismissed += 1


class Hiring:
    """Hires workers made by `make`, and remembers them."""

    def __init__(self, **facts: Any) -> None:
        self.facts = facts
        self.workers: list[Worker] = []

    async def __call__(self, number: int) -> Hand:
        self.workers.append(Worker(number, **self.facts))
        return self.workers[-1]


async def test_work_is_shared_out_evenly() -> None:
    async with Crew(Hiring(), size=3) as crew:
        lines = await asyncio.gather(*(crew.do(n) for n in range(30)))

    assert Counter(line["by"] for line in lines if line) == {1: 10, 2: 10, 3: 10}


async def test_each_task_has_one_line_though_workers_die() -> None:
    hiring = Hiring(dies_at=12)

    async with Crew(hiring, size=4) as crew:
        lines = [line for n in range(100) if (line := await crew.do(n))]

    assert [line["key"] for line in lines] == list(range(100))
    assert crew.lost == 9  # eleven tasks each
    assert [worker.dismissed for worker in hiring.workers] == [1] * 13


async def test_a_task_that_kills_is_given_up_and_named() -> None:
    hiring = Hiring(deadly="case 7")

    async with Crew(hiring, size=2) as crew:
        with pytest.raises(EvalkitError, match=r"3 workers were lost .* case 7"):
            await crew.do("case 7")


async def test_workers_that_die_at_once_are_not_replaced_for_ever() -> None:
    started: list[int] = []

    async def hire(number: int) -> Hand:
        started.append(number)
        raise Lost

    async with Crew(hire, size=2) as crew:
        with pytest.raises(EvalkitError, match="10 workers were started, and all were lost"):
            await crew.do("anything")

    assert len(started) == 2 * MOST_HIRED


async def test_what_a_worker_finds_wrong_ends_the_run() -> None:
    async def hire(number: int) -> Hand:
        raise ConfigError("another golden set")

    async with Crew(hire, size=2) as crew:
        with pytest.raises(ConfigError, match="another golden set"):
            await crew.do("anything")
