"""Lay a verdict out for a terminal: the answer first, what matters next, all on a screen.

A reader of the finished verdict, like `render`, whose sentences it wraps at the terminal's
width. Every list is bounded and says how much more there is; `--json` has it all. Colour is
the caller's, and carries nothing that words do not.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any, Literal, TypeAlias

from evalkit.decide.render import (
    budget_sentences,
    finding,
    headline,
    look_here,
    missing_scores,
    must_pass_sentence,
    name_of,
    p_text,
    plain,
    sides_text,
)

Comparison: TypeAlias = Mapping[str, Any]
Role: TypeAlias = Literal["regression", "unmeasurable", "inconclusive", "pass", "quiet"]
Paint: TypeAlias = Callable[[str, Role, bool], str]
"""(text, role, bold) -> the text as the terminal shows it."""

Column: TypeAlias = tuple[str, ...]
"""A column of a table, its title first."""

WIDTH = 100
NARROWEST, WIDEST = 60, 120
SHOWN_CASES = 10
SHOWN_LOOKS = 5
SHOWN_LINES = 10
SHOWN_PASSES = 40
SHOWN_MEETINGS = 8
SHORTEST_NAME, LONGEST_NAME = 12, 40


def unpainted(text: str, role: Role, bold: bool) -> str:
    return text


def verdict_lines(
    verdict: Mapping[str, Any], *, width: int = WIDTH, paint: Paint = unpainted
) -> list[str]:
    """The verdict for people, no line longer than `width`."""
    return _Page(verdict, min(max(width, NARROWEST), WIDEST), paint).lines()


class _Page:
    """One verdict at one width."""

    def __init__(self, verdict: Mapping[str, Any], width: int, paint: Paint) -> None:
        self._verdict, self._width, self._paint = verdict, width, paint
        self._gating = [c for c in verdict["comparisons"] if c["gate"]]
        meetings = {(c["golden_set"], sides_text(c)) for c in self._gating}
        sets = [golden_set for golden_set, _ in meetings]
        self._several = {one for one in sets if sets.count(one) > 1}
        """Golden sets on which more than two pairs met: there the pairs are named."""

    def lines(self) -> list[str]:
        sections = [
            self._head(),
            self._regressions(),
            self._must_pass(),
            self._sentences("unmeasurable"),
            self._first_run(),
            self._sentences("inconclusive"),
            self._passes(),
            self._section(
                "look here: these fell, and do not gate",
                self._looks(),
                most=SHOWN_LOOKS,
                role="quiet",
            ),
            self._section("speed and cost", budget_sentences(self._verdict), role="quiet"),
            self._section("notes", [plain(n, 400) for n in self._verdict["notes"]], role="quiet"),
        ]
        return [line for section in filter(None, sections) for line in ("", *section)][1:]

    # --- parts --------------------------------------------------------------------

    def _head(self) -> list[str]:
        word = self._verdict["verdict"]
        lines = [
            self._paint(line, word, True) for line in wrap(headline(self._verdict), self._width)
        ]
        compared = self._gating or self._verdict["comparisons"]
        for side in ("candidate", "baseline"):
            names = list(dict.fromkeys(_source(c[side]) for c in compared if c[side]))
            if names:
                more = f" and {len(names) - 2} more" if len(names) > 2 else ""
                lines += self._wrapped(f"{side:<9}  {', '.join(names[:2])}{more}", hang=11)
        return lines + self._meetings(compared)

    def _meetings(self, compared: Sequence[Comparison]) -> list[str]:
        """Which pairs met on which golden set."""
        met = dict.fromkeys(
            (plain(c["golden_set"] or "", LONGEST_NAME), sides_text(c)) for c in compared
        )
        shown = [(golden_set, sides) for golden_set, sides in met if sides][:SHOWN_MEETINGS]
        wide = max((_cells(golden_set) for golden_set, _ in shown), default=0)
        lines = [
            line
            for golden_set, sides in shown
            for line in self._wrapped(
                f"{_padded(golden_set, wide)}  {sides}".strip(), hang=wide + 2
            )
        ]
        more = len(met) - SHOWN_MEETINGS
        return [*lines, *([f"and {more} more pairs"] if more > 0 else [])]

    def _regressions(self) -> list[str]:
        lines = []
        for c in self._of("regression")[:SHOWN_LINES]:
            lines += self._item(self._sentence(c))
            cases = c["regressed_cases"]
            if cases:
                listed = ", ".join(plain(case, LONGEST_NAME) for case in cases[:SHOWN_CASES])
                more = max(c.get("losses") or 0, len(cases)) - SHOWN_CASES
                listed += _and_more(more)
                lines += self._wrapped(f"    cases that fell: {listed}", hang=6)
        return self._titled("regression", lines, len(self._of("regression")))

    def _sentences(self, word: Role) -> list[str]:
        found = self._of(word)
        lines = [line for c in found[:SHOWN_LINES] for line in self._item(self._sentence(c))]
        return self._titled(word, lines, len(found))

    def _first_run(self) -> list[str]:
        """What to do where there was nothing to compare with."""
        alone = [
            c["candidate"]["run_id"]
            for c in self._of("unmeasurable")
            if not c["baseline"] and str(c["reason"]).startswith("no baseline")
        ]
        if not alone or alone[0] is None:
            return []
        return self._wrapped(
            f"compare later runs with this one: evalkit baseline set {plain(alone[0])}", hang=4
        )

    def _titled(self, word: Role, lines: list[str], n: int) -> list[str]:
        if not lines:
            return []
        more = [f"  and {n - SHOWN_LINES} more"] if n > SHOWN_LINES else []
        return [self._paint(word, word, False), *lines, *more]

    def _must_pass(self) -> list[str]:
        failures = [must_pass_sentence(entry) for entry in self._verdict["must_pass_failures"]]
        return self._section("must-pass cases that failed", failures, role="regression")

    def _passes(self) -> list[str]:
        """Every comparison that passed, a row each."""
        passed = self._of("pass")
        if not passed:
            return []
        change = f"points ({100 * passed[0]['confidence']:.3g} % interval)"
        head = ("golden set", "metric", "baseline → candidate", change, "p of a drop", "verdict")
        rows = [head, *(self._row(c) for c in passed[:SHOWN_PASSES])]
        columns = list(zip(*rows, strict=True))
        if len(set(columns[0][1:])) == 1:
            columns = columns[1:]
        columns = self._narrowed(columns)
        wide = [max(map(_cells, column)) for column in columns]
        title, *lines = (
            "  " + "  ".join(map(_padded, row, wide)).rstrip() for row in zip(*columns, strict=True)
        )
        more = len(passed) - SHOWN_PASSES
        return [
            self._paint("pass", "pass", False),
            self._paint(title, "quiet", False),
            *lines,
            *([f"  and {more} more"] if more > 0 else []),
        ]

    def _row(self, c: Comparison) -> tuple[str, ...]:
        name = plain(c["metric"], LONGEST_NAME) + (f", {plain(c['slice'])}" if c["slice"] else "")
        if c["golden_set"] in self._several:
            name += f" ({sides_text(c)})"
        low, high = c["ci"]
        rose = c.get("p_improvement") is not None and c["p_improvement"] < self._verdict["alpha"]
        return (
            plain(c["golden_set"] or "", LONGEST_NAME),
            name,
            f"{_share(c['baseline_mean'])} → {_share(c['candidate_mean'])}",
            f"{_fixed(c['delta'], '+')} ({_fixed(low)} to {_fixed(high)})",
            p_text(c["p_adjusted"]).removeprefix("p ").removeprefix("= "),
            "pass, rose" if rose else "pass",
        )

    def _narrowed(self, columns: list[Column]) -> list[Column]:
        """The columns that fit: the p-value goes first, then the means; names are cut."""
        names, (means, change, p, verdict) = columns[:-4], columns[-4:]
        room = 0
        for figures in ([means, change, p, verdict], [means, change, verdict], [change, verdict]):
            taken = sum(max(map(_cells, column)) + 2 for column in figures) + 2 * len(names)
            room = (self._width - taken) // len(names)
            if room >= SHORTEST_NAME:
                break
        return [tuple(plain(cell, max(room, 8)) for cell in column) for column in names] + figures

    def _looks(self) -> list[str]:
        return look_here(self._verdict, name=self._name)

    # --- lines --------------------------------------------------------------------

    def _of(self, word: Role) -> list[Comparison]:
        return [c for c in self._gating if c["verdict"] == word]

    def _name(self, c: Comparison) -> str:
        return name_of(c, sides=c["golden_set"] in self._several)

    def _sentence(self, c: Comparison) -> str:
        return f"{self._name(c)}: {finding(c)}{missing_scores(c)}"

    def _section(
        self, title: str, sentences: Iterable[str], *, role: Role, most: int = SHOWN_LINES
    ) -> list[str]:
        listed = list(sentences)
        if not listed:
            return []
        more = len(listed) - most
        return [
            self._paint(title, role, False),
            *(line for sentence in listed[:most] for line in self._item(sentence)),
            *([f"  and {more} more: --json and --html have all"] if more > 0 else []),
        ]

    def _item(self, text: str) -> list[str]:
        return self._wrapped(f"  {text}", hang=4)

    def _wrapped(self, text: str, *, hang: int) -> list[str]:
        lines = wrap(text, self._width, subsequent_indent=" " * hang, break_on_hyphens=False)
        return [line.replace(_TIE, " ") for line in lines]


_TIE = "\u00a0"
"""A space at which no line ends."""


def _and_more(n: int) -> str:
    return f" and{_TIE}{n:,}{_TIE}more" if n > 0 else ""


def _source(side: Mapping[str, Any]) -> str:
    """A run, with how many were pooled with it; or a file."""
    if side["run_id"] is None:
        return plain(side.get("file") or "", LONGEST_NAME)
    pooled = len(side.get("run_ids") or ()) - 1
    return f"run {plain(side['run_id'])}" + (f" pooled with {pooled} more" if pooled > 0 else "")


def _fixed(share: float, sign: str = "") -> str:
    """A share as points with one decimal, so that columns line up."""
    text = format(100 * share, f"{sign}.1f").replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def _share(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.3f}"


def _cells(text: str) -> int:
    """Columns of a terminal that `text` takes."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _padded(text: str, wide: int) -> str:
    return text + " " * (wide - _cells(text))
