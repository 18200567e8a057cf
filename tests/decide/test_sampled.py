"""What a sample says of all calls: weighted by design, corrected by people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.decide.sampled import sampled_metrics, weighted_mean, weighted_powered_mean
from evalkit.store.views import Store, open_store
from tests.store.journal_lines import AT, line

SIZES, QUOTA = (9000, 1000), 200


def drawn(rng: np.random.Generator, n_labels: int) -> tuple[Any, ...]:
    """Two strata, as many drawn of each; a judge that errs; people on some of the sample."""
    truth = np.concatenate([rng.random(9000) < 0.95, rng.random(1000) < 0.5]).astype(float)
    judge = np.where(truth > 0, rng.random(10_000) < 0.97, rng.random(10_000) < 0.3).astype(float)
    first = rng.choice(9000, QUOTA, replace=False)
    at = np.concatenate([first, 9000 + rng.choice(1000, QUOTA, replace=False)])
    people = np.full(2 * QUOTA, np.nan)
    labelled = rng.choice(2 * QUOTA, n_labels, replace=False)
    people[labelled] = truth[at][labelled]
    chances = np.repeat([QUOTA / size for size in SIZES], QUOTA)
    return truth, judge, judge[at], people, chances


def test_a_mean_over_all_calls_is_covered_as_often_as_promised() -> None:
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(300):
        _, judge, seen, _, chances = drawn(rng, 20)
        found = weighted_mean(seen, chances)
        covered.append(found.low <= judge.mean() <= found.high)

    # 95 % of 300, standard error 1.3 %: four of them.
    assert np.mean(covered) > 0.95 - 0.052


@pytest.mark.parametrize("n_labels", [120, 300])
def test_labels_take_the_judges_bias_out_of_a_weighted_mean(n_labels: int) -> None:
    rng = np.random.default_rng(2)
    covered, errors = [], []
    for _ in range(300):
        truth, _, seen, people, chances = drawn(rng, n_labels)
        found = weighted_powered_mean(seen, people, chances)
        assert found.ci is not None
        assert found.estimate is not None
        covered.append(found.ci[0] <= truth.mean() <= found.ci[1])
        errors.append(found.estimate - truth.mean())

    assert np.mean(covered) > 0.95 - 0.052
    assert abs(np.mean(errors)) < 0.006


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A job whose judge passes all of 40 calls, drawn of 400 and of 40; people pass half."""
    opened = open_store(tmp_path)
    sample = {"since": AT, "until": AT + 1, "config": "c"}
    manifest = {"run_id": "job", "kind": "sample", "sample": sample}
    with opened.create_run(manifest) as writer:
        for n in range(40):
            one = line(n, run_id="job")
            one["calls"] = []
            one["key"][2] = f"t-{n}"
            one["scores"][0] |= {
                "trace_id": f"t-{n}", "metric": "fits", "tier": 2, "score": float(n < 20),
                "inclusion_prob": 0.05 if n < 20 else 0.5, "slices": {"feature": "help"},
            }  # fmt: skip
            writer.append(one)
        writer.seal("complete")
    return opened


def label(number: int, score: float, **more: Any) -> dict[str, Any]:
    empty = dict.fromkeys(
        ("run_id", "golden_set", "case_id", "case_hash", "trial", "model", "prompt_name",
         "prompt_version", "passed", "comment", "inclusion_prob", "supersedes")
    )  # fmt: skip
    return empty | {
        "label_id": f"l-{number}", "trace_id": f"t-{number}", "metric": "fits", "score": score,
        "annotator": "ann", "labelled_at": AT,
    } | more  # fmt: skip


def test_scores_weigh_by_their_inverse_chance(store: Store) -> None:
    (found,) = sampled_metrics(store, "job")

    assert found.estimate is not None
    assert found.estimate.mean == pytest.approx(400 / 440)
    assert (found.feature, found.metric, found.estimate.n) == ("help", "fits", 40)
    assert found.powered is None


def test_few_labels_correct_nothing_and_enough_do(store: Store) -> None:
    store.add_labels("some", [label(n, float(n % 2)) for n in range(19)])
    (few,) = sampled_metrics(store, "job")
    store.add_labels("rest", [label(n, float(n % 2)) for n in range(19, 40)])
    (enough,) = sampled_metrics(store, "job")

    assert (few.n_labelled, few.powered) == (19, None)
    assert enough.powered is not None
    assert enough.powered.mean == pytest.approx(0.5)
    assert enough.powered.low < 0.5 < enough.powered.high
