"""What a run has done so far, counted from its journal lines.

The progress line, the closing table and the manifest's counts read it; it decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evalkit.score.bias import Repeats
from evalkit.score.length import Lengths
from evalkit.score.null_answers import UNTRUSTED
from evalkit.score.pairwise import ORDERS_AGREE, ORDERS_DISAGREE

JUDGE_TIER = 2


@dataclass(slots=True)
class MetricSummary:
    """Running totals of one metric of one pair."""

    n: int = 0
    total: float = 0.0
    passed: int = 0
    missing: int = 0
    orders_agree: int = 0
    orders_disagree: int = 0
    """Of a pairwise judge: answers for which the winner followed the place."""
    untrusted: str | None = None
    """Why nothing that this judge says counts."""
    lengths: Lengths = field(default_factory=Lengths)
    """Of what a judge graded, one trial a case."""

    @property
    def mean(self) -> float | None:
        return self.total / self.n if self.n else None


@dataclass(slots=True, kw_only=True)
class RunSummary:
    """What has happened so far; the progress line and the closing table read it."""

    planned: int
    done: int = 0
    resumed: int = 0
    saved: int = 0
    """Units that need not run any more: what they could have shown is decided."""
    cost_usd: float = 0.0
    judge_cost_usd: float = 0.0
    unpriced_calls: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """Per case: scored, or the outcome that kept it from being scored."""
    errors: Counter[str] = field(default_factory=Counter)
    """Per kind of failure of the model's own calls."""
    metrics: dict[tuple[str, str, str], MetricSummary] = field(default_factory=dict)
    """(golden set, pair, metric) -> totals."""
    must_pass_failures: list[tuple[str, str, str, str]] = field(default_factory=list)
    """(golden set, pair, case id, metric)."""
    repeats: dict[tuple[str, str], Repeats] = field(default_factory=dict)
    """(golden set, pair) -> how often each answer was given, one trial a case."""
    stopped: str | None = None
    """None when every unit finished, else budget_stop or cancelled."""

    @property
    def complete(self) -> bool:
        return self.done + self.saved == self.planned


def is_unfinished(line: Mapping[str, Any]) -> bool:
    """Whether a line is only what was paid for a case that the budget did not let end."""
    return "unfinished" in line


def count_line(line: Mapping[str, Any], summary: RunSummary) -> None:
    """Count a line of a run: the model's call, the judges' calls, the scores."""
    call, *judge_calls = line["calls"]
    summary.cost_usd += call["cost_usd"] or 0.0
    summary.unpriced_calls += call["cost_usd"] is None
    if is_unfinished(line):
        _count_judges(judge_calls, summary)
        return
    if call["error_kind"]:
        summary.errors[call["error_kind"]] += 1
    _count_answer(line["key"], call["output"], summary)
    _count_judges(judge_calls, summary)
    _count_scores(line, summary)
    _count_lengths(line, call["output"], summary)


def count_rescored_line(line: Mapping[str, Any], summary: RunSummary) -> None:
    """Count a line for which no model was called again: all its calls are judges'."""
    _count_judges(line["calls"], summary)
    if not is_unfinished(line):
        _count_scores(line, summary)


def _count_answer(key: list[Any], output: str | None, summary: RunSummary) -> None:
    golden_set, pair, _, _, trial = key
    if trial == 0 and output:
        summary.repeats.setdefault((golden_set, pair), Repeats()).add(output)


def _count_lengths(line: Mapping[str, Any], output: str | None, summary: RunSummary) -> None:
    golden_set, pair, _, _, trial = line["key"]
    if trial == 0 and output:
        for score in line["scores"]:
            if score["tier"] == JUDGE_TIER and score["outcome"] == "scored":
                totals = summary.metrics[golden_set, pair, score["metric"]]
                totals.lengths.add(len(output), score["score"])


def _count_judges(calls: list[Mapping[str, Any]], summary: RunSummary) -> None:
    summary.judge_cost_usd += sum(call["cost_usd"] or 0.0 for call in calls)
    summary.unpriced_calls += sum(call["cost_usd"] is None for call in calls)


def _count_scores(line: Mapping[str, Any], summary: RunSummary) -> None:
    golden_set, pair, case_id, _, _ = line["key"]
    summary.done += 1
    outcomes = {score["outcome"] for score in line["scores"]}
    summary.outcomes[min(outcomes - {"scored"}, default="scored")] += 1
    for score in line["scores"]:
        totals = summary.metrics.setdefault((golden_set, pair, score["metric"]), MetricSummary())
        if score["score"] is None:
            totals.missing += 1
            if score["error_kind"] == UNTRUSTED:
                totals.untrusted = score["reason"]
            continue
        totals.n += 1
        totals.total += score["score"]
        totals.passed += bool(score["passed"])
        _count_orders(score, totals)
        if score["passed"] is False and score["metric"] in line["must_pass"]:
            summary.must_pass_failures.append((golden_set, pair, case_id, score["metric"]))


def _count_orders(score: Mapping[str, Any], totals: MetricSummary) -> None:
    """Only a pairwise judge has opponents in its version; its reason says how they met."""
    if ":against=" in (score["scorer_version"] or ""):
        reason = score["reason"] or ""
        totals.orders_agree += reason.startswith(f"[{ORDERS_AGREE}")
        totals.orders_disagree += reason.startswith(f"[{ORDERS_DISAGREE}")
