"""Choose which runs and which pairs meet: what `--candidate`, `--baseline`, `--compare` name.

First step of `decide`: manifests and names in, names out; it opens no file. Where two
choices would be as good as each other it chooses none and says what to name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from evalkit.errors import ConfigError, NotComparable
from evalkit.records import Pair

Manifest: TypeAlias = Mapping[str, Any]

PAIR = re.compile(r"[^/@]+/[^/@:]+@[^/@:]+")
BRANCH = "branch:"
SHORTEST_ID = 6
"""Letters of a run id that are enough to name it."""
LATEST = re.compile(r"latest(?:~(\d{1,4}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """One side as the user names it: a run, a pair, or a pair of a run."""

    run: str | None = None
    pair: Pair | None = None


def parse_selector(text: str, *, is_run: Callable[[str], bool]) -> Selector:
    """Read `RUN`, `RUN:MODEL/PROMPT@VERSION` or `MODEL/PROMPT@VERSION`.

    Raises ConfigError for anything else. Names of models may hold a colon.
    """
    if is_run(text):
        return Selector(run=text)
    for at in _colons(text):
        run, pair = text[:at], text[at + 1 :]
        if is_run(run) and PAIR.fullmatch(pair):
            return Selector(run=run, pair=Pair.parse(pair))
    if PAIR.fullmatch(text):
        return Selector(pair=Pair.parse(text))
    raise ConfigError(
        f"{text!r} is neither a run of this store nor RUN:MODEL/PROMPT@VERSION nor "
        'MODEL/PROMPT@VERSION. `evalkit query "SELECT run_id FROM runs"` lists the runs.'
    )


def parse_compare(text: str, *, is_run: Callable[[str], bool]) -> tuple[Selector, Selector]:
    """Read `CANDIDATE:BASELINE`; exactly one colon may part it into two selectors."""
    readings = []
    for at in _colons(text):
        try:
            readings.append(
                (
                    parse_selector(text[:at], is_run=is_run),
                    parse_selector(text[at + 1 :], is_run=is_run),
                )
            )
        except ConfigError:
            continue
    if not readings:
        raise ConfigError(
            f"--compare {text!r} is not CANDIDATE:BASELINE, each a run of this store, a pair "
            "(MODEL/PROMPT@VERSION) or RUN:PAIR. E.g. small/classify@v3:small/classify@v2."
        )
    return _named_run_first(readings)


def _named_run_first(readings: Sequence[tuple[Selector, Selector]]) -> tuple[Selector, Selector]:
    """Of several readings the one that names most runs: a colon in a model's name is rare."""
    return max(readings, key=lambda sides: sum(side.run is not None for side in sides))


def _colons(text: str) -> list[int]:
    return [at for at, letter in enumerate(text) if letter == ":"]


# --- runs ---------------------------------------------------------------------------


def runs_named(runs: Sequence[Manifest], text: str) -> list[Manifest]:
    """The run of that id, else all whose id begins so (six letters at least)."""
    exact = [run for run in runs if run["run_id"] == text]
    return exact or [
        run for run in runs if len(text) >= SHORTEST_ID and str(run["run_id"]).startswith(text)
    ]


def find_run(runs: Sequence[Manifest], text: str) -> Manifest:
    """The one run that `text` names: an id, the start of one, `latest`, `latest~1`, …

    `latest` counts complete runs back. Raises ConfigError when none or several fit.
    """
    counted = LATEST.fullmatch(text)
    if counted:
        complete = [run for run in runs if run.get("status") == "complete"]
        back = int(counted[1] or 0)
        if back < len(complete):
            return complete[back]
        raise ConfigError(f"{text}: this store has {len(complete)} complete runs.")
    found = runs_named(runs, text)
    if len(found) != 1:
        what = "no run is named" if not found else f"{len(found)} runs begin with"
        raise ConfigError(
            f'{what} {text!r} in this store. `evalkit query "SELECT run_id FROM runs"` lists them.'
        )
    return found[0]


def newest_complete(
    runs: Iterable[Manifest], *, branch: str | None = None, golden_set: str | None = None
) -> Manifest | None:
    """The first complete run of `runs` (newest first) that has what is asked; None without."""
    for run in runs:
        if (
            run.get("status") == "complete"
            and (golden_set is None or golden_set in (run.get("golden_sets") or {}))
            and (branch is None or branch_of(run) == branch)
        ):
            return run
    return None


def default_baseline(
    runs: Sequence[Manifest], *, candidate: Manifest | None, golden_set: str, default_branch: str
) -> Manifest | None:
    """What a golden set is compared with when nobody says: the default branch's newest run.

    Only runs from before the candidate, never the candidate itself. Where the candidate
    was not run in a repository at all, earlier runs without one stand for the branch.
    """
    earlier: Sequence[Manifest] = runs
    if candidate is not None:
        ids = [run["run_id"] for run in runs]
        at = ids.index(candidate["run_id"]) + 1 if candidate["run_id"] in ids else 0
        earlier = runs[at:]
    found = newest_complete(earlier, branch=default_branch, golden_set=golden_set)
    if found is None and candidate is not None and branch_of(candidate) is None:
        without = [run for run in earlier if branch_of(run) is None]
        found = newest_complete(without, golden_set=golden_set)
    return found


def branch_of(run: Manifest) -> str | None:
    branch = (run.get("git") or {}).get("branch")
    return None if branch is None else str(branch)


def require_complete(run: Manifest) -> Manifest:
    """The run itself; raises NotComparable while it has no sealed scores."""
    if run.get("status") != "complete":
        run_id = run["run_id"]
        raise NotComparable(
            f"run {run_id} is {run.get('status')}: its scores are not all there. "
            f"Finish it with: evalkit run --resume {run_id}"
        )
    return run


# --- pairs --------------------------------------------------------------------------


def counterpart(pair: Pair, baseline_pairs: Sequence[Pair]) -> Pair | None:
    """The baseline's pair that a candidate's pair is compared with; None: it must be named.

    The same pair (drift), else the only other version of the same model and prompt
    (change), else the baseline's only pair.
    """
    if pair in baseline_pairs:
        return pair
    versions = [
        other
        for other in baseline_pairs
        if (other.model, other.prompt_name) == (pair.model, pair.prompt_name)
    ]
    if len(versions) == 1:
        return versions[0]
    return baseline_pairs[0] if len(baseline_pairs) == 1 else None
