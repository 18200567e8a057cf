"""Compile a JSON Schema once, then say quickly whether a value follows it.

jsonschema-rs says what is valid, about 100 times faster than jsonschema, which says what is
wrong with the rest. A `$ref` never leaves the schema itself: nothing is read from disk or
network. The value is hostile: a `pattern` runs in a linear engine (RE2, or the one of
jsonschema-rs), and a value too large to be checked in bounded time is refused, not waited for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

Validate = Callable[[Any], str | None]
"""Returns None for a valid value, else what is wrong and where, in one line."""

MAX_NODES = 200_000
"""Values inside a value that jsonschema is asked to look at."""
MAX_ERRORS = 50
"""Errors compared to find the one worth telling."""


def compile_schema(schema: Mapping[str, Any]) -> Validate:
    """Compile `schema`; equal schemas share one compiled validator.

    Raises ValueError when the schema itself is not valid, or refers outside itself.
    """
    return _compile(json.dumps(schema, sort_keys=True))


def load_schema(path: Path) -> tuple[Mapping[str, Any], Validate]:
    """A schema's file, read and compiled. Raises ValueError, naming no file, for a broken one."""
    try:
        schema = json.loads(path.read_text(encoding="utf-8"))
        return schema, compile_schema(schema)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


@lru_cache(maxsize=256)
def _compile(canonical: str) -> Validate:
    schema = json.loads(canonical)
    _refuse_outside_refs(schema)
    _refuse_unsafe_patterns(schema)
    fast = _fast_check(schema)
    if fast is None or '"$ref"' in canonical or '"$dynamicRef"' in canonical:
        _refuse_broken(schema)

    @lru_cache(maxsize=1)
    def explainer() -> Callable[[Any], str | None]:
        return _explainer(schema)

    def validate(value: Any) -> str | None:
        if fast is not None and fast(value):
            return None
        if _more_nodes_than(value, MAX_NODES):
            return f"has more than {MAX_NODES} values, too many to check"
        try:
            return explainer()(value)
        except RecursionError:
            return "is nested too deeply to check"
        except ArithmeticError:
            return "has a number too large to check"

    return validate


def _fast_check(schema: Any) -> Callable[[Any], bool] | None:
    """What says of a value that it is valid; None where the schema is broken, or not for this."""
    import jsonschema_rs

    linear = jsonschema_rs.RegexOptions()
    try:
        validator = jsonschema_rs.validator_for(
            schema, validate_formats=True, pattern_options=linear
        )
    except (ValueError, jsonschema_rs.ValidationError):
        return None  # broken, or its linear engine reads a pattern differently: jsonschema decides

    def is_valid(value: Any) -> bool:
        try:
            return bool(validator.is_valid(value))
        except ValueError:
            return False  # a lone surrogate, or a number it has no type for: jsonschema decides

    return is_valid


def _refuse_broken(schema: Any) -> None:
    import jsonschema

    try:
        _validator_class(schema).check_schema(schema)
    except jsonschema.SchemaError as error:
        place = "/".join(str(part) for part in error.absolute_path) or "top level"
        raise ValueError(f"not a valid JSON Schema: {error.message} (at {place})") from None
    try:
        _validator(schema).is_valid(None)
    except RecursionError:
        raise ValueError("a $ref leads back to itself without end") from None


def _explainer(schema: Any) -> Callable[[Any], str | None]:
    """What says what is wrong with a value, and where; None of a valid one."""
    from jsonschema.exceptions import best_match

    validator = _validator(schema)

    def explain(value: Any) -> str | None:
        error = best_match(islice(validator.iter_errors(value), MAX_ERRORS))
        if error is None:
            return None
        place = "/" + "/".join(str(part) for part in error.absolute_path)
        return f"{place}: {_short(error.message)}" if place != "/" else _short(error.message)

    return explain


def _validator(schema: Any) -> Any:
    from jsonschema.validators import extend
    from referencing import Registry

    base = _validator_class(schema)
    bounded = extend(base, _bounded_keywords())
    return bounded(schema, registry=Registry(), format_checker=base.FORMAT_CHECKER)


def _validator_class(schema: Any) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for

    return validator_for(schema, default=Draft202012Validator)


def _bounded_keywords() -> dict[str, Any]:
    """jsonschema's keywords that run a regular expression, or compare every item with every."""
    from jsonschema import ValidationError

    def pattern(validator: Any, wanted: str, value: Any, schema: Any) -> Iterator[Any]:
        if validator.is_type(value, "string") and not _matches(wanted, value):
            yield ValidationError(f"{_short(repr(value))} does not match {wanted!r}")

    def pattern_properties(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
        if not validator.is_type(value, "object"):
            return
        for regex, subschema in wanted.items():
            for key, child in value.items():
                if _matches(regex, key):
                    yield from validator.descend(child, subschema, path=key, schema_path=regex)

    def additional_properties(validator: Any, rule: Any, value: Any, schema: Any) -> Iterator[Any]:
        if not validator.is_type(value, "object"):
            return
        named, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
        for key, child in value.items():
            if key in named or any(_matches(regex, key) for regex in patterns):
                continue
            if validator.is_type(rule, "object"):
                yield from validator.descend(child, rule, path=key)
            elif not rule:
                yield ValidationError(f"{_short(repr(key))} is not a known property")

    def unique_items(validator: Any, wanted: Any, value: Any, schema: Any) -> Iterator[Any]:
        if not wanted or not validator.is_type(value, "array"):
            return
        if len({_comparable(item) for item in value}) != len(value):
            yield ValidationError("has items that are not unique")

    return {
        "pattern": pattern,
        "patternProperties": pattern_properties,
        "additionalProperties": additional_properties,
        "uniqueItems": unique_items,
    }


def _comparable(value: Any) -> Any:
    """A hashable that is equal for values JSON Schema calls equal: 1 is 1.0, but not true."""
    if isinstance(value, bool) or value is None:
        return (type(value), value)
    if isinstance(value, dict):
        return ("object", frozenset((key, _comparable(child)) for key, child in value.items()))
    if isinstance(value, list):
        return ("array", tuple(_comparable(child) for child in value))
    return value


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        raise ValueError(
            f"pattern {pattern!r} cannot run in linear time: {said}. "
            "Lookaround and backreferences are not supported"
        ) from None


def _matches(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text.encode("utf-8", "replace").decode()) is not None


def _refuse_unsafe_patterns(node: Any) -> None:
    """Raise ValueError for a pattern RE2 refuses, or one where jsonschema would run `re`."""
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            _compiled(node["pattern"])
        if isinstance(node.get("patternProperties"), dict):
            for regex in node["patternProperties"]:
                _compiled(regex)
            if "unevaluatedProperties" in node:
                raise ValueError("patternProperties beside unevaluatedProperties is not supported")
        for child in node.values():
            _refuse_unsafe_patterns(child)
    elif isinstance(node, list):
        for child in node:
            _refuse_unsafe_patterns(child)


def _more_nodes_than(value: Any, limit: int) -> bool:
    waiting, seen = [value], 0
    while waiting:
        node = waiting.pop()
        children = (
            node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        )
        seen += len(children)
        if seen > limit:
            return True
        waiting.extend(child for child in children if isinstance(child, (dict, list)))
    return False


def _refuse_outside_refs(node: Any) -> None:
    if isinstance(node, dict):
        for key in ("$ref", "$dynamicRef"):
            ref = node.get(key)
            if isinstance(ref, str) and not ref.startswith("#"):
                raise ValueError(f"{key} {ref!r} leaves the schema; only '#…' references are read")
        for child in node.values():
            _refuse_outside_refs(child)
    elif isinstance(node, list):
        for child in node:
            _refuse_outside_refs(child)


def _short(message: str, limit: int = 300) -> str:
    return message if len(message) <= limit else message[: limit - 1] + "…"
