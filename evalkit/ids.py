"""Ids that sort by creation and never depend on the clock alone (the layout of UUIDv7)."""

from __future__ import annotations

import os
import random
import time

_RANDOM = random.Random(os.urandom(32))
os.register_at_fork(after_in_child=lambda: _RANDOM.seed(os.urandom(32)))


def new_id() -> str:
    """A UUIDv7 as 32 hex digits: 48 bits of milliseconds, 74 random bits (RFC 9562)."""
    millis = time.time_ns() // 1_000_000 & 0xFFFF_FFFF_FFFF
    noise = _RANDOM.getrandbits(74)
    version, variant = 0x7 << 76, 0x2 << 62
    high, low = (noise >> 62) << 64, noise & (1 << 62) - 1
    return f"{millis << 80 | version | high | variant | low:032x}"
