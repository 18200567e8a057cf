"""Arrange a verdict's comparisons: what gates, what has to pass, what is only shown.

Part of the report: reads a finished verdict and decides nothing. A metric that has to pass
is not held to its change from the baseline, so it says how many cases failed it instead.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from evalkit.decide.must_pass import need_not_pass
from evalkit.decide.report_sentences import Entry, Verdict, advisory, gating

Held = Collection[tuple[str, str]]
"""(golden set, metric) of which no case may fail."""


class State(NamedTuple):
    """How a metric that has to pass did."""

    word: str
    """The verdict that it amounts to."""
    told: str


def must_pass(verdict: Verdict | None, runs: Iterable[Mapping[str, Any]]) -> Held:
    """What the runs' golden sets hold to pass, without judges that may fail no build."""
    notes = [str(note) for note in (verdict or {}).get("notes") or ()]
    return {
        (name, str(metric.get("name")))
        for run in runs
        for name, golden in (run.get("golden_sets") or {}).items()
        for metric in golden.get("metrics") or ()
        if metric.get("must_pass")
        and not any(note.startswith(need_not_pass(metric.get("name"), name)) for note in notes)
    }


def compared(verdict: Verdict, held: Held) -> list[dict[str, Any]]:
    """Whole metrics by golden set and the two pairs that met, what gates first."""
    groups: dict[str, dict[str, Any]] = {}
    parts = [("gating", one) for one in gating(verdict)]
    parts += [
        ("must_pass" if (one.get("golden_set") or "", one["metric"]) in held else "advisory", one)
        for one in advisory(verdict)
    ]
    for part, one in parts:
        name = one.get("golden_set") or ""
        key = f"{name}\0{one['candidate']}\0{one.get('baseline')}"
        group = groups.setdefault(
            key,
            {
                "golden_set": name,
                "title": f"Comparisons of {name or 'all cases'}",
                "gating": [],
                "must_pass": [],
                "advisory": [],
                "note": _pairs_note(one),
            },
        )
        group[part].append((one, _state(one, verdict)) if part == "must_pass" else one)
    names = [group["golden_set"] for group in groups.values()]
    for group in groups.values():
        # The page's head names the pairs; here they only tell two tables apart.
        if names.count(group["golden_set"]) == 1:
            group["note"] = ""
    return list(groups.values())


def shown(groups: Iterable[Mapping[str, Any]]) -> list[Entry]:
    """All comparisons of all groups."""
    return [
        one
        for group in groups
        for one in (*group["gating"], *(one for one, _ in group["must_pass"]), *group["advisory"])
    ]


def _state(one: Entry, verdict: Verdict) -> State:
    def cases(entries: Iterable[Entry]) -> int:
        return len({entry.get("case_id") for entry in entries if _is_of(entry, one)})

    failed = cases(verdict.get("must_pass_failures") or ())
    missing = cases(verdict.get("must_pass_missing") or ())
    if failed:
        return State("regression", f"{failed:,} failed")
    if missing:
        return State("unmeasurable", f"{missing:,} not scored")
    if one.get("candidate_mean") is None:
        return State("unmeasurable", "not scored")
    return State("pass", "all passed")


def _is_of(failure: Entry, one: Entry) -> bool:
    """Whether a must-pass failure belongs to a comparison's candidate."""
    side = one["candidate"]
    return (failure.get("golden_set"), failure.get("metric")) == (
        one.get("golden_set"),
        one["metric"],
    ) and all(
        failure[key] == side.get(key)
        for key in ("run_id", "model", "prompt_name", "prompt_version")
        if failure.get(key) is not None
    )


def _pairs_note(one: Entry) -> str:
    def pair(side: Mapping[str, Any]) -> str:
        name, version = side.get("prompt_name") or "", side.get("prompt_version") or ""
        return f"{side.get('model') or ''}/{name}@{version}".strip("/@")

    candidate, baseline = one["candidate"], one.get("baseline")
    return pair(candidate) + (f" against {pair(baseline)}" if baseline else "")
