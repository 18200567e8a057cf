"""Tokens before sending: an estimate on the high side, so that a limit holds."""

from __future__ import annotations

from collections.abc import Sequence

from evalkit.records import Message

MESSAGE_OVERHEAD_TOKENS = 8
BYTES_PER_TOKEN = 3
"""Of UTF-8; real tokenizers need 3.5 to 4.5 for English and about 3 for other languages."""


def estimate_tokens(messages: Sequence[Message]) -> int:
    """Tokens of `messages` with their framing. Content parts count as their text."""
    size = sum(len(str(m["content"]).encode("utf-8", "replace")) for m in messages)
    return size // BYTES_PER_TOKEN + MESSAGE_OVERHEAD_TOKENS * len(messages) + 1
