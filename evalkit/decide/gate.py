"""Decide whether the candidate is worse than its baseline, and say so as plain data.

The last step of call, score, decide: rows of both sides in, one verdict out. `decide` is
the rule; the numbers it looks at come from `stats`, the cases from `pairing`. Nothing is
printed here, and no reader of the verdict can change it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from evalkit.decide import pairing, rows
from evalkit.decide.comparing import Comparer, meetings_of, on
from evalkit.decide.comparison import WORST_FIRST, Comparison, Planned, Policy, Verdict
from evalkit.decide.must_pass import MustPass, must_pass
from evalkit.decide.plans import Groups, plan_comparisons, unmet
from evalkit.decide.pooling import pool_baselines
from evalkit.decide.rows import FileRows, Source
from evalkit.decide.sides import Request, Sides
from evalkit.decide.trust import Trust
from evalkit.decide.verdict import budget_as_json, comparison_as_json
from evalkit.errors import (
    EXIT_PASS,
    EXIT_REGRESSION,
    EXIT_UNMEASURABLE,
    DamagedStore,
    NotComparable,
    StoreError,
)

if TYPE_CHECKING:
    from evalkit.config import GateSettings
    from evalkit.store.views import Engine, Store

SAME = 1e-9
"""Shares closer than this are one: 95 of 100 is a coverage of 0.95."""


def decide(comparison: Comparison, policy: Policy) -> Verdict:
    """The gate's rule. Silence is no pass: what is missing, or too little, never helps."""
    paired, worst_p = comparison.paired, comparison.worst_p_adjusted
    if comparison.reason is not None or comparison.coverage < policy.min_coverage - SAME:
        return "unmeasurable"
    if paired is None or paired.ci is None or comparison.p_adjusted is None:
        return "unmeasurable"
    if comparison.early is not None:
        return comparison.early.decision(policy.alpha)
    if comparison.p_adjusted < policy.alpha:
        return "regression"
    if worst_p is not None and worst_p < policy.alpha:
        return "unmeasurable"
    if paired.ci[0] > -comparison.planned.rule.max_drop:
        return "pass"
    return "inconclusive"


def decide_worst(comparison: Comparison, policy: Policy) -> Verdict:
    """The same rule, were every missing score as bad for the candidate as it can be."""
    if comparison.worst is None:
        return decide(comparison, policy)
    as_if = replace(
        comparison,
        paired=comparison.worst,
        p_adjusted=comparison.worst_p_adjusted,
        worst_p_adjusted=None,
        reason=comparison.worst.reason,
    )
    return decide(as_if, replace(policy, min_coverage=0.0))


def exit_code(verdict: Mapping[str, Any]) -> int:
    """0 pass, 1 regression, 3 unmeasurable; inconclusive is 3 where `strict`, else 0."""
    word = verdict["verdict"]
    if word == "regression":
        return EXIT_REGRESSION
    if word == "unmeasurable" or (word == "inconclusive" and verdict["strict"]):
        return EXIT_UNMEASURABLE
    return EXIT_PASS


def run_gate(
    store: Store | None,
    *,
    candidate: str | FileRows | None = None,
    baseline: str | FileRows | None = None,
    settings: GateSettings,
    compare: Sequence[str] = (),
    tolerance: float | None = None,
    max_drop: float | None = None,
    allow_no_baseline: bool = False,
    project: Path | None = None,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Compare, decide, keep the verdict in the store; returns it as JSON data.

    Sides are runs, `RUN:MODEL/PROMPT@VERSION`, `branch:NAME` or `pooled` (baseline), or
    results files. What makes the whole unmeasurable (no run, a damaged file) is a verdict,
    too. Raises ConfigError for a name that cannot be meant. An `engine` that is open
    already is used, and closed.
    """
    from evalkit.store.views import Engine

    policy = Policy(
        alpha=settings.alpha,
        correction="bh" if settings.correction == "bh" else "holm",
        min_coverage=settings.min_coverage,
        strict=settings.strict,
    )
    with engine or Engine() as engine:
        request = Request(
            candidate=_as_source(candidate, "candidate_file", engine),
            baseline=_as_source(baseline, "baseline_file", engine),
            compare=tuple(compare),
            tolerance=tolerance,
            max_drop=max_drop,
            allow_no_baseline=allow_no_baseline,
        )
        sides = Sides(store=store, engine=engine, request=request, settings=settings)
        try:
            verdict = _Gate(sides, policy, project or Path.cwd()).verdict()
        except (DamagedStore, NotComparable) as error:
            verdict = _whole(policy, "unmeasurable", notes=[str(error)])
    if store is not None and any(source.is_run for source in sides.sources.values()):
        _keep(verdict, store)
    return verdict


def _as_source(side: str | FileRows | None, view: str, engine: Engine) -> str | Source | None:
    if not isinstance(side, FileRows):
        return side
    engine.add_table(view, side.table)
    return Source(name=side.name, run_id=None, view=view, notes=side.notes)


def _keep(verdict: dict[str, Any], store: Store) -> None:
    """Keep the verdict; a store that cannot be written must not hide it."""
    verdict["verdict_id"] = f"{time.time_ns() // 1_000_000:013d}-{token_hex(8)}"
    try:
        store.save_verdict(verdict["verdict_id"], verdict)
    except StoreError as error:
        verdict["notes"].append(f"the verdict could not be kept: {error}")


def _whole(policy: Policy, word: Verdict, *, notes: Sequence[str], **parts: Any) -> dict[str, Any]:
    return {
        "verdict": word,
        "alpha": policy.alpha,
        "correction": policy.correction,
        "strict": policy.strict,
        "comparisons": [],
        "must_pass_failures": [],
        "must_pass_missing": [],
        "budget": {},
        "golden_sets": {},
        **parts,
        "notes": list(notes),
    }


# --- one invocation -------------------------------------------------------------------


@dataclass(slots=True)
class _Gate:
    """From the sides to the verdict; `verdict` is the order of the work."""

    sides: Sides
    policy: Policy
    project: Path
    notes: list[str] = field(default_factory=list)
    whole_views: set[str] = field(default_factory=set)
    """Sources that have every case they were asked for: runs, unlike files."""

    def verdict(self) -> dict[str, Any]:
        plans = self._plans()
        trust = Trust.of(plans, self.sides, project=self.project)
        comparer = Comparer(
            sides=self.sides,
            policy=self.policy,
            project=self.project,
            whole=self.whole_views,
            trust=trust,
        )
        comparisons = comparer.compared([plan for plan in plans if not self._excused(plan)])
        self.notes += comparer.notes
        entries = self._entries(comparisons)
        held = must_pass(plans, self.sides.engine, trust)
        self.notes += held.notes
        return _whole(
            self.policy,
            self._overall(plans, comparisons, entries, held),
            comparisons=entries,
            must_pass_failures=held.failures,
            must_pass_missing=held.missing,
            budget=self._budget(plans),
            golden_sets=_paths(plans),
            notes=list(dict.fromkeys(self.notes)),
        )

    def _plans(self) -> list[Planned]:
        """Every comparison to be made, each once, and the notes of those that bring the rows."""
        sides, engine = self.sides, self.sides.engine
        matches = sides.matches()
        self.whole_views = {source.view for source in sides.sources.values() if source.is_run}
        self.notes += [note for source in sides.sources.values() for note in source.notes]
        self.notes += [] if sides.store is None else sides.store.problems
        rows.gather_rows(engine, list(sides.sources.values()))
        self.notes += rows.untrusted_judges(engine, sides.sources.values())
        groups = Groups(rows.groups_of(engine))
        plans = (
            plan
            for match in matches
            for plan in plan_comparisons(match, groups, sides.request, sides.settings)
        )
        found = list({plan.key: plan for plan in plans}.values())
        pooled, pools, notes = pool_baselines(
            engine, found, groups, self.policy, project=self.project
        )
        self.whole_views |= {pool.view for pool in pools}
        self.notes += [*sides.problems, *notes, *unmet(matches, groups, found)]
        return [self._unless_unmeasured(plan) for plan in pooled]

    def _unless_unmeasured(self, plan: Planned) -> Planned:
        """What has no baseline may be excused; a candidate that was not measured itself is not."""
        mine = plan.candidate_group
        if not plan.no_baseline or mine is None:
            return plan
        if mine.n_scored >= (self.policy.min_coverage - SAME) * mine.n_rows:
            return plan
        missing = (
            f"{mine.n_rows - mine.n_scored} of {mine.n_rows} scores of the candidate are missing"
        )
        return replace(plan, no_baseline=False, reason=f"{missing}; {plan.reason}")

    def _excused(self, plan: Planned) -> bool:
        """Whether there is nothing yet to compare with and that was said to be fine."""
        if not self._is_excused(plan):
            return False
        self.notes.append(f"{plan.metric}{on(plan)}: {plan.reason}. Nothing was compared.")
        return True

    def _is_excused(self, plan: Planned) -> bool:
        return plan.no_baseline and self.sides.request.allow_no_baseline

    def _entries(self, comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
        n_gating = sum(comparison.gates for comparison in comparisons)
        return [
            comparison_as_json(
                comparison,
                verdict=decide(comparison, self.policy),
                worst_verdict=decide_worst(comparison, self.policy),
                policy=self.policy,
                family_size=n_gating if comparison.gates else len(comparisons) - n_gating,
            )
            for comparison in comparisons
        ]

    def _budget(self, plans: Sequence[Planned]) -> dict[str, Any]:
        meetings = meetings_of(plans)
        if not any(m.candidate.has_calls or m.baseline.has_calls for m in meetings.values()):
            return {}
        by_number = {meetings[plan.key].number: plan for plan in plans if plan.key in meetings}
        rows = pairing.budget_rows(self.sides.engine, project=self.project)
        return budget_as_json(rows, by_number)

    def _overall(
        self,
        plans: Sequence[Planned],
        comparisons: Sequence[Comparison],
        entries: Sequence[dict[str, Any]],
        held: MustPass,
    ) -> Verdict:
        """The worst of what gates. Nothing that gates at all is no pass."""
        words: set[Verdict] = {entry["verdict"] for entry in entries if entry["gate"]}
        if held.failures:
            words.add("regression")
        if held.missing:
            words.add("unmeasurable")
            self.notes.append(f"{len(held.missing)} must-pass scores are missing")
        if not plans:
            self.notes.append("the candidate has no rows that --candidate or --compare names")
            return "unmeasurable"
        gates = any(comparison.gates for comparison in comparisons)
        excused = any(self._is_excused(plan) and plan.rule.gate for plan in plans)
        if not (gates or excused or held.asked):
            trusted = all(comparison.planned.held_back is None for comparison in comparisons)
            fix = "set gate: true on one in golden_set.yaml" if trusted else "the judges may not"
            self.notes.append(f"no metric gates: {fix}")
            return "unmeasurable"
        return next((word for word in WORST_FIRST if word in words), "pass")


def _paths(plans: Sequence[Planned]) -> dict[str, str]:
    """Golden set -> its file as the candidate's manifest says, for who points at its lines."""
    found = {}
    for plan in plans:
        golden = plan.candidate.source.golden_sets.get(plan.golden_set or "")
        if plan.golden_set and golden and golden.get("path"):
            found[plan.golden_set] = str(golden["path"])
    return found
