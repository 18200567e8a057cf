"""Say a verdict in sentences: for the terminal, for pytest, for a pull request.

A reader of the finished verdict: it chooses words, never outcomes. Names and ids come
from files that others wrote, so they are cut, cleaned of control characters, and in
Markdown every mark of theirs is written as an entity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from evalkit.decide.machine import junit, sarif

__all__ = ["comparison_sentence", "junit", "markdown", "plain", "sarif", "verdict_lines"]

Comparison: TypeAlias = Mapping[str, Any]

LISTED_CASES = 50
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
    return f"{_subject(comparison)}: {_finding(comparison)}{_missing(comparison)}"


def _subject(c: Comparison) -> str:
    where = f" on {plain(c['golden_set'])}" if c["golden_set"] else ""
    slice_ = f", {plain(c['slice'])}" if c["slice"] else ""
    sides = _sides(c)
    return f"{plain(c['metric'])}{where}{slice_}{f' ({sides})' if sides else ''}"


def _sides(c: Comparison) -> str:
    """`small/classify@v3 against v2`; empty where a file does not say."""
    candidate, baseline = c["candidate"], c["baseline"]
    mine = _pair(candidate)
    if not mine or baseline is None:
        return mine
    other = _pair(baseline)
    if mine == other:
        return mine
    same = all(candidate[key] == baseline[key] for key in ("model", "prompt_name"))
    shown = plain(baseline["prompt_version"]) if same and baseline["prompt_version"] else other
    return f"{mine} against {shown}" if shown else mine


def _pair(side: Mapping[str, Any]) -> str:
    prompt = "@".join(
        plain(side[key]) for key in ("prompt_name", "prompt_version") if side.get(key)
    )
    return "/".join(
        part for part in (plain(side["model"]) if side["model"] else "", prompt) if part
    )


def _finding(c: Comparison) -> str:
    verdict = c["verdict"]
    if verdict == "unmeasurable":
        return f"cannot be measured: {plain(c['reason'], 300)}"
    if verdict == "regression":
        return f"{_moved(c)}, {_p(c['p_adjusted'])}{_corrected(c)}"
    if verdict == "inconclusive" and c["method"] == "e-process":
        return f"could not tell: {_moved(c)}, not decided when the run ended after {c['n']} cases"
    if verdict == "inconclusive":
        return f"could not tell: {_moved(c)}; {_what_would_tell(c)}"
    return f"no drop of {_points(c['max_drop'])} points: {_moved(c)}"


def _moved(c: Comparison) -> str:
    delta, (low, high) = c["delta"], c["ci"]
    if abs(delta) < 0.0005:
        return f"quality is the same ({_level(c)} interval {_points(low)} to {_points(high)})"
    if delta > 0:
        return f"quality rose by {_counted(delta)} ({_interval(c, low, high)})"
    return f"quality fell by {_counted(-delta)} ({_interval(c, -high, -low)})"


def _interval(c: Comparison, low: float, high: float) -> str:
    return f"{_level(c)} interval {_points(low)} to {_points(high)}"


def _level(c: Comparison) -> str:
    return f"{100 * c['confidence']:.3g} %"


def _points(share: float) -> str:
    text = f"{100 * share:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text.replace("-", "−")


def _counted(share: float) -> str:
    points = _points(share)
    return f"{points} point{'s' * (points != '1')}"


def _p(p: float) -> str:
    if p < 0.0001:
        return "p < 0.0001"
    return f"p = {p:.2f}" if p >= 0.1 else f"p = {p:.2g}"


def _corrected(c: Comparison) -> str:
    n = c["family_size"]
    return f" after correcting for {n} comparisons" if n > 1 else ""


def _what_would_tell(c: Comparison) -> str:
    mde = c["mde"]
    misses = (
        "would miss any drop" if mde is None else f"would miss drops under {_points(mde)} points"
    )
    ways = []
    if c["cases_needed"] is not None and c["cases_needed"] > c["n"]:
        ways.append(f"{c['cases_needed'] - c['n']:,} more cases")
    if c["trials_needed"] is not None and c["trials_needed"] > (c["trials"] or 1):
        more = c["trials_needed"] - (c["trials"] or 1)
        ways.append(f"{more:,} more trial{'s' * (more != 1)}")
    told = f"; {' or '.join(ways)} would show a drop of {_points(c['max_drop'])}" if ways else ""
    return f"this golden set {misses}{told}"


def _missing(c: Comparison) -> str:
    parts = []
    for side, counts in c["missing"]["outcomes"].items():
        if counts:
            kinds = ", ".join(f"{n} {plain(kind)}" for kind, n in counts.items())
            parts.append(f"{side} without a score: {kinds}")
    if c["missing"]["unpaired"]:
        parts.append(f"{c['missing']['unpaired']} cases are not on both sides")
    return f" [{'; '.join(parts)}]" if parts else ""


# --- the whole ----------------------------------------------------------------------


def verdict_lines(verdict: Mapping[str, Any]) -> list[str]:
    """The verdict for a terminal, a sentence a line, the overall word last."""
    gating = [c for c in verdict["comparisons"] if c["gate"]]
    lines: list[str] = []
    for comparison in sorted(gating, key=lambda c: WORST_FIRST.index(c["verdict"])):
        lines.append(comparison_sentence(comparison))
        if comparison["verdict"] == "regression" and comparison["regressed_cases"]:
            lines.append(f"    cases that fell: {_listed(comparison['regressed_cases'])}")
    lines += _bounded(_look_here(verdict))
    lines += _bounded(_must_pass_lines(verdict))
    lines += _budget_lines(verdict)
    lines += _bounded([f"note: {plain(note, 300)}" for note in verdict["notes"]])
    return [*lines, headline(verdict)]


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
    of = f" ({fell} of {len(gating)} comparisons)" if fell and len(gating) > 1 else ""
    return HEADLINES[word] + of


def _look_here(verdict: Mapping[str, Any]) -> list[str]:
    """What fell without being able to fail the build: metrics in full, slices by their drop."""
    lines, slices = [], dict[str, list[Comparison]]()
    for c in verdict["comparisons"]:
        if not c["look_here"]:
            continue
        if c["slice"]:
            slices.setdefault(_subject({**c, "slice": None}), []).append(c)
        else:
            lines.append(f"look here: {comparison_sentence(c)}")
    for subject, found in slices.items():
        found.sort(key=lambda c: c["delta"])
        parts = [f"{plain(c['slice'])} by {_points(-c['delta'])}" for c in found[:LISTED_SLICES]]
        more = f" and {len(found) - LISTED_SLICES} more" if len(found) > LISTED_SLICES else ""
        lines.append(f"look here: {subject} fell in {', '.join(parts)} points{more}")
    return lines


def _listed(ids: Sequence[str]) -> str:
    shown = ", ".join(plain(i, 60) for i in ids[:LISTED_CASES])
    more = len(ids) - LISTED_CASES
    return f"{shown} and {more} more" if more > 0 else shown


def _bounded(lines: Sequence[str]) -> list[str]:
    more = len(lines) - LISTED_LINES
    return [*lines[:LISTED_LINES], *([f"… and {more} more"] if more > 0 else [])]


def _must_pass_lines(verdict: Mapping[str, Any]) -> list[str]:
    lines = []
    for entry in verdict["must_pass_failures"]:
        why = f": {plain(entry['reason'], 120)}" if entry.get("reason") else ""
        lines.append(
            f"must-pass case {plain(entry['case_id'])} failed {plain(entry['metric'])} "
            f"({plain(entry['golden_set'])}, {_pair(entry)}){why}"
        )
    return lines


def _budget_lines(verdict: Mapping[str, Any]) -> list[str]:
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
)


def markdown(verdict: Mapping[str, Any]) -> str:
    """The verdict for a step summary or a pull request comment."""
    return "\n".join(_markdown_lines(verdict)) + "\n"


def escaped(text: object, limit: int = 80) -> str:
    """Text of others as Markdown that shows it and does nothing else."""
    return _MARKS.sub(lambda mark: f"&#{ord(mark[0])};", plain(text, limit))


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
    sentences += _look_here(verdict)
    sentences += _must_pass_lines(verdict) + _budget_lines(verdict)
    sentences += [f"note: {note}" for note in verdict["notes"]]
    for sentence in _bounded(sentences):
        yield f"- {escaped(sentence, 600)}"
    for comparison in gating:
        if comparison["verdict"] == "regression" and comparison["regressed_cases"]:
            yield ""
            subject = escaped(_subject(comparison), 200)
            yield f"<details><summary>{subject}: cases that fell</summary>"
            yield ""
            yield escaped(_listed(comparison["regressed_cases"]), 4_000)
            yield ""
            yield "</details>"


def _markdown_row(c: Comparison) -> str:
    low_high = "-" if c["ci"] is None else f"{_points(c['ci'][0])} to {_points(c['ci'][1])}"
    cells = (
        escaped(_subject(c), 200),
        _share(c["baseline_mean"]),
        _share(c["candidate_mean"]),
        "-" if c["delta"] is None else _points(c["delta"]),
        low_high,
        "-" if c["p_adjusted"] is None else re.sub("^p (= )?", "", _p(c["p_adjusted"])),
        f"**{c['verdict']}**" if c["verdict"] != "pass" else "pass",
    )  # fmt: skip
    return f"| {' | '.join(cell.replace('<', '&lt;') for cell in cells)} |"


def _share(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.3f}"
