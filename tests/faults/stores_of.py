"""Stores of other times and places: read-only, full, of an earlier evalkit, of a later one."""

from __future__ import annotations

import errno
import os
import zipfile
from functools import partial
from pathlib import Path

from evalkit.store.files import read_json, write_json
from evalkit.store.schema import SCHEMA_VERSION
from tests.faults.crashes import World
from tests.faults.forks import Ended
from tests.faults.layer import Fault
from tests.faults.table import Bench, Found, Scenario
from tests.faults.world import CASES, RUN, calls_made, fingerprints, new_runs

STORES = Path(__file__).parent / "stores"
DEVICE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""No fault of who gave the path: nothing could be measured."""
REFUSALS = (errno.EROFS, errno.EACCES, *DEVICE)


def refused_from_the_start(bench: Bench, *, is_new: bool) -> None:
    """A store that takes nothing is refused before the first paid call, and still read."""
    world = World(bench, is_new=is_new)
    for code in REFUSALS:
        with bench.fault(f"{os.strerror(code)}, new store: {is_new}") as found:
            folder = bench.copy(world.template)
            fault = world.fault(folder, "all", 0, code)
            ended = bench.forks.run(folder, *RUN, fault=fault)
            _check_refused(found, ended, code, folder)
            found.lost(bool(calls_made(folder)), f"{sum(calls_made(folder).values())} calls paid")
            if not is_new:
                _check_read_only_gate(bench, found, folder, fault)
                again = bench.forks.run(folder, "baseline", "set", "latest", fault=fault)
                _check_refused(found, again, code, folder)
            found.lost(fingerprints(folder / ".evalkit") != world.before, "the store has changed")


def resumed_where_nothing_is_taken(bench: Bench) -> None:
    """An unfinished run is not gone on with, and no call paid, where nothing can be kept."""
    world = World(bench)
    half = bench.copy(world.template).rename(bench.root / "half")
    bench.forks.run(half, *RUN, fault=Fault(folder=str(half / ".evalkit"), at=14, mode="torn"))
    (run_id,) = new_runs(half, world.before)
    before = fingerprints(half / ".evalkit")
    for code in REFUSALS:
        with bench.fault(os.strerror(code)) as found:
            folder = bench.copy(half)
            fault = world.fault(folder, "all", 0, code)
            ended = bench.forks.run(folder, "run", "--resume", run_id, fault=fault)
            _check_refused(found, ended, code, folder)
            found.lost(calls_made(folder) != calls_made(half), "calls paid")
            found.lost(fingerprints(folder / ".evalkit") != before, "the store has changed")


def _check_refused(found: Found, ended: Ended, code: int, folder: Path) -> None:
    said = os.strerror(code) in ended.errors and str(folder) in ended.errors
    status = 3 if code in DEVICE else 2
    found.wrong(ended.crashed or ended.status != status, str(ended))
    found.wrong(not said, f"neither what nor where: {ended}")


def _check_read_only_gate(bench: Bench, found: Found, folder: Path, fault: Fault) -> None:
    """A verdict that cannot be kept is given all the same, and says so."""
    run_id = next(iter((folder / ".evalkit" / "runs").iterdir())).name
    ended = bench.forks.run(folder, "gate", "--candidate", run_id, "--baseline", run_id)
    refused = bench.forks.run(
        folder, "gate", "--candidate", run_id, "--baseline", run_id, fault=fault
    )
    for path in (folder / ".evalkit" / "verdicts").iterdir():
        path.unlink()
    (folder / ".evalkit" / "verdicts").rmdir()
    found.wrong(refused.status != ended.status, f"another verdict: {refused}")
    found.wrong("could not be kept" not in refused.output, "not said that it was not kept")


# --- of other versions --------------------------------------------------------------------


def of_an_earlier_version(bench: Bench) -> None:
    """Stores of every earlier version are gated, gone on with, and added to."""
    for archive in sorted(STORES.glob("schema-*.zip")):
        with bench.fault(f"{archive.stem}: gate") as found:
            folder = _unpacked(bench, archive)
            ended = bench.forks.run(folder, "gate", "--json")
            verdict = ended.json() if ended.output else {}
            found.wrong(ended.status != 1, f"the gate does not see the regression: {ended}")
            found.wrong(verdict.get("verdict") != "regression", str(verdict.get("notes")))
        with bench.fault(f"{archive.stem}: query") as found:
            ended = bench.forks.run(folder, "query", "--json", "SELECT count(*) AS n FROM scores")
            found.lost(ended.status != 0 or "32" not in ended.output, f"{ended.output} {ended}")
        with bench.fault(f"{archive.stem}: resume") as found:
            (unfinished,) = (
                path.parent.name
                for path in (folder / ".evalkit" / "runs").glob("*/manifest.json")
                if read_json(path)["status"] != "complete"
            )
            ended = bench.forks.run(folder, "run", "--json", "--resume", unfinished)
            found.lost(ended.status != 0, f"cannot be finished: {ended}")
            done = ended.json() if ended.status == 0 else {}
            found.lost(done.get("resumed") != 3 or done.get("done") != CASES, str(done)[:300])
        with bench.fault(f"{archive.stem}: run") as found:
            ended = bench.forks.run(folder, *RUN)
            found.lost(ended.status != 0, str(ended))
            ended = bench.forks.run(folder, "gate")
            found.wrong(ended.status != 1, f"new run against old baseline: {ended}")


def of_a_later_version(bench: Bench) -> None:
    """A later evalkit's runs are refused by name, and disturb nothing else."""
    world = World(bench)
    folder = bench.copy(world.template)
    ended = bench.forks.run(folder, *RUN)
    run_id = ended.json()["run_id"]
    path = folder / ".evalkit" / "runs" / run_id / "manifest.json"
    later = {**read_json(path), "schema_version": SCHEMA_VERSION + 1}
    for argv, status in (
        (("gate",), 3),
        (("gate", "--candidate", run_id), None),
        (("run", "--resume", run_id), 2),
        (("baseline", "set", run_id), None),
        (("report", run_id, "-o", "report.html"), None),
        (("query", "SELECT count(*) FROM scores"), 0),
        (RUN, 0),
    ):
        with bench.fault(" ".join(argv)) as found:
            write_json(path, later, replace=True)
            before = fingerprints(path.parent)
            ended = bench.forks.run(folder, *argv)
            found.wrong(ended.crashed, str(ended))
            fits = ended.status in (2, 3) if status is None else ended.status == status
            found.wrong(not fits, f"status {ended.status}: {ended.output[-300:]} {ended}")
            if argv is not RUN:
                said = "newer evalkit" in " ".join((ended.errors + ended.output).split())
                found.wrong(not said, f"not said why: {ended.output[-300:]} {ended}")
            found.lost(fingerprints(path.parent) != before, "the later run was changed")


def _unpacked(bench: Bench, archive: Path) -> Path:
    folder = bench.root / archive.stem
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder


SCENARIOS: dict[str, Scenario] = {
    "refused: store": partial(refused_from_the_start, is_new=False),
    "refused: new store": partial(refused_from_the_start, is_new=True),
    "refused: resume": resumed_where_nothing_is_taken,
    "version: earlier": of_an_earlier_version,
    "version: later": of_a_later_version,
}
