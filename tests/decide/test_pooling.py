"""One baseline of several runs: which belong to it, which are left out, what it buys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.config import GateSettings
from evalkit.decide.gate import run_gate
from evalkit.errors import ConfigError
from evalkit.store.views import Store, open_store
from tests.decide.results import LABEL, add_run, cases, file_rows, lines_of, write_csv, write_run

GATE = GateSettings()
SAME = cases([1.0] * 90 + [0.0] * 10)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def only(verdict: dict[str, Any]) -> dict[str, Any]:
    [comparison] = [c for c in verdict["comparisons"] if c["gate"]]
    return comparison


def decide(store: Store, candidate: str = "run-z-cand", **options: Any) -> dict[str, Any]:
    return run_gate(store, candidate=candidate, settings=GATE, **options)


def test_earlier_runs_of_the_pair_are_one_baseline_with_many_trials(store: Store) -> None:
    for number in range(3):
        write_run(store, f"run-{number}", SAME)
    write_run(store, "run-z-cand", SAME, branch="change")

    verdict = decide(store)

    baseline = only(verdict)["baseline"]
    assert baseline["run_id"] == "run-2"
    assert baseline["run_ids"] == ["run-2", "run-1", "run-0"]
    assert verdict["notes"] == [
        "the baseline small/classify-ticket@v2 on tickets is 3 runs pooled, newest run-2"
    ]
    assert verdict["verdict"] == "pass"


def test_each_run_is_a_trial_of_the_case(store: Store) -> None:
    for number, score in enumerate((1.0, 0.0, 1.0)):
        write_run(store, f"run-{number}", cases([score, *[1.0] * 99]))
    write_run(store, "run-z-cand", cases([1.0] * 100), branch="change")

    comparison = only(decide(store))

    assert comparison["baseline_mean"] == pytest.approx((99 + 2 / 3) / 100)
    assert comparison["delta"] == pytest.approx(1 / 300)
    assert comparison["wins"] == 1


def test_a_run_that_drifts_from_the_newest_is_left_out_and_named(store: Store) -> None:
    write_run(store, "run-0", cases([0.0] * 30 + [1.0] * 70))
    write_run(store, "run-1", SAME)
    write_run(store, "run-2", SAME)
    write_run(store, "run-z-cand", SAME, branch="change")

    verdict = decide(store)

    assert only(verdict)["baseline"]["run_ids"] == ["run-2", "run-1"]
    assert (
        "run run-0 is left out of the pooled baseline on tickets: it drifts" in verdict["notes"][0]
    )
    assert "label differs by -20.0 points" in verdict["notes"][0]


def test_runs_of_other_branches_pairs_and_later_ones_do_not_belong(store: Store) -> None:
    write_run(store, "run-0", SAME, branch="feature")
    write_run(store, "run-1", SAME, version="v1")
    write_run(store, "run-2", SAME)
    write_run(store, "run-3", SAME)
    write_run(store, "run-4", SAME, status="running")
    write_run(store, "run-5", SAME)
    write_run(store, "run-6", SAME)

    verdict = decide(store, candidate="run-5")

    assert only(verdict)["baseline"]["run_ids"] == ["run-3", "run-2"]


def test_the_same_answers_scored_again_are_no_further_trial(store: Store) -> None:
    write_run(store, "run-0", SAME)
    with add_run(store, "run-1", pairs=["small/classify-ticket@v2"], rescored_from="run-0") as one:
        for line in lines_of("run-1", SAME):
            one.append(line)
        one.seal("complete", counts={})
    write_run(store, "run-z-cand", SAME, branch="change")

    assert only(decide(store))["baseline"]["run_ids"] == ["run-1"]


def test_cases_edited_since_join_only_with_their_own_content(store: Store) -> None:
    write_run(store, "run-0", cases([0.0] * 40), case_hash="old")
    write_run(store, "run-1", cases([1.0] * 40))
    write_run(store, "run-z-cand", cases([1.0] * 40), branch="change")

    verdict = decide(store)

    assert only(verdict)["baseline"]["run_ids"] == ["run-1"]
    assert only(verdict)["baseline_mean"] == 1.0
    assert any("all its cases were edited since" in note for note in verdict["notes"])


def test_runs_scored_by_another_version_of_the_scorer_are_left_out(store: Store) -> None:
    write_run(store, "run-0", SAME, scorer_version="judge-1")
    write_run(store, "run-1", SAME, scorer_version="judge-2")
    write_run(store, "run-z-cand", SAME, branch="change", scorer_version="judge-2")

    verdict = decide(store)

    assert only(verdict)["baseline"]["run_ids"] == ["run-1"]
    assert "another version of the scorer" in verdict["notes"][0]


def test_a_damaged_earlier_run_costs_the_pool_one_run_and_no_more(store: Store) -> None:
    for number in range(3):
        write_run(store, f"run-{number}", SAME)
    write_run(store, "run-z-cand", SAME, branch="change")
    damaged = store.path / "scores" / "run=run-0.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")

    verdict = decide(store)

    assert verdict["verdict"] == "pass"
    assert only(verdict)["baseline"]["run_ids"] == ["run-2", "run-1"]
    assert "run=run-0.parquet is damaged" in verdict["notes"][0]


def test_a_baseline_that_was_chosen_stands_alone_unless_pooled_is_asked_for(store: Store) -> None:
    for number in range(3):
        write_run(store, f"run-{number}", SAME)
    write_run(store, "run-z-cand", SAME, branch="change")
    store.baselines.set("tickets", "classify-ticket", "run-1")

    assert only(decide(store))["baseline"]["run_ids"] == ["run-1"]
    assert only(decide(store, baseline="run-0"))["baseline"]["run_ids"] == ["run-0"]
    pooled = only(decide(store, baseline="pooled"))
    assert pooled["baseline"]["run_ids"] == ["run-1", "run-2", "run-0"]


def test_a_named_pair_may_meet_a_pooled_baseline(store: Store) -> None:
    for number in range(2):
        write_run(store, f"run-{number}", SAME)
    write_run(store, "run-z-cand", SAME, version="v3", branch="change")

    verdict = decide(
        store, baseline="pooled", compare=["small/classify-ticket@v3:small/classify-ticket@v2"]
    )

    assert only(verdict)["baseline"]["run_ids"] == ["run-1", "run-0"]


def test_one_run_is_a_baseline_alone_and_that_is_said_where_a_pool_was_asked_for(
    store: Store,
) -> None:
    write_run(store, "run-0", SAME)
    write_run(store, "run-z-cand", SAME, branch="change")

    asked, default = decide(store, baseline="pooled"), decide(store)

    assert only(asked)["baseline"]["run_ids"] == ["run-0"]
    assert asked["notes"] == ["there is one run of tickets to pool: run-0"]
    assert default["notes"] == []


def test_a_results_file_has_no_runs_to_pool(store: Store, tmp_path: Path) -> None:
    candidate = file_rows(write_csv(tmp_path / "a.csv", [("c1", 1), ("c2", 1)]))

    with pytest.raises(ConfigError, match="needs a baseline"):
        run_gate(store, candidate=candidate, baseline="pooled", settings=GATE)


def test_pooling_takes_the_baselines_noise_away(store: Store) -> None:
    generator = np.random.default_rng(3)
    chance = generator.uniform(0.2, 1.0, size=80)

    def noisy() -> dict[str, float | None]:
        return cases((generator.random(80) < chance).astype(float).tolist())

    for number in range(8):
        write_run(store, f"run-{number}", noisy())
    write_run(store, "run-z-cand", noisy(), branch="change")

    alone = only(decide(store, baseline="run-7"))
    pooled = only(decide(store))

    assert len(pooled["baseline"]["run_ids"]) == 8
    assert pooled["ci"][1] - pooled["ci"][0] < 0.85 * (alone["ci"][1] - alone["ci"][0])


def test_at_most_twenty_runs_are_pooled(store: Store) -> None:
    for number in range(22):
        write_run(store, f"run-{number:02d}", cases([1.0] * 10))
    write_run(store, "run-z-cand", cases([1.0] * 10), branch="change")

    run_ids = only(decide(store))["baseline"]["run_ids"]

    assert run_ids == [f"run-{number:02d}" for number in range(21, 1, -1)]


def test_only_gating_metrics_say_whether_a_run_drifts(store: Store) -> None:
    shown = {**LABEL, "name": "shown", "gate": False}
    for number, score in enumerate((0.0, 1.0)):
        with add_run(
            store, f"run-{number}", pairs=["small/classify-ticket@v2"], metrics=[LABEL, shown]
        ) as one:
            lines = lines_of(f"run-{number}", SAME, metrics=[LABEL, shown])
            for line in lines:
                line["scores"][1].update(score=score, passed=bool(score))
                one.append(line)
            one.seal("complete", counts={})
    write_run(store, "run-z-cand", SAME, branch="change", metrics=[LABEL, shown])

    assert only(decide(store))["baseline"]["run_ids"] == ["run-1", "run-0"]
