"""What drawn inputs of production were, counted by the day; a small file for each day.

`inputs/date=YYYY-MM-DD.json`: how many drawn calls of a feature were in which language, took
which route, were about which topic and were answered with which label. Made once, while the
texts are there, and kept when they have gone: it has counts, and nobody's words.
`inputs/NAME.topics.json` is what the topics of a feature are (`score.topics`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.store.files import read_json, write_json

if TYPE_CHECKING:
    from evalkit.store.views import Store

FOLDER = "inputs"
VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Counted:
    """How many calls of one day were of one kind."""

    feature: str
    model: str = ""
    """And the prompt version: empty where it is of the input alone."""
    prompt_version: str = ""
    what: str
    """language | route | topic | answer"""
    kind: str
    version: str = ""
    """Of the topics."""
    n: int = 0


def day_path(store: Store, date: str) -> Path:
    return Path(store.path) / FOLDER / f"date={date}.json"


def save_day(store: Store, date: str, counted: Iterable[Counted]) -> None:
    """Keep what a day's inputs were. StoreError when it cannot be written."""
    rows = [asdict(one) for one in sorted(counted)]
    write_json(day_path(store, date), {"version": VERSION, "counts": rows}, replace=True)


def saved_days(store: Store) -> Iterator[tuple[str, list[Counted]]]:
    """Date and counts of each day, in order. DamagedStore for a file that is none."""
    for path in sorted((Path(store.path) / FOLDER).glob("date=*.json")):
        document = read_json(path)
        if document.get("version") == VERSION:
            counts = [Counted(**row) for row in document["counts"]]
            yield path.stem.removeprefix("date="), counts


def topics_of(store: Store, feature: str) -> dict[str, Any] | None:
    """What a feature's topics are; None while they are not learnt."""
    path = _topics_path(store, feature)
    return read_json(path) if path.exists() else None


def save_topics(store: Store, feature: str, topics: Mapping[str, Any]) -> None:
    write_json(_topics_path(store, feature), {"feature": feature, **topics}, replace=True)


def _topics_path(store: Store, feature: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9_-]", "-", feature)[:80]
    digest = hashlib.sha256(feature.encode("utf-8", errors="replace")).hexdigest()[:8]
    return Path(store.path) / FOLDER / f"{name}-{digest}.topics.json"
