"""What `evalkit judge calibrate` prints: how far a judge agrees with people, in a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from evalkit.cli.query import one_line
from evalkit.decide.ppi import LABELS_AT_LEAST

MANY_SLICES = 30
Figures = Mapping[str, Any]


def print_figures(found: Figures) -> None:
    """The figures of a calibration, for a person at a terminal."""
    click.echo(
        f"{found['judge']} {found['version']} ({found['scorer_version']}): "
        f"{found['overall']['n']} of {found['answers']} labelled answers compared, "
        f"labels {found['labels']}"
    )
    for line in _lines(found):
        click.echo(line)


def _lines(found: Figures) -> Iterator[str]:
    if found["missing"]:
        kinds = ", ".join(f"{kind} {n}" for kind, n in found["missing"].items())
        yield f"not judged: {kinds}"
    if found["labels_left_out"]:
        yield f"left out, as the case or its text is gone: {found['labels_left_out']} labels"
    if found["overall"]["n"]:
        yield from _overall(found["overall"])
        yield from _slices(found["slices"])
        yield from _pairs(found["pairs"])
        yield from _people(found)
        yield from _biases(found)
    yield from (f"note: {note}" for note in found["notes"])
    yield _cost(found)
    yield _verdict(found)


def _overall(overall: Figures) -> Iterator[str]:
    yield ""
    if overall["people_split"]:
        yield f"  people split evenly     {overall['people_split']} answers, left out here"
    if overall["accuracy"] is not None:
        yield f"  accuracy                {overall['accuracy']:.3f}"
    for key, name in (
        ("kappa", "kappa"),
        ("krippendorff", "Krippendorff's alpha"),
        ("ac1", "Gwet's AC1"),
        ("spearman", "Spearman's rho"),
        ("kendall", "Kendall's tau"),
    ):
        yield f"  {name:23} {shown(overall[key])}"
    bias = overall["bias"]
    yield f"  {'judge minus people':23} {shown({'value': bias['mean'], 'ci': bias['ci']})}"
    yield ""
    grades, counts = overall["confusion"]["grades"], overall["confusion"]["counts"]
    yield "  people \\ judge" + "".join(f"{grade:>8g}" for grade in grades)
    for grade, row in zip(grades, counts, strict=True):
        yield f"  {grade:>14g}" + "".join(f"{n:>8}" for n in row)


def _slices(slices: Figures) -> Iterator[str]:
    if slices:
        yield "\nby slice                       n  accuracy  kappa"
    for name, one in list(slices.items())[:MANY_SLICES]:
        accuracy = "-" if one.get("accuracy") is None else f"{one['accuracy']:.3f}"
        yield f"  {one_line(name, 60):26} {one['n']:>4}  {accuracy:>8}  {shown(one['kappa'])}"
    if len(slices) > MANY_SLICES:
        yield f"  … and {len(slices) - MANY_SLICES} more; --json lists all"


def _pairs(pairs: list[Figures]) -> Iterator[str]:
    if len(pairs) > 1:
        yield "\njudge minus people, by pair"
        for one in pairs:
            value = shown({"value": one["mean"], "ci": one["ci"]})
            yield f"  {one_line(one['pair'], 60):40} {one['n']:>4}  {value}"


def _people(found: Figures) -> Iterator[str]:
    people, test = found["people"], found["alternative_annotator"]
    if people["annotators"] > 1:
        alpha = shown(people["krippendorff"])
        yield f"\n{people['annotators']} annotators among themselves: alpha {alpha}"
    if test["winning_rate"] is not None:
        word = "may" if test["passed"] else "may not"
        yield (
            f"alternative annotator: the judge {word} stand in for one of them (replaces "
            f"{test['winning_rate']:.0%}, advantage {test['advantage']:.2f}, "
            f"epsilon {test['epsilon']:g})"
        )


def _biases(found: Figures) -> Iterator[str]:
    length, order = found["bias"]["length"], found["bias"]["order"]
    yield "\nwith the length of the answer (Spearman)"
    for key, name in (("judge", "judge"), ("people", "people"), ("judge_minus_people", "between")):
        yield f"  {name:23} {shown(length[key])}"
    if order is not None:
        n, inconsistent = order["n"], order["inconsistent"]
        yield f"the winner followed the order shown in {inconsistent} of {n} comparisons"
    if found["votes_agree"] is not None:
        yield f"votes agree: {found['votes_agree']:.0%}"


def _cost(found: Figures) -> str:
    unpriced = " + unpriced" if found["unpriced_calls"] else ""
    latency = "" if found["latency_ms"] is None else f", {found['latency_ms']:.0f} ms each"
    return f"\n{found['calls']} calls, ${found['cost_usd']:.4f}{unpriced}{latency}"


def _verdict(found: Figures) -> str:
    kappa = (found["overall"].get("kappa") or {}).get("value")
    if kappa is None:
        reason = (found["overall"].get("kappa") or {}).get("reason") or "nothing could be compared"
        return f"agreement with people is not known: {reason}"
    if found["overall"]["n"] < LABELS_AT_LEAST:
        return f"too few labels to gate: {found['overall']['n']}, {LABELS_AT_LEAST} are asked"
    word = "agrees enough to gate" if found["gates"] else "agrees too little to gate"
    return f"{word}: kappa {kappa:.2f}, at least {found['floor']:g} is asked"


def shown(figure: Figures) -> str:
    """A figure with its interval: `0.71 (0.62 to 0.79)`."""
    if figure.get("value") is None:
        return "-"
    ends = figure.get("ci")
    return f"{figure['value']:.2f}" + (f" ({ends[0]:.2f} to {ends[1]:.2f})" if ends else "")
