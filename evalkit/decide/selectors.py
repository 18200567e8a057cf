"""Choose which runs and which pairs meet: what `--candidate`, `--baseline`, `--compare` name.

First step of `decide`: manifests and names in, names out; it opens no file. Where two
choices would be as good as each other it chooses none and says what to name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from evalkit.errors import ConfigError, NotComparable
from evalkit.records import Pair

Manifest: TypeAlias = Mapping[str, Any]

PAIR = re.compile(r"([^@]+)/([^/@:]*)@([^/@:]*)")
"""Also as files have it: without a prompt's name or version, the model's own with a slash."""
BRANCH = "branch:"
POOLED = "pooled"
NONE = "none"
"""For a baseline: nothing is compared."""
MAX_POOLED = 20
"""Runs that serve as one baseline, the newest ones."""
SHORTEST_ID = 6
"""Letters of a run id that are enough to name it."""
LATEST = re.compile(r"latest(?:~(\d{1,4}))?")
_TIMED = re.compile(r"[0-9a-f]{32}")


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
        if is_run(run) and (found := PAIR.fullmatch(pair)):
            return Selector(run=run, pair=_pair(found))
    if found := PAIR.fullmatch(text):
        return Selector(pair=_pair(found))
    raise ConfigError(
        f"{text!r} is neither a run of this store nor RUN:MODEL/PROMPT@VERSION nor "
        'MODEL/PROMPT@VERSION. `evalkit query "SELECT run_id FROM runs"` lists the runs.'
    )


def _pair(found: re.Match[str]) -> Pair:
    model, name, version = found.groups()
    return Pair(model=model, prompt_name=name, prompt_version=version)


def parse_compare(text: str, *, is_run: Callable[[str], bool]) -> tuple[Selector, Selector]:
    """Read `CANDIDATE:BASELINE`; exactly one colon may part it into two selectors.

    There is no second reading: ids of runs and names hold no slash, versions no colon.
    """
    for at in _colons(text):
        try:
            return (
                parse_selector(text[:at], is_run=is_run),
                parse_selector(text[at + 1 :], is_run=is_run),
            )
        except ConfigError:
            continue
    raise ConfigError(
        f"--compare {text!r} is not CANDIDATE:BASELINE, each a run of this store, a pair "
        "(MODEL/PROMPT@VERSION) or RUN:PAIR. E.g. small/classify@v3:small/classify@v2."
    )


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
        complete = [r for r in runs if r.get("status") == "complete" and not is_sample(r)]
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


def is_newer(run_id: str, *, than: str) -> bool:
    """By the ids of runs, which begin with the time; others say nothing."""
    return bool(_TIMED.fullmatch(run_id) and _TIMED.fullmatch(than)) and run_id > than


def newest_complete(
    runs: Iterable[Manifest], *, branch: str | None = None, golden_set: str | None = None
) -> Manifest | None:
    """The first complete run of `runs` (newest first) that has what is asked; None without."""
    for run in runs:
        if (
            is_whole(run)
            and (golden_set is None or golden_set in (run.get("golden_sets") or {}))
            and (branch is None or branch_of(run) == branch)
        ):
            return run
    return None


def baseline_runs(
    runs: Sequence[Manifest], *, candidate: Manifest, golden_set: str, default_branch: str
) -> list[Manifest]:
    """What a golden set may be compared with when nobody says, newest first.

    The default branch's complete runs from before the candidate, never the candidate itself.
    Where the candidate was not run in a repository at all, earlier runs without one stand
    for the branch. A run of some of the cases comes last: it was asked for so many, or stopped
    early and has those that decided it.
    """
    ids = [run["run_id"] for run in runs]
    earlier = runs[ids.index(candidate["run_id"]) + 1 :]
    complete = [
        run for run in earlier if is_whole(run) and golden_set in (run.get("golden_sets") or {})
    ]
    found = [run for run in complete if branch_of(run) == default_branch]
    if not found and branch_of(candidate) is None:
        found = [run for run in complete if branch_of(run) is None]
    return sorted(found, key=of_some_cases)


def pool_with(
    base: Manifest, runs: Sequence[Manifest], *, candidate: Manifest, golden_set: str
) -> list[Manifest]:
    """The runs of `runs` that may serve as one baseline together with `base`.

    Runs of a pair that `base` has. Scoring the same answers again makes no new trials, so
    of a run and those that rescored it only one counts, and none of the candidate's.
    """
    by_id = {str(run["run_id"]): run for run in runs}
    counted = {answered_in(candidate, by_id), answered_in(base, by_id)}
    pairs = set(base["golden_sets"][golden_set].get("pairs", ()))
    found: list[Manifest] = []
    for run in runs:
        answered = answered_in(run, by_id)
        shares = not pairs.isdisjoint(run["golden_sets"][golden_set].get("pairs", ()))
        if shares and answered not in counted and not of_some_cases(run):
            counted.add(answered)
            found.append(run)
    return found[: MAX_POOLED - 1]


def answered_in(run: Manifest, by_id: Mapping[str, Manifest]) -> str:
    """The run whose calls gave the answers that `run` scored."""
    run_id = str(run["run_id"])
    for _ in range(len(by_id) + 1):
        source = run.get("rescored_from")
        if not source:
            break
        run_id = str(source)
        run = by_id.get(run_id, {})
    return run_id


def is_whole(run: Manifest) -> bool:
    """Whether a run is complete; a shard is, and still no run of all cases."""
    return run.get("status") == "complete" and not run.get("shard") and not is_sample(run)


def is_sample(run: Manifest) -> bool:
    """Whether it scored production's calls, not a golden set's cases."""
    return run.get("kind") == "sample"


def stopped_early(run: Manifest) -> bool:
    return bool((run.get("stop_early") or {}).get("stopped"))


def of_some_cases(run: Manifest) -> bool:
    """Whether a run, though complete, has not every case: by `--limit`, or it stopped early."""
    return stopped_early(run) or (run.get("request") or {}).get("limit") is not None


def branch_of(run: Manifest) -> str | None:
    branch = (run.get("git") or {}).get("branch")
    return None if branch is None else str(branch)


def runs_elsewhere(runs: Iterable[Manifest]) -> str:
    """`; 2 on master, 1 on fix`: the branches that complete runs are of; empty without any."""
    branches = Counter(branch_of(run) for run in runs if is_whole(run))
    told = [f"{n} on {branch}" for branch, n in branches.most_common(3) if branch is not None]
    return f"; {', '.join(told)}" if told else ""


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
