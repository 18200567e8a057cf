"""Small pictures of a series: where each mark stands, and what the whole says in words.

Geometry alone, in the units of a picture's view box; the template draws it. Every picture
has a sentence for those who do not see it, and every mark its own for those who point at it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, log10

STEP, HEIGHT = 20.0, 100.0
"""Of the view box: width of one step, height of all."""
PAD = 6.0

Say = Callable[[float | None], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One step of a series."""

    x: float
    """Its middle."""
    y: float
    height: float = 0.0
    """Of a bar."""
    low: float = 0.0
    high: float = 0.0
    """Ends of an interval, as heights."""
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A series, drawn."""

    width: float
    marks: tuple[Mark, ...]
    paths: tuple[str, ...]
    """Lines through neighbouring marks, broken where a step has no value."""
    limit: float | None
    """Height of the line that is not to be crossed; None when it is out of the picture."""
    top: float
    bottom: float
    """Values at the upper and lower edge."""
    label: str

    @property
    def height(self) -> float:
        return HEIGHT


def bars(
    values: Sequence[float | None], names: Sequence[str], *, what: str, say: Say
) -> Picture | None:
    """Columns from zero; None when there is nothing to draw."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    top = nice_above(max(known)) or 1.0
    marks = [
        Mark(
            x=_x(at),
            y=_y(value, 0.0, top),
            height=HEIGHT - _y(value, 0.0, top),
            title=f"{name}: {say(value)}",
        )
        for at, (value, name) in enumerate(zip(values, names, strict=True))
        if value is not None
    ]
    return Picture(
        width=_width(values), marks=tuple(marks), paths=(), limit=None, top=top, bottom=0.0,
        label=_sentence(what, values, names, say),
    )  # fmt: skip


def line(
    values: Sequence[float | None],
    names: Sequence[str],
    *,
    what: str,
    say: Say,
    limit: float | None = None,
) -> Picture | None:
    """A line from zero, against a limit; None when there is nothing to draw."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    highest = max(known)
    # A limit far above the line would press it flat.
    shown = limit if limit is not None and limit <= 3 * highest else None
    top = nice_above(max(highest, shown or 0.0)) or 1.0
    marks = {
        at: Mark(x=_x(at), y=_y(value, 0.0, top), title=f"{name}: {say(value)}")
        for at, (value, name) in enumerate(zip(values, names, strict=True))
        if value is not None
    }
    told = _sentence(what, values, names, say)
    return Picture(
        width=_width(values),
        marks=tuple(marks.values()),
        paths=_paths(marks),
        limit=None if shown is None else _y(shown, 0.0, top),
        top=top,
        bottom=0.0,
        label=told if limit is None else f"{told} The budget is {say(limit)}.",
    )


def intervals(
    values: Sequence[tuple[float, float, float] | None],
    names: Sequence[str],
    *,
    what: str,
    say: Say,
    bottom: float,
) -> Picture | None:
    """Means (mean, low, high) of 0..1 with their intervals, from `bottom` to 1."""
    means = [None if value is None else value[0] for value in values]
    if not any(value is not None for value in values):
        return None
    marks = {
        at: Mark(
            x=_x(at),
            y=_y(value[0], bottom, 1.0),
            low=_y(value[1], bottom, 1.0),
            high=_y(value[2], bottom, 1.0),
            title=f"{name}: {say(value[0])}, 95 % interval {say(value[1])} to {say(value[2])}",
        )
        for at, (value, name) in enumerate(zip(values, names, strict=True))
        if value is not None
    }
    return Picture(
        width=_width(values), marks=tuple(marks.values()), paths=_paths(marks), limit=None,
        top=1.0, bottom=bottom, label=_sentence(what, means, names, say),
    )  # fmt: skip


def floor_of(lows: Sequence[float]) -> float:
    """Where a scale up to 1 may begin so that all of `lows` can be seen."""
    least = min(lows, default=0.0)
    steps = (0.95, 0.9, 0.8, 0.5)
    return next((at for at in steps if least >= at), 0.0)


def nice_above(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten."""
    if value <= 0:
        return 0.0
    unit: float = 10.0 ** floor(log10(value))
    return next(
        (one * unit for one in (1, 1.5, 2, 3, 4, 5, 6, 8) if one * unit >= value), 10 * unit
    )


def _x(at: int) -> float:
    return (at + 0.5) * STEP


def _y(value: float, bottom: float, top: float) -> float:
    share = (value - bottom) / (top - bottom)
    return round(HEIGHT - PAD / 2 - min(max(share, 0.0), 1.0) * (HEIGHT - PAD), 2)


def _width(values: Sequence[object]) -> float:
    return len(values) * STEP


def _paths(marks: dict[int, Mark]) -> tuple[str, ...]:
    paths: list[list[Mark]] = []
    for at, mark in marks.items():
        if at - 1 in marks:
            paths[-1].append(mark)
        else:
            paths.append([mark])
    return tuple(
        "M" + " L".join(f"{mark.x:g} {mark.y:g}" for mark in path)
        for path in paths
        if len(path) > 1
    )


def _sentence(what: str, values: Sequence[float | None], names: Sequence[str], say: Say) -> str:
    """`p95: 700 ms on 2 Mar, 760 ms on 8 Mar; highest 1,020 ms on 5 Mar.`"""
    known = [(v, name) for v, name in zip(values, names, strict=True) if v is not None]
    (first, began), (last, ended) = known[0], known[-1]
    if len(known) == 1:
        return f"{what}: {say(first)}, {began}."
    (least, low), (most, high) = min(known), max(known)
    told = f"{what}: {say(first)}, {began}, to {say(last)}, {ended}"
    if most == least:
        return f"{told}; the same throughout."
    return f"{told}; lowest {say(least)}, {low}; highest {say(most)}, {high}."
