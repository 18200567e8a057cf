"""Answers from a call's record instead of a model: what each attempt got, in its order.

For replays. Time passes as it did, without waiting: the clock that goes with the
providers moves by the recorded latencies and waits. Knows one call; makes nothing up:
a request that the record does not have is an error that says so.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from evalkit.call.one_attempt import Clock
from evalkit.errors import CallError, EvalkitError
from evalkit.records import Attempt, CallRecord, Event, Finish, ModelRequest, TextDelta, Usage
from evalkit.settings import ModelSettings

REFUSED_WAIT_S = 1e9
"""A wait that nothing came after: it passed the deadline then, and does now."""

CANARY = re.compile(r"ref-[0-9a-f]{16}")
"""Of a system prompt; another one in each process."""


class NotRecorded(EvalkitError):
    """A replay asks for something else than the call did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Play:
    """One attempt, with what its record leaves to the call's."""

    attempt: Attempt
    text: str
    """What came of the answer; of a failed attempt, what had been shown before it failed."""
    finish: Finish | None
    """None: the attempt failed."""
    retry_after_s: float


class Recording:
    """The attempts of one recorded call, to be played once."""

    def __init__(self, record: CallRecord, models: Mapping[str, ModelSettings]) -> None:
        self.now = 0.0
        self._record = record
        self._models = models
        self._plays = _plays(record)
        self._position = 0

    def providers(self, names: Iterable[str]) -> dict[str, RecordedProvider]:
        return {name: RecordedProvider(name, self) for name in names}

    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.now, sleep=self._sleep, jitter=lambda: 0.0)

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def next(self, provider: str, request: ModelRequest) -> _Play:
        """The attempt that answers this request; raises NotRecorded when there is none."""
        asked = (provider, request.model_id)
        while self._position < len(self._plays):
            play = self._plays[self._position]
            self._position += 1
            if self._asked(play.attempt) == asked:
                self._pass_time(play.attempt)
                return play
            # A breaker that opens in the replay as well lets no request come here.
            if play.attempt.error_kind != "breaker_open":
                raise NotRecorded(
                    f"attempt {self._position} was {play.attempt.model} at "
                    f"{play.attempt.provider}; now {request.model_id} at {provider} is asked"
                )
        raise NotRecorded(
            f"the record ends after {len(self._plays)} attempts; "
            f"now {request.model_id} at {provider} is asked once more"
        )

    def as_leaked(self, text: str, request: ModelRequest) -> str:
        """A reply that the guard blocked, with this replay's canary where it had the call's."""
        canary = CANARY.search(str(request.messages[:1]))
        if self._record.error_kind != "guard_block" or canary is None:
            return text
        return CANARY.sub(canary[0], text)

    def _asked(self, attempt: Attempt) -> tuple[str, str | None]:
        model = self._models.get(attempt.model)
        # An answer from a cache names no provider: it stands for the model's own.
        provider = attempt.provider or (model.provider if model else "")
        return provider, model.id if model else None

    def _pass_time(self, attempt: Attempt) -> None:
        self.now += attempt.latency_ms / 1000
        if self._position == len(self._plays):
            self.now = max(self.now, self._record.latency_ms / 1000)


class RecordedProvider:
    """One provider of a recorded call."""

    def __init__(self, name: str, recording: Recording) -> None:
        self._name = name
        self._recording = recording

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
        play = self._recording.next(self._name, request)
        if play.text:
            yield TextDelta(self._recording.as_leaked(play.text, request))
        if play.finish is None:
            kind = play.attempt.error_kind or "bad_reply"
            raise CallError(kind, "as recorded", retry_after_s=play.retry_after_s)
        yield play.finish

    async def aclose(self) -> None: ...


def _plays(record: CallRecord) -> list[_Play]:
    """What was asked, in order; the loser of a hedged pair decided nothing and is left out."""
    attempts = [one for one in record.attempts if one.error_kind != "cancelled"]
    answers = [n for n, one in enumerate(attempts) if one.finish_reason is not None]
    if not attempts and record.cache_hit:
        return [_from_cache(record)]
    return [
        _Play(
            attempt=one,
            text=_text(record, one, has_shown=n == _first_shown(record, len(attempts))),
            finish=_finish(record, one, is_last=n == answers[-1]) if n in answers else None,
            retry_after_s=_wait_after(attempts, n),
        )
        for n, one in enumerate(attempts)
    ]


def retriever_that_fails(*_: object, **__: object) -> NoReturn:
    """For the replay of a call whose retriever failed."""
    raise CallError("retriever", "as recorded")


def retriever_that_finds_nothing(*_: object, **__: object) -> list[str]:
    """For the replay of a call whose retriever found nothing."""
    return []


def was_streamed(record: CallRecord) -> bool:
    """Whether some of the answer had been shown when an attempt failed."""
    return record.resumed > 0 or record.error_kind == "incomplete"


def _first_shown(record: CallRecord, n_attempts: int) -> int | None:
    """The attempt that was cut after its text had been shown: those after it continued it."""
    return n_attempts - 1 - record.resumed if was_streamed(record) else None


def _text(record: CallRecord, attempt: Attempt, *, has_shown: bool) -> str:
    output = record.output or ""
    if attempt.finish_reason is not None:
        return output if attempt.reply is None else attempt.reply
    if not has_shown:
        return ""
    return output if record.error_kind == "incomplete" else output[: max(1, len(output) // 2)]


def _finish(record: CallRecord, attempt: Attempt, *, is_last: bool) -> Finish:
    confidence = record.confidence
    if record.escalated and not is_last:
        confidence = 0.0  # how low it was is not recorded, that it was too low is
    return Finish(
        finish_reason=attempt.finish_reason or "stop",
        usage=Usage(
            prompt_tokens=attempt.prompt_tokens,
            completion_tokens=attempt.completion_tokens,
            cached_prompt_tokens=attempt.cached_prompt_tokens,
        ),
        served_model=attempt.served_model,
        tool_calls=record.tool_calls if is_last else (),
        confidence=confidence,
    )


def _wait_after(attempts: list[Attempt], n: int) -> float:
    """Seconds before the next request to the same target."""
    if n + 1 == len(attempts):
        return REFUSED_WAIT_S
    this, following = attempts[n], attempts[n + 1]
    if (this.provider, this.model) != (following.provider, following.model):
        return REFUSED_WAIT_S
    return following.wait_ms / 1000


def _from_cache(record: CallRecord) -> _Play:
    """An answer that a cache gave, as if the model gave it: it is read and judged the same."""
    attempt = Attempt(
        provider=record.provider or "",
        model=record.model,
        served_model=None,
        error_kind=None,
        finish_reason=record.finish_reason or "stop",
        latency_ms=0.0,
        ttft_ms=None,
        wait_ms=0.0,
        prompt_tokens=None,
        completion_tokens=None,
        cached_prompt_tokens=None,
        cost_usd=None,
        max_tokens=0,
    )
    return _Play(
        attempt=attempt,
        text=record.output or "",
        finish=_finish(record, attempt, is_last=True),
        retry_after_s=REFUSED_WAIT_S,
    )
