"""Read an answer strictly, repair what is only wrapped, and say what is wrong with the rest.

Models that turn to Markdown overnight wrap their JSON in a fence or in prose, or leave a
comma behind the last value: that is repaired, and counted, so that the drift is seen. What
is inside is still read strictly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from evalkit.json_schema import Validate
from evalkit.records import Json, Message
from evalkit.strict import StrictError, loads_json

_TRAILING_COMMA = re.compile(r'("[^"\\]*(?:\\.[^"\\]*)*"?)|(?<=[^\s,:{\[]),(?=\s*[}\]])', re.DOTALL)
"""A comma between a value and a closing bracket; or a text, which may have some of its own."""
_FENCE = re.compile(r"```[A-Za-z0-9_-]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Validated:
    """An answer read against its schema; `error` is None when it follows it."""

    value: Json
    repaired: bool
    error: str | None


def validate_output(text: str, validate: Validate, *, repair: bool = True) -> Validated:
    """Parse `text` as JSON and check it.

    With `repair`, a fence or prose around it is removed, and commas behind last values.
    """
    try:
        value, repaired = loads_json(text, where="the answer"), False
    except StrictError as error:
        inner = _repaired(text) if repair else text
        if inner == text:
            return Validated(value=None, repaired=False, error=_no_json(error))
        try:
            value, repaired = loads_json(inner, where="the answer"), True
        except StrictError as inner_error:
            return Validated(value=None, repaired=False, error=_no_json(inner_error))
    return Validated(value=value, repaired=repaired, error=validate(value))


def _no_json(error: StrictError) -> str:
    said = str(error)
    return said if said.startswith("not valid JSON") else f"not valid JSON: {said}"


def _repaired(text: str) -> str:
    inner = _unwrap(text)
    return _TRAILING_COMMA.sub(r"\1", text if inner is None else inner)


def _unwrap(text: str) -> str | None:
    """The one fenced block, or what stands between the first and the last brace."""
    fenced = _FENCE.findall(text)
    if len(fenced) == 1:
        return str(fenced[0])
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else None


def ask_again(bad_answer: str, error: str, *, by_schema: bool) -> tuple[Message, ...]:
    """The turns appended for a re-ask: the answer, and the validation error alone."""
    form = ", with nothing but JSON that follows the schema" if by_schema else ""
    return (
        {"role": "assistant", "content": bad_answer},
        {
            "role": "user",
            "content": f"That answer cannot be used: {error}\nAnswer again{form}.",
        },
    )
