"""What a report tells of a judge, also where its kept figure is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalkit.decide.report_health import JudgeHealth, judges_of
from evalkit.store.judges import save_figure
from evalkit.store.views import Store, open_store

FIGURE = {
    "overall": {"n": 40, "kappa": {"value": 0.65, "ci": [0.5, 0.8]}, "bias": {"mean": 0.1}},
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def health(store: Store | None) -> JudgeHealth:
    row = {
        "tier": 2, "side": "candidate", "meeting": 0, "versions": ["judge-1"], "scorer": "help",
        "metric": "helpful", "n_scored": 90, "n_errors": 2,
    }  # fmt: skip
    [found] = judges_of(store, [row], ["tickets"], [])
    return found


def test_a_judge_is_told_with_its_last_calibration(store: Store) -> None:
    save_figure(store, "help", "judge-1", FIGURE)

    found = health(store)

    assert (found.kappa, found.ci, found.n_labels, found.bias) == (0.65, [0.5, 0.8], 40, 0.1)
    assert (found.word, found.calibrated_at is None) == ("good", False)


def test_a_judge_that_nobody_calibrated_is_told_without_a_figure(store: Store) -> None:
    found = health(store)

    assert (found.kappa, found.ci, found.n_labels, found.bias) == (None, None, 0, None)
    assert (found.word, found.calibrated_at) == ("", None)
    assert store.problems == []
    assert health(None).kappa is None


@pytest.mark.parametrize(
    "damaged",
    [
        {"overall": "0.9"},
        {"overall": [1]},
        {"overall": {"n": "many"}},
        {"overall": {"n": True}},
        {"overall": {"n": 40, "kappa": 0.9}},
        {"overall": {"n": 40, "kappa": {"value": "0.9"}}},
        {"overall": {"n": 40, "kappa": {"value": 0.9, "ci": "0.8"}}},
        {"overall": {"n": 40, "kappa": {"value": 0.9, "ci": [0.8]}}},
        {"overall": {"n": 40, "kappa": {"value": 0.9, "ci": [0.8, "x"]}}},
        {"overall": {"n": 40, "bias": 3}},
        {"overall": {"n": 40, "bias": {"mean": []}}},
        {**FIGURE, "calibrated_at": 7},
    ],
)
def test_a_damaged_figure_is_named_and_is_none(store: Store, damaged: dict[str, Any]) -> None:
    save_figure(store, "help", "judge-1", damaged)

    found = health(store)

    assert (found.kappa, found.ci, found.n_labels, found.bias) == (None, None, 0, None)
    assert store.problems == [
        "the figure of the judge help is damaged. Make it again: evalkit judge calibrate help"
    ]


@pytest.mark.parametrize(
    "empty", [{}, {"overall": None}, {"overall": {"n": 0}}, {"overall": {"n": 3, "kappa": None}}]
)
def test_a_figure_that_says_nothing_is_whole(store: Store, empty: dict[str, Any]) -> None:
    save_figure(store, "help", "judge-1", empty)

    assert health(store).kappa is None
    assert store.problems == []
