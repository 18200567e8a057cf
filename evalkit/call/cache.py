"""Exact response cache: what the same request is, and which answers may be kept.

Answers are kept by a `ResponseCache`: one file, or a server (`cache_storage.open_cache`).
A cache that is broken is counted and never fails a call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Protocol

from evalkit import json_bytes
from evalkit.call.trace import Call
from evalkit.frozen import frozen
from evalkit.plain_text import composed
from evalkit.records import Finish, Message, Pair, Usage

COMPLETE = frozenset({"stop", "tool_calls"})
"""Finish reasons of an answer that is all there."""
DATA_STARTS, DATA_ENDS = "<data>", "</data>"
"""Lines around what a user wrote; blank space beside them is the user's as well."""


@frozen
class Cached:
    """A kept answer, with what a call record says of it."""

    output: str
    finish: Finish
    """Of the reply that was paid for: its tokens, tool calls, confidence."""
    model: str
    """Name of the configured model that answered."""
    served_model: str | None
    """The model as the call record names it."""
    pair: Pair
    """What was asked for when it was kept; another pair's trial must not be served with it."""
    stored_at: float = 0.0
    """Seconds since 1970; set by `put`."""
    asked: str = ""
    """The text it answered; only the semantic cache looks at it."""


class ResponseCache(Protocol):
    """Where answers are kept. No method raises for what the storage does."""

    @property
    def errors(self) -> int:
        """How often the storage failed since this object was made."""
        ...

    async def get(self, key: str) -> Cached | None:
        """The answer kept under `key`, unless its time is over."""
        ...

    async def put(self, key: str, cached: Cached, ttl_s: float) -> None:
        """Keep an answer for `ttl_s`; the same key is replaced. 0 keeps nothing."""
        ...

    async def aclose(self) -> None:
        """Finish writing and let go of the storage; it is opened again when needed."""
        ...


# --- what is the same request ---------------------------------------------------------


def cache_key(
    *,
    messages: Sequence[Message],
    model_id: str,
    params: Mapping[str, Any],
    input: Mapping[str, Any] | None = None,
    schema: Mapping[str, Any] | None = None,
    index_version: str | None = None,
    tenant: str | None = None,
    namespace: str,
) -> str:
    """`namespace:hash` of everything that decides an answer.

    `input` is given where it is what the provider reads, beside the messages or in their place.
    `namespace` begins with the feature; what else must not be mixed stands behind a slash
    (pair; in an evaluation the trial: `tickets/small/classify@v2/3`). Users' text is
    normalised (see `normalised`), every other message counts as it is.
    """
    spoken = [
        {**message, "content": _normalised_content(message["content"])}
        if message.get("role") == "user"
        else message
        for message in messages
    ]
    facts = [model_id, tenant, index_version, params, schema, spoken]
    whole = json_bytes.encode_sorted(facts if input is None else [*facts, input])
    return f"{namespace}:{sha256(whole).hexdigest()}"


def normalised(text: str) -> str:
    """Text without differences that nobody means: composed Unicode, line ends, runs of blanks.

    Case and punctuation stay, and so does the indentation of lines: in code it is meaning.
    """
    if not text.isascii():
        text = composed(text)
    lines: list[str] = []
    for line in text.strip().splitlines():
        words = " ".join(line.split())
        if words == DATA_ENDS:
            while lines[-1:] == [""]:
                lines.pop()
        at_start = lines[-1:] == [DATA_STARTS]
        if words and not at_start:
            lines.append(line[: len(line) - len(line.lstrip())] + words)
        elif words or not (at_start or lines[-1] == ""):
            lines.append(words)
    return "\n".join(lines)


def _normalised_content(content: Any) -> Any:
    if isinstance(content, str):
        return normalised(content)
    if not isinstance(content, list | tuple):
        return content
    return [
        {**part, "text": normalised(part["text"])}
        if isinstance(part, Mapping) and isinstance(part.get("text"), str)
        else part
        for part in content
    ]


# --- what may be kept -----------------------------------------------------------------


def stood_in(call: Call) -> bool:
    """Whether a model answered in the place of another that failed."""
    answered = call.answered_by
    return answered is None or any(a.error_kind and a.model != answered.name for a in call.attempts)


def whole_answer(call: Call) -> Cached | None:
    """The answer of a call that went well, for whoever asks the same; None for any other call.

    Valid, complete, undegraded: not a refusal or a failure, not one cut off or put together
    from two streams.
    """
    answered = call.answered_by
    said = call.decisive
    if answered is None or call.rendered is None or said is None:
        return None
    last = call.attempts[-1]
    whole = call.finish_reason in COMPLETE and not call.resumed and last.error_kind is None
    fine = call.status == "ok" and call.error_kind is None and call.schema_ok is not False
    if not whole or not fine or not (call.output or call.tool_calls):
        return None
    usage = Usage(
        prompt_tokens=said.prompt_tokens,
        completion_tokens=said.completion_tokens,
        cached_prompt_tokens=said.cached_prompt_tokens,
    )
    finish = Finish(
        finish_reason=call.finish_reason or "stop",
        usage=usage,
        served_model=said.served_model,
        tool_calls=call.tool_calls,
        confidence=call.confidence,
    )
    pair = Pair(
        model=call.feature.model,
        prompt_name=call.rendered.name,
        prompt_version=call.rendered.version,
    )
    return Cached(
        output=call.output or "",
        finish=finish,
        model=answered.name,
        served_model=said.served_model,
        pair=pair,
    )
