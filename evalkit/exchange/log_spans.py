"""Model calls in traces: OpenTelemetry's GenAI conventions, and OpenInference.

Spans come as OTLP/JSON (nested, attributes as lists) or one by one (attributes as a
table, flat or nested). Spans that are no call of a model are passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    flag,
    micros,
    record,
    required_micros,
    text,
)
from evalkit.records import CallRecord

MODEL_OPERATIONS = ("chat", "text_completion", "generate_content")
MAX_DEPTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One span, whatever wrote it."""

    id: str
    name: str | None
    start: Any
    end: Any
    error: Any
    """What is known of its failure; None when it did not fail."""
    has: Mapping[str, Any]
    """Its attributes by dotted name, those of its resource among them."""


def spans_of(row: Mapping[str, Any]) -> Iterator[Span]:
    """The spans in one line of a log: all of an OTLP export, or the one that it is."""
    if "resourceSpans" not in row:
        yield _flat_span(row)
        return
    for resource in _tables(row["resourceSpans"]):
        shared = _otlp_attributes((resource.get("resource") or {}).get("attributes"))
        for scope in _scopes(resource):
            for span in _tables(scope.get("spans")):
                status = span.get("status") or {}
                failed = status.get("code") in (2, "STATUS_CODE_ERROR")
                yield Span(
                    id=f"{span.get('traceId', '')}-{span.get('spanId', '')}",
                    name=text(span.get("name")),
                    start=span.get("startTimeUnixNano"),
                    end=span.get("endTimeUnixNano"),
                    error=(status.get("message") or "error") if failed else None,
                    has={**shared, **_otlp_attributes(span.get("attributes"))},
                )


def spans_apart(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """An OTLP export as one for each of its spans: a bad one must not cost the others."""
    if "resourceSpans" not in row:
        yield row
        return
    for resource in _tables(row["resourceSpans"]):
        for scope in _scopes(resource):
            for span in _tables(scope.get("spans")):
                yield {"resourceSpans": [{**resource, "scopeSpans": [{**scope, "spans": [span]}]}]}


def _scopes(resource: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return _tables(first(resource, "scopeSpans", "instrumentationLibrarySpans"))


def _flat_span(row: Mapping[str, Any]) -> Span:
    row = _flattened(row)
    code = str(first(row, "status.status_code", "status_code", "status.code") or "").upper()
    prefix = "attributes."
    resource = "resource.attributes."
    has = {key.removeprefix(resource): row[key] for key in row if key.startswith(resource)}
    has |= {key.removeprefix(prefix): row[key] for key in row if key.startswith(prefix)}
    trace = first(row, "context.trace_id", "trace_id", "traceId")
    span = first(row, "context.span_id", "span_id", "spanId")
    if span is None:
        raise ValueError("the span has no id")
    message = first(row, "status.description", "status_message", "status.message")
    return Span(
        id=f"{trace}-{span}",
        name=text(row.get("name")),
        start=first(row, "start_time", "startTime", "startTimeUnixNano"),
        end=first(row, "end_time", "endTime", "endTimeUnixNano"),
        error=(message or "error") if code.endswith("ERROR") or code == "2" else None,
        has=has,
    )


def _flattened(row: Mapping[str, Any], prefix: str = "", depth: int = 0) -> dict[str, Any]:
    """Nested tables by dotted name; lists as they are."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and depth < MAX_DEPTH:
            found |= _flattened(value, f"{name}.", depth + 1)
        else:
            found[name] = value
    return found


def _tables(value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, Sequence) or not all(isinstance(one, Mapping) for one in value):
        raise ValueError("no list of spans where OTLP has one")
    return list(value)


def _otlp_attributes(listed: Any) -> dict[str, Any]:
    return {one["key"]: _otlp_value(one.get("value")) for one in listed or () if "key" in one}


def _otlp_value(value: Any, depth: int = 0) -> Any:
    """`{"intValue": "3"}` -> 3, and so on."""
    if not isinstance(value, Mapping) or len(value) != 1 or depth > MAX_DEPTH:
        return value
    ((kind, inner),) = value.items()
    if kind == "intValue":
        return int(inner)
    if kind == "arrayValue":
        return [_otlp_value(one, depth + 1) for one in inner.get("values", ())]
    if kind == "kvlistValue":
        return {
            one["key"]: _otlp_value(one.get("value"), depth + 1) for one in inner.get("values", ())
        }
    return inner


# --- OpenTelemetry -------------------------------------------------------------------


def is_otel(row: Mapping[str, Any]) -> bool:
    return "resourceSpans" in row or any(
        key.removeprefix("attributes.").startswith("gen_ai.") for key in _flattened(row)
    )


def otel_calls(row: Mapping[str, Any]) -> Iterator[CallRecord]:
    """The calls in one line, by the GenAI conventions (and their names before 1.37)."""
    for span in spans_of(row):
        if is_llm_span(span):
            yield openinference_call(span)
        elif first(span.has, "gen_ai.operation.name") in (*MODEL_OPERATIONS, None) and first(
            span.has, "gen_ai.request.model", "gen_ai.response.model"
        ):
            yield _otel_call(span)


def _otel_call(span: Span) -> CallRecord:
    has, start = span.has, required_micros(span.start)
    error = first(has, "error.type", "exception.type") or span.error
    ttft = amount(has.get("gen_ai.response.time_to_first_chunk"))
    return record(
        trace_id=text(has.get("evalkit.trace_id")) or span.id,
        ts=start,
        latency_ms=between_ms(start, micros(span.end)),
        ttft_ms=None if ttft is None else amount(ttft * 1000),
        provider=text(first(has, "gen_ai.provider.name", "gen_ai.system")),
        model=text(first(has, "gen_ai.request.model", "gen_ai.response.model")),
        served_model=text(has.get("gen_ai.response.model")),
        prompt_tokens=count(first(has, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens")),
        completion_tokens=count(
            first(has, "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens")
        ),
        cached_prompt_tokens=count(has.get("gen_ai.usage.cache_read.input_tokens")),
        cost_usd=amount(first(has, "gen_ai.usage.cost", "gen_ai.usage.cost_usd")),
        finish_reason=finish_reason(has.get("gen_ai.response.finish_reasons")),
        error_kind=None if error is None else error_kind(error),
        params=_under(has, "gen_ai.request.", leave=("model",)),
        input=as_input(_parsed(first(has, "gen_ai.input.messages", "gen_ai.prompt"))),
        output=answer_text(_parsed(first(has, "gen_ai.output.messages", "gen_ai.completion"))),
        session_id=text(first(has, "gen_ai.conversation.id", "session.id")),
        **_who_and_what(has),
        **_own(has),
    )


def _own(has: Mapping[str, Any]) -> dict[str, Any]:
    """What a span of ours says of its call beside the conventions."""
    cache_kind = text(has.get("evalkit.cache_kind"))
    return {
        "status": text(has.get("evalkit.status")),
        "flag_variant": text(has.get("evalkit.flag_variant")),
        "route_reason": text(has.get("evalkit.route_reason")),
        "retries": count(has.get("evalkit.retries")),
        "repaired": flag(has.get("evalkit.repaired")),
        "escalated": flag(has.get("evalkit.escalated")),
        "schema_ok": flag(has.get("evalkit.schema_ok")),
        "cache_kind": cache_kind,
        "cache_hit": cache_kind is not None,
    }


def _who_and_what(has: Mapping[str, Any]) -> dict[str, str | None]:
    """Names that both conventions share, or that an application adds itself."""
    return {
        "user_id": text(first(has, "user.id", "enduser.id")),
        "tenant": text(first(has, "evalkit.tenant", "tenant.id")),
        "feature": text(first(has, "evalkit.feature", "gen_ai.agent.name", "service.name")),
        "prompt_name": text(first(has, "evalkit.prompt_name", "gen_ai.prompt.name")),
        "prompt_version": text(
            first(
                has,
                "evalkit.prompt_version",
                "gen_ai.prompt.version",
                "llm.prompt_template.version",
            )
        ),
    }


# --- OpenInference -------------------------------------------------------------------

_KIND = "openinference.span.kind"


def is_openinference(row: Mapping[str, Any]) -> bool:
    if "resourceSpans" in row:
        return any(_KIND in span.has for span in spans_of(row))
    return any(key.removeprefix("attributes.") == _KIND for key in _flattened(row))


def is_llm_span(span: Span) -> bool:
    return str(span.has.get(_KIND, "")).upper() == "LLM"


def openinference_calls(row: Mapping[str, Any]) -> Iterator[CallRecord]:
    """The calls in one line: spans of kind LLM."""
    for span in spans_of(row):
        if is_llm_span(span):
            yield openinference_call(span)


def openinference_call(span: Span) -> CallRecord:
    has, start = span.has, required_micros(span.start)
    parameters = _parsed(has.get("llm.invocation_parameters"))
    return record(
        trace_id=span.id,
        ts=start,
        latency_ms=between_ms(start, micros(span.end)),
        provider=text(first(has, "llm.provider", "llm.system")),
        model=text(has.get("llm.model_name")),
        served_model=text(has.get("llm.model_name")),
        prompt_tokens=count(has.get("llm.token_count.prompt")),
        completion_tokens=count(has.get("llm.token_count.completion")),
        cached_prompt_tokens=count(has.get("llm.token_count.prompt_details.cache_read")),
        cost_usd=amount(has.get("llm.cost.total")),
        finish_reason=finish_reason(has.get("llm.finish_reason")),
        error_kind=None if span.error is None else error_kind(span.error),
        params=parameters if isinstance(parameters, Mapping) else None,
        input=as_input(_parsed(has.get("input.value"))),
        output=text(has.get("output.value")),
        session_id=text(has.get("session.id")),
        **_who_and_what(has),
    )


def _parsed(value: Any) -> Any:
    """A value that may be JSON text, as conventions have it for what is nested."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _under(has: Mapping[str, Any], prefix: str, *, leave: Sequence[str]) -> dict[str, Any]:
    named = {key.removeprefix(prefix): has[key] for key in has if key.startswith(prefix)}
    return {key: value for key, value in named.items() if key not in leave}
