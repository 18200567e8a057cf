"""Compile a JSON Schema once, then say quickly whether a value follows it.

jsonschema-rs is used where it is installed (about 100 times faster), else jsonschema.
A `$ref` never leaves the schema itself: nothing is read from disk or network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

Validate = Callable[[Any], str | None]
"""Returns None for a valid value, else what is wrong and where, in one line."""


def compile_schema(schema: Mapping[str, Any]) -> Validate:
    """Compile `schema`; equal schemas share one compiled validator.

    Raises ValueError when the schema itself is not valid, or refers outside itself.
    """
    return _compile(json.dumps(schema, sort_keys=True))


@lru_cache(maxsize=256)
def _compile(canonical: str) -> Validate:
    schema = json.loads(canonical)
    _refuse_outside_refs(schema)
    import jsonschema
    from referencing import Registry

    cls = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        cls.check_schema(schema)
    except jsonschema.SchemaError as error:
        place = "/".join(str(part) for part in error.absolute_path) or "top level"
        raise ValueError(f"not a valid JSON Schema: {error.message} (at {place})") from None
    slow = cls(schema, registry=Registry(), format_checker=cls.FORMAT_CHECKER)

    def explain(value: Any) -> str | None:
        error = jsonschema.exceptions.best_match(slow.iter_errors(value))
        if error is None:
            return None
        place = "/" + "/".join(str(part) for part in error.absolute_path)
        return f"{place}: {_short(error.message)}" if place != "/" else _short(error.message)

    fast = _fast_check(schema) or slow.is_valid

    def validate(value: Any) -> str | None:
        return None if fast(value) else explain(value)

    return validate


def _fast_check(schema: Any) -> Callable[[Any], bool] | None:
    try:
        import jsonschema_rs
    except ImportError:
        return None
    validator = jsonschema_rs.validator_for(schema, validate_formats=True)
    is_valid: Callable[[Any], bool] = validator.is_valid
    return is_valid


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
