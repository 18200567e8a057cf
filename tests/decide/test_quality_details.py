"""Weighted means of samples and their intervals, beside the sums they stand for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from statsmodels.stats.proportion import proportion_confint

from evalkit.decide.ppi import powered_mean
from evalkit.decide.quality import Estimate, PairQuality, pair_quality, share_of, wilson
from evalkit.decide.sampled import weighted_mean, weighted_powered_mean
from evalkit.store.views import Engine

SCORES, CHANCES = [1.0, 0.0, 1.0, 0.5, 0.0, 1.0], [0.5, 0.1, 0.25, 0.5, 1.0, 0.2]
HOUR = 3_600_000_000


def plain(scores: Sequence[float], chances: Sequence[float]) -> tuple[float, float, float]:
    """Weighted mean, and Wilson's interval at the size of as sure a plain sample."""
    w = [1 / chance for chance in chances]
    mean = math.fsum(a * b for a, b in zip(w, scores, strict=True)) / sum(w)
    squares = math.fsum((a * (b - mean)) ** 2 for a, b in zip(w, scores, strict=True))
    variance = squares / sum(w) ** 2 * len(scores) / (len(scores) - 1)
    spread = math.fsum(a * (b - mean) ** 2 for a, b in zip(w, scores, strict=True)) / sum(w)
    variance = max(variance, spread * math.fsum(a**2 for a in w) / sum(w) ** 2)
    low, high = wilson(mean, mean * (1 - mean) / variance)
    return mean, low, high


# --- intervals --------------------------------------------------------------------------


@pytest.mark.parametrize(("yes", "n"), [(3, 10), (0, 7), (7, 7), (1, 1), (250, 1_000)])
def test_a_share_has_wilsons_interval(yes: int, n: int) -> None:
    found = share_of(yes, n)

    low, high = proportion_confint(yes, n, method="wilson")
    assert (found.n, found.missing, found.mean) == (n, 0, yes / n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)


def test_an_estimate_is_plain_data() -> None:
    found = Estimate(n=4, missing=1, mean=0.5, low=0.2, high=0.8)

    assert found.as_json() == {"n": 4, "missing": 1, "mean": 0.5, "ci": [0.2, 0.8]}


# --- means of draws ---------------------------------------------------------------------


def test_a_weighted_mean_is_as_sure_as_a_plain_sample_of_its_effective_size() -> None:
    found = weighted_mean(np.array(SCORES), np.array(CHANCES), missing=2)

    assert (found.n, found.missing) == (6, 2)
    assert (found.mean, found.low, found.high) == pytest.approx(plain(SCORES, CHANCES))


def test_two_scores_differ_as_much_as_they_do() -> None:
    found = weighted_mean(np.array([1.0, 0.5]), np.array([0.5, 0.25]))
    [summed] = qualities(sums([1.0, 0.5], [0.5, 0.25]))

    expected = plain([1.0, 0.5], [0.5, 0.25])
    assert (found.mean, found.low, found.high) == pytest.approx(expected)
    assert (summed.whole.mean, summed.whole.low, summed.whole.high) == pytest.approx(expected)


def test_scores_that_are_all_the_same_are_as_sure_as_their_weights_are_alike() -> None:
    chances = np.array(CHANCES)
    w = 1 / chances

    found = weighted_mean(np.ones(6), chances)

    assert found.mean == 1.0
    assert found.low == pytest.approx(wilson(1.0, w.sum() ** 2 / (w**2).sum())[0])
    assert found.high == 1.0
    assert found.missing == 0


def test_one_score_is_an_estimate_all_the_same() -> None:
    found = weighted_mean(np.array([1.0]), np.array([0.5]))

    assert (found.n, found.mean, found.low) == (1, 1.0, pytest.approx(wilson(1.0, 1)[0]))


# --- means as people would score --------------------------------------------------------


def judged(n: int, *, labelled: int, seed: int = 1) -> tuple[Any, Any, Any]:
    generator = np.random.default_rng(seed)
    truth = generator.random(n)
    people = np.where(np.arange(n) < labelled, truth, np.nan)
    return np.clip(truth + generator.normal(0.1, 0.1, n), 0, 1), people, truth


def test_equal_chances_ask_for_no_weights() -> None:
    judge, people, _ = judged(80, labelled=30)
    label_chances = np.linspace(0.2, 0.9, 80)

    for chances in (None, label_chances):
        found = weighted_powered_mean(judge, people, np.full(80, 0.3), chances)
        assert found == powered_mean(judge, people, inclusion=chances, alpha=0.025)


@pytest.mark.parametrize("labels_differ", [False, True])
def test_where_people_labelled_all_the_estimate_is_their_weighted_mean(labels_differ: bool) -> None:
    judge, people, truth = judged(150, labelled=150)
    chances = np.linspace(0.1, 1.0, 150)

    found = weighted_powered_mean(judge, people, chances, np.ones(150) if labels_differ else None)

    assert found.estimate == pytest.approx(np.average(truth, weights=1 / chances))
    assert found.ci is not None
    assert found.ci[0] < found.estimate < found.ci[1]


def linearised(
    judge: Any, people: Any, chances: Any, label_chances: Any = None, *, trust: float | None
) -> tuple[float, tuple[float, float]]:
    """Two steps from people's own weighted mean, each around where the one before led."""
    w = 1 / chances / np.mean(1 / chances)
    known = np.isfinite(people)
    v = (w if label_chances is None else w / label_chances)[known]
    around = float((people[known] * v).sum() / v.sum())
    for _ in range(2):
        found = powered_mean(
            w * (judge - around), w * (people - around), inclusion=label_chances, alpha=0.025,
            judge_weight=trust,
        )  # fmt: skip
        assert found.estimate is not None
        assert found.ci is not None
        ci = (found.ci[0] + around, found.ci[1] + around)
        around += found.estimate
    return around, ci


@pytest.mark.parametrize(("labelled", "tuned"), [(40, False), (200, True)])
@pytest.mark.parametrize("labels_differ", [False, True])
def test_a_judge_is_weighed_by_how_it_agrees_only_with_labels_enough(
    labelled: int, tuned: bool, labels_differ: bool
) -> None:
    generator = np.random.default_rng(4)
    judge, people, _ = judged(300, labelled=labelled)
    chances = generator.choice([0.3, 0.5, 0.6], 300)
    label_chances = generator.choice([0.5, 0.6, 1.0], 300) if labels_differ else None

    found = weighted_powered_mean(judge, people, chances, label_chances)

    wanted, other = (
        linearised(judge, people, chances, label_chances, trust=trust)
        for trust in ((None, 1.0) if tuned else (1.0, None))
    )
    assert found.estimate == pytest.approx(wanted[0])
    assert found.ci == pytest.approx(wanted[1])
    assert found.estimate != pytest.approx(other[0])


def test_a_judge_is_tuned_from_a_hundred_labels_of_one_weight() -> None:
    judge, people, _ = judged(300, labelled=100)
    chances = np.where(np.arange(300) < 150, 0.5, 0.25)

    hundred = weighted_powered_mean(judge, people, chances)
    people[99] = np.nan
    fewer = weighted_powered_mean(judge, people, chances)

    assert hundred.judge_weight not in (None, 1.0)
    assert fewer.judge_weight == 1.0


def test_too_few_labels_estimate_nothing() -> None:
    judge, people, _ = judged(40, labelled=1)

    found = weighted_powered_mean(judge, people, np.linspace(0.1, 1.0, 40))

    assert (found.estimate, found.ci) == (None, None)


# --- pairs over time --------------------------------------------------------------------


def sums(
    scores: Sequence[float],
    chances: Sequence[float],
    *,
    since: int = 0,
    drawn: int = 6,
    **more: Any,
) -> dict[str, Any]:
    """A job's row: sums of weights and scores, as they are kept."""
    w, s = 1 / np.array(chances), np.array(scores)
    return {
        "feature": "f", "model": "m", "prompt_name": "p", "prompt_version": "v1", "metric": "q",
        "tier": 2, "scorer_version": "1", "since": since, "until": since + HOUR, "drawn": drawn,
        "scored": len(s), "w": w.sum(), "ws": w @ s, "wss": w @ s**2, "ww": w @ w,
        "wws": w**2 @ s, "wwss": w**2 @ s**2, **more,
    }  # fmt: skip


def qualities(*rows: dict[str, Any], step_us: int = HOUR) -> list[PairQuality]:
    text = ("feature", "model", "prompt_name", "prompt_version", "metric", "scorer_version")
    whole = ("tier", "since", "until", "drawn", "scored")
    kinds = dict.fromkeys(text, pa.string()) | dict.fromkeys(whole, pa.int64())
    schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in rows[0]])
    with Engine() as engine:
        engine.add_table("samples", pa.Table.from_pylist(list(rows), schema=schema))
        return pair_quality(engine, step_us=step_us)


def test_sums_of_a_job_give_the_estimate_of_its_scores() -> None:
    [found] = qualities(sums(SCORES, CHANCES, drawn=9))

    assert (found.whole.n, found.whole.missing) == (6, 3)
    estimate = found.whole.mean, found.whole.low, found.whole.high
    assert estimate == pytest.approx(plain(SCORES, CHANCES))
    assert found.steps == {0: found.whole}
    assert found.pair == "m/p@v1"


def test_sums_of_a_stratum_that_happens_to_agree_make_nothing_sure() -> None:
    """Of 50 answers that stand for 19 of 20 calls none failed; of the others half did."""
    scores = [1.0] * 50 + [0.0, 1.0] * 25
    pulls = [19.0] * 50 + [1.0] * 50

    [found] = qualities(sums(scores, [1 / one for one in pulls]))

    mean, alike = 975 / 1000, 1000**2 / (50 * 19**2 + 50)
    low, high = proportion_confint(mean * alike, alike, method="wilson")
    assert (found.whole.low, found.whole.mean, found.whole.high) == pytest.approx((low, mean, high))


def test_jobs_are_put_together_and_stand_in_the_step_they_begin_in() -> None:
    first = sums(SCORES[:3], CHANCES[:3], since=HOUR + 5, drawn=3)
    second = sums(SCORES[3:], CHANCES[3:], since=3 * HOUR, drawn=4)

    [found] = qualities(first, second)

    whole = found.whole.mean, found.whole.low, found.whole.high
    assert whole == pytest.approx(plain(SCORES, CHANCES))
    assert {at: one.n for at, one in found.steps.items()} == {HOUR: 3, 3 * HOUR: 3}
    assert (found.whole.n, found.whole.missing) == (6, 1)
    assert found.as_json()["over_time"] == [
        {"at": at, **one.as_json()} for at, one in found.steps.items()
    ]


def test_sums_of_scores_that_are_all_the_same_leave_room_for_doubt() -> None:
    [ones] = qualities(sums([1.0] * 6, CHANCES))
    [noughts] = qualities(sums([0.0] * 6, CHANCES))

    w = 1 / np.array(CHANCES)
    alike = w.sum() ** 2 / (w @ w)
    assert (ones.whole.mean, ones.whole.high) == (1.0, 1.0)
    assert ones.whole.low == pytest.approx(wilson(1.0, alike)[0])
    assert (noughts.whole.mean, noughts.whole.low) == (0.0, 0.0)
    assert noughts.whole.high == pytest.approx(wilson(0.0, alike)[1])


def test_one_score_is_a_quality_and_none_is_not() -> None:
    nothing = sums([], [], metric="none", drawn=4)

    [found] = qualities(sums([1.0], [0.5], drawn=1), nothing)

    assert (found.metric, found.whole.n, found.whole.missing) == ("q", 1, 0)
    assert found.whole.low == pytest.approx(wilson(1.0, 1)[0])


def test_of_two_versions_of_a_scorer_the_newest_counts() -> None:
    old = sums([0.0] * 6, CHANCES, since=0)
    new = sums([1.0] * 6, CHANCES, since=HOUR, scorer_version="0")

    [found] = qualities(new, old)

    assert (found.whole.mean, list(found.steps)) == (1.0, [HOUR])


def test_what_nobody_named_is_told_all_the_same() -> None:
    nameless = dict.fromkeys(
        ("feature", "model", "prompt_name", "prompt_version", "scorer_version")
    )  # fmt: skip

    [found] = qualities(sums(SCORES, CHANCES, **nameless))

    assert (found.feature, found.model, found.prompt) == ("", "", "?@?")
    assert found.whole.n == 6
