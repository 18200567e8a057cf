"""One in-memory DuckDB behind one helper: every query is run and read to its end here.

(A result of DuckDB 2.0 that nobody has read blocks its connection.) The engine reads
the files it was given by name, never a pattern, and nothing else on the machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from evalkit.errors import StoreError
from evalkit.store.schema import TABLES, arrow_schema, column_names

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    import pyarrow.dataset as ds

MEMORY_LIMIT = "2GB"
MAX_THREADS = 8
BATCH_ROWS = 122_880
"""Rows of a portion, roughly, where a result is read in portions."""

Params = Sequence[Any] | Mapping[str, Any]


class Engine:
    """A DuckDB connection with views over given files and tables; a context manager.

    Views may be added at any time; the connection is made, with access to their files
    alone, when the next query needs it. (A new file needs a new connection: what queries
    made in the old one is gone.) Parameters are `$1` or `$name`.
    """

    def __init__(self) -> None:
        self._files: dict[str, list[Path]] = {}
        self._tables: dict[str, pa.Table] = {}
        self._datasets: dict[str, list[ds.Dataset]] = {}
        self._connection: duckdb.DuckDBPyConnection | None = None

    def add_files(self, view: str, files: Sequence[Path]) -> None:
        """Make `view` of these Parquet files; a view of the store has all its columns."""
        self.close()
        self._files[view] = [Path(file).absolute() for file in files]

    def add_datasets(self, view: str, datasets: Sequence[ds.Dataset]) -> None:
        """Let `view`, which has been made of files, have the rows of these, too."""
        self.close()
        self._datasets[view] = list(datasets)

    def add_table(self, view: str, table: pa.Table) -> None:
        """Make `view` of an Arrow table; one that has this name already is replaced."""
        self._tables[view] = table
        if self._connection is not None:
            self._connection.register(view, table)

    def drop_table(self, view: str) -> None:
        """Let go of an Arrow table and its memory."""
        self._tables.pop(view, None)
        if self._connection is not None:
            self._connection.unregister(view)

    def is_filled(self, view: str, column: str) -> bool:
        """Whether no row of a view lacks this column, as far as that is known without reading it.

        Footers count a column's nulls; what lies elsewhere is not asked.
        """
        import pyarrow as pa

        table = self._tables.get(view)
        if self._datasets.get(view) or (table is not None and table[column].null_count):
            return False
        try:
            return all(_is_filled(path, column) for path in self._files.get(view, ()))
        except (OSError, pa.ArrowException):
            return False  # a query will say what is wrong with it

    def rows(self, sql: str, params: Params = ()) -> list[dict[str, Any]]:
        """Rows as dicts; maps are dicts, times are aware datetimes in UTC."""
        return self.names_and_rows(sql, params)[1]

    def names_and_rows(
        self, sql: str, params: Params = ()
    ) -> tuple[list[str], list[dict[str, Any]]]:
        """As `rows`, with the columns' names also where there is no row."""
        table = self.arrow(sql, params)
        return list(table.column_names), rows_of(table)

    def columns(self, sql: str, params: Params = ()) -> dict[str, Any]:
        """Columns, distinctly named, as numpy arrays: NaN for a null number, None for other nulls.

        From the engine directly: Arrow's way to numpy imports pandas.
        """
        import duckdb

        relation = self._relation(sql, params)
        try:
            return {name: _unmasked(values) for name, values in relation.fetchnumpy().items()}
        except (duckdb.Error, RuntimeError) as error:
            raise _refused(error) from None

    def arrow(self, sql: str, params: Params = ()) -> pa.Table:
        """The whole result as an Arrow table; one without columns for what is no query.

        Raises StoreError with the engine's own words when it refuses.
        """
        import duckdb
        import pyarrow as pa

        relation = self._relation(sql, params)
        if relation is None:
            return pa.table({})
        try:
            table = relation.to_arrow_table()
        except (duckdb.Error, RuntimeError) as error:
            raise _refused(error) from None
        return table.rename_columns(_distinct(table.column_names))

    def batches(self, sql: str, params: Params = ()) -> Iterator[pa.RecordBatch]:
        """The result in portions, for more rows than are to be in memory.

        To be read to its end before the next query: what is unread blocks the connection.
        """
        import duckdb

        try:
            with self._relation(sql, params).to_arrow_reader(BATCH_ROWS) as reader:
                yield from _joined(reader)
        except (duckdb.Error, RuntimeError) as error:
            raise _refused(error) from None

    def _relation(self, sql: str, params: Params) -> Any:
        """The statement, run or ready to be read; None for what is no query."""
        import duckdb

        connection = self._connect()
        values = dict(params) if isinstance(params, Mapping) else list(params)
        try:
            return connection.sql(sql, params=values or None)
        except (duckdb.Error, RuntimeError) as error:
            raise _refused(error) from None

    def interrupt(self) -> None:
        """End the query that another thread is running, if it is; there it is KeyboardInterrupt."""
        if self._connection is not None:
            self._connection.interrupt()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            import duckdb

            self._connection = connection = duckdb.connect(
                ":memory:",
                config={
                    "autoinstall_known_extensions": "false",
                    "autoload_known_extensions": "false",
                    "memory_limit": MEMORY_LIMIT,
                    # Else `FROM name` would read a variable of the Python code that asks.
                    "python_enable_replacements": "false",
                    "temp_directory": "",
                    "threads": str(min(MAX_THREADS, os.cpu_count() or 1)),
                },
            )
            try:
                self._make_views(connection)
                self._lock_down(connection)
            except duckdb.Error as error:
                self.close()
                raise StoreError(str(error)) from None
        return self._connection

    def _make_views(self, connection: duckdb.DuckDBPyConnection) -> None:
        import pyarrow as pa

        # Else view, statement and scan each read the footers of all files again.
        _run(connection, "SET parquet_metadata_cache = true")
        for view, table in self._tables.items():
            connection.register(f"_also_{view}" if view in self._files else view, table)
        for view, files in self._files.items():
            sources = [_read_parquet(files)] if files else []
            if view in self._tables:
                sources.append(f"SELECT * FROM _also_{view}")
            for number, dataset in enumerate(self._datasets.get(view, ())):
                connection.register(f"_far_{view}_{number}", dataset)
                sources.append(f"SELECT * FROM _far_{view}_{number}")
            if view in TABLES:
                # The empty table gives each column its type, also where old files lack it.
                nothing = pa.Table.from_batches([], schema=arrow_schema(view))
                connection.register(f"_no_{view}", nothing)
                sources.insert(0, f"SELECT * FROM _no_{view}")
            if not sources:
                raise StoreError(f"no file for {view}")
            columns = ", ".join(map(_quoted, column_names(view))) if view in TABLES else "*"
            union = " UNION ALL BY NAME ".join(sources)
            _run(connection, f"CREATE VIEW {_quoted(view)} AS SELECT {columns} FROM ({union})")

    def _lock_down(self, connection: duckdb.DuckDBPyConnection) -> None:
        files = {path for files in self._files.values() for path in files}
        paths = ", ".join(map(_literal, sorted(files | set(map(_as_pattern, files)))))
        _run(connection, "SET TimeZone = 'UTC'")
        # Else a query of two seconds draws a bar into what a command prints as JSON.
        _run(connection, "SET enable_progress_bar = false")
        # Else its threads wait while Python works on a portion of a result.
        _run(connection, "SET streaming_buffer_size = '64MB'")
        _run(connection, f"SET allowed_paths = [{paths}]")
        _run(connection, "SET enable_external_access = false")
        _run(connection, "SET lock_configuration = true")


def _is_filled(path: Path, column: str) -> bool:
    """Whether a file's footer says that its column has no null."""
    import pyarrow.parquet as pq

    footer = pq.read_metadata(path)
    paths = [footer.schema.column(number).path for number in range(footer.num_columns)]
    if column not in paths:
        return False
    at = paths.index(column)
    counts = (footer.row_group(n).column(at).statistics for n in range(footer.num_row_groups))
    return all(one is not None and one.has_null_count and not one.null_count for one in counts)


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """A few large portions of many small ones: files hand out a row group at a time."""
    import pyarrow as pa

    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= BATCH_ROWS:
            yield pa.concat_batches(held)
            held = []
    if held:
        yield pa.concat_batches(held)


def refuse_all_but_one_select(sql: str) -> None:
    """Raise StoreError unless `sql` is a single statement that only reads."""
    import duckdb

    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise StoreError(str(error)) from None
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        kinds = ", ".join(statement.type.name for statement in statements) or "nothing"
        raise StoreError(f"one SELECT is what can be asked, this is: {kinds}.")


def _run(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    connection.execute(sql).fetchall()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"


def _read_parquet(files: Sequence[Path]) -> str:
    listed = ", ".join(_literal(_as_pattern(file)) for file in files)
    return (
        f"SELECT * FROM read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"
    )


def _as_pattern(file: Path) -> Path:
    """What matches this file alone: to the engine every name is a pattern."""
    return Path(re.sub(r"[\[*?]", r"[\g<0>]", str(file)))


def _distinct(names: Sequence[str]) -> list[str]:
    """Names with `_2`, `_3` behind what comes again, so that no column hides another."""
    seen: set[str] = set()
    result = []
    for name in names:
        unique, number = name, 2
        while unique in seen:
            unique, number = f"{name}_{number}", number + 1
        seen.add(unique)
        result.append(unique)
    return result


# --- Arrow to Python ---------------------------------------------------------------


def rows_of(table: pa.Table | pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows as dicts; maps are dicts, times are aware datetimes in UTC."""
    import pyarrow as pa

    whole = table if isinstance(table, pa.Table) else pa.Table.from_batches([table])
    columns = [_python_values(column) for column in whole.columns]
    names = list(whole.column_names)
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _python_values(column: pa.ChunkedArray) -> list[Any]:
    """A column as Python values."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        # Through naive times: a slim system may have no time zone database for "UTC".
        naive = pa.timestamp(kind.unit)
        values = [value for chunk in column.chunks for value in _listed(chunk.view(naive))]
        return [None if value is None else value.replace(tzinfo=UTC) for value in values]
    values = [value for chunk in column.chunks for value in _listed(chunk)]
    # A list, say, is no key of a dict: such a map stays the pairs that it is.
    if pa.types.is_map(kind) and not pa.types.is_nested(kind.key_type):
        return [None if value is None else dict(value) for value in values]
    if pa.types.is_decimal(kind):
        number: Callable[[Any], Any] = int if kind.scale == 0 else float
        return [None if value is None else number(value) for value in values]
    return values


def _listed(values: pa.Array) -> list[Any]:
    """Python values; None for one with a time that no calendar of Python's has.

    It must not hide the others.
    """
    try:
        return list(values.to_pylist())
    except (OverflowError, ValueError):
        return [_known(one) for one in values]


def _known(value: pa.Scalar) -> Any:
    try:
        return value.as_py()
    except (OverflowError, ValueError):
        return None


def _unmasked(values: Any) -> Any:
    """An array as it is, or with NaN (numbers) or None (the rest) where it is masked."""
    import numpy as np

    if not isinstance(values, np.ma.MaskedArray):
        return values
    is_number = values.dtype.kind in "iuf"
    null: Any = np.nan if is_number else None
    plain = np.ma.getdata(values).astype(np.float64 if is_number else np.object_)
    plain[np.ma.getmaskarray(values)] = null
    return plain


def _refused(error: Exception) -> BaseException:
    """The engine's words as an error of the store; an interrupted query is Ctrl-C."""
    import duckdb

    if isinstance(error, duckdb.InterruptException) or str(error) == "Query interrupted":
        return KeyboardInterrupt()
    return StoreError(str(error)) if isinstance(error, duckdb.Error) else error
