"""Checks of the answer's form as JSON: strict, against a schema, or somewhere inside a text.

`compile(params, base)` does all that can be done before an answer is there and raises
ValueError for what can never work; the function it returns measures one answer.
NaN, Infinity and duplicate keys are not JSON here. Work on hostile text is bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from evalkit.json_schema import compile_schema
from evalkit.records import Answer, Json
from evalkit.score.check_reading import Measure, Measured, Params, short, subject, yes_no
from evalkit.strict import StrictError, loads_json

MAX_SCHEMA_BYTES = 1_000_000
MAX_SEARCH_WORK = 20_000_000
"""Characters looked at, over all attempts, to find JSON inside a text."""
ATTEMPT_WORK = 1000
"""What an attempt costs before it has read a character, in the same unit."""
DEEP_WORK = 20_000
"""What it costs to find that brackets are nested too deeply to be read."""
CUT_BEHIND = 50_000
_OPENING = re.compile(r'\{(?=\s*+["}])|\[(?=\s*+[\[{"\-0-9tfn\]])')
"""A bracket with a sign after it that a JSON object or list can go on with."""

_JSON_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def is_json(params: Params, base: Path) -> Measure:
    wanted, validate = params.get("type"), _validator(params, base)

    def measure(answer: Answer) -> Measured:
        try:
            value = loads_json(answer.output, where="output")
        except StrictError as error:
            return yes_no(False, f"is not strict JSON: {error}")
        if wanted and not _is_type(value, wanted):
            return yes_no(False, f"is JSON, but no {wanted}")
        problem = validate(value)
        return yes_no(problem is None, f"is JSON, but {problem}" if problem else "is strict JSON")

    return measure


def _is_type(value: Json, wanted: str) -> bool:
    if wanted == "number" and isinstance(value, bool):
        return False
    return isinstance(value, _JSON_TYPES[wanted])


def json_schema(params: Params, base: Path) -> Measure:
    read, validate = subject({"path": "", **params}), _validator(params, base)

    def measure(answer: Answer) -> Measured:
        problem = validate(read(answer))
        return yes_no(problem is None, problem or "follows the schema")

    return measure


def contains_json(params: Params, base: Path) -> Measure:
    validate = _validator(params, base)

    def measure(answer: Answer) -> Measured:
        fact = "contains no JSON object or list"
        for value in _json_inside(answer.output):
            problem = validate(value)
            if problem is None:
                return yes_no(True, f"contains {short(value)}")
            fact = f"contains JSON, but {problem}"
        return yes_no(False, fact)

    return measure


def _validator(params: Params, base: Path) -> Callable[[Json], str | None]:
    schema = params.get("schema")
    if schema is None:
        return lambda value: None
    return compile_schema(read_schema(schema, base))


def read_schema(schema: Any, base: Path) -> Any:
    """The schema itself, or the one in the file it names; raises ValueError for neither."""
    if not isinstance(schema, str):
        return schema
    path = base / schema
    try:
        if path.stat().st_size > MAX_SCHEMA_BYTES:
            raise ValueError(f"schema {schema}: larger than {MAX_SCHEMA_BYTES} bytes")
        return loads_json(path.read_text(encoding="utf-8"), where=schema)
    except OSError as error:
        raise ValueError(f"schema {schema}: {error.strerror} ({path})") from None
    except UnicodeDecodeError:
        raise ValueError(f"schema {schema}: is not UTF-8 text") from None


def _json_inside(text: str) -> Iterator[Json]:
    """JSON objects and lists in a text, outermost first, read strictly; work is bounded.

    What is behind is cut off now and then: a JSONDecodeError counts the lines before it,
    so that a failure far into a long text would cost as much as reading it.
    """
    decode = json.JSONDecoder().raw_decode
    at, work = 0, 0
    while work < MAX_SEARCH_WORK and (opening := _OPENING.search(text, at)) is not None:
        start = opening.start()
        if start > CUT_BEHIND:
            text, start = text[start:], 0
        at = start + 1
        work += ATTEMPT_WORK
        try:
            _, end = decode(text, start)
        except json.JSONDecodeError as error:
            # An open string is reported where it starts, but was read to the end.
            work += (len(text) if "Unterminated" in error.msg else error.pos) - start
            continue
        except (RecursionError, ValueError):
            work += DEEP_WORK
            continue
        work += end - start
        try:
            yield loads_json(text[start:end], where="output")
        except StrictError:
            continue
        at = end
