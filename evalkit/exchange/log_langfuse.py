"""Calls in an export of Langfuse's observations: those of type GENERATION."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evalkit.exchange.log_record import (
    amount,
    answer_text,
    as_input,
    between_ms,
    count,
    error_kind,
    first,
    micros,
    record,
    required_micros,
    text,
)
from evalkit.records import CallRecord


def is_langfuse(row: Mapping[str, Any]) -> bool:
    return "startTime" in row and "type" in row and ("traceId" in row or "level" in row)


def langfuse_calls(row: Mapping[str, Any]) -> Iterator[CallRecord]:
    if row.get("type") != "GENERATION":
        return
    start = required_micros(row.get("startTime"))
    first_token = micros(row.get("completionStartTime"))
    usage = row.get("usage") or {}
    details = row.get("usageDetails") or {}
    metadata = row.get("metadata")
    own = metadata if isinstance(metadata, Mapping) else {}
    failed = row.get("level") == "ERROR"
    model = text(first(row, "model", "providedModelName"))
    yield record(
        trace_id=text(row.get("id")),
        ts=start,
        latency_ms=between_ms(start, micros(row.get("endTime"))),
        ttft_ms=between_ms(start, first_token),
        user_id=text(first(row, "userId") or own.get("user_id")),
        session_id=text(row.get("sessionId")),
        tenant=text(own.get("tenant")),
        feature=text(own.get("feature") or first(row, "traceName", "name")),
        model=model,
        served_model=None if failed else model,
        prompt_name=text(row.get("promptName")),
        prompt_version=text(row.get("promptVersion")),
        params=row.get("modelParameters") or None,
        prompt_tokens=_tokens(details, "input", first(usage, "input"), row.get("promptTokens")),
        completion_tokens=_tokens(
            details, "output", first(usage, "output"), row.get("completionTokens")
        ),
        cached_prompt_tokens=count(first(details, *_CACHED)),
        cost_usd=_cost(row),
        error_kind=error_kind(row.get("statusMessage") or "") if failed else None,
        input=as_input(row.get("input")),
        output=answer_text(row.get("output")),
    )


_CACHED = ("input_cached_tokens", "cache_read_input_tokens", "input_cache_read")


def _tokens(details: Mapping[str, Any], side: str, *totals: Any) -> int | None:
    """All tokens of a side. Langfuse's types of usage add up: `input` has none of the cached."""
    parts = [count(n) for kind, n in details.items() if side in kind]
    known = [n for n in parts if n is not None]
    return sum(known) if known else count(next((n for n in totals if n is not None), None))


def _cost(row: Mapping[str, Any]) -> float | None:
    details = row.get("costDetails")
    if isinstance(details, Mapping) and details.get("total") is not None:
        return amount(details["total"])
    return amount(first(row, "calculatedTotalCost", "totalCost"))
