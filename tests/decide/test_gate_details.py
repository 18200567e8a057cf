"""The gate's rule at its very limits, which only a changed sign would move."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from evalkit.config import GateSettings
from evalkit.decide.gate import exit_code, run_gate
from evalkit.store.views import open_store
from tests.decide.results import cases, file_rows, gate_scores, write_csv, write_run

WORSE = ([1] * 60, [0] * 9 + [1] * 51)


def only(verdict: dict[str, Any]) -> dict[str, Any]:
    [comparison] = [one for one in verdict["comparisons"] if one["gate"]]
    return comparison


def test_that_no_baseline_is_allowed_excuses_nothing_where_there_is_one(tmp_path: Path) -> None:
    verdict = gate_scores(tmp_path, *WORSE, allow_no_baseline=True)

    assert verdict["verdict"] == "regression"
    assert only(verdict)["n"] == 60


@pytest.mark.parametrize(
    ("missing", "word", "reason"),
    [
        (0, "pass", "no baseline"),
        (1, "pass", "no baseline"),
        (2, "unmeasurable", "2 of 20 scores of the candidate are missing; "),
    ],
)
def test_a_candidate_without_a_baseline_has_to_have_been_measured(
    tmp_path: Path, missing: int, word: str, reason: str
) -> None:
    store = open_store(tmp_path / "store")
    write_run(store, "run-cand", cases([None] * missing + [1.0] * (20 - missing)))

    verdict = run_gate(store, candidate="run-cand", settings=GateSettings(), allow_no_baseline=True)

    assert verdict["verdict"] == word
    told = [str(one["reason"]) for one in verdict["comparisons"]] + verdict["notes"]
    assert any(reason in one for one in told)


def test_a_p_as_large_as_alpha_is_no_regression(tmp_path: Path) -> None:
    p = only(gate_scores(tmp_path, *WORSE))["p_adjusted"]

    at = gate_scores(tmp_path, *WORSE, settings=GateSettings(alpha=p))
    above = gate_scores(tmp_path, *WORSE, settings=GateSettings(alpha=math.nextafter(p, 1)))

    assert at["verdict"] != "regression"
    assert above["verdict"] == "regression"


def test_a_drop_that_is_just_what_is_allowed_is_not_excluded(tmp_path: Path) -> None:
    same = ([0, 1] * 50, [0, 1] * 50)
    low = only(gate_scores(tmp_path, *same))["ci"][0]

    at = gate_scores(tmp_path, *same, max_drop=-low)
    above = gate_scores(tmp_path, *same, max_drop=math.nextafter(-low, 1))

    assert at["verdict"] == "inconclusive"
    assert above["verdict"] == "pass"


def test_a_coverage_that_is_just_enough_is_enough(tmp_path: Path) -> None:
    """All that is missing was lost before: at worst nothing changes there."""
    enough = gate_scores(tmp_path, [0] * 400, [""] * 20 + [1] * 380)
    short = gate_scores(tmp_path, [0] * 400, [""] * 21 + [1] * 379)

    assert enough["verdict"] == "pass"
    assert short["verdict"] == "unmeasurable"


@pytest.mark.parametrize("correction", ["holm", "bh"])
def test_several_metrics_are_corrected_as_the_settings_say(tmp_path: Path, correction: str) -> None:
    """Raw p of 8, 6 and 5 lost cases, none won: 1/512, 1/128, 1/64 (mid-p)."""
    lost = {"a": 8, "b": 6, "c": 5}
    sides = []
    for name, changed in (("base.csv", 0), ("cand.csv", 1)):
        rows = [
            (f"c{n:03d}", 0 if changed and n < lost[metric] else 1, metric)
            for metric in lost
            for n in range(100)
        ]
        sides.append(file_rows(write_csv(tmp_path / name, rows, "case_id,score,metric")))

    verdict = run_gate(
        None, candidate=sides[1], baseline=sides[0], settings=GateSettings(correction=correction)
    )

    p = [2.0 ** -(n + 1) for n in (8, 6, 5)]
    expected = {
        "holm": [3 * p[0], 2 * p[1], max(2 * p[1], p[2])],
        "bh": [min(3 * p[0], 1.5 * p[1], p[2]), min(1.5 * p[1], p[2]), p[2]],
    }[correction]
    found = {one["metric"]: one["p_adjusted"] for one in verdict["comparisons"]}
    assert verdict["correction"] == correction
    assert [found[name] for name in "abc"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("word", "strict", "status"),
    [
        ("pass", False, 0),
        ("pass", True, 0),
        ("inconclusive", False, 0),
        ("inconclusive", True, 3),
        ("regression", False, 1),
        ("regression", True, 1),
        ("unmeasurable", False, 3),
        ("unmeasurable", True, 3),
    ],
)
def test_every_verdict_has_its_exit_status(word: str, strict: bool, status: int) -> None:
    assert exit_code({"verdict": word, "strict": strict}) == status


def test_missing_scores_that_could_hide_a_regression_leave_it_open(tmp_path: Path) -> None:
    baseline, candidate = [1] * 200, [""] * 8 + [1] * 192

    verdict = gate_scores(tmp_path, baseline, candidate)

    assert verdict["verdict"] == "unmeasurable"


def test_few_missing_scores_that_could_hide_nothing_change_nothing(tmp_path: Path) -> None:
    baseline, candidate = [1] * 200, [""] * 2 + [1] * 198

    assert gate_scores(tmp_path, baseline, candidate)["verdict"] == "pass"


def test_must_be_worse_than_the_tolerance_not_as_bad(tmp_path: Path) -> None:
    lost = ([1.0] * 300, [0.9] * 300)

    as_bad = gate_scores(tmp_path, *lost, tolerance=0.1, max_drop=0.5)
    worse = gate_scores(tmp_path, *lost, tolerance=0.09, max_drop=0.5)

    assert as_bad["verdict"] == "pass"
    assert worse["verdict"] == "regression"
