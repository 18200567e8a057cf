"""The evaluation over several processes (pytest-xdist): workers call, the controller decides.

Every worker collects the same items and runs those it is given; ahead, too, it calls only
what it was given. Results meet on the board. A gate is given to some worker like any item,
runs the cases there that no item covers, and is reported by the controller when all is in.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.runner import runtestprotocol

from evalkit.errors import EvalkitError
from evalkit.pytest_session.board import Board
from evalkit.pytest_session.gate import gate_failures
from evalkit.pytest_session.items import GateItem
from evalkit.pytest_session.runs import SessionRuns
from evalkit.pytest_session.units import RunIds
from evalkit.records import Pair

if TYPE_CHECKING:
    from evalkit.pytest_session.hooks import EvalSession

INPUT = "evalkit"
COLLECT_EVERY_S = 0.5
"""How often the controller takes what is new on the board into the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What a worker was told, and its share of the items."""

    board: Board
    ids: RunIds
    count: int
    """Number of workers: each takes so-manieth part of the concurrency and of the money."""
    config: pytest.Config

    def own_items(
        self, current: pytest.Item, items: Sequence[pytest.Item]
    ) -> Sequence[pytest.Item]:
        """The items that this worker was given and has not finished, in order.

        pytest-xdist has no public place for them: where its queue is not what it was when
        this was written, there is only the current item, and nothing is done ahead.
        """
        for plugin in self.config.pluginmanager.get_plugins():
            queue = getattr(plugin, "torun", None)
            following = getattr(plugin, "nextitem_index", None)
            if queue is not None and hasattr(queue, "lock"):
                with queue.lock() as waiting:
                    numbers = [following, *waiting]
                return [current, *(items[n] for n in numbers if isinstance(n, int))]
        return [current]


def worker_of(config: pytest.Config) -> Worker | None:
    """This process as a worker; None when it is none, or was started without a controller."""
    told = getattr(config, "workerinput", {})
    if INPUT not in told:
        return None
    return Worker(
        board=Board(Path(told[INPUT]["board"])),
        ids=RunIds(gated=told[INPUT]["gated"], rest=told[INPUT]["rest"]),
        count=max(1, int(told.get("workercount", 1))),
        config=config,
    )


def has_workers(config: pytest.Config) -> bool:
    """Whether this process hands its items to workers."""
    return config.getoption("dist", "no") != "no" and bool(config.getoption("tx", None))


class WorkerHooks:
    """What a worker does beside running its items."""

    def __init__(self, evaluation: EvalSession, worker: Worker) -> None:
        self._evaluation = evaluation
        self._board = worker.board

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        self._board.say_parts(self._evaluation.parts())

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        """A gate's own part is done here, and reported by the controller."""
        if not isinstance(item, GateItem):
            return None
        for report in runtestprotocol(item, log=False, nextitem=nextitem):
            if report.failed:
                self._board.say_problem(item.nodeid, report.longreprtext)
        return True


class Controller:
    """Journals what the workers did, decides, and reports the gates."""

    def __init__(self, evaluation: EvalSession) -> None:
        self._evaluation = evaluation
        self._folder = Path(tempfile.mkdtemp(prefix="evalkit-"))
        self._board = Board(self._folder / "board.sqlite")
        self._seen = 0
        self._looked = 0.0
        self._gates: list[str] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        ids = self._evaluation.ids
        told = {"board": str(self._board.path), "gated": ids.gated, "rest": ids.rest}
        node.workerinput[INPUT] = told

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self._gates = [nodeid for nodeid in ids if _pair_of(nodeid) is not None]

    def pytest_runtest_logreport(self) -> None:
        if time.monotonic() - self._looked > COLLECT_EVERY_S:
            self._collect()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, Any, Any]:
        result = yield
        for nodeid in self._gates:
            self._report(nodeid, session)
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self._collect()

    def pytest_unconfigure(self) -> None:
        self._board.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _collect(self) -> None:
        """Journal what is new on the board."""
        self._looked = time.monotonic()
        for number, run_id, line in self._board.lines_after(self._seen):
            runs = self._evaluation.runs or self._open()
            runs.append(run_id, line)
            self._seen = number

    def _open(self) -> SessionRuns:
        try:
            return self._evaluation.keep_runs(self._evaluation.plan(self._board.parts()))
        except EvalkitError as error:
            raise pytest.UsageError(str(error)) from None

    def _report(self, nodeid: str, session: pytest.Session) -> None:
        """Report a gate as the runner would report any item."""
        started = time.time()
        problem = self._failure(nodeid)
        path = nodeid.split("::", 1)[0]
        location = (path, 0, nodeid.rsplit("::", 1)[1])
        hook = session.config.hook
        hook.pytest_runtest_logstart(nodeid=nodeid, location=location)
        for when in ("setup", "call", "teardown"):
            fails = when == "call" and problem is not None
            report = pytest.TestReport(
                nodeid=nodeid,
                location=location,
                keywords={},
                outcome="failed" if fails else "passed",
                longrepr=problem if fails else None,
                when=when,
                duration=time.time() - started if when == "call" else 0.0,
                start=started,
                stop=time.time(),
            )
            hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(nodeid=nodeid, location=location)

    def _failure(self, nodeid: str) -> str | None:
        """Why a gate fails; None when it passes."""
        evaluation, pair = self._evaluation, _pair_of(nodeid)
        assert pair is not None
        problem = self._board.problem(nodeid)
        if problem is not None:
            return problem
        try:
            self._collect()
            golden = evaluation.golden_set(evaluation.config.rootpath / nodeid.split("::", 1)[0])
            if evaluation.runs is None:
                return "unmeasurable: no case has run"
            if evaluation.verdict is None:
                evaluation.verdict = evaluation.decide()
        except EvalkitError as error:
            return str(error)
        return "\n".join(gate_failures(evaluation.verdict, golden, pair)) or None


def _pair_of(nodeid: str) -> Pair | None:
    """The pair of a gate's id; None for the id of anything else."""
    path, _, name = nodeid.partition("::")
    if not (path.endswith("golden_set.yaml") and name.startswith("gate[") and name.endswith("]")):
        return None
    return Pair.parse(name.removeprefix("gate[").removesuffix("]"))
