"""Tokens of a request before it is sent: on the high side, so that a limit holds.

Text is counted by kind: letters share tokens, digits and punctuation often have one each.
Where the extra `tokens` is installed and a model's vocabulary is in it, text is counted
exactly. What models then report corrects both, model by model, in memory alone.

Of calls alike at most about one in a hundred is under its true count. A text unlike all
that was seen is under by a half at most, measured on 23 kinds of text in 8 vocabularies.
"""

from __future__ import annotations

import json
import string
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from heapq import nlargest

from evalkit.call.providers.requests import Remembered
from evalkit.call.vocabularies import exact_counter
from evalkit.config import ModelSettings
from evalkit.records import Message, ModelRequest, Usage

MESSAGE_TOKENS = 8
"""Framing of a message: role and separators."""
IMAGE_TOKENS = 1600
"""Of a part that is no text; what one large image costs at most with the usual models."""

LETTERS_PER_TOKEN = 3.0
LETTERS_PER_TOKEN_UNBROKEN = 1.3
"""In base64 and the like, where no vocabulary knows any word."""
UNBROKEN_CHARS = 24
"""Characters a space from which a text has no words."""
WIDE_BYTES_PER_TOKEN = 2.5
"""Of letters outside ASCII."""
ASTRAL_TOKENS = 2.0
"""More, for each character outside the first plane: emoji have no token of their own."""

RATIOS_KEPT = 200
RATIOS_NEEDED = 20
RECOUNT_EVERY = 20
CORRECTIONS = (0.75, 3.0)
LEARN_FROM_TOKENS = 32
"""Shorter prompts say more about their framing than about their text."""
MAX_REMEMBERED = 256
SHORT_CHARS = 4096
"""A text no longer is counted once: a call asks three times, and its system prompt comes again."""

_WORDS = (string.ascii_letters + " ").encode()
_ASCII = bytes(range(128))


def rough_tokens(text: str) -> float:
    """Tokens of a text in any vocabulary, by the kinds of its characters."""
    return _counted_before(text) if len(text) <= SHORT_CHARS else _rough_tokens(text)


def _rough_tokens(text: str) -> float:
    data = text.encode("utf-8", "replace")
    size = len(data)
    single = len(data.translate(None, _WORDS))
    wide = 0
    if not text.isascii():
        wide = len(data.translate(None, _ASCII))
        single -= wide
    unbroken = size > UNBROKEN_CHARS * (data.count(b" ") + 1)
    letters = (size - single - wide) / (
        LETTERS_PER_TOKEN_UNBROKEN if unbroken else LETTERS_PER_TOKEN
    )
    tokens = single + letters
    return (
        tokens + wide / WIDE_BYTES_PER_TOKEN + data.count(b"\xf0") * ASTRAL_TOKENS
        if wide
        else tokens
    )


_counted_before = lru_cache(maxsize=512)(_rough_tokens)


class TokenEstimator:
    """Counts before, learns after. One for each orchestrator; nothing of it is kept."""

    def __init__(
        self, counter: Callable[[str], Callable[[str], int] | None] = exact_counter
    ) -> None:
        self._counter = counter
        self._models: dict[str, _Calibrated] = {}
        self._written = Remembered(json.dumps)

    def estimate(self, request: ModelRequest, model: ModelSettings) -> int:
        """Prompt tokens that `request` will have with `model`."""
        known = self._models.get(model.name) or self._of(model)
        return int(self._raw(request, known) * known.correction) + 1

    def learn(self, request: ModelRequest, model: ModelSettings, usage: Usage) -> None:
        """Take in what `model` counted of `request`, if anybody has asked for estimates of it."""
        known = self._models.get(model.name)
        if known is None or usage.prompt_tokens is None:
            return
        raw = self._raw(request, known)
        if raw >= LEARN_FROM_TOKENS:
            known.learn(usage.prompt_tokens / raw)

    def _of(self, model: ModelSettings) -> _Calibrated:
        if len(self._models) >= MAX_REMEMBERED:
            self._models.clear()
        known = self._models[model.name] = _Calibrated(self._counter(model.id))
        return known

    def _raw(self, request: ModelRequest, known: _Calibrated) -> float:
        tokens = _of_messages(request.messages, known.count)
        if request.response_schema is not None:
            tokens += known.count(self._written(request.response_schema))
        if request.tools:
            tokens += known.count(json.dumps(request.tools))
        return tokens


def _of_messages(messages: Sequence[Message], count: Callable[[str], float]) -> float:
    tokens = float(MESSAGE_TOKENS * len(messages))
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            tokens += count(content)
            continue
        for part in content:
            text = part.get("text") if isinstance(part, Mapping) else None
            tokens += count(text) if isinstance(text, str) else IMAGE_TOKENS
    return tokens


class _Calibrated:
    """How one model counts: its vocabulary, where known, and what its replies showed.

    The correction is the second highest of the last ratios of true to counted tokens: one
    odd call does not move it, and hardly any call alike is above it.
    """

    __slots__ = ("_ratios", "_seen", "correction", "count")

    def __init__(self, exact: Callable[[str], int] | None) -> None:
        self.count: Callable[[str], float] = exact or rough_tokens
        self.correction = 1.0
        self._ratios: deque[float] = deque(maxlen=RATIOS_KEPT)
        self._seen = 0

    def learn(self, ratio: float) -> None:
        self._ratios.append(ratio)
        self._seen += 1
        if self._seen < RATIOS_NEEDED:
            return
        if ratio > self.correction or self._seen % RECOUNT_EVERY == 0:
            low, high = CORRECTIONS
            self.correction = min(high, max(low, nlargest(2, self._ratios)[-1]))
