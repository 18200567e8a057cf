"""Recognise the system prompt in an answer: its canary, or its words in a row.

Used by `guards`. A prompt that is retold in other words is not recognised.
"""

from __future__ import annotations

import base64
import codecs
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import chain

from evalkit.pii import texts_of
from evalkit.plain_text import fold
from evalkit.records import Json

LEAK_WORDS = 12
"""So many words of the system prompt in a row are no coincidence."""


def find_leaks(text: str, *, canary: str | None, system_text: str, given: Json) -> Iterator[str]:
    """Yield what is told: `canary`, `prompt`. What was `given` to the model may be repeated."""
    if canary and _has_canary(text, canary):
        yield "canary"
    shared = _runs(text) & _secret_runs(system_text)
    if shared:
        for one in texts_of(given):
            shared -= _runs(one)
    if shared:
        yield "prompt"


def _has_canary(text: str, canary: str) -> bool:
    """Whether the canary is in `text`: as it is, spaced out, backwards, wide or encoded."""
    text = fold(text)
    squeezed = re.sub(r"[\W_]+", "", text).casefold()
    plain, encoded = _disguises(canary)
    return any(form in squeezed for form in plain) or any(form in text for form in encoded)


@lru_cache(maxsize=16)
def _disguises(canary: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    word = re.sub(r"[\W_]+", "", canary).casefold()
    secret = canary.encode()
    plain = (word, word[::-1], codecs.encode(word, "rot13"), secret.hex())
    encoded = tuple(
        base64.b64encode(b"\0" * shift + secret).decode()[(0, 2, 3)[shift] :].rstrip("=")[:-1]
        for shift in range(3)
    )
    return plain, encoded


_WORD = re.compile(r"\w+")
_QUOTED = re.compile(r"\"[^\"\n]{0,1000}\"|“[^”\n]{0,1000}”|«[^»\n]{0,1000}»")


def _runs(text: str) -> set[str]:
    """Every run of `LEAK_WORDS` words of `text`."""
    words = _WORD.findall(text.casefold())
    return {" ".join(words[at : at + LEAK_WORDS]) for at in range(len(words) - LEAK_WORDS + 1)}


@lru_cache(maxsize=64)
def _secret_runs(system_text: str) -> frozenset[str]:
    """Runs of the system prompt that no answer should have; what it quotes is to be said."""
    return frozenset(chain.from_iterable(_runs(part) for part in _QUOTED.split(system_text)))
