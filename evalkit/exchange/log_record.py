"""One call of a foreign log as a call record: what it says, and None for what it does not.

Beside the formats, which know other tools' names; here are our own. A value that cannot
be meant (a negative count, a time that is none) raises ValueError, and never becomes a
plausible one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from evalkit.records import CallRecord, CallStatus, Json

UNKNOWN = "unknown"
"""Feature or model of a call that names none."""
STATUSES = get_args(CallStatus)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_COUNT = 1 << 53

_DEFAULTS: dict[str, Any] = {
    "user_id": None, "tenant": None, "session_id": None, "feature": UNKNOWN, "task": "generate",
    "provider": None, "model": UNKNOWN, "served_model": None, "prompt_name": "",
    "prompt_version": "", "prompt_hash": "", "params": {}, "flag_variant": None, "status": "ok",
    "error_kind": None, "finish_reason": None, "prompt_tokens": None, "completion_tokens": None,
    "total_tokens": None, "cached_prompt_tokens": None, "latency_ms": 0.0, "ttft_ms": None,
    "cost_usd": None, "cache_hit": False, "cache_kind": None, "tool_calls": (),
    "user_feedback": None, "attempts": (), "retries": 0, "resumed": 0, "escalated": False,
    "confidence": None, "repaired": False, "schema_ok": None, "guard_events": (),
    "retrieved_ids": (), "route_reason": None, "stage_ms": {}, "quality": {}, "redactions": 0,
    "input": None, "output": None,
}  # fmt: skip


def record(**said: Any) -> CallRecord:
    """A record of what a log says; a total is filled in where both counts are known."""
    values = {**_DEFAULTS, **{name: value for name, value in said.items() if value is not None}}
    if not values.get("trace_id"):
        raise ValueError("the call has no id")
    if values["total_tokens"] is None and None not in (
        values["prompt_tokens"],
        values["completion_tokens"],
    ):
        values["total_tokens"] = values["prompt_tokens"] + values["completion_tokens"]
    if values["error_kind"] is not None and said.get("status") is None:
        values["status"] = "error"
    if values["status"] not in STATUSES:
        raise ValueError(f"status is {_shown(values['status'])}: no {', '.join(STATUSES)}")
    return CallRecord(**values)


# --- values ------------------------------------------------------------------------


def first(row: Mapping[str, Any], *names: str) -> Any:
    """The first of these that the row has and that is not null."""
    for name in names:
        if row.get(name) is not None:
            return row[name]
    return None


def text(value: Any) -> str | None:
    """A name or id as text; None for none."""
    if value is None or value == "":
        return None
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{_shown(value)} is no name")


def flag(value: Any) -> bool | None:
    """True or false; None for none."""
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{_shown(value)} is neither true nor false")
    return value


def count(value: Any) -> int | None:
    """Tokens, from 0; None for none."""
    if value is None:
        return None
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < _MAX_COUNT:
        raise ValueError(f"{_shown(value)} is no number of tokens")
    return number


def amount(value: Any) -> float | None:
    """US dollars or milliseconds, from 0; None for none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{_shown(value)} is no amount")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{_shown(value)} is no amount") from None
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{_shown(value)} is no amount")
    return number


def micros(value: Any) -> int | None:
    """A moment (ISO 8601; seconds or nanoseconds since 1970) in microseconds; None for none."""
    found = _micros(value)
    if found is not None and not EARLIEST <= found <= LATEST:
        raise ValueError(f"{_shown(value)} is no time")
    return found


EARLIEST, LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The years 1 to 9999: no calendar of ours has others."""


def _micros(value: Any) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and not value.isdecimal():
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f"{_shown(value)} is no time") from None
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return (at - _EPOCH) // timedelta(microseconds=1)
    number = amount(value) or 0.0
    exact = int(value) if not isinstance(value, float) else number
    # By size: seconds until 2286, then milliseconds, microseconds, nanoseconds.
    for unit, per in ((1e10, 1_000_000.0), (1e13, 1_000.0), (1e16, 1.0)):
        if number < unit:
            return round(exact * per)
    return int(exact) // 1000


def required_micros(value: Any) -> int:
    """A moment that has to be there."""
    found = micros(value)
    if found is None:
        raise ValueError("the call has no start time")
    return found


def between_ms(start: int, end: int | None) -> float | None:
    """Milliseconds from one moment to another."""
    if end is None:
        return None
    if end < start:
        raise ValueError("the call ended before it started")
    return (end - start) / 1000


def answer_text(value: Json) -> str | None:
    """An answer as text, from a text, a message or messages in any of their usual shapes."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        pieces = [answer_text(one) for one in value]
        return "".join(piece for piece in pieces if piece) or None
    if isinstance(value, Mapping):
        for name in ("choices", "messages", "parts", "message", "content", "text"):
            if value.get(name) is not None:
                return answer_text(value[name])
    return None


def as_input(value: Json) -> Json:
    """What a feature was given, as a table: messages, a text, or as it is."""
    if isinstance(value, list):
        return {"messages": value}
    if isinstance(value, str):
        return {"text": value}
    return value


FINISH = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls",
    "function_call": "tool_calls", "refusal": "content_filter",
}  # fmt: skip
"""Other names of finish reasons -> ours."""

_ERRORS = (
    (r"rate.?limit|\b429\b|too many", "rate_limit"),
    (r"quota|insufficient", "quota_exhausted"),
    (r"time.?d?.?out|\b408\b|\b504\b", "timeout"),
    (r"context.?(length|window)", "context_length"),
    (r"content.?(filter|policy)", "content_filter"),
    (r"auth|permission|\b40[13]\b", "auth"),
    (r"not.?found|\b404\b", "not_found"),
    (r"connect", "connect"),
    (r"bad.?request|invalid|\b400\b", "bad_request"),
)


def error_kind(said: Any) -> str:
    """The row of the failure table that fits what a log says of an error; else `server`."""
    words = str(said).lower()[:2000]
    return next((kind for pattern, kind in _ERRORS if re.search(pattern, words)), "server")


def finish_reason(value: Any) -> str | None:
    named = text(value[0] if isinstance(value, list) and value else value or None)
    return None if named is None else FINISH.get(named.lower(), named.lower())


def _shown(value: Any) -> str:
    return repr(value)[:60]
