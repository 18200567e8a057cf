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


# --- beside plain ones ------------------------------------------------------------------


def three(n: int, seed: int = 1) -> dict[str, list[float]]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 2, n).astype(float)
    return people(generator, truth, [0.8, 0.8, 0.8])


def plain_wins(
    judge: list[float], said: dict[str, list[float]], name: str, *, graded: bool
) -> list[tuple[bool, bool]]:
    """Whether the judge, and the annotator, does at least as well as the other."""
    found = []
    for n, own in enumerate(said[name]):
        others = [row[n] for other, row in said.items() if other != name]
        others = [one for one in others if not math.isnan(one)]
        if not others or math.isnan(own) or math.isnan(judge[n]):
            continue
        if graded:
            ours, theirs = (
                -math.sqrt(sum((x - one) ** 2 for one in others) / len(others))
                for x in (judge[n], own)
            )
        else:
            ours, theirs = (sum(x == one for one in others) / len(others) for x in (judge[n], own))
        found.append((ours >= theirs - 1e-9, theirs >= ours - 1e-9))
    return found


@pytest.mark.parametrize("graded", [True, False])
def test_wins_are_counted_case_by_case_with_ties_for_both(graded: bool) -> None:
    generator = np.random.default_rng(7)
    grades = np.array([0.0, 0.5, 1.0, NAN]) if graded else np.array([0.0, 1.0, NAN])
    said = {name: generator.choice(grades, 40).tolist() for name in "abcd"}
    judge = generator.choice(grades, 40).tolist()

    found = alternative_annotator(judge, said, graded=graded)

    for one in found.annotators:
        wins = plain_wins(judge, said, one.annotator, graded=graded)
        ours, theirs = (float(np.mean([pair[side] for pair in wins])) for side in (0, 1))
        assert (one.n, one.judge_wins, one.annotator_wins) == (
            len(wins), pytest.approx(ours), pytest.approx(theirs)
        )  # fmt: skip
    assert [one.annotator for one in found.annotators] == list("abcd")
    assert found.advantage == pytest.approx(np.mean([one.judge_wins for one in found.annotators]))
    assert found.winning_rate == sum(one.replaced for one in found.annotators) / 4


def test_fewer_than_thirty_cases_are_tested_by_signed_ranks() -> None:
    said = three(29)
    judge = np.random.default_rng(3).integers(0, 2, 29).astype(float).tolist()

    found = alternative_annotator(judge, said, graded=False)

    for one in found.annotators:
        wins = np.array(plain_wins(judge, said, one.annotator, graded=False), dtype=float)
        d = wins[:, 1] - wins[:, 0]
        expected = stats.wilcoxon(d - 0.15, alternative="less").pvalue
        assert one.p_value == pytest.approx(expected)
    assert found.reason == "fewer than 30 answers of p0, p1, p2"


def test_thirty_cases_are_enough_for_the_t_test() -> None:
    said = three(30)
    judge = np.random.default_rng(3).integers(0, 2, 30).astype(float).tolist()

    found = alternative_annotator(judge, said, graded=False)

    [first, *_] = found.annotators
    wins = np.array(plain_wins(judge, said, "p0", graded=False), dtype=float)
    expected = stats.ttest_1samp(wins[:, 1] - wins[:, 0], 0.15, alternative="less").pvalue
    assert first.p_value == pytest.approx(expected)
    assert found.reason is None
    assert found.epsilon == 0.15


@pytest.mark.parametrize(
    ("n", "epsilon", "p_value"), [(30, 0.1, 0.0), (29, 0.1, 1.0), (30, 0.0, 1.0)]
)
def test_a_judge_that_always_says_the_same_as_people_is_sure_only_of_many_cases(
    n: int, epsilon: float, p_value: float
) -> None:
    answers = [1.0, 0.0, *[1.0] * (n - 2)]
    said = dict.fromkeys("abc", answers)

    found = alternative_annotator(answers, said, graded=False, epsilon=epsilon)

    assert {one.p_value for one in found.annotators} == {p_value}
    assert found.passed is (p_value == 0.0)
    assert (found.advantage, found.winning_rate) == (1.0, float(p_value == 0.0))


def test_half_of_the_annotators_are_enough() -> None:
    generator = np.random.default_rng(11)
    truth = generator.integers(0, 2, 400).astype(float)
    said = people(generator, truth, [0.95, 0.95, 0.6, 0.6])
    judge = np.where(generator.random(400) < 0.75, truth, 1 - truth)

    found = alternative_annotator(judge, said, graded=False)

    assert [one.replaced for one in found.annotators] == [False, False, True, True]
    assert (found.winning_rate, found.passed) == (0.5, True)


def test_an_annotator_of_one_common_case_is_left_out() -> None:
    said = three(40) | {"few": [1.0] + [NAN] * 39, "two": [1.0, 0.0] + [NAN] * 38}

    found = alternative_annotator([1.0, 0.0] * 20, said, graded=False)

    assert [one.annotator for one in found.annotators] == ["p0", "p1", "p2", "two"]


def test_nobody_and_one_alone_are_too_few() -> None:
    for said in ({}, {"a": [1.0, 0.0]}):
        found = alternative_annotator([1.0, 0.0], said, graded=False)
        assert (found.passed, found.winning_rate, found.advantage) == (None, None, None)
        assert found.epsilon == 0.15


def test_a_higher_rate_of_false_discoveries_rejects_more() -> None:
    said = three(60, seed=5)
    judge = np.random.default_rng(6).integers(0, 2, 60).astype(float)
    strict, lax = (
        alternative_annotator(judge, said, graded=False, epsilon=0.4, q=q) for q in (1e-9, 0.999)
    )

    assert strict.winning_rate == 0.0
    assert lax.winning_rate is not None
    assert lax.winning_rate > 0.0
    plain = alternative_annotator(judge, said, graded=False, epsilon=0.4)
    told = alternative_annotator(judge, said, graded=False, epsilon=0.4, q=0.05)
    assert plain == told


@pytest.mark.parametrize("seed", range(5))
def test_by_is_that_of_statsmodels(seed: int) -> None:
    p_values = (np.random.default_rng(seed).random(12) ** 3).tolist()

    assert by(p_values, q=0.05) == list(multipletests(p_values, 0.05, "fdr_by")[0])


@pytest.mark.parametrize("steps", [0, 1, -1])
def test_by_rejects_what_lies_just_on_its_bar(steps: int) -> None:
    # Of two the bars are q / 3 and 2 q / 3: the sum 1 + 1/2 shares them out.
    bar = 0.06 * 1 / (2 * 1.5)
    p = bar if steps == 0 else math.nextafter(bar, bar + steps)

    assert by([p, 0.9], q=0.06) == [steps <= 0, False]
    assert by([], q=0.05) == []
