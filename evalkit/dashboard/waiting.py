"""What waits: answers for a person before they go out, and what fired at the last look."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.call.queue_file import NAME as QUEUE
from evalkit.dashboard.window import iso
from evalkit.decide.alerts import STATE, firing_in
from evalkit.errors import StoreError
from evalkit.store.files import read_json
from evalkit.store.views import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Answers of one feature that nobody has decided on."""

    feature: str
    pending: int
    oldest: int
    """Since when the first of them waits, microseconds since 1970."""

    def as_json(self) -> dict[str, Any]:
        return {"feature": self.feature, "pending": self.pending, "oldest": iso(self.oldest)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LastLook:
    """What `evalkit alerts` found when it last looked."""

    looked_at: int | None
    """None when it never did."""
    firing: tuple[Mapping[str, Any], ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "looked_at": None if self.looked_at is None else iso(self.looked_at),
            "firing": [
                {**one, "since": iso(one["since"]), "said_at": iso(one["said_at"])}
                for one in self.firing
            ],
        }


def reviews_waiting(store: Store) -> list[Waiting]:
    """By feature, the most first. Only reads: a queue that is not there is not made."""
    path = store.path / QUEUE
    if not path.exists():
        return []
    try:
        with closing(_read_only(path)) as file:
            rows = file.execute(
                "SELECT coalesce(json_extract(record, '$.feature'), '') AS feature,"
                " count(*) AS pending, min(created_at) AS oldest"
                " FROM reviews WHERE state = 'pending' GROUP BY 1 ORDER BY 2 DESC, 1"
            ).fetchall()
    except sqlite3.Error as error:
        store.problems.append(f"{path}: {error}. Reviews are not shown.")
        return []
    return [Waiting(feature=feature, pending=n, oldest=oldest) for feature, n, oldest in rows]


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)


def last_look(store: Store) -> LastLook:
    """Critical alerts first, then the oldest."""
    path = store.path / STATE
    if not path.exists():
        return LastLook(looked_at=None)
    try:
        state = read_json(path)
    except StoreError as error:
        store.problems.append(str(error))
        return LastLook(looked_at=None)
    firing = [{"key": key, **one} for key, one in firing_in(state).items()]
    firing.sort(key=lambda one: (one.get("severity") != "critical", one["since"], one["key"]))
    return LastLook(looked_at=state.get("looked_at"), firing=tuple(firing))
