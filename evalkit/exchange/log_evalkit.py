"""Calls as evalkit prints them: `evalkit query --json "FROM calls"`, or its own log lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any, NoReturn

from evalkit.exchange.log_record import amount, count, record, required_micros, text
from evalkit.records import Attempt, CallRecord, ToolCall
from evalkit.store.schema import STRUCTS, TABLES

_FIELDS = frozenset(one.name for one in fields(CallRecord))


def is_evalkit(row: Mapping[str, Any]) -> bool:
    return {"trace_id", "ts", "feature"} <= row.keys()


def evalkit_calls(row: Mapping[str, Any]) -> Iterator[CallRecord]:
    said = {name: value for name, value in row.items() if name != "crc"}
    unknown = said.keys() - _FIELDS
    if unknown:
        raise ValueError(f"no column of calls: {', '.join(sorted(unknown)[:5])}")
    said["ts"] = required_micros(row["ts"])
    for name in ("user_id", "tenant", "session_id"):
        said[name] = text(row.get(name))
    for name in ("prompt_tokens", "completion_tokens", "total_tokens", "cached_prompt_tokens"):
        said[name] = count(row.get(name))
    for name in ("latency_ms", "ttft_ms", "cost_usd"):
        said[name] = amount(row.get(name))
    said["attempts"] = _structs(row, "attempts", Attempt)
    said["tool_calls"] = _structs(row, "tool_calls", ToolCall)
    for name in ("input", "params"):
        said[name] = _decoded(row.get(name))
    for name in ("guard_events", "retrieved_ids"):
        said[name] = tuple(row.get(name) or ())
    for name, fits in _FITS.items():
        if said.get(name) is not None and not fits(said[name]):
            raise ValueError(f"{name} is {repr(said[name])[:60]}")
    yield record(**said)


def _structs(row: Mapping[str, Any], column: str, make: Callable[..., Any]) -> tuple[Any, ...]:
    """A column that lists structs; a field that cannot be meant is as bad as a column."""
    listed = row.get(column) or ()
    for one in listed:
        for name, fits in _FITS_IN[column].items():
            if isinstance(one, Mapping) and one.get(name) is not None and not fits(one[name]):
                raise ValueError(f"{name} in {column} is {repr(one[name])[:60]}")
    try:
        return tuple(make(**one) for one in listed)
    except TypeError as error:
        raise ValueError(str(error)) from None


def _decoded(value: Any) -> Any:
    """A value of a JSON column: a query prints it as text, a log line as it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return value


def _no_constant(token: str) -> NoReturn:
    raise ValueError(f"{token} is not JSON")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63


def _is_map_of(fits: Callable[[Any], bool], value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and (item is None or fits(item)) for key, item in value.items()
    )


_OF_KIND: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "int": lambda value: _is_number(value) and not isinstance(value, float),
    "float": _is_number,
    "bool": lambda value: isinstance(value, bool),
    "texts": lambda value: all(isinstance(one, str) for one in value),
    "float map": lambda value: _is_map_of(_is_number, value),
}
_FITS = {one.name: _OF_KIND[one.kind] for one in TABLES["calls"] if one.kind in _OF_KIND}
"""Columns -> what may stand in them; one bad row must not cost the others of its file."""
_FITS_IN = {
    one.name: {name: _OF_KIND[kind] for name, kind in STRUCTS[one.kind]}
    for one in TABLES["calls"]
    if one.kind in STRUCTS
}
"""Columns that list structs -> what may stand in the fields of one."""
