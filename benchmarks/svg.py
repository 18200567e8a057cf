"""Write small charts as plain SVG: one panel with axes, lines, dots, intervals and words.

Coordinates are the data's; pixels are made here. The file is readable text, the same for
the same data, and needs no plotting library.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

BLUE, RED, GREY, INK, GREEN = "#2563eb", "#c2410c", "#9ca3af", "#1f2937", "#15803d"
LEFT, RIGHT, TOP, BOTTOM = 64.0, 24.0, 44.0, 52.0


class Chart:
    """One panel; x and y ranges are given, nothing is scaled behind one's back."""

    def __init__(
        self, title: str, *, x: tuple[float, float], y: tuple[float, float],
        size: tuple[int, int] = (720, 360), left: float = LEFT,
    ) -> None:  # fmt: skip
        self._x, self._y, self._size, self._left = x, y, size, left
        self._parts: list[str] = []
        self.words(left, 24, title, pixels=True, size=15, bold=True)

    def across(self, value: float) -> float:
        low, high = self._x
        return self._left + (value - low) / (high - low) * (self._size[0] - self._left - RIGHT)

    def up(self, value: float) -> float:
        low, high = self._y
        return (
            self._size[1] - BOTTOM - (value - low) / (high - low) * (self._size[1] - TOP - BOTTOM)
        )

    def axis_x(self, ticks: Sequence[tuple[float, str]], label: str) -> None:
        bottom = self._size[1] - BOTTOM
        for value, text in ticks:
            self._line(self.across(value), TOP, self.across(value), bottom, "#e5e7eb", 1)
            self.words(self.across(value), bottom + 18, text, pixels=True, anchor="middle")
        middle = (self._left + self._size[0] - RIGHT) / 2
        self.words(middle, bottom + 40, label, pixels=True, anchor="middle", colour=INK)

    def axis_y(self, ticks: Sequence[tuple[float, str]]) -> None:
        for value, text in ticks:
            height = self.up(value)
            self._line(self._left, height, self._size[0] - RIGHT, height, "#e5e7eb", 1)
            self.words(self._left - 8, height + 4, text, pixels=True, anchor="end")

    def vertical(self, x: float, colour: str, text: str = "", *, dashed: bool = True) -> None:
        self._line(self.across(x), TOP, self.across(x), self._size[1] - BOTTOM, colour, 1.5, dashed)
        self.words(self.across(x) + 4, TOP + 10, text, pixels=True, colour=colour, size=11)

    def horizontal(self, y: float, colour: str, text: str = "") -> None:
        self._line(self._left, self.up(y), self._size[0] - RIGHT, self.up(y), colour, 1.5, True)
        edge = self._size[0] - RIGHT
        self.words(edge, self.up(y) - 5, text, pixels=True, colour=colour, anchor="end", size=11)

    def path(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        at = " ".join(f"{self.across(x):.1f},{self.up(y):.1f}" for x, y in points)
        self._parts.append(
            f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        for x, y in points:
            self.dot(x, y, colour)

    def dot(self, x: float, y: float, colour: str, radius: float = 3.0) -> None:
        self._parts.append(
            f'<circle cx="{self.across(x):.1f}" cy="{self.up(y):.1f}" r="{radius:g}" '
            f'fill="{colour}"/>'
        )

    def bar(self, x: float, width: float, height: float, colour: str) -> None:
        top, bottom = self.up(height), self.up(self._y[0])
        left, right = self.across(x - width / 2), self.across(x + width / 2)
        self._parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
            f'height="{max(bottom - top, 0):.1f}" fill="{colour}"/>'
        )

    def interval(self, low: float, middle: float, high: float, y: float, colour: str) -> None:
        height = self.up(y)
        self._line(self.across(low), height, self.across(high), height, colour, 3)
        for end in (low, high):
            self._line(self.across(end), height - 5, self.across(end), height + 5, colour, 2)
        self.dot(middle, y, colour, 4.5)

    def words(
        self, x: float, y: float, text: str, *, pixels: bool = False, colour: str = "#4b5563",
        anchor: str = "start", size: int = 12, bold: bool = False,
    ) -> None:  # fmt: skip
        if not text:
            return
        left, top = (x, y) if pixels else (self.across(x), self.up(y))
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{left:.1f}" y="{top:.1f}" text-anchor="{anchor}" font-size="{size}" '
            f'fill="{colour}"{weight}>{escape(text)}</text>'
        )

    def _line(
        self, x1: float, y1: float, x2: float, y2: float, colour: str, width: float,
        dashed: bool = False,
    ) -> None:  # fmt: skip
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        self._parts.append(
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
            f'stroke-width="{width:g}"{dash}/>'
        )

    def write(self, path: Path) -> None:
        width, height = self._size
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="system-ui, sans-serif">'
        )
        back = f'<rect width="{width}" height="{height}" fill="#ffffff"/>'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([head, back, *self._parts, "</svg>"]) + "\n", encoding="utf-8")
