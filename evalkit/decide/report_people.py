"""What the report shows of comparisons that people's labels corrected: three estimates, a row each.

From the finished verdict alone; verdicts kept by older versions have none of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evalkit.decide.report_text import points

WAYS = ("judge_only", "labels_only", "combined")


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """One metric: what the judge, people, and both together say of the change."""

    golden_set: str
    metric: str
    said: tuple[str, ...]
    """In the order of WAYS, in points with the interval."""
    n_labelled: int
    more: str
    """How many more labelled cases would decide."""


def side_by_side(verdict: Mapping[str, Any]) -> Iterator[Beside]:
    """The comparisons over all cases that labels had a part in."""
    for one in verdict["comparisons"]:
        people = one.get("people") or {}
        if one.get("slice") is not None or any(way not in people for way in WAYS):
            continue
        yield Beside(
            golden_set=one.get("golden_set") or "",
            metric=one["metric"],
            said=tuple(_shown(people[way]) for way in WAYS),
            n_labelled=people["n_labelled"],
            more=_more(one["verdict"], people.get("more_labels")),
        )


def _shown(estimate: Mapping[str, Any]) -> str:
    ends = estimate.get("ci")
    if estimate.get("delta") is None or ends is None:
        return "not known"
    return f"{points(estimate['delta'])} ({points(ends[0])} to {points(ends[1])})"


def _more(word: str, more: int | None) -> str:
    """Labels are asked for only where they could still decide."""
    if word != "inconclusive":
        return "none"
    return "more cases are needed" if more is None else f"{more:,}"
