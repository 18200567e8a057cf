"""Journal lines as the runner writes them, for tests of the store."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from evalkit.records import Attempt, CallRecord, Score, ToolCall

AT = 1_760_000_000_123_456
"""2025-10-09 08:53:20.123456 UTC, in microseconds since 1970."""


def call(**changes: Any) -> CallRecord:
    values: dict[str, Any] = {
        "trace_id": "trace-1",
        "ts": AT,
        "user_id": None,
        "tenant": None,
        "session_id": None,
        "feature": "classify-ticket",
        "task": "classify",
        "provider": "openai",
        "model": "small",
        "served_model": "small",
        "prompt_name": "classify-ticket",
        "prompt_version": "v2",
        "prompt_hash": "0123456789abcdef",
        "params": {"temperature": 0.0, "stop": ["\n"]},
        "flag_variant": None,
        "status": "ok",
        "error_kind": None,
        "finish_reason": "stop",
        "prompt_tokens": 120,
        "completion_tokens": 7,
        "total_tokens": 127,
        "cached_prompt_tokens": 0,
        "latency_ms": 12.5,
        "ttft_ms": None,
        "cost_usd": 0.00002,
        "cache_hit": False,
        "cache_kind": None,
        "tool_calls": (ToolCall(id="1", name="lookup", arguments='{"q": 1}'),),
        "user_feedback": None,
        "attempts": (attempt(),),
        "retries": 0,
        "resumed": 0,
        "escalated": False,
        "confidence": 0.9,
        "repaired": False,
        "schema_ok": True,
        "guard_events": ("pii",),
        "retrieved_ids": (),
        "route_reason": None,
        "stage_ms": {"attempt": 11.0},
        "quality": {},
        "redactions": 0,
        "input": {"text": "The invoice is wrong."},
        "output": '{"label": "billing"}',
    }
    return CallRecord(**values | changes)


def attempt(**changes: Any) -> Attempt:
    values: dict[str, Any] = {
        "provider": "openai",
        "model": "small",
        "served_model": "gpt-4o-mini",
        "error_kind": None,
        "finish_reason": "stop",
        "latency_ms": 11.0,
        "ttft_ms": None,
        "wait_ms": 0.0,
        "prompt_tokens": 120,
        "completion_tokens": 7,
        "cached_prompt_tokens": 0,
        "cost_usd": 0.00002,
        "max_tokens": 256,
    }
    return Attempt(**values | changes)


def score(**changes: Any) -> Score:
    values: dict[str, Any] = {
        "run_id": "run-1",
        "golden_set": "tickets",
        "golden_set_hash": "aaaa",
        "case_id": "t-001",
        "case_hash": "bbbb",
        "cluster": None,
        "trial": 0,
        "model": "small",
        "served_model": "small",
        "prompt_name": "classify-ticket",
        "prompt_version": "v2",
        "prompt_hash": "0123456789abcdef",
        "metric": "label",
        "tier": 1,
        "score": 1.0,
        "passed": True,
        "outcome": "scored",
        "error_kind": None,
        "reason": None,
        "scorer": "equals",
        "scorer_version": "1",
        "slices": {"channel": "mail"},
        "inclusion_prob": None,
        "trace_id": "trace-1",
        "latency_ms": 12.5,
        "ttft_ms": None,
        "cost_usd": 0.00002,
        "created_at": AT,
    }
    return Score(**values | changes)


def plain(record: CallRecord | Score) -> dict[str, Any]:
    """A record as JSON has it."""
    found = json.loads(json.dumps(asdict(record)))
    assert isinstance(found, dict)
    return found


def line(number: int = 1, *, run_id: str = "run-1", **of_call: Any) -> dict[str, Any]:
    """The line of case `number`: one call, one score."""
    case_id = f"t-{number:03d}"
    trace_id = f"{run_id}-{number}"
    return {
        "key": ["tickets", "small/classify-ticket@v2", case_id, "bbbb", 0],
        "calls": [plain(call(trace_id=trace_id, **of_call))],
        "scores": [plain(score(run_id=run_id, case_id=case_id, trace_id=trace_id))],
        "must_pass": [],
    }


def manifest(run_id: str = "run-1") -> dict[str, Any]:
    return {
        "run_id": run_id,
        "git": {"commit": "c0ffee", "branch": "main", "dirty": False},
        "versions": {"evalkit": "0.1.0", "python": "3.11.0"},
        "seed": 7,
        "planned": 2,
        "pairs": ["small/classify-ticket@v2"],
        "prompts": {"classify-ticket@v2": "0123456789abcdef"},
        "golden_sets": {"tickets": {"hash": "aaaa", "feature": "classify-ticket"}},
    }
