"""What users said of answers, long after: one line each, found by the call's trace id.

Append-only, a file of JSON lines for each day, from any number of processes. A line is in
the file before `add_feedback` returns, and ends with its CRC-32. Comments lose personal
data before they are written.
"""

from __future__ import annotations

import fcntl
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit import json_bytes
from evalkit.errors import ConfigError
from evalkit.ids import new_id
from evalkit.pii import redact
from evalkit.store.files import explain_os_errors, write_whole
from evalkit.store.rows import CRC_TAIL, closed_line, encode_row, has_checksum, is_whole

if TYPE_CHECKING:
    import pyarrow as pa

Row = dict[str, Any]
MAX_LABEL, MAX_COMMENT = 100, 10_000
"""Characters."""


def add_feedback(
    store: str | Path,
    trace_id: str,
    *,
    score: float | None = None,
    label: str | None = None,
    comment: str | None = None,
    user_id: str | None = None,
) -> str:
    """Attach what a user said to a call, which need not be in the store yet; returns its id.

    `score` is 0..1, `label` a word such as up or down. Raises ConfigError when there is
    nothing in it or it cannot be meant, StoreError when it cannot be written.
    """
    row = _checked(trace_id, score, label, comment)
    at = datetime.now(UTC)
    row |= {"feedback_id": new_id(), "user_id": redact(user_id)[0], "given_at": _micros(at)}
    path = feedback_folder(Path(store)) / f"date={at.date().isoformat()}.jsonl"
    with explain_os_errors(path), _appending(path) as descriptor:
        data = _encoded(row)
        if not _ends_a_line(descriptor):
            data = b"\n" + data
        size = os.fstat(descriptor).st_size
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    return str(row["feedback_id"])


def _checked(trace_id: str, score: float | None, label: str | None, comment: str | None) -> Row:
    if not trace_id or len(trace_id) > 200:
        raise ConfigError("feedback needs the trace id of a call.")
    if score is None and not label and not comment:
        raise ConfigError("feedback needs a score, a label or a comment.")
    if score is not None and not (math.isfinite(score) and 0 <= score <= 1):
        raise ConfigError(f"score is {score}; feedback lies in 0..1.")
    for name, text, most in (("label", label, MAX_LABEL), ("comment", comment, MAX_COMMENT)):
        if text is not None and len(text) > most:
            raise ConfigError(f"{name} has {len(text)} characters; {most} are the most.")
    label, comment = redact([label or None, comment or None])[0]
    return {"trace_id": trace_id, "score": score, "label": label, "comment": comment}


def feedback_folder(store: Path) -> Path:
    return store / "feedback"


def feedback_table(store: Path, *, problem: Callable[[str], None] = lambda text: None) -> pa.Table:
    """All that was said, as a table of the view `feedback`.

    Damaged lines are left out; `problem` is told of those that were whole once.
    """
    import pyarrow as pa

    from evalkit.store.schema import arrow_schema
    from evalkit.store.sealing import Rows

    batches, rows = [], Rows("feedback")
    for path in sorted(feedback_folder(store).glob("date=*.jsonl")):
        for line in _lines(path, problem):
            rows.add(line)
        if len(rows):
            batches.append(rows.take())
    return pa.Table.from_batches(batches, schema=arrow_schema("feedback"))


def forget_feedback(
    store: Path, forget: Callable[[Row], Row | None], *, dry_run: bool = False
) -> int:
    """Change every line as `forget` says (None: it goes); returns how many it concerned."""
    changed = 0
    for path in sorted(feedback_folder(store).glob("date=*.jsonl")):
        with explain_os_errors(path), _appending(path):
            before = [json_bytes.decode(line) for line in _lines(path)]
            after = [forget(row) for row in before]
            different = sum(new != old for new, old in zip(after, before, strict=True))
            changed += different
            if different and not dry_run:
                with write_whole(path, replace=True) as file:
                    for row in after:
                        if row is not None:
                            file.write(_encoded(row))
    return changed


def _encoded(row: Row) -> bytes:
    return closed_line(encode_row(row, "feedback")[:-1])


def _lines(path: Path, problem: Callable[[str], None] = lambda text: None) -> Iterator[bytes]:
    """Whole lines, without their checksums. Those of before there were any are read as they are."""
    with explain_os_errors(path), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if is_whole(line):
                yield line[:-CRC_TAIL] + b"}"
            elif has_checksum(line):
                problem(f"{path}:{number}: damaged line. It is left out.")
            elif line.endswith(b"}\n") and _is_row(line):
                yield line[:-1]


def _is_row(line: bytes) -> bool:
    try:
        return isinstance(json_bytes.decode(line), dict)
    except ValueError:
        return False


@contextmanager
def _appending(path: Path) -> Iterator[int]:
    """The file, open for appending and locked; made when there is none."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # A purge may have put another file in its place while we waited.
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _ends_a_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"


def _micros(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000)
