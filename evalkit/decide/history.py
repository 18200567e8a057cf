"""What earlier runs of a golden set say of its noise: how much d varies, and why.

Reads sealed runs through the store and compares neighbours in time, newest first: two
pairs of one run, or two runs. For planning a run (`evalkit power`); it decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evalkit.decide.selectors import answered_in, is_whole, stopped_early
from evalkit.decide.stats import compare
from evalkit.decide.trials import split_variance
from evalkit.errors import StoreError

if TYPE_CHECKING:
    from evalkit.store.views import Store

RUNS_READ = 8
"""Newest complete runs that are looked at."""
SIDES_COMPARED = 12
MIN_CASES = 5
"""Fewer common cases say nothing about a variance."""

Cases: TypeAlias = Mapping[str, NDArray[Any]]
"""Arrays per case, sorted by case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One pair in one run, scored by one version of the metric's scorer."""

    run_id: str
    answered_in: str
    """The run whose calls gave the answers; another where they were scored again."""
    pair: str
    scorer_version: str
    cases: Cases


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The spread of d (candidate minus baseline, per case) of one metric, as runs showed it."""

    between: float
    """Variance of d over cases without trial noise; where cases share a cluster, so much
    larger as that makes the mean of d less sure."""
    within: float | None
    """Variance of d from trial noise at one trial a side; None when no case was tried twice."""
    binary: bool
    """Every score was 0 or 1, one trial a side."""
    cases: int
    """Cases of the comparisons this was read from, together."""
    comparisons: int
    change: bool
    """Read from different pairs; else from one pair run again, which shows only its noise."""
    runs: tuple[str, ...]


def spread_of(store: Store, golden_set: str, metric: str) -> Spread | None:
    """What the newest complete runs show; None where none can be compared with another.

    Runs that stopped early are left out: they ended because of what they showed. Scores of two
    versions of a scorer are never compared, nor the same answers with themselves.
    """
    by_scorer: dict[str, dict[tuple[str, str], Side]] = {}
    for side in islice(_sides(store, golden_set, metric), SIDES_COMPARED):
        of_scorer = by_scorer.setdefault(side.scorer_version, {})
        of_scorer.setdefault((side.answered_in, side.pair), side)
    neighbours = chain.from_iterable(pairwise(sides.values()) for sides in by_scorer.values())
    found = [one for one in (_compared(*two) for two in neighbours) if one is not None]
    changes = [one for one in found if one.change]
    return _pooled(changes or found)


def _sides(store: Store, golden_set: str, metric: str) -> Iterator[Side]:
    """The newest run's first."""
    every = store.runs()
    by_id = {str(run["run_id"]): run for run in every}
    runs = [
        run
        for run in every
        if is_whole(run) and golden_set in (run.get("golden_sets") or {}) and not stopped_early(run)
    ]
    for run in runs[:RUNS_READ]:
        try:
            rows = _rows(store, run["run_id"], golden_set, metric)
        except StoreError as error:
            store.problems.append(str(error))
            continue
        for pair, scorer in sorted(set(zip(rows["pair"], rows["scorer_version"], strict=True))):
            of_side = (rows["pair"] == pair) & (rows["scorer_version"] == scorer)
            yield Side(
                run_id=run["run_id"],
                answered_in=answered_in(run, by_id),
                pair=pair,
                scorer_version=scorer,
                cases={name: array[of_side] for name, array in rows.items()},
            )


def _rows(store: Store, run_id: str, golden_set: str, metric: str) -> dict[str, NDArray[Any]]:
    from evalkit.store.engine import Engine

    with Engine() as engine:
        engine.add_files("scores", store.score_files(run_id))
        columns = engine.columns(
            """
            SELECT model || '/' || prompt_name || '@' || prompt_version AS pair,
                scorer_version, case_id || ' ' || case_hash AS "case",
                CASE WHEN min(cluster) IS NULL THEN hash(case_id, 1) ELSE hash(min(cluster)) END
                    AS cluster,
                avg(score) AS mean, var_samp(score) AS variance, count(score)::DOUBLE AS trials,
                bool_and(score IN (0, 1)) AS binary
            FROM scores
            WHERE golden_set = ? AND metric = ? AND score IS NOT NULL
                AND coalesce(served_model = model, true)
            GROUP BY model, prompt_name, prompt_version, scorer_version, case_id, case_hash
            ORDER BY pair, "case"
            """,
            (golden_set, metric),
        )
    return {name: np.asarray(values) for name, values in columns.items()}


def _compared(one: Side, other: Side) -> Spread | None:
    """The spread between two neighbours, on the cases that both scored."""
    c, b = one.cases, other.cases
    _, at_c, at_b = np.intersect1d(c["case"], b["case"], assume_unique=True, return_indices=True)
    if len(at_c) < MIN_CASES:
        return None
    d = (c["mean"][at_c] - b["mean"][at_b]).astype(np.float64)
    split = split_variance(
        d,
        var_b=b["variance"][at_b], n_b=b["trials"][at_b],
        var_c=c["variance"][at_c], n_c=c["trials"][at_c],
    )  # fmt: skip
    clusters = c["cluster"][at_c]
    se = compare(d, clusters=clusters).se if len(np.unique(clusters)) < len(d) else None
    variance = float(d.var(ddof=1)) if se is None else se**2 * len(d)
    noise = 0.0 if split.within is None else split.within / split.trials
    single = max(c["trials"][at_c].max(), b["trials"][at_b].max()) <= 1
    return Spread(
        between=max(variance - noise, 0.0),
        within=split.within,
        binary=bool(single and c["binary"][at_c].all() and b["binary"][at_b].all()),
        cases=len(d),
        comparisons=1,
        change=one.pair != other.pair,
        runs=tuple(dict.fromkeys((one.run_id, other.run_id))),
    )


def _pooled(spreads: Sequence[Spread]) -> Spread | None:
    """The mean over comparisons, each by its number of cases."""
    if not spreads:
        return None
    noise = [(one.within, one.cases) for one in spreads if one.within is not None]
    return Spread(
        between=_mean([(one.between, one.cases) for one in spreads]),
        within=_mean(noise) if noise else None,
        binary=all(one.binary for one in spreads),
        cases=sum(one.cases for one in spreads),
        comparisons=sum(one.comparisons for one in spreads),
        change=spreads[0].change,
        runs=tuple(dict.fromkeys(run for one in spreads for run in one.runs)),
    )


def _mean(values: Sequence[tuple[float, int]]) -> float:
    """Of values, each with its weight."""
    return math.fsum(value * n for value, n in values) / sum(n for _, n in values)
