"""Calls and scores over OTLP/HTTP, to a collector that listens and to some that do not."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs evalkit[otel]")

from opentelemetry.sdk.trace import TracerProvider

from evalkit.cli.main import main
from evalkit.cli.periods import iso
from evalkit.exchange.otel import OtelSink, fan_out, trace_number
from evalkit.exchange.otel_export import export_calls
from evalkit.records import CallRecord
from evalkit.store.call_log import CallLog
from evalkit.store.views import open_store
from tests.exchange.otlp_receiver import Receiver
from tests.store.journal_lines import AT, attempt, call, line, manifest, plain, score

TRACE = "0199c9a5f0007a3c8d3e5b6a7c8d9e0f"


def test_a_call_is_a_span_by_the_conventions() -> None:
    record = call(
        trace_id=TRACE, session_id="s-1", user_id="u-1", ttft_ms=4.0, attempts=(
            attempt(error_kind="rate_limit", latency_ms=2.0, wait_ms=0.0),
            attempt(latency_ms=8.0, wait_ms=1.5),
        ),
    )  # fmt: skip
    with Receiver() as receiver, OtelSink(receiver.url) as sink:
        sink(record)
        sink.flush()
        spans = {one["message"].name: one for one in receiver.spans()}

    span, has = spans["chat small"]["message"], spans["chat small"]["has"]
    assert span.trace_id.hex() == TRACE
    assert span.start_time_unix_nano == AT * 1000
    assert span.end_time_unix_nano - span.start_time_unix_nano == 12_500_000
    assert has["gen_ai.operation.name"] == "chat"
    assert has["gen_ai.provider.name"] == "openai"
    assert (has["gen_ai.usage.input_tokens"], has["gen_ai.usage.output_tokens"]) == (120, 7)
    assert has["gen_ai.response.finish_reasons"] == ["stop"]
    assert has["gen_ai.response.time_to_first_chunk"] == 0.004
    assert has["gen_ai.conversation.id"] == "s-1"
    assert (has["evalkit.feature"], has["evalkit.prompt_version"]) == ("classify-ticket", "v2")
    assert has["gen_ai.request.temperature"] == 0.0
    assert not [name for name in has if "messages" in name]
    second = spans["attempt 2"]["message"]
    assert second.parent_span_id == span.span_id
    assert second.start_time_unix_nano == AT * 1000 + 3_500_000
    assert spans["attempt 1"]["has"]["evalkit.attempt.error_kind"] == "rate_limit"


def test_a_failed_call_is_an_error_and_texts_go_only_when_asked() -> None:
    record = call(trace_id=TRACE, status="error", error_kind="timeout", input={"text": "hello"})
    with Receiver() as receiver, OtelSink(receiver.url, texts=True) as sink:
        sink(record)
        sink.flush()
        (span,) = (one for one in receiver.spans() if one["message"].name == "chat small")

    assert span["message"].status.code == 2
    assert span["has"]["error.type"] == "timeout"
    (message,) = json.loads(span["has"]["gen_ai.input.messages"])
    assert message == {"role": "user", "parts": [{"type": "text", "content": '{"text": "hello"}'}]}


def test_a_call_joins_the_trace_of_the_application() -> None:
    tracer = TracerProvider().get_tracer("application")
    with Receiver() as receiver, OtelSink(receiver.url) as sink:
        with tracer.start_as_current_span("request") as outer:
            sink(call(trace_id=TRACE, attempts=()))
        sink.flush()
        (span,) = receiver.spans()

    assert int.from_bytes(span["message"].trace_id) == outer.get_span_context().trace_id
    assert int.from_bytes(span["message"].parent_span_id) == outer.get_span_context().span_id
    assert span["has"]["evalkit.trace_id"] == TRACE


def test_calls_are_measured() -> None:
    with Receiver() as receiver, OtelSink(receiver.url) as sink:
        for n in range(3):
            sink(call(trace_id=f"t-{n}", ttft_ms=2.0))
        sink.flush()
        found = receiver.metrics()

    assert [point.count for point in found["gen_ai.client.operation.duration"]] == [3]
    assert found["gen_ai.client.operation.duration"][0].sum == pytest.approx(3 * 0.0125)
    assert sorted(point.sum for point in found["gen_ai.client.token.usage"]) == [21, 360]
    assert found["gen_ai.client.operation.time_to_first_chunk"][0].count == 3
    assert found["evalkit.client.cost"][0].as_double == pytest.approx(0.00006)


def test_a_score_is_an_event_on_the_span_of_its_call() -> None:
    with Receiver() as receiver, OtelSink(receiver.url) as sink:
        sink(call(trace_id=TRACE, attempts=()))
        sink.evaluation(asdict(score(trace_id=TRACE, metric="fits", score=0.5, passed=False)))
        sink.flush()
        (span,), (event,) = receiver.spans(), receiver.events()

    assert event["message"].event_name == "gen_ai.evaluation.result"
    assert event["message"].trace_id == span["message"].trace_id
    assert event["message"].span_id == span["message"].span_id
    assert event["has"]["gen_ai.evaluation.name"] == "fits"
    assert event["has"]["gen_ai.evaluation.score.value"] == 0.5
    assert event["has"]["gen_ai.evaluation.score.label"] == "fail"


def test_what_we_export_can_be_imported_again(tmp_path: Path) -> None:
    (tmp_path / "evalkit.toml").write_text("", encoding="utf-8")
    with Receiver() as receiver, OtelSink(receiver.url) as sink:
        failed = call(trace_id=TRACE, status="degraded", error_kind="server", user_id="u-1")
        sink(replace(failed, cache_hit=True, cache_kind="exact", repaired=True, escalated=True))
        sink.flush()
        lines = [json.dumps(one) for one in receiver.as_otlp_json()]
    exported = tmp_path / "traces.jsonl"
    exported.write_text("\n".join(lines) + "\n", encoding="utf-8")

    options = ["--config", str(tmp_path / "evalkit.toml")]
    assert main(["logs", "import", str(exported), *options]) == 0

    (found,) = open_store(tmp_path / ".evalkit").sql(
        "SELECT feature, model, prompt_name, prompt_version, prompt_tokens, completion_tokens,"
        " cost_usd, latency_ms, user_id, finish_reason, trace_id, cache_hit, cache_kind, status,"
        " error_kind, repaired, escalated FROM calls"
    )
    assert found == {
        "feature": "classify-ticket", "model": "small", "prompt_name": "classify-ticket",
        "prompt_version": "v2", "prompt_tokens": 120, "completion_tokens": 7,
        "cost_usd": 0.00002, "latency_ms": 12.5, "user_id": "u-1", "finish_reason": "stop",
        "trace_id": TRACE, "cache_hit": True, "cache_kind": "exact", "status": "degraded",
        "error_kind": "server", "repaired": True, "escalated": True,
    }  # fmt: skip


def test_the_command_sends_a_window_and_the_scores_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evalkit.toml").write_text("", encoding="utf-8")
    store = open_store(tmp_path / ".evalkit")
    rows = [plain(call(trace_id=f"t-{n}", ts=AT + n)) for n in range(700)]
    store.add_calls("log", rows)
    with store.create_run({**manifest("run-1")}) as writer:
        writer.append(line(1))
        writer.seal("complete")
    options = ["--config", str(tmp_path / "evalkit.toml"), "--json"]

    with Receiver() as receiver:
        target = ["--endpoint", receiver.url]
        window = ["--since", iso(AT + 10), "--until", iso(AT + 650)]
        assert main(["logs", "export", *target, *window, "--run", "run-1", *options]) == 0
        spans = [one for one in receiver.spans() if one["message"].name == "chat small"]
        events = receiver.events()

    assert json.loads(capsys.readouterr().out) == {"calls": 640, "scores": 1, "failed": 0}
    assert len({one["message"].span_id for one in spans}) == 640
    assert [one["has"]["evalkit.run_id"] for one in events] == ["run-1"]
    assert main(["logs", "export", *options]) == 2


def test_no_more_spans_wait_than_the_exporters_queue_holds(tmp_path: Path) -> None:
    attempts = (attempt(),) * 7
    store = open_store(tmp_path / ".evalkit")
    rows = [plain(call(trace_id=f"t-{n}", ts=AT + n, attempts=attempts)) for n in range(200)]
    store.add_calls("log", rows)
    held = most = 0

    class Sink:
        def __call__(self, record: CallRecord) -> None:
            nonlocal held, most
            held += 1 + len(record.attempts)
            most = max(most, held)

        def flush(self) -> None:
            nonlocal held
            held = 0

    assert export_calls(store, cast("OtelSink", Sink()), since=AT, until=AT + 200) == 200

    assert (held, most) == (0, 496)


@pytest.mark.parametrize("status", [400, 503, None])
def test_no_collector_fails_or_holds_up_a_call(status: int | None, tmp_path: Path) -> None:
    with Receiver(status or 200) as receiver:
        url = receiver.url if status else "http://127.0.0.1:9"
        sink = OtelSink(url)
        with CallLog(tmp_path) as log:
            both = fan_out(log, sink)
            started = time.process_time()
            for n in range(200):
                both(call(trace_id=f"t-{n}"))
            each = (time.process_time() - started) / 200
        started = time.monotonic()
        sink.close()

    assert each < 0.005
    assert time.monotonic() - started < 30
    assert sink.failed >= 200
    assert open_store(tmp_path).sql("SELECT count(*) n FROM calls") == [{"n": 200}]


def test_one_sink_that_fails_does_not_keep_the_others_from_their_record(
    caplog: pytest.LogCaptureFixture,
) -> None:
    taken: list[CallRecord] = []

    def broken(record: CallRecord) -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        fan_out(broken, taken.append)(call())

    assert taken == [call()]
    with Receiver() as receiver, OtelSink(receiver.url) as sink:
        sink(call(latency_ms=None))
        assert sink.failed == 1
    assert "not exported" in caplog.text


def test_ids_that_are_no_hexadecimal_digits_have_a_number_too() -> None:
    assert trace_number(TRACE) == int(TRACE, 16)
    assert 0 < trace_number("trace-1") < 1 << 128
    assert trace_number("trace-1") != trace_number("trace-2")
