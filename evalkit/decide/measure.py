"""Measure the comparisons: hand each one's cases to the statistics, and correct for their number.

Between pairing and the rule. Nothing is computed here but which arrays go where; every
number comes from `stats`, `missing` and `trials`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalkit.decide import stats
from evalkit.decide.comparison import Comparison, Planned, Policy
from evalkit.decide.estimates import side_by_side
from evalkit.decide.missing import worst_case
from evalkit.decide.pairing import Cases, Ids, take
from evalkit.decide.people import People, compare_with_people, why_alone, worst_with_people
from evalkit.decide.trials import Split, split_variance

SAME = 1e-6
"""A mean times its trials is a whole number of passes, up to this."""

Correction: TypeAlias = Callable[[list[float]], list[float]]

MAX_SLICES = 50
"""Slices of one comparison that are looked at, the largest first."""
MIN_SLICE = 5
"""Cases of a slice below which nothing is said about it."""


def measure(
    planned: Planned,
    cases: Cases | None,
    *,
    reason: str | None,
    policy: Policy,
    family_size: int,
    part: Slice | None = None,
    people: People | None = None,
) -> Comparison:
    """Test one comparison on the cases that both sides scored, and in the worst case.

    `reason` says why nothing can be compared; then nothing is. `part` is the slice that
    the cases are, `people` what people said of these cases.
    """
    slice, slice_gates = (None, False) if part is None else (part.name, part.gates)
    if cases is None or reason is not None:
        return Comparison(
            planned=planned, slice=slice, slice_gates=slice_gates, reason=reason, cases=cases,
            paired=None, worst=None, split=None,
        )  # fmt: skip
    split = _split(cases)
    paired = _compare(planned, cases, _seen, policy, family_size, split)
    estimates = None
    fair = cases.matched if cases.matched and cases.candidate_has_more else cases
    if people is not None and _can_correct(people, cases):
        clusters = None if cases.clusters is None else cases.clusters[cases.on_both]
        judge = paired
        paired, powered = compare_with_people(
            _seen(fair)[cases.on_both],
            people.within(cases.on_both),
            planned,
            policy,
            family_size=family_size,
            clusters=clusters,
        )
        estimates = side_by_side(judge, powered, cases, people, planned, policy)
    worst = None
    if cases.on_both.any() and (not cases.on_both.all() or _lost_trials(cases)):
        if estimates is not None:
            worst = worst_with_people(paired, fair, _worst_case(fair), planned)
        else:
            worst = _compare(planned, cases, _worst_case, policy, family_size, None)
    return Comparison(
        planned=planned,
        slice=slice,
        slice_gates=slice_gates,
        reason=paired.reason if cases.on_both.any() else "no case has a score on both sides",
        cases=cases,
        paired=paired,
        worst=worst,
        split=split,
        estimates=estimates,
    )


def _can_correct(people: People, cases: Cases) -> bool:
    """Whether people's labels can stand beside the judge on these cases."""
    return people.alone is None and why_alone(people.d, cases.clusters) is None


def _seen(cases: Cases) -> stats.Floats:
    """The d of each case; NaN where a side has no score."""
    return cases.candidate - cases.baseline


def _worst_case(cases: Cases) -> stats.Floats:
    return worst_case(
        cases.baseline,
        cases.candidate,
        missing_b=1 - cases.baseline_trials / np.maximum(cases.baseline_rows, 1),
        missing_c=1 - cases.candidate_trials / np.maximum(cases.candidate_rows, 1),
    )


def _lost_trials(cases: Cases) -> bool:
    scored = cases.baseline_trials.sum() + cases.candidate_trials.sum()
    return bool(scored < cases.baseline_rows.sum() + cases.candidate_rows.sum())


def _compare(
    planned: Planned,
    cases: Cases,
    d_of: Callable[[Cases], stats.Floats],
    policy: Policy,
    family_size: int,
    split: Split | None,
) -> stats.Paired:
    """Test the cases that have a d.

    Means are of all trials. But the mean of many trials less one draw is skewed, and where most
    cases pass, a test takes that for a change to the disadvantage of the side that was asked
    more often: such a change has to show on as many trials of each side, too.
    """
    d = d_of(cases)
    used = np.isfinite(d)
    clusters = None if cases.clusters is None else cases.clusters[used]

    def compare(d: stats.Floats) -> stats.Paired:
        return stats.compare(
            d[used],
            clusters=clusters,
            tolerance=planned.rule.tolerance,
            alpha=policy.alpha,
            max_drop=planned.rule.max_drop,
            power_alpha=policy.alpha / max(family_size, 1),
            within_var=None if split is None else split.within,
            trials=1.0 if split is None else split.trials,
            step=_step(cases),
        )

    paired = compare(d)
    if cases.matched is None:
        return paired
    other = compare(d_of(cases.matched))
    if cases.candidate_has_more:
        return stats.less_sure_of_a_drop(paired, other)
    return stats.less_sure_of_a_gain(paired, other)


def _step(cases: Cases) -> float:
    """How far one trial moves the side that has fewer, where trials pass or fail; else 0."""
    if cases.matched is None:
        return 0.0
    both = cases.on_both
    trials = (cases.baseline_trials[both], cases.candidate_trials[both])
    passes = np.concatenate([cases.baseline[both], cases.candidate[both]]) * np.concatenate(trials)
    if (np.abs(passes - np.rint(passes)) > SAME).any():
        return 0.0
    return 1 / min(float(n.mean()) for n in trials)


def _split(cases: Cases) -> Split:
    on_both = cases.on_both
    return split_variance(
        _seen(cases)[on_both],
        var_b=cases.baseline_var[on_both],
        n_b=cases.baseline_trials[on_both],
        var_c=cases.candidate_var[on_both],
        n_c=cases.candidate_trials[on_both],
    )


@dataclass(frozen=True, slots=True)
class Slice:
    """The cases of a comparison that share a metadata value."""

    name: str
    """key=value"""
    cases: Cases
    inside: NDArray[np.bool_]
    """Which of all cases these are."""
    gates: bool
    """Whether its metric gates on it; what is too small to say anything does not."""
    too_small: bool


def slices_to_measure(planned: Planned, cases: Cases, slices: Mapping[str, Ids]) -> list[Slice]:
    """The slices that gate, and the largest of the others; none that is too small to be shown."""
    found = []
    for name, ids in slices.items():
        gates = any(name.startswith(f"{key}=") for key in planned.gating_slices)
        inside = np.isin(cases.ids, ids)
        part = take(cases, inside)
        too_small = len(part.ids) < MIN_SLICE
        if gates or not too_small:
            found.append(Slice(name, part, inside, gates and not too_small, too_small))
    found.sort(key=lambda one: (not one.gates, -len(one.cases.ids), one.name))
    gating = sum(one.gates for one in found)
    return sorted(found[: max(gating, MAX_SLICES)], key=lambda one: one.name)


def adjust(comparisons: Sequence[Comparison], policy: Policy) -> list[Comparison]:
    """Correct for many comparisons: the gating family by Holm (or BH), the others by BH.

    What a run decided while it went on was corrected there.
    """
    open_ones = [c for c in comparisons if c.early is None]
    gating = [c for c in open_ones if c.gates]
    advisory = [c for c in open_ones if not c.gates]
    correct = stats.holm if policy.correction == "holm" else stats.bh
    adjusted = {
        id(before): after
        for family, correction in ((gating, correct), (advisory, stats.bh))
        for before, after in zip(family, _adjusted(family, correction), strict=True)
    }
    return [adjusted.get(id(c), c) for c in comparisons]


def _adjusted(family: Sequence[Comparison], correction: Correction) -> list[Comparison]:
    seen = {
        id(c): c.paired.p_value
        for c in family
        if c.paired is not None and c.paired.p_value is not None
    }
    adjusted = dict(zip(seen, correction(list(seen.values())), strict=True))
    result = []
    for comparison in family:
        worst_p = None
        if comparison.worst is not None and comparison.worst.p_value is not None:
            others = [p for one, p in seen.items() if one != id(comparison)]
            worst_p = correction([comparison.worst.p_value, *others])[0]
        result.append(
            replace(comparison, p_adjusted=adjusted.get(id(comparison)), worst_p_adjusted=worst_p)
        )
    return result
