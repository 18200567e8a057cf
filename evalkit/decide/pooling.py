"""Let several runs of one pair serve as one baseline with many trials.

Between the plans and pairing: the baseline's share of the noise goes away at no cost. A run
belongs to the pool only if the gate's own procedure finds no drift between it and the
newest, in either direction. Who is left out is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.decide import pairing, stats
from evalkit.decide.comparison import Planned, Policy
from evalkit.decide.pairing import Cases, Meeting
from evalkit.decide.plans import Groups
from evalkit.decide.rows import Group, Source
from evalkit.errors import NotComparable
from evalkit.records import Pair

if TYPE_CHECKING:
    from evalkit.store.views import Engine


@dataclass(slots=True, kw_only=True)
class Pool:
    """One pair's runs on one golden set that may be one baseline."""

    view: str
    """Source of its rows in `score_rows`."""
    golden_set: str
    """As its rows call it."""
    pair: Pair
    newest: Source
    others: tuple[Source, ...]
    metrics: dict[str, Group] = field(default_factory=dict)
    """The newest run's rows of what is compared."""
    gating: set[str] = field(default_factory=set)

    @property
    def sources(self) -> tuple[Source, ...]:
        return (self.newest, *self.others)


def pool_baselines(
    engine: Engine, plans: Sequence[Planned], groups: Groups, policy: Policy, *, project: Path
) -> tuple[list[Planned], list[Pool], list[str]]:
    """The plans with pooled baselines for those that have a pool, these pools, and notes.

    Puts the pools' rows into `score_rows`.
    """
    pools = _pools_of(plans)
    notes: list[str] = []
    for pool in pools.values():
        notes += _leave_out_drifting(pool, engine, groups, policy, project=project)
        if pool.others:
            notes.append(
                f"the baseline {pool.pair}{_on(pool)} is {len(pool.sources)} runs pooled, "
                f"newest {pool.newest.name}"
            )
    kept = {key: pool for key, pool in pools.items() if pool.others}
    if kept:
        _add_pooled_rows(engine, kept.values(), project=project)
    return [_with_pool(plan, kept.get(_key(plan))) for plan in plans], list(kept.values()), notes


def _key(plan: Planned) -> tuple[object, ...] | None:
    side, group = plan.baseline, plan.baseline_group
    if side is None or group is None or not side.pool:
        return None
    return group.source, group.golden_set, side.pair


def _pools_of(plans: Iterable[Planned]) -> dict[tuple[object, ...] | None, Pool]:
    pools: dict[tuple[object, ...] | None, Pool] = {}
    for plan in plans:
        key, side, group = _key(plan), plan.baseline, plan.baseline_group
        if key is None or side is None or group is None or plan.reason is not None:
            continue
        pool = pools.setdefault(
            key,
            Pool(
                view=f"pool_{len(pools)}",
                golden_set=group.golden_set,
                pair=side.pair,
                newest=side.source,
                others=side.pool,
            ),
        )
        pool.metrics[group.metric] = group
        if plan.rule.gate:
            pool.gating.add(group.metric)
    return pools


def _with_pool(plan: Planned, pool: Pool | None) -> Planned:
    side, group = plan.baseline, plan.baseline_group
    if side is None:
        return plan
    if pool is None or group is None:
        return replace(plan, baseline=replace(side, pool=()))
    return replace(
        plan,
        baseline=replace(side, pool=pool.others),
        baseline_group=replace(group, source=pool.view),
    )


def _add_pooled_rows(engine: Engine, pools: Iterable[Pool], *, project: Path) -> None:
    rows = [
        (pool.view, source.view, pool.golden_set, pool.pair.model, pool.pair.prompt_name,
         pool.pair.prompt_version, source is pool.newest)
        for pool in pools
        for source in pool.sources
    ]  # fmt: skip
    names = ("pool", "source", "golden_set", "model", "prompt_name", "prompt_version", "newest")
    cells = ", ".join(f"unnest(${name}) AS {name}" for name in names)
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    engine.rows(f"CREATE OR REPLACE TEMP TABLE members AS SELECT {cells}", columns)
    pooled = pairing.find_sql("pooled_rows", project=project)
    engine.rows(
        f"CREATE OR REPLACE TEMP VIEW score_rows AS FROM own_rows UNION ALL BY NAME FROM ({pooled})"
    )


# --- drift ----------------------------------------------------------------------------


def _leave_out_drifting(
    pool: Pool, engine: Engine, groups: Groups, policy: Policy, *, project: Path
) -> Iterator[str]:
    """Keep in `pool.others` only runs without drift from the newest; say why others go."""
    checked = [name for name in pool.metrics if name in pool.gating] or list(pool.metrics)
    meetings: list[Meeting] = []
    places: dict[str, dict[str, int]] = {}
    for number, other in enumerate(pool.others):
        metrics = groups.metrics(other, pool.golden_set, pool.pair)
        if all(name in metrics for name in checked):
            places[other.view] = {name: len(meetings) + at for at, name in enumerate(checked)}
            meetings += [
                Meeting(candidate=metrics[name], baseline=pool.metrics[name], number=number)
                for name in checked
            ]
    runs = {source.view for source in pool.sources}
    cases = pairing.pair_cases(engine, meetings, runs, project=project) if meetings else []
    versions = pairing.differing_versions(engine, meetings)
    kept = []
    for other in pool.others:
        try:
            if other.view not in places:
                raise NotComparable(f"it has no rows of {' and '.join(checked)} by {pool.pair}")
            at = places[other.view]
            if not versions.keys().isdisjoint(at.values()):
                raise NotComparable("it was scored by another version of the scorer")
            refuse_drift({name: cases[place] for name, place in at.items()}, policy)
            kept.append(other)
        except NotComparable as error:
            yield f"run {other.name} is left out of the pooled baseline{_on(pool)}: {error}"
    pool.others = tuple(kept)


def refuse_drift(metrics: Mapping[str, Cases], policy: Policy) -> None:
    """Raise NotComparable where a run differs from the newest one beyond chance.

    H0 of each metric: E[d] = 0; both one-sided tests of every metric, corrected by Holm.
    """
    p_values: list[float] = []
    told: list[str] = []
    for name, cases in metrics.items():
        matched = cases.matched or cases
        d = (matched.candidate - matched.baseline)[cases.on_both]
        if not len(cases.ids):
            raise NotComparable("all its cases were edited since")
        if cases.coverage < policy.min_coverage:
            raise NotComparable(f"too many of its scores of {name} are missing")
        clusters = None if cases.clusters is None else cases.clusters[cases.on_both]
        paired = stats.compare(d, clusters=clusters, alpha=policy.alpha)
        if paired.p_value is None or paired.p_improvement is None or paired.delta is None:
            raise NotComparable(f"{name}: {paired.reason}")
        p_values += [paired.p_value, paired.p_improvement]
        told += [f"{name} differs by {100 * paired.delta:+.1f} points from the newest run"] * 2
    for p, what in sorted(zip(stats.holm(p_values), told, strict=True)):
        if p < policy.alpha:
            raise NotComparable(f"it drifts: {what} (p = {p:.2g})")


def _on(pool: Pool) -> str:
    return f" on {pool.golden_set}" if pool.golden_set else ""
