"""Comparisons made by hand, for tests of the rule and of what measures and writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evalkit.decide.comparison import Comparison, Planned, Policy, Rule, Side
from evalkit.decide.pairing import Cases
from evalkit.decide.rows import Source
from evalkit.decide.stats import Paired, compare
from evalkit.records import Pair

POLICY = Policy(alpha=0.05, correction="holm", min_coverage=0.95)
NONE = float("nan")
V1, V2 = (Pair.parse(f"small/classify@{version}") for version in ("v1", "v2"))


def run(run_id: str, golden: Mapping[str, Any] | None = None, **facts: Any) -> Source:
    golden_sets = {} if golden is None else {"tickets": golden}
    return Source(
        name=run_id, run_id=run_id, view=f"view_{run_id}", golden_sets=golden_sets, **facts
    )


def file(name: str) -> Source:
    return Source(name=name, run_id=None, view=f"view_{name}")


def planned(**changes: Any) -> Planned:
    """A metric that gates, of two versions of a prompt; rules are given by their own names."""
    rule = Rule(
        gate=changes.pop("gate", True),
        tolerance=changes.pop("tolerance", 0.0),
        max_drop=changes.pop("max_drop", 0.05),
    )
    whole = Planned(
        golden_set="tickets",
        metric="label",
        tier=1,
        rule=rule,
        candidate=Side(source=run("cand"), pair=V2),
        candidate_group=None,
        baseline=Side(source=run("base"), pair=V1),
        baseline_group=None,
        no_baseline=False,
    )
    return replace(whole, **changes)


def scored(baseline: Sequence[float], candidate: Sequence[float], **changes: Any) -> Cases:
    """Cases tried once on each side; NaN has no score."""
    b, c = np.array(baseline, dtype=np.float64), np.array(candidate, dtype=np.float64)
    unknown, once = np.full(len(b), np.nan), np.ones(len(b))
    values: dict[str, Any] = {
        "ids": np.array([f"c{n}" for n in range(len(b))], dtype=np.object_),
        "baseline": b, "candidate": c, "baseline_var": unknown, "candidate_var": unknown,
        "baseline_trials": once - np.isnan(b), "candidate_trials": once - np.isnan(c),
        "baseline_rows": once, "candidate_rows": once, "clusters": None,
        "outcomes": {"baseline": {}, "candidate": {}}, "excluded": 0, "unpaired": 0, "apart": {},
        "uncovered": 0,
    }  # fmt: skip
    return Cases(**(values | changes))


def paired(**changes: Any) -> Paired:
    """What a test of 200 cases without a change says."""
    return replace(compare([0.0] * 200), **changes)


def comparison(**changes: Any) -> Comparison:
    """One that passes, of 200 cases of which none changed; rules by name go to its plan."""
    rules = {name: changes.pop(name) for name in ("gate", "tolerance", "max_drop") & changes.keys()}
    plain = Comparison(
        planned=planned(**rules), slice=None, reason=None, cases=scored([1] * 200, [1] * 200),
        paired=paired(), worst=None, split=None, p_adjusted=1.0,
    )  # fmt: skip
    return replace(plain, **changes)
