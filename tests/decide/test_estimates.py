"""Judge, labels and both side by side, and how many labels would decide."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evalkit.decide.estimates import Estimates, labels_needed, side_by_side
from evalkit.decide.pairing import Cases
from evalkit.decide.people import People, Said
from evalkit.decide.power import Plan, reach
from evalkit.decide.ppi import Powered, powered_mean
from tests.decide.measured import NONE, POLICY, paired, planned, scored

ALPHA = 0.05


def powered(**changes: Any) -> Powered:
    known = Powered(
        n=2_000, n_labelled=40, estimate=-0.02, se=0.05, df=38.0, ci=(-0.1, 0.06), p_value=0.4,
        p_improvement=0.6, judge_weight=0.8, judge_bias=0.1, label_saving=0.5, kept=1e-5,
    )  # fmt: skip
    return replace(known, **changes)


def needed(found: Powered, *, max_drop: float = 0.05) -> int | None:
    return labels_needed(found, max_drop=max_drop, alpha=ALPHA)


def excludes(found: Powered, labels: int, *, max_drop: float) -> bool:
    """Whether that many labels leave the interval, with 80 % power, short of max_drop."""
    assert found.se is not None
    assert found.kept is not None
    assert found.df is not None
    each = (found.se**2 - found.kept) * found.n_labelled
    df = max(found.df * labels / found.n_labelled, 1.0)
    return reach(ALPHA, df) * math.sqrt(each / labels + found.kept) <= max_drop


@pytest.mark.parametrize("max_drop", [0.03, 0.05, 0.1, 0.14])
@pytest.mark.parametrize("kept", [0.0, 1e-5])
def test_labels_needed_are_enough_and_one_fewer_is_not(max_drop: float, kept: float) -> None:
    found = powered(kept=kept)

    count = needed(found, max_drop=max_drop)

    assert count is not None
    assert count > 20
    assert excludes(found, count, max_drop=max_drop)
    assert not excludes(found, count - 1, max_drop=max_drop)


def test_less_than_twenty_labels_are_never_enough() -> None:
    assert needed(powered(), max_drop=0.9) == 20


def test_labels_of_all_cases_that_would_not_do_are_no_number() -> None:
    count = needed(powered())

    assert count is not None
    assert needed(powered(n=count)) == count
    assert needed(powered(n=count - 1)) is None


@pytest.mark.parametrize("kept", [0.01, 0.0025])
def test_what_no_label_takes_away_can_be_too_much(kept: float) -> None:
    """Part of se² that stays: with it alone the interval reaches past max_drop."""
    assert needed(powered(kept=kept, n=10**9), max_drop=0.05) is None


def test_as_few_labels_as_one_degree_of_freedom_are_counted_with_one() -> None:
    found = powered(se=0.001, kept=0.0, df=1.0, n_labelled=1_000)

    count = needed(found)

    assert count == 24
    assert excludes(found, 24, max_drop=0.05)
    assert not excludes(found, 23, max_drop=0.05)


@pytest.mark.parametrize("unknown", ["se", "df", "kept"])
def test_labels_that_are_all_alike_need_what_zero_events_do(unknown: str) -> None:
    found = powered(**{unknown: None})

    plan = Plan(se=None, df=np.inf, n=40, n_units=40)
    assert needed(found) == plan.cases_needed(max_drop=0.05, alpha=ALPHA)


# --- side by side -----------------------------------------------------------------------

BEFORE = np.tile([1.0, 0.0, 1.0, 1.0], 50)
AFTER = np.tile([1.0, 1.0, 0.0, 1.0], 50)
ASKED = np.arange(200) < 80


def said(scores: Any, asked: Any = ASKED) -> Said:
    return Said(np.where(asked, scores, NONE), None)


PEOPLE = People(d=said(AFTER - BEFORE), baseline=said(BEFORE), candidate=said(AFTER))


def beside(cases: Cases, people: People = PEOPLE) -> Estimates:
    both = powered_mean(
        (cases.candidate - cases.baseline)[cases.on_both],
        people.d.within(cases.on_both).scores,
    )
    return side_by_side(paired(), both, cases, people, planned(max_drop=0.1), POLICY)


def test_labels_stand_beside_what_they_make_with_the_judge() -> None:
    found = beside(scored(BEFORE, AFTER))

    d = AFTER - BEFORE
    assert found.labels == powered_mean(d, PEOPLE.d.scores, judge_weight=0.0)
    assert found.both == powered_mean(d, PEOPLE.d.scores)
    assert found.labels_needed == labels_needed(found.both, max_drop=0.1, alpha=ALPHA)
    assert found.baseline == powered_mean(BEFORE, PEOPLE.baseline.scores)
    assert found.candidate == powered_mean(AFTER, PEOPLE.candidate.scores)


def test_a_side_is_judged_by_all_its_own_cases() -> None:
    after = np.where(np.arange(200) < 8, NONE, AFTER)

    found = beside(scored(BEFORE, after))

    assert found.labels.n == 192
    assert found.baseline == powered_mean(BEFORE, PEOPLE.baseline.scores)
    assert found.candidate == powered_mean(AFTER[8:], PEOPLE.candidate.scores[8:])


def test_a_side_with_few_labels_has_no_quality() -> None:
    few = replace(PEOPLE, candidate=said(AFTER, np.arange(200) < 19))

    found = beside(scored(BEFORE, AFTER), few)

    assert found.candidate is None
    assert found.baseline is not None


def test_with_clusters_labels_are_not_what_is_counted() -> None:
    clusters = np.arange(200, dtype=np.uint64) // 2
    after = np.where(np.arange(200) < 8, NONE, AFTER)
    cases = scored(BEFORE, after, clusters=clusters)

    found = beside(cases)

    assert found.labels_needed is None
    d = (AFTER - BEFORE)[8:]
    assert found.labels == powered_mean(
        d, PEOPLE.d.scores[8:], clusters=clusters[8:], judge_weight=0.0
    )
    assert found.candidate == powered_mean(
        AFTER[8:], PEOPLE.candidate.scores[8:], clusters=clusters[8:]
    )
