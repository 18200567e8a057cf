"""Make a request that is too long fit: what goes first, and what never goes.

First the lowest-ranked half of the documents, then the oldest half of the turns, then
the middle of the longest text. The system prompt and the question's frame stay.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from evalkit.records import Message

MIN_TEXT_CHARS = 400
"""A text shorter than this is not cut: what is left would mean nothing."""

_DOCUMENT = re.compile(r"<document\b[^>]*>\n.*?\n</document>\n?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trimmed:
    """A shorter request, and what is missing from it in words."""

    messages: tuple[Message, ...]
    cut: str


def trim(messages: Sequence[Message], *, follow_up: int = 0) -> Trimmed | None:
    """The next shorter form of `messages`; None when nothing more may go.

    The question is the last message but for the `follow_up` ones, which come back to its answer.
    """
    return (
        _without_documents(messages)
        or _without_turns(messages, follow_up)
        or _without_middle(messages)
    )


def _without_documents(messages: Sequence[Message]) -> Trimmed | None:
    """Retrieval ranks documents best first: the second half goes."""
    for at, message in enumerate(messages):
        if message["role"] == "system" or not isinstance(message["content"], str):
            continue
        found = list(_DOCUMENT.finditer(message["content"]))
        if len(found) < 2:
            continue
        keep = len(found) // 2
        content = message["content"]
        for match in reversed(found[keep:]):
            content = content[: match.start()] + content[match.end() :]
        cut = f"{len(found) - keep} of {len(found)} documents"
        return Trimmed(messages=_with(messages, at, content), cut=cut)
    return None


def _without_turns(messages: Sequence[Message], follow_up: int) -> Trimmed | None:
    """The oldest turns between the system prompt and the question go."""
    first = next((n for n, m in enumerate(messages) if m["role"] != "system"), len(messages))
    turns = len(messages) - first - 1 - follow_up
    if turns < 2:
        return None
    gone = max(2, turns // 2 // 2 * 2)
    return Trimmed(
        messages=(*messages[:first], *messages[first + gone :]),
        cut=f"{gone} of {turns} earlier turns",
    )


def _without_middle(messages: Sequence[Message]) -> Trimmed | None:
    """Half of the longest text goes, from its middle: beginning and end say most."""
    texts = [
        (len(m["content"]), at)
        for at, m in enumerate(messages)
        if m["role"] != "system" and isinstance(m["content"], str)
    ]
    size, at = max(texts, default=(0, -1))
    if size < MIN_TEXT_CHARS:
        return None
    content, quarter = messages[at]["content"], size // 4
    gone = size - 2 * quarter
    shorter = f"{content[:quarter]}\n[{gone} characters left out]\n{content[-quarter:]}"
    return Trimmed(messages=_with(messages, at, shorter), cut=f"{gone} characters of a text")


def _with(messages: Sequence[Message], at: int, content: str) -> tuple[Message, ...]:
    changed = {**messages[at], "content": content}
    return (*messages[:at], changed, *messages[at + 1 :])
