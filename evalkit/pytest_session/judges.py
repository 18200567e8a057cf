"""Which judges may fail a case by themselves: those that a calibration found to agree with people.

The gate asks the same of what it compares; under pytest a must-pass case is its own item.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalkit.errors import DamagedStore
from evalkit.store.judges import judge_figure
from evalkit.store.views import Store

JUDGE_TIER = 2


class Judges:
    """Looks each version of a judge up once in a session."""

    def __init__(self, store: Store, *, floor: float) -> None:
        self._store, self._floor = store, floor
        self._known: dict[tuple[str, str], bool] = {}

    def may_fail(self, score: Mapping[str, Any]) -> bool:
        """Whether a score of a must-pass metric may fail its case for real."""
        if score["tier"] != JUDGE_TIER:
            return True
        key = score["scorer"], score["scorer_version"]
        if key not in self._known:
            self._known[key] = self._agrees(*key)
        return self._known[key]

    def _agrees(self, judge: str, version: str) -> bool:
        from evalkit.decide.trust import agrees

        try:
            figure = judge_figure(self._store, judge, version)
        except DamagedStore:
            return False
        return agrees(figure, floor=self._floor)
