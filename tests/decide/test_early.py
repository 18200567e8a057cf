"""Deciding while a run goes on: in which order cases count, and what is missing."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from evalkit.decide.early import Contest, EarlyRule

BASE, CAND = "small/p@v1", "small/p@v2"
LABEL = Contest(
    golden_set="tickets", metric="label", baseline=BASE, candidate=CAND, tolerance=0.0, max_drop=0.1
)


def line(case_id: str, pair: str, score: float | None, *, trial: int = 0, **more: Any) -> dict:
    row = {"metric": "label", "score": score, "model": "small", "served_model": "small", **more}
    return {"key": ["tickets", pair, case_id, "hash", trial], "scores": [row]}


def rule_for(
    cases: Sequence[Sequence[str]], contests: Sequence[Contest] = (LABEL,), trials: int = 1
) -> EarlyRule:
    return EarlyRule(
        contests, drawn={"tickets": cases}, executions={"tickets": 2 * trials}, alpha=0.05
    )


def told(rule: EarlyRule) -> dict[str, Any]:
    return rule.as_json()["comparisons"][0]


def test_a_collapse_is_a_regression_after_a_few_cases() -> None:
    cases = [[f"c{n}"] for n in range(100)]
    rule = rule_for(cases)

    for (case_id,) in cases:
        rule(line(case_id, BASE, 1.0))
        if rule(line(case_id, CAND, 0.0)):
            break

    assert told(rule)["decision"] == "regression"
    assert told(rule)["n"] < 15
    assert told(rule)["delta"] == -1.0
    assert told(rule)["p_value"] <= 0.05


def test_no_difference_is_a_pass_before_the_last_case() -> None:
    cases = [[f"c{n}"] for n in range(200)]
    rule = rule_for(cases)

    for (case_id,) in cases:
        rule(line(case_id, BASE, 1.0))
        rule(line(case_id, CAND, 1.0))

    assert told(rule)["decision"] == "pass"
    assert told(rule)["n"] < 100
    assert rule.settled() == {"tickets"}


def test_cases_count_in_the_order_drawn_not_in_the_order_finished() -> None:
    cases = [[f"c{n}"] for n in range(60)]
    scores = {case_id: float(n % 3 > 0) for n, (case_id,) in enumerate(cases)}
    orderly, shuffled = rule_for(cases), rule_for(cases)
    lines = [
        line(case_id, pair, 1.0 if pair == BASE else scores[case_id])
        for (case_id,) in cases
        for pair in (BASE, CAND)
    ]

    for one in lines:
        orderly(one)
    random.Random(1).shuffle(lines)
    for one in lines:
        shuffled(one)

    assert shuffled.as_json() == orderly.as_json()


def test_nothing_is_bet_on_while_an_earlier_case_is_out() -> None:
    cases = [[f"c{n}"] for n in range(50)]
    rule = rule_for(cases)

    for (case_id,) in cases[1:]:
        rule(line(case_id, BASE, 1.0))
        rule(line(case_id, CAND, 0.0))

    assert told(rule)["n"] == 0
    rule(line("c0", BASE, 1.0))
    assert rule(line("c0", CAND, 0.0)) == {"tickets"}


def test_a_candidate_that_says_nothing_does_not_pass() -> None:
    cases = [[f"c{n}"] for n in range(300)]
    rule = rule_for(cases)

    for n, (case_id,) in enumerate(cases):
        rule(line(case_id, BASE, 1.0))
        rule(line(case_id, CAND, None if n % 3 == 0 else 1.0))

    assert told(rule)["decision"] is None
    assert told(rule)["missing"] == 100
    assert told(rule)["n"] == 200


def test_an_answer_of_another_model_is_missing() -> None:
    rule = rule_for([["c0"], ["c1"]])

    rule(line("c0", BASE, 1.0))
    rule(line("c0", CAND, 1.0, served_model="large"))
    rule(line("c1", BASE, 1.0))
    rule(line("c1", CAND, 0.0))

    assert (told(rule)["n"], told(rule)["missing"], told(rule)["delta"]) == (1, 1, -1.0)


def test_trials_are_averaged_within_the_case() -> None:
    rule = rule_for([["c0"], ["c1"]], trials=2)

    for case_id in ("c0", "c1"):
        for trial, score in enumerate((1.0, 0.0)):
            rule(line(case_id, BASE, 1.0, trial=trial))
            rule(line(case_id, CAND, score, trial=trial))

    assert (told(rule)["n"], told(rule)["delta"]) == (2, -0.5)


def test_a_cluster_counts_once_by_its_size() -> None:
    cases = [["a1", "a2", "a3"], ["b1"]]
    rule = rule_for(cases)

    for case_id, score in (("a1", 0.0), ("a2", 0.0), ("a3", 0.0), ("b1", 1.0)):
        rule(line(case_id, BASE, 1.0))
        rule(line(case_id, CAND, score))

    assert (told(rule)["n"], told(rule)["n_drawn"]) == (4, 2)
    assert told(rule)["delta"] == pytest.approx(-0.75)


def test_one_certain_regression_ends_all() -> None:
    other = Contest(
        golden_set="other", metric="label", baseline=BASE, candidate=CAND,
        tolerance=0.0, max_drop=0.1,
    )  # fmt: skip
    cases = [[f"c{n}"] for n in range(50)]
    rule = EarlyRule(
        [LABEL, other], drawn={"tickets": cases, "other": [["x"]]},
        executions={"tickets": 2, "other": 2}, alpha=0.05,
    )  # fmt: skip

    settled: set[str] = set()
    for (case_id,) in cases:
        rule(line(case_id, BASE, 1.0))
        settled = rule(line(case_id, CAND, 0.0))

    assert settled == {"tickets", "other"}


@pytest.mark.slow
def test_without_a_drop_a_regression_is_called_in_at_most_alpha_of_the_runs() -> None:
    # 150 runs of 60 cases, two metrics each: at most 7.5 expected by the bound; three
    # standard errors of a count at 5 % are sqrt(150 x .05 x .95) x 3 = 8.0.
    rng = np.random.default_rng(7)
    cases = [[f"c{n}"] for n in range(60)]
    contests = [
        Contest(
            golden_set="tickets", metric=name, baseline=BASE, candidate=CAND,
            tolerance=0.0, max_drop=0.05,
        )
        for name in "ab"
    ]  # fmt: skip
    alarms = 0

    for _ in range(150):
        rule = rule_for(cases, contests)
        scores = (rng.random((60, 2, 2)) < 0.8).astype(float)
        for n, (case_id,) in enumerate(cases):
            for side, pair in enumerate((BASE, CAND)):
                rows = [
                    {"metric": m, "score": s, "model": "small", "served_model": None}
                    for m, s in zip("ab", scores[n, side].tolist(), strict=True)
                ]
                rule({"key": ["tickets", pair, case_id, "h", 0], "scores": rows})
        found = [one["decision"] for one in rule.as_json()["comparisons"]]
        alarms += "regression" in found

    assert alarms <= 15
