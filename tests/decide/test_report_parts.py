"""Fairness, trials, cost, judges, history and commands in the HTML report."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.decide.report import render_report
from evalkit.decide.report_commands import how_to_gate, how_to_run
from evalkit.decide.report_history import mean_interval
from evalkit.decide.report_pictures import trend
from evalkit.decide.report_table import MAX_CASES, MAX_CHARS, TEXT_BUDGET, as_inert_json, chars_each
from evalkit.store.files import write_json
from evalkit.store.judges import save_figure
from evalkit.store.views import Store
from tests.decide.report_world import (
    BASELINE,
    CANDIDATE,
    Page,
    comparison,
    line,
    little_store,
    passed,
    seal,
    side,
    verdict,
)


def page(of: dict[str, Any] | None, store: Store | None = None, **options: Any) -> Page:
    return Page(render_report(of, store, **options))


def started(store: Store, run_id: str, at: str) -> None:
    """Change when a run was started, which a run says of itself."""
    path = store.path / "runs" / run_id / "manifest.json"
    write_json(path, {**store.manifest(run_id), "created_at": at}, replace=True)


def two_runs(folder: Path, *, old: dict[str, Any], new: dict[str, Any]) -> Store:
    """Baseline and candidate of one case each, with these facts of their manifests."""
    seal(folder, BASELINE, [line(BASELINE, "t-001")], **old)
    return seal(folder, CANDIDATE, [line(CANDIDATE, "t-001")], **new)


# --- was the comparison fair? -------------------------------------------------------------


def test_a_fair_comparison_is_said_to_be_one(tmp_path: Path) -> None:
    text = page(verdict(comparison()), little_store(tmp_path)).text

    assert "The same cases? Yes: 100 cases, each compared with itself." in text
    assert "The same scorers? Yes: 1 metric, each scored by one version on both sides." in text
    assert "As many trials? Yes: 1 trial of every case." in text
    assert "The same program and seed? Yes" in text
    assert "About the same time? Yes: within the hour." in text
    assert "From a commit? Yes" in text


def test_cases_that_did_not_meet_are_counted(tmp_path: Path) -> None:
    missing = {"baseline": 3, "candidate": 9, "excluded": 2, "unpaired": 4, "coverage": 0.85,
               "fisher_p": 0.01, "worst_case_verdict": "regression"}  # fmt: skip

    text = page(verdict(comparison(missing=missing))).text

    assert "Not all. tickets: 4 cases on one side only, or edited since, left out." in text
    assert "Not always. tickets: 2 cases answered by another model, not counted." in text
    assert (
        "label on tickets: 3 cases in the baseline and 9 in the candidate, 85.0 % are left, "
        "more on one side than chance explains (p 0.0100)" in text
    )


def test_another_version_of_a_scorer_is_named(tmp_path: Path) -> None:
    for run_id, version in ((BASELINE, "judge:1"), (CANDIDATE, "judge:2")):
        store = seal(tmp_path, run_id, [line(run_id, "t-001", scorer_version=version)])

    text = page(verdict(comparison()), store).text

    assert (
        "No, and such scores are never compared. label on tickets: judge:2 against judge:1" in text
    )


def test_differences_between_the_runs_are_named(tmp_path: Path) -> None:
    golden = {"hash": "aaaa", "feature": "classify-ticket"}
    store = two_runs(
        tmp_path,
        old={
            "versions": {"evalkit": "0.1.0", "python": "3.11.0"},
            "golden_sets": {"tickets": {**golden, "trials": 3}},
            "git": {"commit": "abc", "branch": "main", "dirty": True},
        },
        new={
            "versions": {"evalkit": "0.2.0", "python": "3.11.0"},
            "seed": 8,
            "golden_sets": {"tickets": {**golden, "trials": 1}},
        },
    )
    started(store, BASELINE, "2026-01-01T00:00:00+00:00")
    started(store, CANDIDATE, "2026-03-02T00:00:00+00:00")

    text = page(verdict(comparison()), store).text

    assert "Not quite: evalkit 0.1.0, now 0.2.0; seed 7, now 8." in text
    assert "No: 60 days apart. A provider may have changed the model since." in text
    assert "No: 3 of every case in the baseline, 1 in the candidate." in text
    assert "No: 1 run had local changes that no commit holds." in text


def test_a_pooled_baseline_is_said_to_be_one() -> None:
    pooled = side(BASELINE, "v2", run_ids=[BASELINE, "run-older"])

    text = page(verdict(comparison(baseline=pooled))).text

    assert "One run as baseline? No: 2 runs of it are pooled" in text


# --- cases ----------------------------------------------------------------------------


def test_the_most_improved_cases_stand_beside_the_worst(tmp_path: Path) -> None:
    for run_id, scores in ((BASELINE, (1.0, 0.0)), (CANDIDATE, (0.0, 1.0))):
        store = seal(
            tmp_path,
            run_id,
            [
                line(run_id, name, score=score, of_call={"output": f"{run_id} {name}"})
                for name, score in zip(("lost", "won"), scores, strict=True)
            ],
        )

    text = page(verdict(comparison()), store).text

    worst, best = text.index("Worst regressed"), text.index("Most improved")
    assert worst < text.index("label 1.000 → 0.000") < best < text.index("label 0.000 → 1.000")
    assert "1 case scored higher than before on some metric." in text
    assert "run-new won" in text[best:]
    assert "run-old won" in text[best:]


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_no_text_can_leave_the_element_that_holds_the_data(data: Any) -> None:
    text = as_inert_json(data)

    assert not set("<>&") & set(text)
    assert json.loads(text) == data


def test_the_more_cases_the_less_of_each_text() -> None:
    lengths = [chars_each(n) for n in (1, 1_000, 10_000, MAX_CASES, 10 * MAX_CASES)]

    assert lengths[0] == MAX_CHARS
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] >= 100
    assert 5 * 10_000 * chars_each(10_000) <= TEXT_BUDGET


# --- trials, cost, judges ---------------------------------------------------------------


def test_flaky_cases_are_named_with_the_share_of_noise() -> None:
    noise = {"between": 0.1, "within": 0.05, "share_within": 0.2, "n_flaky": 14,
             "flaky_cases": [f"t-{n:03d}" for n in range(14)],
             "pass_hat_k": {"k": 3, "baseline": 0.75, "candidate": 0.5}}  # fmt: skip

    text = page(verdict(comparison(noise=noise, trials=3))).text

    assert "label 3 14 of 100 20.0 % 75.0 % 50.0 % t-000" in text
    assert "t-011 and 2 more" in text


def test_one_trial_says_nothing_of_flakiness_and_the_report_says_so() -> None:
    assert "Every case was tried once" in page(verdict(comparison())).text


def test_latency_stands_beside_its_budget_and_spending_beside_its_limit(tmp_path: Path) -> None:
    slow = line(CANDIDATE, "t-001", latency_ms=950.0, of_call={"cost_usd": 0.5})
    seal(tmp_path, BASELINE, [line(BASELINE, "t-001", latency_ms=100.0)])
    store = seal(tmp_path, CANDIDATE, [slow], request={"max_cost_usd": 2.0})

    text = page(verdict(comparison()), store, budgets={"classify-ticket": 900.0}).text

    assert "900 ms 1 over" in text
    assert "95th percentile of latency went from 100 ms to 950 ms (+850 %)" in text
    assert "Run run-new spent $0.50 of $2.00 allowed, judges included." in text


@pytest.mark.parametrize("measured", [True, False])
def test_a_judge_stands_beside_its_agreement_with_people(tmp_path: Path, measured: bool) -> None:
    judged = {"tier": 2, "scorer": "tone", "scorer_version": "small:abc"}
    seal(tmp_path, BASELINE, [line(BASELINE, "t-001", **judged)])
    store = seal(tmp_path, CANDIDATE, [line(CANDIDATE, "t-001", **judged)])
    if measured:
        figure = {"overall": {"n": 60, "kappa": {"value": 0.71, "ci": [0.6, 0.8]},
                              "bias": {"mean": 0.05}}}  # fmt: skip
        save_figure(store, "tone", "small:abc", figure)

    text = page(verdict(comparison(tier=2)), store).text

    told = "0.71 good , 0.60 to 0.80 60 +5.0 1 0"
    assert (told in text) == measured
    assert ("not measured : evalkit judge calibrate" in text) != measured


# --- history ----------------------------------------------------------------------------


def past_run(folder: Path, n: int, *, golden_set_hash: str = "aaaa", score: float = 1.0) -> None:
    run_id = f"run-{n}"
    lines = [
        line(run_id, f"t-{case}", score=score if case else 0.0, golden_set_hash=golden_set_hash)
        for case in range(4)
    ]
    started(seal(folder, run_id, lines), run_id, f"2026-01-0{n}T10:00:00+00:00")


def test_the_history_has_the_means_of_earlier_runs_oldest_first(tmp_path: Path) -> None:
    past_run(tmp_path, 1, score=0.5)
    past_run(tmp_path, 2, golden_set_hash="bbbb")

    shown = page(verdict(comparison()), little_store(tmp_path))

    assert "4 measurements, cases or scorer changed 2 times" in shown.text
    labels = [one["aria-label"] for one in shown.all("svg") if one.get("class") == "trend"]
    assert labels == ["label on tickets over 4 measurements, from 0.375 to 0.500"]
    table = shown.text[shown.text.index("4 measurements") :]
    order = ("@v3 candidate", "@v2 baseline", "2026-01-02", "2026-01-01")
    assert [table.index(text) for text in order] == sorted(table.index(text) for text in order)
    assert "4 0.375 " in table[table.index("2026-01-01") :]


def test_a_mean_over_time_knows_a_case_from_a_cluster_of_its_name(tmp_path: Path) -> None:
    shown = []
    for cluster in ("doc", "t-0"):
        lines = [
            *(line("run-1", f"t-{n}", score=float(n > 1)) for n in range(4)),
            *(line("run-1", f"u-{n}", score=1.0, cluster=cluster) for n in range(2)),
        ]
        folder = tmp_path / cluster
        started(seal(folder, "run-1", lines), "run-1", "2026-01-01T10:00:00+00:00")
        text = page(verdict(comparison()), little_store(folder)).text
        shown.append(text[text.index("3 measurements") :])

    assert "6 0.667 " in shown[0]
    assert shown[0] == shown[1]


def test_runs_of_two_models_are_two_lines(tmp_path: Path) -> None:
    for n, model in enumerate(("small", "large", "small", "large"), 1):
        lines = [
            line(f"run-{n}", f"t-{case}", model=model, served_model=model) for case in range(4)
        ]
        started(seal(tmp_path, f"run-{n}", lines), f"run-{n}", f"2026-01-0{n}T10:00:00+00:00")
    models = [line(CANDIDATE, f"t-{case}", model="large", served_model="large") for case in (0, 1)]
    seal(tmp_path, BASELINE, [line(BASELINE, f"t-{case}") for case in range(4)])
    store = seal(tmp_path, CANDIDATE, models)
    of = verdict(comparison(candidate=side(CANDIDATE, "v3", model="large")))

    shown = page(of, store)

    lines_drawn = [one for one in shown.all("line") if one.get("class") == "path"]
    assert len(lines_drawn) == 3  # small three times; large twice, then of half the cases
    assert "6 measurements, cases or scorer changed 1 time" in shown.text


def test_runs_after_the_candidate_are_no_part_of_its_history(tmp_path: Path) -> None:
    store = little_store(tmp_path)
    line_of = [line("later", "t-001")]
    started(seal(tmp_path, "later", line_of), "later", "2999-01-01T00:00:00+00:00")

    text = page(verdict(comparison()), store).text

    assert "No earlier run in this store has measured the same" in text


def test_an_interval_of_a_mean_covers_what_it_says() -> None:
    import numpy as np

    rng = np.random.default_rng(11)
    n, rounds, held = 60, 2_000, 0
    for scores in rng.random((rounds, n)) < 0.7:
        se = float(scores.std(ddof=1)) / n**0.5
        low, high = mean_interval(float(scores.mean()), se, n, 0.05) or (0.0, 0.0)
        held += low <= 0.7 <= high

    # 90 %, give or take four standard errors of a share of 2,000 and the t interval's own error.
    assert 0.86 <= held / rounds <= 0.93


def test_an_interval_of_equal_scores_is_exact_and_of_one_unit_unknown() -> None:
    low, high = mean_interval(1.0, 0.0, 20, 0.05) or (0.0, 0.0)

    assert (round(low**20, 9), high) == (0.05, 1.0)
    assert mean_interval(1.0, None, 1, 0.05) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.3)), min_size=1, max_size=30))
def test_points_of_a_trend_stay_inside_it_in_order(means: list[tuple[float, float]]) -> None:
    moments = [
        {"mean": mean, "ci": (max(0.0, mean - r), min(1.0, mean + r)), "kind": "earlier",
         "joined": n - 1 if n else None, "tag": "v1", "label": "run"}
        for n, (mean, r) in enumerate(means)
    ]  # fmt: skip

    drawn = trend(moments, label="label")

    for point in drawn.points:
        assert 0 <= point.high <= point.y <= point.low <= 100
    assert [p.x for p in drawn.points] == sorted(p.x for p in drawn.points)
    assert 2 <= len(drawn.ticks) <= 7
    assert len(drawn.segments) == len(means) - 1


# --- again ------------------------------------------------------------------------------

RUN = {
    "git": {"commit": "abc123"},
    "seed": 7,
    "golden_sets": {"tickets": {"path": "golden_sets/tickets/golden_set.yaml"}},
    "request": {"models": ["small"], "prompts": ["classify@v2"], "trials": 3, "batch": True},
}


def test_a_run_is_told_as_the_commands_that_make_it_again() -> None:
    assert how_to_run(RUN) == [
        "git checkout abc123",
        "evalkit run \\",
        "  golden_sets/tickets \\",
        "  --model small \\",
        "  --prompt classify@v2 \\",
        "  --trials 3 \\",
        "  --seed 7 \\",
        "  --batch",
    ]


@pytest.mark.parametrize("name", ["$(reboot)", "a; reboot", "`reboot`", "it's", "a b", "&&"])
def test_a_hostile_name_is_one_quoted_word(name: str) -> None:
    lines = how_to_run(RUN | {"request": {"models": [name]}})

    assert shlex.split("\n".join(lines).replace("\\\n", ""))[-3:] == [name, "--seed", "7"]


@pytest.mark.parametrize("name", ["--store=/", "-rf", "two\nlines", "bell\x07", "\u202eturned"])
def test_a_name_that_is_no_plain_word_leaves_no_command_at_all(name: str) -> None:
    assert how_to_run(RUN | {"request": {"models": [name]}}) == []


def test_an_imported_run_has_no_command() -> None:
    assert how_to_run({"golden_sets": {"tickets": {"path": None}}, "request": {}}) == []
    assert how_to_run({"golden_sets": {"tickets": {"path": "x"}}}) == []


def test_the_gate_is_told_as_a_command() -> None:
    of = verdict(passed())
    pooled = verdict(passed(baseline=side("a", "v2", run_ids=["a", "b"])))
    one_run = verdict(passed(baseline=side(CANDIDATE, "v2")))
    files = verdict(passed(baseline=side(BASELINE, "v2") | {"run_id": None, "file": "old.csv 2"}))

    again = "--alpha 0.05 --correction holm"
    assert how_to_gate(of) == [f"evalkit gate --candidate run-new --baseline run-old {again}"]
    assert how_to_gate(pooled) == [f"evalkit gate --candidate run-new --baseline pooled {again}"]
    assert "--compare small/classify-ticket@v3:small/classify-ticket@v2" in "".join(
        how_to_gate(one_run)
    )
    assert "--baseline 'old.csv 2'" in "".join(how_to_gate(files))
    assert how_to_gate(None) == []
