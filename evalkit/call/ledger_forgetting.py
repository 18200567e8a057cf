"""Takes users out of the spending ledger: those that are to be forgotten, and past months'.

A user's row says what was spent this month, and is of no use once that is over; the rows of
the total, of tenants and of features stay. Whose calls are under way is left, and counted.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from evalkit.call.durable import erasing, open_sqlite
from evalkit.call.ledger import SCHEMA, VERSION

NAME = "budget.sqlite"


@dataclass(slots=True, kw_only=True)
class SpendingPurged:
    """What went, or would go."""

    spenders_removed: int = 0
    spenders_open: int = 0
    """Users that are to be forgotten, and have a call under way."""


def forget_spending(
    store: Path, *, user_ids: Collection[str] = (), now: float | None = None, dry_run: bool = False
) -> SpendingPurged:
    """Remove the rows of these users; without any, of all users of months that are over."""
    done = SpendingPurged()
    if not (store / NAME).exists():
        return done
    month = time.strftime("%Y-%m", time.gmtime(time.time() if now is None else now))
    with (
        closing(open_sqlite(store / NAME, SCHEMA, version=VERSION)) as file,
        erasing(file, dry_run=dry_run),
    ):
        held = {row[0] for row in file.execute("SELECT user FROM holds")}
        rows = file.execute("SELECT name, day FROM spent WHERE scope = 'user'").fetchall()
        due = [name for name, day in rows if (name in user_ids if user_ids else day < month)]
        done.spenders_open = sum(name in held for name in due if user_ids)
        gone = [(name,) for name in due if name not in held]
        done.spenders_removed = len(gone)
        file.executemany("DELETE FROM spent WHERE scope = 'user' AND name = ?", gone)
    return done
