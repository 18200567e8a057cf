"""One scenario, what became of its faults, and the table of all.

A scenario is a function from a `Bench` to nothing; it counts through `bench.fault()`:

    with bench.fault("kill at 7") as found:
        …
        found.lost(run.status != "complete", "the run is not complete")
        found.wrong(gate.status == 0, "green without evidence")
"""

from __future__ import annotations

import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.apps import log_of
from tests.faults.forks import Forks

MOST_SAID, MOST_LETTERS = 8, 500
"""Of one scenario, below the table."""


@dataclass(slots=True)
class Found:
    """What became of one fault; a fault of which nothing is said was survived."""

    name: str
    losses: list[str] = field(default_factory=list)
    wrongs: list[str] = field(default_factory=list)

    def lost(self, is_lost: bool, what: str) -> None:
        """Something finished is gone, changed, paid for again, or damaged in silence."""
        if is_lost:
            self.losses.append(what)

    def wrong(self, is_wrong: bool, what: str) -> None:
        """A verdict, an exit status or a message that fools whoever reads it."""
        if is_wrong:
            self.wrongs.append(what)


@dataclass(slots=True)
class Outcome:
    """A scenario's row of the table."""

    scenario: str
    injected: int = 0
    survived: int = 0
    lost: int = 0
    wrong: int = 0
    said: list[str] = field(default_factory=list)
    """What was lost or wrong, a line each."""
    skipped: str | None = None

    def add(self, found: Found) -> None:
        self.injected += 1
        self.survived += not (found.losses or found.wrongs)
        self.lost += bool(found.losses)
        self.wrong += bool(found.wrongs)
        self.said += [f"{found.name}: lost: {what}" for what in found.losses]
        self.said += [f"{found.name}: wrong: {what}" for what in found.wrongs]

    @property
    def held(self) -> bool:
        return self.injected > 0 and self.survived == self.injected


class Skipped(Exception):
    """This machine has no means for the scenario."""


@dataclass(slots=True)
class Bench:
    """What a scenario works with."""

    forks: Forks
    root: Path
    """An empty folder of its own."""
    places: int | None
    """How many places of a kind are tried for a fault; None: every one."""
    outcome: Outcome

    @contextmanager
    def fault(self, name: str) -> Iterator[Found]:
        found = Found(name)
        yield found
        self.outcome.add(found)

    def some(self, numbers: Sequence[int], *, times: float = 1) -> list[int]:
        """As many of them as are to be tried, evenly, first and last included."""
        wanted = None if self.places is None else max(2, round(self.places * times))
        if wanted is None or len(numbers) <= wanted:
            return list(numbers)
        step = (len(numbers) - 1) / (wanted - 1)
        return sorted({numbers[round(step * n)] for n in range(wanted)})

    def copy(self, template: Path) -> Path:
        """A copy of a project, the only one at any time."""
        folder = self.root / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(template, folder)
        log_of(folder).unlink(missing_ok=True)
        if log_of(template).exists():
            shutil.copy(log_of(template), log_of(folder))
        return folder


Scenario = Callable[[Bench], None]


def carry_out(scenario: Scenario, name: str, *, forks: Forks, places: int | None) -> Outcome:
    """Run one scenario in a folder that is gone afterwards."""
    outcome = Outcome(name)
    with tempfile.TemporaryDirectory(prefix="evalkit-faults-") as root:
        try:
            if not Path("/proc/self/fd").is_dir():
                raise Skipped("no /proc, by which the fault layer knows files")
            scenario(Bench(forks=forks, root=Path(root), places=places, outcome=outcome))
        except Skipped as why:
            outcome.skipped = str(why)
        except Exception as error:
            traceback.print_exc()
            outcome.add(Found("the scenario itself", wrongs=[f"broke off: {error!r}"]))
    return outcome


def lines_of(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The table, and under it what was lost or wrong."""
    width = max(len(one.scenario) for one in outcomes)
    yield f"{'scenario':{width}}  {'injected':>8}  {'survived':>8}  {'lost':>4}  {'wrong':>5}"
    for one in outcomes:
        if one.skipped is not None:
            yield f"{one.scenario:{width}}  skipped: {one.skipped}"
        else:
            yield row(one, width)
    total = Outcome("all")
    for one in outcomes:
        total.injected += one.injected
        total.survived += one.survived
        total.lost += one.lost
        total.wrong += one.wrong
    yield row(total, width)
    for one in outcomes:
        for said in one.said[:MOST_SAID]:
            yield f"{one.scenario}: {said[:MOST_LETTERS]}"


def row(one: Outcome, width: int) -> str:
    return (
        f"{one.scenario:{width}}  {one.injected:>8}  {one.survived:>8}  {one.lost:>4}  "
        f"{one.wrong:>5}"
    )
