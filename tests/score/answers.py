"""Answers to score, with a call record that has nothing unusual in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evalkit.records import Answer, CallRecord

MISSING = object()

RECORD = CallRecord(
    trace_id="trace-1",
    ts=1_700_000_000_000_000,
    user_id=None,
    tenant=None,
    session_id=None,
    feature="classify-ticket",
    task="classify",
    provider="embedded",
    model="small",
    served_model="small",
    prompt_name="classify-ticket",
    prompt_version="v2",
    prompt_hash="0123456789abcdef",
    params={},
    flag_variant=None,
    status="ok",
    error_kind=None,
    finish_reason="stop",
    prompt_tokens=100,
    completion_tokens=20,
    total_tokens=120,
    cached_prompt_tokens=None,
    latency_ms=800.0,
    ttft_ms=200.0,
    cost_usd=0.002,
    cache_hit=False,
    cache_kind=None,
    tool_calls=(),
    user_feedback=None,
    attempts=(),
    retries=0,
    resumed=0,
    escalated=False,
    confidence=None,
    repaired=False,
    schema_ok=None,
    guard_events=(),
    retrieved_ids=(),
    route_reason=None,
    stage_ms={},
    quality={},
    redactions=0,
    input={},
    output=None,
)


def make_answer(
    output: str,
    *,
    expected: Any = MISSING,
    input: Mapping[str, Any] | None = None,
    **record: Any,
) -> Answer:
    """An answer to a case; further keywords replace fields of its call record."""
    return Answer(
        output=output,
        case_id="t-001",
        input=input or {"text": "Where is my parcel?"},
        expected=None if expected is MISSING else expected,
        has_expected=expected is not MISSING,
        metadata={},
        record=replace(RECORD, output=output, **record),
    )


def says_something(answer: Answer) -> bool:
    """A user's own check."""
    return bool(answer.output.strip())
