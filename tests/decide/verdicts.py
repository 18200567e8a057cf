"""Verdicts for tests of what reads them: one comparison, and text that others wrote."""

from __future__ import annotations

from typing import Any

HOSTILE = "\x1b[31m<img src=x onerror=alert(1)>|`x` [a](http://e.vil) @team #1 $x$\n# head"

SIDE: dict[str, Any] = {
    "run_id": "run-1",
    "file": None,
    "model": "small",
    "prompt_name": "classify",
    "prompt_version": "v2",
}


def comparison(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "golden_set": "tickets", "metric": "label", "tier": 1, "slice": None,
        "baseline": SIDE, "candidate": SIDE | {"run_id": "run-2"}, "n": 200, "n_clusters": None,
        "trials": 1, "baseline_mean": 0.9, "candidate_mean": 0.859, "delta": -0.041,
        "ci": [-0.067, -0.016], "p_value": 0.0003, "p_adjusted": 0.004,
        "method": "mcnemar-midp", "verdict": "regression", "mde": 0.09, "cases_needed": 440,
        "missing": {"baseline": 0, "candidate": 0, "excluded": 0, "unpaired": 0,
                    "worst_case_verdict": "regression", "outcomes": {}},
        "regressed_cases": ["t-1"], "improved_cases": [], "gate": True, "look_here": False,
        "family_size": 12, "confidence": 0.9, "same_pair": True, "reason": None,
        "tolerance": 0.0, "max_drop": 0.05, "trials_needed": None,
    }  # fmt: skip
    return values | changes


def verdict(*comparisons: dict[str, Any], **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "verdict": "regression", "alpha": 0.05, "correction": "holm", "strict": False,
        "comparisons": list(comparisons), "must_pass_failures": [], "must_pass_missing": [],
        "budget": {}, "golden_sets": {}, "notes": [],
    }  # fmt: skip
    return values | changes
