"""Look a baseline up that somebody named, before any call is made for nothing.

Beside `selectors`, for whoever runs first and compares afterwards: `evalkit ci gate` and
pytest. It reads manifests, no scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evalkit.decide.selectors import (
    BRANCH,
    LATEST,
    POOLED,
    Manifest,
    find_run,
    newest_complete,
    parse_selector,
    require_complete,
    runs_elsewhere,
    runs_named,
)
from evalkit.errors import ConfigError, NotComparable
from evalkit.store.views import Store

RESULTS = {".csv", ".jsonl", ".ndjson", ".parquet"}
"""Suffixes of results files, which are no runs."""


def known_baseline(store: Store, asked: str | None) -> str | None:
    """The baseline asked for, a run by its whole id: `latest` is not the run that comes now.

    Raises ConfigError where there is no such run, NotComparable where it, or that branch, has
    nothing to compare with.
    """
    if asked is None or asked == POOLED:
        return asked
    runs = list(store.runs())
    if asked.startswith(BRANCH):
        _require_branch(runs, asked.removeprefix(BRANCH))
        return asked
    suffix = Path(asked).suffix.lower()
    if suffix in RESULTS or (suffix and Path(asked).is_file()):
        raise _not_a_run(asked)

    def is_run(text: str) -> bool:
        known = bool(LATEST.fullmatch(text) or runs_named(runs, text))
        if not known:
            store.refuse_unreadable(text)
        return known

    selector = parse_selector(asked, is_run=is_run)
    if selector.run is None:
        return asked
    run_id = str(require_complete(find_run(runs, selector.run))["run_id"])
    return run_id if selector.pair is None else f"{run_id}:{selector.pair}"


def _require_branch(runs: Sequence[Manifest], branch: str) -> None:
    if newest_complete(runs, branch=branch) is None:
        raise NotComparable(
            f"{BRANCH}{branch}: this store has no complete run of that branch{runs_elsewhere(runs)}"
        )


def _not_a_run(asked: str) -> ConfigError:
    if not Path(asked).is_file():
        return ConfigError(f"{asked}: no such file.")
    return ConfigError(
        f"{asked} is a file of results. Here a baseline is a run of the store; a file can be "
        "compared with by: evalkit gate --baseline FILE"
    )
