"""Reads what a sealed run left behind: every answer, with the scores it was given.

For scoring again without calling a model. Files come checked against their checksums;
a few thousand executions are in memory at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from evalkit.records import Attempt, CallRecord, Json, Pair, ToolCall

if TYPE_CHECKING:
    from evalkit.store.views import Store

BATCH = 4096
"""Executions held in memory at once."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One execution of a case in a sealed run, by what it is known by."""

    golden_set: str
    case_id: str
    case_hash: str
    trial: int
    pair: Pair
    trace_id: str | None
    """None where the call is not stored, as for results of another runner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """An execution with its call and the rows of `scores` it was given."""

    execution: Execution
    record: CallRecord
    scores: tuple[Row, ...]
    """As dicts of `Score`'s fields."""


class StoredRun:
    """One sealed run, read from its files. A context manager."""

    def __init__(self, store: Store, run_id: str) -> None:
        """Raises NotComparable when the run is not sealed, DamagedStore when a file differs."""
        from evalkit.store.engine import Engine

        self._engine = Engine()
        self._engine.add_files("scores", store.score_files(run_id))
        self._engine.add_files("calls", store.call_files(run_id))

    def __enter__(self) -> StoredRun:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def executions(self) -> list[Execution]:
        """All of them, in the order they were made."""
        rows = self._engine.rows("""
            SELECT s.golden_set, s.case_id, s.case_hash, s.trial, s.model, s.prompt_name,
                s.prompt_version, min(c.trace_id) AS trace_id
            FROM scores AS s LEFT JOIN calls AS c USING (trace_id)
            GROUP BY ALL ORDER BY trace_id, golden_set, case_id, trial
            """)
        return [
            Execution(
                golden_set=row["golden_set"],
                case_id=row["case_id"],
                case_hash=row["case_hash"],
                trial=row["trial"],
                pair=Pair.of(row),
                trace_id=row["trace_id"],
            )
            for row in rows
        ]

    def metrics(self) -> set[str]:
        """Metrics that have scores, cases' own checks among them."""
        return {row["metric"] for row in self._engine.rows("SELECT DISTINCT metric FROM scores")}

    def inputs(self, trace_ids: Sequence[str]) -> dict[str, Json]:
        """Trace id -> the input that was sent."""
        rows = self._engine.rows(f"SELECT trace_id, input FROM calls WHERE {_AMONG}", [trace_ids])
        return {row["trace_id"]: json.loads(row["input"]) for row in rows}

    def outputs(self) -> dict[str, tuple[str | None, str | None]]:
        """Trace id -> (input as JSON text, output), of calls that went well."""
        rows = self._engine.rows(
            "SELECT trace_id, input, output FROM calls WHERE error_kind IS NULL AND "
            "trace_id IN (SELECT trace_id FROM scores)"
        )
        return {row["trace_id"]: (row["input"], row["output"]) for row in rows}

    def answers(self, executions: Sequence[Execution]) -> Iterator[StoredAnswer]:
        """Each execution with its call, in the order given; each has to have a trace id."""
        for start in range(0, len(executions), BATCH):
            batch = executions[start : start + BATCH]
            trace_ids = [one.trace_id for one in batch]
            calls = {
                row["trace_id"]: row
                for row in self._engine.rows(f"SELECT * FROM calls WHERE {_AMONG}", [trace_ids])
            }
            scores: dict[str, list[Row]] = {}
            for row in self._engine.rows(f"SELECT * FROM scores WHERE {_AMONG}", [trace_ids]):
                scores.setdefault(row["trace_id"], []).append(_score_fields(row))
            for one in batch:
                assert one.trace_id is not None
                yield StoredAnswer(
                    execution=one,
                    record=call_record(calls[one.trace_id]),
                    scores=tuple(scores[one.trace_id]),
                )


_AMONG = "trace_id IN (SELECT unnest(?))"


def call_record(row: Row) -> CallRecord:
    """The record that a row of the view `calls` was made from."""
    return CallRecord(
        **{
            **row,
            "ts": _micros(row["ts"]),
            "params": json.loads(row["params"] or "{}"),
            "input": json.loads(row["input"] or "null"),
            "attempts": tuple(Attempt(**one) for one in row["attempts"] or ()),
            "tool_calls": tuple(ToolCall(**one) for one in row["tool_calls"] or ()),
            "guard_events": tuple(row["guard_events"] or ()),
            "retrieved_ids": tuple(row["retrieved_ids"] or ()),
            "stage_ms": row["stage_ms"] or {},
            "quality": row["quality"] or {},
        }
    )


def _score_fields(row: Row) -> dict[str, Any]:
    return {**row, "created_at": _micros(row["created_at"]), "slices": row["slices"] or {}}


def _micros(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)
