"""Ids and stage times of one call, gathered while it runs.

An id is time-ordered and random (the layout of UUIDv7): it sorts by creation and
never depends on the clock alone.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def new_id() -> str:
    """A UUIDv7 as 32 hex digits: 48 bits of milliseconds, 74 random bits (RFC 9562)."""
    millis = time.time_ns() // 1_000_000 & 0xFFFF_FFFF_FFFF
    noise = int.from_bytes(os.urandom(10), "big")
    version, variant = 0x7 << 76, 0x2 << 62
    high, low = (noise >> 68 & 0xFFF) << 64, noise & (1 << 62) - 1
    value = millis << 80 | version | high | variant | low
    return uuid.UUID(int=value).hex


class Stages:
    """Milliseconds spent in each stage of a call, in the order they ran."""

    __slots__ = ("_monotonic", "ms")

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = self._monotonic()
        try:
            yield
        finally:
            spent = (self._monotonic() - started) * 1000
            self.ms[name] = round(self.ms.get(name, 0.0) + spent, 3)
