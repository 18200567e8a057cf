"""Joins a day's small files of calls into few large ones, without readers noticing.

A new file says in its footer which files it stands for; from the instant it appears,
readers pass those over. They are removed a day later, when no query reads them any more.
Killed at any point, nothing is lost and nothing is there twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.errors import StoreError
from evalkit.ids import new_id
from evalkit.store.files import explain_os_errors, locked, remove, sweep, write_whole
from evalkit.store.parquet import parquet_writer, verify_parquet
from evalkit.store.schema import arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa

    from evalkit.store.views import Store

PREFIX = "compact-"
SMALL_BYTES = 32 << 20
"""Files from this size on stay as they are."""
MAX_BYTES = 128 << 20
"""What is joined into one file, at most."""
GROUP_ROWS = 16_384
KEEP_S = 86_400.0
_REPLACES = b"evalkit.replaces"


@dataclass(slots=True, kw_only=True)
class Compacted:
    """What a compaction did."""

    joined: int = 0
    """Small files that larger ones stand for now."""
    written: int = 0
    calls: int = 0
    """Calls in what was written."""
    removed: int = 0
    """Files that were joined before, and that no query reads any more."""

    def as_json(self) -> dict[str, int]:
        return asdict(self)


def compact(store: Store, *, keep_s: float = KEEP_S) -> Compacted:
    """Join what is small, day by day; then remove what was joined `keep_s` ago or earlier.

    Raises StoreError when another process compacts or purges.
    """
    done = Compacted()
    if not (store.path / "calls").is_dir():
        return done
    with changing_calls(store.path):
        sweep(store.path)
        days, _ = store.production_parts()
        for files in days.values():
            for group in _groups(store.readable(files)):
                _join_carefully(group, store, done)
        done.removed = drop_replaced(store.path, keep_s=keep_s)
    return done


def changing_calls(store: Path) -> AbstractContextManager[None]:
    """The lock of whoever rewrites files of calls: who joins must not read what is purged."""
    return locked(store / "calls" / "rewrite.lock", holder="files of calls are being rewritten")


def _groups(files: Iterable[Path]) -> Iterator[list[Path]]:
    """Small files, as many together as one file may hold; at least two."""
    group: list[Path] = []
    size = 0
    for path in sorted(files):
        bytes_of = path.stat().st_size
        if bytes_of >= SMALL_BYTES:
            continue
        if group and size + bytes_of > MAX_BYTES:
            yield group
            group, size = [], 0
        group.append(path)
        size += bytes_of
    if len(group) > 1:
        yield group


def _join_carefully(files: list[Path], store: Store, done: Compacted) -> None:
    """What is damaged stays as it is, and is named."""
    import pyarrow as pa

    try:
        _join(files, done)
    except (pa.ArrowException, OSError, StoreError) as error:
        store.problems.append(f"{files[0].parent}: not compacted: {error}")


def _join(files: list[Path], done: Compacted) -> None:
    import pyarrow.parquet as pq

    # Those that a joined file stands for are passed over for its sake: not without it.
    names = sorted({name for path in files for name in (path.stem, *replaced_by(path))})
    schema = arrow_schema("calls").with_metadata({_REPLACES: json.dumps(names).encode()})
    expected = sum(pq.read_metadata(path).num_rows for path in files)
    rows = 0
    for path in files:
        verify_parquet(path)
    with write_whole(files[0].with_name(f"{PREFIX}{new_id()}.parquet")) as file:
        with parquet_writer(file, schema) as writer:
            for table in _tables(files):
                writer.write_table(table.cast(schema), row_group_size=GROUP_ROWS)
                rows += len(table)
        if rows != expected:
            raise StoreError(f"{files[0].parent}: {rows} calls of {expected} were read.")
    done.joined += len(files)
    done.written += 1
    done.calls += rows


def _tables(files: Iterable[Path]) -> Iterator[pa.Table]:
    """All rows, a row group's worth at a time, with all columns also where old files lack some."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = arrow_schema("calls")
    held: list[pa.Table] = []
    for path in files:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(GROUP_ROWS):
                part = pa.Table.from_batches([batch]).replace_schema_metadata(None)
                held.append(
                    pa.concat_tables([schema.empty_table(), part], promote_options="default")
                )
                if sum(map(len, held)) >= GROUP_ROWS:
                    yield pa.concat_tables(held).select(schema.names)
                    held = []
    if held:
        yield pa.concat_tables(held).select(schema.names)


# --- what is passed over -----------------------------------------------------------------


def without_replaced(files: Iterable[Path]) -> list[Path]:
    """Files of calls, but for those that another one stands for."""
    files = list(files)
    gone = {
        (path.parent, name)
        for path in files
        if path.stem.startswith(PREFIX)
        for name in replaced_by(path)
    }
    return [path for path in files if (path.parent, path.stem) not in gone]


def replaced_by(path: Path) -> tuple[str, ...]:
    """Names of the files, in its folder, that `path` stands for."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return ()
    return _replaced_by(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=100_000)
def _replaced_by(path: Path, mtime_ns: int, size: int) -> tuple[str, ...]:
    import pyarrow as pa

    try:
        return replaced_in(path)
    except (pa.ArrowException, OSError):
        return ()  # a damaged file: named by whoever reads it, and it stands for nothing


def replaced_in(file: Any) -> tuple[str, ...]:
    """What the footer of a file says (by its path, or open)."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(file).metadata or {}
    return tuple(json.loads(metadata.get(_REPLACES, b"[]")))


def is_replaced(store: Path, name: str) -> bool:
    """Whether a file of calls of this name has been joined into another."""
    joined = (store / "calls").glob(f"date=*/{PREFIX}*.parquet")
    return any(name in replaced_by(path) for path in joined)


def drop_replaced(store: Path, *, keep_s: float = 0.0) -> int:
    """Remove files that others have stood for, for so long; returns how many."""
    removed = 0
    for path in sorted((store / "calls").glob(f"date=*/{PREFIX}*.parquet")):
        with explain_os_errors(path):
            if time.time() - path.stat().st_mtime < keep_s:
                continue
            for name in replaced_by(path):
                removed += remove(path.with_name(f"{name}.parquet"))
    return removed
