"""An instance of a JSON Schema: what a healthy model answers when asked for one.

Choices are drawn from the seed, so that equal requests get equal answers. Covers what
golden sets and judges use; a `pattern` is not solved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def sample(schema: Any, seed: int, root: Any = None, depth: int = 0) -> Any:
    """A value that follows `schema`; const, enum, $ref and bounds are honoured."""
    root = schema if root is None else root
    if not isinstance(schema, Mapping) or depth > 20:
        return None
    if "$ref" in schema:
        return sample(_resolve(root, schema["$ref"]), seed, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][seed % len(schema["enum"])]
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return sample(schema[key][seed % len(schema[key])], seed, root, depth + 1)
    if schema.get("allOf"):
        merged = {key: value for part in schema["allOf"] for key, value in part.items()}
        return sample(merged, seed, root, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
    return _SAMPLERS[kind](schema, seed, root, depth)


def _object(schema: Any, seed: int, root: Any, depth: int) -> Any:
    properties = schema.get("properties", {})
    wanted = schema.get("required") if depth > 6 else list(properties)
    names = list(dict.fromkeys([*(wanted or ()), *schema.get("required", ())]))
    return {
        name: sample(properties.get(name, {"type": "string"}), seed + i, root, depth + 1)
        for i, name in enumerate(names)
    }


def _array(schema: Any, seed: int, root: Any, depth: int) -> Any:
    first = [sample(part, seed, root, depth + 1) for part in schema.get("prefixItems", ())]
    size = max(schema.get("minItems", 1 if depth < 6 else 0), len(first))
    size = min(size, schema.get("maxItems", size))
    rest = range(len(first), size)
    return first + [sample(schema.get("items", {}), seed + i, root, depth + 1) for i in rest]


def _string(schema: Any, seed: int, root: Any, depth: int) -> Any:
    text = "ok"
    text += "x" * (schema.get("minLength", 0) - len(text))
    return text[: schema.get("maxLength", len(text))]


def _integer(schema: Any, seed: int, root: Any, depth: int) -> Any:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 101) - 1)
    return int(low) + seed % (int(high) - int(low) + 1)


def _number(schema: Any, seed: int, root: Any, depth: int) -> Any:
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 1))
    return low + (high - low) * (1 + seed % 9) / 10


_SAMPLERS: dict[str, Callable[[Any, int, Any, int], Any]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": lambda schema, seed, root, depth: seed % 4 != 0,
    "null": lambda schema, seed, root, depth: None,
}


def _resolve(root: Any, ref: str) -> Any:
    node = root
    for part in ref.removeprefix("#").split("/")[1:]:
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node
