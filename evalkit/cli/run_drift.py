"""`evalkit run --drift`: does an unchanged pair still score what it scored first?

The run is held against the first complete one of the same pairs, prompts and cases. Every
night is another look: the n-th has 1 / ((n + 1) log² (n + 1)) of alpha, over the sum of all
these, so that all looks together raise a false alarm with probability at most alpha.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evalkit.settings import Settings
    from evalkit.store.views import Store


def against_first(store: Store, run_id: str, settings: Settings) -> dict[str, Any] | None:
    """The gate's verdict on a run and the first one like it; None when it is the first."""
    from evalkit.decide.gate import run_gate
    from evalkit.decide.sequential import fall_prior

    past = _past(store, run_id)
    if not past:
        return None
    alpha = settings.gate.alpha * math.exp(fall_prior(len(past)))
    # The later the night, the less a single look can tell: that is no reason to fail.
    return run_gate(
        store,
        candidate=run_id,
        baseline=past[0],
        settings=replace(settings.gate, alpha=alpha, strict=False),
        project=settings.root,
    )


def _past(store: Store, run_id: str) -> list[str]:
    """Complete runs before this one that did the same, the oldest first."""
    this = store.manifest(run_id)
    alike = [
        (run["created_at"], run["run_id"])
        for run in store.runs()
        if run["status"] == "complete"
        and run["created_at"] < this["created_at"]
        and _same(run) == _same(this)
    ]
    return [name for _, name in sorted(alike)]


def _same(run: Mapping[str, Any]) -> tuple[Any, ...]:
    """What has to be the same for the rest to be the model's doing."""
    hashes = {name: one.get("hash") for name, one in (run.get("golden_sets") or {}).items()}
    kind = run.get("kind"), bool(run.get("rescored_from"))
    return kind, sorted(run.get("pairs") or ()), run.get("prompts"), hashes
