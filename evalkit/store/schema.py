"""The columns of the store: one table per view, every column with its type and meaning.

Parquet files, DuckDB views and the documentation page are made from it; nothing else
says what a column is called. `SCHEMA_VERSION` stands in the manifest of every run:

    1   first version
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 1

Kind = Literal[
    "text",
    "int",
    "float",
    "bool",
    "time",
    "json",
    "texts",
    "text map",
    "int map",
    "float map",
    "attempts",
    "tool calls",
]
"""text: UTF-8. time: microseconds, UTC. json: JSON text. texts: list of text.
A map goes from text to the type it names; attempts and tool calls are lists of structs."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, its type, what it says."""

    name: str
    kind: Kind
    meaning: str


RUNS = (
    Column("run_id", "text", "Time-ordered and random."),
    Column("status", "text", "running, complete or incomplete."),
    Column("created_at", "time", "When the run was started."),
    Column("sealed_at", "time", "When its files were sealed; null while it runs."),
    Column("golden_sets", "texts", "Names of the golden sets it covers."),
    Column("golden_set_hashes", "text map", "Golden set to the hash of all its cases."),
    Column("pairs", "texts", "MODEL/PROMPT@VERSION, one per pair."),
    Column("prompts", "text map", "PROMPT@VERSION to the hash of the prompt's text."),
    Column("git_commit", "text", "Commit of the working tree; null outside a repository."),
    Column("git_branch", "text", "Branch of the working tree."),
    Column("git_dirty", "bool", "Whether tracked files differed from the commit."),
    Column("versions", "text map", "evalkit, Python and what else decides a result."),
    Column("seed", "int", "Seed of the draw and of the model; null when none was given."),
    Column("planned", "int", "(case, pair, trial) units the run set out to do."),
    Column("counts", "int map", "Outcome to number of units, as of sealing."),
    Column("files", "texts", "Sealed files, relative to the store."),
    Column("schema_version", "int", "Version of these columns the run was written with."),
)

SCORES = (
    Column("run_id", "text", "The run that made the score."),
    Column("golden_set", "text", "Name of the golden set."),
    Column("golden_set_hash", "text", "Hash of all its cases."),
    Column("case_id", "text", "The case, by its id in the golden set."),
    Column("case_hash", "text", "Hash of input, expected and checks; runs pair on it."),
    Column("cluster", "text", "Cases of one cluster are not independent; null: its own."),
    Column("trial", "int", "Which execution of the case, from 0."),
    Column("model", "text", "Requested model, by its name in the configuration."),
    Column("served_model", "text", "Model that answered; null when none did."),
    Column("prompt_name", "text", "Name of the prompt."),
    Column("prompt_version", "text", "Version of the prompt."),
    Column("prompt_hash", "text", "Hash of the prompt's text."),
    Column("metric", "text", "Name of the metric in the golden set."),
    Column("tier", "int", "1 check, 2 judge, 3 human."),
    Column("score", "float", "0..1; null unless outcome is scored or product_failure."),
    Column("passed", "bool", "Whether the score meets the metric's own bar; null: no score."),
    Column(
        "outcome",
        "text",
        "scored, product_failure, infra_error, judge_error, check_error, budget_stop, cancelled.",
    ),
    Column("error_kind", "text", "Row of the failure table; null when nothing failed."),
    Column("reason", "text", "What the scorer said, for people."),
    Column("scorer", "text", "Check type, judge or annotator."),
    Column("scorer_version", "text", "Scores of different versions are never compared."),
    Column("slices", "text map", "Metadata key to value, for the golden set's slices."),
    Column("inclusion_prob", "float", "Chance of having been drawn; null: not a sample."),
    Column("trace_id", "text", "The call that was scored."),
    Column("latency_ms", "float", "Latency of that call, all attempts and waits included."),
    Column("ttft_ms", "float", "Time to its first token; null when it was not streamed."),
    Column("cost_usd", "float", "Its cost; null when a price is not known."),
    Column("created_at", "time", "When the score was made."),
)

CALLS = (
    Column("trace_id", "text", "Id of the call, time-ordered and random."),
    Column("user_id", "text", "As given by the caller."),
    Column("feature", "text", "The feature that was called."),
    Column("model", "text", "Requested model, by its name in the configuration."),
    Column("prompt_tokens", "int", "Tokens of the prompt, cached ones included."),
    Column("completion_tokens", "int", "Tokens of the answer."),
    Column("total_tokens", "int", "Sum of the two."),
    Column("latency_ms", "float", "All attempts and waits included."),
    Column("ttft_ms", "float", "Time to the first token; null when not streamed."),
    Column("cost_usd", "float", "All attempts; null when a price is not known."),
    Column("cache_hit", "bool", "Whether a cache gave the answer."),
    Column("tool_calls", "tool calls", "Tool calls the model asked for."),
    Column("user_feedback", "text", "What the user said of the answer."),
    Column("ts", "time", "When the call was started."),
    Column("tenant", "text", "As given by the caller."),
    Column("session_id", "text", "As given by the caller."),
    Column("task", "text", "The feature's kind of task."),
    Column("provider", "text", "Provider that answered."),
    Column("served_model", "text", "Model that answered; null when none did."),
    Column("prompt_name", "text", "Name of the prompt."),
    Column("prompt_version", "text", "Version of the prompt."),
    Column("prompt_hash", "text", "Hash of the prompt's text."),
    Column("params", "json", "Sampling parameters sent."),
    Column("flag_variant", "text", "Variant of the feature's flag."),
    Column("status", "text", "ok, degraded, refused, error, pending_review."),
    Column("error_kind", "text", "Row of the failure table; null when nothing failed."),
    Column("finish_reason", "text", "stop, length, content_filter, tool_calls."),
    Column("cache_kind", "text", "Which cache answered; null: none."),
    Column("cached_prompt_tokens", "int", "Prompt tokens the provider had cached."),
    Column("attempts", "attempts", "Every request made, in order."),
    Column("retries", "int", "Attempts beyond the first, same model."),
    Column("resumed", "int", "How often a cut stream was resumed."),
    Column("escalated", "bool", "Whether a stronger model was asked."),
    Column("confidence", "float", "0..1 where the wire gives one."),
    Column("repaired", "bool", "Whether an invalid answer was repaired."),
    Column("schema_ok", "bool", "Whether the answer fits its schema; null: has none."),
    Column("guard_events", "texts", "What the guards saw."),
    Column("retrieved_ids", "texts", "Ids of the documents given to the model."),
    Column("route_reason", "text", "Why this model."),
    Column("stage_ms", "float map", "Stage to milliseconds."),
    Column("quality", "float map", "Metric to score in a run; production's are in scores."),
    Column("redactions", "int", "Places redacted before anything was written."),
    Column("input", "json", "The feature's input."),
    Column("output", "text", "The answer; null when there is none."),
)

LABELS = (
    Column("label_id", "text", "Id of the label."),
    Column("trace_id", "text", "The call that was labelled."),
    Column("run_id", "text", "Its run; null for a production call."),
    Column("golden_set", "text", "Its golden set; null for a production call."),
    Column("case_id", "text", "Its case."),
    Column("case_hash", "text", "Hash of the case."),
    Column("trial", "int", "Its trial."),
    Column("model", "text", "Model that was asked."),
    Column("prompt_name", "text", "Name of the prompt."),
    Column("prompt_version", "text", "Version of the prompt."),
    Column("metric", "text", "What was asked of the annotator."),
    Column("score", "float", "0..1; null when the annotator could not tell."),
    Column("passed", "bool", "Whether the annotator accepts the answer."),
    Column("annotator", "text", "Who labelled."),
    Column("comment", "text", "The annotator's words."),
    Column("inclusion_prob", "float", "Chance of having been drawn for labelling."),
    Column("labelled_at", "time", "When."),
    Column("supersedes", "text", "label_id this one replaces."),
)

FEEDBACK = (
    Column("feedback_id", "text", "Id of what was said."),
    Column("trace_id", "text", "The call it is about."),
    Column("score", "float", "0..1; null when the user gave none."),
    Column("label", "text", "A word such as up or down."),
    Column("comment", "text", "The user's words, without personal data."),
    Column("user_id", "text", "Who said it, as given by the caller."),
    Column("given_at", "time", "When."),
)

VERDICTS = (
    Column("verdict_id", "text", "Id of the verdict; one row for each of its comparisons."),
    Column("created_at", "time", "When it was decided."),
    Column("verdict", "text", "pass, regression, inconclusive, unmeasurable: of the whole."),
    Column("alpha", "float", "Error rate the gate keeps."),
    Column("correction", "text", "How several comparisons share it."),
    Column("golden_set", "text", "Of the comparison; null when there was none."),
    Column("metric", "text", "Of the comparison."),
    Column("tier", "int", "Of the comparison."),
    Column("slice", "text", "key=value; null: all cases."),
    Column("baseline_run_id", "text", "Run compared with."),
    Column("baseline_model", "text", "Its model."),
    Column("baseline_prompt_version", "text", "Its prompt version."),
    Column("candidate_run_id", "text", "Run under test."),
    Column("candidate_model", "text", "Its model."),
    Column("candidate_prompt_version", "text", "Its prompt version."),
    Column("n", "int", "Cases scored on both sides."),
    Column("n_clusters", "int", "Independent clusters among them."),
    Column("baseline_mean", "float", "Mean score, 0..1."),
    Column("candidate_mean", "float", "Mean score, 0..1."),
    Column("delta", "float", "Candidate minus baseline."),
    Column("ci_low", "float", "Lower end of the interval of delta."),
    Column("ci_high", "float", "Upper end of the interval of delta."),
    Column("p_value", "float", "One-sided, for a drop."),
    Column("p_adjusted", "float", "After the correction."),
    Column("method", "text", "The test."),
    Column("comparison_verdict", "text", "Of this comparison alone."),
    Column("mde", "float", "Smallest drop that would have been seen."),
)

TABLES: dict[str, tuple[Column, ...]] = {
    "runs": RUNS,
    "calls": CALLS,
    "scores": SCORES,
    "labels": LABELS,
    "feedback": FEEDBACK,
    "verdicts": VERDICTS,
}
"""View -> its columns, in order."""

STRUCTS: dict[str, tuple[tuple[str, Kind], ...]] = {
    "attempts": (
        ("provider", "text"),
        ("model", "text"),
        ("served_model", "text"),
        ("error_kind", "text"),
        ("finish_reason", "text"),
        ("latency_ms", "float"),
        ("ttft_ms", "float"),
        ("wait_ms", "float"),
        ("prompt_tokens", "int"),
        ("completion_tokens", "int"),
        ("cached_prompt_tokens", "int"),
        ("cost_usd", "float"),
        ("max_tokens", "int"),
        ("reply", "text"),
    ),
    "tool calls": (("id", "text"), ("name", "text"), ("arguments", "text")),
}
"""Kind of a list of structs -> the struct's fields."""


def column_names(table: str) -> list[str]:
    return [column.name for column in TABLES[table]]


@cache
def arrow_schema(table: str) -> pa.Schema:
    """The Arrow schema of one of `TABLES`, as its Parquet files have it."""
    import pyarrow as pa

    return pa.schema([(column.name, _arrow_type(column.kind)) for column in TABLES[table]])


@cache
def json_schema(table: str) -> pa.Schema:
    """The same as Arrow's JSON reader takes it: times as integers, maps as lists of pairs."""
    import pyarrow as pa

    def readable(kind: Kind) -> Any:
        if kind == "time":
            return pa.int64()
        wanted = _arrow_type(kind)
        if not pa.types.is_map(wanted):
            return wanted
        return pa.list_(pa.struct([("key", wanted.key_type), ("value", wanted.item_type)]))

    return pa.schema([(column.name, readable(column.kind)) for column in TABLES[table]])


def _arrow_type(kind: Kind) -> pa.DataType:
    import pyarrow as pa

    if kind in STRUCTS:
        return pa.list_(pa.struct([(name, _arrow_type(of)) for name, of in STRUCTS[kind]]))
    return {
        "text": pa.string(),
        "int": pa.int64(),
        "float": pa.float64(),
        "bool": pa.bool_(),
        "time": pa.timestamp("us", tz="UTC"),
        "json": pa.string(),
        "texts": pa.list_(pa.string()),
        "text map": pa.map_(pa.string(), pa.string()),
        "int map": pa.map_(pa.string(), pa.int64()),
        "float map": pa.map_(pa.string(), pa.float64()),
    }[kind]


# --- the documentation page --------------------------------------------------------


def column_tables() -> str:
    """The tables of docs/store.md, as Markdown."""
    tables = {
        f"`{name}`": [(column.name, column.kind, column.meaning) for column in columns]
        for name, columns in TABLES.items()
    }
    parts = [_markdown(title, rows) for title, rows in tables.items()]
    for kind, struct in STRUCTS.items():
        listed = ", ".join(f"`{name}` ({of})" for name, of in struct)
        parts.append(f"Fields of one of `{kind}`: {listed}.\n")
    return "\n".join(parts)


def _markdown(title: str, rows: list[tuple[str, Kind, str]]) -> str:
    lines = [f"### {title}\n", "| column | type | meaning |", "| --- | --- | --- |"]
    lines += [f"| `{name}` | {kind} | {meaning} |" for name, kind, meaning in rows]
    return "\n".join(lines) + "\n"


def write_page(path: Path) -> None:
    """Bring the tables of the page up to date: all from its first table on."""
    text = path.read_text(encoding="utf-8")
    before, _, _ = text.partition("### `")
    path.write_text(before + column_tables(), encoding="utf-8")


if __name__ == "__main__":
    write_page(Path(sys.argv[1]))
