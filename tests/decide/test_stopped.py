"""Runs that could stop early: what they decided is the verdict, and no other test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.stop_early import early_rule
from evalkit.config import GateSettings, load_settings
from evalkit.decide.gate import exit_code, run_gate
from evalkit.decide.render import comparison_sentence
from evalkit.decide.stats import compare
from evalkit.session import run_golden_sets
from evalkit.store.views import Store, open_store
from evalkit.wiring import RunRequest
from tests.decide.results import LABEL, add_run, cases, lines_of, write_run
from tests.project import write_project

GATE = GateSettings()
OLD, NEW = "small/classify-ticket@v2", "small/classify-ticket@v3"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def told(**changes: Any) -> dict[str, Any]:
    return {
        "golden_set": "tickets", "metric": "label", "baseline": OLD, "candidate": NEW,
        "tolerance": 0.0, "max_drop": 0.05, "decision": "regression", "n": 40, "n_drawn": 40,
        "missing": 0, "delta": -0.5, "ci": [-0.8, -0.2], "p_value": 0.0004, "p_max_drop": 1.0,
        **changes,
    }  # fmt: skip


def write(store: Store, *comparisons: dict[str, Any], stopped: bool = True, **options: Any) -> None:
    early = {
        "stopped": stopped, "calls_saved": 120, "alpha": 0.05,
        "family_size": max(len(comparisons), 1), "comparisons": list(comparisons),
    }  # fmt: skip
    with add_run(store, "run-early", pairs=[OLD, NEW], stop_early=early, **options) as writer:
        for version, scores in (("v2", [1.0] * 40), ("v3", [0.0, 1.0] * 20)):
            for line in lines_of(
                "run-early", cases(scores), version=version, slices={"channel": "mail"},
                metrics=options.get("metrics", [LABEL]),
            ):  # fmt: skip
                writer.append(line)
        writer.seal("complete", counts={})


def decide(store: Store, **options: Any) -> dict[str, Any]:
    return run_gate(store, candidate="run-early", settings=options.pop("settings", GATE), **options)


def only(verdict: dict[str, Any]) -> dict[str, Any]:
    [comparison] = [c for c in verdict["comparisons"] if c["gate"]]
    return comparison


def test_a_real_run_that_stopped_early_is_gated_by_what_it_decided(tmp_path: Path) -> None:
    write_project(tmp_path, target="tests.apps:by_prompt", cases=200)
    settings = load_settings(tmp_path / "evalkit.toml")
    finished = run_golden_sets(
        settings,
        RunRequest(prompts=("classify@v1", "classify@v2"), stop_early=True),
        stop_rule=early_rule(settings.gate),
    )
    assert finished.stop_early is not None
    (decided,) = finished.stop_early["comparisons"]

    verdict = run_gate(open_store(settings.store_path), settings=settings.gate)

    comparison = only(verdict)
    assert comparison["method"] == "e-process"
    assert comparison["p_value"] == decided["p_value"]
    assert (comparison["n"], comparison["delta"]) == (decided["n"], decided["delta"])
    assert comparison["verdict"] == verdict["verdict"] == decided["decision"] == "regression"
    assert any("stopped early" in note for note in verdict["notes"])


def test_the_runs_own_baseline_pair_is_what_it_is_compared_with(store: Store) -> None:
    write_run(store, "run-a", cases([1.0] * 40), version="v3")
    write(store, told())

    verdict = decide(store)

    baseline = only(verdict)["baseline"]
    assert (baseline["run_id"], baseline["prompt_version"]) == ("run-early", "v2")
    [note] = verdict["notes"]
    assert note.startswith("run run-early stopped early: its comparisons were decided while it ran")
    assert note.endswith("by e-processes; 120 calls were saved")


def test_its_p_value_is_corrected_for_the_comparisons_it_decided(store: Store) -> None:
    write(store, told(p_value=0.03), told(metric="other"))

    label = next(c for c in decide(store)["comparisons"] if c["metric"] == "label" and c["gate"])

    assert label["family_size"] == 2
    assert label["p_adjusted"] == pytest.approx(0.06)
    assert label["verdict"] == "inconclusive"


def test_a_pass_that_was_decided_early_is_a_pass(store: Store) -> None:
    write(store, told(decision="pass", delta=0.0, ci=[-0.2, 0.2], p_value=1.0, p_max_drop=0.01))

    assert decide(store)["verdict"] == "pass"


def test_what_ran_to_its_end_undecided_is_inconclusive_whatever_a_test_would_say(
    store: Store,
) -> None:
    write(store, told(decision=None, p_value=0.2), stopped=False)

    verdict = decide(store)

    assert verdict["verdict"] == "inconclusive"
    assert "run run-early could stop early" in verdict["notes"][0]
    assert "not decided when the run ended" in comparison_sentence(only(verdict))


@pytest.mark.parametrize("asked", [{"max_drop": 0.3}, {"tolerance": 0.2}])
def test_other_drops_than_it_bet_on_are_not_answered(store: Store, asked: dict[str, float]) -> None:
    write(store, told())

    verdict = decide(store, **asked)

    assert exit_code(verdict) == 3
    assert "at tolerance 0, max_drop 0.05 and alpha 0.05" in only(verdict)["reason"]


def test_scores_made_again_after_an_early_stop_have_no_test(store: Store) -> None:
    write(store)

    verdict = decide(store, compare=[f"{NEW}:{OLD}"])

    assert exit_code(verdict) == 3
    assert "stopped early on other scores" in only(verdict)["reason"]


def test_slices_of_a_run_that_could_stop_early_are_only_looked_at(store: Store) -> None:
    write(store, told(), gating_slices=["channel"])

    verdict = decide(store)

    assert [(c["slice"], c["gate"]) for c in verdict["comparisons"]] == [
        (None, True),
        ("channel=mail", False),
    ]


def test_against_another_run_it_is_tested_and_that_is_called_rough(store: Store) -> None:
    write_run(store, "run-a", cases([1.0] * 40), version="v2", metrics=[LABEL])
    write(store, told())

    verdict = decide(store, baseline="run-a", compare=[f"{NEW}:{OLD}"])

    assert only(verdict)["method"] == "mcnemar-midp"
    assert any("the test is only rough" in note for note in verdict["notes"])


def test_a_run_that_stopped_early_is_no_part_of_a_pool(store: Store) -> None:
    write(store, told())
    write_run(store, "run-f", cases([1.0] * 40))
    write_run(store, "run-g", cases([1.0] * 40))
    write_run(store, "run-z", cases([1.0] * 40), branch="change")

    verdict = run_gate(store, candidate="run-z", settings=GATE)

    assert only(verdict)["baseline"]["run_ids"] == ["run-g", "run-f"]


def test_a_baseline_that_stopped_early_is_rough_too(store: Store) -> None:
    write(store, told())
    write_run(store, "run-z", cases([1.0] * 40), version="v3")

    verdict = run_gate(store, candidate="run-z", baseline="run-early", settings=GATE)

    assert only(verdict)["method"] == "mcnemar-midp"
    assert verdict["notes"] == [
        (
            "run run-early stopped early because of what it showed: "
            "against another run the test is only rough"
        )
    ]


def test_what_no_run_stopped_for_is_no_note(store: Store) -> None:
    write_run(store, "run-y", cases([1.0] * 40))
    write_run(store, "run-z", cases([1.0] * 40))

    assert run_gate(store, candidate="run-z", baseline="run-y", settings=GATE)["notes"] == []


SHOWN = {**LABEL, "name": "shown", "gate": False}


@pytest.mark.parametrize(
    ("comparisons", "method"), [([told(metric="shown")], "e-process"), ([], "mcnemar-midp")]
)
def test_a_metric_that_is_only_shown_is_tested_where_nothing_was_decided_of_it(
    store: Store, comparisons: list[dict[str, Any]], method: str
) -> None:
    write(store, *comparisons, metrics=[SHOWN])

    verdict = decide(store, compare=[f"{NEW}:{OLD}"])

    assert [c["method"] for c in verdict["comparisons"] if c["slice"] is None] == [method]


def test_a_run_that_went_on_to_its_end_is_tested_where_it_decided_nothing(store: Store) -> None:
    write(store, stopped=False)

    verdict = decide(store, compare=[f"{NEW}:{OLD}"])

    assert only(verdict)["method"] == "mcnemar-midp"
    assert verdict["verdict"] == "regression"


def test_what_was_decided_early_leaves_the_other_comparisons_their_alpha(store: Store) -> None:
    other = {**LABEL, "name": "other"}
    write(store, told(), told(metric="other"), stopped=False, metrics=[LABEL, other])

    verdict = decide(store)

    mde = compare([-1.0, 0.0] * 20, power_alpha=0.05).mde
    sliced = [c["mde"] for c in verdict["comparisons"] if c["slice"] is not None]
    assert sliced == [mde] * 2
