"""Ids that sort by creation (the layout of UUIDv7), and words that nobody can guess."""

from __future__ import annotations

import hashlib
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


def drawn_from(secret: str | None, what: str) -> str:
    """16 hex digits: of one `secret` the same for the same `what`, random without a secret."""
    if secret is None:
        return os.urandom(8).hex()
    return hashlib.sha256(f"{what}\n{secret}".encode()).hexdigest()[:16]
