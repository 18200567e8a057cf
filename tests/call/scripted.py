"""A provider that plays a script, and a clock that only moves when told: no network, no wait."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from evalkit.call.one_attempt import Clock
from evalkit.errors import CallError
from evalkit.records import Event, Finish, ModelRequest, TextDelta, Usage


def finish(reason: str = "stop", *, served_model: str | None = None) -> Finish:
    return Finish(
        finish_reason=reason,
        usage=Usage(prompt_tokens=100, completion_tokens=10),
        served_model=served_model,
    )


def answer(text: str, reason: str = "stop") -> tuple[Event, ...]:
    """One complete reply in one piece."""
    return (TextDelta(text), finish(reason))


Step = Sequence[Event] | CallError | Callable[[ModelRequest], Sequence[Event]]


@dataclass
class Scripted:
    """Plays its steps in order, the last one for ever; keeps what it was asked."""

    steps: list[Step]
    clock: ManualClock | None = None
    takes_s: float = 0.0
    asked: list[ModelRequest] = field(default_factory=list)
    closed: bool = False

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
        step = self.steps[min(len(self.asked), len(self.steps) - 1)]
        self.asked.append(request)
        if self.clock is not None:
            self.clock.now += self.takes_s
        if isinstance(step, CallError):
            raise step
        for event in step(request) if callable(step) else step:
            yield event

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class ManualClock:
    """Time that passes by sleeping only; jitter is what the test says."""

    now: float = 1000.0
    draw: float = 0.5
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def clock(self) -> Clock:
        return Clock(monotonic=lambda: self.now, sleep=self.sleep, jitter=lambda: self.draw)
