"""The figures of a sampled window, worked out again by hand, and where each rule begins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from evalkit.decide.ppi import powered_mean
from evalkit.decide.sampled import sampled_metrics, weighted_mean, weighted_powered_mean
from evalkit.store.views import Store, open_store
from tests.decide.test_sampled import label
from tests.store.journal_lines import AT, line

SCORES = np.array([1.0, 0.0, 1.0, 0.5, 0.0])
CHANCES = np.array([0.1, 0.5, 0.2, 1.0, 0.25])


# --- by the scorer alone -------------------------------------------------------------


def test_a_weighted_mean_has_the_interval_of_as_many_plain_answers() -> None:
    found = weighted_mean(SCORES, CHANCES, missing=3)

    pulls = [10.0, 2.0, 5.0, 1.0, 4.0]
    mean = (10 * 1 + 5 * 1 + 1 * 0.5) / 22
    spread = sum((p * (s - mean)) ** 2 for p, s in zip(pulls, SCORES, strict=True)) / 22**2
    apart = sum(p * (s - mean) ** 2 for p, s in zip(pulls, SCORES, strict=True)) / 22
    alike = 22**2 / sum(p**2 for p in pulls)
    plain = mean * (1 - mean) / max(spread * 5 / 4, apart / alike)
    low, high = proportion_confint(mean * plain, plain, method="wilson")
    assert (found.n, found.missing) == (5, 3)
    assert found.mean == pytest.approx(mean)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_a_heavy_stratum_that_differs_is_less_sure_than_its_weights_say() -> None:
    found = weighted_mean(np.array([1.0, 1.0, 0.0, 0.0, 1.0]), np.array([1.0, 1.0, 0.5, 0.5, 0.25]))

    # Weights 1, 1, 2, 2, 4; mean 6/10; weighted squares 2 (2/5)^2 + 8 (3/5)^2 + 16 (2/5)^2 over
    # 100, times 5/4; of equal weights 100/26 would say 0.24 * 26/100 only.
    variance = (2 * 0.16 + 8 * 0.36 + 16 * 0.16) / 100 * 5 / 4
    plain = 0.24 / variance
    low, high = proportion_confint(0.6 * plain, plain, method="wilson")
    assert plain < 100 / 26
    assert (found.low, found.mean, found.high) == pytest.approx((low, 0.6, high))


def test_two_answers_differ_as_much_as_they_do() -> None:
    found = weighted_mean(np.array([1.0, 0.5]), np.array([0.5, 0.25]))

    # Weights 2 and 4, mean 2/3: (4 / 9 + 16 / 36) / 36, times 2.
    variance = (4 / 9 + 4 / 9) / 36 * 2
    plain = 2 / 9 / variance
    low, high = proportion_confint(2 / 3 * plain, plain, method="wilson")
    assert (found.low, found.mean, found.high) == pytest.approx((low, 2 / 3, high))


def test_a_heavy_stratum_that_happens_to_agree_makes_nothing_sure() -> None:
    """Of 50 answers that stand for 19 of 20 calls none failed; of the others half did."""
    scores = np.array([1.0] * 50 + [0.0, 1.0] * 25)
    chances = np.array([1 / 19] * 50 + [1.0] * 50)

    found = weighted_mean(scores, chances)

    pulls = 1 / chances
    low, high = proportion_confint(
        found.mean * pulls.sum() ** 2 / (pulls**2).sum(),
        pulls.sum() ** 2 / (pulls**2).sum(), method="wilson",
    )  # fmt: skip
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.low < 0.93


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_answers_that_are_all_alike_count_by_their_weights(score: float) -> None:
    found = weighted_mean(np.full(5, score), CHANCES)

    alike = 22**2 / (100 + 4 + 25 + 1 + 16)
    low, high = proportion_confint(score * alike, alike, method="wilson")
    assert found.missing == 0
    assert (found.low, found.mean, found.high) == pytest.approx((low, score, high))


def test_one_answer_is_one_answer() -> None:
    found = weighted_mean(np.array([0.75]), np.array([0.01]))

    low, high = proportion_confint(0.75, 1, method="wilson")
    assert (found.n, found.mean) == (1, 0.75)
    assert (found.low, found.high) == pytest.approx((low, high))


# --- with people's labels ------------------------------------------------------------


def labelled(n: int, n_labels: int) -> tuple[Any, Any, Any]:
    """Judge, people (NaN: none) and chances of n answers, of two strata in turn."""
    rng = np.random.default_rng(5)
    truth = (rng.random(n) < 0.7).astype(float)
    judge = np.where(rng.random(n) < 0.85, truth, 1 - truth)
    people = np.where(np.arange(n) < n_labels, truth, np.nan)
    return judge, people, np.where(np.arange(n) % 2 == 0, 0.1, 0.4)


def worked_out(
    judge: Any, people: Any, chances: Any, label_chances: Any = None, trust: float | None = None
) -> Any:
    """Around people's own weighted mean, and once more around what that leads to."""
    pulls = 1 / chances
    pulls *= len(judge) / sum(pulls)
    known = [i for i in range(len(people)) if not np.isnan(people[i])]
    own = pulls if label_chances is None else pulls / label_chances
    around = sum(own[i] * people[i] for i in known) / sum(own[i] for i in known)
    for _ in range(2):
        found = powered_mean(
            pulls * (judge - around), pulls * (people - around),
            inclusion=label_chances, alpha=0.025, judge_weight=trust,
        )  # fmt: skip
        assert found.estimate is not None
        assert found.ci is not None
        ends = (found.ci[0] + around, found.ci[1] + around)
        around += found.estimate
    return around, ends, found


def test_without_weights_the_judge_is_corrected_as_anywhere_else() -> None:
    judge, people, _ = labelled(200, 60)
    chance = np.where(np.arange(200) % 3 == 0, 0.2, 0.6)
    for inclusion in (None, chance):
        found = weighted_powered_mean(judge, people, np.full(200, 0.05), inclusion)

        assert found == powered_mean(judge, people, inclusion=inclusion, alpha=0.025)


@pytest.mark.parametrize("n_labels", [60, 150])
def test_weighted_labels_correct_around_a_first_estimate(n_labels: int) -> None:
    judge, people, chances = labelled(300, n_labels)
    # Of two strata in turn, half the labels have four times the weight of the others.
    worth = (n_labels / 2 * 5) ** 2 / (n_labels / 2 * 17)
    trust = None if worth >= 100 else 1.0

    found = weighted_powered_mean(judge, people, chances)

    estimate, ends, last = worked_out(judge, people, chances, trust=trust)
    assert found.estimate == pytest.approx(estimate, rel=1e-12)
    assert found.ci == pytest.approx(ends, rel=1e-12)
    assert found.judge_weight == last.judge_weight
    assert (found.judge_weight == 1.0) == (trust == 1.0)


@pytest.mark.parametrize(("n_labels", "is_tuned"), [(99, False), (100, True)])
def test_the_judges_weight_is_tuned_from_a_hundred_labels_worth_on(
    n_labels: int, is_tuned: bool
) -> None:
    judge, people, _ = labelled(300, n_labels)
    chances = np.where(np.arange(300) < 100, 0.25, 0.5)  # all labels weigh alike

    found = weighted_powered_mean(judge, people, chances)

    assert (found.judge_weight != 1.0) == is_tuned


def test_a_labels_own_chance_counts_for_what_it_is_worth() -> None:
    judge, people, chances = labelled(300, 150)
    label_chances = np.where(np.arange(300) % 2 == 0, 0.2, 0.8)

    found = weighted_powered_mean(judge, people, chances, label_chances)

    # Weights of 10 and 2.5 over chances of 0.2 and 0.8: 50 and 3.125.
    worth = (75 * 53.125) ** 2 / (75 * (50**2 + 3.125**2))
    assert worth < 100
    estimate, ends, _ = worked_out(judge, people, chances, label_chances, trust=1.0)
    assert found.estimate == pytest.approx(estimate, rel=1e-12)
    assert found.ci == pytest.approx(ends, rel=1e-12)


def test_too_few_labels_say_why() -> None:
    judge, people, chances = labelled(300, 19)

    found = weighted_powered_mean(judge, people, chances)

    assert (found.estimate, found.ci) == (None, None)
    assert found.reason == "19 labels; at least 20"


# --- from a store --------------------------------------------------------------------


def a_job(root: Path, *scores: dict[str, Any]) -> Store:
    """A sealed job with a line for each score; every second was drawn with a fifth the chance."""
    opened = open_store(root)
    manifest = {
        "run_id": "job", "kind": "sample", "sample": {"since": AT, "until": AT + 1, "config": "c"},
    }  # fmt: skip
    with opened.create_run(manifest) as writer:
        for n, more in enumerate(scores):
            one = line(n, run_id="job")
            one["calls"] = []
            one["key"][2] = f"t-{n}"
            one["scores"][0] |= {
                "trace_id": f"t-{n}", "metric": "fits", "tier": 2, "score": 1.0,
                "inclusion_prob": 0.5 if n % 2 else 0.1, "slices": {"feature": "help"},
            } | more  # fmt: skip
            writer.append(one)
        writer.seal("complete")
    return opened


def test_what_was_not_scored_is_missing_and_weighs_nothing(tmp_path: Path) -> None:
    failed = {"score": None, "outcome": "scoring_error"}
    store = a_job(tmp_path, *[{"score": float(n < 4)} for n in range(6)], failed, failed)

    (found,) = sampled_metrics(store, "job")

    assert found.estimate is not None
    assert (found.estimate.n, found.estimate.missing, found.missing) == (6, 2, 2)
    assert found.estimate.mean == pytest.approx((10 + 2 + 10 + 2) / 36)
    shown = found.as_json()
    assert shown["estimate"] == found.estimate.as_json()
    assert (shown["missing"], shown["powered"], shown["judge_bias"]) == (2, None, None)
    assert shown["pair"] == "small/classify-ticket@v2"


def test_a_metric_of_which_nothing_was_scored_has_no_estimate(tmp_path: Path) -> None:
    store = a_job(tmp_path, *[{"score": None, "outcome": "scoring_error"}] * 3)

    (found,) = sampled_metrics(store, "job")

    assert (found.estimate, found.missing) == (None, 3)
    assert found.as_json()["estimate"] is None


def test_calls_that_name_no_pair_have_an_empty_one(tmp_path: Path) -> None:
    nameless: dict[str, Any] = {
        "model": None,
        "prompt_name": None,
        "prompt_version": None,
        "slices": {},
    }
    store = a_job(tmp_path, nameless, nameless)

    (found,) = sampled_metrics(store, "job")

    assert (found.feature, found.model, found.prompt_name, found.prompt_version) == ("",) * 4


@pytest.mark.parametrize(("tier", "n_labels", "is_corrected"), [
    (2, 20, True), (2, 19, False), (1, 20, False),
])  # fmt: skip
def test_twenty_labels_correct_a_judge_and_nothing_corrects_a_check(
    tmp_path: Path, tier: int, n_labels: int, is_corrected: bool
) -> None:
    store = a_job(tmp_path, *[{"tier": tier, "score": float(n % 3 > 0)} for n in range(40)])
    store.add_labels("people", [label(n, float(n % 3 == 1)) for n in range(n_labels)])

    (found,) = sampled_metrics(store, "job")

    assert found.n_labelled == n_labels
    assert (found.powered is not None) == is_corrected
    shown = found.as_json()["powered"]
    assert shown == (found.powered.as_json() if found.powered is not None else None)


@pytest.mark.parametrize(
    ("even", "odd"), [(None, None), (0.5, 0.5), (0.5, None), (0.25, 0.75)],
    ids=["nobody knows", "all alike", "one unknown", "known and unlike"],
)  # fmt: skip
def test_chances_of_labels_count_where_every_label_has_one_and_they_differ(
    tmp_path: Path, even: float | None, odd: float | None
) -> None:
    store = a_job(tmp_path, *[{"score": float(n % 3 > 0)} for n in range(60)])
    rows = [
        label(n, float(n % 3 == 1 or n % 5 == 0), inclusion_prob=even if n % 4 < 2 else odd)
        for n in range(30)
    ]
    store.add_labels("people", rows)

    (found,) = sampled_metrics(store, "job")

    traces = sorted(range(60), key=lambda n: f"t-{n}")
    judge = np.array([float(n % 3 > 0) for n in traces])
    people = np.array([rows[n]["score"] if n < 30 else np.nan for n in traces])
    chances = np.array([0.5 if n % 2 else 0.1 for n in traces])
    own = None
    if even is not None and odd is not None and even != odd:
        own = np.array([(even if n % 4 < 2 else odd) if n < 30 else 1.0 for n in traces])
    expected = weighted_powered_mean(judge, people, chances, own)
    assert expected.ci is not None
    assert found.powered is not None
    assert found.powered.mean == pytest.approx(expected.estimate)
    assert (found.powered.low, found.powered.high) == pytest.approx(
        (max(expected.ci[0], 0.0), min(expected.ci[1], 1.0))
    )
    assert found.judge_bias == pytest.approx(expected.judge_bias)


def test_an_interval_of_shares_ends_at_one(tmp_path: Path) -> None:
    store = a_job(tmp_path, *[{"score": 1.0} for _ in range(40)])
    store.add_labels("people", [label(n, float(n > 0)) for n in range(20)])

    (found,) = sampled_metrics(store, "job")

    assert found.powered is not None
    assert found.powered.low < found.powered.mean < found.powered.high == 1.0
