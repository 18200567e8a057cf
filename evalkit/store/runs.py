"""One run's folder: its manifest, its journal, and the seal that ends it.

The journal is written ahead: one checked line per finished case, in the file before
the next case is counted, so that `kill -9` loses at most the cases in flight. One
writer per run, by a lock that any death of the process releases.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from evalkit import json_bytes
from evalkit.errors import DamagedStore, StoreError
from evalkit.store.files import (
    explain_os_errors,
    is_safe_id,
    lock,
    read_json,
    verify_sha256,
    write_json,
)
from evalkit.store.rows import CRC_TAIL, closed_line, decode_row, encode_row, is_whole
from evalkit.store.schema import SCHEMA_VERSION

if TYPE_CHECKING:
    from evalkit.store.seal_ahead import SealAhead

SEAL_AHEAD_FROM = 500
"""Cases; a shorter run is sealed in less time than another process takes to start."""
_BLOCK = 1 << 16


class RunWriter:
    """Writes one run. A context manager; leaving it without `seal` marks it incomplete."""

    def __init__(self, store: Path, run_id: str, manifest: Mapping[str, Any] | None = None) -> None:
        """Start the run `run_id` with `manifest`, or go on with it when there is none.

        Raises StoreError when it exists (or does not), is too new, or has a writer.
        """
        folder = run_folder(store, run_id)
        if manifest is None and not (folder / "manifest.json").exists():
            raise StoreError(f"no run {run_id} in {store}. See: evalkit query 'FROM runs'")
        self.run_id = run_id
        self._store = store
        self._path = folder / "manifest.json"
        self._journal = journal_of(store, run_id)
        self._descriptor = -1
        self._n_appended = 0
        self._ahead: SealAhead | None = None
        self._unlock: Callable[[], None] | None = lock(
            folder / "lock", holder=f"run {run_id} is being written"
        )
        try:
            if manifest is None:
                self.manifest = read_manifest(self._path)
                if not self.is_complete:
                    _drop_damaged_end(self._journal)
            else:
                self.manifest = _new_manifest(run_id, manifest)
                write_json(self._path, self.manifest)
            if not self.is_complete:
                self._open_journal()
        except BaseException:
            self._let_go()
            raise

    def _open_journal(self) -> None:
        with explain_os_errors(self._journal):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._descriptor = os.open(self._journal, flags, 0o600)
            self._size = os.fstat(self._descriptor).st_size

    @property
    def is_complete(self) -> bool:
        return bool(self.manifest["status"] == "complete")

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a finished case; once this returns, no death of the process loses it.

        Raises StoreError when `line` holds NaN or infinity, or the disk refuses it.
        """
        if self._descriptor < 0:
            raise StoreError(f"run {self.run_id} is closed: nothing can be added to it.")
        data = encode_line(line)
        with explain_os_errors(self._journal):
            try:
                written = 0
                while written < len(data):
                    written += os.write(self._descriptor, data[written:])
            except OSError:
                self._forget_half_line()
                raise
        self._size += len(data)
        self._n_appended += 1
        if self._n_appended == SEAL_AHEAD_FROM:
            self._seal_ahead()

    def _seal_ahead(self) -> None:
        """Have another process make the files of a long run meanwhile, if one can be started."""
        if self.manifest["files"] or self._in_order_of_keys:
            return
        from evalkit.store.seal_ahead import SealAhead

        with suppress(OSError):
            self._ahead = SealAhead(self._store, self.run_id)

    @property
    def _in_order_of_keys(self) -> bool:
        """A job's calls finish in an order that chance has a part in; its files have none."""
        return self.manifest.get("kind") == "sample"

    def _forget_half_line(self) -> None:
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            # The half line is the last one then, and is dropped when the run is opened again.
            self._close_journal()

    def finished(self) -> Iterator[dict[str, Any]]:
        """The journal's lines. A half-written last line is no line.

        Raises DamagedStore, naming file and line, when any other line is damaged; of a
        complete run, when anything is missing, too.
        """
        size = self.manifest.get("journal_bytes")
        if self.is_complete and size is not None and not self.manifest.get("texts_purged"):
            _refuse_other_size(self._journal, size)
        return read_journal(self._journal, whole=self.is_complete)

    def seal(
        self,
        status: str = "complete",
        *,
        counts: Mapping[str, int] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Turn the journal into Parquet files, and then say so in the manifest.

        `facts` are further keys of the manifest, known only at the end. Sealing a complete run
        again checks its files and changes nothing. A seal that was killed is done again
        from the journal.
        """
        if self.is_complete:
            for name, file in self.manifest["files"].items():
                verify_sha256(self._store / name, sha256=file["sha256"])
            return
        self._sync_journal()
        if self.manifest["files"]:
            # Sealed as incomplete before: readers let go of those files first.
            self._change_manifest(status="running", files={}, sealed_at=None)
        ahead, self._ahead = self._ahead, None
        files = None if ahead is None else ahead.finish(self._size)
        if files is None:
            from evalkit.store.sealing import seal_journal

            in_order = sorted_journal if self._in_order_of_keys else split_journal
            files = seal_journal(in_order(self._journal), store=self._store, run_id=self.run_id)
        ending = {
            "status": status,
            "counts": dict(counts or {}),
            "files": files,
            "journal_bytes": self._size,
        }
        self._change_manifest(**{**(facts or {}), **ending, "sealed_at": _now()})
        if status == "complete":
            self._close_journal()

    def close(self) -> None:
        """Let go of the run. What is not sealed stays in the journal, for `open_run`."""
        if self._unlock is None:
            return
        try:
            if self._ahead is not None:
                self._ahead.abandon()
                self._ahead = None
            self._sync_journal()
            self._close_journal()
            if self.manifest["status"] == "running":
                self._change_manifest(status="incomplete")
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._unlock is not None:
            self._unlock()
            self._unlock = None

    def _change_manifest(self, **changes: Any) -> None:
        self.manifest = {**self.manifest, **changes}
        write_json(self._path, self.manifest, replace=True)

    def _sync_journal(self) -> None:
        if self._descriptor >= 0:
            with explain_os_errors(self._journal):
                os.fsync(self._descriptor)

    def _close_journal(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def run_folder(store: Path, run_id: str) -> Path:
    """Where a run lives. Raises StoreError for an id that is no plain name."""
    if not is_safe_id(run_id):
        raise StoreError(f"{run_id!r} is no run id. See: evalkit query 'FROM runs'")
    return store / "runs" / run_id


def journal_of(store: Path, run_id: str) -> Path:
    """Where a run's finished cases are."""
    return run_folder(store, run_id) / "journal.jsonl"


def read_manifest(path: Path) -> dict[str, Any]:
    """A run's manifest. Raises DamagedStore, or StoreError when a newer evalkit wrote it."""
    manifest = read_json(path, newest=SCHEMA_VERSION)
    version = manifest.get("schema_version")
    texts = all(isinstance(manifest.get(key), str) for key in ("run_id", "status", "created_at"))
    files = manifest.get("files")
    if not (isinstance(version, int) and texts and isinstance(files, dict)):
        raise DamagedStore(f"{path} is damaged: it is no run's manifest. Restore it from a copy.")
    for name, facts in files.items():
        if ".." in Path(name).parts or not isinstance(facts, dict) or "sha256" not in facts:
            raise DamagedStore(f"{path} is damaged: file {name!r}. Restore it from a copy.")
    return manifest


def _new_manifest(run_id: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "status": "running",
        **manifest,
        "run_id": run_id,
        "created_at": _now(),
        "sealed_at": None,
        "counts": {},
        "files": {},
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


# --- journal lines -----------------------------------------------------------------

T = TypeVar("T")
ROWS_OF_A_LINE = ("calls", "scores")


@dataclass(frozen=True, slots=True)
class SplitLine:
    """One finished case: its key, and its rows as encoded."""

    key: list[Any]
    calls: list[bytes]
    scores: list[bytes]


def encode_line(line: Mapping[str, Any]) -> bytes:
    """A journal line as bytes: JSON whose last member is the CRC-32 of what is before it.

    `sizes`, its first member, says how long each call and each score is: sealing takes
    them out as they are, without reading them.
    """
    try:
        rows = [[encode_row(row, table) for row in line[table]] for table in ROWS_OF_A_LINE]
        rest = {name: value for name, value in line.items() if name not in ROWS_OF_A_LINE}
        sizes = [[len(row) for row in each] for each in rows]
        head = json_bytes.encode({"sizes": sizes, **rest})
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise StoreError(f"journal line {line.get('key')}: {error}; it was not written.") from None
    calls, scores = (b",".join(each) for each in rows)
    body = b'%b,"calls":[%b],"scores":[%b]' % (head[:-1], calls, scores)
    return closed_line(body)


def decode_line(data: bytes) -> dict[str, Any] | None:
    """What `encode_line` was given; None when `data` is damaged or not whole."""
    if not is_whole(data):
        return None
    try:
        line = json_bytes.decode(data[:-CRC_TAIL] + b"}")
        del line["sizes"]
        for table in ROWS_OF_A_LINE:
            line[table] = [decode_row(row, table) for row in line[table]]
    except (ValueError, RecursionError, TypeError, LookupError):
        return None
    return line  # type: ignore[no-any-return]


def split_line(data: bytes) -> SplitLine:
    """A whole journal line in its parts, the rows as they were encoded."""
    calls_at = data.index(b',"calls":[')
    head = json_bytes.decode(data[:calls_at] + b"}")
    call_sizes, score_sizes = head["sizes"]
    at = calls_at + len(b',"calls":[')
    calls, at = _slices(data, at, call_sizes)
    at += len(b'],"scores":[')
    scores, _ = _slices(data, at, score_sizes)
    return SplitLine(key=head["key"], calls=calls, scores=scores)


def _slices(data: bytes, at: int, sizes: Sequence[int]) -> tuple[list[bytes], int]:
    """Rows that stand one after another from `at`, commas between them; and where they end."""
    rows = []
    for size in sizes:
        rows.append(data[at : at + size])
        at += size + 1
    return rows, at - bool(sizes)


def read_journal(path: Path, *, whole: bool = False) -> Iterator[dict[str, Any]]:
    """Lines of a journal, one in memory at a time; a damaged last line is dropped.

    Raises DamagedStore, naming file and line, when any other is damaged, or the last of
    a journal that is known to be `whole`.
    """
    return _read_lines(path, decode_line, whole=whole)


def split_journal(path: Path) -> Iterator[SplitLine]:
    """The same lines in their parts."""
    return _read_lines(path, lambda data: split_line(data) if is_whole(data) else None)


def sorted_journal(path: Path) -> Iterator[SplitLine]:
    """The same in the order of their keys; only keys and places are in memory."""
    places: list[tuple[bytes, int]] = []
    at = 0
    for line, size in _read_lines(path, _sized):
        places.append((json_bytes.encode(line.key), at))
        at += size
    places.sort()
    with explain_os_errors(path), path.open("rb") as file:
        for _, at in places:
            file.seek(at)
            yield split_line(file.readline())


def _sized(data: bytes) -> tuple[SplitLine, int] | None:
    return (split_line(data), len(data)) if is_whole(data) else None


def _refuse_other_size(path: Path, size: int) -> None:
    actual = path.stat().st_size if path.exists() else 0
    if actual != size:
        raise DamagedStore(
            f"{path} is damaged: it has {actual} bytes, sealed was its run with {size}. It is "
            "kept as it is; restore it from a copy, or run again."
        )


def _read_lines(
    path: Path, read: Callable[[bytes], T | None], *, whole: bool = False
) -> Iterator[T]:
    if not path.exists():
        return
    with explain_os_errors(path), path.open("rb") as file:
        for number, data in enumerate(file, start=1):
            line = read(data)
            if line is not None:
                yield line
            elif whole or file.read(1):
                raise DamagedStore(
                    f"{path}:{number}: damaged line. It is kept as it is; restore the file from "
                    "a copy, or start a new run."
                )


def _drop_damaged_end(path: Path) -> None:
    """Cut a half-written last line off, so that the next one starts at a line of its own."""
    if not path.exists():
        return
    with explain_os_errors(path), path.open("r+b") as file:
        start = _start_of_last_line(file)
        file.seek(start)
        last = file.read()
        if last and decode_line(last) is None:
            file.truncate(start)


def _start_of_last_line(file: Any) -> int:
    """Offset after the last newline that something follows."""
    end = file.seek(0, os.SEEK_END)
    search_to = max(end - 1, 0)
    while search_to > 0:
        block_start = max(search_to - _BLOCK, 0)
        file.seek(block_start)
        newline = file.read(search_to - block_start).rfind(b"\n")
        if newline >= 0:
            return int(block_start + newline + 1)
        search_to = block_start
    return 0
