"""Records that nothing changes, and that cost little to make.

A call makes some forty of them. Freezing at run time sets every field through a
function call, five times the cost of making the record; so the type checker alone holds
the code to it: to mypy and pyright these are frozen dataclasses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(
    frozen_default=True, kw_only_default=True, eq_default=True, field_specifiers=(field,)
)
def frozen(cls: type[T]) -> type[T]:
    """A slotted dataclass with keyword-only fields, equal and hashed by their values."""
    make: Callable[[type[T]], type[T]] = dataclass(slots=True, kw_only=True, unsafe_hash=True)
    return make(cls)


def by_field(record: object) -> dict[str, Any]:
    """A record by its fields, in their order; what is nested in it stays as it is."""
    kind = type(record)
    if kind not in _READERS:
        names = tuple(one.name for one in fields(kind))  # type: ignore[arg-type]
        _READERS[kind] = names, attrgetter(*names)
    names, values = _READERS[kind]
    return dict(zip(names, values(record), strict=True))


_READERS: dict[type, tuple[tuple[str, ...], attrgetter[Any]]] = {}
