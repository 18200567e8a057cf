"""Observations by day, as series; and rows of counts or scores as these.

The ground that `series` and `input_series` stand on: it reads nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from evalkit.decide.sequential import Floats

Worse = Literal["below", "above"]

USUAL_DAYS = 7
"""What is usual is learnt in the first days."""
DAY = 86_400_000_000
PAIR = ("feature", "model", "prompt_version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A day's observations: each value and weight so many times."""

    at: int
    """The day's beginning, microseconds since 1970."""
    values: Floats
    weights: Floats
    """Inverse chances over the largest of the day, 0..1: no later day changes what is bet."""
    counts: Floats
    least: float = 1.0
    """The day's smallest chance: over it, weights of several days can be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Observations by day, in the days' order."""

    names: tuple[str, str, str, str]
    """Feature, model, prompt version, metric; empty where it is of all of them."""
    blocks: Sequence[Block]
    worse: Worse
    family: str = ""
    """What series of one question have in common, such as `language mix`; else the metric."""
    version: str = ""
    """Of the scorer."""
    is_current: bool = True
    """Whether it goes on: a scorer's new version begins another."""

    @property
    def key(self) -> str:
        feature, model, prompt_version, metric = self.names
        if not model:
            return f"{feature}/{metric}"
        return f"{feature}/{model}@{prompt_version or '?'}/{metric}"

    @property
    def question(self) -> tuple[str, ...]:
        """What it shares its part of alpha with: the other kinds of one mix."""
        return (*self.names[:3], self.family or self.names[3], self.version)


def share_series(
    rows: Iterator[dict[str, Any]] | Sequence[dict[str, Any]], *, family: str = ""
) -> Iterator[Series]:
    """Rows (`k` of `n` calls, of a series and a day counted since 1970) as series of shares."""
    counted = [
        {**row, "day": row["day"] * DAY, "value": value, "p": 1.0, "n": count}
        for row in rows
        for value, count in ((0.0, row["n"] - row["k"]), (1.0, row["k"]))
        if count
    ]
    yield from made_series(counted, worse="above", family=family)


def made_series(
    rows: Sequence[Mapping[str, Any]], *, worse: Worse, family: str = ""
) -> Iterator[Series]:
    """Rows (a value, its chance, how many, of a series and day) in their order as series."""
    found: dict[tuple[Any, ...], dict[int, list[Mapping[str, Any]]]] = {}
    for row in rows:
        names = (*(row[name] or "" for name in PAIR), row["metric"])
        key = (names, row.get("version") or "", row.get("is_current", True))
        found.setdefault(key, {}).setdefault(row["day"], []).append(row)
    for (names, version, is_current), days in found.items():
        blocks = [_block(day, of_day) for day, of_day in sorted(days.items())]
        yield Series(
            names=names, blocks=blocks, worse=worse, family=family, version=version,
            is_current=is_current,
        )  # fmt: skip


def _block(day: int, rows: Sequence[Mapping[str, Any]]) -> Block:
    chances = np.array([row["p"] for row in rows], dtype=np.float64)
    return Block(
        at=day,
        values=np.array([row["value"] for row in rows], dtype=np.float64),
        weights=chances.min() / chances,
        counts=np.array([row["n"] for row in rows], dtype=np.float64),
        least=float(chances.min()),
    )
