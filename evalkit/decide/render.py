"""Say a verdict in sentences, and in Markdown for a pull request.

A reader of the finished verdict: it chooses words, never outcomes. Names and ids come
from files that others wrote, so they are cut, cleaned of control characters, and in
Markdown every mark of theirs is written as an entity; a space of no width keeps mentions apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from evalkit.decide.machine import junit, sarif

__all__ = ["comparison_sentence", "headline", "junit", "markdown", "plain", "sarif"]

Comparison: TypeAlias = Mapping[str, Any]

LISTED_CASES = 50
APART_CASES = 5
"""Of the cases that one side alone has, so many of each kind by name."""
LISTED_LINES = 20
LISTED_SLICES = 5
WORST_FIRST = ("regression", "unmeasurable", "inconclusive", "pass")
HEADLINES = {
    "pass": "pass: no drop beyond what is allowed",
    "regression": "regression: quality fell",
    "inconclusive": "inconclusive: too little data to exclude a drop",
    "unmeasurable": "unmeasurable: the candidate could not be compared fairly",
}


def plain(text: object, limit: int = 80) -> str:
    """One line that a terminal shows as it is, at most `limit` long."""
    line = "".join(c if c.isprintable() else "�" for c in str(text))
    return line if len(line) <= limit else line[: limit - 1] + "…"


# --- one comparison -----------------------------------------------------------------


def comparison_sentence(comparison: Comparison) -> str:
    """What the gate says of one comparison, as one sentence."""
    return f"{name_of(comparison)}: {finding(comparison)}{missing_scores(comparison)}"


def name_of(c: Comparison, *, sides: bool = True) -> str:
    """`label on tickets, channel=mail (small/classify@v3 against v2)`."""
    where = f" on {plain(c['golden_set'])}" if c["golden_set"] else ""
    slice_ = f", {plain(c['slice'])}" if c["slice"] else ""
    met = sides_text(c) if sides else ""
    return f"{plain(c['metric'])}{where}{slice_}{f' ({met})' if met else ''}"


def sides_text(c: Comparison) -> str:
    """`small/classify@v3 against v2`; empty where a file does not say."""
    candidate, baseline = c["candidate"], c["baseline"]
    mine = pair_text(candidate)
    if not mine or baseline is None:
        return mine
    other = pair_text(baseline)
    if mine == other:
        return mine
    same = all(candidate[key] == baseline[key] for key in ("model", "prompt_name"))
    shown = plain(baseline["prompt_version"]) if same and baseline["prompt_version"] else other
    return f"{mine} against {shown}" if shown else mine


def pair_text(side: Mapping[str, Any]) -> str:
    prompt = "@".join(
        plain(side[key]) for key in ("prompt_name", "prompt_version") if side.get(key)
    )
    return "/".join(
        part for part in (plain(side["model"]) if side["model"] else "", prompt) if part
    )


def finding(c: Comparison) -> str:
    verdict = c["verdict"]
    if verdict == "unmeasurable":
        return f"cannot be measured: {plain(c['reason'], 300)}"
    if verdict == "regression":
        return f"{_moved(c)}, {p_text(c['p_adjusted'])}{_corrected(c)}"
    if verdict == "inconclusive" and c["method"] == "e-process":
        return f"could not tell: {_moved(c)}, not decided when the run ended after {c['n']} cases"
    if verdict == "inconclusive":
        return f"could not tell: {_what_would_tell(c)}; here {_moved(c)}"
    return f"no drop of {_asked(c['max_drop'])} points: {_moved(c)}"


def _moved(c: Comparison) -> str:
    delta, (low, high) = c["delta"], c["ci"]
    if abs(delta) < 0.0005:
        return f"quality is the same ({_interval(c, low, high)})"
    if delta > 0:
        return f"quality rose by {_counted(delta)} ({_interval(c, low, high)})"
    return f"quality fell by {_counted(-delta)} ({_interval(c, -high, -low)})"


def _interval(c: Comparison, low: float, high: float) -> str:
    return f"{_level(c)} interval {points(low)} to {points(high)}"


def _level(c: Comparison) -> str:
    return f"{100 * c['confidence']:.3g} %"


def points(share: float) -> str:
    """A share of 1 as points, no decimals where there are none."""
    text = f"{100 * share:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text.replace("-", "−")


def _asked(max_drop: float) -> str:
    """A limit in points as it was written: a small one is not none."""
    return f"{100 * max_drop:g}"


def _counted(share: float) -> str:
    text = points(share)
    return f"{text} point{'s' * (text != '1')}"


def p_text(p: float) -> str:
    if p < 0.0001:
        return "p < 0.0001"
    return f"p = {p:.2f}" if p >= 0.1 else f"p = {p:.2g}"


def _corrected(c: Comparison) -> str:
    n = c["family_size"]
    return f" after correcting for {n} comparisons" if n > 1 else ""


def _what_would_tell(c: Comparison) -> str:
    mde = c["mde"]
    misses = (
        "would miss any drop" if mde is None else f"would miss drops under {points(mde)} points"
    )
    ways = []
    if c["cases_needed"] is not None and c["cases_needed"] > c["n"]:
        ways.append(f"{c['cases_needed'] - c['n']:,} more cases")
    if c["trials_needed"] is not None and c["trials_needed"] > (c["trials"] or 1):
        more = c["trials_needed"] - (c["trials"] or 1)
        ways.append(f"{more:,} more trial{'s' * (more != 1)}")
    if c.get("people") and c["people"]["more_labels"]:
        ways.append(f"{c['people']['more_labels']:,} more labelled cases")
    told = f"; {' or '.join(ways)} would show a drop of {_asked(c['max_drop'])}" if ways else ""
    return f"this golden set {misses}{told}"


def missing_scores(c: Comparison) -> str:
    parts = []
    for side, counts in c["missing"]["outcomes"].items():
        if counts:
            kinds = ", ".join(f"{n} {plain(kind)}" for kind, n in counts.items())
            parts.append(f"{side} without a score: {kinds}")
    if c["missing"]["unpaired"]:
        parts.append(f"{c['missing']['unpaired']} cases are not on both sides{_apart(c)}")
    return f" [{'; '.join(parts)}]" if parts else ""


def _apart(c: Comparison) -> str:
    """Which cases came and went, a few of each by name."""
    apart = c["missing"].get("apart") or {}
    said = []
    for why, ids in apart.items():
        more = f" and {len(ids) - APART_CASES:,} more" if len(ids) > APART_CASES else ""
        said.append(f"{why}: {', '.join(plain(i, 60) for i in ids[:APART_CASES])}{more}")
    return f" ({'; '.join(said)})" if said else ""


# --- the whole ----------------------------------------------------------------------


def headline(verdict: Mapping[str, Any]) -> str:
    """The overall word, and what is worst in a few words."""
    word = verdict["verdict"]
    failed = len(verdict["must_pass_failures"])
    gating = [c for c in verdict["comparisons"] if c["gate"]]
    fell = sum(c["verdict"] == "regression" for c in gating)
    if word == "regression" and failed and not fell:
        return f"regression: {failed} must-pass score{'s' * (failed != 1)} failed"
    if not gating and word == "pass":
        return "pass: nothing was compared"
    of = f" in {fell} of {len(gating)} comparisons" if fell and len(gating) > 1 else ""
    also = f", and {failed} must-pass score{'s' * (failed != 1)} failed" if failed else ""
    return HEADLINES[word] + of + also


def look_here(
    verdict: Mapping[str, Any], *, name: Callable[[Comparison], str] | None = None
) -> list[str]:
    """What fell without being able to fail the build: metrics, then slices, the worst first."""
    named = name or name_of
    found = sorted((c for c in verdict["comparisons"] if c["look_here"]), key=lambda c: c["delta"])
    lines, slices = [], dict[str, list[Comparison]]()
    for c in found:
        if c["slice"]:
            slices.setdefault(named({**c, "slice": None}), []).append(c)
        else:
            lines.append(f"{named(c)}: {_moved(c)}, {p_text(c['p_adjusted'])}{missing_scores(c)}")
    for subject, parts in slices.items():
        told = [f"{plain(c['slice'])} by {points(-c['delta'])}" for c in parts[:LISTED_SLICES]]
        more = f" and {len(parts) - LISTED_SLICES} more" if len(parts) > LISTED_SLICES else ""
        lines.append(f"{subject} fell in {', '.join(told)} points{more}")
    return lines


def _listed(ids: Sequence[str]) -> str:
    shown = ", ".join(plain(i, 60) for i in ids[:LISTED_CASES])
    more = len(ids) - LISTED_CASES
    return f"{shown} and {more} more" if more > 0 else shown


def _bounded(lines: Sequence[str]) -> list[str]:
    more = len(lines) - LISTED_LINES
    return [*lines[:LISTED_LINES], *([f"… and {more} more"] if more > 0 else [])]


def must_pass_sentence(entry: Mapping[str, Any]) -> str:
    """Which case failed what it has to pass, and why."""
    why = f": {plain(entry['reason'], 120)}" if entry.get("reason") else ""
    return (
        f"must-pass case {plain(entry['case_id'])} failed {plain(entry['metric'])} "
        f"({plain(entry['golden_set'])}, {pair_text(entry)}){why}"
    )


def budget_sentences(verdict: Mapping[str, Any]) -> list[str]:
    """Latency and cost, where the candidate's differ by more than a tenth."""
    lines = []
    units = {"latency_ms": ("latency", "ms", 0), "cost_usd": ("cost per call", "USD", 6)}
    for name, entries in verdict["budget"].items():
        what, unit, digits = units[name]
        for entry in entries:
            before, after = entry["baseline"], entry["candidate"]
            if not before["mean"] or after["mean"] is None:
                continue
            if abs(after["mean"] / before["mean"] - 1) <= 0.1:
                continue
            lines.append(
                f"{what} on {plain(entry['golden_set'])}: mean {after['mean']:,.{digits}f} {unit}, "
                f"was {before['mean']:,.{digits}f}; p95 {after['p95']:,.{digits}f} {unit}, "
                f"was {before['p95']:,.{digits}f}"
            )
    return lines


# --- Markdown -----------------------------------------------------------------------

_MARKS = re.compile(
    r"[\\`*_{}\[\]<>|~$#@&]"  # markup, HTML, tables, mathematics, mentions
    r"|:(?! )"  # emoji, and the colon of a URL
    r"|\.(?! |$)(?<!\d\.(?=\d))"  # www. and mail domains, but not the point of a number
    r"|^(?:[-+= ]|\d(?=\d*[.)] ))"  # lists, rules, headings and code, where a line begins
)
_SOUGHT = re.compile(r"(&#64;|&#35;|\bgh-(?=\d))", re.IGNORECASE)
"""By which GitHub finds people and issues once Markdown is read, entities and all."""


def markdown(verdict: Mapping[str, Any]) -> str:
    """The verdict for a step summary or a pull request comment."""
    return "\n".join(_markdown_lines(verdict)) + "\n"


def escaped(text: object, limit: int = 80) -> str:
    """Text of others as Markdown that shows it and does nothing else."""
    shown = _MARKS.sub(lambda mark: f"&#{ord(mark[0])};", plain(text, limit))
    return _SOUGHT.sub(r"\1&#8203;", shown)


def _markdown_lines(verdict: Mapping[str, Any]) -> Iterator[str]:
    yield f"### {escaped(headline(verdict), 200)}"
    yield ""
    gating = [c for c in verdict["comparisons"] if c["gate"]]
    if gating:
        yield "| metric | baseline | candidate | change, points | interval | p | verdict |"
        yield "|---|--:|--:|--:|:-:|--:|---|"
    gating.sort(key=lambda c: WORST_FIRST.index(c["verdict"]))
    for comparison in gating[:LISTED_CASES]:
        yield _markdown_row(comparison)
    if gating:
        yield ""
    sentences = [comparison_sentence(c) for c in gating if c["verdict"] != "pass"]
    sentences += [f"look here: {sentence}" for sentence in look_here(verdict)]
    sentences += [must_pass_sentence(entry) for entry in verdict["must_pass_failures"]]
    sentences += budget_sentences(verdict)
    sentences += [f"note: {note}" for note in verdict["notes"]]
    for sentence in _bounded(sentences):
        yield f"- {escaped(sentence, 600)}"
    for comparison in gating:
        if comparison["verdict"] == "regression" and comparison["regressed_cases"]:
            yield ""
            subject = escaped(name_of(comparison), 200)
            yield f"<details><summary>{subject}: cases that fell</summary>"
            yield ""
            yield escaped(_listed(comparison["regressed_cases"]), 4_000)
            yield ""
            yield "</details>"


def _markdown_row(c: Comparison) -> str:
    low_high = "-" if c["ci"] is None else f"{points(c['ci'][0])} to {points(c['ci'][1])}"
    cells = (
        escaped(name_of(c), 200),
        _share(c["baseline_mean"]),
        _share(c["candidate_mean"]),
        "-" if c["delta"] is None else points(c["delta"]),
        low_high,
        "-" if c["p_adjusted"] is None else re.sub("^p (= )?", "", p_text(c["p_adjusted"])),
        f"**{c['verdict']}**" if c["verdict"] != "pass" else "pass",
    )  # fmt: skip
    return f"| {' | '.join(cell.replace('<', '&lt;') for cell in cells)} |"


def _share(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.3f}"
