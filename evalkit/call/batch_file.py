"""Which batches are under way at providers, in the queue file: a killed run finds them again.

Part of the call path, below batch.py. A request belongs to a scope (a run): only the same
run resumed takes an earlier answer to it, never another run.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from evalkit.call.durable import transaction
from evalkit.call.processes import is_gone, this_process
from evalkit.call.queue_file import open_queue

KEPT_S = 29 * 86_400.0
"""Providers delete results after about so long."""


class BatchFile:
    """The batches of one provider and scope."""

    def __init__(self, path: str | Path, *, provider: str, scope: str) -> None:
        self._file = open_queue(path)
        self._provider = provider
        self._scope = scope
        oldest = int((time.time() - KEPT_S) * 1e6)
        with transaction(self._file):
            self._file.execute(
                "DELETE FROM batch_requests WHERE batch IN (SELECT id FROM batches "
                "WHERE sent_at < ?)",
                (oldest,),
            )
            self._file.execute("DELETE FROM batches WHERE sent_at < ?", (oldest,))

    def sent(self, batch_id: str, requests: Iterable[tuple[str, str]]) -> None:
        """Write down what was handed in: (custom_id, digest) of each request."""
        owner = this_process()
        with transaction(self._file):
            self._file.execute(
                "INSERT OR REPLACE INTO batches VALUES (?, ?, ?, 'sent', ?)",
                (batch_id, self._provider, self._scope, time.time_ns() // 1000),
            )
            self._file.executemany(
                "INSERT OR REPLACE INTO batch_requests VALUES (?, ?, ?, ?)",
                [(batch_id, custom_id, digest, owner) for custom_id, digest in requests],
            )

    def claim(self, digest: str) -> tuple[str, str] | None:
        """(batch, custom_id) of an equal request that an ended process handed in and left."""
        rows = self._file.execute(
            "SELECT r.batch, r.custom_id, r.owner FROM batch_requests r "
            "JOIN batches b ON b.id = r.batch "
            "WHERE r.digest = ? AND b.provider = ? AND b.scope = ? ORDER BY b.sent_at, r.custom_id",
            (digest, self._provider, self._scope),
        ).fetchall()
        for row in rows:
            if row["owner"] is None or is_gone(row["owner"]):
                taken = self._file.execute(
                    "UPDATE batch_requests SET owner = ? "
                    "WHERE batch = ? AND custom_id = ? AND owner IS ?",
                    (this_process(), row["batch"], row["custom_id"], row["owner"]),
                )
                if taken.rowcount:
                    return row["batch"], row["custom_id"]
        return None

    def give_back(self, batch_id: str) -> None:
        """This process waits for a batch no more; the run resumed may take it up."""
        self._file.execute(
            "UPDATE batch_requests SET owner = NULL WHERE batch = ? AND owner = ?",
            (batch_id, this_process()),
        )

    def lost(self, batch_id: str) -> None:
        """The provider knows a batch no more, or refused it: its requests are made anew."""
        with transaction(self._file):
            self._file.execute("DELETE FROM batch_requests WHERE batch = ?", (batch_id,))
            self._file.execute("DELETE FROM batches WHERE id = ?", (batch_id,))

    def close(self) -> None:
        self._file.close()
