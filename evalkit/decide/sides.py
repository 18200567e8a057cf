"""Bring in the two sides: the runs and files that a user named, or the defaults.

Between the names a user gives and `pairing`: opens what is needed of the store by the
rules of `selectors`, each run once. It reads no row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from evalkit.decide.rows import Source
from evalkit.decide.selectors import (
    BRANCH,
    LATEST,
    NONE,
    POOLED,
    Manifest,
    Selector,
    baseline_runs,
    find_run,
    is_newer,
    newest_complete,
    parse_compare,
    parse_selector,
    pool_with,
    require_complete,
    runs_elsewhere,
    runs_named,
)
from evalkit.decide.stopped import own_pairs
from evalkit.errors import ConfigError, DamagedStore, NotComparable, StoreError
from evalkit.records import Pair

if TYPE_CHECKING:
    from evalkit.config import GateSettings
    from evalkit.store.views import Engine, Store

NO_RUN = "no earlier complete run of this golden set"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a user asked to be compared; None: the defaults."""

    candidate: str | Source | None = None
    """Run, RUN:PAIR, or the rows of a results file."""
    baseline: str | Source | None = None
    """The same, or branch:NAME, pooled, or none."""
    compare: tuple[str, ...] = ()
    """CANDIDATE:BASELINE each; only these are compared."""
    tolerance: float | None = None
    max_drop: float | None = None
    allow_no_baseline: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """One side against another; a pair that is None follows the pair rules."""

    candidate: Source
    candidate_pair: Pair | None
    baseline: Source | None
    baseline_pair: Pair | None
    golden_set: str | None = None
    """Only this one; None: every golden set of the candidate."""
    pool: tuple[Source, ...] = ()
    """Further runs that may serve as one baseline with `baseline`."""
    without: str = NO_RUN
    """Why there is no baseline, where there is none."""


@dataclass(slots=True)
class Sides:
    """The runs and files of one invocation, each brought into the engine once."""

    store: Store | None
    engine: Engine
    request: Request
    settings: GateSettings
    sources: dict[str, Source] = field(default_factory=dict)
    """By run id, files by their view."""
    problems: list[str] = field(default_factory=list)
    _runs: list[Manifest] | None = None

    @property
    def runs(self) -> list[Manifest]:
        """Manifests, newest first."""
        if self._runs is None:
            self._runs = [] if self.store is None else list(self.store.runs())
        return self._runs

    def matches(self) -> list[Match]:
        """Who meets whom, as asked or by the defaults; opens what is needed."""
        candidate, pair = self._candidate()
        if self.request.compare:
            return [
                match for text in self.request.compare for match in self._explicit(text, candidate)
            ]
        if self.request.baseline not in (None, POOLED):
            given = self._baseline(self.request.baseline)
            return [
                Match(
                    candidate=candidate,
                    candidate_pair=pair,
                    baseline=given[0],
                    baseline_pair=given[1],
                    without=self._without_named(candidate),
                )
            ]
        own = [
            Match(
                candidate=candidate,
                candidate_pair=of_candidate,
                baseline=candidate,
                baseline_pair=of_baseline,
                golden_set=golden_set,
            )
            for golden_set, of_candidate, of_baseline in own_pairs(candidate)
            if pair in (None, of_candidate) and self.request.baseline is None
        ]
        return own or self._defaults(candidate, pair)

    def _defaults(self, candidate: Source, pair: Pair | None) -> list[Match]:
        """Each golden set against its own baseline, pooled where it may be."""
        if not candidate.is_run:
            raise ConfigError("a candidate file needs a baseline: --baseline RUN or FILE.")
        found = []
        for golden_set in candidate.golden_sets:
            baseline, pool = self._default(candidate, golden_set)
            found.append(
                Match(
                    candidate=candidate,
                    candidate_pair=pair,
                    baseline=baseline,
                    baseline_pair=None,
                    golden_set=golden_set,
                    pool=pool,
                    without=NO_RUN if baseline else self._without(candidate, golden_set),
                )
            )
        return found

    def _without(self, candidate: Source, golden_set: str) -> str:
        """Why a golden set has no baseline: no run yet, or none of the default branch."""
        ids = [run["run_id"] for run in self.runs]
        earlier = self.runs[ids.index(candidate.run_id) + 1 :]
        there = [run for run in earlier if golden_set in (run.get("golden_sets") or {})]
        elsewhere = runs_elsewhere(there)
        branch = self.settings.default_branch
        if not elsewhere:
            return NO_RUN
        return f"no complete run on branch {branch} (gate.default_branch){elsewhere}"

    def _without_named(self, candidate: Source) -> str:
        """Why the baseline that was asked for is not there."""
        asked = self.request.baseline
        if asked == NONE:
            return "none was asked for"
        if isinstance(asked, str) and asked.startswith(BRANCH):
            others = [run for run in self.runs if run["run_id"] != candidate.run_id]
            branch = asked.removeprefix(BRANCH)
            return f"no other complete run on branch {branch}{runs_elsewhere(others)}"
        return NO_RUN

    def _candidate(self) -> tuple[Source, Pair | None]:
        asked = self.request.candidate
        if isinstance(asked, Source):
            return self._add(asked), None
        if asked is None:
            return self._open(self._newest()), None
        selector = parse_selector(asked, is_run=self._is_run)
        if selector.run is None:
            return self._open(self._newest()), selector.pair
        run = find_run(self.runs, selector.run)
        if LATEST.fullmatch(selector.run):
            self._refuse_if_maybe_older(run)
        return self._open(run), selector.pair

    def _newest(self) -> Manifest:
        run = newest_complete(self.runs)
        if run is None:
            if self.store is not None and self.store.unreadable_runs:
                raise NotComparable(
                    f"run {max(self.store.unreadable_runs)} cannot be read, and there is no other "
                    f"complete run in this store. {'; '.join(self.store.problems)}"
                )
            raise NotComparable("there is no complete run in this store: evalkit run first.")
        self._refuse_if_maybe_older(run)
        return run

    def _refuse_if_maybe_older(self, run: Manifest) -> None:
        """What cannot be read may be the newest run: another is not taken in its place."""
        assert self.store is not None
        unreadable = self.store.unreadable_runs
        newer = [one for one in unreadable if is_newer(one, than=str(run["run_id"]))]
        if newer:
            raise NotComparable(
                f"run {max(newer)} cannot be read and may be the newest: name the candidate, e.g. "
                f"--candidate {run['run_id']}. {'; '.join(self.store.problems)}"
            )

    def _baseline(self, asked: str | Source) -> tuple[Source | None, Pair | None]:
        if isinstance(asked, Source):
            return self._add(asked), None
        if asked == NONE:
            return None, None
        if asked.startswith(BRANCH):
            branch = asked.removeprefix(BRANCH)
            candidate = self._candidate()[0]
            others = [run for run in self.runs if run["run_id"] != candidate.run_id]
            run = newest_complete(others, branch=branch)
            return (None if run is None else self._open(run)), None
        selector = parse_selector(asked, is_run=self._is_run)
        if selector.run is None:
            return self._candidate()[0], selector.pair
        return self._open(find_run(self.runs, selector.run)), selector.pair

    def _default(
        self, candidate: Source, golden_set: str
    ) -> tuple[Source | None, tuple[Source, ...]]:
        """The baseline that was set for this golden set, else the default branch's newest.

        With the runs that may be pooled with it, unless one run was chosen.
        """
        assert self.store is not None
        manifest = next(run for run in self.runs if run["run_id"] == candidate.run_id)
        earlier = baseline_runs(
            self.runs,
            candidate=manifest,
            golden_set=golden_set,
            default_branch=self.settings.default_branch,
        )
        feature = candidate.golden_sets[golden_set].get("feature", "")
        fixed = self.store.baselines.get(golden_set, feature)
        if fixed is not None and fixed != candidate.run_id:
            self.store.refuse_unreadable(fixed)
            base: Manifest | None = find_run(self.runs, fixed)
        else:
            fixed, base = None, next(iter(earlier), None)
        if base is None:
            return None, ()
        if fixed is not None and self.request.baseline != POOLED:
            return self._open(base), ()
        others = pool_with(base, earlier, candidate=manifest, golden_set=golden_set)
        if not others and self.request.baseline == POOLED:
            self.problems.append(f"there is one run of {golden_set} to pool: {base['run_id']}")
        return self._open(base), tuple(filter(None, map(self._open_if_whole, others)))

    def _explicit(self, text: str, candidate: Source) -> list[Match]:
        left, right = parse_compare(text, is_run=self._is_run)
        source = candidate if left.run is None else self._open(find_run(self.runs, left.run))
        if right.run is None and self.request.baseline == POOLED:
            defaults = self._defaults(source, left.pair)
            return [replace(match, baseline_pair=right.pair) for match in defaults]
        match = Match(
            candidate=source,
            candidate_pair=left.pair,
            baseline=self._explicit_baseline(right, source),
            baseline_pair=right.pair,
        )
        return [match]

    def _explicit_baseline(self, selector: Selector, candidate: Source) -> Source | None:
        """A pair alone is looked for in the baseline given, else in the candidate's own run."""
        if selector.run is not None:
            return self._open(find_run(self.runs, selector.run))
        if self.request.baseline is not None:
            return self._baseline(self.request.baseline)[0]
        if not candidate.is_run or any(
            str(selector.pair) in entry.get("pairs", ()) for entry in candidate.golden_sets.values()
        ):
            return candidate
        defaults = [self._default(candidate, name)[0] for name in candidate.golden_sets]
        return next((source for source in defaults if source is not None), None)

    def _is_run(self, text: str) -> bool:
        if LATEST.fullmatch(text):
            return True
        if not runs_named(self.runs, text) and self.store is not None:
            self.store.refuse_unreadable(text)
        return bool(runs_named(self.runs, text))

    def _open(self, run: Manifest, *, told: bool = True) -> Source:
        """Bring a run in; `told`: with what its manifest notes."""
        run_id = str(run["run_id"])
        if run_id not in self.sources:
            require_complete(run)
            assert self.store is not None
            view = f"run_{len(self.sources)}"
            self.engine.add_files(view, self.store.score_files(run_id))
            self.sources[run_id] = Source(
                name=run_id,
                run_id=run_id,
                view=view,
                golden_sets=run.get("golden_sets") or {},
                answers_of=frozenset(self._origins(run)),
                stop_early=run.get("stop_early"),
                notes=tuple(run.get("notes") or ()) if told else (),
            )
        return self.sources[run_id]

    def _origins(self, run: Manifest) -> Iterator[str]:
        """The runs that this one scored again, the newest first."""
        by_id = {str(one["run_id"]): one for one in self.runs}
        seen: set[str] = set()
        while (origin := run.get("rescored_from")) and origin not in seen:
            seen.add(origin)
            yield str(origin)
            run = by_id.get(origin, {})

    def _open_if_whole(self, run: Manifest) -> Source | None:
        """A run that would only be of use; one that is damaged is named and left out."""
        try:
            return self._open(run, told=False)
        except (DamagedStore, NotComparable, StoreError) as error:
            self.problems.append(f"{error} The run is left out of the pooled baseline.")
            return None

    def _add(self, source: Source) -> Source:
        return self.sources.setdefault(source.view, source)
