"""The verdict: which it is, what it rests on, and what can never make it a pass."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.config import GateSettings
from evalkit.decide.gate import exit_code, run_gate
from evalkit.errors import ConfigError
from evalkit.store.views import Store, open_store
from tests.decide.results import (
    LABEL,
    add_run,
    cases,
    changed,
    file_rows,
    gate_scores,
    lines_of,
    write_csv,
    write_run,
)

GATE = GateSettings()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def only(verdict: dict[str, Any]) -> dict[str, Any]:
    [comparison] = [c for c in verdict["comparisons"] if c["gate"]]
    return comparison


# --- known answers --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lost", "won", "p_exact", "mid_p"), [(10, 2, 0.019287, 0.011230), (5, 0, 0.03125, 0.015625)]
)
def test_pass_fail_cases_are_tested_by_mcnemar(
    tmp_path: Path, lost: int, won: int, p_exact: float, mid_p: float
) -> None:
    verdict = gate_scores(tmp_path, *changed(lost, won, 88))

    comparison = only(verdict)
    assert comparison["method"] == "mcnemar-midp"
    assert comparison["p_value"] == pytest.approx(mid_p, abs=1e-6)
    assert comparison["p_exact"] == pytest.approx(p_exact, abs=1e-6)
    assert verdict["verdict"] == comparison["verdict"] == "regression"


def test_swapping_the_sides_mirrors_the_result(tmp_path: Path) -> None:
    baseline, candidate = changed(9, 4, 60)

    there = only(gate_scores(tmp_path, baseline, candidate))
    back = only(gate_scores(tmp_path, candidate, baseline))

    assert back["delta"] == -there["delta"]
    assert back["ci"] == pytest.approx([-there["ci"][1], -there["ci"][0]])
    assert back["p_improvement"] == there["p_value"]
    assert back["improved_cases"] == there["regressed_cases"]


def test_no_change_on_many_cases_passes_and_on_few_is_inconclusive(tmp_path: Path) -> None:
    many = gate_scores(tmp_path, [1] * 100, [1] * 100)
    few = gate_scores(tmp_path, [1] * 20, [1] * 20)

    assert many["verdict"] == "pass"
    assert few["verdict"] == "inconclusive"
    assert only(few)["cases_needed"] == 59


def test_trials_are_averaged_within_the_case(tmp_path: Path) -> None:
    header = "case_id,trial,score"
    one = write_csv(tmp_path / "a.csv", [("x", 0, 1), ("x", 1, 0), ("y", 0, 1)], header)
    two = write_csv(tmp_path / "b.csv", [("x", 0, 0), ("x", 1, 0), ("y", 0, 1)], header)

    verdict = run_gate(None, candidate=file_rows(two), baseline=file_rows(one), settings=GATE)

    comparison = only(verdict)
    assert comparison["n"] == 2
    assert comparison["delta"] == pytest.approx(-0.25)
    assert comparison["trials"] == 2


def test_cases_of_a_cluster_are_not_counted_as_independent(tmp_path: Path) -> None:
    def side(name: str, scores: list[float]) -> Any:
        rows = [(f"c{n}", score, f"doc-{n // 10}") for n, score in enumerate(scores)]
        return file_rows(write_csv(tmp_path / name, rows, "case_id,score,cluster"))

    baseline = side("a.csv", [1] * 60)
    candidate = side("b.csv", [0] * 10 + [1] * 50)

    comparison = only(run_gate(None, candidate=candidate, baseline=baseline, settings=GATE))

    assert comparison["n_clusters"] == 6
    assert comparison["method"] == "cluster-sign-flip-exact"
    assert comparison["verdict"] != "regression"


# --- many comparisons -------------------------------------------------------------------


def test_gating_metrics_are_corrected_together(tmp_path: Path) -> None:
    baseline, candidate = changed(6, 1, 93)
    rows = [(f"c{n}", m, s) for m in "abcd" for n, s in enumerate(baseline)]
    one = write_csv(tmp_path / "a.csv", rows, "case_id,metric,score")
    fell = [
        (f"c{n}", m, (candidate if m == "a" else baseline)[n]) for m in "abcd" for n in range(100)
    ]
    two = write_csv(tmp_path / "b.csv", fell, "case_id,metric,score")

    verdict = run_gate(None, candidate=file_rows(two), baseline=file_rows(one), settings=GATE)

    metric_a = verdict["comparisons"][0]
    assert metric_a["p_value"] < 0.05
    assert metric_a["p_adjusted"] == pytest.approx(4 * metric_a["p_value"])
    assert metric_a["verdict"] != "regression"


def test_a_slice_that_falls_is_shown_and_does_not_fail_the_build(
    store: Store, tmp_path: Path
) -> None:
    for run_id, mail in (("run-base", 1.0), ("run-cand", 0.0)):
        with add_run(store, run_id, pairs=["small/classify-ticket@v2"]) as writer:
            for line in lines_of(run_id, cases([mail] * 12), slices={"channel": "mail"}):
                writer.append(line)
            better = cases([1.0 - mail] * 40 + [1.0] * 60, 100)
            for line in lines_of(run_id, better, slices={"channel": "chat"}):
                writer.append(line)
            writer.seal("complete", counts={})

    verdict = run_gate(store, candidate="run-cand", baseline="run-base", settings=GATE)

    looked_at = [c["slice"] for c in verdict["comparisons"] if c["look_here"]]
    assert looked_at == ["channel=mail"]
    assert verdict["verdict"] == "pass"


# --- silence is no pass -----------------------------------------------------------------


@pytest.mark.parametrize("gone", ["", None])
def test_a_candidate_without_scores_on_hard_cases_never_passes(tmp_path: Path, gone: Any) -> None:
    baseline = [1] * 100
    candidate = [1] * 70 + [gone] * 30

    verdict = gate_scores(tmp_path, baseline, candidate)

    assert verdict["verdict"] == "unmeasurable"
    assert only(verdict)["missing"]["candidate"] == 30


def test_few_missing_cases_that_could_hide_a_drop_are_unmeasurable(tmp_path: Path) -> None:
    verdict = gate_scores(tmp_path, [1] * 200, [1] * 191 + [""] * 9)

    comparison = only(verdict)
    assert comparison["missing"]["coverage"] == 0.955
    assert comparison["missing"]["worst_case_verdict"] == "regression"
    assert comparison["verdict"] == "unmeasurable"
    assert "could hide" in comparison["reason"]


def test_one_missing_case_of_many_does_not_stop_a_pass(tmp_path: Path) -> None:
    verdict = gate_scores(tmp_path, [1] * 200, [1] * 199 + [""])

    assert verdict["verdict"] == "pass"


def test_a_candidate_that_refuses_everything_does_not_pass(tmp_path: Path) -> None:
    header = "case_id,score,outcome"
    base = write_csv(tmp_path / "a.csv", [(f"c{n}", 1, "scored") for n in range(60)], header)
    refused = write_csv(
        tmp_path / "b.csv", [(f"c{n}", "", "product_failure") for n in range(60)], header
    )
    silent = write_csv(
        tmp_path / "c.csv", [(f"c{n}", "", "infra_error") for n in range(60)], header
    )

    words = [
        run_gate(None, candidate=file_rows(f), baseline=file_rows(base), settings=GATE)["verdict"]
        for f in (refused, silent)
    ]

    assert words == ["regression", "unmeasurable"]


scores = st.lists(st.sampled_from([0, 0.25, 0.5, 1]), min_size=25, max_size=60)


@settings(max_examples=12, deadline=None)
@given(data=st.data(), baseline=scores)
def test_leaving_out_candidate_cases_never_turns_a_verdict_into_a_pass(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, baseline: list[float]
) -> None:
    n = len(baseline)
    candidate = data.draw(st.lists(st.sampled_from([0, 0.5, 1]), min_size=n, max_size=n))
    hidden = data.draw(st.sets(st.integers(0, n - 1), min_size=1, max_size=n))
    folder = tmp_path_factory.mktemp("gate")
    loose = GateSettings(max_drop=0.3)

    full = gate_scores(folder, baseline, candidate, settings=loose)
    less = [("" if i in hidden else s) for i, s in enumerate(candidate)]
    partial = gate_scores(folder, baseline, less, settings=loose)

    if full["verdict"] == "regression":
        assert partial["verdict"] != "pass"
    if len(hidden) > 0.05 * n:
        assert partial["verdict"] == "unmeasurable"


# --- comparable -------------------------------------------------------------------------


def test_scores_of_another_scorer_version_are_not_compared(store: Store) -> None:
    write_run(store, "run-base", cases([1.0] * 80), scorer_version="judge-1")
    write_run(store, "run-cand", cases([1.0] * 80), scorer_version="judge-2")

    verdict = run_gate(store, candidate="run-cand", settings=GATE)

    assert verdict["verdict"] == "unmeasurable"
    assert "evalkit rescore run-base" in only(verdict)["reason"]


def test_cases_served_by_another_model_leave_the_test_and_are_counted(store: Store) -> None:
    write_run(store, "run-base", cases([1.0] * 80))
    with add_run(store, "run-cand", pairs=["small/classify-ticket@v2"]) as writer:
        for line in lines_of("run-cand", cases([1.0] * 60)):
            writer.append(line)
        for line in lines_of("run-cand", cases([1.0] * 20, 60), served_model="large"):
            writer.append(line)
        writer.seal("complete", counts={})

    comparison = only(run_gate(store, candidate="run-cand", settings=GATE))

    assert comparison["n"] == 60
    assert comparison["missing"]["excluded"] == 20
    assert comparison["verdict"] == "unmeasurable"


def test_new_and_removed_cases_are_listed(store: Store) -> None:
    write_run(store, "run-base", cases([1.0] * 20))
    write_run(store, "run-cand", cases([1.0] * 20, 2))

    verdict = run_gate(store, candidate="run-cand", settings=GATE)

    apart = only(verdict)["missing"]["apart"]
    assert {why: len(ids) for why, ids in apart.items()} == {"new": 2, "removed": 2}
    assert not set(apart["new"]) & set(apart["removed"])


def test_cases_edited_in_between_are_no_evidence_and_no_fault(store: Store) -> None:
    write_run(store, "run-base", cases([1.0] * 100))
    with add_run(store, "run-cand", pairs=["small/classify-ticket@v2"]) as writer:
        for line in lines_of("run-cand", cases([1.0] * 80)):
            writer.append(line)
        for line in lines_of("run-cand", cases([0.0] * 20, 80), case_hash="edited"):
            writer.append(line)
        writer.seal("complete", counts={})

    verdict = run_gate(store, candidate="run-cand", settings=GATE)

    assert only(verdict)["n"] == 80
    assert only(verdict)["missing"]["unpaired"] == 20
    edited = only(verdict)["missing"]["apart"]
    assert {why: len(ids) for why, ids in edited.items()} == {"edited": 20}
    assert verdict["verdict"] == "pass"


def test_an_edited_golden_set_without_a_common_case_is_unmeasurable(store: Store) -> None:
    write_run(store, "run-base", cases([1.0] * 50))
    write_run(store, "run-cand", cases([1.0] * 50), case_hash="edited")

    verdict = run_gate(store, candidate="run-cand", settings=GATE)

    assert verdict["verdict"] == "unmeasurable"
    assert "no case" in only(verdict)["reason"]


# --- must pass --------------------------------------------------------------------------


def test_a_failed_must_pass_case_fails_whatever_the_mean(store: Store) -> None:
    write_run(store, "run-base", cases([0.0, *[1.0] * 80]))
    write_run(store, "run-cand", cases([0.0, *[1.0] * 80]), must_pass_cases=["t-000"])

    verdict = run_gate(store, candidate="run-cand", settings=GATE)

    assert only(verdict)["verdict"] == "pass"
    assert [f["case_id"] for f in verdict["must_pass_failures"]] == ["t-000"]
    assert verdict["verdict"] == "regression"
    assert exit_code(verdict) == 1


def test_a_must_pass_metric_counts_without_a_baseline(store: Store) -> None:
    shape = {**LABEL, "name": "shape", "gate": False, "must_pass": True}
    write_run(store, "run-cand", cases([1.0, 0.0]), metrics=[shape])

    verdict = run_gate(store, candidate="run-cand", settings=GATE, allow_no_baseline=True)

    assert [f["case_id"] for f in verdict["must_pass_failures"]] == ["t-001"]
    assert verdict["verdict"] == "regression"


def test_a_must_pass_case_without_a_score_is_unmeasurable(store: Store) -> None:
    write_run(store, "run-base", cases([1.0] * 80))
    write_run(store, "run-cand", cases([None, *[1.0] * 79]), must_pass_cases=["t-000"])

    verdict = run_gate(store, candidate="run-cand", settings=GATE)

    assert verdict["must_pass_failures"] == []
    assert verdict["verdict"] == "unmeasurable"


def test_an_advisory_metric_that_falls_is_shown_and_passes(store: Store) -> None:
    judged = {**LABEL, "name": "judged", "gate": False}
    for run_id, fallen in (("run-base", 1.0), ("run-cand", 0.0)):
        with add_run(
            store, run_id, pairs=["small/classify-ticket@v2"], metrics=[LABEL, judged]
        ) as writer:
            for line in lines_of(run_id, cases([1.0] * 80)):
                writer.append(line)
            for line in lines_of(run_id, cases([fallen] * 80), metrics=[judged], trial=0):
                line["key"][4] = 1
                writer.append(line)
            writer.seal("complete", counts={})

    verdict = run_gate(store, candidate="run-cand", settings=GATE)

    assert verdict["verdict"] == "pass"
    assert ("judged", None) in [
        (c["metric"], c["slice"]) for c in verdict["comparisons"] if c["look_here"]
    ]


# --- which runs meet --------------------------------------------------------------------


def test_the_baseline_is_the_newest_run_of_the_default_branch_before_the_candidate(
    store: Store,
) -> None:
    write_run(store, "run-1", cases([1.0] * 80))
    write_run(store, "run-2", cases([1.0] * 80))
    write_run(store, "run-3", cases([1.0] * 80), branch="topic")
    write_run(store, "run-4", cases([1.0] * 80), branch="topic")
    write_run(store, "run-5", cases([1.0] * 80))

    of_topic = run_gate(store, candidate="run-4", settings=GATE)
    of_newest = run_gate(store, settings=GATE)
    of_branch = run_gate(store, candidate="run-4", baseline="branch:topic", settings=GATE)

    assert only(of_topic)["baseline"]["run_id"] == "run-2"
    assert only(of_newest)["candidate"]["run_id"] == "run-5"
    assert only(of_newest)["baseline"]["run_id"] == "run-2"
    assert only(of_branch)["baseline"]["run_id"] == "run-3"


def test_a_baseline_that_was_set_is_taken(store: Store) -> None:
    for number in (1, 2, 3):
        write_run(store, f"run-{number}", cases([1.0] * 80))
    store.baselines.set("tickets", "classify-ticket", "run-1")

    verdict = run_gate(store, settings=GATE)

    assert only(verdict)["baseline"]["run_id"] == "run-1"


def test_without_a_baseline_nothing_is_measured_unless_that_is_allowed(store: Store) -> None:
    write_run(store, "run-1", cases([1.0] * 80))

    refused = run_gate(store, settings=GATE)
    strict = replace(GATE, strict=True)
    allowed = run_gate(store, settings=strict, allow_no_baseline=True)

    assert exit_code(refused) == 3
    assert "no baseline" in only(refused)["reason"]
    assert exit_code(allowed) == 0
    assert "no baseline" in allowed["notes"][0]


def test_an_unfinished_run_is_unmeasurable_and_says_how_to_finish_it(store: Store) -> None:
    write_run(store, "run-1", cases([1.0] * 80))
    write_run(store, "run-2", cases([1.0] * 40), status="incomplete")

    verdict = run_gate(store, candidate="run-2", settings=GATE)

    assert verdict["verdict"] == "unmeasurable"
    assert "evalkit run --resume run-2" in verdict["notes"][0]


def test_a_damaged_file_is_unmeasurable_never_a_pass(store: Store) -> None:
    write_run(store, "run-1", cases([1.0] * 80))
    write_run(store, "run-2", cases([1.0] * 80))
    [path] = store.score_files("run-1")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)

    verdict = run_gate(store, candidate="run-2", baseline="run-1", settings=GATE)

    assert verdict["verdict"] == "unmeasurable"
    assert path.name in verdict["notes"][0]


def two_pairs(store: Store, run_id: str) -> None:
    pairs = [f"small/classify-ticket@{version}" for version in ("v1", "v2")]
    with add_run(store, run_id, pairs=pairs) as writer:
        for version, first in (("v1", 1.0), ("v2", 0.0)):
            for line in lines_of(run_id, cases([first] * 12 + [1.0] * 80), version=version):
                writer.append(line)
        writer.seal("complete", counts={})


def test_a_pair_meets_the_same_version_where_the_baseline_has_it(store: Store) -> None:
    two_pairs(store, "run-1")
    two_pairs(store, "run-2")

    verdict = run_gate(store, settings=GATE)

    versions = [
        (c["baseline"]["prompt_version"], c["candidate"]["prompt_version"])
        for c in verdict["comparisons"]
        if c["gate"]
    ]
    assert versions == [("v1", "v1"), ("v2", "v2")]
    assert verdict["verdict"] == "pass"


def test_another_version_meets_the_only_one_of_its_model_and_prompt(store: Store) -> None:
    write_run(store, "run-1", cases([1.0] * 80), version="v2")
    write_run(store, "run-2", cases([1.0] * 80), version="v3")

    comparison = only(run_gate(store, settings=GATE))

    assert comparison["baseline"]["prompt_version"] == "v2"
    assert comparison["same_pair"] is False


def test_a_pair_with_several_possible_counterparts_has_to_be_named(store: Store) -> None:
    two_pairs(store, "run-1")
    write_run(store, "run-2", cases([1.0] * 92), version="v3")
    named = "small/classify-ticket@v3:run-1:small/classify-ticket@v1"

    unnamed = run_gate(store, settings=GATE)
    verdict = run_gate(store, settings=GATE, compare=[named])

    assert unnamed["verdict"] == "unmeasurable"
    assert "--compare small/classify-ticket@v3:PAIR" in only(unnamed)["reason"]
    assert only(verdict)["baseline"]["prompt_version"] == "v1"
    assert verdict["verdict"] == "pass"


def test_two_pairs_of_one_run_are_compared_by_name(store: Store) -> None:
    two_pairs(store, "run-1")

    verdict = run_gate(
        store, settings=GATE, compare=["small/classify-ticket@v2:small/classify-ticket@v1"]
    )

    comparison = only(verdict)
    assert comparison["baseline"]["run_id"] == comparison["candidate"]["run_id"] == "run-1"
    assert comparison["verdict"] == "regression"
    assert comparison["regressed_cases"][0] == "t-000"


def test_a_name_that_is_nothing_is_a_usage_error(store: Store) -> None:
    write_run(store, "run-1", cases([1.0] * 5))

    with pytest.raises(ConfigError, match="neither a run"):
        run_gate(store, candidate="run-9", settings=GATE)
    with pytest.raises(ConfigError, match="not CANDIDATE:BASELINE"):
        run_gate(store, compare=["nonsense"], settings=GATE)


def test_a_file_is_compared_with_a_run(store: Store, tmp_path: Path) -> None:
    write_run(store, "run-1", cases([1.0] * 80))
    rows = [(f"t-{n:03d}", 0 if n < 20 else 1) for n in range(80)]
    candidate = file_rows(write_csv(tmp_path / "b.csv", rows))

    verdict = run_gate(store, candidate=candidate, baseline="run-1", settings=GATE)

    assert verdict["verdict"] == "regression"
    assert only(verdict)["golden_set"] == "tickets"


def test_the_verdict_is_kept_and_found_again_in_sql(store: Store) -> None:
    write_run(store, "run-1", cases([1.0] * 80))
    write_run(store, "run-2", cases([0.0] * 80))

    verdict = run_gate(store, settings=GATE)

    rows = store.sql("SELECT verdict_id, verdict, delta FROM verdicts WHERE slice IS NULL")
    assert rows == [{"verdict_id": verdict["verdict_id"], "verdict": "regression", "delta": -1.0}]


def test_latency_and_cost_of_both_sides_are_given(store: Store) -> None:
    write_run(store, "run-1", cases([1.0] * 80), latency_ms=100.0, cost_usd=0.001)
    write_run(store, "run-2", cases([1.0] * 80), latency_ms=300.0, cost_usd=None)

    budget = run_gate(store, settings=GATE)["budget"]

    [latency], [cost] = budget["latency_ms"], budget["cost_usd"]
    assert (latency["baseline"]["mean"], latency["candidate"]["p95"]) == (100.0, 300.0)
    assert (cost["candidate"]["mean"], cost["candidate"]["unknown"]) == (None, 80)


def test_what_a_run_noted_stands_in_the_verdict_once(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    note = "duplicate_output: small/classify-ticket@v2 gave the same answer to 60 of 80 cases"
    for run_id in ("run-1", "run-2"):
        with add_run(
            store, run_id, pairs=["small/classify-ticket@v2"], notes=[note, f"only {run_id}"]
        ) as writer:
            for line in lines_of(run_id, cases([1.0] * 80)):
                writer.append(line)
            writer.seal("complete", counts={"scored": 80})

    verdict = run_gate(store, candidate="run-2", baseline="run-1", settings=GATE, project=tmp_path)

    assert verdict["notes"] == [note, "only run-2", "only run-1"]
