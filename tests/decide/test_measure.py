"""Which arrays of a comparison go to which statistic, and how many are corrected together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evalkit.decide.comparison import Comparison, Early
from evalkit.decide.measure import Slice, adjust, measure, slices_to_measure
from evalkit.decide.missing import worst_case
from evalkit.decide.pairing import Cases
from evalkit.decide.people import People, Said
from evalkit.decide.ppi import powered_mean
from evalkit.decide.stats import Paired, bh, compare, holm
from evalkit.decide.trials import split_variance
from tests.decide.measured import NONE, POLICY, comparison, paired, planned, run, scored

FELL = scored([1.0] * 30 + [0.0] * 10, [0.0] * 6 + [1.0] * 34)


def measured(cases: Cases | None, **options: Any) -> Comparison:
    known = {"reason": None, "policy": POLICY, "family_size": 2}
    plan = options.pop("planned", planned())
    return measure(plan, cases, **(known | options))


def the_test(one: Comparison) -> Paired:
    assert one.paired is not None
    return one.paired


# --- the test ---------------------------------------------------------------------------


def test_a_comparison_is_the_test_of_what_changed_in_its_cases() -> None:
    found = measured(FELL, planned=planned(tolerance=0.01, max_drop=0.1))

    expected = compare(
        FELL.candidate - FELL.baseline, tolerance=0.01, max_drop=0.1, alpha=0.05, power_alpha=0.025
    )
    assert found.paired == expected
    assert (found.worst, found.estimates, found.reason) == (None, None, None)


@pytest.mark.parametrize(("family_size", "share"), [(0, 1), (1, 1), (5, 5)])
def test_the_drop_that_would_be_found_is_that_of_the_corrected_level(
    family_size: int, share: int
) -> None:
    found = measured(FELL, family_size=family_size)

    expected = compare(FELL.candidate - FELL.baseline, power_alpha=POLICY.alpha / share)
    assert the_test(found).mde == expected.mde


def test_cases_without_a_score_leave_the_test_and_come_back_at_worst() -> None:
    cases = scored([1.0] * 30 + [NONE, 0.0], [1.0] * 29 + [NONE, 0.5, 1.0])

    found = measured(cases)

    assert the_test(found).n == 30
    assert found.worst == compare(worst_case(cases.baseline, cases.candidate), power_alpha=0.025)


def test_trials_without_a_score_count_by_their_share_at_worst() -> None:
    """Of two trials of the first case the candidate lost one, of four of the last the baseline."""
    cases = replace(
        scored([1.0] * 30, [1.0] * 30),
        baseline_trials=np.array([2.0] * 29 + [3.0]),
        baseline_rows=np.array([2.0] * 29 + [4.0]),
        candidate_trials=np.array([1.0] + [2.0] * 28 + [4.0]),
        candidate_rows=np.array([2.0] * 29 + [4.0]),
    )

    found = measured(replace(cases, baseline=np.array([1.0] * 29 + [0.0])))

    d = np.array([-0.5] + [0.0] * 28 + [0.75])
    assert found.worst == compare(d, power_alpha=0.025)


def test_a_case_that_a_side_has_no_row_of_is_wholly_missing_there() -> None:
    cases = replace(
        scored([1.0] * 30, [NONE] + [1.0] * 29),
        candidate_rows=np.array([0.0] + [1.0] * 29),
        candidate_trials=np.array([0.0] + [1.0] * 29),
        baseline_rows=np.ones(30),
    )

    assert measured(cases).worst == compare([-1.0] + [0.0] * 29, power_alpha=0.025)


def test_what_one_side_lost_is_not_made_up_for_by_trials_of_the_other() -> None:
    cases = replace(FELL, baseline_rows=np.full(40, 2.0))

    assert measured(cases).worst is not None
    assert measured(replace(FELL, candidate_rows=np.full(40, 2.0))).worst is not None


def test_clusters_are_what_was_drawn_as_seen_and_at_worst() -> None:
    clusters = np.arange(40, dtype=np.uint64) // 4
    cases = replace(FELL, clusters=clusters)
    gone = replace(scored(FELL.baseline, [NONE, *FELL.candidate[1:]]), clusters=clusters)

    whole, partly = measured(cases), measured(gone)

    d = FELL.candidate - FELL.baseline
    assert whole.paired == compare(d, clusters=clusters, power_alpha=0.025)
    assert partly.paired == compare(d[1:], clusters=clusters[1:], power_alpha=0.025)
    assert partly.worst == compare(d, clusters=clusters, power_alpha=0.025)


def test_noise_of_the_trials_says_how_many_more_would_do() -> None:
    generator = np.random.default_rng(3)
    cases = replace(
        scored([0.5] * 40, generator.choice([0.0, 0.5, 1.0], 40)),
        baseline_var=np.full(40, 0.1), candidate_var=np.full(40, 0.2),
        baseline_trials=np.full(40, 2.0), candidate_trials=np.full(40, 4.0),
        baseline_rows=np.full(40, 2.0), candidate_rows=np.full(40, 4.0),
    )  # fmt: skip

    found = measured(cases, planned=planned(max_drop=0.3))

    d = cases.candidate - cases.baseline
    split = split_variance(
        d, var_b=cases.baseline_var, n_b=cases.baseline_trials, var_c=cases.candidate_var,
        n_c=cases.candidate_trials,
    )  # fmt: skip
    assert found.split == split
    assert the_test(found).trials_needed is not None
    assert found.paired == compare(
        d, max_drop=0.3, power_alpha=0.025, within_var=split.within, trials=split.trials
    )


# --- a candidate asked more often than its baseline ---------------------------------------


def uneven(
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    trials: tuple[int, int],
    matched: tuple[Sequence[float], Sequence[float]],
) -> Cases:
    """Sides of unlike numbers of trials, and their means over as many."""
    ones = np.ones(len(baseline))
    return replace(
        scored(baseline, candidate),
        baseline_trials=trials[0] * ones,
        baseline_rows=trials[0] * ones,
        candidate_trials=trials[1] * ones,
        candidate_rows=trials[1] * ones,
        matched=scored(*matched),
    )


def asked_more_often(
    baseline: Sequence[float], thrice: Sequence[float], once: Sequence[float]
) -> Cases:
    """Three trials of the candidate, and one of them, for one of the baseline."""
    return uneven(baseline, thrice, trials=(1, 3), matched=(baseline, once))


@pytest.mark.parametrize(
    ("thrice", "once"), [(2 / 3, 1 / 3), (1 / 3, 2 / 3)], ids=["matched decides", "all decide"]
)
def test_a_drop_has_to_show_in_all_trials_and_in_as_many_as_the_baselines(
    thrice: float, once: float
) -> None:
    more, same = ([share] * 8 + [1.0] * 32 for share in (thrice, once))
    cases = asked_more_often([1.0] * 38 + [0.0] * 2, more, same)

    found = the_test(measured(cases))

    seen = compare(cases.candidate - cases.baseline, power_alpha=0.025, step=1.0)
    other = compare(np.array(same) - cases.baseline, power_alpha=0.025, step=1.0)
    assert found.p_improvement == seen.p_improvement
    assert (found.delta, found.ci, found.losses) == (seen.delta, seen.ci, seen.losses)
    for name in ("p_value", "p_exact", "mde"):
        assert getattr(found, name) == max(getattr(seen, name), getattr(other, name))


def test_a_gain_has_to_show_on_as_many_trials_of_a_baseline_that_has_more() -> None:
    baseline = [0.9] * 30 + [1.0] * 10
    cases = uneven(baseline, [1.0] * 40, trials=(10, 1), matched=([1.0] * 40, [1.0] * 40))

    found = the_test(measured(cases))

    seen = compare(cases.candidate - cases.baseline, power_alpha=0.025, step=1.0)
    assert seen.p_improvement is not None
    assert seen.p_improvement < 0.001
    assert found == replace(seen, p_improvement=1.0)


@pytest.mark.parametrize(("low", "step"), [(0.0, 1.0), (0.05, 0.0)])
def test_grades_have_no_step(low: float, step: float) -> None:
    baseline = [0.9] * 30 + [1.0] * 10
    candidate = [low] + [1.0] * 39
    cases = uneven(baseline, candidate, trials=(10, 1), matched=(candidate, candidate))

    found = the_test(measured(cases))

    assert found.ci == compare(cases.candidate - cases.baseline, step=step).ci


def test_a_step_is_one_trial_of_the_side_that_has_fewer() -> None:
    baseline, candidate = [0.9] * 30 + [1.0] * 10, [0.5] + [1.0] * 39
    cases = uneven(baseline, candidate, trials=(10, 2), matched=(candidate, candidate))

    found = the_test(measured(cases))

    assert found.ci == compare(cases.candidate - cases.baseline, step=0.5).ci


def test_at_worst_a_trial_that_was_lost_counts_however_few_the_baseline_has() -> None:
    cases = asked_more_often([1.0] * 30, [1.0] * 30, [1.0] * 30)
    cases = replace(cases, candidate_trials=np.ones(30))
    matched = replace(cases, matched=None)

    found = measured(replace(cases, matched=matched))

    d = [-2 / 3] * 30
    assert found.worst is not None
    assert found.worst.p_value == compare(d).p_value


def test_people_correct_the_judge_on_as_many_trials_a_side() -> None:
    rng = np.random.default_rng(0)
    baseline, thrice = rng.random(60), rng.random(60)
    once = rng.random(60)
    cases = asked_more_often(baseline.tolist(), thrice.tolist(), once.tolist())
    said = Said(np.where(np.arange(60) < 30, once - baseline, NONE), None)

    found = measured(cases, people=People(d=said, baseline=said, candidate=said))

    assert the_test(found).delta == powered_mean(once - baseline, said.scores).estimate


def test_people_correct_the_judge_on_all_trials_of_a_baseline_that_has_more() -> None:
    rng = np.random.default_rng(0)
    ten, first, once = rng.random(60), rng.random(60), rng.random(60)
    cases = uneven(
        ten.tolist(), once.tolist(), trials=(10, 1), matched=(first.tolist(), once.tolist())
    )
    said = Said(np.where(np.arange(60) < 30, once - ten, NONE), None)

    found = measured(cases, people=People(d=said, baseline=said, candidate=said))

    assert the_test(found).delta == powered_mean(once - ten, said.scores).estimate


def test_a_slice_has_its_own_matched_trials() -> None:
    cases = asked_more_often([1.0] * 12, [0.5] * 12, [1.0, 0.0] * 6)

    [part] = slices_to_measure(planned(), cases, {"odd=yes": cases.ids[1::2]})

    assert part.cases.matched is not None
    assert part.cases.matched.candidate.tolist() == [0.0] * 6


@pytest.mark.parametrize("more", ["candidate", "baseline"])
def test_asking_one_side_more_often_makes_no_change_of_the_others_luck(more: str) -> None:
    """One trial against ten of the same system: the test alone takes every third for a change."""
    rng, changed, alone, covered, builds = np.random.default_rng(7), 0, 0, 0, 200
    for _ in range(builds):
        once, ten = rng.random(50) < 0.98, rng.random((10, 50)) < 0.98
        many, first, one = ten.mean(axis=0), ten[0] * 1.0, once * 1.0
        if more == "candidate":
            cases = uneven(one, many, trials=(1, 10), matched=(one, first))
        else:
            cases = uneven(many, one, trials=(10, 1), matched=(first, one))
        found, seen = the_test(measured(cases)), compare(cases.candidate - cases.baseline)
        p_values = [
            p for test in (found, seen)
            for p in [test.p_value if more == "candidate" else test.p_improvement]
        ]  # fmt: skip
        changed += (p_values[0] or 0.0) < POLICY.alpha
        alone += (p_values[1] or 0.0) < POLICY.alpha
        assert found.ci is not None
        covered += found.ci[0] <= 0 <= found.ci[1]

    assert alone > builds / 5
    assert changed <= builds * 0.05
    assert covered >= builds * 0.87


# --- nothing to test --------------------------------------------------------------------


@pytest.mark.parametrize(("cases", "reason"), [(FELL, "not comparable"), (None, "no rows")])
def test_what_cannot_be_compared_is_not(cases: Cases | None, reason: str) -> None:
    found = measured(cases, reason=reason)

    assert (found.reason, found.cases) == (reason, cases)
    assert (found.paired, found.worst, found.split, found.slice) == (None, None, None, None)
    assert found.slice_gates is False


def test_without_cases_there_is_nothing_to_say_even_without_a_reason() -> None:
    assert measured(None).paired is None


def test_no_case_on_both_sides_is_the_reason_and_has_no_worst() -> None:
    found = measured(scored([NONE, 1.0], [1.0, NONE]))

    assert found.reason == "no case has a score on both sides"
    assert found.worst is None


def test_too_few_cases_are_the_tests_own_reason() -> None:
    one = scored([1.0], [1.0])

    assert measured(one).reason == compare([0.0]).reason
    assert compare([0.0]).reason is not None


# --- people -----------------------------------------------------------------------------

JUDGE = np.tile([0.0, -1.0, 0.0, 0.0], 25)
LABELS = np.where(np.arange(100) < 40, np.tile([0.0, 0.0, -1.0, 0.0], 25), NONE)
JUDGED = scored(np.ones(100), 1.0 + JUDGE)


def people(labels: Any = LABELS, **changes: Any) -> People:
    side = Said(np.full(100, NONE), None)
    return replace(People(d=Said(labels, None), baseline=side, candidate=side), **changes)


def test_enough_labels_take_the_judges_bias_out() -> None:
    found = measured(JUDGED, people=people())

    expected = powered_mean(JUDGE, LABELS)
    assert (the_test(found).method, the_test(found).delta) == ("ppi", expected.estimate)
    assert found.estimates is not None
    assert found.estimates.both == expected
    assert found.estimates.judge == compare(JUDGE, power_alpha=0.025, within_var=None, trials=1.0)


@pytest.mark.parametrize(
    "few", [people(alone="it was decided early"), people(np.where(LABELS < 0, LABELS, NONE)), None]
)
def test_a_judge_whose_labels_cannot_stand_beside_it_stands_alone(few: People | None) -> None:
    found = measured(JUDGED, people=few)

    assert found.paired == compare(JUDGE, power_alpha=0.025)
    assert found.estimates is None


def test_labels_of_cases_with_a_score_alone_correct_the_judge() -> None:
    gone = scored(np.ones(100), np.where(np.arange(100) < 4, NONE, 1.0 + JUDGE))

    found = measured(gone, people=people())

    expected = powered_mean(JUDGE[4:], LABELS[4:])
    assert the_test(found).delta == expected.estimate == pytest.approx(-0.25)
    assert found.worst is not None
    assert found.worst.method == "ppi"
    assert found.worst.delta == pytest.approx(0.96 * -0.25 - 0.04)


@pytest.mark.parametrize(("size", "method"), [(2, "ppi"), (10, "cluster-sign-flip-exact")])
def test_labels_of_few_clusters_leave_the_judge_alone(size: int, method: str) -> None:
    clusters = np.arange(100, dtype=np.uint64) // size

    found = measured(replace(JUDGED, clusters=clusters), people=people())

    assert the_test(found).method == method
    assert the_test(found).n_clusters == 100 // size


# --- slices -----------------------------------------------------------------------------


def in_slices(sizes: dict[str, int], *, gating: tuple[str, ...] = ()) -> list[Slice]:
    total = sum(sizes.values())
    cases, at, named = scored([1] * total, [1] * total), 0, {}
    for name, size in sizes.items():
        named[name] = cases.ids[at : at + size]
        at += size
    golden = {"gating_slices": list(gating)}
    plan = planned()
    plan = replace(plan, candidate=replace(plan.candidate, source=run("cand", golden)))
    return slices_to_measure(plan, cases, named)


def test_a_slice_holds_its_own_cases() -> None:
    _, mail = in_slices({"channel=chat": 6, "channel=mail": 5})

    assert mail.cases.ids.tolist() == ["c6", "c7", "c8", "c9", "c10"]
    assert mail.inside.tolist() == [False] * 6 + [True] * 5
    assert (mail.gates, mail.too_small) == (False, False)


def test_slices_of_less_than_five_cases_are_not_looked_at() -> None:
    found = in_slices({"channel=chat": 5, "channel=mail": 4})

    assert [part.name for part in found] == ["channel=chat"]


def test_a_slice_that_should_gate_and_is_too_small_is_kept_to_be_named() -> None:
    found = in_slices(
        {"channel=chat": 5, "channel=mail": 4, "language=de": 9}, gating=("length", "channel")
    )

    assert [(part.name, part.gates, part.too_small) for part in found] == [
        ("channel=chat", True, False),
        ("channel=mail", False, True),
        ("language=de", False, False),
    ]


def test_the_fifty_largest_slices_are_looked_at_in_the_order_of_their_names() -> None:
    sizes = {f"user=u{number:02d}": 5 + (number >= 30) for number in range(60)}

    names = [part.name for part in in_slices(sizes)]

    assert names == [f"user=u{number:02d}" for number in [*range(20), *range(30, 60)]]


def test_slices_that_gate_are_never_among_those_left_out() -> None:
    small = {f"channel=c{number:02d}": 5 for number in range(51)}

    found = in_slices({"user=a": 90, **small}, gating=("channel",))

    assert [part.name for part in found] == list(small)
    assert all(part.gates for part in found)


def test_what_a_slice_is_called_and_whether_it_gates_stands_with_its_numbers() -> None:
    [part] = in_slices({"channel=mail": 30}, gating=("channel",))

    found = measured(part.cases, part=part)
    unmeasured = measured(part.cases, part=part, reason="not comparable")

    assert (found.slice, found.slice_gates) == ("channel=mail", True)
    assert (unmeasured.slice, unmeasured.slice_gates) == ("channel=mail", True)


# --- many comparisons -------------------------------------------------------------------


def with_p(p: float | None, *, worst: float | None = None, **changes: Any) -> Comparison:
    at_worst = None if worst is None else paired(p_value=worst)
    return comparison(paired=paired(p_value=p), p_adjusted=None, worst=at_worst, **changes)


def corrected(found: list[Comparison]) -> list[float | None]:
    return [one.p_adjusted for one in found]


def test_what_gates_is_one_family_and_what_is_shown_another() -> None:
    gating, shown = (0.01, 0.02, 0.04), (0.01, 0.02, 0.03)
    family = [with_p(p) for p in gating] + [with_p(p, gate=False) for p in shown]

    by_holm = adjust(family, POLICY)
    by_bh = adjust(family, replace(POLICY, correction="bh"))

    assert corrected(by_holm) == pytest.approx([*holm(gating), *bh(shown)])
    assert corrected(by_bh) == pytest.approx([*bh(gating), *bh(shown)])
    assert [one.gates for one in by_holm] == [True] * 3 + [False] * 3


def test_what_has_no_p_is_no_part_of_its_family() -> None:
    untested = comparison(paired=None, p_adjusted=None)

    found = adjust([with_p(0.01), untested, with_p(None), with_p(0.02)], POLICY)

    assert corrected(found) == [0.02, None, None, 0.02]
    assert corrected(adjust([untested], POLICY)) == [None]


def test_the_worst_of_one_meets_the_others_as_they_were_seen() -> None:
    found = adjust([with_p(0.5, worst=0.001), with_p(0.03), with_p(0.4, worst=0.9)], POLICY)

    assert [one.worst_p_adjusted for one in found] == [
        pytest.approx(holm([0.001, 0.03, 0.4])[0]),
        None,
        pytest.approx(holm([0.9, 0.5, 0.03])[0]),
    ]


def test_a_worst_without_a_p_has_none_corrected() -> None:
    one = comparison(worst=paired(p_value=None))

    assert adjust([one], POLICY)[0].worst_p_adjusted is None


def test_what_a_run_decided_while_it_went_on_was_corrected_there() -> None:
    early = Early(n=5, n_drawn=5, delta=0.0, ci=None, p_value=0.01, p_max_drop=1.0, family_size=2)
    decided = comparison(early=early, paired=paired(p_value=0.01), p_adjusted=0.02)

    found = adjust([decided, with_p(0.03)], POLICY)

    assert found[0] is decided
    assert corrected(found) == [0.02, 0.03]
