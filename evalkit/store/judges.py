"""How far each judge agreed with people, kept with the judge's version.

`judges/<name>-<version>.json` in the store, replaced whole when the judge is calibrated
again; the version is a score's scorer_version, so another rubric or model has no figure
until it is measured.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.store.files import read_json, write_json

if TYPE_CHECKING:
    from evalkit.store.views import Store


def figure_path(store: Store, name: str, scorer_version: str) -> Path:
    """Where a judge's figure stands; opponents of a pairwise judge are no part of it."""
    version = scorer_version.partition(":against=")[0]
    return store.path / "judges" / (re.sub(r"[^A-Za-z0-9._=-]", "-", f"{name}-{version}") + ".json")


def save_figure(store: Store, name: str, scorer_version: str, figure: Mapping[str, Any]) -> Path:
    """Keep what a calibration found, in place of an earlier one. StoreError when it cannot."""
    path = figure_path(store, name, scorer_version)
    store._make()
    made = datetime.now(UTC).isoformat(timespec="seconds")
    document = {"judge": name, "scorer_version": scorer_version, "calibrated_at": made, **figure}
    write_json(path, document, replace=True)
    return path


def judge_figure(store: Store, name: str, scorer_version: str) -> dict[str, Any] | None:
    """What the last calibration of this version found; None when there was none.

    Raises DamagedStore when the file is no figure of this judge.
    """
    path = figure_path(store, name, scorer_version)
    return read_json(path) if path.exists() else None
