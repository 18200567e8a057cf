"""Work done ahead of who asks for it: bounded, once each, and an end to it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest

from evalkit.pytest_session.ahead import LoopThread, RunAhead


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread

    async def nothing() -> None:
        pass

    if thread.alive:
        thread.close(nothing())


class Work:
    """Counts what is done, and how much of it at once."""

    def __init__(self) -> None:
        self.done: Counter[int] = Counter()
        self.running = self.most = 0

    async def do(self, key: int) -> int:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        self.done[key] += 1
        if key < 0:
            raise ValueError(f"{key} is negative")
        return key * 10


def ahead_of(thread: LoopThread, work: Work, uses: Counter[int]) -> RunAhead[int, int]:
    return RunAhead(work.do, thread=thread, concurrency=3, window=6, uses=uses)


def test_each_is_done_once_however_often_it_is_asked_for(thread: LoopThread) -> None:
    work, keys = Work(), [key for key in range(50) for _ in range(2)]
    ahead = ahead_of(thread, work, Counter(keys))

    found = []
    for position, key in enumerate(keys):
        ahead.fill(keys[position:])
        found += ahead.take([key])

    assert found == [key * 10 for key in keys]
    assert work.done == Counter(range(50))
    assert work.most <= 3


def test_no_more_than_the_window_is_ahead(thread: LoopThread) -> None:
    work, keys = Work(), list(range(50))
    ahead = ahead_of(thread, work, Counter(keys))

    widths = []
    for position, key in enumerate(keys):
        ahead.fill(keys[position:])
        widths.append(ahead.ahead)
        ahead.take([key])

    assert max(widths) == 6
    assert ahead.ahead == 0


def test_what_nobody_asks_for_does_not_fill_the_window(thread: LoopThread) -> None:
    work, keys = Work(), list(range(50))
    ahead = ahead_of(thread, work, Counter(keys))

    for position in range(0, 50, 2):
        ahead.fill(keys[position:])
        ahead.take([keys[position]])

    assert set(work.done) >= set(range(48))
    assert ahead.ahead == 25


def test_what_is_asked_for_by_surprise_is_done_too(thread: LoopThread) -> None:
    ahead = ahead_of(thread, Work(), Counter([7]))

    assert ahead.take([7]) == [70]


def test_who_asks_more_often_than_was_said_is_told_at_once(thread: LoopThread) -> None:
    ahead = ahead_of(thread, Work(), Counter([7]))
    ahead.take([7])

    with pytest.raises(LookupError, match="more often"):
        ahead.take([7])


def test_many_results_at_once_all_arrive(thread: LoopThread) -> None:
    work, keys = Work(), list(range(500))
    ahead: RunAhead[int, int] = RunAhead(
        work.do, thread=thread, concurrency=100, window=200, uses=Counter(keys)
    )

    found = []
    for position, key in enumerate(keys):
        ahead.fill(keys[position:])
        found += ahead.take([key])

    assert found == [key * 10 for key in keys]
    assert work.most <= 100


def test_a_failure_is_of_the_one_who_asked(thread: LoopThread) -> None:
    ahead = ahead_of(thread, Work(), Counter([-1, 1]))
    ahead.fill([-1, 1])

    with pytest.raises(ValueError, match="-1 is negative"):
        ahead.take([-1])
    assert ahead.take([1]) == [10]


def test_closing_cancels_what_is_under_way_and_ends_the_thread(thread: LoopThread) -> None:
    ended = []

    async def forever(key: int) -> int:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(key)
        return key

    async def last() -> None:
        ended.append(-1)

    ahead: RunAhead[int, int] = RunAhead(
        forever, thread=thread, concurrency=3, window=6, uses=Counter([1, 2])
    )
    ahead.fill([1, 2])
    thread.run(asyncio.sleep(0.01))

    thread.close(last())

    assert sorted(ended) == [-1, 1, 2]
    assert ended[-1] == -1
    assert not thread.alive


def test_draining_ends_what_is_under_way_and_begins_nothing_more(thread: LoopThread) -> None:
    begun, done = [], []

    async def slowly(key: int) -> int:
        begun.append(key)
        await asyncio.sleep(0.05)
        done.append(key)
        return key

    ahead: RunAhead[int, int] = RunAhead(
        slowly, thread=thread, concurrency=3, window=6, uses=Counter(range(6))
    )
    ahead.fill(range(6))
    thread.run(asyncio.sleep(0.01))

    thread.run(ahead.drain())

    assert (sorted(begun), sorted(done)) == ([0, 1, 2], [0, 1, 2])
    assert ahead.take([1]) == [1]


def test_who_waits_for_a_dead_thread_is_told(
    thread: LoopThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalkit.pytest_session.ahead.PULSE_S", 0.01)

    async def forever(key: int) -> int:
        await asyncio.Event().wait()
        return key

    ahead: RunAhead[int, int] = RunAhead(
        forever, thread=thread, concurrency=1, window=1, uses=Counter([1])
    )
    ahead.fill([1])
    thread.loop.call_soon_threadsafe(thread.loop.stop)

    with pytest.raises((RuntimeError, asyncio.CancelledError)):
        ahead.take([1])
    thread.join()
