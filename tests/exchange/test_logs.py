"""Foreign logs: what they say arrives, what they do not say stays unknown."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.cli.main import main
from evalkit.errors import InputFileError
from evalkit.exchange.logs import FORMATS, Imported, detect, import_log
from evalkit.records import Attempt
from evalkit.settings import ModelSettings, Price
from evalkit.store.views import Store, open_store

START = "2026-03-01T10:00:00.000000Z"
END = "2026-03-01T10:00:01.500000Z"
MICROS = 1_772_359_200_000_000

OTLP_SPAN = {
    "traceId": "a" * 32, "spanId": "b" * 16, "name": "chat gpt-4o",
    "startTimeUnixNano": str(MICROS * 1000), "endTimeUnixNano": str(MICROS * 1000 + 1_500_000_000),
    "attributes": [
        {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
        {"key": "gen_ai.provider.name", "value": {"stringValue": "openai"}},
        {"key": "gen_ai.request.model", "value": {"stringValue": "gpt-4o"}},
        {"key": "gen_ai.response.model", "value": {"stringValue": "gpt-4o-2024-08-06"}},
        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "12"}},
        {"key": "gen_ai.usage.output_tokens", "value": {"intValue": "8"}},
        {"key": "gen_ai.response.finish_reasons",
         "value": {"arrayValue": {"values": [{"stringValue": "stop"}]}}},
        {"key": "gen_ai.input.messages", "value": {"stringValue": json.dumps(
            [{"role": "user", "parts": [{"type": "text", "content": "Hello"}]}])}},
        {"key": "gen_ai.output.messages", "value": {"stringValue": json.dumps(
            [{"role": "assistant", "parts": [{"type": "text", "content": "Hi!"}]}])}},
    ],
}  # fmt: skip
HTTP_SPAN = {
    "traceId": "a" * 32, "spanId": "c" * 16, "name": "GET /", "startTimeUnixNano": "1",
    "endTimeUnixNano": "2", "attributes": [],
}  # fmt: skip
OTLP = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]},
            "scopeSpans": [{"spans": [OTLP_SPAN, HTTP_SPAN]}],
        }
    ]
}
PHOENIX = {
    "name": "ChatCompletion", "context": {"trace_id": "t1", "span_id": "s1"},
    "start_time": START, "end_time": END, "status_code": "OK",
    "attributes": {
        "openinference": {"span": {"kind": "LLM"}},
        "llm": {"model_name": "gpt-4o", "token_count": {"prompt": 12, "completion": 8},
                "prompt_template": {"version": "v3"}},
        "input": {"value": '{"messages": [{"role": "user", "content": "Hello"}]}'},
        "output": {"value": "Hi!"}, "user": {"id": "ann"},
    },
}  # fmt: skip
LITELLM = {
    "id": "chatcmpl-1", "trace_id": "session-1", "call_type": "acompletion", "status": "success",
    "response_cost": 0.00011, "response_cost_failure_debug_info": None,
    "prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20,
    "startTime": MICROS / 1e6, "endTime": MICROS / 1e6 + 1.5, "model": "gpt-4o",
    "model_group": "smart", "custom_llm_provider": "openai", "cache_hit": False,
    "end_user": "ann", "metadata": {"requester_metadata": {"feature": "chat"}},
    "messages": [{"role": "user", "content": "Hello"}],
    "response": {"choices": [{"finish_reason": "stop",
                              "message": {"role": "assistant", "content": "Hi!"}}]},
}  # fmt: skip
LANGFUSE = {
    "id": "gen-1", "traceId": "t1", "type": "GENERATION", "name": "answer", "level": "DEFAULT",
    "startTime": START, "endTime": END, "completionStartTime": None, "model": "gpt-4o",
    "promptName": "answer", "promptVersion": 4, "usageDetails": {"input": 12, "output": 8},
    "costDetails": {"total": 0.00011}, "input": [{"role": "user", "content": "Hello"}],
    "output": {"role": "assistant", "content": "Hi!"},
}  # fmt: skip
EVALKIT = {
    "trace_id": "e-1", "ts": START, "feature": "chat", "model": "smart", "prompt_tokens": 12,
    "completion_tokens": 8, "latency_ms": 1500.0, "prompt_version": "v1", "output": "Hi!",
    "input": {"text": "Hello"}, "served_model": "smart",
}  # fmt: skip
SAMPLES = {
    "otel": OTLP, "openinference": PHOENIX, "litellm": LITELLM, "langfuse": LANGFUSE,
    "evalkit": EVALKIT,
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def bring(store: Store, folder: Path, *rows: Any, name: str = "log.jsonl", **how: Any) -> Imported:
    path = folder / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return import_log(path, store, **how)


def calls(store: Store) -> list[dict[str, Any]]:
    return store.sql("SELECT * FROM calls ORDER BY trace_id")


@pytest.mark.parametrize("name", SAMPLES)
def test_every_format_is_recognised_and_says_the_same_of_the_same_call(
    store: Store, tmp_path: Path, name: str
) -> None:
    done = bring(store, tmp_path, SAMPLES[name])

    (call,) = calls(store)
    assert (done.format, done.added, done.problems) == (name, 1, [])
    assert (call["prompt_tokens"], call["completion_tokens"], call["total_tokens"]) == (12, 8, 20)
    assert call["latency_ms"] == pytest.approx(1500.0)
    assert (call["ts"].isoformat(), call["status"]) == ("2026-03-01T10:00:00+00:00", "ok")
    assert call["output"] == "Hi!"
    assert "Hello" in call["input"]


def test_a_call_comes_back_from_its_own_print_as_it_was(store: Store, tmp_path: Path) -> None:
    bring(store, tmp_path, {**EVALKIT, "params": {"max_tokens": 64}})
    (printed,) = store.sql("SELECT trace_id, ts, feature, model, params, input FROM calls")
    other = open_store(tmp_path / "other")

    done = bring(other, tmp_path, {**printed, "ts": START}, name="printed.jsonl")

    (call,) = calls(other)
    assert done.problems == []
    assert json.loads(call["input"]) == {"text": "Hello"}
    assert json.loads(call["params"]) == {"max_tokens": 64}


def test_a_call_keeps_the_status_that_its_log_says(store: Store, tmp_path: Path) -> None:
    rows = [
        {**EVALKIT, "trace_id": status, "status": status, "error_kind": "policy"}
        for status in ("degraded", "error", "refused", "well")
    ]

    done = bring(store, tmp_path, *rows, {**EVALKIT, "trace_id": "z", "error_kind": "server"})

    assert [call["status"] for call in calls(store)] == ["degraded", "error", "refused", "error"]
    assert [text.partition("log.jsonl:")[2][:17] for text in done.problems] == ["4: status is 'wel"]


def test_an_input_that_is_no_json_stays_the_text_it_is(store: Store, tmp_path: Path) -> None:
    bring(store, tmp_path, {**EVALKIT, "input": "Hello NaN"})

    (call,) = calls(store)
    assert json.loads(call["input"]) == "Hello NaN"


@pytest.mark.parametrize("indent", [None, 1])
def test_a_page_of_an_api_is_read_however_it_is_laid_out(
    store: Store, tmp_path: Path, indent: int | None
) -> None:
    page = {"data": [LANGFUSE, {**LANGFUSE, "id": "another"}], "meta": {"page": 1}}

    done = bring(store, tmp_path, json.dumps(page, indent=indent), name="page.json")

    assert (done.format, done.added, done.problems) == ("langfuse", 2, [])


def test_pages_of_an_api_may_stand_in_lines(store: Store, tmp_path: Path) -> None:
    pages = [{"data": [{**LANGFUSE, "id": f"g{n}"}]} for n in range(3)]

    done = bring(store, tmp_path, *pages)

    assert (done.added, done.no_calls) == (3, 0)


def test_what_is_not_said_is_not_known(store: Store, tmp_path: Path) -> None:
    done = bring(store, tmp_path, OTLP)

    (call,) = calls(store)
    assert (call["cost_usd"], call["ttft_ms"], call["user_id"]) == (None, None, None)
    assert (done.unpriced, done.without_prompt_version) == (1, 1)
    assert call["prompt_version"] == ""


def test_names_and_versions_arrive_where_a_log_has_them(store: Store, tmp_path: Path) -> None:
    bring(store, tmp_path, LANGFUSE)
    bring(store, tmp_path, LITELLM, name="b.jsonl")
    bring(store, tmp_path, PHOENIX, name="c.jsonl")

    lite, fuse, phoenix = calls(store)
    assert (fuse["prompt_name"], fuse["prompt_version"], fuse["cost_usd"]) == (
        "answer", "4", 0.00011,
    )  # fmt: skip
    assert (lite["model"], lite["served_model"], lite["feature"], lite["user_id"]) == (
        "smart", "gpt-4o", "chat", "ann",
    )  # fmt: skip
    assert (phoenix["prompt_version"], phoenix["user_id"]) == ("v3", "ann")


def test_the_same_file_twice_is_stored_once(store: Store, tmp_path: Path) -> None:
    bring(store, tmp_path, LANGFUSE)
    again = bring(store, tmp_path, LANGFUSE)

    assert (again.added, again.known) == (0, 1)
    assert len(calls(store)) == 1


def test_the_same_file_twice_at_once_is_stored_once(store: Store, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        with store.importing("calls"):
            both = [pool.submit(bring, store, tmp_path, OTLP) for _ in range(2)]
        added = sorted((one.result().added, one.result().known) for one in both)

    assert added == [(0, 1), (1, 0)]


def test_a_call_in_two_exports_is_stored_once(store: Store, tmp_path: Path) -> None:
    bring(store, tmp_path, LANGFUSE)
    later = bring(store, tmp_path, LANGFUSE, {**LANGFUSE, "id": "gen-2"}, name="later.jsonl")

    assert (later.added, later.known) == (1, 1)
    assert [call["trace_id"] for call in calls(store)] == ["gen-1", "gen-2"]


def test_a_bad_row_is_named_and_the_others_arrive(store: Store, tmp_path: Path) -> None:
    done = bring(
        store,
        tmp_path,
        LANGFUSE,
        "{broken",
        {**LANGFUSE, "id": "gen-2", "usageDetails": {"input": -3}},
        {**LANGFUSE, "id": "gen-3", "startTime": "yesterday"},
        {**LANGFUSE, "id": "gen-4", "endTime": "2026-03-01T09:00:00Z"},
    )

    assert done.added == 1
    where = [problem.removeprefix(str(tmp_path)) for problem in done.problems]
    assert [text.split(": ")[0] for text in where] == [
        "/log.jsonl:2", "/log.jsonl:3", "/log.jsonl:4", "/log.jsonl:5",
    ]  # fmt: skip
    assert "-3 is no number of tokens" in where[1]


def test_a_field_of_an_attempt_that_cannot_be_meant_costs_its_call_alone(
    store: Store, tmp_path: Path
) -> None:
    whole = {"trace_id": "a", "ts": START, "feature": "f"}
    attempt = dict.fromkeys(field.name for field in fields(Attempt))
    bad = {"tool_calls": [{"id": 1, "name": "t", "arguments": "{}"}]}

    done = bring(
        store,
        tmp_path,
        whole,
        {**whole, "trace_id": "b", "attempts": [{**attempt, "latency_ms": "soon"}]},
        {**whole, "trace_id": "c", **bad},
        {**whole, "trace_id": "d", "attempts": [{**attempt, "latency_ms": 3.5}]},
    )

    assert [call["trace_id"] for call in calls(store)] == ["a", "d"]
    assert [text.partition("log.jsonl:")[2] for text in done.problems] == [
        "2: latency_ms in attempts is 'soon'", "3: id in tool_calls is 1",
    ]  # fmt: skip


def test_a_bad_span_costs_no_other_of_its_export(store: Store, tmp_path: Path) -> None:
    late = [{"key": "gen_ai.response.time_to_first_chunk", "value": {"doubleValue": 1e306}}]
    bad = {**OTLP_SPAN, "spanId": "d" * 16, "attributes": OTLP_SPAN["attributes"] + late}
    export = {"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": [bad, OTLP_SPAN]}]}]}

    done = bring(store, tmp_path, export)

    assert (done.added, done.bad_rows, done.no_calls) == (1, 1, 0)
    assert done.problems == [f"{tmp_path}/log.jsonl:1: inf is no amount"]


def test_langfuse_counts_cached_tokens_apart_from_the_others(store: Store, tmp_path: Path) -> None:
    usage = {"input": 40, "input_cached_tokens": 60, "output": 8, "output_reasoning_tokens": 2}

    bring(store, tmp_path, {**LANGFUSE, "usageDetails": usage})

    [call] = calls(store)
    assert (call["prompt_tokens"], call["cached_prompt_tokens"]) == (100, 60)
    assert (call["completion_tokens"], call["total_tokens"]) == (10, 110)


def test_documents_are_read_as_well_as_lines(store: Store, tmp_path: Path) -> None:
    done = bring(store, tmp_path, json.dumps({"data": [LANGFUSE]}, indent=2))

    assert done.added == 1


def test_errors_keep_the_kind_that_the_failure_table_has(store: Store, tmp_path: Path) -> None:
    failed = {**LITELLM, "status": "failure", "error_str": "RateLimitError: slow down"}
    strange = {**LITELLM, "id": "x", "status": "failure", "error_str": "????"}

    bring(store, tmp_path, failed, strange)

    assert [(call["status"], call["error_kind"]) for call in calls(store)] == [
        ("error", "rate_limit"), ("error", "server"),
    ]  # fmt: skip


def test_a_cost_that_litellm_could_not_know_is_not_zero(store: Store, tmp_path: Path) -> None:
    unknown = {"response_cost": 0, "response_cost_failure_debug_info": {"error_str": "no price"}}

    done = bring(store, tmp_path, {**LITELLM, **unknown})

    assert (calls(store)[0]["cost_usd"], done.unpriced) == (None, 1)


def test_a_configured_price_prices_what_the_log_does_not(store: Store, tmp_path: Path) -> None:
    model = ModelSettings(name="big", provider="p", id="gpt-4o", price=Price(input=1, output=2))

    bring(store, tmp_path, OTLP, models={"big": model})

    assert calls(store)[0]["cost_usd"] == pytest.approx(28e-6)


def test_spans_that_call_no_model_are_passed_over(store: Store, tmp_path: Path) -> None:
    done = bring(store, tmp_path, LANGFUSE, {**LANGFUSE, "id": "s", "type": "SPAN"})

    assert (done.added, done.no_calls) == (1, 1)


def test_a_file_of_no_known_format_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="Name it with --format"):
        bring(store, tmp_path, {"hello": 1})


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from([
        "resourceSpans", "scopeSpans", "spans", "attributes", "type", "startTime", "traceId", "id",
        "call_type", "model_group", "metadata", "response", "choices", "usage", "trace_id", "ts",
        "feature", "openinference", "span", "kind", "key", "value", "gen_ai.request.model",
    ]), inner, max_size=5),
    max_leaves=20,
))  # fmt: skip
def test_no_row_of_any_shape_breaks_a_reader(row: Any) -> None:
    if not isinstance(row, dict):
        return
    detect(row)
    for format in FORMATS.values():
        try:
            list(format.calls(row))
        except (ValueError, LookupError, TypeError, AttributeError):
            continue


def test_the_command_says_what_came_and_redacts_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evalkit.toml").write_text("", encoding="utf-8")
    secret = {**LANGFUSE, "output": "write to ann.smith@example.com"}
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(secret), encoding="utf-8")

    options = ["--config", str(tmp_path / "evalkit.toml")]
    assert main(["logs", "import", str(path), "--feature", "help", *options]) == 0

    assert "1 calls added" in capsys.readouterr().out
    (call,) = calls(open_store(tmp_path / ".evalkit"))
    assert call["feature"] == "help"
    assert "ann.smith" not in call["output"]


def test_no_text_of_a_call_is_written_where_none_is_to_be(tmp_path: Path) -> None:
    config = tmp_path / "evalkit.toml"
    config.write_text("[retention]\nlog_text = false\n", encoding="utf-8")
    attempt = dict.fromkeys(field.name for field in fields(Attempt)) | {"reply": "secret"}
    said = {"input": "secret", "output": "secret", "attempts": [attempt],
            "tool_calls": [{"id": "1", "name": "mail", "arguments": "secret"}]}  # fmt: skip
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"trace_id": "a", "ts": START, "feature": "f", **said}))

    assert main(["logs", "import", str(path), "--config", str(config)]) == 0

    [call] = calls(open_store(tmp_path / ".evalkit"))
    assert "secret" not in str(call)


def test_where_nothing_could_be_read_the_status_is_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evalkit.toml").write_text("", encoding="utf-8")
    path = tmp_path / "log.jsonl"
    path.write_text("nothing\n", encoding="utf-8")

    options = ["--config", str(tmp_path / "evalkit.toml")]
    assert main(["logs", "import", str(path), *options]) == 2

    assert "log.jsonl:1:" in capsys.readouterr().err
