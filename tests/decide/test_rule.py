"""The rule that turns one measured comparison into a word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from evalkit.decide.comparison import Early
from evalkit.decide.gate import decide, decide_worst
from tests.decide.measured import NONE, POLICY, comparison, file, paired, planned, run, scored

WORSE = {"paired": paired(delta=-0.2, ci=(-0.3, -0.1)), "p_adjusted": 0.001}
UNKNOWN = {"paired": paired(ci=None, p_value=None), "p_adjusted": None}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "pass"),
        (WORSE, "regression"),
        ({"paired": paired(ci=(-0.06, 0.06))}, "inconclusive"),
        ({"reason": "no baseline"}, "unmeasurable"),
        ({"cases": None}, "unmeasurable"),
        ({"paired": None}, "unmeasurable"),
        ({"p_adjusted": None}, "unmeasurable"),
        ({"paired": paired(ci=None)}, "unmeasurable"),
        ({"worst_p_adjusted": 0.04}, "unmeasurable"),
        ({"worst_p_adjusted": 0.06}, "pass"),
        ({**WORSE, "worst_p_adjusted": 0.001}, "regression"),
    ],
)
def test_each_word_has_its_reason(changes: dict[str, Any], word: str) -> None:
    assert decide(comparison(**changes), POLICY) == word


def test_what_is_just_at_a_limit_is_not_beyond_it() -> None:
    """A p as large as alpha alarms neither as seen nor at worst; the drop is not excluded."""
    at = {"p_adjusted": POLICY.alpha, "worst_p_adjusted": POLICY.alpha}

    assert decide(comparison(**at), POLICY) == "pass"
    assert decide(comparison(paired=paired(ci=(-0.05, 0.0))), POLICY) == "inconclusive"


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_an_alpha_of_the_settings_decides(alpha: float) -> None:
    word = decide(comparison(p_adjusted=0.2), replace(POLICY, alpha=alpha))

    assert word == ("regression" if alpha else "pass")


def test_as_many_cases_as_asked_are_enough_and_one_less_is_not() -> None:
    enough, short = (scored([1] * 20, [NONE] * gone + [1] * (20 - gone)) for gone in (1, 2))

    assert decide(comparison(cases=enough), POLICY) == "pass"
    assert decide(comparison(cases=short), POLICY) == "unmeasurable"


def test_a_drop_of_any_size_that_is_excluded_passes_up_to_all_that_can_be_lost() -> None:
    wide = paired(ci=(-0.6, 0.6))

    assert decide(comparison(paired=wide, max_drop=0.7), POLICY) == "pass"
    assert decide(comparison(paired=wide, max_drop=0.5), POLICY) == "inconclusive"


# --- at worst ---------------------------------------------------------------------------


def test_without_missing_scores_the_worst_is_what_was_seen() -> None:
    assert decide_worst(comparison(), POLICY) == "pass"
    assert decide_worst(comparison(**WORSE), POLICY) == "regression"


@pytest.mark.parametrize(
    ("worst", "p", "word"),
    [
        (paired(), 1.0, "pass"),
        (paired(), 0.01, "regression"),
        (paired(ci=(-0.06, 0.06)), 1.0, "inconclusive"),
        (paired(ci=None, reason="too few"), None, "unmeasurable"),
    ],
)
def test_the_worst_is_held_to_the_same_rule_whatever_the_coverage(
    worst: Any, p: float | None, word: str
) -> None:
    half = scored([1] * 20, [NONE] * 10 + [1] * 10)
    one = comparison(cases=half, reason="too few", worst=worst, worst_p_adjusted=p)

    assert decide_worst(one, POLICY) == word
    assert decide(one, POLICY) == "unmeasurable"


# --- decided while it ran ---------------------------------------------------------------


def early(**changes: Any) -> Early:
    values: dict[str, Any] = {
        "n": 40, "n_drawn": 40, "delta": 0.0, "ci": (-0.4, 0.4), "p_value": 1.0,
        "p_max_drop": 1.0, "family_size": 2,
    }  # fmt: skip
    return Early(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "inconclusive"),
        ({"p_value": 0.025}, "regression"),
        ({"p_value": 0.026}, "inconclusive"),
        ({"p_max_drop": 0.025}, "pass"),
        ({"p_max_drop": 0.026}, "inconclusive"),
        ({"p_value": 0.025 * (1 + 5e-10)}, "regression"),
        ({"p_max_drop": 0.025 * (1 + 5e-10)}, "pass"),
        ({"p_value": 0.05, "family_size": 1}, "regression"),
    ],
)
def test_an_e_process_spends_its_part_of_alpha(changes: dict[str, Any], word: str) -> None:
    assert early(**changes).decision(0.05) == word


def test_what_was_decided_early_is_not_decided_again() -> None:
    lost = comparison(early=early(p_value=0.001), p_adjusted=0.9)
    won = comparison(early=early(p_max_drop=0.001), p_adjusted=0.001)

    assert [decide(one, POLICY) for one in (lost, won)] == ["regression", "pass"]


# --- what gates -------------------------------------------------------------------------


def test_a_metric_that_gates_does_so_on_all_cases_and_on_slices_that_gate() -> None:
    found = {
        (gate, name, slice_gates): comparison(gate=gate, slice=name, slice_gates=slice_gates).gates
        for gate in (True, False)
        for name in (None, "channel=mail")
        for slice_gates in (True, False)
    }

    assert [key for key, gates in found.items() if gates] == [
        (True, None, True),
        (True, None, False),
        (True, "channel=mail", True),
    ]
    assert comparison(slice="channel=mail").gates is False


def test_a_comparison_without_cases_covers_none() -> None:
    assert comparison(cases=None).coverage == 0.0
    assert comparison(cases=scored([1] * 4, [1, 1, 1, NONE])).coverage == 0.75


GOLDEN = {
    "metrics": [{"name": "label", "must_pass": True}, {"name": "shape"}],
    "gating_slices": ["channel", "language"],
}


def of_golden_set(**changes: Any) -> Any:
    plan = planned(**changes)
    return replace(plan, candidate=replace(plan.candidate, source=run("cand", GOLDEN)))


def test_a_metric_has_to_pass_where_the_golden_set_says_so_of_it() -> None:
    metrics = ("label", "shape", "other")

    assert [of_golden_set(metric=m).must_pass for m in metrics] == [True, False, False]
    assert of_golden_set(golden_set=None).must_pass is False


def test_slices_gate_only_where_their_metric_does() -> None:
    assert of_golden_set().gating_slices == ("channel", "language")
    assert of_golden_set(gate=False).gating_slices == ()
    assert of_golden_set(golden_set=None).gating_slices == ()


def test_plans_of_the_same_comparison_share_their_key() -> None:
    plan = planned()
    other = planned(candidate=replace(plan.candidate, source=file("new.csv")))

    assert plan.key == replace(plan, reason="why not").key
    assert plan.key != replace(plan, metric="shape").key
    assert plan.key != other.key
    assert plan.key != replace(plan, baseline=None).key
