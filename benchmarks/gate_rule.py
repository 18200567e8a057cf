"""Ask the gate's own rule about simulated arrays, without files or a store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.worlds import Floats
from evalkit.decide.comparison import Comparison, Planned, Policy, Rule, Side
from evalkit.decide.gate import decide
from evalkit.decide.measure import adjust, measure
from evalkit.decide.pairing import Cases
from evalkit.decide.rows import Source
from evalkit.records import Pair

PAIR = Pair(model="simulated", prompt_name="p", prompt_version="v1")
SIDE = Side(source=Source(name="simulated", run_id=None, view="none"), pair=PAIR)
PLANNED = Planned(
    golden_set="simulated",
    metric="m",
    tier=1,
    rule=Rule(gate=True, tolerance=0.0, max_drop=0.05),
    candidate=SIDE,
    candidate_group=None,
    baseline=SIDE,
    baseline_group=None,
    no_baseline=False,
)
POLICY = Policy(alpha=0.05, correction="holm", min_coverage=0.95)


def verdicts_of(comparisons: Sequence[tuple[Floats, Floats]]) -> list[str]:
    """The verdict on each (baseline, candidate) of one invocation, with the defaults.

    A side is (n_cases, trials); NaN is a trial without a score.
    """
    measured = [_measured(b, c, len(comparisons)) for b, c in comparisons]
    return [decide(comparison, POLICY) for comparison in adjust(measured, POLICY)]


def _measured(baseline: Floats, candidate: Floats, family: int) -> Comparison:
    n = len(baseline)
    means, variances, counts = zip(*map(_summed, (baseline, candidate)), strict=True)
    cases = Cases(
        ids=np.array([f"case-{i}" for i in range(n)]),
        baseline=means[0],
        candidate=means[1],
        baseline_var=variances[0],
        candidate_var=variances[1],
        baseline_trials=counts[0],
        candidate_trials=counts[1],
        baseline_rows=np.full(n, float(baseline.shape[1])),
        candidate_rows=np.full(n, float(candidate.shape[1])),
        clusters=None,
        outcomes={},
        excluded=0,
        unpaired=0,
        uncovered=0,
        apart={},
    )
    return measure(PLANNED, cases, reason=None, policy=POLICY, family_size=family)


def _summed(scores: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean, sample variance and number of the trials that have a score, per case."""
    there = ~np.isnan(scores)
    count = there.sum(axis=1).astype(np.float64)
    total = np.where(there, scores, 0.0).sum(axis=1)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    apart = np.where(there, scores - mean[:, None], 0.0) ** 2
    variance = np.where(count > 1, apart.sum(axis=1) / np.maximum(count - 1, 1), np.nan)
    return mean, variance, count
