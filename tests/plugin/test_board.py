"""What workers tell each other: a unit is claimed once, and its line is there for all."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.pytest_session.board import Board
from evalkit.pytest_session.units import Wanted
from evalkit.records import Pair
from tests.store.journal_lines import line

PAIR = Pair(model="small", prompt_name="classify", prompt_version="v1")
UNIT = Wanted("/golden/golden_set.yaml", PAIR, 3, 0)


@pytest.fixture
def boards(tmp_path: Path) -> Iterator[tuple[Board, Board]]:
    """The board as two workers have it; both live."""
    one, other = Board(tmp_path / "board.sqlite"), Board(tmp_path / "board.sqlite")
    yield one, other
    one.close()
    other.close()


class Caller:
    def __init__(self, result: Any, gate: asyncio.Event | None = None) -> None:
        self.calls, self._result, self._gate = 0, result, gate

    async def __call__(self) -> Any:
        self.calls += 1
        if self._gate is not None:
            await self._gate.wait()
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


async def test_two_workers_that_want_a_unit_make_one_call(boards: tuple[Board, Board]) -> None:
    one, other = boards
    gate = asyncio.Event()
    caller = Caller(line(1), gate)

    both = [asyncio.create_task(board.result(UNIT, "run", caller)) for board in (one, other)]
    await asyncio.sleep(0)
    gate.set()
    first, second = await asyncio.gather(*both)

    assert caller.calls == 1
    assert first["key"] == second["key"] == line(1)["key"]
    assert [run for _, run, _ in one.lines_after(0)] == ["run"]
    assert list(one.lines_after(1)) == []


async def test_what_a_worker_could_not_do_another_may(boards: tuple[Board, Board]) -> None:
    one, other = boards

    with pytest.raises(OSError, match="full"):
        await one.result(UNIT, "run", Caller(OSError("full")))
    unpaid = await one.result(UNIT, "run", Caller(None))
    done = await other.result(UNIT, "run", Caller(line(1)))

    assert unpaid is None
    assert done is not None


async def test_what_an_unfinished_case_cost_is_told_and_the_case_is_free_again(
    boards: tuple[Board, Board],
) -> None:
    one, other = boards
    whole = line(1)
    paid = {**whole, "key": [*whole["key"], "trace"], "unfinished": True, "scores": []}

    unpaid = await one.result(UNIT, "run", Caller(paid))
    done = await other.result(UNIT, "run", Caller(whole))

    assert unpaid is None
    assert done is not None
    told = [found["key"] for _, _, found in one.lines_after(0)]
    assert told == [paid["key"], whole["key"]]


def test_the_claim_of_a_dead_worker_is_taken_over(boards: tuple[Board, Board]) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("no /proc to tell whether a process lives")
    script = (
        "import sys; from pathlib import Path\n"
        "from evalkit.pytest_session.board import Board, _key\n"
        "from tests.plugin.test_board import UNIT\n"
        "Board(Path(sys.argv[1]))._claim(_key(UNIT), impatient=False)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(boards[0].path)], check=True)
    caller = Caller(line(1))

    found = asyncio.run(asyncio.wait_for(boards[0].result(UNIT, "run", caller), 10))

    assert caller.calls == 1
    assert found is not None


def test_parts_and_problems_are_read_as_they_were_said(boards: tuple[Board, Board]) -> None:
    one, other = boards
    parts = {(UNIT.path, PAIR): True}

    one.say_parts(parts)
    other.say_parts(parts)
    one.say_problem("id", "what")

    assert other.parts() == parts
    assert other.problem("id") == "what"
    assert other.problem("another") is None
