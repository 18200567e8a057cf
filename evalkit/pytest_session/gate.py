"""What a gate is held against, and what the verdict then says of one pair on one golden set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from evalkit.pytest_session.runs import KeptRun
from evalkit.records import Pair
from evalkit.score.golden import GoldenSet

Verdict: TypeAlias = Mapping[str, Any]


def gate_failures(verdict: Verdict, golden: GoldenSet, pair: Pair) -> list[str]:
    """Sentences on why the gate of `pair` on `golden` fails; none when it does not.

    What cannot be measured fails, too, and so does the inconclusive of a strict gate.
    """
    from evalkit.decide.render import comparison_sentence, must_pass_sentence

    def is_mine(entry: Mapping[str, Any], side: Mapping[str, Any]) -> bool:
        wanted = (golden.name, pair.model, pair.prompt_version)
        return (entry["golden_set"], side["model"], side["prompt_version"]) == wanted

    failing = {"regression", "unmeasurable"} | ({"inconclusive"} if verdict["strict"] else set())
    mine = [c for c in verdict["comparisons"] if c["gate"] and is_mine(c, c["candidate"])]
    bad = [comparison_sentence(c) for c in mine if c["verdict"] in failing]
    bad += [must_pass_sentence(e) for e in verdict["must_pass_failures"] if is_mine(e, e)]
    missing = sum(is_mine(entry, entry) for entry in verdict["must_pass_missing"])
    if missing:
        bad.append(f"unmeasurable: {missing} must-pass scores are missing")
    if not (mine or bad or _has_only_to_pass(golden, verdict)):
        bad.append("unmeasurable: " + ("; ".join(verdict["notes"]) or "no comparison"))
    return bad


def unmeasured(runs: Sequence[KeptRun], *, n_unpaid: int) -> list[str]:
    """Why a session without gates measured nothing it can stand for; none when it did.

    `n_unpaid` items made no call because the money had run out.
    """
    found = []
    if any(run.summary.done for run in runs) and not any(
        metric.n for run in runs for metric in run.summary.metrics.values()
    ):
        found.append("no case was scored")
    if n_unpaid or any(run.unpaid_scores for run in runs):
        found.append(f"--llm-eval-max-cost is reached: {n_unpaid} items made no call")
    missing = sum(run.must_pass_missing for run in runs)
    if missing:
        found.append(f"{missing} must-pass scores are missing")
    return found


def _has_only_to_pass(golden: GoldenSet, verdict: Verdict) -> bool:
    """Whether must-pass metrics are all that a golden set is held to, and were looked at."""
    must_pass = any(metric.must_pass for metric in golden.metrics)
    gates = any(metric.gate for metric in golden.metrics)
    return must_pass and not gates and golden.name in verdict["golden_sets"]
