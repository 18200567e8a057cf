"""People's labels where they are few: in a slice, and in a run that decided early."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from evalkit.config import GateSettings
from evalkit.decide.gate import run_gate
from evalkit.store.views import Store, open_store
from tests.decide.labelled import JUDGED, calibrated, first, label
from tests.decide.results import add_run, cases, lines_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def decide(store: Store, **options: Any) -> dict[str, Any]:
    return run_gate(store, candidate="run-cand", settings=GateSettings(), **options)


def judged_by_channel(store: Store, run_id: str, channels: Mapping[str, int], **facts: Any) -> None:
    """A run whose first cases are of the first channel, and so on; all pass."""
    pairs, scores = ["small/classify-ticket@v2"], cases([1.0] * sum(channels.values()))
    named = iter(scores.items())
    facts = {"gating_slices": ["channel"], **facts}
    with add_run(store, run_id, pairs=pairs, metrics=[JUDGED], **facts) as writer:
        for channel, n in channels.items():
            part = dict(itertools.islice(named, n))
            for line in lines_of(
                run_id, part, metrics=[JUDGED], tier=2, scorer="helpfulness",
                scorer_version="judge-1", slices={"channel": channel},
            ):  # fmt: skip
                writer.append(line)
        writer.seal("complete", counts={"scored": len(scores)})


@pytest.mark.parametrize("trusted", [False, True])
def test_a_slice_with_few_labels_gates_only_by_a_judge_that_may(
    store: Store, trusted: bool
) -> None:
    if trusted:
        calibrated(store)
    for run_id in ("run-base", "run-cand"):
        judged_by_channel(store, run_id, {"chat": 60, "mail": 40})
        label(store, run_id, first([1.0] * 100, 79))

    verdict = decide(store, baseline="run-base")

    gates = {c["slice"]: (c["gate"], c["people"] is not None) for c in verdict["comparisons"]}
    assert gates == {
        None: (True, True),
        "channel=chat": (True, True),
        "channel=mail": (trusted, False),
    }


def test_labels_make_no_slice_gate_that_is_only_looked_at(store: Store) -> None:
    for run_id in ("run-base", "run-cand"):
        judged_by_channel(store, run_id, {"chat": 60, "mail": 40}, gating_slices=[])
        label(store, run_id, first([1.0] * 100, 79))

    verdict = decide(store, baseline="run-base")

    gates = {c["slice"]: c["gate"] for c in verdict["comparisons"]}
    assert gates == {None: True, "channel=chat": False, "channel=mail": False}


def test_slices_of_a_judge_that_stands_alone_gate_as_it_does(store: Store) -> None:
    calibrated(store)
    for run_id in ("run-base", "run-cand"):
        judged_by_channel(store, run_id, {"chat": 60, "mail": 40})
        label(store, run_id, first([1.0] * 100, 10))

    verdict = decide(store, baseline="run-base")

    assert [(c["slice"], c["gate"], c["people"]) for c in verdict["comparisons"]] == [
        (None, True, None),
        ("channel=chat", True, None),
        ("channel=mail", True, None),
    ]


def test_labels_do_not_change_what_was_decided_early(store: Store) -> None:
    versions = {"v2": 1.0, "v3": 1.0}
    told = {
        "golden_set": "tickets", "metric": "helpful", "baseline": "small/classify-ticket@v2",
        "candidate": "small/classify-ticket@v3", "tolerance": 0.0, "max_drop": 0.05, "n": 100,
        "n_drawn": 100, "delta": 0.0, "ci": [-0.1, 0.1], "p_value": 1.0, "p_max_drop": 0.01,
    }  # fmt: skip
    calibrated(store)
    with add_run(
        store, "run-cand", pairs=[f"small/classify-ticket@{v}" for v in versions],
        metrics=[JUDGED], stop_early={"stopped": True, "family_size": 1, "comparisons": [told]},
    ) as writer:  # fmt: skip
        for version, score in versions.items():
            for line in lines_of(
                "run-cand", cases([score] * 100), version=version, metrics=[JUDGED], tier=2,
                scorer="helpfulness", scorer_version="judge-1",
            ):  # fmt: skip
                writer.append(line)
        writer.seal("complete", counts={})
    for version in versions:
        label(store, "run-cand", first([1.0] * 100, 60), file_id=version, prompt_version=version)

    verdict = decide(store)

    whole = next(c for c in verdict["comparisons"] if c["slice"] is None)
    assert (whole["method"], whole["people"]) == ("e-process", None)
    assert verdict["verdict"] == "pass"
    assert "helpful on tickets is the judge's word alone: it was decided early" in verdict["notes"]
