"""People's labels and a judge together, against ppi-python and by simulation."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from evalkit.decide.ppi import powered_mean

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import ppi_py


def labelled_prefix(seed: int, n: int, labelled: int) -> tuple[np.ndarray, np.ndarray]:
    """Judge scores and labels of the first cases; the judge is noisy and 10 points too high."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(-2, 3, n) / 4 - 0.05
    judge = truth + 0.1 + generator.normal(0, 0.15, n)
    return judge, np.where(np.arange(n) < labelled, truth, math.nan)


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_estimate_at_a_given_weight_is_that_of_ppi_python(weight: float) -> None:
    judge, human = labelled_prefix(1, 400, 60)

    seen = powered_mean(judge, human, judge_weight=weight)

    expected = ppi_py.ppi_mean_pointestimate(human[:60], judge[:60], judge[60:], lam=weight)
    assert seen.estimate == pytest.approx(float(np.squeeze(expected)), abs=1e-9)


def test_tuned_weight_and_estimate_are_those_of_ppi_python() -> None:
    judge, human = labelled_prefix(2, 400, 60)

    seen = powered_mean(judge, human)

    expected = ppi_py.ppi_mean_pointestimate(human[:60], judge[:60], judge[60:])
    assert seen.judge_weight is not None
    assert 0 < seen.judge_weight < 1
    assert seen.estimate == pytest.approx(float(np.squeeze(expected)), abs=1e-9)


def test_interval_is_ppi_pythons_up_to_small_sample_corrections() -> None:
    judge, human = labelled_prefix(3, 50_000, 20_000)

    seen = powered_mean(judge, human)

    low, high = ppi_py.ppi_mean_ci(human[:20_000], judge[:20_000], judge[20_000:], alpha=0.1)
    assert seen.ci == pytest.approx((float(low[0]), float(high[0])), abs=2e-6)


@pytest.mark.parametrize("model", ["gpt35", "newbing"])
def test_quality_of_a_real_model_is_that_of_ppi_python(
    model: str, shared_data: Callable[[str], Path]
) -> None:
    judge, human = _verdicts(shared_data("qa_human_labels/tq.jsonl"), model)
    labelled = np.arange(len(human)) < 200

    seen = powered_mean(judge, np.where(labelled, human, math.nan))

    expected = ppi_py.ppi_mean_pointestimate(human[:200], judge[:200], judge[200:])
    assert seen.estimate == pytest.approx(float(np.squeeze(expected)), abs=1e-6)
    assert seen.ci is not None
    assert seen.ci[0] < human.mean() < seen.ci[1]
    assert seen.judge_bias == pytest.approx((judge - human)[:200].mean(), abs=1e-9)


def test_difference_of_two_real_models_is_that_of_ppi_python(
    shared_data: Callable[[str], Path],
) -> None:
    path = shared_data("qa_human_labels/tq.jsonl")
    (judge_b, human_b), (judge_c, human_c) = _verdicts(path, "gpt35"), _verdicts(path, "gpt4")
    d, people = judge_c - judge_b, human_c - human_b
    labelled = np.arange(len(d)) < 300

    seen = powered_mean(d, np.where(labelled, people, math.nan))

    expected = ppi_py.ppi_mean_pointestimate(people[:300], d[:300], d[300:])
    assert seen.estimate == pytest.approx(float(np.squeeze(expected)), abs=1e-6)
    assert seen.label_saving is not None
    assert seen.label_saving > 0.1
    low, high = seen.ci or (math.nan, math.nan)
    assert low < people.mean() < high


def _verdicts(path: Path, model: str) -> tuple[np.ndarray, np.ndarray]:
    """A cheap check and people, on every question in the order of the file."""
    with path.open(encoding="utf-8") as file:
        mine = [row for row in map(json.loads, file) if row["model"] == model]
    return tuple(np.array([float(row[key]) for row in mine]) for key in ("proxy", "human"))


def test_rare_errors_of_a_judge_are_allowed_for() -> None:
    generator = np.random.default_rng(12)
    covered = 0
    for _ in range(400):
        people = (generator.random(500) < 0.8).astype(float)
        judge = np.where(people > 0, 1.0, (generator.random(500) < 0.4).astype(float))
        human = np.where(np.arange(500) < 50, people, math.nan)
        low, high = powered_mean(judge, human, alpha=0.025).ci or (1.0, 0.0)
        covered += low <= 0.8 <= high

    # Standard error of a share of 0.95 over 400 draws: 0.011; three of them. With the t
    # interval of the residuals alone 0.89.
    assert covered / 400 > 0.95 - 0.033


@pytest.mark.parametrize(("n_clusters", "size"), [(15, 10), (40, 5)])
def test_the_interval_covers_where_cases_share_clusters(n_clusters: int, size: int) -> None:
    generator = np.random.default_rng(13)
    clusters = np.repeat(np.arange(n_clusters), size)
    runs, covered, naive = 400, 0, 0
    for _ in range(runs):
        shared = generator.normal(0, 0.3, n_clusters)[clusters]
        people = shared + generator.normal(0, 0.3, len(clusters))
        judge = 0.7 * people - 0.1 + generator.normal(0, 0.15, len(clusters))
        asked = generator.permutation(len(clusters)) < 60
        human = np.where(asked, people, math.nan)
        low, high = powered_mean(judge, human, clusters=clusters).ci or (1.0, 0.0)
        covered += low <= 0 <= high
        low, high = powered_mean(judge, human).ci or (1.0, 0.0)
        naive += low <= 0 <= high

    # Standard error of a share of 0.9 over 400 runs: 0.015; three of them.
    assert covered / runs > 0.9 - 0.045
    assert naive < covered


def test_a_useless_judge_leaves_the_t_interval_of_the_labels() -> None:
    judge, human = labelled_prefix(4, 300, 40)

    seen = powered_mean(judge, human, judge_weight=0.0)

    t = scipy_stats.ttest_1samp(human[:40], 0)
    interval = t.confidence_interval(0.9)
    assert seen.ci == pytest.approx((interval.low, interval.high), abs=1e-9)
    assert seen.p_value == pytest.approx(
        scipy_stats.ttest_1samp(human[:40], 0, alternative="less").pvalue, abs=1e-9
    )


def test_unequal_chances_follow_the_weighted_formula() -> None:
    generator = np.random.default_rng(5)
    judge, truth = labelled_prefix(5, 600, 600)
    chance = generator.uniform(0.05, 0.4, 600)
    human = np.where(generator.random(600) < chance, truth, math.nan)

    seen = powered_mean(judge, human, inclusion=chance, judge_weight=0.7)

    drawn = [
        (y - 0.7 * f, 1 / pi)
        for y, f, pi in zip(human, judge, chance, strict=True)
        if not math.isnan(y)
    ]
    rest = sum(e * w for e, w in drawn) / sum(w for _, w in drawn)
    assert seen.estimate == pytest.approx((0.7 * judge).mean() + rest, abs=1e-9)


def test_equal_chances_said_case_by_case_are_equal_chances() -> None:
    judge, human = labelled_prefix(11, 300, 60)

    assert powered_mean(judge, human, inclusion=np.full(300, 0.2)) == powered_mean(judge, human)


def test_nearly_equal_chances_are_nearly_the_same_answer() -> None:
    judge, human = labelled_prefix(12, 2_000, 400)
    chance = np.full(2_000, 0.2)
    chance[::2] += 1e-6

    even, uneven = powered_mean(judge, human), powered_mean(judge, human, inclusion=chance)

    assert uneven.estimate == pytest.approx(even.estimate, abs=1e-3)
    assert uneven.se == pytest.approx(even.se, rel=0.03)


@pytest.mark.parametrize("unequal", [False, True])
def test_interval_covers_the_truth_whatever_the_judge_does(unequal: bool) -> None:
    generator = np.random.default_rng(6)
    runs, covered = 600, 0
    for _ in range(runs):
        truth = generator.integers(-2, 3, 400) / 4
        judge = 0.6 * truth - 0.1 + generator.normal(0, 0.2, 400)
        chance = generator.uniform(0.06, 0.3, 400) if unequal else np.full(400, 0.12)
        human = np.where(generator.random(400) < chance, truth, math.nan)
        seen = powered_mean(judge, human, inclusion=chance)
        covered += seen.ci is not None and seen.ci[0] <= 0.0 <= seen.ci[1]

    # Standard error of a share of 0.9 over 600 runs: 0.0122; three of them.
    assert covered / runs > 0.9 - 0.037


def test_a_good_judge_saves_labels_and_its_bias_is_reported() -> None:
    judge, human = labelled_prefix(7, 2_000, 100)

    seen = powered_mean(judge, human)

    assert seen.label_saving is not None
    assert seen.label_saving > 0.5
    assert seen.judge_bias == pytest.approx(0.1, abs=0.05)


def test_labels_on_every_case_need_no_judge() -> None:
    judge, human = labelled_prefix(8, 50, 50)

    seen = powered_mean(judge, human)

    assert seen.judge_weight == 0.0
    assert seen.estimate == pytest.approx(human.mean())


def test_labels_that_saw_no_change_leave_what_zero_events_leave_possible() -> None:
    judge = np.random.default_rng(10).normal(0.1, 0.1, 200)
    human = np.where(np.arange(200) < 50, 0.0, math.nan)

    seen = powered_mean(judge, human)

    bound = 1 - 0.05 ** (1 / 50)
    assert (seen.estimate, seen.p_value, seen.judge_weight) == (0.0, 1.0, 0.0)
    assert seen.ci == pytest.approx((-bound, bound))


def test_few_labels_are_unmeasurable() -> None:
    judge, human = labelled_prefix(9, 100, 19)

    seen = powered_mean(judge, human)

    assert seen.reason is not None
    assert "19 labels" in seen.reason
    assert (seen.estimate, seen.ci, seen.p_value) == (None, None, None)


def test_labels_of_few_clusters_are_unmeasurable() -> None:
    judge, human = labelled_prefix(14, 400, 60)

    seen = powered_mean(judge, human, clusters=np.arange(400) // 10)

    assert seen.reason == "labels of 6 clusters; too few"
    assert seen.ci is None


def test_a_judge_with_gaps_is_refused() -> None:
    with pytest.raises(ValueError, match="without gaps"):
        powered_mean([0.1, math.nan], [0.1, 0.2])
