"""Grades of anchors as series: does a judge grade the same answers lower, or higher, than before?

Each anchor is held against its own first grade: (grade - first + 1) / 2, which is 0.5 where
nothing changed. A judge that draws its grades is off its first ones by the same chance every day,
so that only a move between looks is news; the look that gave the first grades is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from evalkit.decide.series_rows import DAY, Series, made_series
from evalkit.errors import StoreError
from evalkit.store.anchor_looks import AnchorLook, anchor_looks

if TYPE_CHECKING:
    from evalkit.store.views import Store

FAMILY = "anchors"
LOWER, HIGHER = "anchors graded lower", "anchors graded higher"


def anchor_series(store: Store, since: int) -> Iterator[Series]:
    """Two for each version of a judge that has looked at its anchors."""
    try:
        looks = [one for one in anchor_looks(store) if one.at >= since]
    except StoreError as error:
        store.problems.append(str(error))
        return
    newest = {one.judge: one for one in sorted(looks, key=lambda one: one.at)}
    rows: list[dict[str, Any]] = []
    for look in looks:
        if not look.is_first:
            is_current = newest[look.judge].scorer_version == look.scorer_version
            rows += _rows(look, is_current=is_current)
    for metric, worse in ((LOWER, "below"), (HIGHER, "above")):
        named = [{**row, "metric": metric} for row in rows]
        yield from made_series(named, worse=worse, family=FAMILY)  # type: ignore[arg-type]


def _rows(look: AnchorLook, *, is_current: bool) -> Iterator[dict[str, Any]]:
    rubric, _, model = look.scorer_version.partition(":")
    for name, score in look.scores.items():
        if name in look.first:
            yield {
                "feature": f"judge:{look.judge}",
                "model": model,
                "prompt_version": rubric,
                "version": look.scorer_version,
                "is_current": is_current,
                "day": look.at // DAY * DAY,
                "value": round((score - look.first[name] + 1) / 2, 4),
                "p": 1.0,
                "n": 1,
            }
