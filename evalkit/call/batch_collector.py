"""Gathers requests into batches, waits for the provider, hands every answer to who asked.

Part of the call path, between batch.py (the provider) and providers/batches.py (the
endpoints). One batch for each model; what is waited for stands in the batch file.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from evalkit.call.batch_file import BatchFile
from evalkit.call.providers.batches import MAX_BYTES, MAX_REQUESTS, Batches, BatchLine, Progress
from evalkit.call.providers.requests import write_json
from evalkit.errors import CallError
from evalkit.ids import new_id

log = logging.getLogger(__name__)

T = TypeVar("T")
Sleep: TypeAlias = Callable[[float], Awaitable[None]]
Answer: TypeAlias = asyncio.Future[Any]
Answers: TypeAlias = dict[str, Answer]
"""By custom_id."""

SUBMIT_TRIES = 4
POLL_TRIES = 60
TRY_AGAIN_S = 2.0
"""Before a failed step is tried again; doubled each time, up to a minute."""
REFUSED = frozenset({"rate_limit", "server", "connect"})
"""Failures after which a batch may be handed in again: hardly any of them took it."""
PASSING = REFUSED | {"stream_cut", "bad_reply"}
"""Failures after which one may ask again how far it is, and read the results again."""


@dataclass(slots=True)
class _Asked:
    """One request that waits to be handed in."""

    model: str
    line: BatchLine
    digest: str
    answer: Answer


class Collector:
    """Gathers requests into batches and hands every answer to who asked."""

    def __init__(
        self,
        batches: Batches,
        *,
        linger_s: float,
        poll_s: float,
        file: BatchFile | None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._batches = batches
        self._linger_s = linger_s
        self._poll_s = poll_s
        self._file = file
        self._sleep = sleep
        self._waiting: list[_Asked] = []
        self._waiting_bytes = 0
        self._last_asked = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._sent: dict[str, Answers] = {}
        """Who waits for which batch's answers, by custom_id."""
        self._unclaimed: dict[str, dict[str, Any]] = {}
        """Answers of an earlier process's batches that nobody has asked for yet."""

    async def ask(self, body: Mapping[str, Any]) -> Any:
        """The reply's body. Raises CallError; cancelled in time, nothing is handed in."""
        data = write_json(body)
        digest = hashlib.sha256(data).hexdigest()
        known = self._file.claim(digest) if self._file is not None else None
        if known is not None:
            try:
                return await self._take_up(*known)
            except CallError as error:
                if error.kind != "not_found":
                    raise
        line = BatchLine(custom_id=new_id(), body=data)
        answer: Answer = asyncio.get_running_loop().create_future()
        self._add(_Asked(str(body.get("model")), line, digest, answer))
        return await answer

    async def aclose(self) -> None:
        """Stop waiting. What nobody could find again is cancelled at the provider."""
        if self._timer is not None:
            self._timer.cancel()
        sent = dict(self._sent)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for answers in sent.values():
            _cancel(answers.values())
        _cancel(asked.answer for asked in self._waiting)
        for batch_id in sent:
            if self._file is not None:
                self._file.give_back(batch_id)
            else:
                with suppress(CallError):
                    await self._batches.cancel(batch_id)
        if self._file is not None:
            self._file.close()

    # --- handing in --------------------------------------------------------------------

    def _add(self, asked: _Asked) -> None:
        loop = asyncio.get_running_loop()
        self._waiting.append(asked)
        self._waiting_bytes += len(asked.line.body) + 200
        self._last_asked = loop.time()
        if len(self._waiting) >= MAX_REQUESTS or self._waiting_bytes >= MAX_BYTES:
            self._hand_in()
        elif self._timer is None:
            self._timer = loop.call_later(self._linger_s, self._ring)

    def _ring(self) -> None:
        """Time to hand in, unless a request came lately: one timer serves them all."""
        loop = asyncio.get_running_loop()
        self._timer = None
        left_s = self._last_asked + self._linger_s - loop.time()
        if left_s > 0.001:
            self._timer = loop.call_later(left_s, self._ring)
        else:
            self._hand_in()

    def _hand_in(self) -> None:
        """One batch for each model: a file may name only one."""
        groups: dict[str, list[_Asked]] = {}
        for asked in self._waiting:
            if not asked.answer.done():
                groups.setdefault(asked.model, []).append(asked)
        self._waiting, self._waiting_bytes = [], 0
        for group in groups.values():
            answers = {asked.line.custom_id: asked.answer for asked in group}
            self._start(self._run(group, answers), answers)

    def _start(self, work: Coroutine[Any, Any, None], answers: Answers) -> None:
        """Work in the background whose failure is that of everyone who waits for it."""

        async def guarded() -> None:
            try:
                await work
            except CallError as error:
                _fail(answers, error)
            except Exception as error:
                log.exception("a batch failed")
                _fail(answers, CallError("server", f"the batch failed: {error}"))

        task = asyncio.create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, group: Sequence[_Asked], answers: Answers) -> None:
        lines = [asked.line for asked in group]
        batch_id = await self._persist(lambda: self._batches.submit(lines), REFUSED, SUBMIT_TRIES)
        log.info("batch %s handed in: %d requests", batch_id, len(lines))
        if self._file is not None:
            self._file.sent(batch_id, [(a.line.custom_id, a.digest) for a in group])
        self._sent[batch_id] = answers
        _settle(answers, batch_id, await self._collect(batch_id))

    # --- what an earlier process handed in -------------------------------------------------

    async def _take_up(self, batch_id: str, custom_id: str) -> Any:
        """The answer to a request that an earlier process of this run handed in."""
        answer: Answer = asyncio.get_running_loop().create_future()
        outcomes = self._unclaimed.get(batch_id)
        if outcomes is not None:
            _settle({custom_id: answer}, batch_id, outcomes)
        elif (answers := self._sent.get(batch_id)) is not None:
            answers[custom_id] = answer
        else:
            answers = self._sent[batch_id] = {custom_id: answer}
            self._start(self._collect_left(batch_id, answers), answers)
        return await answer

    async def _collect_left(self, batch_id: str, answers: Answers) -> None:
        """The same for a batch of an earlier process: the rest may be asked for later."""
        outcomes = self._unclaimed[batch_id] = await self._collect(batch_id)
        _settle(answers, batch_id, outcomes)

    # --- collecting ----------------------------------------------------------------------

    async def _collect(self, batch_id: str) -> dict[str, Any]:
        """Wait for a batch to end; returns its outcomes by custom_id."""
        try:
            while True:
                progress = await self._persist(
                    lambda: self._batches.progress(batch_id), PASSING, POLL_TRIES
                )
                if progress.ended:
                    break
                await self._sleep(self._poll_s)
            outcomes = await self._persist(
                lambda: self._read(batch_id, progress), PASSING, POLL_TRIES
            )
        except CallError as error:
            self._sent.pop(batch_id, None)
            if self._file is not None and error.kind in ("bad_request", "not_found"):
                self._file.lost(batch_id)
            raise
        self._sent.pop(batch_id, None)
        return outcomes

    async def _read(self, batch_id: str, progress: Progress) -> dict[str, Any]:
        async with aclosing(self._batches.results(batch_id, progress)) as results:
            return {custom_id: outcome async for custom_id, outcome in results}

    async def _persist(
        self, step: Callable[[], Awaitable[T]], passing: Collection[str], tries: int
    ) -> T:
        """Do one step of a batch again while its failure may pass: thousands wait for it."""
        number = 0
        while True:
            number += 1
            try:
                return await step()
            except CallError as error:
                if error.kind not in passing or number == tries:
                    raise
                log.warning("batch: %s; trying again", error)
                wait_s = min(60.0, TRY_AGAIN_S * 2 ** (number - 1))
                await self._sleep(max(error.retry_after_s or 0.0, wait_s))


def _settle(answers: Answers, batch_id: str, outcomes: dict[str, Any]) -> None:
    """Hand out what the batch says; what it does not speak of has failed."""
    for custom_id, answer in answers.items():
        missing = CallError("server", f"batch {batch_id} ended without an answer to this request")
        outcome = outcomes.pop(custom_id, missing)
        if answer.done():
            continue
        if isinstance(outcome, CallError):
            answer.set_exception(outcome)
        else:
            answer.set_result(outcome)


def _fail(answers: Answers, error: CallError) -> None:
    for answer in answers.values():
        if not answer.done():
            answer.set_exception(CallError(error.kind, str(error), status=error.status))


def _cancel(answers: Iterable[Answer]) -> None:
    for answer in answers:
        answer.cancel()
