"""Every fault scenario at a few places; `make faults` tries more, `make faults-full` all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.forks import Forks
from tests.faults.scenarios import SCENARIOS
from tests.faults.table import Found, Outcome, carry_out, lines_of

FEW = 2
SLOW = [name for name in SCENARIOS if name.startswith("strace")][1:]
"""Each of their faults takes a whole process."""


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as server:
        yield server


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in SLOW])
def test_nothing_is_lost_and_nobody_fooled(name: str, forks: Forks) -> None:
    outcome = carry_out(SCENARIOS[name], name, forks=forks, places=FEW)

    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert outcome.held, "\n".join(outcome.said)


def test_the_table_names_what_was_lost() -> None:
    outcome = Outcome("a run: kill")
    outcome.add(Found("kill at 1"))
    outcome.add(Found("kill at 2", losses=["a case"]))

    lines = list(lines_of([outcome]))

    assert [line.split() for line in lines[1:]] == [
        ["a", "run:", "kill", "2", "1", "1", "0"],
        ["all", "2", "1", "1", "0"],
        ["a", "run:", "kill:", "kill", "at", "2:", "lost:", "a", "case"],
    ]
    assert not outcome.held
