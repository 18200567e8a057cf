"""What a caller has seen of a streamed answer, and how it goes on after a cut.

Until the first piece is shown, a cut stream is tried again silently; what the guard still
holds back has not been shown. Afterwards only free text goes on, when the feature asks for
it: the next request carries what was shown, and what its answer repeats of it is left out.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from evalkit.call.guard_stream import StreamGuard
from evalkit.errors import CallError
from evalkit.records import Message, ModelRequest

RESUMABLE = frozenset({"stream_cut", "bad_reply", "timeout", "connect", "server"})
JOIN_CHARS = 80
"""Of a continuation held back until it is clear how it joins what was shown."""
MIN_OVERLAP_CHARS = 8
"""A shorter repetition is chance."""
MAX_OVERLAP_CHARS = 400

GO_ON = "Your answer was interrupted. Go on exactly where it stopped, without repeating any of it."


class Shown:
    """The text shown so far; one for each streamed call."""

    def __init__(
        self,
        emit: Callable[[str], Awaitable[None]],
        *,
        resume: bool,
        screen: StreamGuard | None = None,
    ) -> None:
        """`screen` looks at the text before it is shown, and may hold some of it back."""
        self._emit = emit
        self._resume = resume
        self._screen = screen
        self._held: str | None = None
        self._asked: tuple[Message, ...] | None = None
        self.text = ""
        self.resumed = 0
        self.seen = False
        """Whether the caller has been given any of it."""
        self.given_s = 0.0
        """How long the caller took to take what it was given; reset with each attempt."""
        self.on_first: Callable[[], None] | None = None
        """Called when the first piece is given of an answer that nobody may go on with."""

    async def add(self, piece: str) -> None:
        """Show a piece, or hold it back while it is not clear whether it repeats something."""
        if self._held is None:
            await self._show(piece)
            return
        self._held += piece
        restarts = self.text.startswith(self._held)
        if not restarts and len(self._held) >= JOIN_CHARS:
            await self.complete()

    async def complete(self, *, cut: bool = False) -> None:
        """Show what is still held back, without what it repeats, or was about to when `cut`."""
        if self._held is not None:
            held, self._held = self._held, None
            if not (cut and self.text.startswith(held)):
                await self._show(held[_repeated(self.text, held) :])

    async def flush(self) -> None:
        """Show what the guard held back to the end."""
        if self._screen is not None:
            await self._give(self._screen.flush())

    def start_again(self) -> None:
        """After a failure: what nobody has seen is no part of the answer."""
        if not self.seen:
            self.text, self._held = "", None
            if self._screen is not None:
                self._screen.restart()

    def is_final(self, error: CallError) -> bool:
        """Whether a failure now ends the call: something was shown and may not go on."""
        return self.seen and not (self._resume and error.kind in RESUMABLE)

    def continued(self, request: ModelRequest) -> ModelRequest:
        """The request for the rest of the answer."""
        self.resumed += 1
        self._held = ""
        self._asked = self._asked or request.messages
        rest: tuple[Message, ...] = (
            {"role": "assistant", "content": self.text},
            {"role": "user", "content": GO_ON},
        )
        return replace(request, messages=self._asked + rest, follow_up=len(rest))

    async def _show(self, piece: str) -> None:
        if piece:
            self.text += piece
            await self._give(piece if self._screen is None else self._screen.feed(piece))

    async def _give(self, safe: str) -> None:
        if not safe:
            return
        if not self.seen and not self._resume and self.on_first is not None:
            self.on_first()
        self.seen = True
        started = time.monotonic()
        try:
            await self._emit(safe)
        finally:
            self.given_s += time.monotonic() - started


def _repeated(shown: str, more: str) -> int:
    """How many characters at the start of `more` repeat what was shown."""
    if more.startswith(shown):
        return len(shown)
    if shown.startswith(more) and len(more) >= MIN_OVERLAP_CHARS:
        return len(more)
    for size in range(min(len(shown), len(more), MAX_OVERLAP_CHARS), MIN_OVERLAP_CHARS - 1, -1):
        if shown.endswith(more[:size]):
            return size
    return 0
