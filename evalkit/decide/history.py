"""What earlier runs of a golden set say of its noise: how much d varies, and why.

Reads sealed runs through the store and compares neighbours in time, newest first: two
pairs of one run, or two runs. For planning a run (`evalkit power`); it decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

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

Side: TypeAlias = Mapping[str, NDArray[Any]]
"""One pair in one run: arrays per case, sorted by case."""


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

    Runs that stopped early are left out: they ended because of what they showed.
    """
    sides = list(_sides(store, golden_set, metric))[:SIDES_COMPARED]
    found = [one for one in (_compared(*two) for two in pairwise(sides)) if one is not None]
    changes = [one for one in found if one.change]
    return _pooled(changes or found)


def _sides(store: Store, golden_set: str, metric: str) -> Iterator[tuple[str, str, Side]]:
    """(run id, pair, its cases), newest run first."""
    runs = [
        run
        for run in store.runs()
        if run["status"] == "complete"
        and golden_set in (run.get("golden_sets") or {})
        and not (run.get("stop_early") or {}).get("stopped")
    ]
    for run in runs[:RUNS_READ]:
        try:
            rows = _rows(store, run["run_id"], golden_set, metric)
        except StoreError as error:
            store.problems.append(str(error))
            continue
        for pair in sorted(set(rows["pair"].tolist())):
            of_pair = rows["pair"] == pair
            yield run["run_id"], pair, {name: array[of_pair] for name, array in rows.items()}


def _rows(store: Store, run_id: str, golden_set: str, metric: str) -> dict[str, NDArray[Any]]:
    from evalkit.store.engine import Engine

    with Engine() as engine:
        engine.add_files("scores", store.score_files(run_id))
        columns = engine.columns(
            """
            SELECT model || '/' || prompt_name || '@' || prompt_version AS pair,
                case_id || ' ' || case_hash AS "case", coalesce(min(cluster), case_id) AS cluster,
                count(min(cluster)) OVER () > 0 AS clustered,
                avg(score) AS mean, var_samp(score) AS variance, count(score)::DOUBLE AS trials,
                bool_and(score IN (0, 1)) AS binary
            FROM scores
            WHERE golden_set = ? AND metric = ? AND score IS NOT NULL
                AND coalesce(served_model = model, true)
            GROUP BY model, prompt_name, prompt_version, case_id, case_hash
            ORDER BY pair, "case"
            """,
            (golden_set, metric),
        )
    return {name: np.asarray(values) for name, values in columns.items()}


def _compared(one: tuple[str, str, Side], other: tuple[str, str, Side]) -> Spread | None:
    """The spread between two neighbours, on the cases that both scored."""
    (new_run, new_pair, c), (old_run, old_pair, b) = one, other
    _, at_c, at_b = np.intersect1d(c["case"], b["case"], assume_unique=True, return_indices=True)
    if len(at_c) < MIN_CASES:
        return None
    d = (c["mean"][at_c] - b["mean"][at_b]).astype(np.float64)
    split = split_variance(
        d,
        var_b=b["variance"][at_b], n_b=b["trials"][at_b],
        var_c=c["variance"][at_c], n_c=c["trials"][at_c],
    )  # fmt: skip
    clusters = c["cluster"][at_c] if bool(c["clustered"].any()) else None
    se = compare(d, clusters=clusters).se if clusters is not None else None
    variance = float(d.var(ddof=1)) if se is None else se**2 * len(d)
    noise = 0.0 if split.within is None else split.within / split.trials
    single = max(c["trials"][at_c].max(), b["trials"][at_b].max()) <= 1
    return Spread(
        between=max(variance - noise, 0.0),
        within=split.within,
        binary=bool(single and c["binary"][at_c].all() and b["binary"][at_b].all()),
        cases=len(d),
        comparisons=1,
        change=new_pair != old_pair,
        runs=tuple(dict.fromkeys((new_run, old_run))),
    )


def _pooled(spreads: Sequence[Spread]) -> Spread | None:
    """The mean over comparisons, each by its number of cases."""
    if not spreads:
        return None
    tried_twice = [one for one in spreads if one.within is not None]

    def mean(values: Sequence[float], of: Sequence[Spread]) -> float:
        return float(np.average(values, weights=[one.cases for one in of]))

    return Spread(
        between=mean([one.between for one in spreads], spreads),
        within=mean([one.within or 0.0 for one in tried_twice], tried_twice)
        if tried_twice
        else None,
        binary=all(one.binary for one in spreads),
        cases=sum(one.cases for one in spreads),
        comparisons=len(spreads),
        change=spreads[0].change,
        runs=tuple(dict.fromkeys(run for one in spreads for run in one.runs)),
    )
