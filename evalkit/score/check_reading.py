"""How a check reads its own parameters and the answer in front of it.

Parameters come from golden sets, answers from models: both are data. What cannot be
read is one of two faults: the answer's (the case fails) or the check's (no score).
"""

from __future__ import annotations

import json
import math
import re
import reprlib
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.records import Answer, Json
from evalkit.strict import StrictError, loads_json

MAX_UNICODE_NORMALISED = 1_000_000
"""NFKC makes one character into up to 18; longer texts keep their form."""
MAX_REMEMBERED = 100_000


class OutputFault(Exception):
    """The answer is not what the check looks into: it fails, and `negate` cannot save it."""


class CheckFault(Exception):
    """The check cannot tell, through no fault of the answer: no score, counted by `kind`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Measured(NamedTuple):
    """What a check found, before `negate` and `threshold`."""

    score: float
    fact: str
    """True of the answer whatever the outcome: 'contains "refund"'."""
    passed: bool | None = None
    """Only where the user's own function decides; else the threshold does."""


def yes_no(found: bool, fact: str) -> Measured:
    return Measured(float(found), fact)


Params = Mapping[str, Any]
Measure = Callable[[Answer], Measured]
CompileMeasure = Callable[[Params, Path], Measure]


# --- parameters -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Param:
    """What a parameter may hold; `wrong` says what is wrong with a value, or None."""

    must_be: str
    fits: Callable[[Any], bool]

    def wrong(self, value: Any) -> str | None:
        return None if self.fits(value) else f"must be {self.must_be}, not {short(value)}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_pointer(value: Any) -> bool:
    return isinstance(value, str) and (value == "" or value.startswith("/"))


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def choice(*allowed: str) -> Param:
    return Param(
        "one of " + ", ".join(allowed), lambda value: isinstance(value, str) and value in allowed
    )


def choices(*allowed: str) -> Param:
    return Param(
        "a list of " + ", ".join(allowed),
        lambda value: _is_texts(value) and set(value) <= set(allowed),
    )


NORMALISE = ("unicode", "whitespace", "punctuation", "articles")

ANY = Param("any value", lambda value: True)
TEXT = Param("text", lambda value: isinstance(value, str) and value != "")
TEXTS = Param("a list of texts", _is_texts)
LIST = Param("a list", lambda value: isinstance(value, list) and bool(value))
FLAG = Param("true or false", lambda value: isinstance(value, bool))
COUNT = Param("a whole number, 0 or more", _is_count)
POSITIVE = Param("a whole number, 1 or more", lambda value: _is_count(value) and value > 0)
AMOUNT = Param("a number, 0 or more", lambda value: _is_number(value) and value >= 0)
SHARE = Param("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
POINTER = Param('a JSON pointer such as /label, or ""', _is_pointer)
SCHEMA = Param(
    "a JSON Schema, or the path of one",
    lambda value: isinstance(value, (dict, bool)) or (isinstance(value, str) and value != ""),
)
FUNCTION = Param(
    'a function as "module:function" or "file.py:function"',
    lambda value: isinstance(value, str) and re.fullmatch(r"[^:]+:[A-Za-z_]\w*", value) is not None,
)
NORMAL_FORM = Param(
    "true, false, or a list of " + ", ".join(NORMALISE),
    lambda value: isinstance(value, bool) or (_is_texts(value) and set(value) <= set(NORMALISE)),
)


def bounds(params: Params) -> Callable[[int, str], Measured]:
    """A count between `min` and `max`, both included; raises ValueError when they cross."""
    low, high = params.get("min", 0), params.get("max", math.inf)
    if low > high:
        raise ValueError(f"min {low} is more than max {high}")
    return lambda n, unit: yes_no(low <= n <= high, f"has {n} {unit}")


# --- the answer -----------------------------------------------------------------------


def read_json(text: str) -> Json:
    """The answer as strict JSON; raises OutputFault when it is none."""
    value, problem = (_parsed if len(text) <= MAX_REMEMBERED else _parse)(text)
    if problem is not None:
        raise OutputFault(problem)
    return value


def _parse(text: str) -> tuple[Json, str | None]:
    try:
        return loads_json(text, where="output"), None
    except StrictError as error:
        return None, f"the output is not strict JSON: {error}"


_parsed = lru_cache(maxsize=8)(_parse)
"""Several checks read one answer. The value is shared: nobody may change it."""


def subject(params: Params) -> Callable[[Answer], Json]:
    """What a check looks at: the output's text, or what stands in it at `path`."""
    path = params.get("path")
    if path is None:
        return lambda answer: answer.output

    def at_path(answer: Answer) -> Json:
        value = read_json(answer.output)
        try:
            return follow(value, path)
        except LookupError:
            raise OutputFault(f"the output has nothing at {path}") from None

    return at_path


def subject_text(params: Params) -> Callable[[Answer], str]:
    """As `subject`, as text: a value that is no text is written as JSON."""
    read = subject(params)
    return lambda answer: as_text(read(answer))


def reference(params: Params, name: str = "value") -> Callable[[Answer], Json]:
    """What the answer is held against: the parameter `name`, else the case's expected.

    `path` (or `expected_path`, where the two differ) points into an expected object or
    list; an expected scalar is taken as it is.
    """
    if name in params:
        value = params[name]
        return lambda answer: value
    path = params.get("expected_path", params.get("path", ""))

    def expected(answer: Answer) -> Json:
        if not answer.has_expected:
            raise CheckFault("no_expected", f'the case has no "expected" and the check no "{name}"')
        if not isinstance(answer.expected, (dict, list)):
            return answer.expected
        if isinstance(answer.expected, list) and "expected_path" not in params:
            return answer.expected
        try:
            return follow(answer.expected, path)
        except LookupError:
            raise CheckFault("no_expected", f'"expected" has nothing at {path}') from None

    return expected


def reference_text(params: Params) -> Callable[[Answer], str]:
    read = reference(params)
    return lambda answer: as_text(read(answer))


def reference_texts(params: Params) -> Callable[[Answer], list[str]]:
    """`values` (or `value`), else expected, as a list of texts; one text is a list of one."""
    read = reference(params, "values" if "value" not in params else "value")

    def texts(answer: Answer) -> list[str]:
        value = read(answer)
        return [as_text(item) for item in value] if isinstance(value, list) else [as_text(value)]

    return texts


def follow(value: Json, pointer: str) -> Json:
    """The value at a JSON pointer (RFC 6901); raises LookupError when there is none."""
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict):
            value = value[key]
        elif isinstance(value, list) and re.fullmatch(r"0|[1-9][0-9]{0,9}", key):
            value = value[int(key)]
        else:
            raise LookupError(pointer)
    return value


def as_text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def json_equal(one: Json, other: Json, *, fold: Callable[[str], str], unordered: bool) -> bool:
    """Equality as JSON has it: 1 is 1.0, true is not 1; texts are compared folded."""
    if isinstance(one, str) and isinstance(other, str):
        return fold(one) == fold(other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            json_equal(one[key], other[key], fold=fold, unordered=unordered) for key in one
        )
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return False
        if unordered:
            one, other = (sorted(side, key=lambda v: sort_key(v, fold)) for side in (one, other))
        return all(
            json_equal(a, b, fold=fold, unordered=unordered)
            for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return type(one) in (int, float, type(None)) and bool(one == other)


def sort_key(value: Json, fold: Callable[[str], str]) -> str:
    """A text that is equal for equal values, so that lists can be compared as bags."""
    if isinstance(value, str):
        return '"' + fold(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list):
        return "[" + "\0".join(sorted(sort_key(item, fold) for item in value))
    if isinstance(value, dict):
        return "{" + "\0".join(sorted(f"{key}\1{sort_key(v, fold)}" for key, v in value.items()))
    return json.dumps(value)


def folding(params: Params) -> Callable[[str], str]:
    """How texts are made alike before they are compared: `normalise`, then case."""
    asked = params.get("normalise", False)
    steps = (("unicode", "whitespace") if asked else ()) if isinstance(asked, bool) else asked
    fold_case = not params.get("case_sensitive", True)

    def fold(text: str) -> str:
        if "unicode" in steps and len(text) <= MAX_UNICODE_NORMALISED:
            text = unicodedata.normalize("NFKC", text)
        if fold_case:
            text = text.casefold()
        if "punctuation" in steps:
            text = _PUNCTUATION.sub(" ", text)
        if "articles" in steps:
            text = _ARTICLES.sub(" ", text)
        return " ".join(text.split()) if "whitespace" in steps else text

    return fold


_PUNCTUATION = re.compile(r"[^\w\s]|_")
_ARTICLES = re.compile(r"\b(?:a|an|the)\b", re.IGNORECASE)


def blank(text: str) -> bool:
    """Whether a text says nothing: no letter and no digit in it."""
    return not any(char.isalnum() for char in text)


def without_surrogates(text: str) -> str:
    """The text with lone surrogates replaced: RE2 and Arrow refuse them."""
    return text.encode("utf-8", "replace").decode("utf-8")


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 90
_SHORT.maxdict = _SHORT.maxlist = 6
_SHORT.maxlevel = 3


def short(value: Any) -> str:
    """A value for a message: quoted, on one line, at most a line long."""
    return _SHORT.repr(value)[:300]
