"""The JSON Schemas of the files people write, and their errors in people's words.

The `*.schema.json` files beside this one are what editors use; jsonschema-rs says whether a
value follows them, and jsonschema what is wrong where it does not. An `errorMessage` in a
schema is the fix that is shown, `x-secret` keeps the value out of the message.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
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


@lru_cache(maxsize=16)
def load_schema(name: str) -> Mapping[str, Any]:
    """A shipped schema: config, golden_set, case, judge or prompt."""
    path = Path(__file__).with_name(f"{name}.schema.json")
    schema: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema


def find_faults(value: Any, schema: str, *, at: Place = ()) -> list[Fault]:
    """Everything in which `value` differs from the shipped `schema`; `at` is its place."""
    if _is_surely_valid(value, schema):
        return []
    return _faults(_validator(schema).iter_errors(value), at)


def _is_surely_valid(value: Any, schema: str) -> bool:
    """Whether jsonschema need not be asked, which takes as long to import as all our settings.

    To jsonschema-rs 1.0 is a whole number, and what is no JSON a reason to raise.
    """
    try:
        return not _has_whole_float(value) and bool(_fast_validator(schema).is_valid(value))
    except (ValueError, RecursionError):
        return False


def _has_whole_float(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_whole_float, value.values()))
    if isinstance(value, list):
        return any(map(_has_whole_float, value))
    return isinstance(value, float) and not value % 1


@lru_cache(maxsize=16)
def _fast_validator(name: str) -> Any:
    import jsonschema_rs

    return jsonschema_rs.Draft202012Validator(dict(load_schema(name)))


@lru_cache(maxsize=16)
def _validator(name: str) -> Any:
    from jsonschema import Draft202012Validator, validators

    def is_integer(checker: Any, value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", is_integer)
    return validators.extend(Draft202012Validator, type_checker=types)(load_schema(name))


def _faults(errors: Iterable[Any], at: Place) -> list[Fault]:
    """One fault a problem: a value of the wrong type has no other."""
    found = list(errors)
    mistyped = {(*e.absolute_path,) for e in found if e.validator == "type"}
    kept = (e for e in found if e.validator == "type" or (*e.absolute_path,) not in mistyped)
    return list(dict.fromkeys(fault for error in kept for fault in _explain(error, at)))


def _explain(error: Any, at: Place) -> Iterator[Fault]:
    value, rule, schema = error.instance, error.validator_value, error.schema
    place: Place = (*at, *error.absolute_path)
    inside = f" in {label(place)}" if place else ""
    if error.validator == "additionalProperties":
        known = schema.get("properties", {})
        for key in (key for key in value if key not in known):
            yield Fault((*place, key), f'unknown key "{_cut(key)}"{inside}', nearest(key, known))
        return
    if error.validator == "required":
        for key in (key for key in rule if key not in value):
            about = schema.get("properties", {}).get(key, {}).get("description", "")
            about = about.partition(". ")[0].rstrip(".")
            about = f": {about[:1].lower()}{about[1:]}" if about else ""
            yield Fault(place, f'no "{key}"{inside}', f"Add {key}{about}")
        return
    if error.validator == "anyOf":
        near = [e for e in error.context if e.validator != "type" or e.path]
        if near:
            yield from _faults((e for e in near if e.schema_path[0] == near[0].schema_path[0]), at)
            return
    if "propertyNames" in error.absolute_schema_path:
        place = (*place, value)
    yield Fault(place, *_problem(error.validator, rule, value, schema, label(place)))


def _problem(keyword: str, rule: Any, value: Any, schema: Any, here: str) -> tuple[str, str]:
    shown = "a value that is not shown here" if schema.get("x-secret") else show(value)
    problem = f"{here} is {shown}"
    if keyword == "type":
        kinds = [rule] if isinstance(rule, str) else rule
        words = " or ".join(_TYPE_WORDS[kind] for kind in kinds)
        return f"{here} must be {words}, not {shown}", _type_fix(value, kinds)
    if keyword == "enum" and "errorMessage" not in schema:
        texts = [one for one in rule if isinstance(one, str)]
        if not texts:
            return problem, f"Use one of {', '.join(map(show, rule))}"
        return problem, nearest(str(value), texts)
    if keyword == "oneOf":
        problem = f"{here} must have one of the keys that exclude each other"
    if keyword == "uniqueItems":
        return f"{here} has the same item twice", "Keep one"
    words = _RULES.get(keyword, "must be another value").format(rule)
    return problem, schema.get("errorMessage", f"It {words}")


_RULES = {
    "minimum": "must be at least {}",
    "maximum": "must be at most {}",
    "exclusiveMinimum": "must be more than {}",
    "exclusiveMaximum": "must be less than {}",
    "minLength": "must have {} character or more",
    "maxLength": "must have {} characters at most",
    "minItems": "must have {} item or more",
    "maxItems": "must have {} items at most",
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
    if "string" in wanted and isinstance(value, (bool, int, float)):
        return f'Quote it: "{json.dumps(value)}"'
    if {"boolean", "number", "integer"} & set(wanted) and isinstance(value, str):
        return "Write it without quotes"
    if "array" in wanted and isinstance(value, str):
        return f"Write a list: [{json.dumps(_cut(value))}]"
    return f"Write {_TYPE_WORDS[wanted[0]]}"


# --- words -----------------------------------------------------------------------


def nearest(word: str, known: Iterable[str]) -> str:
    """`Did you mean "x"?`, or the known words where none is near."""
    names = sorted(known)
    near = get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f'Did you mean "{near[0]}"?'
    return f"Known: {', '.join(names)}." if names else "There are none."


def label(place: Place) -> str:
    """A place as people write it: `metrics[0].name`."""
    parts = [f"[{part}]" if isinstance(part, int) else f".{_cut(part)}" for part in place]
    return "".join(parts).removeprefix(".") or "the document"


def show(value: Any) -> str:
    """A value in a message: short, and on one line."""
    if isinstance(value, (list, dict)):
        return ("a" if value else "an empty") + (" list" if isinstance(value, list) else " table")
    return _cut(json.dumps(value, ensure_ascii=False, default=str))


def _cut(text: str) -> str:
    text = text if text.isprintable() else json.dumps(text)[1:-1]
    return text if len(text) <= MAX_SHOWN_CHARS else text[: MAX_SHOWN_CHARS - 1] + "…"
