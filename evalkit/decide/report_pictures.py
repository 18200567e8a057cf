"""Place what a report draws: intervals on a common scale, a metric over many runs.

Pure geometry for the report's template, which draws inline SVG of it. Places along a scale
are per cent from left to right, so that a picture is as wide as its column.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from evalkit.decide.report_text import interval, points, score

Entry: TypeAlias = Mapping[str, Any]
TICK_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1.0)
MAX_TICKS = 4
MAX_TAG_CHARS = 48
"""Characters that fit under a trend, side by side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """Where the parts of one interval stand, in per cent."""

    low: float
    high: float
    dot: float
    zero: float
    limit: float | None
    """What is left of it is a drop larger than the metric allows; None: no such limit."""
    label: str


@dataclass(frozen=True, slots=True)
class Axis:
    """The scale that all intervals of a table share."""

    low: float
    high: float

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Axis:
        known = list(entries)
        ends = [end for one in known if one.get("ci") for end in one["ci"]]
        limits = [-one["max_drop"] for one in known if one.get("max_drop") is not None]
        low, high = min([*ends, *limits, -0.01]), max([*ends, 0.01])
        margin = 0.06 * (high - low)
        return cls(max(-1.0, low - margin), min(1.0, high + margin))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Round differences, each with its place; no change is always one."""
        step = _step(self.high - self.low)
        numbers = range(math.ceil(self.low / step), math.floor(self.high / step) + 1)
        return [
            (self._at(n * step), points(n * step).removesuffix(".0").lstrip("±")) for n in numbers
        ]

    def bar(self, entry: Entry) -> Bar | None:
        """None where there is no interval to be shown."""
        ci, delta = entry.get("ci"), entry.get("delta")
        if not ci or delta is None:
            return None
        limit = entry.get("max_drop")
        allowed = "" if limit is None else f", a drop of {100 * limit:g} is allowed"
        return Bar(
            low=self._at(ci[0]),
            high=self._at(ci[1]),
            dot=self._at(delta),
            zero=self._at(0.0),
            limit=None if limit is None else self._at(-limit),
            label=f"{points(delta)} points, interval {interval(ci)}{allowed}",
        )

    def _at(self, value: float) -> float:
        return _share(value, self.low, self.high)


def _share(value: float, low: float, high: float) -> float:
    share = (value - low) / (high - low)
    return round(100 * min(max(share, 0.0), 1.0), 2)


def _step(span: float) -> float:
    return next((step for step in TICK_STEPS if span / step <= MAX_TICKS), TICK_STEPS[-1])


# --- over runs ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One run in a trend: its place, the ends of its interval, what it is."""

    x: float
    y: float
    low: float
    high: float
    kind: str
    """candidate, baseline or earlier."""
    joined: int | None
    """Which point before it measured the same, to be joined by a line."""
    tag: str
    """Written under it; empty where there is no room."""
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """A mean over runs, from left to right in time; y counts from the top, in per cent."""

    points: tuple[Point, ...]
    ticks: tuple[tuple[float, str], ...]
    label: str

    @property
    def segments(self) -> list[tuple[Point, Point]]:
        """Points that are joined by a line."""
        return [(self.points[p.joined], p) for p in self.points if p.joined is not None]


def trend(moments: Sequence[Entry], *, label: str) -> Trend:
    """Draw means with `mean`, `ci`, `kind`, `joined`, `tag` and `label`, in order."""
    ends = [end for one in moments for end in (one["ci"] or (one["mean"],))]
    low, high = min(ends), max(ends)
    step = _step(max(high - low, 0.04))
    bottom = max(0.0, step * math.floor(low / step + 1e-9))
    top = min(1.0, step * math.ceil(high / step - 1e-9))
    if top - bottom < step / 2:
        bottom, top = max(0.0, bottom - step), min(1.0, top + step)

    def height(value: float) -> float:
        return round(100 - _share(value, bottom, top), 2)

    numbers = range(round(bottom / step), round(top / step) + 1)
    placed = [
        Point(
            x=round(100 * (n + 0.5) / len(moments), 2),
            y=height(one["mean"]),
            low=height((one["ci"] or (one["mean"],) * 2)[0]),
            high=height((one["ci"] or (one["mean"],) * 2)[1]),
            kind=one["kind"],
            joined=one["joined"],
            tag=one["tag"] if len(one["tag"]) * len(moments) <= MAX_TAG_CHARS else "",
            label=one["label"],
        )
        for n, one in enumerate(moments)
    ]
    return Trend(
        points=tuple(placed),
        ticks=tuple((height(n * step), score(n * step)[:4]) for n in numbers),
        label=label,
    )
