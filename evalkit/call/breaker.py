"""Stops asking a provider that is down, and lets one request find out when it is back.

State of one provider over many calls. After `threshold` failures in a row within
`window_s` it opens; after `cooldown_s` exactly one request goes through, however many wait. Its
success closes the breaker, its failure opens it for another cool-down. How a request ends
that was let through before says nothing by then: it neither opens nor closes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Literal

from evalkit.call.failures import FAILURES

THRESHOLD = 5
WINDOW_S = 30.0
COOLDOWN_S = 10.0
AT_ONCE = frozenset({"quota_exhausted"})
"""Kinds of which one is enough: asking again cannot help."""


class Breaker:
    """Whether a provider may be asked. Every pass that `enter()` gives ends in `record` or
    `release`."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        *,
        threshold: int = THRESHOLD,
        window_s: float = WINDOW_S,
        cooldown_s: float = COOLDOWN_S,
    ) -> None:
        self._monotonic = monotonic
        self._threshold = threshold
        self._window_s = window_s
        self._cooldown_s = cooldown_s
        self._failed_at: deque[float] = deque(maxlen=threshold)
        self._opened_at: float | None = None
        self._probing = False
        self._period = 0
        """Counted up whenever it opens or closes."""

    @property
    def state(self) -> Literal["closed", "open", "half-open"]:
        if self._opened_at is None:
            return "closed"
        return "half-open" if self._cooled() else "open"

    @property
    def is_shut(self) -> bool:
        """Whether `enter` would say no at this moment."""
        return self._opened_at is not None and (self._probing or not self._cooled())

    def enter(self) -> int | None:
        """A pass when closed, or when this caller is the one probe; else None."""
        if self._opened_at is not None:
            if self._probing or not self._cooled():
                return None
            self._probing = True
        return self._period

    def record(self, passed: int, kind: str | None) -> None:
        """How a request ended: None for an answer, else the kind of its failure."""
        if passed != self._period:
            return
        if kind is None or not FAILURES[kind].trips_breaker:
            if self._probing or kind is None:
                self._close()
            return
        now = self._monotonic()
        self._failed_at.append(now)
        enough = (
            len(self._failed_at) == self._threshold and now - self._failed_at[0] <= self._window_s
        )
        if self._probing or enough or kind in AT_ONCE:
            self._opened_at, self._probing = now, False
            self._period += 1

    def release(self, passed: int) -> None:
        """The caller gave up before there was an outcome: another may probe."""
        if passed == self._period:
            self._probing = False

    def _close(self) -> None:
        self._failed_at.clear()
        if self._opened_at is not None:
            self._opened_at, self._probing = None, False
            self._period += 1

    def _cooled(self) -> bool:
        assert self._opened_at is not None
        return self._monotonic() - self._opened_at >= self._cooldown_s
