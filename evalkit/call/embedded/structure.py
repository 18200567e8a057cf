"""What the answer has to look like: the parts of a response schema the model can fill.

A JSON Schema is read as far as small models' answers go: an object of strings, numbers,
booleans, enumerations, dates, lists of those, and objects inside objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evalkit.errors import CallError

MAX_DEPTH = 6
MAX_FIELDS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One value of the answer."""

    name: str
    type: str
    """string | number | integer | boolean | array | object"""
    nullable: bool
    description: str
    enum: tuple[str, ...]
    pattern: str | None
    format: str | None
    required: bool
    minimum: float | None
    maximum: float | None
    items: Slot | None = None
    slots: tuple[Slot, ...] = ()


def read_schema(schema: Mapping[str, Any]) -> Slot:
    """The schema's root as a slot. Raises CallError unsupported for shapes beyond reach."""
    return _slot("", schema, root=schema, required=True, depth=0)


def _slot(
    name: str, schema: Mapping[str, Any], *, root: Mapping[str, Any], required: bool, depth: int
) -> Slot:
    if depth > MAX_DEPTH:
        raise CallError("unsupported", f"the response schema is deeper than {MAX_DEPTH} levels")
    schema, nullable = _resolved(schema, root)
    kind, kind_nullable = _type_of(schema)
    enum = schema.get("enum", [schema["const"]] if "const" in schema else [])
    properties = schema.get("properties", {}) if kind == "object" else {}
    if len(properties) > MAX_FIELDS:
        raise CallError("unsupported", f"the response schema has more than {MAX_FIELDS} fields")
    wanted = schema.get("required", [])
    items = schema.get("items")
    return Slot(
        name=name,
        type=kind,
        nullable=nullable or kind_nullable or None in enum,
        description=str(schema.get("description", "")),
        enum=tuple(value for value in enum if isinstance(value, str)),
        pattern=schema.get("pattern"),
        format=schema.get("format"),
        required=required,
        minimum=schema.get("minimum"),
        maximum=schema.get("maximum"),
        items=_slot(name, items, root=root, required=True, depth=depth + 1)
        if kind == "array" and isinstance(items, Mapping)
        else None,
        slots=tuple(
            _slot(key, value, root=root, required=key in wanted, depth=depth + 1)
            for key, value in properties.items()
            if isinstance(value, Mapping)
        ),
    )


def _resolved(schema: Mapping[str, Any], root: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """Follow local references and `anyOf [X, null]`; the second value: may it be null."""
    nullable = False
    for _ in range(MAX_DEPTH):
        reference = schema.get("$ref")
        choices = schema.get("anyOf") or schema.get("oneOf")
        if isinstance(reference, str):
            schema = _lookup(reference, root)
        elif choices:
            real = [c for c in choices if isinstance(c, Mapping) and c.get("type") != "null"]
            nullable = nullable or len(real) < len(choices)
            if not real:
                break
            schema = {**{k: v for k, v in schema.items() if k == "description"}, **real[0]}
        else:
            break
    return schema, nullable


def _lookup(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    node: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        node = node.get(part) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping):
        raise CallError(
            "unsupported", f"the response schema refers to {reference}, which is not in it"
        )
    return node


def _type_of(schema: Mapping[str, Any]) -> tuple[str, bool]:
    kinds = schema.get("type")
    listed = [kinds] if isinstance(kinds, str) else list(kinds or [])
    real = [kind for kind in listed if kind != "null"]
    if real:
        return str(real[0]), "null" in listed
    if "properties" in schema:
        return "object", False
    values = [v for v in schema.get("enum", [schema.get("const", "")]) if v is not None]
    first = values[0] if values else ""
    if isinstance(first, bool):
        return "boolean", False
    return ("number" if isinstance(first, (int, float)) else "string"), False
