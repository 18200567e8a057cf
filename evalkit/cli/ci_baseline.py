"""What a change is compared with in CI, from the best sources that have its golden sets.

In this order: the default branch's artifact, a file committed beside the golden set, the
base commit run in this job, what the store itself has. A source that fails is named and the
next one is tried; after the last, what could not be measured is no pass.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from evalkit.cli.ci_github import Context
from evalkit.decide.selectors import NONE, POOLED, baseline_runs
from evalkit.errors import EvalkitError, NotComparable
from evalkit.git import git, git_state
from evalkit.settings import Settings
from evalkit.store.views import Store

ARTIFACT = "evalkit-baseline"
FILE = "baseline.zip"
MAX_FILE_BYTES = 300_000_000
GIT_TIMEOUT_S = 120
SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseRun:
    """How the run of a checkout's golden sets ended."""

    run_id: str | None = None
    """None where it did not complete."""
    why: str = ""
    """Then: what kept it."""


RunBase = Callable[[Path], BaseRun]
"""Runs the golden sets of a checkout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What was found."""

    words: str
    """Where it is from, for people."""
    selector: str | None = None
    """For --baseline; None: what the store says is chosen."""
    found: bool = True
    failed: bool = False
    """Whether there is something to compare with that could not be measured: `words` say why."""
    named: bool = False
    """Whether somebody asked for just this: then nothing else, and not nothing, will do."""
    has: frozenset[tuple[str, str]] = frozenset()
    """Golden sets and features that the store has a choice for from here."""


Sets = Mapping[tuple[str, str], Path]
"""(golden set, feature) -> where it is."""

NOTHING = Baseline(words="there is no baseline yet", found=False)


def find_baseline(
    asked: str,
    *,
    context: Context,
    settings: Settings,
    store: Store,
    golden_sets: list[Path],
    run_base: RunBase,
    say: Say,
) -> Baseline:
    """What `asked` names; for auto the sources that have `golden_sets`.

    Raises EvalkitError where what is named is not there.
    """
    if asked == NONE:
        return Baseline(words="none was asked for", selector=NONE, found=False)
    sets = _sets(golden_sets, settings)
    own = partial(_from_store, store=store, runs=store.runs(), settings=settings)
    if asked == POOLED and own(sets) is None:
        raise NotComparable(f"{POOLED}: this store has no complete run of {_names(sets)}.")
    if asked != "auto":
        return _named(asked, store)
    parts: list[Baseline] = []
    sources: tuple[Callable[[Sets], Baseline | None], ...] = (
        lambda _: _from_artifact(context, store, settings),
        lambda missing: _from_files(missing, store, left=sets.keys() - missing.keys()),
        lambda missing: _from_base(context, settings, run_base, needed=missing if parts else {}),
        own,
    )
    missing: Sets = sets
    for source in sources:
        try:
            found = source(missing)
        except EvalkitError as error:
            say(f"baseline: {error}")
            continue
        if found is None:
            continue
        if found.selector is not None:
            return found
        parts.append(found)
        missing = {key: path for key, path in missing.items() if key not in found.has}
        if not missing:
            break
    if not parts:
        return NOTHING
    if missing:
        say(f"baseline: there is none for {_names(missing)}")
    return Baseline(
        words="; ".join(one.words for one in parts),
        found=any(one.found for one in parts),
        failed=any(one.failed for one in parts),
    )


def _sets(golden_sets: list[Path], settings: Settings) -> Sets:
    from evalkit.score.golden import load_golden_set

    found = [load_golden_set(path, settings=settings) for path in golden_sets]
    return {(one.name, one.feature): one.path for one in found}


def _names(sets: Sets) -> str:
    return ", ".join(name for name, _ in sets)


def _named(asked: str, store: Store) -> Baseline:
    """Raises EvalkitError where there is no such file, run or branch."""
    from evalkit.decide.named_baseline import known_baseline
    from evalkit.exchange.results import is_results_file, load_results

    if asked.endswith(".zip"):
        return replace(_imported(store, [Path(asked)]), named=True)
    if is_results_file(asked):
        load_results(Path(asked))
        return Baseline(words=asked, selector=asked, named=True)
    return Baseline(words=asked, selector=known_baseline(store, asked), named=True)


# --- the default branch's artifact ---------------------------------------------------


def _from_artifact(context: Context, store: Store, settings: Settings) -> Baseline | None:
    """The artifact of the commit that the change starts from, else the branch's newest."""
    if not (context.on_github and context.token):
        return None
    from evalkit.exchange.github_api import GitHub

    branch = context.default_branch or settings.gate.default_branch
    with GitHub(context.repository, api_url=context.api_url, token=context.token) as github:
        own = [
            one for one in github.artifacts(ARTIFACT) if one.own and one.head_branch == branch
        ]  # fmt: skip
        if not own:
            return None
        best = next((one for one in own if one.head_sha == context.base_sha), own[0])
        data = github.artifact_file(best, FILE, max_bytes=MAX_FILE_BYTES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        path.write_bytes(data)
        has = _imported(store, [path]).has
    return Baseline(words=f"{branch} at {best.head_sha[:10]} (artifact)", has=has)


# --- a file in the repository ---------------------------------------------------------


def _from_files(sets: Sets, store: Store, *, left: Collection[tuple[str, str]]) -> Baseline | None:
    """The files of these golden sets; those `left` alone have a better source."""
    files = [path.parent / FILE for path in sets.values() if (path.parent / FILE).is_file()]
    return _imported(store, files, left=left) if files else None


def _imported(
    store: Store, files: list[Path], *, left: Collection[tuple[str, str]] = ()
) -> Baseline:
    from evalkit.exchange.baseline_file import import_baselines

    entries = [one for path in files for one in import_baselines(store, path, left=left)]
    return Baseline(
        words=f"committed: {', '.join(map(_near, files))}",
        has=frozenset((one["golden_set"], one["feature"]) for one in entries),
    )


def _near(path: Path) -> str:
    """As somebody would write it who stands in the project."""
    here, whole = Path.cwd(), path.absolute()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else path)


# --- the base commit, run here --------------------------------------------------------


def _from_base(
    context: Context, settings: Settings, run_base: RunBase, *, needed: Sets
) -> Baseline | None:
    """The base's own run; where some are `needed` beside what is there, if it has one."""
    sha = context.base_sha
    if sha is None or not SHA.fullmatch(sha):
        return None
    with _checkout(settings.root, sha) as project:
        if project is None or not (project / "evalkit.toml").is_file():
            return None
        if needed and not any(_is_in(project, path, settings.root) for path in needed.values()):
            return None
        base = run_base(project)
    if base.run_id is None:
        return Baseline(words=f"{sha[:10]}: {base.why}", found=False, failed=True)
    return Baseline(words=f"{sha[:10]}, run in this job", selector=base.run_id)


def _is_in(project: Path, path: Path, root: Path) -> bool:
    """Whether a checkout has this golden set, too; of one outside the project nobody knows."""
    here, whole = root.resolve(), path.resolve()
    return not whole.is_relative_to(here) or (project / whole.relative_to(here)).is_file()


@contextmanager
def _checkout(root: Path, sha: str) -> Iterator[Path | None]:
    """The project as it was at `sha`, in a worktree of its own; None where git cannot."""
    ask = partial(git, root, timeout_s=GIT_TIMEOUT_S)
    top = ask("rev-parse", "--show-toplevel")
    if top is None:
        yield None
        return
    if ask("cat-file", "-e", f"{sha}^{{commit}}") is None:
        ask("fetch", "--quiet", "--depth=1", "origin", sha)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "base"
        added = ask("worktree", "add", "--detach", "--quiet", str(place), sha)
        try:
            inside = root.resolve().relative_to(Path(top).resolve())
            yield None if added is None else place / inside
        finally:
            ask("worktree", "remove", "--force", str(place))


# --- what the store itself has ----------------------------------------------------------


def _from_store(
    sets: Sets, *, store: Store, runs: Sequence[Mapping[str, Any]], settings: Settings
) -> Baseline | None:
    """What the gate takes where nobody says, of the `runs` that are there before this build's."""
    to_come = {"run_id": "", "git": git_state(settings.root)}
    found: dict[tuple[str, str], str] = {}
    for name, feature in sets:
        earlier = baseline_runs(
            [to_come, *runs],
            candidate=to_come,
            golden_set=name,
            default_branch=settings.gate.default_branch,
        )
        run_id = store.baselines.get(name, feature) or next(
            (str(run["run_id"]) for run in earlier), None
        )
        if run_id is not None:
            found[name, feature] = run_id
    if not found:
        return None
    told = ", ".join(f"run {run_id} for {name}" for (name, _), run_id in found.items())
    return Baseline(words=f"of this store: {told}", has=frozenset(found))
