"""What `decide` looks at: one metric of two pairs, measured, and the policy it is held to.

Plain records between pairing, the statistics and the verdict. No I/O, no numbers made here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evalkit.decide.pairing import Cases
from evalkit.decide.rows import Group, Source
from evalkit.decide.stats import Paired
from evalkit.decide.trials import Split
from evalkit.records import Pair

if TYPE_CHECKING:
    from evalkit.decide.estimates import Estimates

Verdict = Literal["pass", "regression", "inconclusive", "unmeasurable"]

WORST_FIRST: tuple[Verdict, ...] = ("regression", "unmeasurable", "inconclusive", "pass")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When a drop fails the build: one for all comparisons of an invocation."""

    alpha: float
    correction: Literal["holm", "bh"]
    min_coverage: float
    strict: bool = False
    """Whether the inconclusive fails, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one metric is held to."""

    gate: bool
    tolerance: float
    """Drop that H0 allows, 0..1."""
    max_drop: float
    """Drop that a pass has to exclude, 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A pair in one source."""

    source: Source
    pair: Pair
    pool: tuple[Source, ...] = ()
    """Further runs of the pair that serve as one baseline with `source`, its newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A comparison to be made, or the reason why it cannot be."""

    golden_set: str | None
    metric: str
    tier: int
    rule: Rule
    candidate: Side
    candidate_group: Group | None
    """Its rows; None where it has none of this metric."""
    baseline: Side | None
    baseline_group: Group | None
    reason: str | None = None
    """Why the two sides are not comparable; None when they are."""
    no_baseline: bool
    """The reason is that there is nothing yet to compare with."""
    held_back: str | None = None
    """Why it does not gate though the golden set says so; None for all others."""

    @property
    def must_pass(self) -> bool:
        """Whether a case that fails this metric fails the build, whatever the others do."""
        golden = self.candidate.source.golden_sets.get(self.golden_set or "", {})
        metrics = [m for m in golden.get("metrics", ()) if m["name"] == self.metric]
        return any(m.get("must_pass") for m in metrics)

    @property
    def gating_slices(self) -> tuple[str, ...]:
        """Metadata keys whose slices gate where the metric does."""
        golden = self.candidate.source.golden_sets.get(self.golden_set or "", {})
        return tuple(golden.get("gating_slices", ())) if self.rule.gate else ()

    @property
    def key(self) -> tuple[object, ...]:
        """What two plans of the same comparison share."""
        sides = [(s.source.view, s.pair) if s else None for s in (self.candidate, self.baseline)]
        return (self.golden_set, self.metric, *sides)


@dataclass(frozen=True, slots=True, kw_only=True)
class Early:
    """What a run that may stop early decided of a comparison while it went on."""

    n: int
    """Cases with a score on both sides until the decision, or in all."""
    n_drawn: int
    """Clusters those fall into, or cases."""
    delta: float | None
    ci: tuple[float, float] | None
    """Confidence sequence at 1 - 2·alpha: it holds however often one looks."""
    p_value: float
    """Anytime-valid, for a drop beyond the tolerance."""
    p_max_drop: float
    """Anytime-valid, for a drop smaller than max_drop, in the worst case."""
    family_size: int
    """Comparisons that the run decided; each had alpha / family_size to spend."""

    def decision(self, alpha: float) -> Literal["regression", "pass", "inconclusive"]:
        bar = alpha / self.family_size * (1 + 1e-9)
        if self.p_value <= bar:
            return "regression"
        return "pass" if self.p_max_drop <= bar else "inconclusive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One metric, over all cases or one slice of them, as measured."""

    planned: Planned
    slice: str | None
    reason: str | None
    """Why nothing can be said; None when something can."""
    cases: Cases | None
    paired: Paired | None
    """The test on the cases that both sides scored."""
    worst: Paired | None
    """The same with every missing score as bad for the candidate as can be; None when
    none is missing."""
    split: Split | None
    estimates: Estimates | None = None
    """The judge's, people's, and both together; None where `paired` is the judge's alone."""
    early: Early | None = None
    """What decided before the run ended; then `paired` only tells it."""
    slice_gates: bool = False
    """Whether a drop in this slice fails the build, as one over all cases does."""
    p_adjusted: float | None = None
    """Corrected for the other comparisons of its family."""
    worst_p_adjusted: float | None = None

    @property
    def gates(self) -> bool:
        """Whether it can fail the build; most slices are only looked at."""
        return self.planned.rule.gate and (self.slice is None or self.slice_gates)

    @property
    def coverage(self) -> float:
        return 0.0 if self.cases is None else self.cases.coverage
