"""Runs that a judge scored, and what people said of their answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from evalkit.store.judges import save_figure
from evalkit.store.views import Store
from tests.decide.results import LABEL, cases, write_run

JUDGED = {**LABEL, "name": "helpful", "tier": 2}
PAIR = {"model": "small", "prompt_name": "classify-ticket", "prompt_version": "v2"}


def judged(store: Store, run_id: str, scores: Iterable[float | None], **options: Any) -> None:
    write_run(
        store,
        run_id,
        cases(map(plain, scores)),
        metrics=[JUDGED],
        tier=2,
        scorer="helpfulness",
        scorer_version="judge-1",
        **options,
    )


def calibrated(store: Store, *, kappa: float = 0.8, n: int = 40, version: str = "judge-1") -> None:
    """What `evalkit judge calibrate` leaves."""
    figure = {"overall": {"n": n, "kappa": {"value": kappa}}}
    save_figure(store, "helpfulness", version, figure)


def plain(score: float | None) -> float | None:
    return None if score is None else float(score)


def label(
    store: Store, run_id: str, scores: Mapping[str, float], *, file_id: str = "", **facts: Any
) -> None:
    store.add_labels(
        file_id or f"labels-{run_id}",
        [
            {
                "label_id": f"{run_id}-{case_id}-{file_id}", "trace_id": f"{run_id}-{case_id}",
                "run_id": run_id, "golden_set": "tickets", "case_id": case_id,
                "case_hash": "bbbb", "trial": 0, **PAIR, "metric": "helpful", "score": score,
                "passed": score >= 1, "annotator": "ada", "inclusion_prob": 0.5, **facts,
            }
            for case_id, score in scores.items()
        ],
    )  # fmt: skip


def first(values: Iterable[float], n: int) -> dict[str, float]:
    return {case_id: float(value) for case_id, value in list(cases(values).items())[:n]}
