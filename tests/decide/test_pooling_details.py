"""Which runs are left out of a pool, in which words, and what is compared then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from evalkit.decide.comparison import Planned, Rule, Side
from evalkit.decide.plans import Groups
from evalkit.decide.pooling import Pool, pool_baselines, refuse_drift
from evalkit.decide.rows import Source, gather_rows, groups_of
from evalkit.decide.stats import compare
from evalkit.errors import NotComparable
from evalkit.store.views import Engine
from tests.decide.measured import NONE, POLICY, V1, V2, planned, scored

FINE = [1.0] * 60
Rows = Mapping[str, Sequence[float | None]]
"""Metric -> the score of each case."""


def source(name: str) -> Source:
    return Source(name=name, run_id=None, view=f"view_{name}")


def table(metrics: Rows, *, pair: Any = V2, golden_set: str = "tickets", **columns: Any) -> Any:
    """Rows as those of a run, each case tried once."""
    rows = []
    for metric, scores in metrics.items():
        for number, score in enumerate(scores):
            plain = {
                "golden_set": golden_set, "metric": metric, "model": pair.model,
                "prompt_name": pair.prompt_name, "prompt_version": pair.prompt_version,
                "case_id": f"c{number:03d}", "case_hash": f"h{number}", "cluster": None,
                "trial": 0, "scorer_version": "1", "tier": 1, "passed": None, "reason": None,
                "latency_ms": None, "cost_usd": None, "served_model": None, "score": score,
                "outcome": "scored" if score is not None else "infra_error", "slices": [],
            }  # fmt: skip
            rows.append(plain | columns)
    kinds = {
        "tier": pa.int64(), "trial": pa.int64(), "score": pa.float64(), "passed": pa.bool_(),
        "latency_ms": pa.float64(), "cost_usd": pa.float64(), "slices": pa.list_(pa.string()),
    }  # fmt: skip
    return pa.Table.from_pylist(
        rows, schema=pa.schema([(name, kinds.get(name, pa.string())) for name in rows[0]])
    )


class World:
    """Runs in an engine, and a candidate `new` that meets the newest of them."""

    def __init__(self, engine: Engine, tables: Mapping[str, Any]) -> None:
        self.engine = engine
        self.sources = {name: source(name) for name in tables}
        for name, rows in tables.items():
            engine.add_table(f"view_{name}", rows)
        gather_rows(engine, list(self.sources.values()))
        self.groups = Groups(groups_of(engine))

    def plan(
        self, base: str, *pool: str, metric: str = "label", gate: bool = True, pair: Any = V2,
        golden_set: str = "tickets", **changes: Any,
    ) -> Planned:  # fmt: skip
        groups = {
            name: self.groups.metrics(self.sources[name], golden_set, pair) for name in self.sources
        }
        whole = planned(
            golden_set=golden_set,
            metric=metric,
            candidate=Side(source=self.sources["new"], pair=pair),
            candidate_group=groups["new"].get(metric),
            baseline=Side(
                source=self.sources[base],
                pair=pair,
                pool=tuple(self.sources[name] for name in pool),
            ),
            baseline_group=groups[base].get(metric),
        )
        rule = Rule(gate=gate, tolerance=0.0, max_drop=0.05)
        return replace(whole, rule=rule, **changes)

    def pool(self, *plans: Planned) -> tuple[list[Planned], list[Pool], list[str]]:
        return pool_baselines(self.engine, plans, self.groups, POLICY, project=Path.cwd())

    def pooled_rows(self, view: str) -> list[tuple[Any, ...]]:
        rows = self.engine.rows(
            "SELECT metric, case_id, score FROM score_rows WHERE source = ? ORDER BY ALL", (view,)
        )
        return [tuple(row.values()) for row in rows]


@contextmanager
def world(**runs: Any) -> Iterator[World]:
    tables = {name: table({"label": rows}) if isinstance(rows, list) else rows
              for name, rows in runs.items()}  # fmt: skip
    with Engine() as engine:
        yield World(engine, tables)


def names(pool: Pool) -> list[str]:
    return [one.name for one in pool.sources]


# --- what becomes one baseline ----------------------------------------------------------


def test_runs_without_drift_become_one_baseline_that_the_plan_meets() -> None:
    with world(new=FINE, base=FINE, older=FINE, oldest=FINE) as here:
        [plan], [pool], notes = here.pool(here.plan("base", "older", "oldest"))
        rows = here.pooled_rows(pool.view)

    assert plan.baseline is not None
    assert plan.baseline_group is not None
    assert [one.name for one in plan.baseline.pool] == ["older", "oldest"]
    assert (plan.baseline.source.name, plan.baseline_group.source) == ("base", pool.view)
    assert names(pool) == ["base", "older", "oldest"]
    assert (pool.golden_set, pool.pair, pool.newest.name) == ("tickets", V2, "base")
    assert notes == [
        "the baseline small/classify@v2 on tickets is 3 runs pooled, newest base"
    ]  # fmt: skip
    assert rows == [("label", f"c{n:03d}", 1.0) for n in range(60) for _ in range(3)]


def test_a_pool_of_which_all_others_drift_is_the_newest_run_alone() -> None:
    with world(new=FINE, base=FINE, older=[0.0] * 60) as here:
        [plan], pools, [note] = here.pool(here.plan("base", "older"))
        views = here.engine.rows("SELECT DISTINCT source FROM score_rows ORDER BY ALL")

    assert plan.baseline is not None
    assert plan.baseline_group is not None
    assert (plan.baseline.pool, plan.baseline_group.source) == ((), "view_base")
    assert pools == []
    assert note.startswith("run older is left out of the pooled baseline on tickets: it drifts: ")
    assert [row["source"] for row in views] == ["view_base", "view_new", "view_older"]


def test_a_golden_set_without_a_name_is_not_told() -> None:
    nameless = {"golden_set": ""}
    tables = {name: table({"label": FINE}, **nameless) for name in ("new", "base", "older")}

    with world(**tables) as here:
        _, [pool], notes = here.pool(here.plan("base", "older", golden_set=""))

    assert notes == ["the baseline small/classify@v2 is 2 runs pooled, newest base"]
    assert pool.golden_set == ""


def test_a_plan_that_has_nothing_to_pool_stays_as_it_is() -> None:
    with world(new=FINE, base=FINE, older=FINE) as here:
        plain = here.plan("base")
        nothing = replace(here.plan("base", "older"), baseline=None, baseline_group=None)
        no_rows = replace(here.plan("base", "older"), baseline_group=None)

        plans, pools, notes = here.pool(plain, nothing, no_rows)

    assert plans[:2] == [plain, nothing]
    assert plans[2].baseline is not None
    assert plans[2].baseline.pool == ()
    assert (pools, notes) == ([], [])


def test_a_comparison_that_cannot_be_made_opens_no_pool() -> None:
    with world(new=FINE, base=FINE, older=FINE) as here:
        [plan], pools, notes = here.pool(here.plan("base", "older", reason="other content"))

    assert plan.baseline is not None
    assert plan.baseline.pool == ()
    assert (pools, notes) == ([], [])


def test_metrics_of_one_pair_share_a_pool_and_another_pair_has_its_own() -> None:
    rows = {"label": FINE, "tone": FINE}
    tables = {
        name: pa.concat_tables([table(rows), table(rows, pair=V1)])
        for name in ("new", "base", "older")
    }

    with world(**tables) as here:
        plans, pools, notes = here.pool(
            here.plan("base", "older"),
            here.plan("base", "older", metric="tone", gate=False),
            here.plan("base", "older", pair=V1),
        )
        first = here.pooled_rows(pools[0].view)

    assert [(pool.view, pool.pair) for pool in pools] == [("pool_0", V2), ("pool_1", V1)]
    assert [sorted(pool.metrics) for pool in pools] == [["label", "tone"], ["label"]]
    assert [pool.gating for pool in pools] == [{"label"}, {"label"}]
    views = [plan.baseline_group.source for plan in plans if plan.baseline_group is not None]
    assert views == ["pool_0", "pool_0", "pool_1"]
    assert len(notes) == 2
    assert len(first) == 2 * 2 * 60


# --- who is left out --------------------------------------------------------------------


def left_out(metrics: Rows, older: Any, *, gate: Sequence[str] = ("label",)) -> list[str]:
    """Notes on an older run beside a newest one of these metrics."""
    rows = older if isinstance(older, pa.Table) else table(older)
    with world(new=table(metrics), base=table(metrics), older=rows) as here:
        plans = [here.plan("base", "older", metric=name, gate=name in gate) for name in metrics]
        return here.pool(*plans)[2]


LEFT_OUT = "run older is left out of the pooled baseline on tickets: "
POOLED = ["the baseline small/classify@v2 on tickets is 2 runs pooled, newest base"]


def test_a_run_without_a_gating_metric_is_left_out() -> None:
    both = {"label": FINE, "tone": FINE}

    notes = left_out(both, {"tone": FINE}, gate=("label", "tone"))

    assert notes == [f"{LEFT_OUT}it has no rows of label and tone by small/classify@v2"]
    assert left_out(both, {"label": FINE}) == POOLED


def test_where_nothing_gates_every_metric_is_held_against_the_newest() -> None:
    both = {"label": FINE, "tone": FINE}

    [note] = left_out(both, {"label": FINE, "tone": [0.0] * 60}, gate=())

    assert note.startswith(f"{LEFT_OUT}it drifts: tone differs by -100.0 points")
    assert left_out(both, {"label": FINE, "tone": [0.0] * 60}) == POOLED


def test_a_run_of_another_version_of_the_scorer_is_left_out() -> None:
    notes = left_out({"label": FINE}, table({"label": FINE}, scorer_version="2"))

    assert notes == [f"{LEFT_OUT}it was scored by another version of the scorer"]


def test_of_several_runs_only_the_one_that_differs_is_left_out() -> None:
    fell = [0.0] * 30 + [1.0] * 30
    with world(
        new=FINE, base=FINE, first=FINE, second=table({"tone": FINE}), third=fell,
        fourth=table({"label": FINE}, scorer_version="2"), fifth=FINE,
    ) as here:  # fmt: skip
        _, [pool], notes = here.pool(
            here.plan("base", "first", "second", "third", "fourth", "fifth")
        )

    assert names(pool) == ["base", "first", "fifth"]
    assert [note.split()[1] for note in notes[:3]] == ["second", "third", "fourth"]
    assert "-50.0 points" in notes[1]
    assert notes[3].endswith("is 3 runs pooled, newest base")


def test_each_metric_of_each_run_is_held_against_its_own() -> None:
    def rows(label: Sequence[float], tone: Sequence[float]) -> Any:
        return table({"label": label, "tone": tone})

    fine, fell = rows(FINE, FINE), rows(FINE, [0.0] * 60)
    with world(new=fine, base=fine, first=fine, second=fell, third=fine) as here:
        plans = [
            here.plan("base", "first", "second", "third", metric=name) for name in ("label", "tone")
        ]
        _, [pool], notes = here.pool(*plans)

    assert names(pool) == ["base", "first", "third"]
    assert notes[0].startswith("run second is left out")
    assert "tone differs by -100.0 points" in notes[0]


def test_of_an_older_run_only_the_cases_count_that_the_newest_has() -> None:
    with world(new=FINE, base=FINE, older=[*FINE, 1.0]) as here:
        _, [pool], _ = here.pool(here.plan("base", "older"))
        rows = here.pooled_rows(pool.view)

    assert {case_id for _, case_id, _ in rows} == {f"c{n:03d}" for n in range(60)}


# --- drift ------------------------------------------------------------------------------


def refused(**metrics: Any) -> str | None:
    try:
        refuse_drift(metrics, POLICY)
    except NotComparable as error:
        return str(error)
    return None


@pytest.mark.parametrize(("after", "points"), [(0.0, "-100.0"), (1.0, "+100.0")])
def test_a_run_drifts_in_either_direction(after: float, points: str) -> None:
    told = refused(label=scored([1 - after] * 20, [after] * 20))

    assert told is not None
    assert told.startswith(f"it drifts: label differs by {points} points from the newest run (p = ")


def test_a_run_that_does_not_differ_is_no_drift() -> None:
    assert refused(label=scored(FINE, FINE)) is None


def test_each_metric_and_direction_is_one_of_the_family() -> None:
    # 6 of 60 cases fell: p is 0.0078 by itself, so that up to six tests leave it below 5 %.
    fell = scored(FINE, [0.0] * 6 + [1.0] * 54)
    same = {f"other-{n}": scored(FINE, FINE) for n in range(3)}

    alone = refused(label=fell)
    with_two = refused(label=fell, **dict(list(same.items())[:2]))
    with_three = refused(label=fell, **same)

    assert alone is not None
    assert alone.endswith("(p = 0.016)")
    assert with_two is not None
    assert with_two.endswith("(p = 0.047)")
    assert with_three is None


def test_a_chance_just_as_large_as_alpha_is_no_drift() -> None:
    fell = scored(FINE, [0.0] * 6 + [1.0] * 54)
    p_value = compare(fell.candidate - fell.baseline).p_value
    assert p_value is not None

    refuse_drift({"label": fell}, replace(POLICY, alpha=2 * p_value))
    with pytest.raises(NotComparable, match="it drifts"):
        refuse_drift({"label": fell}, replace(POLICY, alpha=2.001 * p_value))


def test_the_metric_that_drifts_most_is_told() -> None:
    told = refused(
        label=scored(FINE, [0.0] * 10 + [1.0] * 50), tone=scored(FINE, [0.0] * 20 + [1.0] * 40)
    )

    assert told is not None
    assert "tone differs by -33.3 points" in told


def test_too_many_missing_scores_are_no_baseline() -> None:
    enough = scored(FINE, [NONE] * 3 + FINE[3:])
    too_few = scored(FINE, [NONE] * 4 + FINE[4:])

    assert enough.coverage == POLICY.min_coverage
    assert refused(label=enough) is None
    assert refused(label=too_few) == "too many of its scores of label are missing"


def test_a_run_of_other_cases_alone_was_edited_since() -> None:
    assert refused(label=scored([], [])) == "all its cases were edited since"


def test_what_cannot_be_tested_is_no_baseline_and_says_why() -> None:
    told = refused(label=scored([0.5], [0.5]))

    assert told is not None
    assert told.startswith("label: ")
    assert "None" not in told


def test_cases_of_a_cluster_are_no_independent_evidence_of_drift() -> None:
    after = [0.0] * 10 + [1.0] * 50
    clusters = np.repeat(np.arange(6, dtype=np.uint64), 10)

    assert refused(label=scored(FINE, after)) is not None
    assert refused(label=scored(FINE, after, clusters=clusters)) is None


def test_clusters_are_those_of_the_cases_with_a_score() -> None:
    clusters = np.arange(100, dtype=np.uint64)
    before, after = [1.0] * 100, [1.0] * 80 + [0.0] * 18 + [NONE] * 2

    told = refused(label=scored(before, after, clusters=clusters))

    assert told is not None
    assert "-18.4 points" in told
