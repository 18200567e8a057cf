"""Slices that gate: part of the family, able to fail the build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from evalkit.config import GateSettings
from evalkit.decide.gate import exit_code, run_gate
from evalkit.store.views import Store, open_store
from tests.decide.results import LABEL, add_run, cases, lines_of

Scores = Mapping[str, Sequence[float]]
"""Channel -> scores of its cases."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def write(store: Store, run_id: str, scores: Scores, **options: Any) -> None:
    with add_run(store, run_id, pairs=["small/classify-ticket@v2"], **options) as writer:
        for number, (channel, values) in enumerate(scores.items()):
            in_channel = cases(values, 1000 * number)
            for line in lines_of(run_id, in_channel, slices={"channel": channel}):
                writer.append(line)
        writer.seal("complete", counts={})


def decide(store: Store, before: Scores, after: Scores, **options: Any) -> dict[str, Any]:
    write(store, "run-base", before, **options)
    write(store, "run-cand", after, **options)
    return run_gate(store, candidate="run-cand", baseline="run-base", settings=GateSettings())


# An overall gain that hides what mail lost.
BEFORE = {"chat": [0.0] * 40 + [1.0] * 60, "mail": [1.0] * 12}
AFTER = {"chat": [1.0] * 100, "mail": [0.0] * 12}


def test_a_gating_slice_that_falls_fails_the_build(store: Store) -> None:
    verdict = decide(store, BEFORE, AFTER, gating_slices=["channel"])

    words = {c["slice"]: (c["gate"], c["verdict"]) for c in verdict["comparisons"]}
    assert words == {
        None: (True, "pass"),
        "channel=chat": (True, "pass"),
        "channel=mail": (True, "regression"),
    }
    assert exit_code(verdict) == 1


def test_gating_slices_are_corrected_with_the_family(store: Store) -> None:
    verdict = decide(store, BEFORE, AFTER, gating_slices=["channel"])

    mail = next(c for c in verdict["comparisons"] if c["slice"] == "channel=mail")
    assert mail["family_size"] == 3
    assert mail["p_adjusted"] == pytest.approx(3 * mail["p_value"])


def test_slices_of_other_keys_are_only_looked_at(store: Store) -> None:
    verdict = decide(store, BEFORE, AFTER, gating_slices=["chan"])

    assert [c["slice"] for c in verdict["comparisons"] if c["gate"]] == [None]
    assert verdict["verdict"] == "pass"


def test_slices_of_a_metric_that_does_not_gate_do_not_gate(store: Store) -> None:
    metrics = [LABEL, {**LABEL, "name": "shown", "gate": False}]
    for run_id in ("run-base", "run-cand"):
        pair = ["small/classify-ticket@v2"]
        with add_run(
            store, run_id, pairs=pair, metrics=metrics, gating_slices=["channel"]
        ) as writer:
            for line in lines_of(
                run_id, cases([1.0] * 60), metrics=metrics, slices={"channel": "mail"}
            ):
                writer.append(line)
            writer.seal("complete", counts={})

    verdict = run_gate(store, candidate="run-cand", baseline="run-base", settings=GateSettings())

    gates = {(c["metric"], c["slice"]) for c in verdict["comparisons"] if c["gate"]}
    assert gates == {("label", None), ("label", "channel=mail")}


def test_a_slice_too_small_to_gate_is_named_and_does_not_make_all_unmeasurable(
    store: Store,
) -> None:
    scores = {"chat": [1.0] * 100, "fax": [1.0] * 2}

    verdict = decide(store, scores, scores, gating_slices=["channel"])

    assert verdict["verdict"] == "pass"
    assert "channel=fax on tickets is a slice of 2: too few cases to gate on" in verdict["notes"]
    assert "channel=fax" not in [c["slice"] for c in verdict["comparisons"]]


def test_every_gating_slice_is_measured_however_many_there_are(store: Store) -> None:
    scores = {f"c{number}": [1.0] * 5 for number in range(60)}

    verdict = decide(store, scores, scores, gating_slices=["channel"])

    assert sum(c["gate"] for c in verdict["comparisons"]) == 61
