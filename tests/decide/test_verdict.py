"""A measured comparison as the plain data that users script against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evalkit.decide.comparison import Comparison, Early, Planned, Side, Verdict
from evalkit.decide.estimates import Estimates
from evalkit.decide.pairing import Cases
from evalkit.decide.ppi import powered_mean
from evalkit.decide.trials import Split
from evalkit.decide.verdict import budget_as_json, comparison_as_json, must_pass_as_json
from tests.decide.measured import NONE, POLICY, V1, comparison, file, paired, planned, run, scored

SPLIT = Split(between=0.03, within=0.01, trials=1.0)


def told(
    one: Comparison, word: Verdict = "pass", *, worst: Verdict = "pass", family_size: int = 3
) -> dict[str, Any]:
    return comparison_as_json(
        one, verdict=word, worst_verdict=worst, policy=POLICY, family_size=family_size
    )


def nothing_measured(**changes: Any) -> Comparison:
    return comparison(cases=None, paired=None, p_adjusted=None, reason="no baseline", **changes)


# --- the numbers ------------------------------------------------------------------------


def test_the_numbers_of_the_test_are_told_as_they_are() -> None:
    test = paired(
        n=190, n_clusters=19, delta=-0.25, ci=(-0.5, 0.125), p_value=0.01, p_improvement=0.99,
        p_exact=0.02, method="mcnemar-midp", losses=7, wins=3, mde=0.1, cases_needed=400,
        trials_needed=4,
    )  # fmt: skip

    entry = told(comparison(paired=test, p_adjusted=0.03))

    assert entry | {
        "n": 190, "n_clusters": 19, "delta": -0.25, "ci": [-0.5, 0.125], "p_value": 0.01,
        "p_adjusted": 0.03, "p_improvement": 0.99, "p_exact": 0.02, "method": "mcnemar-midp",
        "losses": 7, "wins": 3, "mde": 0.1, "cases_needed": 400, "trials_needed": 4,
    } == entry  # fmt: skip


def test_what_was_not_measured_is_null_and_no_cases() -> None:
    entry = told(nothing_measured(), "unmeasurable")

    assert (entry["n"], entry["method"]) == (0, "unmeasurable")
    measured = (
        "n_clusters", "trials", "baseline_mean", "candidate_mean", "delta", "ci", "p_value",
        "p_adjusted", "p_improvement", "p_exact", "losses", "wins", "mde", "cases_needed",
        "trials_needed", "noise", "people",
    )  # fmt: skip
    assert {name: entry[name] for name in measured} == dict.fromkeys(measured)
    assert entry["missing"] == {
        "baseline": None, "candidate": None, "excluded": None, "unpaired": None, "apart": {},
        "worst_case_verdict": "unmeasurable", "outcomes": {}, "coverage": None, "fisher_p": None,
    }  # fmt: skip
    assert (entry["regressed_cases"], entry["improved_cases"]) == ([], [])


def test_means_are_those_of_the_cases_that_both_sides_scored() -> None:
    cases = scored([1.0, 0.5, 0.0, NONE], [0.5, 0.0, NONE, 1.0])

    entry = told(comparison(cases=cases))

    assert (entry["baseline_mean"], entry["candidate_mean"]) == (0.75, 0.25)


def test_means_of_no_case_are_null() -> None:
    entry = told(comparison(cases=scored([1.0, NONE], [NONE, 1.0])))

    assert (entry["baseline_mean"], entry["candidate_mean"]) == (None, None)


def test_a_test_without_an_interval_tells_none() -> None:
    assert told(comparison(paired=paired(ci=None)))["ci"] is None


def test_cases_that_changed_are_listed_the_largest_change_first() -> None:
    cases = scored([1.0, 1.0, 0.0, 0.0, 0.5], [0.5, 0.0, 0.25, 1.0, 0.5])

    entry = told(comparison(cases=cases))

    assert entry["regressed_cases"] == ["c1", "c0"]
    assert entry["improved_cases"] == ["c3", "c2"]


def test_a_change_of_rounding_is_none() -> None:
    entry = told(comparison(cases=scored([0.3, 0.3], [0.1 + 0.2, 0.3 - 1e-12])))

    assert (entry["regressed_cases"], entry["improved_cases"]) == ([], [])


def test_at_most_a_thousand_cases_are_listed() -> None:
    n = 1_001
    new = np.array([f"n{number}" for number in range(n)], dtype=object)
    fell = scored([1] * n + [0] * n, [0] * n + [1] * n, apart={"new": new, "removed": new[:0]})

    entry = told(comparison(cases=fell))

    assert len(entry["regressed_cases"]) == len(entry["improved_cases"]) == 1_000
    assert {why: len(ids) for why, ids in entry["missing"]["apart"].items()} == {"new": 1_000}


def test_the_confidence_is_that_of_both_ends_of_the_interval() -> None:
    assert told(comparison())["confidence"] == pytest.approx(0.9)


# --- whose ------------------------------------------------------------------------------


def test_both_sides_are_named_with_the_runs_that_were_pooled() -> None:
    pool = (run("older"), file("more.csv"))
    plan = planned(baseline=Side(source=run("base"), pair=V1, pool=pool))

    entry = told(comparison(planned=plan))

    pair = {"model": "small", "prompt_name": "classify", "file": None}
    assert entry["candidate"] == {**pair, "run_id": "cand", "prompt_version": "v2"}
    assert entry["baseline"] == {
        **pair, "run_id": "base", "prompt_version": "v1", "run_ids": ["base", "older"]
    }  # fmt: skip


def test_a_file_is_named_and_what_it_does_not_say_is_null() -> None:
    nameless = type(V1)(model="", prompt_name="", prompt_version="")
    plan = planned(candidate=Side(source=file("new.csv"), pair=nameless), baseline=None, tier=0)

    entry = told(comparison(planned=plan))

    assert entry["candidate"] == {
        "run_id": None, "file": "new.csv", "model": None, "prompt_name": None,
        "prompt_version": None,
    }  # fmt: skip
    assert (entry["baseline"], entry["tier"]) == (None, None)


def test_the_same_pair_is_one_that_both_sides_have() -> None:
    same = planned(baseline=Side(source=run("base"), pair=planned().candidate.pair))

    pairs = [told(comparison(planned=p))["same_pair"] for p in (same, planned(baseline=None))]

    assert (*pairs, told(comparison())["same_pair"]) == (True, False, False)
    assert told(comparison())["tier"] == 1


# --- the word ---------------------------------------------------------------------------


def test_a_drop_that_does_not_gate_is_one_to_look_at() -> None:
    shown = comparison(gate=False)

    words = [told(shown, word)["look_here"] for word in ("regression", "pass")]

    assert words == [True, False]
    assert told(comparison(), "regression")["look_here"] is False


def test_why_a_judge_was_held_back_is_told_of_the_whole_not_of_its_slices() -> None:
    plan = planned(gate=False, held_back="never calibrated")

    whole, part = (comparison(planned=plan, slice=name) for name in (None, "channel=mail"))

    assert told(whole)["held_back"] == "never calibrated"
    assert told(part)["held_back"] is None


def test_the_family_of_what_was_decided_early_is_the_runs_own() -> None:
    early = Early(n=5, n_drawn=5, delta=0.0, ci=None, p_value=1.0, p_max_drop=1.0, family_size=9)

    sizes = [told(comparison(early=one))["family_size"] for one in (early, None)]

    assert sizes == [9, 3]


def test_only_what_is_unmeasurable_has_a_reason() -> None:
    one = nothing_measured()

    assert told(one, "unmeasurable")["reason"] == "no baseline"
    assert told(one, "inconclusive")["reason"] is None


EDITED = scored([1] * 9, [1] * 9, uncovered=1)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"cases": EDITED, "worst_p_adjusted": 0.01},
            "trials without a score could hide a regression",
        ),
        ({"cases": EDITED}, "cases that were edited are too many"),
        ({"cases": EDITED, "reason": "too few cases"}, "too few cases"),
        (
            {"cases": scored([1] * 20, [NONE] + [1] * 19)},
            "1 of 20 cases have no score on one side or both, which could hide a regression",
        ),
        (
            {"cases": scored([1] * 20, [NONE] * 2 + [1] * 18)},
            "2 of 20 cases have no score on one side or both",
        ),
        (
            {"cases": scored([1] * 20, [NONE] + [1] * 19), "p_adjusted": None},
            "1 of 20 cases have no score on one side or both",
        ),
    ],
)
def test_what_is_missing_is_the_reason(changes: dict[str, Any], why: str) -> None:
    assert told(comparison(**changes), "unmeasurable")["reason"] == why


# --- what is missing --------------------------------------------------------------------


def test_what_is_missing_is_counted_without_what_another_model_served() -> None:
    outcomes = {"baseline": {"absent": 2}, "candidate": {"excluded": 4, "infra_error": 3}}
    cases = scored([1] * 20, [1] * 20, outcomes=outcomes, excluded=4, unpaired=6)

    missing = told(comparison(cases=cases), worst="inconclusive")["missing"]

    assert (missing["baseline"], missing["candidate"]) == (2, 3)
    assert (missing["excluded"], missing["unpaired"]) == (4, 6)
    assert missing["outcomes"] == outcomes
    assert missing["worst_case_verdict"] == "inconclusive"
    assert missing["coverage"] == 1.0
    assert missing["fisher_p"] == pytest.approx(1.0)


def test_rates_of_no_cases_are_not_compared() -> None:
    entry = told(comparison(cases=scored([], [])))

    assert entry["missing"]["fisher_p"] is None
    assert entry["trials"] is None


# --- several trials ---------------------------------------------------------------------


def tried(baseline: Sequence[Sequence[float]], candidate: Sequence[Sequence[float]]) -> Cases:
    """Cases by the scores of their trials; one without any has no score."""

    def side(name: str, trials: Sequence[Sequence[float]]) -> dict[str, Any]:
        scores = [np.array(of_case, dtype=np.float64) for of_case in trials]
        return {
            name: np.array([of.mean() if len(of) else NONE for of in scores]),
            f"{name}_var": np.array([of.var(ddof=1) if len(of) > 1 else NONE for of in scores]),
            f"{name}_trials": np.array([float(len(of)) for of in scores]),
        }

    once = scored([0] * len(baseline), [0] * len(baseline))
    return replace(once, **side("baseline", baseline), **side("candidate", candidate))


def noise(baseline: Sequence[Sequence[float]], candidate: Sequence[Sequence[float]]) -> Any:
    return told(comparison(cases=tried(baseline, candidate), split=SPLIT))["noise"]


def test_cases_tried_once_tell_nothing_of_noise() -> None:
    assert noise([[1], [0]], [[1], [1]]) is None
    assert told(comparison(cases=tried([[1, 1]], [[1, 1]])))["noise"] is None


def test_noise_is_told_with_the_cases_that_are_flaky() -> None:
    found = noise([[1, 1], [0, 0]], [[1, 0], [1, 1]])

    assert found["between"] == 0.03
    assert found["within"] == 0.01
    assert found["share_within"] == pytest.approx(0.25)
    assert (found["flaky_cases"], found["n_flaky"]) == (["c0"], 1)


def test_most_trials_of_any_case_are_told() -> None:
    cases = tried([[1]] * 3, [[1, 1], [1, 0, 1], [0]])

    assert told(comparison(cases=cases))["trials"] == 3


def test_all_of_k_trials_pass_on_each_side_as_often_as_they_did() -> None:
    found = noise([[1, 1, 1], [1, 0, 1], []], [[1, 1, 0], [0, 1], [1]])

    assert noise([[1], [0]], [[1, 0], [1, 1]])["pass_hat_k"] == {
        "k": 1, "baseline": 0.5, "candidate": 0.75
    }  # fmt: skip
    # Two of three trials: 3 of 3 and 1 of 3 choices; 1 of 3 and none of one. The rest has fewer.
    assert noise([[1, 1], [1, 0]], [[1, 1, 0], [0, 1, 1]])["pass_hat_k"] == {
        "k": 2, "baseline": 0.5, "candidate": pytest.approx(1 / 3)
    }  # fmt: skip
    assert found["pass_hat_k"] == {"k": 3, "baseline": 0.5, "candidate": 0.0}
    assert found["pass_at_k"] == {"k": 3, "baseline": 1.0, "candidate": 1.0}


@pytest.mark.parametrize(
    ("baseline", "candidate"),
    [
        ([[0.5, 0.5], [1, 0]], [[1, 1], [1, 0]]),
        ([[1, 1], [1, 0]], [[0.2, 0.8, 0.9], [1, 0]]),
        ([[0.5], [1]], [[1, 1], [1, 0]]),
        ([[1, 1], [0.5]], [[1, 1], [1, 0]]),
        ([[], []], [[1, 1], [1, 0]]),
    ],
)
def test_scores_that_neither_pass_nor_fail_have_no_chance_that_all_pass(
    baseline: Sequence[Sequence[float]], candidate: Sequence[Sequence[float]]
) -> None:
    assert noise(baseline, candidate)["pass_hat_k"] is None


# --- people -----------------------------------------------------------------------------


def with_people(*, labels_needed: int | None) -> dict[str, Any]:
    judge = np.tile([0.0, 0.0, -1.0, 0.0], 25)
    people = np.where(np.arange(100) < 40, np.tile([0.0, 1.0, -1.0, 0.0], 25), NONE)
    both = powered_mean(judge, people)
    found = Estimates(
        judge=paired(delta=-0.25, ci=(-0.5, 0.0)),
        labels=powered_mean(judge, people, judge_weight=0.0),
        both=both,
        labels_needed=labels_needed,
        baseline=both,
        candidate=None,
    )
    cases = scored([1.0] * 100, [0.0, *[1.0] * 98, NONE])
    entry = told(comparison(cases=cases, estimates=found))["people"]
    assert entry["n_labelled"] == 40
    assert entry["combined"] == {"delta": both.estimate, "ci": list(both.ci or ())}
    assert entry["quality"] == {
        "baseline": {"mean": both.estimate, "ci": list(both.ci or ()), "n_labelled": 40},
        "candidate": None,
    }
    return dict(entry)


def test_the_judge_stands_beside_people_with_what_it_says_of_its_own_cases() -> None:
    people = with_people(labels_needed=50)

    assert people["judge_delta"] == pytest.approx(-1 / 99)
    assert people["judge_only"] == {"delta": -0.25, "ci": [-0.5, 0.0]}


@pytest.mark.parametrize(("needed", "more"), [(50, 10), (40, 0), (30, 0), (None, None)])
def test_more_labels_are_those_that_are_not_there_yet(needed: int | None, more: int | None) -> None:
    people = with_people(labels_needed=needed)

    assert (people["labels_needed"], people["more_labels"]) == (needed, more)


# --- beside the comparisons -------------------------------------------------------------


def budget_row(side: str, **changes: Any) -> dict[str, Any]:
    return {
        "meeting": 0, "side": side, "calls": 10, "timed": 8, "mean_latency_ms": 100.0,
        "p95_latency_ms": 200.0, "priced": 9, "mean_cost_usd": 0.5, "p95_cost_usd": 0.75,
        **changes,
    }  # fmt: skip


def both_sides(**changes: Any) -> list[dict[str, Any]]:
    return [budget_row(side, **changes) for side in ("baseline", "candidate")]


def budget(*rows: dict[str, Any], plan: Planned | None = None) -> dict[str, Any]:
    return budget_as_json(rows, {0: plan or planned()})


def test_latency_and_cost_say_of_how_many_calls_they_are_unknown() -> None:
    found = budget(*both_sides())

    [latency], [cost] = found["latency_ms"], found["cost_usd"]
    whose = {"run_id": "cand", "file": None, "model": "small", "prompt_name": "classify"}
    assert latency["golden_set"] == "tickets"
    assert latency["candidate"] == {
        **whose, "prompt_version": "v2", "mean": 100.0, "p95": 200.0, "calls": 10, "unknown": 2
    }  # fmt: skip
    assert (cost["baseline"]["mean"], cost["baseline"]["p95"]) == (0.5, 0.75)
    assert (cost["baseline"]["run_id"], cost["baseline"]["unknown"]) == ("base", 1)


def test_what_no_call_of_either_side_has_is_left_out() -> None:
    neither = budget(*both_sides(priced=0, timed=8))
    one = budget(budget_row("baseline", priced=0), budget_row("candidate"))

    assert (neither["cost_usd"], len(neither["latency_ms"])) == ([], 1)
    assert one["cost_usd"][0]["baseline"]["unknown"] == 10


def test_a_side_that_nobody_planned_has_figures_without_a_name() -> None:
    [latency] = budget(*both_sides(), plan=planned(baseline=None))["latency_ms"]

    assert latency["baseline"] == {"mean": 100.0, "p95": 200.0, "calls": 10, "unknown": 2}


def test_what_had_to_pass_names_its_run_and_pair() -> None:
    row = {"case_id": "c7", "metric": "shape", "trial": 1, "outcome": "scored", "reason": "no"}

    assert must_pass_as_json(row, planned()) == {
        **row, "golden_set": "tickets", "run_id": "cand", "model": "small",
        "prompt_name": "classify", "prompt_version": "v2",
    }  # fmt: skip
