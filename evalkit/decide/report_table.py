"""Hand all cases of a report to its script, as data that a browser never runs.

Part of the report. One JSON document in an inert element of the page; the script puts it
into the page as text, a page of rows at a time. The more cases, the less of each text, so
that a report of ten thousand loads at once. Nothing hidden is left in any text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from evalkit.decide.pairing import find_sql
from evalkit.decide.report_cases import Meeting
from evalkit.decide.report_text import readable_output, readable_value, visible

if TYPE_CHECKING:
    from evalkit.store.views import Engine

Row: TypeAlias = Mapping[str, Any]

MAX_CASES = 20_000
TEXT_BUDGET = 6_000_000
"""Characters of input, answers and reasons together, about."""
TEXTS = 5
MIN_CHARS, MAX_CHARS = 100, 2_000
FETCHED_CHARS = 4_000
"""More than is shown: JSON is laid out before it is cut."""
HTML_SAFE = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}
"""No text can end the element it stands in, or start another."""


def case_table(engine: Engine, meetings: Sequence[Meeting], *, project: Path) -> dict[str, Any]:
    """All cases as plain data, those that lost most first; how many are left out is said."""
    count = "SELECT count(DISTINCT (meeting, case_id, case_hash)) AS n FROM side_rows"
    n_cases = int(engine.rows(count)[0]["n"])
    if not n_cases:
        return {}
    at_most_chars = chars_each(n_cases)
    rows = engine.rows(
        find_sql("report_case_table", project=project),
        {
            "at_most": MAX_CASES,
            "at_most_chars": at_most_chars,
            "fetched_chars": max(FETCHED_CHARS, at_most_chars),
        },
    )
    metrics = _metrics_of(rows, meetings)
    names, slices = _Names(metrics), _Names()
    return {
        "cases": [_case(row, names, slices, at_most_chars) for row in rows],
        "metrics": names.all,
        "gates": sorted({names.of(metric) for m in meetings for metric in m.gates}),
        "slices": slices.all,
        "sets": [visible(meeting.golden_set) for meeting in meetings],
        "compared": any(meeting.baseline is not None for meeting in meetings),
        "more": max(0, n_cases - len(rows)),
    }


def chars_each(n_cases: int) -> int:
    """How much of each text is shown with so many cases."""
    return min(MAX_CHARS, max(MIN_CHARS, TEXT_BUDGET // (TEXTS * min(n_cases, MAX_CASES))))


def as_inert_json(data: Any) -> str:
    """JSON that can stand in an HTML script element, whatever it holds."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(HTML_SAFE)


class _Names:
    """Texts by number, each written once."""

    def __init__(self, first: Sequence[str] = ()) -> None:
        self._numbers: dict[str, int] = {}
        self.all: list[str] = []
        for name in first:
            self.of(name)

    def of(self, name: str) -> int:
        if name not in self._numbers:
            self._numbers[name] = len(self.all)
            self.all.append(visible(name))
        return self._numbers[name]


def _metrics_of(rows: Sequence[Row], meetings: Sequence[Meeting]) -> list[str]:
    """What gates comes first."""
    gates = [metric for meeting in meetings for metric in meeting.gates]
    return list(dict.fromkeys([*gates, *(metric for row in rows for metric in row["metrics"])]))


def _case(row: Row, metrics: _Names, slices: _Names, at_most: int) -> list[Any]:
    """One case as the script reads it; see `report.js`."""
    return [
        visible(row["case_id"]),
        int(row["meeting"]),
        [slices.of(f"{key}={value}") for key, value in (row["slices"] or {}).items()],
        [metrics.of(metric) for metric in row["metrics"]],
        row["before"],
        row["after"],
        int(row["flaky"]),
        row["outcome"] or "",
        _input(row["input"], at_most),
        _answer(row["output_before"], at_most),
        _answer(row["output_after"], at_most),
        _said(row["said_before"]),
        _said(row["said_after"]),
    ]


def _input(text: str | None, at_most: int) -> str | None:
    if text is None:
        return None
    try:
        return _cut(readable_value(json.loads(text)), at_most)
    except (ValueError, RecursionError):
        return _cut(text, at_most)  # longer than what was fetched of it


def _answer(text: str | None, at_most: int) -> str | None:
    return None if text is None else _cut(readable_output(text), at_most)


def _cut(text: str, at_most: int) -> str:
    return visible(text[: at_most - 1] + "…" if len(text) >= at_most else text)


def _said(said: Mapping[str, str] | None) -> str | None:
    return None if not said else visible(f"{said['metric']}: {said['reason']}")
