"""Find what had to pass and did not: must-pass metrics, and must-pass cases on what gates.

Outside the family of comparisons: one failure is enough. A judge that may not gate may not
fail a build this way either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evalkit.decide.comparison import Planned
from evalkit.decide.pairing import must_pass_rows
from evalkit.decide.trust import Trust
from evalkit.decide.verdict import must_pass_as_json

if TYPE_CHECKING:
    from evalkit.store.views import Engine


@dataclass(slots=True, kw_only=True)
class MustPass:
    """What the candidates' rows say."""

    failures: list[dict[str, Any]] = field(default_factory=list)
    missing: list[dict[str, Any]] = field(default_factory=list)
    """Rows without a score."""
    asked: bool = False
    """Whether any metric is must-pass."""
    notes: list[str] = field(default_factory=list)


def must_pass(plans: Sequence[Planned], engine: Engine, trust: Trust) -> MustPass:
    """Rows of candidates that had to pass: those that failed, those without a score."""
    found = MustPass()
    advisory = {}
    for plan in plans:
        may_fail = plan.rule.gate or plan.must_pass
        why = trust.objection(plan) if may_fail else None
        if why is not None:
            advisory[(*_whose(plan), plan.metric)] = why
            if plan.must_pass:
                found.notes.append(f"{need_not_pass(plan.metric, plan.golden_set)}: {why}")
    found.notes = list(dict.fromkeys(found.notes))
    for plan in {_whose(plan): plan for plan in plans if plan.candidate_group}.values():
        golden = plan.candidate.source.golden_sets.get(plan.golden_set or "", {})
        held = [m for m in golden.get("metrics", ()) if (*_whose(plan), m["name"]) not in advisory]
        named = [m["name"] for m in held if m.get("must_pass")]
        found.asked = found.asked or bool(named)
        assert plan.candidate_group is not None
        for row in must_pass_rows(
            engine,
            plan.candidate_group,
            metrics=named,
            cases=golden.get("must_pass_cases", ()),
            gating=[m["name"] for m in held if m.get("gate")],
        ):
            told = found.missing if row["missing"] else found.failures
            told.append(must_pass_as_json(row, plan))
    return found


def need_not_pass(metric: object, golden_set: object) -> str:
    """How a verdict's note on a must-pass metric begins whose judge may fail no build."""
    return f"{metric} on {golden_set} need not be passed"


def _whose(plan: Planned) -> tuple[object, ...]:
    return (plan.candidate.source.view, plan.golden_set, plan.candidate.pair)
