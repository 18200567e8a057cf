"""Calls in LiteLLM's standard logging payload, one per line."""

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
    finish_reason,
    first,
    micros,
    record,
    required_micros,
    text,
)
from evalkit.records import CallRecord


def is_litellm(row: Mapping[str, Any]) -> bool:
    row = row.get("standard_logging_object") or row
    return "call_type" in row and ("response_cost" in row or "model_group" in row)


def litellm_calls(row: Mapping[str, Any]) -> Iterator[CallRecord]:
    row = row.get("standard_logging_object") or row
    metadata = row.get("metadata") or {}
    own = metadata.get("requester_metadata") or metadata.get("spend_logs_metadata") or {}
    prompt = metadata.get("prompt_management_metadata") or {}
    start = required_micros(row.get("startTime"))
    first_token = micros(row.get("completionStartTime"))
    failed = row.get("status") == "failure"
    response = row.get("response")
    choices = response.get("choices") if isinstance(response, Mapping) else None
    finish = choices[0].get("finish_reason") if choices else None
    # LiteLLM writes 0 where it found no price, and says so beside it.
    unpriced = row.get("response_cost_failure_debug_info") is not None
    yield record(
        trace_id=text(row.get("id")),
        ts=start,
        latency_ms=between_ms(start, micros(row.get("endTime"))),
        ttft_ms=between_ms(start, first_token) if row.get("stream") else None,
        user_id=text(first(row, "end_user") or metadata.get("user_api_key_user_id")),
        tenant=text(metadata.get("user_api_key_team_id")),
        session_id=text(row.get("trace_id")),
        feature=text(own.get("feature")),
        provider=text(row.get("custom_llm_provider")),
        model=text(first(row, "model_group", "model")),
        served_model=None if failed else text(row.get("model")),
        prompt_name=text(first(own, "prompt_name") or prompt.get("prompt_id")),
        prompt_version=text(first(own, "prompt_version") or prompt.get("prompt_version")),
        params=row.get("model_parameters") or None,
        prompt_tokens=count(row.get("prompt_tokens")),
        completion_tokens=count(row.get("completion_tokens")),
        cost_usd=None if unpriced else amount(row.get("response_cost")),
        cache_hit=row.get("cache_hit") in (True, "True", "true"),
        cache_kind="litellm" if row.get("cache_hit") in (True, "True", "true") else None,
        finish_reason=finish_reason(finish),
        error_kind=error_kind(row.get("error_str") or "") if failed else None,
        input=as_input(row.get("messages")),
        output=None if failed else answer_text(response),
    )
