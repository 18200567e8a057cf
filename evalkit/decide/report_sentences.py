"""Say in sentences what a verdict says in fields: the whole first, then why, then where.

Part of the report: reads a finished verdict and decides nothing. Every number in a
sentence stands in the verdict as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from evalkit.decide.report_text import (
    changed_by,
    count,
    dollars,
    interval,
    milliseconds,
    p_value,
    points,
    score,
)

Entry: TypeAlias = Mapping[str, Any]
Verdict: TypeAlias = Mapping[str, Any]

MAX_MUST_PASS = 20
MAX_NAME_CHARS = 60


@dataclass(frozen=True, slots=True)
class Why:
    """One reason for the verdict, or one thing to know about it."""

    word: str
    """The verdict it speaks for; "note" for a remark."""
    what: str
    text: str


def gating(verdict: Verdict) -> list[Entry]:
    return [one for one in verdict["comparisons"] if one.get("gate", one.get("slice") is None)]


def advisory(verdict: Verdict) -> list[Entry]:
    """Whole metrics that are shown and fail nothing."""
    gates = {id(one) for one in gating(verdict)}
    return [
        one for one in verdict["comparisons"] if one.get("slice") is None and id(one) not in gates
    ]


def name_of(entry: Entry) -> str:
    """`label on tickets`, and the slice where it is one."""
    name = _cut(entry["metric"], MAX_NAME_CHARS)
    if entry.get("golden_set"):
        name += f" on {_cut(entry['golden_set'], MAX_NAME_CHARS)}"
    return name + (f" ({_cut(entry['slice'], MAX_NAME_CHARS)})" if entry.get("slice") else "")


def headline(verdict: Verdict) -> str:
    """The whole verdict in one sentence."""
    entries = gating(verdict)
    telling = {
        "regression": _headline_regression,
        "unmeasurable": _headline_unmeasurable,
        "inconclusive": _headline_inconclusive,
        "pass": _headline_pass,
    }
    return telling[verdict["verdict"]](verdict, entries)


def _headline_regression(verdict: Verdict, entries: Sequence[Entry]) -> str:
    dropped = sorted(
        (one for one in entries if one["verdict"] == "regression"), key=lambda one: one["delta"]
    )
    parts = []
    if dropped:
        worst = dropped[0]
        told = (
            f"{name_of(worst)} from {score(worst['baseline_mean'])} to "
            f"{score(worst['candidate_mean'])} ({points(worst['delta'])} points)"
        )
        parts.append(
            f"Quality dropped: {told}"
            if len(entries) == 1
            else f"Quality dropped in {len(dropped)} of {count(len(entries), 'gating metric')}, "
            f"most in {told}"
        )
    failures = verdict.get("must_pass_failures") or []
    if failures:
        cases = {(one.get("golden_set"), one.get("case_id")) for one in failures}
        failed = count(len(cases), "must-pass case")
        parts.append(f"{failed} failed" if parts else f"Failed: {failed} did not pass")
    return "; ".join(parts or ["Quality dropped"]) + "."


def _headline_unmeasurable(verdict: Verdict, entries: Sequence[Entry]) -> str:
    without = [one for one in entries if one["verdict"] == "unmeasurable"]
    if without:
        reason = without[0].get("reason") or "too many cases have no score"
        more = f" (and {len(without) - 1} more)" if len(without) > 1 else ""
        return f"Not measurable: {name_of(without[0])}: {reason}{more}."
    notes = verdict.get("notes") or ["nothing could be compared"]
    return f"Not measurable: {str(notes[0]).rstrip('.')}."


def _headline_inconclusive(verdict: Verdict, entries: Sequence[Entry]) -> str:
    open_ones = [one for one in entries if one["verdict"] == "inconclusive"]
    told = f"{len(open_ones)} of {count(len(entries), 'gating metric')}"
    return (
        f"Too little data: no significant drop, but for {told} a drop of more than "
        f"{_limit(open_ones)} cannot be excluded{_needed(open_ones)}."
    )


def _headline_pass(verdict: Verdict, entries: Sequence[Entry]) -> str:
    if not entries:
        return "Passed: every must-pass metric passed; no metric was compared."
    return (
        f"No significant drop: for {'the' if len(entries) == 1 else 'each of'} "
        f"{count(len(entries), 'gating metric')} a drop of more than {_limit(entries)} is excluded."
    )


def _limit(entries: Sequence[Entry]) -> str:
    limits = {one["max_drop"] for one in entries if one.get("max_drop") is not None}
    if len(limits) != 1:
        return "its limit"
    return f"{100 * limits.pop():g} points"


def _needed(entries: Sequence[Entry]) -> str:
    needed = [one["cases_needed"] for one in entries if one.get("cases_needed")]
    return f"; about {max(needed):,} cases would tell" if needed else ""


# --- why ----------------------------------------------------------------------------


def reasons(verdict: Verdict) -> list[Why]:
    """Why the verdict is what it is, worst first; then what else one should know."""
    level = interval_level(verdict)
    said = [_why(one, level) for one in gating(verdict) if one["verdict"] != "pass"]
    order = ("regression", "unmeasurable", "inconclusive")
    said.sort(key=lambda why: order.index(why.word))
    notes = [Why("note", "", _cut(note, 1000)) for note in verdict.get("notes") or []]
    return [*_must_pass(verdict), *said, *notes]


def interval_level(verdict: Verdict) -> str:
    """What the intervals of a verdict cover: two-sided, for a one-sided test at alpha."""
    return f"{100 * (1 - 2 * verdict['alpha']):g} %"


def _why(entry: Entry, level: str) -> Why:
    word = str(entry["verdict"])
    telling = {"regression": _dropped, "inconclusive": _open, "unmeasurable": _not_measured}
    return Why(word, name_of(entry), telling[word](entry, level) + _missing(entry))


def _dropped(entry: Entry, level: str) -> str:
    changed = ""
    if entry.get("losses") is not None:
        better = entry.get("wins") or 0
        changed = f" {count(entry['losses'], 'case')} got worse, {better:,} better."
    return (
        f"Fell by {abs(100 * entry['delta']):.1f} points over {count(entry['n'], 'case')} "
        f"({level} interval {interval(entry['ci'])}), "
        f"p {p_value(entry['p_adjusted'], sign=True)} after correction for the other metrics."
        + changed
    )


def _open(entry: Entry, level: str) -> str:
    limit = f"{100 * entry['max_drop']:g} points" if entry.get("max_drop") is not None else "that"
    text = (
        f"Changed by {points(entry['delta'])} points over {count(entry['n'], 'case')} "
        f"({level} interval {interval(entry['ci'])}), so a drop of {limit} is still possible."
    )
    if entry.get("cases_needed"):
        text += f" About {entry['cases_needed']:,} cases would exclude it"
        trials = entry.get("trials_needed")
        text += f", or {trials:,} trials of each." if trials else "."
    if entry.get("mde"):
        text += f" A drop of {100 * entry['mde']:.1f} points would be seen 4 times in 5."
    return text


def _not_measured(entry: Entry, level: str) -> str:
    reason = str(entry.get("reason") or "too many cases have no score on both sides")
    return reason[:1].upper() + reason[1:].rstrip(".") + "."


def _missing(entry: Entry) -> str:
    missing = entry.get("missing") or {}
    parts = [
        f"{count(missing[side], 'case')} without a score in the {side}"
        for side in ("baseline", "candidate")
        if missing.get(side)
    ]
    if missing.get("excluded"):
        parts.append(f"{count(missing['excluded'], 'case')} answered by another model")
    if missing.get("unpaired"):
        parts.append(f"{count(missing['unpaired'], 'case')} on one side only, or edited since")
    if not parts:
        return ""
    worst = missing.get("worst_case_verdict")
    as_worst = (
        f" Were they all as bad as can be, the verdict would be: {worst}."
        if worst and worst != entry["verdict"]
        else ""
    )
    return f" Not counted: {'; '.join(parts)}.{as_worst}"


def _must_pass(verdict: Verdict) -> list[Why]:
    failures = verdict.get("must_pass_failures") or []
    said = [
        Why(
            "regression",
            f"must-pass case {_cut(one.get('case_id'), MAX_NAME_CHARS)}"
            + (f" of {_cut(one['golden_set'], MAX_NAME_CHARS)}" if one.get("golden_set") else ""),
            f"Failed {_cut(one.get('metric'), MAX_NAME_CHARS)}. {_cut(one.get('reason'))}".strip(),
        )
        for one in failures[:MAX_MUST_PASS]
    ]
    more = len(failures) - len(said)
    if more > 0:
        said.append(Why("regression", "must-pass cases", f"{more:,} more such failures."))
    absent = verdict.get("must_pass_missing") or []
    if absent:
        ids = ", ".join(str(one.get("case_id")) for one in absent[:MAX_MUST_PASS])
        text = f"{count(len(absent), 'score')} of must-pass cases could not be made: {_cut(ids)}"
        said.append(Why("unmeasurable", "must-pass cases", text))
    return said


def _cut(text: Any, limit: int = 400) -> str:
    whole = "" if text is None else str(text)
    return whole if len(whole) <= limit else whole[: limit - 1] + "…"


# --- what it cost -----------------------------------------------------------------------


def spending(calls: Sequence[Entry], spent: Sequence[Entry]) -> list[str]:
    """What became faster or dearer, and what the runs cost of what they might have."""
    sides: dict[Any, dict[str, Entry]] = {}
    for row in calls:
        sides.setdefault(row["meeting"], {})[row["side"]] = row
    changes = [
        _cost_change(both["baseline"], both["candidate"])
        for both in sides.values()
        if "baseline" in both and "candidate" in both
    ]
    return [*changes, *map(_spent, spent)]


def _cost_change(before: Entry, after: Entry) -> str:
    def told(name: str, show: Callable[[float | None], str]) -> str:
        was, now = show(before[name]), show(after[name])
        by = changed_by(before[name], after[name])
        return f"stayed at {now}" if was == now else f"went from {was} to {now} ({by})"

    return (
        f"{_cut(after['golden_set'], MAX_NAME_CHARS)}: the 95th percentile of latency "
        f"{told('p95_latency_ms', milliseconds)}; the cost of a call "
        f"{told('mean_cost_usd', dollars)}."
    )


def _spent(run: Entry) -> str:
    allowed = run.get("max_cost_usd")
    limit = f" of {dollars(allowed)} allowed" if allowed is not None else ", without a limit set"
    unpriced = f" and {count(run['n_unpriced'], 'unpriced call')}" if run["n_unpriced"] else ""
    return (
        f"Run {run['run_id']} spent {dollars(run['cost_usd'])}{unpriced}{limit}, judges included."
    )
