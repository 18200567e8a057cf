"""Who was shown what of people's texts: one line each, written before it is shown.

Append-only, a file of JSON lines for each month, from any number of processes. It names
people who label and review, and ids of calls; none of the texts. What cannot be noted is
not shown.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from evalkit import json_bytes
from evalkit.store.files import explain_os_errors

FOLDER = "audit"
Kind = Literal["item", "disagreement", "review", "export"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that somebody was shown, or did."""

    at: int
    """UTC, microseconds since 1970."""
    who: str
    did: str
    """seen | labelled | withdrew | approved | rejected, or another state of a review"""
    kind: str
    item: str
    """Id of the item or review; a file's name for an export."""
    trace_ids: Sequence[str] = ()


def note_seen(
    store: Path,
    *,
    who: str,
    kind: Kind,
    item: str,
    trace_ids: Sequence[str],
) -> None:
    """Note that somebody is about to see an answer; StoreError when that cannot be written."""
    now = datetime.now(UTC)
    event = Event(
        at=int(now.timestamp() * 1_000_000), who=who, did="seen", kind=kind, item=item,
        trace_ids=tuple(trace_ids),
    )  # fmt: skip
    path = store / FOLDER / f"{now:%Y-%m}.jsonl"
    with explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            ends = size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
            line = json_bytes.encode(asdict(event)) + b"\n"
            os.write(descriptor, line if ends else b"\n" + line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_seen(store: Path) -> Iterator[Event]:
    """All that was noted, oldest first. A line that a power cut left half-written is none."""
    for path in sorted((store / FOLDER).glob("*.jsonl")):
        with explain_os_errors(path), path.open("rb") as file:
            for line in file:
                try:
                    yield Event(**json_bytes.decode(line))
                except (ValueError, TypeError):
                    continue
