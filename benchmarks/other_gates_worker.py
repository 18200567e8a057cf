"""Ask each published gate for its word on every build of a file; runs in their environment.

    python other_gates_worker.py BUILDS.jsonl

One build per line: a list of [baseline, candidate], each cases of trials, null for a trial
without a score. Written to stdout: {gate: ["block" | "pass" | "undecided", ...]}. A build
of several pairs is blocked when one is. Defaults are the gates' own, resamples included.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

Side = list[list[float | None]]


def mean(trials: list[float | None]) -> float | None:
    seen = [score for score in trials if score is not None]
    return sum(seen) / len(seen) if seen else None


def evalproof(baseline: Side, candidate: Side) -> str:
    from evalproof import GateConfig, compare_runs, decide
    from evalproof.models import CaseResult, Run, RunInfo, Score, SystemOutput

    def score(trials: list[float | None]) -> Score:
        value = mean(trials)
        passed = None if value is None or len(trials) > 1 else value == 1.0
        return Score(value=value, passed=passed)

    def run(side: Side) -> Run:
        info = RunInfo(
            suite="s", system="s", dataset_path="d", dataset_hash="h", started_at="", seed=0,
            finished_at="", wall_time_s=0.0, evalproof_version="0",
        )  # fmt: skip
        output = SystemOutput(output="")
        results = [
            CaseResult(case_id=f"c{i:05}", output=output, scores={"m": score(trials)})
            for i, trials in enumerate(side)
        ]
        return Run(info=info, results=results)

    decision = decide(compare_runs(run(baseline), run(candidate)), GateConfig(metric="m"))
    return {0: "pass", 1: "block"}.get(decision.exit_code, "undecided")


def statgate(baseline: Side, candidate: Side) -> str:
    from statgate import GateSettings, Verdict, evaluate_gate
    from statgate.records import EvalRecord

    def records(side: Side) -> list[EvalRecord]:
        return [
            EvalRecord(case_id=f"c{i:05}", score=score, run_index=trial)
            for i, trials in enumerate(side)
            for trial, score in enumerate(trials)
            if score is not None
        ]

    report = evaluate_gate(records(baseline), records(candidate), GateSettings(seed=42))
    return {Verdict.SHIP: "pass", Verdict.BLOCK: "block"}.get(report.verdict, "undecided")


def evalsig(baseline: Side, candidate: Side) -> str:
    from evalsig import gate
    from evalsig.types import ItemResult, RunFrame

    def frame(side: Side, name: str) -> RunFrame:
        items = [
            ItemResult(item_id=f"c{i:05}", score=score, epoch=trial)
            for i, trials in enumerate(side)
            for trial, score in enumerate(trials)
            if score is not None
        ]
        return RunFrame(run_id=name, model_id=name, task_id="t", metric_name="m", items=items)

    report = gate(frame(baseline, "a"), frame(candidate, "b"), min_delta=0.005)
    return {"ALLOW": "pass", "REJECT": "block"}.get(report.verdict.value, "undecided")


def deltagate(pairs: list[tuple[Side, Side]]) -> str:
    """Its suite report, Holm across the pairs; a library, so 'worse and surviving' is a block."""
    import deltagate as dg

    def scores(side: Side) -> dict[str, float]:
        means = {f"c{i:05}": mean(trials) for i, trials in enumerate(side)}
        return {case: value for case, value in means.items() if value is not None}

    suite = {str(i): (scores(c), scores(b)) for i, (b, c) in enumerate(pairs)}
    try:
        report = dg.reliability_report(suite)
    except ValueError:
        return "undecided"
    worse = [name for name in report.holm_survivors if report.tasks[name].delta < 0]
    return "block" if worse else "pass"


def evalgate(baseline: Side, candidate: Side) -> str:
    """Its paired command's steps; a CSV has one row per example, so the first trial."""
    from evalgate.decide import decide
    from evalgate.io import as_correct, discordant_counts
    from evalgate.stats import mcnemar_test

    def column(side: Side) -> list[bool]:
        return as_correct(["" if case[0] is None else str(int(case[0])) for case in side])

    decision = decide(mcnemar_test(*discordant_counts(column(baseline), column(candidate))))
    return "block" if decision.is_regression else "pass"


SINGLE = {
    "evalproof": evalproof, "statgate": statgate, "evalsig": evalsig, "evalgate-cli": evalgate
}  # fmt: skip


def word_of(words: list[str]) -> str:
    return next((word for word in ("block", "undecided") if word in words), "pass")


def main(path: Path) -> None:
    builds = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    answers: dict[str, list[str]] = {}
    for name, ask in SINGLE.items():
        answers[name] = [word_of([ask(b, c) for b, c in build]) for build in builds]
    answers["deltagate"] = [deltagate(build) for build in builds]
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1]))
