"""What a verdict holds against a change, each with its line in the golden set.

A reader of the finished verdict, for the formats that point into a repository: SARIF,
GitHub's annotations, GitLab's code quality. The worst come first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evalkit.decide.locations import GoldenLines

Level = Literal["error", "warning", "note"]

RULES = {
    "must-pass": "A case that has to pass failed.",
    "regression": "A gating metric fell beyond chance.",
    "unmeasurable": "What gates could not be measured, or not compared fairly.",
    "inconclusive": "Too little data to exclude a drop.",
    "regressed-case": "A case scores lower than in the baseline.",
}
"""Kinds of finding, the worst first."""

LEVELS: dict[str, Level] = {
    "must-pass": "error",
    "regression": "error",
    "unmeasurable": "error",
    "inconclusive": "warning",
    "regressed-case": "note",
}
MAX_CASES = 50
"""Regressed cases of one comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing, and the file (with slashes, from the project) and line it is about."""

    rule: str
    text: str
    key: str
    """The same from run to run, as long as it is the same thing."""
    place: tuple[str, int] | None
    strict: bool = False
    """Whether the inconclusive fails, too."""

    @property
    def level(self) -> Level:
        return "error" if self.strict and self.rule == "inconclusive" else LEVELS[self.rule]


def findings_of(verdict: Mapping[str, Any], *, root: Path) -> list[Finding]:
    """All findings of a verdict on the project in `root`, the worst first."""
    order = list(RULES)
    return sorted(_findings(verdict, root), key=lambda one: order.index(one.rule))


def _findings(verdict: Mapping[str, Any], root: Path) -> Iterator[Finding]:
    from evalkit.decide.render import comparison_sentence

    lines = {name: GoldenLines.read(root, path) for name, path in verdict["golden_sets"].items()}
    for of, rule, kind, how in (
        ("must_pass_failures", "must-pass", "must-pass", "failed"),
        ("must_pass_missing", "unmeasurable", "must-pass-missing", "has no score"),
    ):
        for entry in verdict[of]:
            known = lines.get(entry["golden_set"])
            yield Finding(
                rule=rule,
                text=_told(entry, how),
                key=_key(kind, entry, entry["metric"], entry["case_id"]),
                place=known.of_case(entry["case_id"]) if known else None,
            )
    for c in verdict["comparisons"]:
        if not c["gate"] or c["verdict"] not in RULES:
            continue
        known = lines.get(c["golden_set"])
        yield Finding(
            rule=c["verdict"],
            text=comparison_sentence(c),
            key=_key("comparison", c, c["metric"], c["slice"]),
            place=known.of_metric(c["metric"]) if known else None,
            strict=verdict["strict"],
        )
        if c["verdict"] == "regression" and known:
            for case_id in c["regressed_cases"][:MAX_CASES]:
                yield Finding(
                    rule="regressed-case",
                    text=f"{case_id}: {c['metric']} is lower than in the baseline",
                    key=_key("case", c, c["metric"], case_id),
                    place=known.of_case(case_id),
                )


def _told(entry: Mapping[str, Any], how: str) -> str:
    why = f": {entry['reason']}" if entry["reason"] else ""
    return f"{entry['case_id']} has to pass {entry['metric']} and {how}{why}"


def _key(kind: str, entry: Mapping[str, Any], *parts: Any) -> str:
    side = entry.get("candidate", entry)
    named = (kind, entry["golden_set"], side["model"], side["prompt_name"], *parts)
    return "\n".join("" if part is None else str(part) for part in named)
