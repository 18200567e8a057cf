"""Every call that writes fails, tears, or is the process's last; then the run is resumed."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from evalkit.errors import StoreError
from tests.faults.forks import Ended, Forks
from tests.faults.layer import MODES, Fault
from tests.faults.table import Bench, Found, Scenario
from tests.faults.world import (
    CASES,
    IN_FLIGHT,
    RUN,
    Expected,
    calls_made,
    differences,
    expected_of,
    fingerprints,
    make_baseline,
    make_project,
    new_runs,
    state_of,
)

HALF_WAY = 14
"""A call in the middle of a run: some cases are in its journal."""


def crash_in_a_run(bench: Bench, *, mode: str) -> None:
    """At each call of a run in turn."""
    world = World(bench)
    for at in world.places(RUN):
        with bench.fault(f"{mode} at call {at}") as found:
            folder = bench.copy(world.template)
            ended = bench.forks.run(folder, *RUN, fault=world.fault(folder, mode, at))
            world.check_fault(found, ended, mode)
            world.check_end(found, folder, ended, certain=not mode.startswith("power"))


def crash_in_the_first_run(bench: Bench, *, mode: str) -> None:
    """At each call of the run that makes the store."""
    world = World(bench, is_new=True)
    for at in world.places(RUN):
        with bench.fault(f"{mode} at call {at} of the first run") as found:
            folder = bench.copy(world.template)
            ended = bench.forks.run(folder, *RUN, fault=world.fault(folder, mode, at))
            world.check_fault(found, ended, mode)
            world.check_end(found, folder, ended, certain=not mode.startswith("power"))
            ignored = folder / ".evalkit" / ".gitignore"
            found.lost(not ignored.is_file(), "git would take what users wrote")


def crash_in_a_resumed_run(bench: Bench, *, mode: str) -> None:
    """A run is killed half way; then at each call of the run that resumes it."""
    world = World(bench)
    half = bench.root / "half"
    shutil.copytree(world.template, half)
    bench.forks.run(half, *RUN, fault=world.fault(half, "torn", HALF_WAY))
    (run_id,) = new_runs(half, world.before)
    assert 0 < sum(calls_made(half).values()) < CASES
    resume = ("run", "--json", "--resume", run_id)
    for at in world.places(resume, of=half):
        with bench.fault(f"{mode} at call {at} of the resumed run") as found:
            folder = bench.copy(half)
            ended = bench.forks.run(folder, *resume, fault=world.fault(folder, mode, at))
            world.check_fault(found, ended, mode)
            world.check_end(found, folder, ended, certain=not mode.startswith("power"), crashes=2)


class World:
    """The project that every fault is tried on a copy of."""

    def __init__(self, bench: Bench, *, is_new: bool = False) -> None:
        self._forks: Forks = bench.forks
        self._bench = bench
        self._is_new = is_new
        self.template = bench.root / "template"
        self.template.mkdir()
        make_project(self.template)
        if not is_new:
            make_baseline(self.template, bench.forks)
        self.before = fingerprints(self.template / ".evalkit")
        self.expected: Expected = expected_of(bench.copy(self.template), bench.forks)

    def fault(self, folder: Path, mode: str, at: int, errno: int = 0) -> Fault:
        struck = folder if self._is_new else folder / ".evalkit"
        return Fault(folder=str(struck), at=at, mode=mode, errno=errno)

    def places(self, argv: tuple[str, ...], *, of: Path | None = None) -> list[int]:
        """The calls at which a command line can be struck: all of them, or those that differ."""
        folder = self._bench.copy(of or self.template)
        ended = self._forks.run(folder, *argv, fault=self.fault(folder, "kill", 0))
        assert ended.status == 0, ended
        every = self._bench.places is None
        return [*self._bench.some(range(1, ended.calls + 1) if every else ended.places), -1]

    def check_fault(self, found: Found, ended: Ended, mode: str) -> None:
        """A command that was struck dies of it, says so, or was not harmed."""
        found.wrong(ended.crashed, f"no error message but {ended}")
        if mode in ("kill", "torn") or mode.startswith("power"):
            found.wrong(ended.hit and not ended.killed, f"not killed: {ended}")

    def check_end(
        self, found: Found, folder: Path, ended: Ended, *, certain: bool, crashes: int = 1
    ) -> None:
        """The run can be finished, and ends as an uninterrupted one does."""
        store = folder / ".evalkit"
        self.check_sealed(found, store)
        try:
            run_ids = new_runs(folder, self.before)
        except StoreError as error:
            found.lost(True, str(error))
            return
        found.lost(len(run_ids) > 1, f"{len(run_ids)} runs out of one")
        found.wrong(ended.status == 0 and not run_ids, "exit 0 and no run")
        self._check_said(found, folder, ended, run_ids)
        resume = ("--resume", run_ids[0]) if run_ids else RUN[2:]
        again = self._forks.run(folder, "run", "--json", *resume)
        found.lost(again.status != 0, f"cannot be finished: {again}")
        if again.status != 0:
            return
        self.check_equal(found, folder, again.json()["run_id"])
        extra = sum(calls_made(folder).values()) - CASES
        allowed = IN_FLIGHT * crashes if certain else CASES * crashes
        found.lost(extra > allowed, f"{extra} calls paid twice")
        self.check_sealed(found, store)
        left = [
            name
            for name in fingerprints(store)
            # A run that never began: nothing of anybody's; the next purge or compaction has it.
            if name.endswith(".tmp") and "/.manifest.json." not in name
        ]
        found.lost(bool(left), f"left behind: {left}")

    def _check_said(self, found: Found, folder: Path, ended: Ended, run_ids: list[str]) -> None:
        """Exit 0 is said of a complete run alone."""
        if ended.status == 0 and run_ids:
            try:
                differing = list(
                    differences(state_of(folder, run_ids[0], self._forks), self.expected)
                )
            except StoreError as error:
                differing = [str(error)]
            found.wrong(bool(differing), f"exit 0, but {differing}")

    def check_equal(self, found: Found, folder: Path, run_id: str, *, verdict: bool = True) -> None:
        """The run is that of nobody's interference, and so is what the gate says of it."""
        try:
            state = state_of(folder, run_id, self._forks)
        except StoreError as error:
            found.lost(True, str(error))
            return
        for difference in differences(state, self.expected):
            found.lost(True, difference)
        if not verdict:
            return
        same = (state.gate_status, state.gate) == (self.expected.gate_status, self.expected.gate)
        found.wrong(not same, f"another verdict: {state.gate_status}: {state.gate[:300]}")

    def check_sealed(self, found: Found, store: Path) -> None:
        now = fingerprints(store)
        changed = [name for name, sha256 in self.before.items() if now.get(name) != sha256]
        found.lost(bool(changed), f"sealed files changed: {changed}")


SCENARIOS: dict[str, Scenario] = {
    **{
        f"first run: {mode}": partial(crash_in_the_first_run, mode=mode)
        for mode in ("kill", "power", "eio")
    },
    **{f"run: {mode}": partial(crash_in_a_run, mode=mode) for mode in MODES},
    **{
        f"resumed run: {mode}": partial(crash_in_a_resumed_run, mode=mode)
        for mode in ("torn", "power", "enospc")
    },
}
