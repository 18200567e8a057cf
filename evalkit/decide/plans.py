"""Say which comparisons are to be made, of the rows that two sides have.

The pair rules of `selectors` and each golden set's metric rules. What cannot be compared
is kept as a comparison with its reason, so that it is never silently left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evalkit.decide.comparison import Planned, Rule, Side
from evalkit.decide.rows import Group, Source
from evalkit.decide.selectors import counterpart
from evalkit.records import Pair

if TYPE_CHECKING:
    from evalkit.config import GateSettings
    from evalkit.decide.sides import Match, Request


@dataclass(frozen=True, slots=True)
class Groups:
    """What is in the engine, looked up by source, golden set, pair and metric."""

    all: Sequence[Group]

    def golden_sets(self, source: Source) -> list[str]:
        return list(dict.fromkeys(g.golden_set for g in self.all if g.source == source.view))

    def pairs(self, source: Source, golden_set: str) -> list[Pair]:
        return list(
            dict.fromkeys(
                g.pair for g in self.all if g.source == source.view and g.golden_set == golden_set
            )
        )

    def metrics(self, source: Source, golden_set: str, pair: Pair) -> dict[str, Group]:
        return {
            g.metric: g
            for g in self.all
            if (g.source, g.golden_set, g.pair) == (source.view, golden_set, pair)
        }

    def counterpart_set(self, golden_set: str, baseline: Source) -> str | None:
        """The baseline's golden set of that name; a file that names none has the only one."""
        there = self.golden_sets(baseline)
        if golden_set in there:
            return golden_set
        nameless = golden_set == "" or there == [""]
        return there[0] if nameless and len(there) == 1 else None


def plan_comparisons(
    match: Match, groups: Groups, request: Request, settings: GateSettings
) -> Iterator[Planned]:
    """Every metric of a match, gating ones even where a side has no rows of it."""
    wanted = match.candidate_pair
    for golden_set in groups.golden_sets(match.candidate):
        if match.golden_set not in (None, golden_set):
            continue
        for pair in groups.pairs(match.candidate, golden_set):
            if wanted is None or _is_same(wanted, pair):
                yield from _plan_pair(match, golden_set, pair, groups, request, settings)


def unmet(matches: Iterable[Match], groups: Groups, plans: Sequence[Planned]) -> Iterator[str]:
    """Notes of what a baseline has and a candidate's file has nothing of.

    A run says what it was asked for; of a file nobody knows whether it is all there.
    """
    met = {
        (plan.baseline.source.view, plan.baseline.pair, group.golden_set)
        for plan in plans
        if plan.baseline is not None and (group := plan.baseline_group) is not None
    }
    for match in matches:
        source = match.baseline
        if source is None or match.candidate.is_run or match.candidate_pair or match.golden_set:
            continue
        alone = [
            " of ".join(name for name in (str(pair).strip("/@"), golden_set) if name)
            for golden_set in groups.golden_sets(source)
            for pair in groups.pairs(source, golden_set)
            if (source.view, pair, golden_set) not in met
        ]
        if alone and any(view == source.view for view, _, _ in met):
            yield f"the candidate has nothing to compare with the baseline's {', '.join(alone)}"


def _is_same(wanted: Pair, pair: Pair) -> bool:
    """Whether `pair` is the one named; a file need not say the prompt's name."""
    return wanted == pair or (
        not pair.prompt_name
        and (wanted.model, wanted.prompt_version) == (pair.model, pair.prompt_version)
    )


def _plan_pair(
    match: Match,
    golden_set: str,
    pair: Pair,
    groups: Groups,
    request: Request,
    settings: GateSettings,
) -> Iterator[Planned]:
    opposite = _opposite(match, golden_set, pair, groups)
    here, there = groups.metrics(match.candidate, golden_set, pair), opposite.metrics
    rules = _rules(match.candidate, golden_set, here, there, request, settings)
    for metric, rule in rules.items():
        mine, other = here.get(metric), there.get(metric)
        reason, no_baseline = opposite.reason, opposite.no_baseline
        if mine is None:
            if not rule.gate:
                continue
            reason = reason or "the candidate has no rows of this metric"
        elif other is None and reason is None:
            reason = "the baseline has no rows of this metric"
            no_baseline = match.candidate.is_run
        one = mine or other
        yield Planned(
            golden_set=golden_set or opposite.golden_set or None,
            metric=metric,
            tier=one.tier if one else 0,
            rule=rule,
            candidate=Side(source=match.candidate, pair=pair),
            candidate_group=mine,
            baseline=opposite.side,
            baseline_group=other,
            reason=reason,
            no_baseline=no_baseline,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opposite:
    """What a candidate's pair is compared with in one golden set, or why with nothing."""

    side: Side | None = None
    golden_set: str | None = None
    """As the baseline calls it."""
    metrics: Mapping[str, Group] = field(default_factory=dict)
    reason: str | None = None
    no_baseline: bool = False


def _opposite(match: Match, golden_set: str, pair: Pair, groups: Groups) -> _Opposite:
    source, named = match.baseline, match.baseline_pair
    there = None if source is None else groups.counterpart_set(golden_set, source)
    if source is None or there is None:
        what = match.without if source is None else f"{source.name} has no rows of this golden set"
        return _Opposite(reason=f"no baseline: {what}", no_baseline=True)
    pairs = groups.pairs(source, there)
    if named is None:
        found = counterpart(pair, pairs)
        reason = (
            f"the baseline {source.name} has several pairs ({', '.join(map(str, pairs))}): "
            f"name one with --compare {pair}:PAIR"
        )
    else:
        found = next((other for other in pairs if _is_same(named, other)), None)
        reason = f"the baseline {source.name} has no rows of {named}"
    if found is None:
        return _Opposite(reason=reason)
    if (source, found) == (match.candidate, pair):
        reason = "no baseline: the candidate would be compared with itself"
        return _Opposite(reason=reason, no_baseline=True)
    return _Opposite(
        side=Side(source=source, pair=found, pool=match.pool),
        golden_set=there,
        metrics=groups.metrics(source, there, found),
    )


def _rules(
    candidate: Source,
    golden_set: str,
    here: Mapping[str, Group],
    there: Mapping[str, Group],
    request: Request,
    settings: GateSettings,
) -> dict[str, Rule]:
    """Rules by metric: the golden set's own; for a file, every metric gates with the defaults.

    A metric of the rows that the golden set does not list is a case's own check: shown.
    """

    def rule(gate: bool, tolerance: float, max_drop: float) -> Rule:
        return Rule(
            gate=gate,
            tolerance=tolerance if request.tolerance is None else request.tolerance,
            max_drop=max_drop if request.max_drop is None else request.max_drop,
        )

    default = (settings.tolerance, settings.max_drop)
    if not candidate.is_run:
        return {metric: rule(True, *default) for metric in {**here, **there}}
    rules = {
        entry["name"]: rule(
            bool(entry["gate"]),
            default[0] if entry.get("tolerance") is None else entry["tolerance"],
            default[1] if entry.get("max_drop") is None else entry["max_drop"],
        )
        for entry in candidate.golden_sets.get(golden_set, {}).get("metrics", ())
    }
    return rules | {metric: rule(False, *default) for metric in here if metric not in rules}
