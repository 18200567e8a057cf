"""Production's call records on their way into the store: never slow, never in the way.

A sink for `Orchestrator`. Records go into memory, twice a second into a segment (JSON
lines, one file per process), every hour into Parquet, by a thread of its own. A process
killed loses half a second of records; what it left is sealed by whoever opens a log next.
A disk that refuses is tried again: records wait in a spool on another disk, else in memory,
and what does not fit there is counted, not waited for.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from itertools import chain
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any

from evalkit import json_bytes
from evalkit.errors import DamagedStore, StoreError
from evalkit.frozen import by_field
from evalkit.ids import new_id
from evalkit.pii import redact
from evalkit.records import CallRecord
from evalkit.store.files import open_temporary, remove, sweep
from evalkit.store.rows import CRC_TAIL, closed_line, encode_row, has_checksum, is_whole

log = logging.getLogger(__name__)

FLUSH_S = 0.5
ROLL_S = 3600.0
ROLL_BYTES = 64 << 20
"""A segment as long as this is sealed before its hour is over."""
SPOOL_S = 60.0
"""How often what waits in the spool is tried again."""
BATCH = 1000
"""Records encoded and written at a time."""
MAX_HELD = 100_000
"""Records in memory while the disk refuses; later ones are lost, and counted."""
SAY_EVERY_S = 60.0
MAX_DEPTH = 100
TOO_DEEP = "[TOO DEEP]"
"""In the place of what an input has further down, or of an input that holds itself."""
MAX_INT, TOO_LONG = 10**600, "[TOO LONG]"
"""Python makes no text of much larger numbers."""
MAX_SAID = 5
"""Lines of one segment that are said one by one when they are left out."""


class CallLog:
    """Writes call records into a store. Use it as a context manager, or `close()` it.

        with CallLog(".evalkit") as log:
            orchestrator = Orchestrator.from_config(sink=log)

    Any number of processes may log into one store; after a fork, the child's records go
    into a segment of its own. `spool` is a folder on another disk, of this store alone:
    while the store refuses, records are written there, and brought home afterwards.
    """

    def __init__(
        self,
        store: str | Path,
        *,
        flush_s: float = FLUSH_S,
        roll_s: float = ROLL_S,
        roll_bytes: int = ROLL_BYTES,
        max_held: int = MAX_HELD,
        spool: str | Path | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lost = 0
        """Records that found no room while the disk refused, that no JSON can hold, that came
        after `close()`, or whose line was damaged before it was sealed."""
        self.failures = 0
        """Writes that the disk refused; the records were kept and tried again."""
        self._store = Path(store)
        self._spool = None if spool is None else Path(spool)
        self._flush_s, self._max_held = flush_s, max_held
        self._roll_s, self._roll_bytes = roll_s, roll_bytes
        self._now = now
        self._said_at = float("-inf")
        self._start()
        _close_at_exit(self)

    def _start(self) -> None:
        self._pid = os.getpid()
        self._held: deque[CallRecord] = deque()
        self._segment: _Segment | None = None
        self._sealer: threading.Thread | None = None
        self._wake, self._closing, self._has_refused = threading.Event(), False, False
        self._idle = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="evalkit-call-log", daemon=True)
        self._thread.start()

    def __call__(self, record: CallRecord) -> None:
        """Take a record; returns at once."""
        if os.getpid() != self._pid:
            self._start()
        if self._closing and not self._thread.is_alive():
            self._refuse(record)
        elif len(self._held) >= self._max_held:
            self.lost += 1
        else:
            self._held.append(record)

    def _refuse(self, record: CallRecord) -> None:
        """Count what comes when nobody writes any more, and say it once."""
        self.lost += 1
        if not self._has_refused:
            self._has_refused = True
            log.error(
                "call %s came after the call log was closed, and is lost. Close the log last.",
                record.trace_id,
            )

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
        self._seal_beside(None)
        while not self._closing:
            self._wake.wait(self._flush_s)
            self._wake.clear()
            with self._carefully("call records"):
                self._write()
            if self._segment is not None and self._is_full(self._segment):
                segment, self._segment = self._segment, None
                self._seal_beside(segment)
        with self._carefully("call records"):
            self._write()
        self._finish_sealing()
        if self._held:
            self.lost += len(self._held)
            log.error("%d call records could not be written", len(self._held))

    def _is_full(self, segment: _Segment) -> bool:
        age = self._now() - segment.opened_at
        longest = self._roll_s if segment.is_at_home else min(SPOOL_S, self._roll_s)
        return age >= longest or segment.size >= self._roll_bytes or segment.is_torn

    def _write(self) -> None:
        while self._held and self._write_some():
            pass
        with self._idle:
            self._idle.notify_all()

    def _write_some(self) -> bool:
        """Whether a disk took them; else they stay held."""
        # By place: records come in meanwhile, which an iterator of the deque does not survive.
        records = [self._held[place] for place in range(min(BATCH, len(self._held)))]
        rows, bad = _encoded(records)
        written = self._write_to(self._store, rows)
        if not written and self._spool is not None:
            written = self._write_to(self._spool, rows)
        if written:
            self.lost += len(bad)
            for trace_id, why in bad:
                log.error("call %s cannot be logged: %s", trace_id, why)
            for _ in records:
                self._held.popleft()
        return written

    def _write_to(self, home: Path, rows: Sequence[bytes]) -> bool:
        """Whether this disk took them. A segment in the spool goes on until it is rolled."""
        try:
            segment = self._segment
            if segment is None or (home == self._spool and segment.is_at_home):
                opened = _Segment(home, opened_at=self._now(), is_at_home=home == self._store)
                if segment is not None:
                    self._seal_beside(segment)
                self._segment = segment = opened
            segment.write(rows)
        except OSError as error:
            self._say("call records", error)
            return False
        return True

    # --- sealing -------------------------------------------------------------------

    def _seal_beside(self, segment: _Segment | None) -> None:
        """Seal in a thread of its own, one after another: records must not wait for Parquet."""
        before = self._sealer

        def work() -> None:
            if before is not None:
                before.join()
            self._seal(segment)
            with self._carefully("segments of ended processes"):
                seal_left_segments(self._store, spool=self._spool)

        sealer = threading.Thread(target=work, name="evalkit-call-log-seal", daemon=True)
        try:
            sealer.start()
        except RuntimeError:  # a Python that is ending starts no threads
            work()
        else:
            self._sealer = sealer

    def _finish_sealing(self) -> None:
        """Here, not beside: nobody would wait for it."""
        if self._sealer is not None:
            self._sealer.join()
        segment, self._segment = self._segment, None
        self._seal(segment)

    def _seal(self, segment: _Segment | None) -> None:
        if segment is not None:
            with self._carefully("a segment"), contextlib.closing(segment):
                self.lost += _seal(self._store, segment.path)

    @contextlib.contextmanager
    def _carefully(self, what: str) -> Iterator[None]:
        """A log that fails is said and counted; it never ends the application."""
        try:
            yield
        except (OSError, StoreError) as error:
            self._say(what, error)
        except Exception as error:  # the thread that ended would take all later records along
            log.exception("%s: not as expected", what)
            self._say(what, error)

    def _say(self, what: str, error: Exception) -> None:
        self.failures += 1
        if time.monotonic() - self._said_at >= SAY_EVERY_S:
            self._said_at = time.monotonic()
            log.error(
                "%s: not written to %s: %s (%d records held, %d lost)",
                what, self._store, error, len(self._held), self.lost,
            )  # fmt: skip


def _plain(value: Any, above: tuple[int, ...] = ()) -> Any:
    """An application's input as JSON has it: what has no form there as text.

    `above` are the ids of what `value` is nested in.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, Enum):
        return _plain(value.value, above)
    if isinstance(value, (bytes, bytearray)):
        return value.decode("utf-8", "replace")
    fields = {} if isinstance(value, type) else getattr(value, "__dataclass_fields__", {})
    if fields or isinstance(value, (Mapping, list, tuple, set, frozenset)):
        if len(above) == MAX_DEPTH or id(value) in above:
            return TOO_DEEP
        above = (*above, id(value))
    if fields:
        return {name: _plain(getattr(value, name), above) for name in fields}
    if isinstance(value, Mapping):
        return {_key(key): _plain(one, above) for key, one in value.items()}
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=repr)
    if isinstance(value, (list, tuple)):
        return [_plain(one, above) for one in value]
    if isinstance(value, int) and abs(value) >= MAX_INT:
        return TOO_LONG
    return value if isinstance(value, int) else str(value)


def _key(key: Any) -> str:
    """A key as text. One that was no text has not been redacted as the values have."""
    return key if isinstance(key, str) else str(redact(str(key))[0])


def _encoded(records: Sequence[CallRecord]) -> tuple[list[bytes], list[tuple[str, str]]]:
    """Rows; and which records no JSON can hold, and why: the others are not to wait for them."""
    rows, bad = [], []
    for record in records:
        try:
            rows.append(_row_of(record))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            bad.append((record.trace_id, str(error)))
    return rows, bad


def _row_of(record: CallRecord) -> bytes:
    """One record; what its input has that no JSON can hold costs the input, not the record."""
    try:
        return encode_row(by_field(record), "calls")
    except (ValueError, TypeError, AttributeError, RecursionError):
        try:
            plain = _plain(record.input)
        except Exception as error:  # the border: any class of the application's own is in it
            plain = None
            told = type(error).__name__
            log.warning("call %s is logged without its input: %s", record.trace_id, told)
        return encode_row(by_field(replace(record, input=plain)), "calls")


def _close_at_exit(call_log: CallLog) -> None:
    """A program that ends without closing its log loses nothing either."""
    found = weakref.ref(call_log)

    def close() -> None:
        living = found()
        if living is not None and living._thread.is_alive():
            living.close()

    atexit.register(close)
    weakref.finalize(call_log, atexit.unregister, close).atexit = False


class _Segment:
    """One process's open file of records, locked until it is sealed or the process dies."""

    def __init__(self, store: Path, *, opened_at: float, is_at_home: bool = True) -> None:
        self.opened_at = opened_at
        self.is_at_home = is_at_home
        """Not in the spool."""
        folder = segments_folder(store)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path = folder / f"{new_id()}.jsonl"
        # Under its own name only once it is locked: else another process takes it for one
        # that was left, and removes it.
        unnamed, self._descriptor = open_temporary(self.path, os.O_APPEND)
        os.rename(unnamed, self.path)
        self.size = 0
        self.is_torn = False
        """It ends with half a line: nothing may follow."""

    def write(self, rows: Sequence[bytes]) -> None:
        """Append all of them or none."""
        data = b"".join(closed_line(row[:-1]) for row in rows)
        try:
            written = 0
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError:
            try:
                os.ftruncate(self._descriptor, self.size)
            except OSError:
                self.is_torn = True
            raise
        self.size += len(data)

    def close(self) -> None:
        os.close(self._descriptor)


# --- what is open, and how it is sealed -----------------------------------------------


def segments_folder(store: Path) -> Path:
    """Where open segments are."""
    return store / "calls" / "open"


def read_segment(path: Path, *, on_damaged: Callable[[StoreError], None]) -> Iterator[bytes]:
    """The whole lines of a segment, without their checksums; a half-written last one is none.

    `on_damaged` is told of each other line that is not what was written.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if is_whole(line):
                yield line[:-CRC_TAIL] + b"}"
            elif not has_checksum(line) and _is_call(line):
                yield line[:-1]
            elif has_checksum(line) or line.endswith(b"\n"):
                on_damaged(DamagedStore(f"{path}:{number}: damaged line."))


def _is_call(line: bytes) -> bool:
    """Whether a line without a checksum, as they were once, is a call."""
    try:
        return line.endswith(b"}\n") and b'"ts":%d' % json_bytes.decode(line)["ts"] in line
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def seal_left_segments(store: Path, *, spool: Path | None = None) -> int:
    """Seal the segments of processes that have ended; returns how many there were."""
    sealed = 0
    homes = [one for one in (store, spool) if one is not None]
    for home in homes:
        sweep(home)
    left = [segments_folder(home).glob("*.jsonl") for home in homes]
    for path in sorted(chain.from_iterable(left)):
        if not path.is_file():
            continue  # not a log's; queries say so
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


def _seal(store: Path, path: Path) -> int:
    """Turn a segment into Parquet files of its name, a day each, and remove it.

    Readers take the segment for as long as it is there, and its files only afterwards: a
    seal that was killed is done again from the beginning. Returns how many of its lines
    are left out, since they are damaged or no calls; these are said.
    """
    from evalkit.store.sealing import seal_calls

    left_out: list[StoreError] = []
    rows = read_segment(path, on_damaged=left_out.append)
    seal_calls(rows, store=store, file_id=path.stem, on_bad=left_out.append)
    for error in left_out[:MAX_SAID]:
        log.error("%s: a call is left out: %s", path.name, error)
    if len(left_out) > MAX_SAID:
        log.error("%s: %d calls are left out in all", path.name, len(left_out))
    remove(path)
    return len(left_out)
