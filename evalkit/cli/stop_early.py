"""Which pairs meet in a run that may stop early, and the rule that says when it may."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from evalkit.errors import ConfigError

if TYPE_CHECKING:
    from evalkit.config import GateSettings
    from evalkit.decide.early import EarlyRule
    from evalkit.records import Pair
    from evalkit.score.runner import PlannedSet
    from evalkit.wiring import PreparedRun

SHOWN_CONTESTS = 20


def early_rule(settings: GateSettings) -> Callable[[PreparedRun], EarlyRule]:
    """Makes the rule for a run: every gating metric, at the gate's own alpha.

    Raises ConfigError when nothing gates, slices do, or nobody says which pair is the baseline.
    """

    def make(prepared: PreparedRun) -> EarlyRule:
        from evalkit.decide.early import Contest, EarlyRule

        for one in prepared.plan.sets:
            if one.golden.gating_slices:
                raise ConfigError(
                    f"--stop-early: golden set {one.golden.name} gates on slices "
                    f"({', '.join(one.golden.gating_slices)}), and a run that stops when the whole "
                    "is decided has too little of them. Run it without."
                )
        contests = [
            Contest(
                golden_set=one.golden.name,
                metric=metric.name,
                baseline=str(baseline),
                candidate=str(candidate),
                tolerance=settings.tolerance if metric.tolerance is None else metric.tolerance,
                max_drop=settings.max_drop if metric.max_drop is None else metric.max_drop,
            )
            for one in prepared.plan.sets
            for baseline, candidate in meetings_of(one.pairs, prepared.baseline_pair)
            for metric in one.golden.metrics
            if metric.gate and metric.tier != 3
        ]
        if not contests:
            raise ConfigError(
                "--stop-early: no metric gates, so there is nothing to decide. "
                "Set gate: true on one in golden_set.yaml."
            )
        return EarlyRule(
            contests,
            drawn={one.golden.name: drawn_of(one) for one in prepared.plan.sets},
            executions={one.golden.name: len(one.pairs) * one.trials for one in prepared.plan.sets},
            alpha=settings.alpha,
        )

    return make


def meetings_of(pairs: Sequence[Pair], baseline_pair: str | None) -> list[tuple[Pair, Pair]]:
    """(baseline, candidate) of a run: as named, else first and last prompt, else first and last.

    Raises ConfigError where that is not plain.
    """
    if baseline_pair is not None:
        baseline = next(pair for pair in pairs if str(pair) == baseline_pair)
        others = [(baseline, pair) for pair in pairs if pair != baseline]
        if not others:
            raise ConfigError(
                f"--baseline-pair {baseline_pair} is the only pair of this run. "
                "Name a candidate: --prompt NAME@V or --model M."
            )
        return others
    versions = list(dict.fromkeys(pair.prompt_version for pair in pairs))
    if len(versions) == 2:
        by_model: dict[str, list[Pair]] = {}
        for pair in pairs:
            by_model.setdefault(pair.model, []).append(pair)
        return [(same[0], same[-1]) for same in by_model.values()]
    if len(pairs) == 2:
        return [(pairs[0], pairs[1])]
    raise ConfigError(
        f"--stop-early: {len(pairs)} pairs run, and it is not plain which is the baseline. "
        "Name it with --baseline-pair MODEL/PROMPT@V, or name two prompts, the baseline first."
    )


def drawn_of(planned: PlannedSet) -> list[list[str]]:
    """Case ids in running order; cases of one cluster, which run together, in one list."""
    golden = planned.golden
    clusters = [case.cluster for case in golden.cases]

    def cluster_of(number: int) -> int | str:
        cluster = clusters[number]
        return number if cluster is None else cluster

    return [
        [golden.cases.ids[number] for number in numbers]
        for _, numbers in groupby(planned.case_numbers, key=cluster_of)
    ]


def early_lines(early: Mapping[str, Any], run_id: str) -> list[str]:
    """What a run that could stop early decided, for people."""
    lines = []
    for one in early["comparisons"][:SHOWN_CONTESTS]:
        moved = "" if one["delta"] is None else f", moved by {one['delta']:+.3f}"
        lines.append(
            f"{one['golden_set']} {one['metric']}: {one['candidate']} against {one['baseline']}: "
            f"{one['decision'] or 'not decided'} after {one['n']} cases{moved}"
        )
    if early["stopped"]:
        lines.append(f"stopped early: {early['calls_saved']} calls saved")
    for candidate, baseline in dict.fromkeys(
        (one["candidate"], one["baseline"]) for one in early["comparisons"]
    ):
        lines.append(f"decide: evalkit gate --candidate {run_id} --compare {candidate}:{baseline}")
    return lines
