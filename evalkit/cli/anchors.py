"""Anchors of judges, for the commands that have them graded: the sampling job, drift."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalkit.cli.options import say
from evalkit.cli.periods import now

if TYPE_CHECKING:
    from evalkit.score.anchors import Looked
    from evalkit.settings import Settings
    from evalkit.store.views import Store


def grade_anchors(settings: Settings, store: Store, max_cost_usd: float | None) -> list[Looked]:
    """Have every judge that has anchors grade them, once a day, and say what it did."""
    from evalkit.score.anchors import anchored, look_at_anchors
    from evalkit.session import run_async

    if not anchored(settings):
        return []
    found = run_async(look_at_anchors(settings, store, now=now(), max_cost_usd=max_cost_usd))
    for one in found:
        say(_told(one))
    return found


def _told(one: Looked) -> str:
    if one.shift is None:
        return f"judge {one.judge} could grade {one.judged} of {one.anchors} anchors: too few"
    if one.is_first:
        return f"judge {one.judge}: first grades of {one.judged} anchors"
    return (
        f"judge {one.judge}: {one.changed} of {one.judged} anchors are graded otherwise than at "
        f"first, {one.shift:+.3f} on average"
    )
