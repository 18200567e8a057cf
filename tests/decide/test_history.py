"""What earlier runs say of a metric's spread, beside variances counted by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from evalkit.decide.history import Spread, spread_of
from evalkit.store.views import Store, open_store
from tests.decide.results import add_run, cases, lines_of

Scores = Mapping[str, float | None]

HALF = [1, 0, 1, 0, 1, 0]
ONES = [1.0] * 6
"""Against HALF d is 0, 1, 0, 1, 0, 1: variance 6/4 over 5."""
VARIANCE = 0.3


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def run(
    store: Store,
    run_id: str,
    *trials: Sequence[float | None] | Scores,
    version: str = "v2",
    seal: bool = True,
    facts: Mapping[str, Any] | None = None,
    **columns: Any,
) -> None:
    """A run of one pair with a list of scores for each trial; later runs sort after it."""
    named = [one if isinstance(one, Mapping) else cases(one) for one in trials]
    pairs = [f"small/classify-ticket@{version}"]
    with add_run(store, run_id, pairs=pairs, **(facts or {})) as writer:
        for trial, scores in enumerate(named):
            for line in lines_of(run_id, scores, version=version, trial=trial, **columns):
                writer.append(line)
        if seal:
            writer.seal("complete", counts={})


def spread(store: Store) -> Spread | None:
    return spread_of(store, "tickets", "label")


def test_two_runs_of_a_pair_show_how_much_it_varies_by_itself(store: Store) -> None:
    run(store, "run-1", HALF)
    run(store, "run-2", ONES)

    assert spread(store) == Spread(
        between=pytest.approx(VARIANCE),
        within=None,
        binary=True,
        cases=6,
        comparisons=1,
        change=False,
        runs=("run-2", "run-1"),
    )


def test_a_single_run_shows_nothing(store: Store) -> None:
    assert spread(store) is None
    run(store, "run-1", ONES)

    assert spread(store) is None


@pytest.mark.parametrize(("common", "is_enough"), [(4, False), (5, True)])
def test_five_cases_in_common_are_enough(store: Store, common: int, is_enough: bool) -> None:
    run(store, "run-1", cases(ONES[:common]) | {"old": 0.0})
    run(store, "run-2", cases(ONES[:common]) | {"new-1": 0.0, "new-2": 0.0})

    found = spread(store)

    assert (found is not None) is is_enough
    assert found is None or (found.cases, found.between) == (5, 0.0)


def test_a_case_is_compared_with_itself_whatever_else_a_run_has(store: Store) -> None:
    early = dict(zip("abcdef", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0], strict=True))
    run(store, "run-1", early)
    run(store, "run-2", {"0": 1.0, **{name: early[name] for name in "fedcb"}})

    found = spread(store)

    assert found is not None
    assert (found.cases, found.between, found.binary) == (5, 0.0, False)


def test_an_edited_case_is_another(store: Store) -> None:
    run(store, "run-1", ONES)
    run(store, "run-2", ONES, case_hash="edited")

    assert spread(store) is None


def test_a_change_says_more_than_a_pair_run_again(store: Store) -> None:
    run(store, "run-1", HALF)
    run(store, "run-2", ONES)
    run(store, "run-3", ONES, version="v3")
    run(store, "run-4", ONES, version="v3")

    found = spread(store)

    assert found is not None
    assert (found.change, found.comparisons, found.runs) == (True, 1, ("run-3", "run-2"))
    assert found.between == 0.0


def test_two_pairs_of_one_run_are_neighbours(store: Store) -> None:
    pairs = ["small/classify-ticket@v2", "small/classify-ticket@v3"]
    with add_run(store, "run-1", pairs=pairs) as writer:
        for version, scores in (("v3", ONES), ("v2", HALF)):
            for line in lines_of("run-1", cases(scores), version=version):
                writer.append(line)
        writer.seal("complete", counts={})

    found = spread(store)

    assert found is not None
    assert (found.change, found.runs) == (True, ("run-1",))
    assert found.between == pytest.approx(VARIANCE)


def test_comparisons_count_by_their_cases(store: Store) -> None:
    # d of the newest two: three of 1 among six. Of the older two: one of 1 among ten.
    run(store, "run-1", [*ONES, 1, 1, 1, 0])
    run(store, "run-2", [1.0] * 10)
    run(store, "run-3", HALF)

    found = spread(store)

    assert found is not None
    assert (found.cases, found.comparisons, found.runs) == (16, 2, ("run-3", "run-2", "run-1"))
    assert found.between == pytest.approx((6 * VARIANCE + 10 * 0.1) / 16)


# --- trials ------------------------------------------------------------------------------


def test_what_trials_differ_by_is_no_difference_of_cases(store: Store) -> None:
    # A case's two trials, 0 and 1, have a variance of 1/2; their mean has half of it.
    run(store, "run-1", [0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0])
    run(store, "run-2", [0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1])

    found = spread(store)

    # d: three of -1/2, three of 1; variance 6 * (3/4)^2 / 5. Trials: 1/4 a side's trial on
    # average, half of it in a mean of two, on one side only.
    assert found is not None
    assert found.between == pytest.approx(6 * 0.75**2 / 5 - 0.125)
    assert found.within == pytest.approx(0.25)
    assert not found.binary


def test_trial_noise_is_that_of_the_comparisons_that_know_it(store: Store) -> None:
    run(store, "run-1", [0.0] * 10)
    run(store, "run-2", [0.0] * 10)
    run(store, "run-3", ONES, [0, 0, 0, 0, 0, 0])
    run(store, "run-4", [*ONES, 1, 1], [0, 0, 0, 0, 0, 0, 1, 1])

    found = spread(store)

    # Neighbours, newest first: 6 cases, noise of 1/2 a trial and side, and so much between the
    # newest and the one before; 6 cases, one side known and taken for both; 10 cases, unknown.
    assert found is not None
    assert (found.comparisons, found.cases) == (3, 22)
    assert found.within == pytest.approx((6 * 1.0 + 6 * 1.0) / 12)


def test_noise_that_explains_all_leaves_nothing_between_cases(store: Store) -> None:
    run(store, "run-1", ONES, [0, 0, 0, 0, 0, 0])
    run(store, "run-2", ONES, [0, 0, 0, 0, 0, 0])

    found = spread(store)

    assert found is not None
    assert (found.between, found.within) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("first", "second"), [([HALF, HALF], [HALF]), ([HALF], [HALF, HALF]), ([[0.5] * 6], [HALF]),
                          ([HALF], [[0.5] * 6])],
)  # fmt: skip
def test_pass_or_fail_is_one_trial_of_0_or_1_on_both_sides(
    store: Store, first: list[list[float]], second: list[list[float]]
) -> None:
    run(store, "run-1", *first)
    run(store, "run-2", *second)

    found = spread(store)

    assert found is not None
    assert not found.binary


def test_one_graded_comparison_makes_the_metric_graded(store: Store) -> None:
    for n, scores in enumerate((HALF, HALF, [0.5] * 6)):
        run(store, f"run-{n}", scores)

    found = spread(store)

    assert found is not None
    assert (found.comparisons, found.binary) == (2, False)


def test_only_scores_of_the_pair_itself_count(store: Store) -> None:
    run(store, "run-1", [*ONES, 1, 1])
    with add_run(store, "run-2", pairs=["small/classify-ticket@v2"]) as writer:
        lines = [
            *lines_of("run-2", cases([1, 0, 1, 0, 1, 0])),
            *lines_of("run-2", cases([None], 6)),
            *lines_of("run-2", cases([0.0], 7), served_model="other"),
        ]
        for line in lines:
            writer.append(line)
        writer.seal("complete", counts={})

    found = spread(store)

    assert found is not None
    assert found.cases == 6


# --- clusters ----------------------------------------------------------------------------


def in_clusters(store: Store, run_id: str, scores: Mapping[str, Mapping[str, float]]) -> None:
    """Cluster -> its cases; those of "" are in none."""
    with add_run(store, run_id, pairs=["small/classify-ticket@v2"]) as writer:
        for cluster, of_cluster in scores.items():
            for line in lines_of(run_id, of_cluster, cluster=cluster or None):
                writer.append(line)
        writer.seal("complete", counts={})


def test_cases_of_a_cluster_count_as_one_draw(store: Store) -> None:
    named = {f"doc-{n}": [f"{n}-{k}" for k in range(4)] for n in range(5)}
    moved = dict(zip(named, [1.0, 0.0, 1.0, 0.0, 0.0], strict=True))
    in_clusters(store, "run-1", {doc: dict.fromkeys(ids, 0.0) for doc, ids in named.items()})
    in_clusters(store, "run-2", {doc: dict.fromkeys(ids, moved[doc]) for doc, ids in named.items()})

    found = spread(store)

    # Equal clusters: the variance of the mean is that of the cluster means over their number,
    # 0.3 / 5; of a single case it would be as large with 20 of them.
    assert found is not None
    assert found.between == pytest.approx(0.3 / 5 * 20)


def test_a_case_in_no_cluster_is_in_none_that_has_its_name(store: Store) -> None:
    alone = [f"d{n}" for n in range(4)]
    named = {one: {f"{one}-a": 0.0} for one in alone}
    in_clusters(store, "run-1", {"": dict.fromkeys(alone, 0.0), **named})
    in_clusters(store, "run-2", {"": dict.fromkeys(alone, 1.0), **named})

    found = spread(store)

    # Each for itself: four of 1 and four of 0.
    assert found is not None
    assert found.between == pytest.approx(2 / 7)


# --- which runs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "facts",
    [
        {"stop_early": {"stopped": True}},
        {"shard": {"number": 1, "of": 2}},
        {"kind": "sample"},
        {"golden_sets": {"others": {"hash": "aaaa", "metrics": []}}},
    ],
    ids=["stopped early", "a shard", "a sample of production", "of another golden set"],
)
def test_what_is_no_run_of_all_cases_is_no_history(store: Store, facts: dict[str, Any]) -> None:
    run(store, "run-1", HALF)
    run(store, "run-2", ONES, facts=facts)

    assert spread(store) is None


def test_a_run_that_might_have_stopped_early_and_did_not_is_history(store: Store) -> None:
    run(store, "run-1", HALF)
    run(store, "run-2", ONES, facts={"stop_early": {"stopped": False}})

    assert spread(store) is not None


def test_a_run_that_is_not_over_is_no_history(store: Store) -> None:
    run(store, "run-1", HALF)
    run(store, "run-2", ONES, seal=False)

    assert spread(store) is None


def test_answers_that_were_scored_again_are_not_compared_with_themselves(store: Store) -> None:
    run(store, "run-1", HALF)
    run(store, "run-2", ONES)
    run(store, "run-3", ONES, facts={"rescored_from": "run-2"})
    run(store, "run-4", ONES, facts={"rescored_from": "run-3"})

    found = spread(store)

    assert found is not None
    assert (found.comparisons, found.runs) == (1, ("run-4", "run-1"))
    assert found.between == pytest.approx(VARIANCE)


def test_scores_of_two_versions_of_a_judge_are_not_compared(store: Store) -> None:
    run(store, "run-1", HALF)
    run(store, "run-2", HALF, facts={"rescored_from": "run-1"}, scorer_version="2")
    run(store, "run-3", ONES, scorer_version="2")
    run(store, "run-4", ONES)

    found = spread(store)

    assert found is not None
    assert found.between == pytest.approx(VARIANCE)
    assert sorted(found.runs) == ["run-1", "run-2", "run-3", "run-4"]
    assert found.comparisons == 2


def test_the_newest_eight_runs_are_looked_at(store: Store) -> None:
    for n in range(9):
        run(store, f"run-{n}", ONES)

    found = spread(store)

    assert found is not None
    assert found.runs == tuple(f"run-{n}" for n in range(8, 0, -1))


def test_the_newest_twelve_sides_are_compared(store: Store) -> None:
    versions = [f"v{n}" for n in range(5)]
    for run_id in ("run-1", "run-2", "run-3"):
        pairs = [f"small/classify-ticket@{version}" for version in versions]
        with add_run(store, run_id, pairs=pairs) as writer:
            for version in versions:
                for line in lines_of(run_id, cases(ONES), version=version):
                    writer.append(line)
            writer.seal("complete", counts={})

    found = spread(store)

    assert found is not None
    assert found.comparisons == 11


def test_a_damaged_run_is_said_and_passed_over(store: Store) -> None:
    for n, scores in enumerate((HALF, ONES, ONES)):
        run(store, f"run-{n}", scores)
    [file] = store.score_files("run-1")
    file.chmod(0o644)
    file.write_bytes(b"PAR1 damaged")

    found = spread(store)

    assert found is not None
    assert found.runs == ("run-2", "run-0")
    assert any("damaged" in problem for problem in store.problems)
