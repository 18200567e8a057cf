"""Do work before it is asked for, inside a bounded window, in an event loop's own thread.

pytest asks for one item after another and waits for each; meanwhile the loop works on
those that come next. Knows nothing of pytest, calls or scores.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from concurrent.futures import Future
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar, cast

from evalkit.session import new_event_loop

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")
PULSE_S = 5.0
"""How often somebody who waits looks whether the loop still lives."""
CLOSE_S = 10.0
REFILL = 16
"""A window is filled again when a so-manieth of it is empty, and later where it is wider than what
may be under way at once: one wake-up of the loop for many."""
HAND_OVER_S = 0.01
"""For so long results are gathered and handed over together, where more than `FEW` are under way:
two threads that want the interpreter's lock for every result take longer than the results do."""
FEW = 16


class LoopThread:
    """An event loop that runs in a thread until it is closed."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="evalkit", daemon=True)
        self._thread.start()
        self._started.wait()

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            self.loop = runner.get_loop()
            self._started.set()
            self.loop.run_forever()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the loop and wait for it."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        return wait_for(future, self)

    def close(self, last: Coroutine[Any, Any, None]) -> None:
        """Cancel what is under way, do `last`, end the thread."""

        async def end() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await last

        with contextlib.suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(end(), self.loop).result(CLOSE_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.join()

    def join(self) -> None:
        """Wait for the thread's end, for so long as closing may take."""
        self._thread.join(CLOSE_S)


def wait_for(future: Future[T], thread: LoopThread) -> T:
    """The future's result; RuntimeError when the thread that should bring it has died."""
    while True:
        try:
            return future.result(PULSE_S)
        except TimeoutError:
            if future.done():
                raise
            if not thread.alive:
                raise RuntimeError("the event loop's thread has ended") from None


class _Outcome(NamedTuple):
    """What a piece of work came to."""

    result: Any
    error: BaseException | None


_FORGOTTEN = _Outcome(None, LookupError("asked for more often than was said before"))


class RunAhead(Generic[K, V]):
    """Results by key, each worked out once, up to `window` of them ahead of who asks.

    `uses` says how often each will be asked for; after the last time it is forgotten.
    """

    def __init__(
        self,
        do: Callable[[K], Awaitable[V]],
        *,
        thread: LoopThread,
        concurrency: int,
        window: int,
        uses: Counter[K],
    ) -> None:
        self._do = do
        self._thread = thread
        self._window = window
        self._refill = self._since = max(1, window // REFILL, (window - concurrency) // 2)
        self._slots = asyncio.Semaphore(concurrency)
        self._uses = uses
        self._started: set[K] = set()
        self._asked: set[K] = set()
        self._tasks: set[asyncio.Task[None]] = set()  # the loop holds them only weakly
        self._under_way: set[asyncio.Task[None] | None] = set()
        """Of these, the ones that wait for their turn no more."""
        self._finished: dict[K, _Outcome] = {}
        """Of the loop's thread: what it has not handed over."""
        self._outcomes: dict[K, _Outcome] = {}
        self._handed_over = threading.Condition()

    @property
    def ahead(self) -> int:
        """Results under way or finished that nobody has asked for."""
        return len(self._started - self._asked)

    def fill(self, upcoming: Iterable[K]) -> None:
        """Start on what comes next, as far as the window goes; told before each `take`."""
        self._since += 1
        if self._since < self._refill:
            return
        self._since = 0
        self._start(islice(upcoming, self._window))

    def take(self, keys: Iterable[K]) -> list[V]:
        """The results of `keys`; waits for those that are not there yet."""
        keys = list(keys)
        self._start(keys)
        self._asked.update(keys)
        return [self._take(key) for key in keys]

    def _take(self, key: K) -> V:
        if key not in self._outcomes:
            self._wait_for(key)
        self._uses[key] -= 1
        last = self._uses[key] <= 0
        result, error = self._outcomes[key]
        if last:
            self._outcomes[key] = _FORGOTTEN
        if error is not None:
            raise error
        return cast(V, result)

    def _wait_for(self, key: K) -> None:
        with self._handed_over:
            while not self._handed_over.wait_for(lambda: key in self._outcomes, PULSE_S):
                if not self._thread.alive:
                    raise RuntimeError("the event loop's thread has ended")

    def _start(self, keys: Iterable[K]) -> None:
        fresh = [key for key in dict.fromkeys(keys) if key not in self._started]
        if fresh:
            self._started.update(fresh)
            self._thread.loop.call_soon_threadsafe(self._begin, fresh)

    # --- in the loop's thread ----------------------------------------------------

    def _begin(self, keys: Iterable[K]) -> None:
        for key in keys:
            task = self._thread.loop.create_task(self._work(key))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Let what is under way end, for so long as closing may take; begin nothing more."""
        for task in self._tasks - self._under_way:
            task.cancel()
        if under_way := self._tasks & self._under_way:
            await asyncio.wait(under_way, timeout=CLOSE_S)

    async def _work(self, key: K) -> None:
        task = asyncio.current_task()
        try:
            async with self._slots:
                self._under_way.add(task)
                self._finish(key, _Outcome(await self._do(key), None))
        except BaseException as error:
            self._finish(key, _Outcome(None, error))
            if not isinstance(error, Exception):
                raise
        finally:
            self._under_way.discard(task)

    def _finish(self, key: K, outcome: _Outcome) -> None:
        if not self._finished:
            wait_s = HAND_OVER_S if len(self._tasks) > FEW else 0.0
            self._thread.loop.call_later(wait_s, self._hand_over)
        self._finished[key] = outcome

    def _hand_over(self) -> None:
        with self._handed_over:
            self._outcomes.update(self._finished)
            self._finished.clear()
            self._handed_over.notify_all()
