"""Say whether a comparison was fair: the same cases, scorers, models, trials and program.

Part of the report: reads a finished verdict and the manifests of its runs, question by
question over all golden sets at once. It decides nothing; what matters to the verdict the
gate has weighed already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from evalkit.decide.report_cases import SIDES, Meeting
from evalkit.decide.report_text import count, p_value, percent

Row: TypeAlias = Mapping[str, Any]

OLD_DAYS = 30
"""A baseline older than this may have been answered by another state of the same model."""
MAX_NAMED = 6


@dataclass(frozen=True, slots=True)
class Fair:
    """One question and its answer."""

    word: Literal["pass", "inconclusive", "none"]
    """pass: yes. inconclusive: not quite, see the text. none: not known."""
    what: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Two pairs that met, with all that is known of how they were run."""

    meeting: Meeting
    entries: Sequence[Row]
    """Their comparisons over all cases, no slices."""
    runs: Mapping[str, Row | None]
    """Side -> manifest; None for a results file, or a run that cannot be read."""
    scorers: Sequence[Row]
    """Rows of `report_scorers.sql`."""

    @property
    def name(self) -> str:
        return self.meeting.golden_set or "the cases"

    def largest(self, key: str) -> int:
        """The largest count of what is missing, over metrics."""
        return max(((one.get("missing") or {}).get(key) or 0 for one in self.entries), default=0)


Told: TypeAlias = tuple[Literal["pass", "inconclusive", "none"], str]


def fairness(compared: Sequence[Compared]) -> list[Fair]:
    """Every question that can be answered, in a fixed order."""
    met = [one for one in compared if one.meeting.baseline is not None]
    return [
        Fair(word, what, text)
        for what, ask in QUESTIONS.items()
        if met and (answer := ask(met)) is not None
        for word, text in (answer,)
    ]


def _cases(met: Sequence[Compared]) -> Told | None:
    apart = [
        f"{one.name}: {count(n, 'case')} on one side only, or edited since, left out"
        for one in met
        if (n := one.largest("unpaired"))
    ]
    total = sum(max((entry.get("n") or 0 for entry in one.entries), default=0) for one in met)
    if apart:
        return "inconclusive", f"Not all. {_listed(apart)}. {count(total, 'case')} met."
    return "pass", f"Yes: {count(total, 'case')}, each compared with itself."


def _scorers(met: Sequence[Compared]) -> Told | None:
    changed, known = [], 0
    for one in met:
        versions: dict[str, dict[str, list[str]]] = {}
        for row in one.scorers:
            versions.setdefault(row["metric"], {})[row["side"]] = list(row["versions"] or [])
        for metric, sides in versions.items():
            seen = {version for of_side in sides.values() for version in of_side}
            known += bool(seen)
            if len(seen) > 1:
                told = " against ".join(
                    ", ".join(sides.get(side) or ["none"]) for side in reversed(SIDES)
                )
                changed.append(f"{metric} on {one.name}: {told}")
    if changed:
        return "inconclusive", f"No, and such scores are never compared. {_listed(changed)}."
    if not known:
        return "none", "Not known: the scores do not say which version of a scorer gave them."
    return "pass", f"Yes: {count(known, 'metric')}, each scored by one version on both sides."


def _pooled(met: Sequence[Compared]) -> Told | None:
    pools = {
        len((one.meeting.baseline or {}).get("run_ids") or ())
        for one in met
        if len((one.meeting.baseline or {}).get("run_ids") or ()) > 1
    }
    if not pools:
        return None
    return "pass", (
        f"No: {' or '.join(map(str, sorted(pools)))} runs of it are pooled, so its noise is less. "
        "Cases, cost and failures on this page are of the newest of them."
    )


def _served(met: Sequence[Compared]) -> Told | None:
    other = [
        f"{one.name}: {count(n, 'case')} answered by another model, not counted"
        for one in met
        if (n := one.largest("excluded"))
    ]
    if other:
        return "inconclusive", f"Not always. {_listed(other)}."
    return "pass", "Yes, as far as the providers say which model answered."


def _missing(met: Sequence[Compared]) -> Told | None:
    gone = []
    for one in met:
        worst = max(one.entries, key=_n_missing, default=None)
        if worst is None or not _n_missing(worst):
            continue
        missing = worst["missing"]
        text = (
            f"{worst['metric']} on {one.name}: {missing.get('baseline') or 0:,} cases in the "
            f"baseline and {missing.get('candidate') or 0:,} in the candidate"
        )
        if missing.get("coverage") is not None:
            text += f", {percent(missing['coverage'])} are left"
        if missing.get("fisher_p") is not None and missing["fisher_p"] < 0.05:
            text += f", more on one side than chance explains (p {p_value(missing['fisher_p'])})"
        gone.append(text)
    if gone:
        return "inconclusive", f"No. Without a score: {_listed(gone)}."
    return "pass", "Yes: every case has a score on both sides."


def _n_missing(entry: Row) -> int:
    missing = entry.get("missing") or {}
    return sum(missing.get(side) or 0 for side in SIDES)


def _trials(met: Sequence[Compared]) -> Told | None:
    tried: dict[tuple[int, int], list[str]] = {}
    for one in met:
        if all(one.runs.get(side) for side in SIDES):
            both = (_trials_of(one, "baseline"), _trials_of(one, "candidate"))
            tried.setdefault(both, []).append(one.name)
    if not tried:
        return None
    apart = [
        f"{before} of every case in the baseline, {after} in the candidate"
        + (f" ({', '.join(names)})" if len(tried) > 1 else "")
        for (before, after), names in sorted(tried.items())
        if before != after
    ]
    if apart:
        return "pass", f"No: {_listed(apart)}. A case's trials are averaged first, so it is fair."
    numbers = sorted({before for before, _ in tried})
    each = " or ".join(map(str, numbers))
    return "pass", f"Yes: {each} {'trial' if numbers == [1] else 'trials'} of every case."


def _trials_of(one: Compared, side: str) -> int:
    golden_sets = (one.runs.get(side) or {}).get("golden_sets") or {}
    return int((golden_sets.get(one.meeting.golden_set) or {}).get("trials") or 1)


def _program(met: Sequence[Compared]) -> Told | None:
    apart = []
    known = False
    for before, after in _run_pairs(met):
        old, new = before.get("versions") or {}, after.get("versions") or {}
        known = known or bool(new)
        apart += [
            f"{name} {old.get(name, 'none')}, now {new.get(name, 'none')}"
            for name in dict.fromkeys((*old, *new))
            if old.get(name) != new.get(name)
        ]
        apart += [f"seed {s[0]}, now {s[1]}" for s in [_seeds(before, after)] if s[0] != s[1]]
    if apart:
        return "inconclusive", f"Not quite: {_listed(dict.fromkeys(apart))}."
    return ("pass", "Yes: the same versions and seed.") if known else None


def _seeds(*runs: Row) -> tuple[Any, ...]:
    return tuple("none" if run.get("seed") is None else run["seed"] for run in runs)


def _age(met: Sequence[Compared]) -> Told | None:
    days = [
        gap
        for before, after in _run_pairs(met)
        if (gap := _days_between(before.get("created_at"), after.get("created_at"))) is not None
    ]
    if not days:
        return None
    if max(days) > OLD_DAYS:
        text = f"No: {max(days):.0f} days apart. A provider may have changed the model since."
        return "inconclusive", text
    if max(days) >= 1:
        return "pass", f"Yes: {max(days):.1f} days apart."
    hours = 24 * max(days)
    return "pass", f"Yes: {hours:.0f} hours apart." if hours >= 1 else "Yes: within the hour."


def _days_between(before: Any, after: Any) -> float | None:
    try:
        gap = datetime.fromisoformat(after) - datetime.fromisoformat(before)
    except (TypeError, ValueError):
        return None
    return abs(gap.total_seconds()) / 86_400


def _commits(met: Sequence[Compared]) -> Told | None:
    runs = [run for both in _run_pairs(met) for run in both]
    dirty = {str(run.get("run_id")) for run in runs if (run.get("git") or {}).get("dirty")}
    if dirty:
        text = f"No: {count(len(dirty), 'run')} had local changes that no commit holds."
        return "inconclusive", text
    if not all((run.get("git") or {}).get("commit") for run in runs) or not runs:
        return None
    return "pass", "Yes: both sides ran from a commit."


def _run_pairs(met: Sequence[Compared]) -> list[tuple[Row, Row]]:
    """(baseline's run, candidate's run) where both are known and not the same one."""
    found: dict[tuple[Any, Any], tuple[Row, Row]] = {}
    for one in met:
        before, after = one.runs.get("baseline"), one.runs.get("candidate")
        if before and after:
            found[before.get("run_id"), after.get("run_id")] = (before, after)
    return list(found.values())


def _listed(texts: Iterable[str]) -> str:
    all_of_them = list(texts)
    shown, more = all_of_them[:MAX_NAMED], len(all_of_them) - MAX_NAMED
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


QUESTIONS: dict[str, Callable[[Sequence[Compared]], Told | None]] = {
    "The same cases?": _cases,
    "The same scorers?": _scorers,
    "One run as baseline?": _pooled,
    "The models asked for?": _served,
    "A score of every case?": _missing,
    "As many trials?": _trials,
    "The same program and seed?": _program,
    "About the same time?": _age,
    "From a commit?": _commits,
}
