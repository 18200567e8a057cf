"""The alternative-annotator test: its rule, its error rate, its power."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from evalkit.decide.alternative import alternative_annotator, by

NAN = math.nan


def people(generator: np.random.Generator, truth: np.ndarray, rates: list[float]) -> dict:
    return {
        f"p{k}": np.where(generator.random(len(truth)) < rate, truth, 1 - truth).tolist()
        for k, rate in enumerate(rates)
    }


def test_a_judge_as_good_as_people_may_stand_in_and_a_coin_may_not() -> None:
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 2, 200).astype(float)
    said = people(generator, truth, [0.85, 0.85, 0.85])
    good = np.where(generator.random(200) < 0.9, truth, 1 - truth)

    judge = alternative_annotator(good, said, graded=False)
    coin = alternative_annotator(generator.integers(0, 2, 200), said, graded=False)

    assert (judge.passed, judge.winning_rate) == (True, 1.0)
    assert judge.advantage is not None
    assert judge.advantage > 0.85
    assert (coin.passed, coin.winning_rate) == (False, 0.0)


def test_the_p_value_is_the_paired_t_test_of_the_paper() -> None:
    generator = np.random.default_rng(2)
    truth = generator.integers(0, 2, 80).astype(float)
    said = people(generator, truth, [0.8, 0.8, 0.8])
    judge = np.where(generator.random(80) < 0.75, truth, 1 - truth)

    [first, *_] = alternative_annotator(judge, said, graded=False, epsilon=0.2).annotators

    others = np.array([said["p1"], said["p2"]])
    ours = (others == judge).mean(axis=0)
    own = (others == np.array(said["p0"])).mean(axis=0)
    d = (own >= ours).astype(float) - (ours >= own).astype(float)
    expected = stats.ttest_1samp(d, 0.2, alternative="less").pvalue
    assert first.p_value == pytest.approx(expected, abs=1e-12)
    assert first.judge_wins == pytest.approx((ours >= own).mean())


def test_graded_answers_are_held_by_their_distance() -> None:
    generator = np.random.default_rng(3)
    truth = generator.random(100)
    said = {f"p{k}": (truth + generator.normal(0, 0.2, 100)).tolist() for k in range(3)}

    near = alternative_annotator(truth, said, graded=True)
    far = alternative_annotator(generator.random(100), said, graded=True)

    assert (near.passed, far.passed) == (True, False)


def test_a_judge_worse_by_epsilon_replaces_few() -> None:
    generator = np.random.default_rng(4)
    runs, replaced = 200, 0
    for _ in range(runs):
        truth = generator.integers(0, 2, 60).astype(float)
        said = people(generator, truth, [0.9, 0.9, 0.9])
        # Wins and losses of one case in five differ: worse than 0.15 allows.
        judge = np.where(generator.random(60) < 0.6, truth, 1 - truth)
        replaced += bool(alternative_annotator(judge, said, graded=False).passed)

    assert replaced / runs < 0.05


def test_gaps_are_left_out_and_two_annotators_are_too_few() -> None:
    judge = [1.0, 0.0] * 20
    said = {"a": [1.0, 0.0] * 20, "b": [1.0, NAN] * 20, "c": [NAN, 0.0] * 20}

    three = alternative_annotator(judge, said, graded=False)
    two = alternative_annotator(judge, {"a": said["a"], "b": said["b"]}, graded=False)

    assert [one.n for one in three.annotators] == [40, 20, 20]
    assert three.reason == "fewer than 30 answers of b, c"
    assert (two.passed, two.annotators) == (None, ())
    assert two.reason == "it takes 3 annotators who labelled the same answers"


@pytest.mark.parametrize("seed", range(5))
def test_by_is_that_of_statsmodels(seed: int) -> None:
    p_values = (np.random.default_rng(seed).random(12) ** 3).tolist()

    assert by(p_values, q=0.05) == list(multipletests(p_values, 0.05, "fdr_by")[0])
