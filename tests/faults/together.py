"""Several processes in one store at the same moment: all end well, or are told why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.faults.crashes import World
from tests.faults.forks import Ended
from tests.faults.layer import Fault
from tests.faults.table import Bench, Found, Scenario
from tests.faults.world import CASES, IN_FLIGHT, RUN, calls_made, new_runs

PROCESSES = 8


def runs_at_once(bench: Bench) -> None:
    """Eight runs in one store, which is there already, or made by whoever is first."""
    for is_new in (False, True):
        world = World(_part(bench, f"new {is_new}"), is_new=is_new)
        for number in bench.some(range(24), times=1 / 6):
            with bench.fault(f"round {number}, new store: {is_new}") as found:
                folder = bench.copy(world.template)
                ended = bench.forks.at_once(folder, [RUN] * PROCESSES)
                for one in ended:
                    found.lost(one.status != 0, f"a run failed: {one}")
                    found.wrong(one.crashed, f"no error message but {one}")
                run_ids = new_runs(folder, world.before)
                found.lost(len(run_ids) != PROCESSES, f"{len(run_ids)} runs in the store")
                for run_id in run_ids:
                    # In a new store each is compared with whoever was earlier.
                    world.check_equal(found, folder, run_id, verdict=not is_new)
                world.check_sealed(found, folder / ".evalkit")
                made = sum(calls_made(folder).values())
                found.lost(made != PROCESSES * CASES, f"{made} calls")
                found.lost(not (folder / ".evalkit/.gitignore").is_file(), "no .gitignore")


def resumes_at_once(bench: Bench) -> None:
    """Eight processes finish one run: one does, the others are told or find it done."""
    world = World(_part(bench, "resumes"))
    half = bench.root / "half"
    shutil.copytree(world.template, half)
    bench.forks.run(half, *RUN, fault=Fault(folder=str(half / ".evalkit"), at=14, mode="torn"))
    (run_id,) = new_runs(half, world.before)
    for number in bench.some(range(24), times=1 / 6):
        with bench.fault(f"round {number}") as found:
            folder = bench.copy(half)
            line = ("run", "--json", "--resume", run_id)
            ended = bench.forks.at_once(folder, [line] * PROCESSES)
            found.lost(all(one.status != 0 for one in ended), f"none has finished it: {ended[0]}")
            for one in ended:
                is_told = one.status == 2 and "is being written in another process" in one.errors
                found.wrong(one.status != 0 and not is_told, str(one))
            world.check_equal(found, folder, run_id)
            extra = sum(calls_made(folder).values()) - CASES
            found.lost(extra > IN_FLIGHT, f"{extra} calls paid twice")
            world.check_sealed(found, folder / ".evalkit")


def baselines_at_once(bench: Bench) -> None:
    """Eight updates of one baseline: compare-and-swap, and whoever is not first is told."""
    world = World(_part(bench, "baselines"))
    old = _chosen(world.template)
    template = bench.root / "chosen"
    shutil.copytree(world.template, template)
    bench.forks.at_once(template, [RUN] * PROCESSES)
    run_ids = new_runs(template, world.before)
    for number in bench.some(range(96), times=1 / 2):
        with bench.fault(f"round {number}") as found:
            folder = bench.copy(template)
            lines = [("baseline", "set", run_id, "--expect", old) for run_id in run_ids]
            ended = bench.forks.at_once(folder, lines)
            winners = [run_ids[n] for n, one in enumerate(ended) if one.status == 0]
            found.lost(len(winners) != 1, f"{len(winners)} of {PROCESSES} believe they have won")
            found.lost(_chosen(folder) not in winners, "the winner's choice is not there")
            _check_losers(found, ended)


def baselines_one_after_another(bench: Bench) -> None:
    """Without --expect, too, nobody overwrites what they have not seen."""
    world = World(_part(bench, "baselines"))
    template = bench.root / "chosen"
    shutil.copytree(world.template, template)
    bench.forks.at_once(template, [RUN] * PROCESSES)
    run_ids = new_runs(template, world.before)
    for number in bench.some(range(96), times=1 / 4):
        with bench.fault(f"round {number}") as found:
            folder = bench.copy(template)
            ended = bench.forks.at_once(folder, [("baseline", "set", one) for one in run_ids])
            winners = [run_ids[n] for n, one in enumerate(ended) if one.status == 0]
            found.lost(_chosen(folder) not in winners, "the last winner's choice is not there")
            _check_losers(found, ended)


def _check_losers(found: Found, ended: list[Ended]) -> None:
    for one in ended:
        is_told = "baseline is" in one.errors or "baselines are being changed" in one.errors
        found.wrong(one.status != 0 and not (one.status == 2 and is_told), f"not told: {one}")


def _chosen(folder: Path) -> str:
    value = json.loads((folder / ".evalkit" / "baselines.json").read_text())
    return str(value["tickets"]["classify"])


def _part(bench: Bench, name: str) -> Bench:
    """The same bench, in a folder of its own."""
    root = bench.root / name
    root.mkdir()
    return Bench(forks=bench.forks, root=root, places=bench.places, outcome=bench.outcome)


SCENARIOS: dict[str, Scenario] = {
    "at once: runs": runs_at_once,
    "at once: resumes": resumes_at_once,
    "at once: baselines": baselines_at_once,
    "at once: no --expect": baselines_one_after_another,
}
