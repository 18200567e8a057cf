"""How judges graded their anchors, look by look: a small file for each day and version.

`anchors/NAME-VERSION/DATE.json` in the store. It has ids and scores; the texts stand in the
project, beside the judge (`score.anchors`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.store.files import read_json, write_json

if TYPE_CHECKING:
    from evalkit.store.views import Store

FOLDER = "anchors"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorLook:
    """One judge's grades of its anchors on one day."""

    judge: str
    scorer_version: str
    at: int
    """Microseconds since 1970."""
    scores: Mapping[str, float]
    """Anchor -> 0..1; those that could not be judged are not there."""
    first: Mapping[str, float]
    """What this version said first; the look's own where it is the first."""
    is_first: bool


def look_path(store: Store, judge: str, scorer_version: str, date: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9._-]", "-", f"{judge}-{scorer_version}")
    return Path(store.path) / FOLDER / name / f"{date}.json"


def save_look(store: Store, look: AnchorLook, date: str) -> None:
    """Keep a look. StoreError when it cannot be written."""
    document = {
        "judge": look.judge,
        "scorer_version": look.scorer_version,
        "at": look.at,
        "is_first": look.is_first,
        "scores": dict(look.scores),
        "first": dict(look.first),
    }
    write_json(look_path(store, look.judge, look.scorer_version, date), document, replace=True)


def anchor_looks(store: Store) -> Iterator[AnchorLook]:
    """All looks, those of one judge and version in their order. DamagedStore for no such file."""
    for path in sorted((Path(store.path) / FOLDER).glob("*/*.json")):
        yield AnchorLook(**read_json(path))


def first_look(store: Store, judge: str, scorer_version: str) -> AnchorLook | None:
    """The oldest look of a version; None while there is none."""
    folder = look_path(store, judge, scorer_version, "x").parent
    path = min(folder.glob("*.json"), default=None)
    return None if path is None else AnchorLook(**read_json(path))
