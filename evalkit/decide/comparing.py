"""Make the comparisons that are planned: bring the cases in, measure, correct.

Between the plans and the rule. Says which cannot be measured and why, which slices are
looked at, and where people's labels come in; the numbers come from `measure`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from evalkit.decide import pairing
from evalkit.decide.comparison import Comparison, Planned, Policy
from evalkit.decide.measure import Slice, adjust, measure, slices_to_measure
from evalkit.decide.pairing import Cases, Meeting
from evalkit.decide.people import People, why_alone
from evalkit.decide.sides import Sides
from evalkit.decide.stopped import (
    decided,
    decided_otherwise,
    is_own,
    note_of,
    only_roughly,
    stopped,
)
from evalkit.decide.trust import Trust, is_judged

Key: TypeAlias = tuple[object, ...]
"""Of a plan: see `Planned.key`."""


@dataclass(slots=True, kw_only=True)
class Comparer:
    """Measures the comparisons of one invocation; `compared` is the order of the work."""

    sides: Sides
    policy: Policy
    project: Path
    whole: set[str]
    """Sources that have every case they were asked for: runs, unlike files."""
    trust: Trust
    notes: list[str] = field(default_factory=list)
    """In order; what holds for several comparisons is said for each."""

    def compared(self, plans: Sequence[Planned]) -> list[Comparison]:
        """All comparisons, measured and corrected: the gating ones, the advisory, the slices."""
        meetings = meetings_of(plans)
        engine, listed = self.sides.engine, list(meetings.values())
        paired = pairing.pair_cases(engine, listed, self.whole, project=self.project)
        cases = dict(zip(meetings, paired, strict=True))
        self._say_what_has_no_counterpart(plans, cases)
        self._say_what_a_file_lacks(plans, cases)
        reasons = self._reasons(plans, meetings)
        people = self._people([plan for plan in plans if plan.key not in reasons], cases)
        plans = self._held(plans, people)
        early = self._early([plan for plan in plans if plan.key not in reasons], cases, reasons)
        slices = self._slices([p for p in plans if p.key not in reasons], cases, meetings, people)
        size = sum(plan.rule.gate and plan.key not in early for plan in plans)
        size += sum(part.gates for parts in slices.values() for part in parts)

        def measured(plan: Planned, part: Slice | None = None) -> Comparison:
            said = people.get(plan.key)
            return measure(
                plan,
                part.cases if part else cases.get(plan.key),
                reason=reasons.get(plan.key),
                policy=self.policy,
                family_size=size,
                part=part,
                people=said.within(part.inside) if said and part else said,
            )

        wholes = [early.get(plan.key) or measured(plan) for plan in plans]
        parts = [measured(plan, part) for plan in plans for part in slices.get(plan.key, ())]
        return adjust([*wholes, *parts], self.policy)

    def _say_what_has_no_counterpart(
        self, plans: Sequence[Planned], cases: Mapping[Key, Cases]
    ) -> None:
        beyond = {
            plan.metric: cases[plan.key].beyond[1]
            for plan in plans
            if plan.key in cases and cases[plan.key].matched and cases[plan.key].candidate_has_more
        }
        if beyond:
            named = ", ".join(f"{n} scores of {metric}" for metric, n in beyond.items())
            self.notes.append(
                "the candidate has more trials of a case than the baseline. Means are of all; a "
                f"drop has to show without those beyond, too ({named}). Give the baseline as many"
            )

    def _say_what_a_file_lacks(self, plans: Sequence[Planned], cases: Mapping[Key, Cases]) -> None:
        """A trial that has no row is not counted as lost: who writes only what passed is told."""
        for plan in plans:
            if plan.key not in cases or plan.candidate.source.view in self.whole:
                continue
            one = cases[plan.key]
            usual = np.minimum(one.baseline_rows, one.candidate_rows.max(initial=0))
            short = (one.candidate_rows > 0) & (one.candidate_rows < usual)
            if n := int(short.sum()):
                self.notes.append(
                    f"{plan.candidate.source.name} has fewer trials of {n} case{'s' * (n != 1)} "
                    f"than of others ({plan.metric}{on(plan)}). A trial without a row is not "
                    "counted as lost: give each a row, with its outcome"
                )

    def _early(
        self, plans: Sequence[Planned], cases: Mapping[Key, Cases], reasons: dict[Key, str]
    ) -> dict[Key, Comparison]:
        """What runs decided before their last case; adds why nothing holds where they did not."""
        found = {}
        for plan in plans:
            source = plan.candidate.source
            if not is_own(plan):
                sides = [source, *([plan.baseline.source] if plan.baseline else [])]
                self.notes += [only_roughly(side) for side in sides if stopped(side)]
                continue
            otherwise = decided_otherwise(plan, alpha=self.policy.alpha)
            if otherwise is not None:
                reasons[plan.key] = otherwise
                continue
            comparison = decided(plan, cases[plan.key])
            if comparison is not None:
                self.notes.append(note_of(source))
                found[plan.key] = comparison
            elif plan.rule.gate and stopped(source):
                reasons[plan.key] = (
                    f"run {source.name} stopped early on other scores: run it without --stop-early"
                )
        return found

    def _reasons(self, plans: Sequence[Planned], meetings: Mapping[Key, Meeting]) -> dict[Key, str]:
        """Plan's key -> why it cannot be measured."""
        versions = pairing.differing_versions(self.sides.engine, list(meetings.values()))
        at = {key: number for number, key in enumerate(meetings)}
        reasons = {plan.key: plan.reason for plan in plans if plan.reason is not None}
        for plan in plans:
            if at.get(plan.key) in versions:
                reasons[plan.key] = _differ(*versions[at[plan.key]], plan)
        return reasons

    # --- people -------------------------------------------------------------------

    def _people(self, plans: Sequence[Planned], cases: Mapping[Key, Cases]) -> dict[Key, People]:
        """What people said of what a judge scored, where that can stand beside the judge."""
        found = {}
        for plan in plans:
            if not is_judged(plan):
                continue
            people = self.trust.labels.of(plan, cases[plan.key])
            why = why_alone(people.d, cases[plan.key].clusters)
            if why is None and is_own(plan):
                why = "it was decided early"
            found[plan.key] = people if why is None else replace(people, alone=why)
        return found

    def _held(self, plans: Sequence[Planned], people: Mapping[Key, People]) -> list[Planned]:
        """The plans, each without its gate where its judge may not."""
        without: list[str] = []
        held = [self._held_one(plan, people.get(plan.key), without) for plan in plans]
        if without:
            names = ", ".join(without)
            self.notes.append(f"the judge's word alone, without people's labels of both: {names}")
        return held

    def _held_one(self, plan: Planned, people: People | None, without: list[str]) -> Planned:
        """The plan, without its gate where the judge stands alone and may not."""
        if not (plan.rule.gate and is_judged(plan)):
            return plan
        name = f"{plan.metric}{on(plan)}"
        if people is not None and people.alone is None:
            what = f"people's labels of {people.n_labelled} cases correct what the judge says"
            self.notes.append(f"{name}: {what}")
            return plan
        objection = self.trust.objection(plan)
        if objection is not None:
            self.notes.append(f"{name} does not gate: {objection}")
            if people is not None and people.n_labelled:
                self.notes.append(f"{name}: {people.alone}")
            return replace(plan, rule=replace(plan.rule, gate=False), held_back=objection)
        if people is not None and people.n_labelled:
            self.notes.append(f"{name} is the judge's word alone: {people.alone}")
        elif people is not None:
            without.append(name)
        return plan

    def _with_people(self, plan: Planned, part: Slice, people: People) -> Slice:
        """The slice, without its gate where too few labels fall into it and the judge may not."""
        if not part.gates or people.alone is not None:
            return part
        few = why_alone(people.d.within(part.inside), part.cases.clusters) is not None
        return replace(part, gates=not (few and self.trust.objection(plan) is not None))

    # --- slices -------------------------------------------------------------------

    def _slices(
        self,
        plans: Sequence[Planned],
        cases: Mapping[Key, Cases],
        meetings: Mapping[Key, Meeting],
        people: Mapping[Key, People],
    ) -> dict[Key, list[Slice]]:
        """Plan's key -> the slices to be looked at; what should gate and is too small is noted."""
        if not any(m.candidate.has_slices or m.baseline.has_slices for m in meetings.values()):
            return {}
        named = pairing.slices_of(self.sides.engine, n_comparisons=len(meetings))
        by_key = dict(zip(meetings, named, strict=True))
        found: dict[Key, list[Slice]] = {}
        small: dict[str, int] = {}
        for plan in plans:
            chosen = slices_to_measure(plan, cases[plan.key], by_key[plan.key])
            if is_own(plan):
                chosen = [replace(part, gates=False) for part in chosen if not part.too_small]
            if plan.key in people:
                chosen = [self._with_people(plan, part, people[plan.key]) for part in chosen]
            found[plan.key] = [part for part in chosen if not part.too_small]
            for part in chosen:
                if part.too_small:
                    small[f"{part.name}{on(plan)}"] = len(part.cases.ids)
        for name, n in small.items():
            self.notes.append(f"{name} is a slice of {n}: too few cases to gate on")
        return found


def meetings_of(plans: Sequence[Planned]) -> dict[Key, Meeting]:
    """Plan's key -> the two groups of rows that meet, for plans that can be measured."""
    numbers: dict[Key, int] = {}
    found = {}
    for plan in plans:
        if plan.reason is None and plan.candidate_group and plan.baseline_group:
            shared = (plan.golden_set, *plan.key[2:])
            found[plan.key] = Meeting(
                candidate=plan.candidate_group,
                baseline=plan.baseline_group,
                number=numbers.setdefault(shared, len(numbers)),
            )
    return found


def _differ(one: str, other: str, plan: Planned) -> str:
    source = plan.baseline.source if plan.baseline else plan.candidate.source
    fix = (
        f"score the stored outputs again with evalkit rescore {source.name}"
        if source.is_run
        else "score the answers of both sides with one"
    )
    return f"scored by different versions of the scorer ({one} and {other}): {fix}"


def on(plan: Planned) -> str:
    return f" on {plan.golden_set}" if plan.golden_set else ""
