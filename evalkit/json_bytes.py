"""JSON as bytes, for what is written thousands of times: rows, request bodies, cache keys.

orjson writes it; Python's own encoder writes the few values that orjson refuses (lone
surrogates, whole numbers over 64 bits, keys that are no text), at its own pace.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any

import orjson

_OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME


def encode(value: Any) -> bytes:
    """Compact UTF-8 JSON; records by their fields. A lone surrogate becomes a question mark.

    NaN and infinity become null: where they must be refused, ask `encode_strictly`. Raises
    TypeError or ValueError for what is no JSON.
    """
    try:
        return orjson.dumps(value, _plain, _OPTIONS)
    except TypeError:
        return _ENCODER.encode(value).encode("utf-8", "replace")


def encode_exactly(value: Any) -> bytes:
    """The same with lone surrogates as escapes: `decode` gives back what was there."""
    try:
        return orjson.dumps(value, _plain, _OPTIONS)
    except TypeError:
        return _ASCII.encode(value).encode("ascii")


def encode_strictly(value: Any) -> bytes:
    """The same; ValueError where it has NaN or infinity."""
    data = encode_exactly(value)
    if b"null" in data:
        _ASCII.encode(value)
    return data


def encode_sorted(value: Any) -> bytes:
    """The same bytes for equal values, whatever the order of their keys; for hashing."""
    try:
        return orjson.dumps(value, _exactly, _OPTIONS | orjson.OPT_SORT_KEYS)
    except TypeError:
        return _SORTED.encode(value).encode("utf-8", "surrogatepass")


decode = json.loads
"""What JSON bytes of our own writing say; ValueError when they are damaged.

Python's own: orjson reads whole numbers over 64 bits as fractions, and no lone surrogate.
"""


def _plain(value: Any) -> Any:
    """What JSON does not know by itself: mappings, and our records by their fields."""
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value):
        return {field: getattr(value, field) for field in value.__dataclass_fields__}
    raise TypeError(f"{type(value).__name__} is not JSON")


def _exactly(value: Any) -> Any:
    """What JSON has no form for, as something that equal values share."""
    if isinstance(value, Mapping):
        return dict(value)
    return [type(value).__qualname__, repr(value)]


_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain
)
_ASCII = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_plain)
_SORTED = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_exactly
)
