"""An input as it was when the call began, whatever its owner does with it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalkit.pii import MAX_DEPTH

_LEAVES = frozenset({str, int, float, bool, type(None)})


def snapshot(input: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the tables and lists of `input`; what else is in them stays the same object.

    What is nested too deeply for the guard is not copied. A table that contains itself does
    so in the copy.
    """
    copied: dict[str, Any] = _copy(input, {}, MAX_DEPTH)
    return copied


def _copy(value: Any, known: dict[int, tuple[Any, Any]], depth: int) -> Any:
    """`known` has what was copied so far, which keeps its identity from being given out again."""
    if not depth:
        return value
    if id(value) in known:
        return known[id(value)][1]
    if isinstance(value, list):
        items: list[Any] = []
        known[id(value)] = value, items
        for one in value:
            items.append(one if type(one) in _LEAVES else _copy(one, known, depth - 1))
        return items
    if type(value) is tuple:  # one with names would lose them
        copied = tuple(_copy(one, known, depth - 1) for one in value)
        known[id(value)] = value, copied
        return copied
    if isinstance(value, (dict, Mapping)):
        table: dict[Any, Any] = {}
        known[id(value)] = value, table
        for key, one in value.items():
            table[key] = one if type(one) in _LEAVES else _copy(one, known, depth - 1)
        return table
    return value
