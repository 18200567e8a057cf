"""Calls and scores to OpenTelemetry: spans, metrics and evaluation events over OTLP/HTTP.

A sink beside the call log, by the GenAI semantic conventions; what they have no name for
is under `evalkit.`. Never fails or holds up a call: what a collector does not take is
dropped by bounded queues, and counted. Needs `evalkit[otel]`. Texts stay here unless asked.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from types import TracebackType
from typing import Any

from evalkit.errors import ConfigError
from evalkit.records import Attempt, CallRecord

log = logging.getLogger(__name__)

Sink = Callable[[CallRecord], None]
Attributes = dict[str, Any]
SCOPE = "evalkit"
TIMEOUT_S = 5.0
"""Of one export, and of all that is left at the end."""
SAY_EVERY_S = 60.0
OPERATIONS = {"generate": "text_completion"}
"""Task -> operation, where it is not `chat`."""
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Bounds of the conventions' histograms."""


def fan_out(*sinks: Sink) -> Sink:
    """One sink of several: each gets every record, also when another one fails.

        Orchestrator.from_config(sink=fan_out(call_log, OtelSink(endpoint=...)))

    Raises the first failure, once all have had the record: the orchestrator counts it.
    """

    def sink(record: CallRecord) -> None:
        first: Exception | None = None
        for one in sinks:
            try:
                one(record)
            except Exception as error:
                first = first or error
        if first is not None:
            raise first

    return sink


class OtelSink:
    """Sends calls as spans and metrics, and scores as `gen_ai.evaluation.result` events.

    A span joins the trace that is current where the call was made; else it begins one whose
    id is the call's. A context manager, or `close()` it.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        service_name: str = "evalkit",
        texts: bool = False,
    ) -> None:
        """`endpoint` is the collector's base, http://localhost:4318; None: as OTEL_* say.

        Raises ConfigError where evalkit[otel] is not installed.
        """
        self.failed = 0
        """Calls, attempts and scores that could not be told, or that the collector did not take."""
        self._texts = texts
        self._said_at = float("-inf")
        try:
            self._pipes = _Pipes(endpoint, dict(headers or {}), service_name, self._not_sent)
        except ImportError as error:
            raise ConfigError(
                f"OpenTelemetry is not there: {error}. Install evalkit[otel]."
            ) from None

    def __call__(self, record: CallRecord) -> None:
        """Take a call; never raises."""
        try:
            self._pipes.span(record, call_attributes(record, texts=self._texts))
            self._pipes.measure(record)
        except Exception as error:
            self._count(error)

    def evaluation(self, score: Mapping[str, Any]) -> None:
        """Take a score, as a row of `scores` or a dict of `Score`'s fields; never raises."""
        try:
            self._pipes.event(score["trace_id"] or "", evaluation_attributes(score))
        except Exception as error:
            self._count(error)

    def _count(self, error: Exception) -> None:
        self.failed += 1
        if time.monotonic() - self._said_at >= SAY_EVERY_S:
            self._said_at = time.monotonic()
            log.error("not exported: %s", error, exc_info=error)

    def _not_sent(self, n: int) -> None:
        self.failed += n

    def flush(self) -> None:
        """Send what is held; waits for at most a few seconds."""
        self._pipes.flush()

    def close(self) -> None:
        """Send what is held, and stop."""
        self._pipes.close()

    def __enter__(self) -> OtelSink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


# --- names -------------------------------------------------------------------------------


def call_attributes(record: CallRecord, *, texts: bool = False) -> Attributes:
    """A call by the conventions' names; what is not known is left out."""
    has: Attributes = {
        **_who(record),
        "gen_ai.response.model": record.served_model,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.completion_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_prompt_tokens,
        "gen_ai.response.finish_reasons": [record.finish_reason] if record.finish_reason else None,
        "gen_ai.response.time_to_first_chunk": _seconds(record.ttft_ms),
        "gen_ai.conversation.id": record.session_id,
        "user.id": record.user_id,
        "evalkit.trace_id": record.trace_id,
        "evalkit.tenant": record.tenant,
        "evalkit.prompt_name": record.prompt_name,
        "evalkit.prompt_version": record.prompt_version,
        "evalkit.status": record.status,
        "evalkit.cost_usd": record.cost_usd,
        "gen_ai.usage.cost": record.cost_usd,
        "evalkit.cache_kind": record.cache_kind,
        "evalkit.flag_variant": record.flag_variant,
        "evalkit.route_reason": record.route_reason,
        "evalkit.retries": record.retries,
        "evalkit.repaired": record.repaired,
        "evalkit.escalated": record.escalated,
        "evalkit.schema_ok": record.schema_ok,
        "evalkit.guard_events": list(record.guard_events) or None,
    }
    has |= {f"evalkit.stage_ms.{name}": ms for name, ms in record.stage_ms.items()}
    has |= {
        f"gen_ai.request.{name}": value
        for name, value in record.params.items()
        if isinstance(value, bool | int | float | str)
    }
    if texts:
        has["gen_ai.input.messages"] = _message("user", record.input)
        has["gen_ai.output.messages"] = _message("assistant", record.output)
    return _known(has)


def _who(record: CallRecord) -> Attributes:
    """What spans and metrics are told apart by; few values each."""
    return {
        "gen_ai.operation.name": OPERATIONS.get(record.task, "chat"),
        "gen_ai.provider.name": record.provider,
        "gen_ai.request.model": record.model,
        "error.type": record.error_kind,
        "evalkit.feature": record.feature,
    }


def attempt_attributes(attempt: Attempt) -> Attributes:
    """One request of a call; under names of our own, so that no tokens are counted twice."""
    fields = (
        "provider", "model", "served_model", "error_kind", "finish_reason", "latency_ms",
        "ttft_ms", "wait_ms", "prompt_tokens", "completion_tokens", "cost_usd",
    )  # fmt: skip
    return _known({f"evalkit.attempt.{name}": getattr(attempt, name) for name in fields})


def evaluation_attributes(score: Mapping[str, Any]) -> Attributes:
    """A score as the event `gen_ai.evaluation.result` has it."""
    passed = score.get("passed")
    return _known(
        {
            "gen_ai.evaluation.name": score["metric"],
            "gen_ai.evaluation.score.value": score.get("score"),
            "gen_ai.evaluation.score.label": None
            if passed is None
            else ("pass" if passed else "fail"),
            "gen_ai.evaluation.explanation": score.get("reason"),
            "error.type": score.get("error_kind"),
            "evalkit.trace_id": score.get("trace_id"),
            "evalkit.run_id": score.get("run_id"),
            "evalkit.outcome": score.get("outcome"),
            "evalkit.tier": score.get("tier"),
            "evalkit.scorer": score.get("scorer"),
            "evalkit.scorer_version": score.get("scorer_version"),
            "evalkit.inclusion_prob": score.get("inclusion_prob"),
        }
    )


def _known(has: Attributes) -> Attributes:
    return {name: value for name, value in has.items() if value is not None and value != ""}


def _message(role: str, content: Any) -> str | None:
    if content is None:
        return None
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    part = {"type": "text", "content": text}
    return json.dumps([{"role": role, "parts": [part]}], ensure_ascii=False)


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000


def trace_number(trace_id: str) -> int:
    """A call's id as OpenTelemetry's 128 bits: itself where it is 32 hexadecimal digits."""
    try:
        found = int(trace_id, 16) if len(trace_id) == 32 else 0
    except ValueError:
        found = 0
    return found or int.from_bytes(blake2b(trace_id.encode(), digest_size=16).digest()) or 1


def span_number(trace_id: str) -> int:
    """The id of a call's span: the same for whoever scores it later."""
    return int.from_bytes(blake2b(trace_id.encode(), digest_size=8).digest()) or 1


# --- the SDK -----------------------------------------------------------------------------


def _counted(exporter: Any, not_sent: Callable[[int], None]) -> Any:
    """The exporter, telling how much of what it was given did not arrive."""
    send = exporter.export

    def export(batch: Sequence[Any]) -> Any:
        outcome = None
        try:
            outcome = send(batch)
        finally:
            if outcome is None or outcome.name != "SUCCESS":
                not_sent(len(batch))
        return outcome

    exporter.export = export
    return exporter


class _Pipes:
    """Tracer, meter and logger of our own: the application's are left alone."""

    def __init__(
        self,
        endpoint: str | None,
        headers: dict[str, str],
        service_name: str,
        not_sent: Callable[[int], None],
    ) -> None:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        def to(signal: str) -> dict[str, Any]:
            base = None if endpoint is None else f"{endpoint.rstrip('/')}/v1/{signal}"
            return {"endpoint": base, "headers": headers or None, "timeout": TIMEOUT_S}

        resource = Resource.create({"service.name": service_name})
        self._ids = _span_ids()
        self._spans = TracerProvider(resource=resource, id_generator=self._ids)
        spans = _counted(OTLPSpanExporter(**to("traces")), not_sent)
        self._spans.add_span_processor(BatchSpanProcessor(spans))
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(**to("metrics")))
        self._metrics = MeterProvider([reader], resource=resource)
        self._logs = LoggerProvider(resource=resource)
        logs = _counted(OTLPLogExporter(**to("logs")), not_sent)
        self._logs.add_log_record_processor(BatchLogRecordProcessor(logs))
        self._tracer = self._spans.get_tracer(SCOPE)
        self._logger = self._logs.get_logger(SCOPE)
        meter = self._metrics.get_meter(SCOPE)

        def histogram(name: str, unit: str, bounds: Sequence[float]) -> Any:
            return meter.create_histogram(name, unit, explicit_bucket_boundaries_advisory=bounds)

        self._duration = histogram("gen_ai.client.operation.duration", "s", SECONDS)
        self._ttft = histogram("gen_ai.client.operation.time_to_first_chunk", "s", SECONDS)
        self._tokens = histogram("gen_ai.client.token.usage", "{token}", TOKENS)
        self._cost = meter.create_counter("evalkit.client.cost", "{USD}")

    def span(self, record: CallRecord, attributes: Attributes) -> None:
        from opentelemetry import trace
        from opentelemetry.trace import SpanKind, Status, StatusCode

        operation = attributes["gen_ai.operation.name"]
        start = record.ts * 1000
        self._ids.next_ids(trace_number(record.trace_id), span_number(record.trace_id))
        span = self._tracer.start_span(
            f"{operation} {record.model}", kind=SpanKind.CLIENT, attributes=attributes,
            start_time=start,
        )  # fmt: skip
        if record.error_kind is not None:
            span.set_status(Status(StatusCode.ERROR, record.error_kind))
        context, at = trace.set_span_in_context(span), start
        for number, attempt in enumerate(record.attempts, start=1):
            at += round((attempt.wait_ms or 0) * 1e6)
            one = self._tracer.start_span(
                f"attempt {number}", context, attributes=attempt_attributes(attempt), start_time=at
            )
            at += round((attempt.latency_ms or 0) * 1e6)
            one.end(at)
        span.end(start + round(record.latency_ms * 1e6))

    def measure(self, record: CallRecord) -> None:
        who = _known(_who(record) | {"gen_ai.response.model": record.served_model})
        self._duration.record(record.latency_ms / 1000, who)
        if record.ttft_ms is not None:
            self._ttft.record(record.ttft_ms / 1000, who)
        for kind, count in (("input", record.prompt_tokens), ("output", record.completion_tokens)):
            if count is not None:
                self._tokens.record(count, who | {"gen_ai.token.type": kind})
        if record.cost_usd is not None:
            self._cost.add(record.cost_usd, who)

    def event(self, trace_id: str, attributes: Attributes) -> None:
        from opentelemetry import trace

        span = trace.SpanContext(
            trace_number(trace_id), span_number(trace_id), is_remote=True,
            trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
        )  # fmt: skip
        self._logger.emit(
            event_name="gen_ai.evaluation.result",
            timestamp=time.time_ns(),
            attributes=attributes,
            context=trace.set_span_in_context(trace.NonRecordingSpan(span)),
        )

    def flush(self) -> None:
        for provider in (self._spans, self._metrics, self._logs):
            provider.force_flush(round(TIMEOUT_S * 1000))

    def close(self) -> None:
        for provider in (self._spans, self._metrics, self._logs):
            provider.shutdown()


def _span_ids() -> Any:
    """A generator of ids that can be told the next ones, for a thread's next span."""
    import threading

    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

    class Told(RandomIdGenerator):
        def __init__(self) -> None:
            self._next = threading.local()

        def next_ids(self, trace: int, span: int) -> None:
            self._next.trace, self._next.span = trace, span

        def generate_trace_id(self) -> int:
            return self._next.__dict__.pop("trace", 0) or super().generate_trace_id()

        def generate_span_id(self) -> int:
            return self._next.__dict__.pop("span", 0) or super().generate_span_id()

    return Told()
