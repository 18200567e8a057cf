"""Journal lines into Parquet files, a row group at a time.

Memory stays bounded whatever the run's size: some hundred lines are held, then as columns
some thousand rows, then written. (Lines cost ten times their length to read; large row
groups cost little to hold, and make small files that are quick to open.) Pages carry
checksums, and each file's SHA-256 is taken as it is written.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import date, timedelta
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit import json_bytes
from evalkit.errors import StoreError
from evalkit.store.files import explain_os_errors, locked, write_whole
from evalkit.store.parquet import parquet_writer
from evalkit.store.rows import Row, encode_row
from evalkit.store.runs import SplitLine, run_folder
from evalkit.store.schema import arrow_schema, json_schema

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

GROUP_ROWS = 16_384
"""Rows of one file held before they are written as a row group."""
GROUP_BYTES = 1 << 21
"""Bytes held as columns, of scores, and as many of calls, before they are written."""
LOG_GROUP_BYTES = 1 << 23
"""The same of a log of calls, which has nothing else to hold and is read the most."""
LINES_BYTES = 1 << 19
"""Bytes held as lines, of either, before they become columns."""


def seal_journal(
    lines: Iterable[SplitLine], *, store: Path, run_id: str
) -> dict[str, dict[str, Any]]:
    """Write a run's scores and calls; returns file (relative to the store) -> its facts.

    Of several lines with one key the first counts. Files of a seal that was killed are
    written anew: no manifest names them, so nobody has read them.
    """
    scores = f"scores/run={run_id}.parquet"
    # A process that sealed ahead for a run that was killed may need a moment to notice.
    lock_file = run_folder(store, run_id) / "sealing"
    only_one = locked(lock_file, holder=f"run {run_id} is being sealed", wait=True)
    with only_one, _Sinks(store) as sinks:
        _remove_unsealed(store, run_id)
        sinks.open(scores, "scores")
        for line in _first_of_each_key(lines):
            for call in line.calls:
                sinks.open(calls_file(_ts(call), run_id), "calls").add(call)
            for score in line.scores:
                sinks.open(scores, "scores").add(score)
            sinks.bound_memory()
    return sinks.facts


def write_calls(calls: Iterable[Row], *, store: Path, file_id: str) -> list[Path]:
    """Write calls that belong to no run, a file for each day; all of them or none."""
    with _Sinks(store, group_bytes=LOG_GROUP_BYTES) as sinks:
        for call in calls:
            row = encode_row(call, "calls")
            sinks.open(calls_file(call["ts"], file_id), "calls").add(row)
            sinks.bound_memory()
    return [store / name for name in sinks.facts]


def seal_calls(
    rows: Iterable[bytes],
    *,
    store: Path,
    file_id: str,
    on_bad: Callable[[StoreError], None] | None = None,
) -> list[Path]:
    """Write encoded calls, a file for each day; files of a seal that was killed are replaced.

    A row that is no call is left out, and `on_bad` is told; without it nothing is written.
    """
    for path in (store / "calls").glob(f"date=*/{file_id}.parquet"):
        with explain_os_errors(path):
            path.unlink()
    with _Sinks(store, on_bad, group_bytes=LOG_GROUP_BYTES) as sinks:
        for row in rows:
            sinks.open(calls_file(_ts(row), file_id), "calls").add(row)
            sinks.bound_memory()
    return [store / name for name in sinks.facts]


def write_labels(labels: Iterable[Row], *, store: Path, file_id: str) -> Path:
    """Write one file of labels."""
    name = f"labels/{file_id}.parquet"
    with _Sinks(store) as sinks:
        for label in labels:
            sinks.open(name, "labels").add(encode_row(label, "labels"))
            sinks.bound_memory()
    return store / name


def calls_file(ts: int, file_id: str) -> str:
    """The file of a call that started at `ts`: a folder for each day, UTC."""
    return f"calls/date={calls_date(ts)}/{file_id}.parquet"


def calls_date(ts: int) -> str:
    """The date of a time in microseconds since 1970, UTC."""
    return _date(ts // 86_400_000_000)


@lru_cache(maxsize=64)
def _date(day: int) -> str:
    """ISO 8601 date of a number of days since 1970."""
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def _remove_unsealed(store: Path, run_id: str) -> None:
    for path in (
        store / "scores" / f"run={run_id}.parquet",
        *(store / "calls").glob(f"date=*/{run_id}.parquet"),
    ):
        with explain_os_errors(path):
            path.unlink(missing_ok=True)


_TS = re.compile(rb'"ts":(-?\d+)')


def _ts(call: bytes) -> int:
    """When an encoded call started: `ts` is its first number, only ids stand before it."""
    return int(_TS.search(call)[1])  # type: ignore[index]


def _first_of_each_key(lines: Iterable[SplitLine]) -> Iterator[SplitLine]:
    seen: set[bytes] = set()
    for line in lines:
        # 16 bytes for each key, however long the ids are.
        key = blake2b(json_bytes.encode(line.key), digest_size=16).digest()
        if key not in seen:
            seen.add(key)
            yield line


class _Sinks:
    """The files being filled, opened as rows come for them."""

    def __init__(
        self,
        store: Path,
        on_bad: Callable[[StoreError], None] | None = None,
        *,
        group_bytes: int = GROUP_BYTES,
    ) -> None:
        self._store = store
        self._on_bad = on_bad
        self._group_bytes = group_bytes
        self._stack = ExitStack()
        self._sinks: dict[str, _Sink] = {}

    def open(self, name: str, table: str) -> _Sink:
        if name not in self._sinks:
            self._sinks[name] = self._stack.enter_context(
                _Sink(self._store / name, table, self._on_bad)
            )
        return self._sinks[name]

    def bound_memory(self) -> None:
        """Row groups of scores depend on scores alone: equal scores make equal files."""
        of_scores = [sink for sink in self._sinks.values() if sink.table == "scores"]
        others = [sink for sink in self._sinks.values() if sink.table != "scores"]
        for sinks in (of_scores, others):
            if sum(sink.lines_bytes for sink in sinks) > LINES_BYTES:
                for sink in sinks:
                    sink.read_lines()
            if sum(sink.held_bytes for sink in sinks) > self._group_bytes:
                for sink in sinks:
                    sink.flush()

    @property
    def facts(self) -> dict[str, dict[str, Any]]:
        """File -> sha256, size, rows; once the files are there."""
        return {name: sink.facts for name, sink in self._sinks.items()}

    def __enter__(self) -> _Sinks:
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            self._stack.__exit__(*error)
            return
        with self._stack:
            # A row that fits no column ends all files: it has to be met before one appears.
            for sink in self._sinks.values():
                sink.flush()


class _Sink:
    """One Parquet file being filled; it appears when the `with` block ends without an error."""

    def __init__(
        self, path: Path, table: str, on_bad: Callable[[StoreError], None] | None = None
    ) -> None:
        self.facts: dict[str, Any] = {}
        self._on_bad = on_bad
        self.table = table
        self._path = path
        self._rows = Rows(table)
        self._held: list[pa.RecordBatch] = []
        self._n_held = self._n_written = 0
        self.held_bytes = 0

    def __enter__(self) -> _Sink:
        with ExitStack() as stack:
            self._file = stack.enter_context(write_whole(self._path))
            self._writer = stack.enter_context(parquet_writer(self._file, self._rows.schema))
            self._writing = stack.pop_all()
        return self

    @property
    def lines_bytes(self) -> int:
        return self._rows.n_bytes

    def add(self, row: bytes) -> None:
        self._rows.add(row)
        if self._n_held + len(self._rows) >= GROUP_ROWS:
            self.flush()

    def read_lines(self) -> None:
        """Hold as columns what is held as lines."""
        if len(self._rows):
            batch = self._rows.take(on_bad=self._on_bad)
            self._held.append(batch)
            self._n_held += batch.num_rows
            self.held_bytes += batch.nbytes

    def flush(self) -> None:
        """Write what is held as one row group."""
        import pyarrow as pa

        self.read_lines()
        if self._n_held:
            table = pa.Table.from_batches(self._held)
            self._writer.write_table(table, row_group_size=len(table))
            self._n_written += len(table)
        self._held, self._n_held, self.held_bytes = [], 0, 0

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            self._writing.__exit__(*error)
            return
        with self._writing:
            self.flush()
        self.facts = {
            "sha256": self._file.sha256,
            "size": self._file.size,
            "rows": self._n_written,
        }


class Rows:
    """Rows of one table on their way to Arrow, held as JSON lines.

    Arrow's JSON reader makes the columns: `pyarrow.array` of Python values would import
    pandas, 50 MB and a third of a second at the end of every run.
    """

    def __init__(self, table: str) -> None:
        self.schema = arrow_schema(table)
        self.n_bytes = 0
        self._table = table
        self._lines: list[bytes] = []

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, row: bytes) -> None:
        """Hold one encoded row; what it lacks is null, what is no column is dropped."""
        self._lines.append(row)
        self.n_bytes += len(row)

    def take(self, *, on_bad: Callable[[StoreError], None] | None = None) -> pa.RecordBatch:
        """What is held (at least a row), as an Arrow record batch; then nothing is.

        When a value is not of its type: raises StoreError, naming the column, or leaves out
        the rows that it stands in and tells `on_bad` of each.
        """
        lines, self._lines, self.n_bytes = self._lines, [], 0
        try:
            return self._batch(lines)
        except StoreError:
            if on_bad is None:
                raise
        return self._batch([line for line in lines if self._is_good(line, on_bad)])

    def _is_good(self, line: bytes, on_bad: Callable[[StoreError], None]) -> bool:
        try:
            self._batch([line])
        except StoreError as error:
            on_bad(error)
            return False
        return True

    def _batch(self, lines: Sequence[bytes]) -> pa.RecordBatch:
        import pyarrow as pa

        if not lines:
            empty = [pa.nulls(0, field.type) for field in self.schema]
            return pa.RecordBatch.from_arrays(empty, schema=self.schema)
        try:
            table = _read_json(lines, self._table)
        except pa.ArrowException as first:
            try:
                table = _read_json(map(_without_huge_numbers, lines), self._table)
            except pa.ArrowException:
                raise StoreError(f"{self._table}: {first}") from None
            logger.warning("%s: %s; stored as not known", self._table, first)
        arrays = [_as_type(table[field.name].combine_chunks(), field.type) for field in self.schema]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def _read_json(lines: Iterable[bytes], table: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.json as pj

    data = b"\n".join(lines)
    return pj.read_json(
        pa.BufferReader(data),
        read_options=pj.ReadOptions(block_size=len(data) + 1, use_threads=False),
        parse_options=pj.ParseOptions(
            explicit_schema=json_schema(table), unexpected_field_behavior="ignore"
        ),
    )


def _without_huge_numbers(line: bytes) -> bytes:
    """A row whose whole numbers fit 64 bits; a provider may count anything."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, list):
            return [clean(item) for item in value]
        return None if isinstance(value, int) and abs(value) >= 2**63 else value

    return json_bytes.encode(clean(json.loads(line)))


def _as_type(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    """What the JSON reader has no type for: microseconds to times, lists of pairs to maps."""
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    if pa.types.is_map(wanted):
        if array.values.null_count or array.values.field(0).null_count:
            # Arrow would end the process.
            raise StoreError("calls and scores: a map has a pair without a key")
        pairs = pa.StructArray.from_arrays(
            array.values.flatten(), fields=[wanted.key_field, wanted.item_field]
        )
        return pa.Array.from_buffers(wanted, len(array), array.buffers()[:2], children=[pairs])
    return array if array.type == wanted else array.view(wanted)
