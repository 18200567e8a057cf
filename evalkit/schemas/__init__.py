"""The JSON Schemas of the files people write, and a small reader of them.

The `*.schema.json` files beside this one are what editors use. `find_faults` reads the
part of JSON Schema 2020-12 that they use, loads in no time, and says what would be right;
a property test holds it against the jsonschema package.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

Place = tuple[str | int, ...]
MAX_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a value, where in it, and what would be right."""

    place: Place
    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.problem}. {self.fix}" + ("" if self.fix.endswith((".", "?")) else ".")


Test = Callable[[Any, Place, list[Fault]], None]
"""Appends what is wrong with a value at a place."""


@lru_cache(maxsize=16)
def load_schema(name: str) -> Mapping[str, Any]:
    """A shipped schema: config, golden_set, case, judge or prompt."""
    path = Path(__file__).with_name(f"{name}.schema.json")
    schema: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema


def find_faults(value: Any, schema: str, *, at: Place = ()) -> list[Fault]:
    """Everything in which `value` differs from the shipped `schema`; `at` is its place."""
    faults: list[Fault] = []
    _compiled(schema)(value, at, faults)
    return faults


@lru_cache(maxsize=16)
def _compiled(name: str) -> Test:
    root = load_schema(name)
    return _Compiler(root).compile(root)


def nearest(word: str, known: Iterable[str]) -> str:
    """`Did you mean "x"?`, or the known words where none is near."""
    names = sorted(known)
    near = get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f'Did you mean "{near[0]}"?'
    return f"Known: {', '.join(names)}." if names else "There are none."


class _Compiler:
    """Turns a schema into one function; each keyword in use has one line in `_KEYWORDS`."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._refs: dict[str, Test] = {}

    def compile(self, schema: Mapping[str, Any]) -> Test:
        if "$ref" in schema:
            return self._ref(schema["$ref"])
        unknown = schema.keys() - _KEYWORDS.keys() - _ABOUT_KEYS - _SILENT - {"type"}
        if unknown:
            raise ValueError(f"keywords that find_faults does not read: {sorted(unknown)}")
        kind = _type_test(schema) if "type" in schema else None
        tests = [make(self, schema) for key, make in _KEYWORDS.items() if key in schema]
        if _ABOUT_KEYS & schema.keys():
            tests.append(self.keys(schema))

        def test(value: Any, place: Place, faults: list[Fault]) -> None:
            if kind is not None and not kind(value, place, faults):
                return
            for one in tests:
                one(value, place, faults)

        return test

    def _ref(self, ref: str) -> Test:
        """A `#/$defs/x`; looked up when first used, so that a schema may refer to itself."""

        def test(value: Any, place: Place, faults: list[Fault]) -> None:
            if ref not in self._refs:
                self._refs[ref] = self.compile(self._root["$defs"][ref.removeprefix("#/$defs/")])
            self._refs[ref](value, place, faults)

        return test

    def keys(self, schema: Mapping[str, Any]) -> Test:
        known: Mapping[str, Any] = schema.get("properties", {})
        tests = {key: self.compile(sub) for key, sub in known.items()}
        other = schema.get("additionalProperties", True)
        other_test = self.compile(other) if isinstance(other, dict) else None
        name_test = self.compile(schema["propertyNames"]) if "propertyNames" in schema else None

        def test(value: Any, place: Place, faults: list[Fault]) -> None:
            if not isinstance(value, dict):
                return
            for key, child in value.items():
                inner = tests.get(key, other_test)
                if name_test is not None:
                    name_test(key, (*place, key), faults)
                if inner is not None:
                    inner(child, (*place, key), faults)
                elif other is False:
                    problem = f'unknown key "{_cut(str(key))}"{_inside(place)}'
                    fix = nearest(str(key), tests)
                    faults.append(Fault((*place, key), problem, fix))

        return test

    def items(self, schema: Mapping[str, Any]) -> Test:
        each = self.compile(schema["items"])

        def test(value: Any, place: Place, faults: list[Fault]) -> None:
            if isinstance(value, list):
                for number, item in enumerate(value):
                    each(item, (*place, number), faults)

        return test

    def any_of(self, schema: Mapping[str, Any]) -> Test:
        """The first alternative that fits; else the faults of the one whose type fits."""
        choices = [(sub, self.compile(sub)) for sub in schema["anyOf"]]

        def test(value: Any, place: Place, faults: list[Fault]) -> None:
            near: list[Fault] | None = None
            for sub, choice in choices:
                found: list[Fault] = []
                choice(value, place, found)
                if not found:
                    return
                if "type" in sub and _has_type(value, sub["type"]):
                    near = near or found
            if near is None or "errorMessage" in schema:
                near = [_fault(schema, value, place, "must be another kind of value")]
            faults.extend(near)

        return test

    def one_of(self, schema: Mapping[str, Any]) -> Test:
        choices = [self.compile(sub) for sub in schema["oneOf"]]

        def test(value: Any, place: Place, faults: list[Fault]) -> None:
            fits = 0
            for choice in choices:
                found: list[Fault] = []
                choice(value, place, found)
                fits += not found
            if fits != 1:
                problem = f"{label(place)} has {fits or 'none'} of the keys that exclude each other"
                faults.append(Fault(place, problem, schema["errorMessage"]))

        return test


def _type_test(schema: Mapping[str, Any]) -> Callable[[Any, Place, list[Fault]], bool]:
    wanted = schema["type"]

    def test(value: Any, place: Place, faults: list[Fault]) -> bool:
        if _has_type(value, wanted):
            return True
        names = [wanted] if isinstance(wanted, str) else wanted
        words = " or ".join(_TYPE_WORDS[name] for name in names)
        problem = f"{label(place)} must be {words}, not {show(value, schema)}"
        faults.append(Fault(place, problem, _type_fix(value, names)))
        return False

    return test


def _has_type(value: Any, wanted: str | list[str]) -> bool:
    if isinstance(wanted, list):
        return any(_has_type(value, one) for one in wanted)
    if wanted == "integer":
        return _is_number(value) and float(value).is_integer()
    if wanted == "number":
        return _is_number(value)
    return isinstance(value, _TYPES[wanted])


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_TYPES: Mapping[str, type] = {
    "string": str,
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}
_TYPE_WORDS = {
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a table of keys and values",
    "null": "null",
    "number": "a number",
    "integer": "a whole number",
}


def _type_fix(value: Any, wanted: list[str]) -> str:
    if "string" in wanted and (_is_number(value) or isinstance(value, bool)):
        return f'Quote it: "{json.dumps(value)}"'
    if "boolean" in wanted and isinstance(value, str):
        word = value.lower()
        if word in {"yes", "on", "y", "true", "1"}:
            return "Write true"
        if word in {"no", "off", "n", "false", "0"}:
            return "Write false"
    if {"number", "integer"} & set(wanted) and isinstance(value, str):
        return "Write the number without quotes"
    if "array" in wanted and isinstance(value, str):
        return f"Write a list: [{json.dumps(_cut(value))}]"
    if value is None:
        return "Give it a value, or remove the key"
    return f"Write {_TYPE_WORDS[wanted[0]]}"


def _required(schema: Mapping[str, Any]) -> Test:
    properties = schema.get("properties", {})

    def test(value: Any, place: Place, faults: list[Fault]) -> None:
        if not isinstance(value, dict):
            return
        for key in schema["required"]:
            if key not in value:
                what = properties.get(key, {}).get("description", "").partition(". ")[0].rstrip(".")
                what = f": {what[:1].lower()}{what[1:]}" if what else ""
                faults.append(Fault(place, f'no "{key}"{_inside(place)}', f"Add {key}{what}"))

    return test


def _enum(schema: Mapping[str, Any]) -> Test:
    allowed = schema["enum"]
    words = [word for word in allowed if isinstance(word, str)]

    def test(value: Any, place: Place, faults: list[Fault]) -> None:
        if isinstance(value, (dict, list)) or value not in allowed:
            fix = nearest(value if isinstance(value, str) else "", words)
            faults.append(Fault(place, f"{label(place)} is {show(value, schema)}", fix))

    return test


def _bound(key: str, words: str, fits: Callable[[Any, Any], bool]) -> Callable[..., Test]:
    """A keyword that compares a number with its limit."""

    def make(compiler: _Compiler, schema: Mapping[str, Any]) -> Test:
        limit = schema[key]

        def test(value: Any, place: Place, faults: list[Fault]) -> None:
            if _is_number(value) and not fits(value, limit):
                faults.append(_fault(schema, value, place, f"must be {words} {limit}"))

        return test

    return make


def _length(
    key: str, kind: type, words: str, fits: Callable[[int, int], bool]
) -> Callable[..., Test]:
    """A keyword that compares the size of a text, list or table with its limit."""

    def make(compiler: _Compiler, schema: Mapping[str, Any]) -> Test:
        limit = schema[key]

        def test(value: Any, place: Place, faults: list[Fault]) -> None:
            if isinstance(value, kind) and not fits(len(value), limit):  # type: ignore[arg-type]
                faults.append(_fault(schema, value, place, words.format(limit)))

        return test

    return make


def _pattern(schema: Mapping[str, Any]) -> Test:
    search = re.compile(schema["pattern"]).search

    def test(value: Any, place: Place, faults: list[Fault]) -> None:
        if isinstance(value, str) and search(value) is None:
            faults.append(_fault(schema, value, place, "has another form"))

    return test


def _unique(schema: Mapping[str, Any]) -> Test:
    def test(value: Any, place: Place, faults: list[Fault]) -> None:
        if not isinstance(value, list):
            return
        seen: set[str] = set()
        for number, item in enumerate(value):
            key = json.dumps(item, sort_keys=True)
            if key in seen:
                problem = f"{label(place)} has {show(item, schema)} twice"
                faults.append(Fault((*place, number), problem, "Keep one"))
            seen.add(key)

    return test


def _fault(schema: Mapping[str, Any], value: Any, place: Place, rule: str) -> Fault:
    problem = f"{label(place)} is {show(value, schema)}"
    fix = schema.get("errorMessage")
    return Fault(place, problem, fix) if fix else Fault(place, problem, f"It {rule}")


_KEYWORDS: Mapping[str, Callable[[_Compiler, Mapping[str, Any]], Test]] = {
    "enum": lambda compiler, schema: _enum(schema),
    "required": lambda compiler, schema: _required(schema),
    "items": lambda compiler, schema: compiler.items(schema),
    "anyOf": lambda compiler, schema: compiler.any_of(schema),
    "oneOf": lambda compiler, schema: compiler.one_of(schema),
    "pattern": lambda compiler, schema: _pattern(schema),
    "minimum": _bound("minimum", "at least", lambda value, limit: value >= limit),
    "maximum": _bound("maximum", "at most", lambda value, limit: value <= limit),
    "exclusiveMinimum": _bound("exclusiveMinimum", "more than", lambda v, limit: v > limit),
    "exclusiveMaximum": _bound("exclusiveMaximum", "less than", lambda v, limit: v < limit),
    "minLength": _length("minLength", str, "must have {} character or more", lambda n, k: n >= k),
    "maxLength": _length("maxLength", str, "must have {} characters at most", lambda n, k: n <= k),
    "minItems": _length("minItems", list, "must have {} item or more", lambda n, k: n >= k),
    "maxItems": _length("maxItems", list, "must have {} items at most", lambda n, k: n <= k),
    "minProperties": _length(
        "minProperties", dict, "must have {} key or more", lambda n, k: n >= k
    ),
    "uniqueItems": lambda compiler, schema: _unique(schema),
}
_ABOUT_KEYS = frozenset({"properties", "additionalProperties", "propertyNames"})
_SILENT = frozenset(
    ("$schema", "$id", "$defs", "$comment", "title", "description", "default", "examples")
    + ("errorMessage", "x-secret")
)
"""Keywords that say nothing about validity; `errorMessage` is the fix, for editors and here."""


# --- words -----------------------------------------------------------------------


def label(place: Place) -> str:
    """A place as people write it: `metrics[0].name`."""
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{_cut(part)}" if text else _cut(part)
    return text or "the document"


def show(value: Any, schema: Mapping[str, Any] | None = None) -> str:
    """A value in a message: short, on one line, and never a secret."""
    if schema is not None and schema.get("x-secret"):
        return "a value that is not shown here"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, dict):
        return "a table" if value else "an empty table"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return _cut(text if text.isprintable() else json.dumps(value, default=str))


def _inside(place: Place) -> str:
    return f" in {label(place)}" if place else ""


def _cut(text: str) -> str:
    text = text if text.isprintable() else json.dumps(text)[1:-1]
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"
