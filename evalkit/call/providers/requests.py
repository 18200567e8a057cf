"""What is sent: request bodies as JSON, and the options a wire understands."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from evalkit import json_bytes
from evalkit.config import ProviderSettings
from evalkit.errors import CallError, ConfigError

MAX_REMEMBERED = 256


def write_json(body: Mapping[str, Any]) -> bytes:
    """A request body. Raises CallError(bad_request) for values that JSON does not have."""
    try:
        return json_bytes.encode_strictly(body)
    except (TypeError, ValueError, RecursionError) as error:
        raise CallError("bad_request", f"the request cannot be written as JSON: {error}") from None


def read_options(
    settings: ProviderSettings, known: Mapping[str, Collection[Any]]
) -> dict[str, Any]:
    """The provider's options: option -> values it may have, the first being its default.

    Raises ConfigError for an unknown option or value.
    """
    problems = []
    for name, value in settings.options.items():
        where = f"providers.{settings.name}.options.{name}"
        if name not in known:
            near = difflib.get_close_matches(name, known, 1) or sorted(known)
            there = f"Did you mean {', '.join(near)}?" if near else "This wire has none."
            problems.append(f"{where}: no such option of wire {settings.wire}. {there}")
        elif value not in known[name]:
            allowed = ", ".join(json.dumps(choice) for choice in known[name])
            problems.append(f"{where}: {value!r} is none of {allowed}.")
    if problems:
        raise ConfigError(problems)
    return {name: next(iter(values)) for name, values in known.items()} | dict(settings.options)


class Remembered:
    """What `make` makes of a schema, kept per object: a feature asks with the same one always."""

    def __init__(self, make: Callable[[Mapping[str, Any]], Any]) -> None:
        self._make = make
        self._made: dict[int, tuple[Mapping[str, Any], Any]] = {}

    def __call__(self, schema: Mapping[str, Any]) -> Any:
        known = self._made.get(id(schema))
        if known is None:
            if len(self._made) >= MAX_REMEMBERED:
                self._made.clear()
            known = self._made[id(schema)] = schema, self._make(schema)
        return known[1]


def is_closed(schema: Any, *, refused: Collection[str] = (), all_required: bool = True) -> bool:
    """Whether servers accept a schema for constrained decoding.

    Every object must forbid further properties and (`all_required`) require its own;
    no keyword of `refused` may occur. Looks into every value: a property that happens
    to be named like a keyword only makes the answer more careful.
    """
    if isinstance(schema, dict):
        properties = schema.get("properties")
        if properties is not None or schema.get("type") == "object":
            if schema.get("additionalProperties") is not False:
                return False
            if all_required and set(properties or ()).difference(schema.get("required", ())):
                return False
        if not schema.keys().isdisjoint(refused):
            return False
        parts = list(schema.values())
    elif isinstance(schema, list):
        parts = schema
    else:
        return True
    for part in parts:
        if isinstance(part, (dict, list)) and not is_closed(
            part, refused=refused, all_required=all_required
        ):
            return False
    return True
