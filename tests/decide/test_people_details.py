"""What people said of a comparison's cases, and what it makes of the test, in numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from evalkit.decide.comparison import Side
from evalkit.decide.missing import worst_case
from evalkit.decide.pairing import Cases
from evalkit.decide.people import (
    Labels,
    People,
    Said,
    compare_with_people,
    is_pairwise,
    why_alone,
    worst_with_people,
)
from evalkit.decide.power import Plan
from evalkit.decide.ppi import powered_mean
from evalkit.decide.rows import Group
from evalkit.records import Pair
from evalkit.store.views import Store, open_store
from tests.decide.labelled import label
from tests.decide.measured import NONE, POLICY, V2, paired, planned, run, scored

JUDGE = np.tile([0.0, -1.0, 0.0, 1.0, 0.0], 20)
LABELS = np.where(np.arange(100) < 40, np.tile([0.0, -1.0, -1.0, 1.0, 0.0], 20), NONE)
NOBODY = Said(np.full(100, NONE), None)


def people(labels: Said) -> People:
    return People(d=labels, baseline=NOBODY, candidate=NOBODY)


# --- alone ------------------------------------------------------------------------------


def test_enough_labels_do_not_leave_the_judge_alone() -> None:
    assert why_alone(Said(LABELS, None), None) is None
    assert why_alone(Said(LABELS[:20], None), None) is None


def test_a_judge_stands_alone_for_so_many_labels_less() -> None:
    assert why_alone(Said(LABELS[:17], None), None) == (
        "17 cases have people's labels on both sides, 3 more would correct it"
    )


@pytest.mark.parametrize(
    ("groups", "why"),
    [(9, "its labels fall into too few clusters (9 of 10)"), (10, None), (40, None)],
)
def test_labels_of_few_clusters_leave_it_alone(groups: int, why: str | None) -> None:
    clusters = np.arange(100, dtype=np.uint64) % groups

    found = why_alone(Said(np.where(np.arange(100) < 90, JUDGE, NONE), None), clusters)

    assert found == why


def test_clusters_count_by_the_chance_of_their_labels() -> None:
    clusters = np.arange(100, dtype=np.uint64) % 10
    rare = np.where(clusters == 0, 0.01, 1.0)

    assert why_alone(Said(JUDGE, rare), clusters) is not None
    assert why_alone(Said(JUDGE, None), clusters) is None


def test_a_part_of_the_cases_keeps_their_labels_and_chances() -> None:
    inside = np.arange(100) < 10
    chance = np.linspace(0.1, 1, 100)

    part = People(
        d=Said(LABELS, chance), baseline=NOBODY, candidate=Said(JUDGE, None), alone="why"
    ).within(inside)

    assert part.n_labelled == 10
    assert part.d.inclusion is not None
    assert part.d.inclusion.tolist() == chance[:10].tolist()
    assert part.candidate.scores.tolist() == JUDGE[:10].tolist()
    assert (part.candidate.inclusion, part.alone, part.baseline.n) == (None, "why", 0)


@pytest.mark.parametrize(
    ("versions", "pairwise"),
    [(("v1", "v1"), False), (("v1", "v1:against=run-a:p"), True), (None, False)],
)
def test_a_judge_that_compared_answers_says_so_in_its_version(
    versions: tuple[str, str] | None, pairwise: bool
) -> None:
    group = Group(
        source="view_cand", golden_set="tickets", metric="label", pair=V2, tier=2, n_rows=100,
        n_scored=100, has_hashes=True, has_slices=False, has_calls=False,
        versions=versions,
    )  # fmt: skip

    assert is_pairwise(planned(candidate_group=group)) is pairwise
    assert is_pairwise(planned()) is False


def test_without_a_store_nobody_said_anything() -> None:
    labels = Labels(None, ["tickets"], project=Path.cwd())

    found = labels.of(planned(), scored([1.0] * 3, [1.0] * 3))

    assert [said.n for said in (found.d, found.baseline, found.candidate)] == [0, 0, 0]
    assert labels.agreement(planned()) is None


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def labels_of(
    store: Store, baseline: Mapping[str, float], candidate: Mapping[str, float]
) -> People:
    """Of two runs' labels by case and chance; the candidate's score 0.5, the baseline's 1."""
    for run_id, chances, score in (("base", baseline, 1.0), ("cand", candidate, 0.5)):
        for case_id, chance in chances.items():
            file_id = f"{run_id}-{case_id}"
            label(store, run_id, {case_id: score}, file_id=file_id, inclusion_prob=chance)
    before, after = (
        Side(source=run(run_id), pair=Pair.parse("small/classify-ticket@v2"))
        for run_id in ("base", "cand")
    )
    plan = planned(metric="helpful", baseline=before, candidate=after)
    labels = Labels(store, ["tickets"], project=Path.cwd())
    return labels.of(plan, scored([1.0] * 4, [1.0] * 4))


def test_sides_labelled_apart_have_the_chance_of_both_and_together_that_of_one(
    store: Store,
) -> None:
    found = labels_of(store, {"c0": 0.5, "c1": 0.5, "c2": 0.5}, {"c0": 0.4, "c1": 0.5, "c3": 1.0})

    assert found.n_labelled == 2
    assert found.d.scores[:2].tolist() == [-0.5, -0.5]
    assert found.d.inclusion is not None
    assert found.d.inclusion.tolist() == pytest.approx([0.2, 0.5, 1.0, 1.0])
    assert found.baseline.inclusion is None
    assert found.candidate.inclusion is not None
    assert found.candidate.inclusion.tolist() == pytest.approx([0.4, 0.5, 1.0, 1.0])


# --- the test ---------------------------------------------------------------------------


@pytest.mark.parametrize("family_size", [0, 1, 4])
def test_the_comparison_is_what_people_would_see(family_size: int) -> None:
    chance = np.linspace(0.2, 0.9, 100)

    test, powered = compare_with_people(
        JUDGE,
        people(Said(LABELS, chance)),
        planned(tolerance=0.02),
        POLICY,
        family_size=family_size,
    )

    expected = powered_mean(JUDGE, LABELS, inclusion=chance, tolerance=0.02)
    assert powered == expected
    assert (test.n, test.n_clusters, test.method) == (100, None, "ppi")
    assert (test.delta, test.ci, test.p_value) == (expected.estimate, expected.ci, expected.p_value)
    assert test.p_improvement == expected.p_improvement
    assert (test.se, test.df) == (expected.se, expected.df)
    assert (test.losses, test.wins) == (20, 20)
    plan = Plan(se=expected.se, df=expected.df or 0, n=40, n_units=40)
    assert test.mde == plan.mde(0.05 / max(family_size, 1))
    assert (test.p_exact, test.cases_needed, test.trials_needed, test.reason) == (None,) * 4


def test_clusters_are_counted_and_weigh() -> None:
    clusters = np.arange(100, dtype=np.uint64) // 2

    test, powered = compare_with_people(
        JUDGE, people(Said(LABELS, None)), planned(), POLICY, family_size=1, clusters=clusters
    )

    assert test.n_clusters == 50
    assert powered == powered_mean(JUDGE, LABELS, clusters=clusters)


def test_labels_that_are_all_alike_have_the_drop_that_zero_events_leave() -> None:
    alike = np.where(np.arange(100) < 40, 0.0, NONE)

    test, _ = compare_with_people(
        JUDGE, people(Said(alike, None)), planned(), POLICY, family_size=1
    )

    assert (test.se, test.df) == (None, None)
    assert test.mde == Plan(se=None, df=np.inf, n=40, n_units=40).mde(0.05)


# --- at worst ---------------------------------------------------------------------------


def gone(lost: int) -> Cases:
    """100 cases that pass; the candidate has no score of the first so many."""
    return scored([1.0] * 100, [NONE] * lost + [1.0] * (100 - lost))


def at_worst(cases: Cases, test: Any, **rule: Any) -> Any:
    worst = worst_case(cases.baseline, cases.candidate)
    return worst_with_people(test, cases, worst, planned(**rule))


def test_what_is_missing_moves_the_estimate_and_adds_no_evidence() -> None:
    test = paired(method="ppi", delta=-0.05, ci=(-0.1, 0.0), se=0.03, df=38.0, p_value=0.05, n=90)

    found = at_worst(gone(10), test, tolerance=0.02)

    # People's -0.05 on nine tenths of the cases, -1 on the rest.
    assert found.delta == pytest.approx(0.9 * -0.05 - 0.1)
    moved = found.delta + 0.05
    assert found.ci == pytest.approx((-0.1 + moved, moved))
    t = (found.delta + 0.02) / (0.03 * 0.9)
    assert found.p_value == pytest.approx(scipy_stats.t.cdf(t, 38.0))
    assert replace(found, delta=-0.05, ci=test.ci, p_value=0.05) == test


def test_what_the_judge_saw_of_the_cases_is_no_part_of_the_move() -> None:
    """It fell on ten cases; people saw no drop. Only the missing ones are added."""
    cases = scored([1.0] * 100, [NONE] * 10 + [0.0] * 10 + [1.0] * 80)
    test = paired(method="ppi", delta=0.0, ci=(-0.1, 0.1), se=0.03, df=38.0)

    assert at_worst(cases, test).delta == pytest.approx(-0.1)


def test_the_interval_at_worst_stays_where_a_difference_can_be() -> None:
    test = paired(method="ppi", delta=-0.5, ci=(-0.9, 1.0), se=0.2, df=38.0, p_value=0.1)
    won = scored([0.0] * 100, [1.0] * 99 + [NONE])
    total = scored([1.0] * 100, [NONE] * 99 + [0.0])

    fell, rose = at_worst(gone(60), test), at_worst(won, replace(test, delta=0.9, ci=(0.8, 1.0)))
    all_lost = at_worst(total, replace(test, delta=-1.0, ci=(-1.0, -0.999)))

    assert fell.ci == pytest.approx((-1.0, 1.0 - 0.3))
    assert rose.ci == pytest.approx((0.8 - 0.009, 1.0 - 0.009))
    assert all_lost.ci == pytest.approx((-1.0, -0.999))


@pytest.mark.parametrize(("tolerance", "p"), [(0.0, 0.25), (0.09, 0.25), (0.1, 1.0), (0.2, 1.0)])
def test_without_spread_a_worst_within_the_tolerance_is_no_drop(tolerance: float, p: float) -> None:
    test = paired(method="ppi", delta=0.0, ci=(-0.1, 0.1), se=None, df=None, p_value=0.25)

    assert at_worst(gone(10), test, tolerance=tolerance).p_value == p


@pytest.mark.parametrize("unknown", ["delta", "ci", "p_value"])
def test_what_was_not_measured_is_not_worse(unknown: str) -> None:
    test = replace(paired(), **{unknown: None})

    assert at_worst(gone(10), test) is test
