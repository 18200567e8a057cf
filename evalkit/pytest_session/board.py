"""What several pytest processes on one machine tell each other: who calls what, and results.

A SQLite file that the controller makes for the session. A unit is claimed before it is
called, so that two workers that come to want it (a scheduler that steals, one that died)
make one call. The controller reads the finished lines from here into the journal.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from evalkit.call.durable import open_sqlite, transaction
from evalkit.call.processes import is_gone, this_process
from evalkit.pytest_session.runs import Line
from evalkit.pytest_session.units import Parts, Wanted
from evalkit.records import Pair
from evalkit.score.summary import is_unfinished
from evalkit.store.runs import decode_line, encode_line

LOOK_S = 0.02
"""How often a worker looks whether another one has finished what it waits for."""
PATIENCE_S = 600.0
"""After so long another's claim is taken over, where it cannot be known whether it lives."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS claims (unit TEXT PRIMARY KEY, owner TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS lines (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, unit TEXT UNIQUE, run_id TEXT NOT NULL,
  line BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS parts (
  path TEXT NOT NULL, pair TEXT NOT NULL, gated INTEGER NOT NULL, PRIMARY KEY (path, pair)
);
CREATE TABLE IF NOT EXISTS problems (nodeid TEXT PRIMARY KEY, problem TEXT NOT NULL);
"""


class Board:
    """The file, opened by one process; its own threads take turns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._me = this_process()
        self._turn = threading.Lock()
        self._connection = open_sqlite(path, SCHEMA, version=1)

    def close(self) -> None:
        with self._turn:
            self._connection.close()

    # --- workers -----------------------------------------------------------------

    async def result(
        self, unit: Wanted, run_id: str, do: Callable[[], Awaitable[Line | None]]
    ) -> Line | None:
        """Do a unit and publish its line, or wait for the worker that does it."""
        key = _key(unit)
        until = time.monotonic() + PATIENCE_S
        while not self._claim(key, impatient=time.monotonic() > until):
            line = self._line(key)
            if line is not None:
                return line
            await asyncio.sleep(LOOK_S)
        line = self._line(key)
        if line is not None:
            return line
        try:
            line = await do()
        except BaseException:
            self._give_back(key)
            raise
        if line is None or is_unfinished(line):
            if line is not None:  # what it cost is for the controller alone
                self._publish(f"{key}\n{line['key'][-1]}", run_id, line)
            self._give_back(key)
            return None
        self._publish(key, run_id, line)
        return line

    def say_parts(self, parts: Parts) -> None:
        """What was collected; every worker collects the same."""
        rows = [(path, str(pair), gated) for (path, pair), gated in parts.items()]
        with self._turn, transaction(self._connection):
            self._connection.executemany("INSERT OR IGNORE INTO parts VALUES (?, ?, ?)", rows)

    def say_problem(self, nodeid: str, problem: str) -> None:
        """Why an item that the controller reports could not do its own part."""
        self._write("INSERT OR REPLACE INTO problems VALUES (?, ?)", (nodeid, problem))

    def _claim(self, key: str, *, impatient: bool) -> bool:
        if self._write("INSERT OR IGNORE INTO claims VALUES (?, ?)", (key, self._me)):
            return True
        owner = self._one("SELECT owner FROM claims WHERE unit = ?", (key,))
        if owner is None or not (impatient or is_gone(owner)):
            return False
        change = "UPDATE claims SET owner = ? WHERE unit = ? AND owner = ?"
        return self._write(change, (self._me, key, owner)) > 0

    def _give_back(self, key: str) -> None:
        self._write("DELETE FROM claims WHERE unit = ? AND owner = ?", (key, self._me))

    def _publish(self, key: str, run_id: str, line: Line) -> None:
        add = "INSERT OR IGNORE INTO lines (unit, run_id, line) VALUES (?, ?, ?)"
        self._write(add, (key, run_id, encode_line(line)))

    def _line(self, key: str) -> Line | None:
        data = self._one("SELECT line FROM lines WHERE unit = ?", (key,))
        return None if data is None else decode_line(data)

    # --- controller --------------------------------------------------------------

    def parts(self) -> Parts:
        rows = self._rows("SELECT path, pair, gated FROM parts ORDER BY rowid")
        return {(path, Pair.parse(pair)): bool(gated) for path, pair, gated in rows}

    def problem(self, nodeid: str) -> str | None:
        problem: str | None = self._one("SELECT problem FROM problems WHERE nodeid = ?", (nodeid,))
        return problem

    def lines_after(self, seq: int) -> Iterator[tuple[int, str, Line]]:
        """(number, run id, line) of what was published since the line of that number."""
        found = "SELECT seq, run_id, line FROM lines WHERE seq > ? ORDER BY seq"
        for number, run_id, data in self._rows(found, (seq,)):
            line = decode_line(data)
            assert line is not None
            yield number, run_id, line

    # --- the file ----------------------------------------------------------------

    def _write(self, statement: str, values: tuple[object, ...]) -> int:
        with self._turn:
            return self._connection.execute(statement, values).rowcount

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self._turn:
            return self._connection.execute(query, values).fetchall()

    def _one(self, query: str, values: tuple[object, ...]) -> Any:
        rows = self._rows(query, values)
        return rows[0][0] if rows else None


def _key(unit: Wanted) -> str:
    return f"{unit.path}\n{unit.pair}\n{unit.number}\n{unit.trial}"
