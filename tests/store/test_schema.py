"""The columns: the contract's names and order, and the page made from them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from evalkit.records import Attempt, CallRecord, Score, ToolCall
from evalkit.store.schema import STRUCTS, TABLES, arrow_schema, column_names, column_tables
from evalkit.store.views import open_store

PAGE = Path(__file__).resolve().parents[2] / "docs" / "store.md"

SCORES = """run_id, golden_set, golden_set_hash, case_id, case_hash, cluster, trial, model,
served_model, prompt_name, prompt_version, prompt_hash, metric, tier, score, passed, outcome,
error_kind, reason, scorer, scorer_version, slices, inclusion_prob, trace_id, latency_ms, ttft_ms,
cost_usd, created_at"""

CALLS = """trace_id, user_id, feature, model, prompt_tokens, completion_tokens, total_tokens,
latency_ms, ttft_ms, cost_usd, cache_hit, tool_calls, user_feedback, ts, tenant, session_id, task,
provider, served_model, prompt_name, prompt_version, prompt_hash, params, flag_variant, status,
error_kind, finish_reason, cache_kind, cached_prompt_tokens, attempts, retries, resumed, escalated,
confidence, repaired, schema_ok, guard_events, retrieved_ids, route_reason, stage_ms, quality,
redactions, input, output"""

LABELS = """label_id, trace_id, run_id, golden_set, case_id, case_hash, trial, model, prompt_name,
prompt_version, metric, score, passed, annotator, comment, inclusion_prob, labelled_at,
supersedes"""


def names(text: str) -> list[str]:
    return text.replace("\n", " ").replace(" ", "").split(",")


@pytest.mark.parametrize(
    ("view", "promised"), [("scores", SCORES), ("calls", CALLS), ("labels", LABELS)]
)
def test_a_view_has_exactly_the_promised_columns_in_order(
    view: str, promised: str, tmp_path: Path
) -> None:
    described = open_store(tmp_path).sql(f"DESCRIBE {view}")

    assert [row["column_name"] for row in described] == names(promised)


@pytest.mark.parametrize("view", list(TABLES))
def test_an_empty_store_has_every_view_with_its_types(view: str, tmp_path: Path) -> None:
    store = open_store(tmp_path / "nothing-here")

    assert store.sql(f"FROM {view}") == []
    types = [row["column_type"] for row in store.sql(f"DESCRIBE {view}")]
    assert "NULL" not in types
    assert len(types) == len(arrow_schema(view))


@pytest.mark.parametrize(
    ("record", "columns"),
    [
        (Score, column_names("scores")),
        (CallRecord, column_names("calls")),
        (Attempt, [name for name, _ in STRUCTS["attempts"]]),
        (ToolCall, [name for name, _ in STRUCTS["tool calls"]]),
    ],
)
def test_every_field_of_a_record_has_a_column(record: type, columns: list[str]) -> None:
    assert {field.name for field in fields(record)} == set(columns)


def test_the_page_shows_the_columns_as_they_are() -> None:
    page = PAGE.read_text(encoding="utf-8")

    _, _, tables = page.partition("## Columns\n")

    assert column_tables() in tables, "write it anew: python -m evalkit.store.schema docs/store.md"
