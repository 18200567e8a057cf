"""Which comparisons are made of the rows that two sides have, and by which rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from evalkit.config import GateSettings
from evalkit.decide.comparison import Planned
from evalkit.decide.plans import Groups, plan_comparisons
from evalkit.decide.rows import Group, Source
from evalkit.decide.sides import Match, Request
from evalkit.records import Pair
from tests.decide.measured import V1, V2, file, run

LABEL: dict[str, Any] = {"name": "label", "gate": True}
BASE, CAND = run("base"), run("cand", {"metrics": [LABEL]})


def group(
    source: Source, *, metric: str = "label", pair: Pair = V2, golden_set: str = "tickets",
    tier: int = 1,
) -> Group:  # fmt: skip
    return Group(
        source=source.view, golden_set=golden_set, metric=metric, pair=pair, tier=tier,
        n_rows=10, n_scored=10, has_hashes=True, has_slices=False,
        has_calls=False, versions=None,
    )  # fmt: skip


def plans(
    groups: Sequence[Group],
    *,
    candidate: Source = CAND,
    baseline: Source | None = BASE,
    request: Request | None = None,
    **match: Any,
) -> list[Planned]:
    sides = {"candidate_pair": None, "baseline_pair": None} | match
    meeting = Match(candidate=candidate, baseline=baseline, **sides)
    settings = GateSettings(tolerance=0.01, max_drop=0.06)
    return list(plan_comparisons(meeting, Groups(groups), request or Request(), settings))


def of_metrics(*metrics: dict[str, Any]) -> Source:
    return run("cand", {"metrics": list(metrics)})


# --- who meets whom ---------------------------------------------------------------------


def test_a_metric_of_both_sides_is_compared() -> None:
    mine, other = group(CAND), group(BASE)

    [plan] = plans([other, mine])

    assert (plan.golden_set, plan.metric, plan.tier) == ("tickets", "label", 1)
    assert (plan.candidate_group, plan.baseline_group) == (mine, other)
    assert plan.baseline is not None
    assert (plan.candidate.pair, plan.baseline.pair, plan.baseline.source) == (V2, V2, BASE)
    assert (plan.reason, plan.no_baseline, plan.held_back) == (None, False, None)


def test_runs_to_be_pooled_go_with_the_baseline() -> None:
    older = run("older")

    [plan] = plans([group(BASE), group(CAND)], pool=(older,))

    assert plan.baseline is not None
    assert plan.baseline.pool == (older,)


def test_only_the_golden_set_that_is_named_is_compared() -> None:
    both = [group(side, golden_set=name) for side in (BASE, CAND) for name in ("tickets", "orders")]

    assert [plan.golden_set for plan in plans(both)] == ["tickets", "orders"]
    assert [plan.golden_set for plan in plans(both, golden_set="orders")] == ["orders"]


def test_only_the_pair_that_is_named_is_compared() -> None:
    rows = [group(side, pair=pair) for side in (BASE, CAND) for pair in (V1, V2)]

    assert [plan.candidate.pair for plan in plans(rows)] == [V1, V2]
    assert [plan.candidate.pair for plan in plans(rows, candidate_pair=V1)] == [V1]


@pytest.mark.parametrize(
    ("of_file", "met"),
    [
        (Pair(model="small", prompt_name="", prompt_version="v1"), True),
        (Pair(model="small", prompt_name="other", prompt_version="v1"), False),
        (Pair(model="large", prompt_name="", prompt_version="v1"), False),
        (Pair(model="small", prompt_name="", prompt_version="v2"), False),
    ],
)
def test_a_file_need_not_say_the_name_of_the_prompt(of_file: Pair, met: bool) -> None:
    old = file("old.csv")

    [plan] = plans([group(old, pair=of_file), group(CAND)], baseline=old, baseline_pair=V1)

    assert (plan.reason is None) is met
    assert met or plan.reason == f"the baseline old.csv has no rows of {V1}"
    assert plan.no_baseline is False


def test_a_pair_that_is_named_is_met_whatever_others_there_are() -> None:
    rows = [group(BASE, pair=V2), group(BASE, pair=V1), group(CAND)]

    [plan] = plans(rows, baseline_pair=V1)

    assert plan.baseline is not None
    assert plan.baseline.pair == V1


# --- nothing to meet --------------------------------------------------------------------


def test_without_a_baseline_there_is_nothing_yet_to_compare_with() -> None:
    [plan] = plans([group(CAND)], baseline=None)

    assert plan.reason == "no baseline: no earlier complete run of this golden set"
    assert plan.no_baseline is True
    assert (plan.baseline, plan.baseline_group) == (None, None)


def test_a_baseline_without_the_golden_set_is_none() -> None:
    [plan] = plans([group(BASE, golden_set="orders"), group(CAND)])

    assert plan.reason == "no baseline: base has no rows of this golden set"
    assert plan.no_baseline is True


def test_a_run_is_no_baseline_of_itself() -> None:
    [plan] = plans([group(CAND)], baseline=CAND)

    assert plan.reason == "no baseline: the candidate would be compared with itself"
    assert plan.no_baseline is True


def test_another_pair_of_the_same_run_may_be_one() -> None:
    rows = [group(CAND, pair=V1), group(CAND, pair=V2)]

    [plan] = plans(rows, baseline=CAND, candidate_pair=V2, baseline_pair=V1)

    assert plan.reason is None


def test_several_pairs_that_could_be_meant_have_to_be_named() -> None:
    rows = [group(BASE, pair=Pair.parse(f"small/classify@v{n}")) for n in (3, 4)]

    [plan] = plans([*rows, group(CAND)])

    assert plan.reason == (
        "the baseline base has several pairs (small/classify@v3, small/classify@v4): "
        "name one with --compare small/classify@v2:PAIR"
    )
    assert plan.no_baseline is False


@pytest.mark.parametrize(("candidate", "excusable"), [(CAND, True), (file("new.csv"), False)])
def test_a_metric_that_is_new_has_no_baseline_where_a_run_brings_it(
    candidate: Source, excusable: bool
) -> None:
    [plan] = plans(
        [
            group(BASE, metric="shape"),
            group(BASE),
            group(candidate),
            group(candidate, metric="new"),
        ],
        candidate=candidate,
    )[1:2]

    assert plan.metric == "new"
    assert plan.reason == "the baseline has no rows of this metric"
    assert plan.no_baseline is excusable


def test_a_metric_that_gates_and_has_no_rows_is_not_left_out() -> None:
    candidate = of_metrics(LABEL, {"name": "shape", "gate": True}, {"name": "shown", "gate": False})
    rows = [group(BASE), group(BASE, metric="shape", tier=2), group(BASE, metric="shown")]

    found = plans([*rows, group(candidate)], candidate=candidate)

    assert [plan.metric for plan in found] == ["label", "shape"]
    assert found[1].reason == "the candidate has no rows of this metric"
    assert (found[1].tier, found[1].candidate_group) == (2, None)
    alone = plans([group(candidate)], candidate=candidate, baseline=None)
    assert alone[1].reason == "no baseline: no earlier complete run of this golden set"
    assert alone[1].tier == 0


# --- golden sets without a name -----------------------------------------------------------


@pytest.mark.parametrize(
    ("mine", "theirs", "named"),
    [
        ("", ["tickets"], "tickets"),
        ("tickets", [""], "tickets"),
        ("", [""], None),
        ("", ["tickets", "orders"], None),
        ("tickets", ["orders"], "tickets"),
    ],
)
def test_a_file_that_names_no_golden_set_meets_the_only_one(
    mine: str, theirs: list[str], named: str | None
) -> None:
    new = file("new.csv")
    rows = [group(BASE, golden_set=name) for name in theirs]

    [plan] = plans([*rows, group(new, golden_set=mine)], candidate=new)

    assert plan.golden_set == named
    assert (plan.reason is None) is (len(theirs) == 1 and theirs != ["orders"])


# --- rules ------------------------------------------------------------------------------


def test_a_golden_set_sets_its_own_rules_and_the_settings_the_rest() -> None:
    candidate = of_metrics(
        {"name": "label", "gate": True, "tolerance": 0.0, "max_drop": 0.2},
        {"name": "shape", "gate": False, "tolerance": None},
    )
    rows = [group(side, metric=m) for side in (BASE, candidate) for m in ("label", "shape", "own")]

    found = plans(rows, candidate=candidate)

    rules = {p.metric: (p.rule.gate, p.rule.tolerance, p.rule.max_drop) for p in found}
    assert rules == {
        "label": (True, 0.0, 0.2),
        "shape": (False, 0.01, 0.06),
        "own": (False, 0.01, 0.06),
    }


def test_every_metric_of_a_file_gates_also_one_that_only_the_baseline_has() -> None:
    new = file("new.csv")

    found = plans([group(BASE), group(BASE, metric="shape"), group(new)], candidate=new)

    rules = {p.metric: (p.rule.gate, p.rule.tolerance, p.rule.max_drop) for p in found}
    assert rules == {"label": (True, 0.01, 0.06), "shape": (True, 0.01, 0.06)}
    assert found[1].reason == "the candidate has no rows of this metric"
    assert found[1].no_baseline is False


def test_what_is_asked_for_once_holds_for_every_metric() -> None:
    candidate = of_metrics({"name": "label", "gate": True, "tolerance": 0.1, "max_drop": 0.2})

    [plan] = plans(
        [group(BASE), group(candidate)],
        candidate=candidate,
        request=Request(tolerance=0.0, max_drop=0.0),
    )

    assert (plan.rule.tolerance, plan.rule.max_drop) == (0.0, 0.0)
