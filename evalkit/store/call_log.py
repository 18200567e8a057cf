"""Production's call records on their way into the store: never slow, never in the way.

A sink for `Orchestrator`. Records go into memory, twice a second into a segment (JSON
lines, one file per process), every hour into Parquet. A process killed loses half a
second of records; what it left is sealed by whoever opens a log next. A disk that
refuses is tried again; what does not fit into memory meanwhile is counted, not waited for.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from types import TracebackType

from evalkit.errors import StoreError
from evalkit.ids import new_id
from evalkit.records import CallRecord
from evalkit.store.rows import encode_row

log = logging.getLogger(__name__)

FLUSH_S = 0.5
ROLL_S = 3600.0
MAX_HELD = 100_000
"""Records in memory while the disk refuses; later ones are lost, and counted."""
SAY_EVERY_S = 60.0

_FIELDS = CallRecord.__slots__
_values = attrgetter(*_FIELDS)


class CallLog:
    """Writes call records into a store. Use it as a context manager, or `close()` it.

        with CallLog(".evalkit") as log:
            orchestrator = Orchestrator.from_config(sink=log)

    Any number of processes may log into one store; after a fork, the child's records go
    into a segment of its own.
    """

    def __init__(
        self,
        store: str | Path,
        *,
        flush_s: float = FLUSH_S,
        roll_s: float = ROLL_S,
        max_held: int = MAX_HELD,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.lost = 0
        """Records that found no room while the disk refused."""
        self.failures = 0
        """Writes that the disk refused; the records were kept and tried again."""
        self._store = Path(store)
        self._flush_s, self._roll_s, self._max_held = flush_s, roll_s, max_held
        self._now = now
        self._said_at = float("-inf")
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._held: deque[CallRecord] = deque()
        self._segment: _Segment | None = None
        self._wake, self._closing = threading.Event(), False
        self._idle = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="evalkit-call-log", daemon=True)
        self._thread.start()

    def __call__(self, record: CallRecord) -> None:
        """Take a record; returns at once."""
        if os.getpid() != self._pid:
            self._start()
        if len(self._held) >= self._max_held:
            self.lost += 1
            return
        self._held.append(record)

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until what was logged so far is in the segment; False when the disk refuses."""
        deadline = time.monotonic() + timeout_s
        with self._idle:
            while self._held:
                self._wake.set()
                if not self._idle.wait(min(0.1, timeout_s)) and time.monotonic() > deadline:
                    return False
        return True

    def close(self) -> None:
        """Write and seal what is held; nothing is lost unless the disk refuses."""
        self._closing = True
        self._wake.set()
        if self._pid == os.getpid():
            self._thread.join()

    def __enter__(self) -> CallLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- the writing thread --------------------------------------------------------

    def _work(self) -> None:
        with self._carefully("segments of ended processes"):
            seal_left_segments(self._store)
        while not self._closing:
            self._wake.wait(self._flush_s)
            self._wake.clear()
            self._write()
            if self._segment is not None and self._now() - self._segment.opened_at >= self._roll_s:
                self._seal()
        self._write()
        self._seal()
        if self._held:
            self.lost += len(self._held)
            log.error("%d call records could not be written", len(self._held))

    def _write(self) -> None:
        count = len(self._held)
        if count:
            with self._carefully("call records"):
                if self._segment is None:
                    self._segment = _Segment(self._store, opened_at=self._now())
                self._segment.write([self._held[n] for n in range(count)])
                for _ in range(count):
                    self._held.popleft()
        with self._idle:
            self._idle.notify_all()

    def _seal(self) -> None:
        segment, self._segment = self._segment, None
        if segment is not None:
            with self._carefully("a segment"):
                segment.close()
                _seal(self._store, segment.path)

    @contextlib.contextmanager
    def _carefully(self, what: str) -> Iterator[None]:
        """A log that fails is said and counted; it never ends the application."""
        try:
            yield
        except (OSError, StoreError) as error:
            self.failures += 1
            if time.monotonic() - self._said_at >= SAY_EVERY_S:
                self._said_at = time.monotonic()
                log.error("%s: not written to %s: %s", what, self._store, error)


class _Segment:
    """One process's open file of records, locked for as long as the process lives."""

    def __init__(self, store: Path, *, opened_at: float) -> None:
        self.opened_at = opened_at
        folder = segments_folder(store)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = folder / f"{new_id()}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._descriptor = os.open(self.path, flags, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._size = 0

    def write(self, records: list[CallRecord]) -> None:
        """Append all of them or none."""
        rows = (encode_row(dict(zip(_FIELDS, _values(r), strict=True)), "calls") for r in records)
        data = b"".join(row + b"\n" for row in rows)
        try:
            written = 0
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)

    def close(self) -> None:
        os.close(self._descriptor)


# --- what is open, and how it is sealed -----------------------------------------------


def segments_folder(store: Path) -> Path:
    """Where open segments are."""
    return store / "calls" / "open"


def read_segment(path: Path) -> list[bytes]:
    """The whole lines of a segment; a half-written last one is none."""
    data = path.read_bytes()
    return data[: data.rfind(b"\n") + 1].splitlines()


def seal_left_segments(store: Path) -> int:
    """Seal the segments of processes that have ended; returns how many there were."""
    sealed = 0
    for path in sorted(segments_folder(store).glob("*.jsonl")):
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # its process lives
        else:
            if path.exists():
                _seal(store, path)
                sealed += 1
        finally:
            os.close(descriptor)
    return sealed


def _seal(store: Path, path: Path) -> None:
    """Turn a segment into Parquet files of its name, a day each, and remove it.

    Readers take the segment for as long as it is there, and its files only afterwards: a
    seal that was killed is done again from the beginning.
    """
    from evalkit.store.sealing import seal_calls

    seal_calls(read_segment(path), store=store, file_id=path.stem)
    path.unlink()
