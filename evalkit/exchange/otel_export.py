"""What the store has already, to a collector: calls of a window, and the scores of a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from evalkit.exchange.otel import OtelSink
from evalkit.records import CallRecord
from evalkit.score.stored import call_record
from evalkit.store.engine import Engine, rows_of
from evalkit.store.views import Store

if TYPE_CHECKING:
    import pyarrow as pa

PORTION = 500
"""Spans between two flushes: a quarter of what the exporter's queue holds."""


def export_calls(store: Store, sink: OtelSink, *, since: int, until: int) -> int:
    """Send production's calls of since <= ts < until (microseconds); how many there were."""
    sent = held = 0
    with store.production(since=since, until=until) as engine:
        query = "SELECT * FROM calls WHERE epoch_us(ts) >= $1 AND epoch_us(ts) < $2"
        for call in _calls(engine.batches(query, [since, until])):
            spans = 1 + len(call.attempts)
            if held + spans > PORTION:
                sink.flush()
                held = 0
            sink(call)
            sent, held = sent + 1, held + spans
    sink.flush()
    return sent


def _calls(batches: Iterable[pa.RecordBatch]) -> Iterator[CallRecord]:
    for batch in batches:
        for start in range(0, len(batch), PORTION):
            yield from map(call_record, rows_of(batch.slice(start, PORTION)))


def export_scores(store: Store, sink: OtelSink, run_id: str) -> int:
    """Send a sealed run's scores as evaluation events; how many there were.

    Raises NotComparable when the run is not sealed, DamagedStore when a file differs.
    """
    with Engine() as engine:
        engine.add_files("scores", store.score_files(run_id))
        scores = iter(engine.rows("SELECT * FROM scores WHERE trace_id IS NOT NULL"))
    sent = 0
    while portion := list[Mapping[str, Any]](islice(scores, PORTION)):
        for score in portion:
            sink.evaluation(score)
        sink.flush()
        sent += len(portion)
    return sent
