"""Write a measured comparison down as the plain data that users script against.

Between the gate and everybody who reads its verdict: renderers, the report, pytest, CI.
Not known is null, never 0. Lists are bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from evalkit.decide.comparison import Comparison, Planned, Policy, Side, Verdict
from evalkit.decide.missing import fisher_missing
from evalkit.decide.pairing import Cases, Floats
from evalkit.decide.ppi import Powered
from evalkit.decide.rows import EXCLUDED
from evalkit.decide.trials import flaky_cases, pass_at_k, pass_hat_k

LISTED_CASES = 1_000
SAME = 1e-9


def comparison_as_json(
    comparison: Comparison,
    *,
    verdict: Verdict,
    worst_verdict: Verdict,
    policy: Policy,
    family_size: int,
) -> dict[str, Any]:
    """One entry of the verdict's `comparisons`; the keys up to `improved_cases` are fixed."""
    planned, paired, cases = comparison.planned, comparison.paired, comparison.cases
    on_both = None if cases is None else cases.on_both
    both = on_both is not None and bool(on_both.any())
    return {
        "golden_set": planned.golden_set,
        "metric": planned.metric,
        "tier": planned.tier or None,
        "slice": comparison.slice,
        "baseline": None if planned.baseline is None else _baseline(planned.baseline),
        "candidate": _side(planned.candidate),
        "n": paired.n if paired else 0,
        "n_clusters": paired.n_clusters if paired else None,
        "trials": _most_trials(cases, "candidate") if cases and len(cases.ids) else None,
        "baseline_mean": fmean(cases.baseline[on_both]) if cases and both else None,
        "candidate_mean": fmean(cases.candidate[on_both]) if cases and both else None,
        "delta": paired.delta if paired else None,
        "ci": list(paired.ci) if paired and paired.ci else None,
        "p_value": paired.p_value if paired else None,
        "p_adjusted": comparison.p_adjusted,
        "method": paired.method if paired else "unmeasurable",
        "verdict": verdict,
        "mde": paired.mde if paired else None,
        "cases_needed": paired.cases_needed if paired else None,
        "missing": _missing(comparison, worst_verdict),
        **_changed(cases),
        "gate": comparison.gates,
        "held_back": planned.held_back if comparison.slice is None else None,
        "look_here": not comparison.gates and verdict == "regression",
        "family_size": comparison.early.family_size if comparison.early else family_size,
        "confidence": 1 - 2 * policy.alpha,
        "same_pair": planned.baseline is not None
        and planned.baseline.pair == planned.candidate.pair,
        "reason": _reason(comparison, verdict, policy),
        "tolerance": planned.rule.tolerance,
        "max_drop": planned.rule.max_drop,
        "p_improvement": paired.p_improvement if paired else None,
        "p_exact": paired.p_exact if paired else None,
        "losses": paired.losses if paired else None,
        "wins": paired.wins if paired else None,
        "trials_needed": paired.trials_needed if paired else None,
        "noise": _noise(comparison),
        "people": _people(comparison),
    }


def _side(side: Side) -> dict[str, Any]:
    return {
        "run_id": side.source.run_id,
        "file": None if side.source.is_run else side.source.name,
        "model": side.pair.model or None,
        "prompt_name": side.pair.prompt_name or None,
        "prompt_version": side.pair.prompt_version or None,
    }


def _baseline(side: Side) -> dict[str, Any]:
    """The baseline's side; `run_id` is the newest of the runs that were pooled."""
    sources = (side.source, *side.pool)
    return {**_side(side), "run_ids": [one.run_id for one in sources if one.run_id is not None]}


def _most_trials(cases: Cases, side: str) -> int:
    """Most trials that any case has a score of."""
    return int(getattr(cases, f"{side}_trials").max(initial=0))


def _reason(comparison: Comparison, verdict: Verdict, policy: Policy) -> str | None:
    """Why nothing can be said; None when something is."""
    if verdict != "unmeasurable":
        return None
    cases = comparison.cases
    if comparison.reason is not None or cases is None:
        return comparison.reason
    if cases.on_both.all():
        if comparison.worst_p_adjusted is not None:
            return "trials without a score could hide a regression"
        return "cases that were edited are too many"
    gone = int((~cases.on_both).sum())
    hides = comparison.p_adjusted is not None and comparison.coverage >= policy.min_coverage - SAME
    return f"{gone} of {len(cases.ids)} cases have no score on one side or both" + (
        ", which could hide a regression" if hides else ""
    )


def _missing(comparison: Comparison, worst_verdict: Verdict) -> dict[str, Any]:
    cases = comparison.cases
    if cases is None:
        return {
            "baseline": None, "candidate": None, "excluded": None, "unpaired": None, "apart": {},
            "worst_case_verdict": "unmeasurable", "outcomes": {}, "coverage": None,
            "fisher_p": None,
        }  # fmt: skip
    n = len(cases.ids)
    gone = {
        side: sum(count for outcome, count in counts.items() if outcome != EXCLUDED)
        for side, counts in cases.outcomes.items()
    }
    return {
        "baseline": gone["baseline"],
        "candidate": gone["candidate"],
        "excluded": cases.excluded,
        "unpaired": cases.unpaired,
        "apart": {why: sorted(ids)[:LISTED_CASES] for why, ids in cases.apart.items() if len(ids)},
        "worst_case_verdict": worst_verdict,
        "outcomes": {side: dict(counts) for side, counts in cases.outcomes.items()},
        "coverage": cases.coverage,
        "fisher_p": fisher_missing(gone["baseline"], n, gone["candidate"], n) if n else None,
    }


def _changed(cases: Cases | None) -> dict[str, list[str]]:
    """Ids of the cases that lost and that gained, the largest change first."""
    if cases is None:
        return {"regressed_cases": [], "improved_cases": []}
    d = cases.candidate - cases.baseline
    down, up = np.flatnonzero(d < -SAME), np.flatnonzero(d > SAME)
    # Rounded: the last digit of a mean is an accident. Cases come by id, and equal ones stay so.
    worst = down[np.argsort(np.round(d[down], 9), kind="stable")]
    best = up[np.argsort(-np.round(d[up], 9), kind="stable")]
    return {
        "regressed_cases": cases.ids[worst[:LISTED_CASES]].tolist(),
        "improved_cases": cases.ids[best[:LISTED_CASES]].tolist(),
    }


def _noise(comparison: Comparison) -> dict[str, Any] | None:
    """What several trials of a case tell; None where every case was tried once."""
    cases, split = comparison.cases, comparison.split
    if cases is None or split is None:
        return None
    before, after = _most_trials(cases, "baseline"), _most_trials(cases, "candidate")
    if after < 2:
        return None
    flaky = flaky_cases(cases.ids.tolist(), np.zeros(len(cases.ids)), cases.candidate_var)
    return {
        "between": split.between,
        "within": split.within,
        "share_within": split.share_within,
        "flaky_cases": flaky[:LISTED_CASES],
        "n_flaky": len(flaky),
        "pass_hat_k": _of_k(pass_hat_k, cases, min(before, after)),
        "pass_at_k": _of_k(pass_at_k, cases, min(before, after)),
    }


def _people(comparison: Comparison) -> dict[str, Any] | None:
    """What people's labels did to a judge's comparison; None where the judge stands alone."""
    found, cases = comparison.estimates, comparison.cases
    if found is None or cases is None:
        return None
    both = found.both
    needed = found.labels_needed
    return {
        "n_labelled": both.n_labelled,
        "judge_delta": fmean((cases.candidate - cases.baseline)[cases.on_both]),
        "judge_weight": both.judge_weight,
        "judge_bias": both.judge_bias,
        "label_saving": both.label_saving,
        "judge_only": {"delta": found.judge.delta, "ci": _ends(found.judge.ci)},
        "labels_only": {"delta": found.labels.estimate, "ci": _ends(found.labels.ci)},
        "combined": {"delta": both.estimate, "ci": _ends(both.ci)},
        "labels_needed": needed,
        "more_labels": None if needed is None else max(needed - both.n_labelled, 0),
        "quality": {
            "baseline": _quality(found.baseline),
            "candidate": _quality(found.candidate),
        },
    }


def _quality(found: Powered | None) -> dict[str, Any] | None:
    """How good people would find one side, 0..1; None with too few labels of it."""
    if found is None:
        return None
    return {"mean": found.estimate, "ci": _ends(found.ci), "n_labelled": found.n_labelled}


def _ends(ci: tuple[float, float] | None) -> list[float] | None:
    return None if ci is None else list(ci)


def _of_k(
    chance: Callable[[Floats, Floats, int], float | None], cases: Cases, k: int
) -> dict[str, Any] | None:
    """Chance that all, or one, of k trials pass, both sides; None where scores are graded."""
    found: dict[str, Any] = {"k": k}
    for side in ("baseline", "candidate"):
        means, trials = getattr(cases, side), getattr(cases, f"{side}_trials")
        passes = np.nan_to_num(means) * trials
        spread = np.nan_to_num(getattr(cases, f"{side}_var"))
        as_binary = np.nan_to_num(means * (1 - means)) * trials / np.maximum(trials - 1, 1)
        binary = np.abs(spread - as_binary).max(initial=0) < 1e-6
        if k < 1 or not binary:
            return None
        found[side] = chance(np.rint(passes), trials, k)
    return found


# --- beside the comparisons -----------------------------------------------------------


def must_pass_as_json(row: Mapping[str, Any], plan: Planned) -> dict[str, Any]:
    pair = plan.candidate.pair
    return {
        "golden_set": plan.golden_set,
        "case_id": row["case_id"],
        "metric": row["metric"],
        "trial": row["trial"],
        "run_id": plan.candidate.source.run_id,
        "model": pair.model,
        "prompt_name": pair.prompt_name,
        "prompt_version": pair.prompt_version,
        "outcome": row["outcome"],
        "reason": row["reason"],
    }


def budget_as_json(
    rows: Sequence[Mapping[str, Any]], plans: Mapping[int, Planned]
) -> dict[str, list[dict[str, Any]]]:
    """Mean and 95th percentile of latency and cost, a row for each two pairs that meet."""
    by_meeting: dict[int, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_meeting.setdefault(int(row["meeting"]), {})[row["side"]] = row
    found: dict[str, list[dict[str, Any]]] = {"latency_ms": [], "cost_usd": []}
    for number, sides in by_meeting.items():
        plan = plans[number]
        for name, counted in (("latency_ms", "timed"), ("cost_usd", "priced")):
            if not any(row[counted] for row in sides.values()):
                continue
            entry: dict[str, Any] = {"golden_set": plan.golden_set}
            for side, where in (("baseline", plan.baseline), ("candidate", plan.candidate)):
                row = sides[side]
                entry[side] = (_side(where) if where else {}) | {
                    "mean": row[f"mean_{name}"],
                    "p95": row[f"p95_{name}"],
                    "calls": row["calls"],
                    "unknown": row["calls"] - row[counted],
                }
            found[name].append(entry)
    return found
