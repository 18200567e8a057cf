"""A run's Parquet files, made by a process of its own while the run still goes on.

It follows the journal as it grows, so that the end of a long run waits for its last row
groups alone, and Arrow is loaded beside the calls instead of after them. The files come from
the same lines by the same code, and appear only once the run has said that it is over. What
goes wrong here costs nothing: the run then makes its files itself, or says why it cannot.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from evalkit.store.rows import is_whole
from evalkit.store.runs import SplitLine, journal_of, split_line
from evalkit.store.sealing import seal_journal

LOOK_S = 0.2
"""Seconds between two looks at the journal."""
GONE_S = 10.0
"""How long a process that is not needed any more may take to tidy up."""
_BLOCK = 1 << 18
_NICENESS = 10
"""The calls go first."""


class SealAhead:
    """The process, as the run's writer sees it. Raises OSError when none can be started."""

    def __init__(self, store: Path, run_id: str) -> None:
        if not Path(sys.executable or "").name.startswith(("python", "pypy")):
            # An application that has Python inside it would be started once more.
            raise OSError(f"{sys.executable} is no Python")
        command = [sys.executable, "-P", "-m", __name__, str(store), run_id]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is for the run, which may still want its last cases
        )

    def finish(self, size: int) -> dict[str, dict[str, Any]] | None:
        """The files and their facts, of the journal's first `size` bytes, which are all of it.

        None when the process failed; the store is then as if it had never been.
        """
        printed, _ = self._process.communicate(b"%d\n" % size)
        if self._process.returncode != 0:
            return None
        facts: dict[str, dict[str, Any]] = json.loads(printed)
        return facts

    def abandon(self) -> None:
        """The run ends without files; returns once the process is gone."""
        with suppress(OSError, subprocess.TimeoutExpired):
            self._process.communicate(timeout=GONE_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class _Abandoned(Exception):
    """The run went away without saying that it is over."""


def follow(journal: Path, said: int) -> Iterator[SplitLine]:
    """Lines of a journal as they are written, until the size that `said`, a pipe, will tell.

    Raises ValueError for a damaged line, or another size.
    """
    size: int | None = None
    begun, at = b"", 0
    with journal.open("rb", buffering=0) as file:
        while size is None or at < size:
            block = file.read(_BLOCK)
            at += len(block)
            *lines, begun = (begun + block).split(b"\n")
            for line in lines:
                data = line + b"\n"
                if not is_whole(data):
                    raise ValueError(f"{journal}: damaged line")
                yield split_line(data)
            if not block:
                if size is not None:
                    break
                size = _told(said)
    if begun or at != size:
        raise ValueError(f"{journal}: {at} bytes, {size} were to be there")


def _told(said: int) -> int | None:
    """The size that the run has told, if it has by now."""
    ready, _, _ = select.select([said], [], [], LOOK_S)
    if not ready:
        return None
    told = os.read(said, 64)
    if not told:
        raise _Abandoned
    return int(told)


def main() -> int:
    store, run_id = Path(sys.argv[1]), sys.argv[2]
    os.nice(_NICENESS)
    # Arrow loads numpy where it finds it. Nothing here needs it, and without it a process
    # starts in a third of the time, with 10 MB less; an Arrow that cannot do so fails here.
    sys.modules["numpy"] = None  # type: ignore[assignment]
    lines = follow(journal_of(store, run_id), sys.stdin.fileno())
    try:
        facts = seal_journal(lines, store=store, run_id=run_id)
    except _Abandoned:
        return 1
    sys.stdout.write(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
