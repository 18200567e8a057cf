"""Small worlds for tests of the gate: runs in a store, and results files, by their scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evalkit.config import GateSettings
from evalkit.decide.gate import run_gate
from evalkit.decide.rows import FileRows
from evalkit.exchange.results import load_results
from evalkit.frozen import by_field
from evalkit.store.views import Store
from tests.store.journal_lines import call, score

LABEL = {
    "name": "label",
    "tier": 1,
    "gate": True,
    "tolerance": 0.0,
    "max_drop": 0.05,
    "must_pass": False,
}


def write_csv(path: Path, rows: Iterable[Sequence[object]], header: str = "case_id,score") -> Path:
    """A results file; metric is label unless the header names it."""
    names = header.split(",")
    if "metric" not in names:
        names, rows = [*names, "metric"], [[*row, "label"] for row in rows]
    lines = [",".join(names), *(",".join(str(cell) for cell in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def file_rows(path: Path) -> FileRows:
    results = load_results(path)
    return FileRows(name=path.name, table=results.table, notes=results.notes)


def gate_scores(
    folder: Path,
    baseline: Sequence[object],
    candidate: Sequence[object],
    *,
    settings: GateSettings | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The verdict on two lists of scores, a case each; "" is missing, None has no row."""

    def write(name: str, scores: Sequence[object]) -> FileRows:
        rows = [(f"c{n:03d}", s) for n, s in enumerate(scores) if s is not None]
        return file_rows(write_csv(folder / name, rows))

    return run_gate(
        None,
        candidate=write("candidate.csv", candidate),
        baseline=write("baseline.csv", baseline),
        settings=settings or GateSettings(),
        **options,
    )


def changed(lost: int, won: int, same: int) -> tuple[list[int], list[int]]:
    """Baseline and candidate scores of so many cases that lost, won, or stayed (passing)."""
    baseline = [1] * lost + [0] * won + [1] * same
    candidate = [0] * lost + [1] * won + [1] * same
    return baseline, candidate


def write_run(
    store: Store,
    run_id: str,
    scores: Mapping[str, float | None],
    *,
    version: str = "v2",
    branch: str | None = "main",
    metrics: Sequence[Mapping[str, Any]] = (LABEL,),
    must_pass_cases: Sequence[str] = (),
    status: str = "complete",
    **columns: Any,
) -> str:
    """A sealed run of one pair, each case once, the same score for every metric."""
    with add_run(
        store,
        run_id,
        pairs=[f"small/classify-ticket@{version}"],
        branch=branch,
        metrics=metrics,
        must_pass_cases=must_pass_cases,
    ) as writer:
        for line in lines_of(run_id, scores, version=version, metrics=metrics, **columns):
            writer.append(line)
        if status == "complete":
            writer.seal("complete", counts={"scored": len(scores)})
    return run_id


def add_run(
    store: Store,
    run_id: str,
    *,
    pairs: Sequence[str],
    branch: str | None = "main",
    metrics: Sequence[Mapping[str, Any]] = (LABEL,),
    must_pass_cases: Sequence[str] = (),
    gating_slices: Sequence[str] = (),
    **facts: Any,
) -> Any:
    golden = {
        "hash": "aaaa",
        "path": "golden_sets/tickets/golden_set.yaml",
        "feature": "classify-ticket",
        "slices": ["channel"],
        "gating_slices": list(gating_slices),
        "must_pass_cases": list(must_pass_cases),
        "metrics": [dict(metric) for metric in metrics],
        "trials": 1,
        "pairs": list(pairs),
    }
    return store.create_run(
        {
            "run_id": run_id,
            "git": {"commit": "abc", "branch": branch, "dirty": False},
            "pairs": list(pairs),
            "golden_sets": {"tickets": golden},
            **facts,
        }
    )


def lines_of(
    run_id: str,
    scores: Mapping[str, float | None],
    *,
    version: str = "v2",
    metrics: Sequence[Mapping[str, Any]] = (LABEL,),
    trial: int = 0,
    **columns: Any,
) -> list[dict[str, Any]]:
    lines = []
    for case_id, value in scores.items():
        trace_id = f"{run_id}-{case_id}-{version}-{trial}"
        known = {
            "run_id": run_id, "case_id": case_id, "score": value, "trace_id": trace_id,
            "passed": None if value is None else value >= 1, "prompt_version": version,
            "outcome": "infra_error" if value is None else "scored", "trial": trial,
        }  # fmt: skip
        rows = [by_field(score(**{**known, "metric": m["name"], **columns})) for m in metrics]
        pair = f"small/classify-ticket@{version}"
        lines.append(
            {
                "key": ["tickets", pair, case_id, rows[0]["case_hash"], trial],
                "calls": [by_field(call(trace_id=trace_id, prompt_version=version))],
                "scores": rows,
            }
        )
    return lines


def cases(values: Iterable[float | None], start: int = 0) -> dict[str, float | None]:
    return {f"t-{number:03d}": value for number, value in enumerate(values, start)}
