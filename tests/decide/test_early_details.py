"""Each number of a decision made while a run goes on, beside the bets it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from evalkit.decide.early import Contest, EarlyRule
from evalkit.decide.sequential import EarlyStop, MeanSequence

BASE, CAND = "small/p@v1", "small/p@v2"
LABEL = Contest(
    golden_set="tickets", metric="label", baseline=BASE, candidate=CAND, tolerance=0.1, max_drop=0.3
)
TONE = replace(LABEL, metric="tone")
ORDERS = replace(LABEL, golden_set="orders")
Said = tuple[float | None, float | None]
"""What the baseline and the candidate scored."""


def line(
    case_id: str, pair: str, score: float | None, *, trial: int = 0, golden_set: str = "tickets",
    **more: Any,
) -> dict[str, Any]:  # fmt: skip
    row = {"metric": "label", "score": score, "model": "small", "served_model": None, **more}
    return {"key": [golden_set, pair, case_id, "hash", trial], "scores": [row]}


def rule_of(
    units: Sequence[Sequence[str]], *contests: Contest, trials: int = 1, alpha: float = 0.1
) -> EarlyRule:
    sets = ("tickets", "orders")
    return EarlyRule(
        contests or (LABEL,),
        drawn=dict.fromkeys(sets, units),
        executions=dict.fromkeys(sets, 2 * trials),
        alpha=alpha,
    )


def tell(rule: EarlyRule, case_id: str, said: Said, **more: Any) -> set[str]:
    rule(line(case_id, BASE, said[0], **more))
    return rule(line(case_id, CAND, said[1], **more))


def told(rule: EarlyRule, number: int = 0) -> dict[str, Any]:
    return rule.as_json()["comparisons"][number]


def ids(n: int) -> list[str]:
    return [f"c{number}" for number in range(n)]


def game(*, comparisons: int = 1, alpha: float = 0.1) -> EarlyStop:
    return EarlyStop(alpha=alpha, comparisons=comparisons, tolerance=0.1, max_drop=0.3)


# --- what is told -----------------------------------------------------------------------


def test_before_the_first_case_nothing_is_known() -> None:
    rule = rule_of([["c0"]])

    assert rule.as_json() == {
        "alpha": 0.1,
        "family_size": 1,
        "comparisons": [
            {
                "golden_set": "tickets", "metric": "label", "baseline": BASE, "candidate": CAND,
                "tolerance": 0.1, "max_drop": 0.3, "decision": None, "n": 0, "n_drawn": 0,
                "missing": 0, "delta": None, "ci": None, "p_value": 1.0, "p_max_drop": 1.0,
            }
        ],
    }  # fmt: skip
    assert rule.settled() == set()


def test_a_golden_set_of_which_nothing_was_drawn_goes_through() -> None:
    rule = EarlyRule([LABEL], drawn={"tickets": []}, executions={"tickets": 2}, alpha=0.1)

    assert rule.settled() == set()
    assert tell(rule, "c0", (1.0, 1.0)) == set()
    assert told(rule)["n"] == 0


def test_the_figures_are_those_of_the_games_on_cases_in_their_order() -> None:
    said: list[Said] = [(1.0, 0.5), (0.5, 1.0), (1.0, 1.0), (1.0, 0.0), (0.5, 0.0)]
    rule = rule_of([[one] for one in ids(5)])

    for case_id, one in zip(ids(5), said, strict=True):
        tell(rule, case_id, one)

    d = [-0.5, 0.5, 0.0, -1.0, -0.5]
    bets, interval = game(), MeanSequence(alpha=0.2)
    bets.add(d)
    low, high = interval.add([(one + 1) / 2 for one in d])
    seen = told(rule)
    assert (seen["p_value"], seen["p_max_drop"]) == pytest.approx((bets.p_value, bets.p_max_drop))
    assert seen["ci"] == pytest.approx([2 * low - 1, 2 * high - 1])
    assert seen["delta"] == pytest.approx(-0.3)
    assert (seen["n"], seen["n_drawn"], seen["missing"]) == (5, 5, 0)


def test_a_cluster_is_bet_on_by_its_mean_with_the_weight_of_its_size() -> None:
    units = [["a1", "a2"], ["b1"], ["c1", "c2", "c3", "c4"]]
    after = {"a1": 0.0, "a2": 1.0, "b1": 0.0, "c1": 1.0, "c2": 1.0, "c3": 0.0, "c4": 0.0}
    rule = rule_of(units)

    for case_id, score in after.items():
        tell(rule, case_id, (1.0, score))

    d, weights = [-0.5, -1.0, -0.5], [0.5, 0.25, 1.0]
    bets, interval = game(), MeanSequence(alpha=0.2)
    bets.add(d, weights)
    low, high = interval.add([(one + 1) / 2 for one in d], weights)
    seen = told(rule)
    assert (seen["p_value"], seen["p_max_drop"]) == pytest.approx((bets.p_value, bets.p_max_drop))
    assert seen["ci"] == pytest.approx([2 * low - 1, 2 * high - 1])
    assert seen["delta"] == pytest.approx((-0.5 * 2 - 1.0 - 0.5 * 4) / 7)
    assert (seen["n"], seen["n_drawn"]) == (7, 3)


def test_each_comparison_has_its_share_of_alpha() -> None:
    rule = rule_of([[one] for one in ids(60)], LABEL, TONE, ORDERS)
    bets = game(comparisons=3)

    for case_id in ids(60):
        tell(rule, case_id, (1.0, 0.5))
        bets.add(-0.5)

    assert rule.as_json()["family_size"] == 3
    assert (told(rule)["decision"], told(rule)["n"]) == (bets.decision, bets.n)
    assert bets.n > _alone(-0.5)


def _alone(d: float) -> int:
    bets = game()
    bets.add([d] * 60)
    return bets.n


def test_what_comes_after_a_decision_is_no_evidence() -> None:
    rule = rule_of([[one] for one in ids(80)])

    for case_id in ids(40):
        tell(rule, case_id, (1.0, 0.0))
    before = told(rule)
    for case_id in ids(80)[40:]:
        tell(rule, case_id, (0.0, 1.0))

    assert before["decision"] == "regression"
    assert before["n"] < 40
    assert told(rule) == before


# --- what is missing --------------------------------------------------------------------


def test_a_missing_score_is_as_bad_as_it_can_be_in_the_worst_case_alone() -> None:
    said: list[Said] = [(0.5, 0.5), (0.75, None), (None, 0.25), (0.5, 1.0), (None, None)]
    rule = rule_of([[one] for one in ids(5)])

    for case_id, one in zip(ids(5), said, strict=True):
        tell(rule, case_id, one)

    seen, worst = game(), game()
    seen.add([0.0, 0.5])
    worst.add([0.0, -0.75, -0.75, 0.5, -1.0])
    assert told(rule)["p_value"] == pytest.approx(seen.p_value)
    assert told(rule)["p_max_drop"] == pytest.approx(max(seen.p_max_drop, worst.p_max_drop))
    assert worst.p_max_drop > seen.p_max_drop
    assert (told(rule)["n"], told(rule)["n_drawn"], told(rule)["missing"]) == (2, 2, 3)
    assert told(rule)["delta"] == pytest.approx(0.25)


def test_of_a_case_with_several_trials_only_those_missing_are_as_bad_as_can_be() -> None:
    rule = rule_of([["c0"], ["c1"]], trials=3)

    for trial, score in enumerate((1.0, None, 0.5)):
        tell(rule, "c0", (score, score), trial=trial)
        tell(rule, "c1", (1.0, 1.0), trial=trial)

    seen, worst = game(), game()
    seen.add([0.0, 0.0])
    worst.add([1.5 / 3 - 2.5 / 3, 0.0])
    assert told(rule)["p_max_drop"] == pytest.approx(max(seen.p_max_drop, worst.p_max_drop))
    assert worst.p_max_drop > seen.p_max_drop
    assert told(rule)["missing"] == 0


def test_each_side_is_averaged_over_the_trials_that_it_has() -> None:
    rule = rule_of([["c0"]], trials=3)

    for trial, score in enumerate((1.0, None, 0.5)):
        tell(rule, "c0", (0.5, score), trial=trial)

    assert told(rule)["delta"] == pytest.approx(0.75 - 0.5)


def test_of_a_cluster_the_cases_that_are_known_count() -> None:
    rule = rule_of([["a1", "a2", "a3", "a4"], ["b1", "b2"]])

    said: list[Said] = [(1.0, 0.5), (1.0, None), (1.0, 1.0), (1.0, 0.5), (1.0, 1.0), (None, 1.0)]
    for case_id, one in zip(["a1", "a2", "a3", "a4", "b1", "b2"], said, strict=True):
        tell(rule, case_id, one)

    seen, worst = game(), game()
    seen.add([-1 / 3, 0.0], [0.75, 0.25])
    worst.add([(-0.5 - 1.0 + 0.0 - 0.5) / 4, 0.0], [1.0, 0.5])
    assert told(rule)["p_value"] == pytest.approx(seen.p_value)
    assert told(rule)["p_max_drop"] == pytest.approx(max(seen.p_max_drop, worst.p_max_drop))
    assert (told(rule)["n"], told(rule)["missing"]) == (4, 2)


def test_a_metric_that_a_line_does_not_have_is_missing() -> None:
    rule = rule_of([["c0"], ["c1"]], LABEL, TONE)

    tell(rule, "c0", (1.0, 1.0))
    tell(rule, "c1", (1.0, 1.0), metric="another")

    assert [(told(rule, n)["n"], told(rule, n)["missing"]) for n in (0, 1)] == [(1, 1), (0, 2)]
    worst = game(comparisons=2)
    worst.add([-1.0, -1.0])
    assert told(rule, 1)["p_max_drop"] == pytest.approx(worst.p_max_drop) == 1.0


def test_a_pass_waits_for_the_worst_case_and_a_regression_does_not() -> None:
    units = [[one] for one in ids(400)]
    fine, bad = rule_of(units), rule_of(units)

    tell(fine, "c0", (1.0, None))
    tell(bad, "c0", (1.0, None))
    seen, worst = game(), game()
    worst.add(-1.0)
    for case_id in ids(400)[1:]:
        tell(fine, case_id, (1.0, 1.0))
        tell(bad, case_id, (1.0, 0.0))
        seen.add(0.0)
        worst.add(0.0)

    assert seen.decision == worst.decision == "pass"
    assert worst.n > seen.n + 1
    assert (told(fine)["decision"], told(fine)["n"]) == ("pass", worst.n - 1)
    assert (told(bad)["decision"], told(bad)["n"]) == ("regression", _first([-1.0] * 400))


def _first(d: Sequence[float]) -> int:
    bets = game()
    bets.add(d)
    return bets.n


def test_a_worst_case_that_is_a_regression_is_none() -> None:
    rule = rule_of([[one] for one in ids(300)])

    for number, case_id in enumerate(ids(300)):
        tell(rule, case_id, (1.0, 1.0 if number % 2 else None))

    assert told(rule)["decision"] is None


# --- when a golden set is settled -------------------------------------------------------


def test_a_golden_set_is_settled_when_all_its_comparisons_are() -> None:
    rule = rule_of([[one] for one in ids(200)], LABEL, TONE, ORDERS)

    for case_id in ids(200):
        for pair in (BASE, CAND):
            rows = [
                {"metric": "label", "score": 1.0, "model": "small", "served_model": None},
                {"metric": "tone", "score": None, "model": "small", "served_model": None},
            ]
            rule({"key": ["tickets", pair, case_id, "hash", 0], "scores": rows})
        settled = tell(rule, case_id, (1.0, 1.0), golden_set="orders")

    assert [told(rule, number)["decision"] for number in range(3)] == ["pass", None, "pass"]
    assert settled == rule.settled() == {"orders"}


def test_a_golden_set_without_a_comparison_goes_on_until_a_regression_ends_all() -> None:
    rule = rule_of([[one] for one in ids(200)])

    for case_id in ids(200):
        tell(rule, case_id, (1.0, 1.0))
    assert rule.settled() == {"tickets"}

    falls = rule_of([[one] for one in ids(200)])
    for case_id in ids(200):
        tell(falls, case_id, (1.0, 0.0))
    assert falls.settled() == {"tickets", "orders"}


def test_a_case_is_bet_on_once_all_its_executions_are_there() -> None:
    rule = rule_of([["c0"], ["c1"]], trials=2)

    tell(rule, "c0", (1.0, 1.0))
    tell(rule, "c1", (1.0, 1.0))
    tell(rule, "c1", (1.0, 1.0), trial=1)
    rule(line("c0", BASE, 1.0, trial=1))
    assert told(rule)["n"] == 0

    rule(line("c0", CAND, 0.0, trial=1))
    assert (told(rule)["n"], told(rule)["delta"]) == (2, -0.25)


def test_cases_of_the_same_name_in_two_golden_sets_are_two() -> None:
    rule = rule_of([["c0"]], LABEL, ORDERS)

    tell(rule, "c0", (1.0, 0.5))
    tell(rule, "c0", (0.5, 1.0), golden_set="orders")

    assert [told(rule, number)["delta"] for number in (0, 1)] == [-0.5, 0.5]


@pytest.mark.parametrize(("served", "counts"), [(None, 1), ("small", 1), ("large", 0)])
def test_an_answer_counts_when_the_pairs_own_model_gave_it(served: str | None, counts: int) -> None:
    rule = rule_of([["c0"]])

    tell(rule, "c0", (1.0, 1.0), served_model=served)

    assert (told(rule)["n"], told(rule)["missing"]) == (counts, 1 - counts)
