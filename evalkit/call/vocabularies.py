"""Which vocabulary a model reads with, and how many tokens a text has in it.

The vocabularies come inside the package splintr-rs (extra `tokens`): nothing is fetched.
They count as the makers' own tokenizers do. A model that is not in the table is
estimated; so is everything without the extra.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec

MAX_EXACT_CHARS = 400_000
"""A longer text is counted by its beginning: counting must not hold other calls up."""
MAX_REMEMBERED = 512
MAX_REMEMBERED_CHARS = 20_000
"""Texts whose counts are kept: a prompt's own part is the same in every call."""

VOCABULARIES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), vocabulary)
    for pattern, vocabulary in (
        (r"gpt-oss\b", "gpt-oss"),
        (r"(ft:)?(chatgpt-4o|gpt-4o|gpt-4\.[15]|gpt-5)(?![a-z0-9])", "o200k_base"),
        (r"o[134](?![a-z0-9])", "o200k_base"),
        (r"(ft:)?(gpt-4|gpt-3\.?5(-turbo)?)(?![a-z0-9.])", "cl100k_base"),
        (r"(meta-)?llama-?3(?![0-9])", "llama3"),
        (r"deepseek-(v3|r1(?!-distill))", "deepseek_v3"),
        (r"qwen-?[23](?![0-9])", "qwen3"),
        (r"glm-4", "glm4"),
        (r"phi-?4(?![a-z0-9])(?!-mini|-multimodal)", "phi4"),
    )
)
"""Beginning of a model's id, without the maker's folder -> the vocabulary it has."""


def vocabulary_of(model_id: str) -> str | None:
    """The vocabulary of a model by its id; None when not known."""
    name = model_id.lower().rpartition("/")[2]
    return next((v for pattern, v in VOCABULARIES if pattern.match(name)), None)


def exact_counter(model_id: str) -> Callable[[str], int] | None:
    """Counts a text's tokens as the model does; None when its vocabulary is not here."""
    vocabulary = vocabulary_of(model_id)
    if vocabulary is None or find_spec("splintr") is None:
        return None
    return _counter(vocabulary)


@lru_cache
def _counter(vocabulary: str) -> Callable[[str], int]:
    from splintr import Tokenizer

    # Ordinary: a user's text that spells a control token is text to the server, too.
    encode = Tokenizer.from_pretrained(vocabulary).encode_ordinary

    @lru_cache(MAX_REMEMBERED)
    def remembered(text: str) -> int:
        return len(encode(text))

    def count(text: str) -> int:
        size = len(text)
        if size <= MAX_REMEMBERED_CHARS:
            return remembered(text)
        if size <= MAX_EXACT_CHARS:
            return len(encode(text))
        return round(len(encode(text[:MAX_EXACT_CHARS])) * size / MAX_EXACT_CHARS)

    return count
