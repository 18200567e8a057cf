"""Calls as evalkit prints them: `evalkit query --json "FROM calls"`, or its own log lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from evalkit.exchange.log_record import amount, count, record, required_micros
from evalkit.records import Attempt, CallRecord, ToolCall

_FIELDS = frozenset(one.name for one in fields(CallRecord))


def is_evalkit(row: Mapping[str, Any]) -> bool:
    return {"trace_id", "ts", "feature"} <= row.keys()


def evalkit_calls(row: Mapping[str, Any]) -> Iterator[CallRecord]:
    unknown = row.keys() - _FIELDS
    if unknown:
        raise ValueError(f"no column of calls: {', '.join(sorted(unknown)[:5])}")
    said = dict(row)
    said["ts"] = required_micros(row["ts"])
    for name in ("prompt_tokens", "completion_tokens", "total_tokens", "cached_prompt_tokens"):
        said[name] = count(row.get(name))
    for name in ("latency_ms", "ttft_ms", "cost_usd"):
        said[name] = amount(row.get(name))
    try:
        said["attempts"] = tuple(Attempt(**one) for one in row.get("attempts") or ())
        said["tool_calls"] = tuple(ToolCall(**one) for one in row.get("tool_calls") or ())
    except TypeError as error:
        raise ValueError(str(error)) from None
    for name in ("guard_events", "retrieved_ids"):
        said[name] = tuple(row.get(name) or ())
    yield record(**said)
