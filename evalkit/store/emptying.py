"""Takes what people said out of Parquet files, a few thousand rows at a time.

Columns are emptied as they are, without a Python object for any row: a day of a million
calls takes seconds and little memory. A file is written whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.store.files import WholeFile, write_whole
from evalkit.store.parquet import parquet_writer
from evalkit.store.schema import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

TEXTS = ("input", "output", "user_feedback")
"""Columns of `calls` that are texts whole; replies and arguments are inside others."""
INSIDE = {"attempts": ("reply", None), "tool_calls": ("arguments", "")}
"""Lists that have a text inside -> its field, and what stands there when it is gone."""
GROUP_ROWS = 16_384

Change = Callable[["pa.Table"], "pa.Table"]


class _Same(Exception):
    """Nothing of a file had to change: it stays as it is."""


def rewrite(
    path: Path, table: str, change: Change, *, to: Path | None = None, only_if: Callable[[], bool]
) -> WholeFile | None:
    """Write `path` anew (or `to`) with every part as `change` leaves it.

    None, and nothing is written, unless `only_if` holds at the end.
    """
    import pyarrow.parquet as pq

    source = pq.ParquetFile(path)
    schema = arrow_schema(table).with_metadata(source.schema_arrow.metadata)
    with suppress(_Same), write_whole(to or path, replace=to is None) as file:
        with parquet_writer(file, schema) as writer:
            for batch in source.iter_batches(batch_size=GROUP_ROWS):
                changed = change(_with_all_columns(batch, schema))
                if changed.num_rows:
                    writer.write_table(changed)
        if not only_if():
            raise _Same
        return file
    return None


def _with_all_columns(batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    """Columns in their order; those that an older file lacks are null."""
    import pyarrow as pa

    have = set(batch.schema.names)
    return pa.table(
        {
            field.name: batch.column(field.name).cast(field.type)
            if field.name in have
            else pa.nulls(batch.num_rows, field.type)
            for field in schema
        },
        schema=schema,
    )


# --- calls ------------------------------------------------------------------------------


def has_texts(calls: pa.Table) -> Any:
    """Which calls still say what anybody said, as a boolean array of numpy."""
    import numpy as np

    found = np.zeros(calls.num_rows, dtype=bool)
    for name in TEXTS:
        found |= _numpy(calls[name].is_valid())
    for name, (field, gone) in INSIDE.items():
        found |= _said_inside(calls[name], field, gone)
    return found


def without_texts(calls: pa.Table, where: Any) -> pa.Table:
    """Calls with what was counted of them; those of `where` without what anybody said."""
    import pyarrow as pa
    import pyarrow.compute as pc

    mask = pa.chunked_array([pa.array(where)])
    for name in TEXTS:
        column = calls[name]
        calls = _set(calls, name, pc.if_else(mask, pa.scalar(None, column.type), column))
    for name, (field, gone) in INSIDE.items():
        column = calls[name].combine_chunks()
        emptied = pc.if_else(pa.array(where), _emptied(column, field, gone), column)
        calls = _set(calls, name, emptied)
    return calls


def without_column(rows: pa.Table, name: str) -> pa.Table:
    """The same rows with nothing in a column."""
    import pyarrow as pa

    return _set(rows, name, pa.nulls(rows.num_rows, rows.schema.field(name).type))


def _set(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)


def _numpy(mask: Any) -> Any:
    return mask.to_numpy(zero_copy_only=False) if hasattr(mask, "to_numpy") else mask


def _said_inside(column: pa.ChunkedArray, field: str, gone: str | None) -> Any:
    import numpy as np
    import pyarrow.compute as pc

    lists = column.combine_chunks()
    found = np.zeros(len(lists), dtype=bool)
    texts = pc.struct_field(lists.flatten(), field)
    said = texts.is_valid() if gone is None else pc.fill_null(pc.not_equal(texts, gone), False)
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    found[parents[said.to_numpy(zero_copy_only=False)]] = True
    return found


def _emptied(lists: pa.ListArray, field: str, gone: str | None) -> pa.ListArray:
    """The lists as they are, with `gone` for every text of the field."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    items = lists.flatten()
    kind = lists.type.value_type
    values = [
        pa.array([gone], kind.field(at).type).take(pa.array(np.zeros(len(items), dtype=np.int64)))
        if kind.field(at).name == field
        else pc.struct_field(items, kind.field(at).name)
        for at in range(kind.num_fields)
    ]
    structs = pa.StructArray.from_arrays(values, fields=list(kind))
    lengths = pc.fill_null(lists.value_lengths(), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    return pa.ListArray.from_arrays(offsets, structs, mask=lists.is_null()).cast(lists.type)
