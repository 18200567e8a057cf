"""Take over what was decided while a run went on.

A run with `--stop-early` ended because of what it showed: a test of fixed size does not hold
on its scores afterwards, the e-process that decided does (`early`, `sequential`). This reads
its outcome from the manifest; it decides nothing anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evalkit.decide.comparison import Comparison, Early, Planned
from evalkit.decide.pairing import Cases
from evalkit.decide.rows import Source
from evalkit.decide.stats import Paired
from evalkit.records import Pair

SAME = 1e-9


def own_pairs(source: Source) -> Iterator[tuple[str, Pair, Pair]]:
    """(golden set, candidate, baseline) that a run decided among its own pairs, once each."""
    facts = source.stop_early or {}
    yield from dict.fromkeys(
        (one["golden_set"], Pair.parse(one["candidate"]), Pair.parse(one["baseline"]))
        for one in facts.get("comparisons", ())
    )


def stopped(source: Source) -> bool:
    """Whether a run ended before its last case."""
    return bool((source.stop_early or {}).get("stopped"))


def is_own(plan: Planned) -> bool:
    """Whether both sides are of one run that could stop early."""
    return (
        plan.candidate.source.stop_early is not None
        and plan.baseline is not None
        and plan.baseline.source.run_id == plan.candidate.source.run_id
    )


def decided(plan: Planned, cases: Cases) -> Comparison | None:
    """The comparison as the run decided it; None where it did not look at it."""
    told = _told(plan)
    return None if told is None else _comparison(plan, cases, told)


def decided_otherwise(plan: Planned, *, alpha: float) -> str | None:
    """Why the run's decision does not answer what is asked now; None where it does."""
    told = _told(plan)
    if told is None:
        return None
    facts = plan.candidate.source.stop_early or {}
    then = (told["tolerance"], told["max_drop"], facts.get("alpha", alpha))
    if then == (plan.rule.tolerance, plan.rule.max_drop, alpha):
        return None
    return (
        f"run {plan.candidate.source.name} was decided as it ran, at tolerance {then[0]:g}, "
        f"max_drop {then[1]:g} and alpha {then[2]:g}: for others, run it without --stop-early"
    )


def _told(plan: Planned) -> Mapping[str, Any] | None:
    for one in (plan.candidate.source.stop_early or {}).get("comparisons", ()):
        sides = (plan.candidate.pair, plan.baseline.pair if plan.baseline else None)
        if (one["golden_set"], one["metric"]) == (plan.golden_set, plan.metric) and (
            one["candidate"], one["baseline"]
        ) == tuple(map(str, sides)):  # fmt: skip
            found: Mapping[str, Any] = one
            return found
    return None


def _comparison(plan: Planned, cases: Cases, told: Mapping[str, Any]) -> Comparison:
    early = Early(
        n=told["n"],
        n_drawn=told["n_drawn"],
        delta=told["delta"],
        ci=None if told["ci"] is None else (told["ci"][0], told["ci"][1]),
        p_value=told["p_value"],
        p_max_drop=told["p_max_drop"],
        family_size=(plan.candidate.source.stop_early or {})["family_size"],
    )
    d = (cases.candidate - cases.baseline)[cases.on_both]
    paired = Paired(
        n=early.n,
        n_clusters=early.n_drawn if early.n_drawn < early.n else None,
        delta=early.delta,
        ci=early.ci,
        p_value=early.p_value,
        p_improvement=None,
        p_exact=None,
        method="e-process",
        se=None,
        df=None,
        losses=int((d < -SAME).sum()),
        wins=int((d > SAME).sum()),
        mde=None,
        cases_needed=None,
        trials_needed=None,
    )
    return Comparison(
        planned=plan,
        slice=None,
        reason=None if early.n else "no case has a score on both sides",
        cases=cases,
        paired=paired,
        worst=None,
        split=None,
        early=early,
        p_adjusted=min(early.p_value * early.family_size, 1.0),
    )


def note_of(source: Source) -> str:
    """What a reader of the verdict has to know of a run that could stop early."""
    facts = source.stop_early or {}
    if not stopped(source):
        return f"run {source.name} could stop early: its comparisons are decided by e-processes"
    return (
        f"run {source.name} stopped early: its comparisons were decided while it ran, by "
        f"e-processes; {facts.get('calls_saved', 0):,} calls were saved"
    )


def only_roughly(source: Source) -> str:
    """The same where it meets another run."""
    return (
        f"run {source.name} stopped early because of what it showed: "
        "against another run the test is only rough"
    )
