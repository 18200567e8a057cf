"""The short way for a case: the same reports, without the phases that a case does not have.

A case has no fixtures, so that its setup and teardown do nothing; but pytest's way through
them takes longer than to report an answer that is there. What is reported, and the hooks it
goes to, are the same. Only where nobody else listens to those phases; else it is pytest's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeGuard

import pytest

from evalkit.pytest_session.items import CaseItem

PHASES = (
    "pytest_runtest_setup",
    "pytest_runtest_call",
    "pytest_runtest_teardown",
    "pytest_runtest_makereport",
)
"""Hooks that are not called on the short way."""
NOTHING_FOR_A_CASE = (
    "_pytest.",
    "_hypothesis_pytestplugin.",
    "pytest_asyncio.",
    "pytest_cov.plugin.CovPlugin.",
    "pytest_randomly.",
    "evalkit.pytest_session.",
)
"""Where listeners to these come from that do nothing for an item without fixtures."""
PDB_AND_SETUP = ("usepdb", "setuponly", "setupshow", "setupplan")
"""Options of pytest that are about the phases."""
NOT_REPORTED = (pytest.exit.Exception, KeyboardInterrupt)

Changed = Callable[[pytest.Item, pytest.TestReport], pytest.TestReport]


class ShortWay:
    """Runs cases; `finish` has the last word on a case's own report."""

    def __init__(self, config: pytest.Config, finish: Changed) -> None:
        self._finish = finish
        self._open = not any(config.getoption(name, False) for name in PDB_AND_SETUP)
        self._capture = config.pluginmanager.get_plugin("capturemanager")
        self._unheard: dict[pytest.Collector, bool] = {}

    def fits(self, item: pytest.Item) -> TypeGuard[CaseItem]:
        """Whether nobody could tell the difference."""
        if not (self._open and isinstance(item, CaseItem)):
            return False
        parent = item.parent
        if parent not in self._unheard:
            self._unheard[parent] = all(map(_does_nothing, _listeners(item.ihook)))
        return self._unheard[parent] and next(item.iter_markers(), None) is None

    def run(self, item: CaseItem, nextitem: pytest.Item | None) -> None:
        """What `pytest_runtest_protocol` does."""
        hook = item.ihook
        keywords: dict[str, Literal[1]] = dict.fromkeys(item.keywords, 1)
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        hook.pytest_runtest_logreport(report=_passed(item, "setup", keywords))
        self._report_call(item)
        if item.session.shouldfail or item.session.shouldstop:
            nextitem = None
        if nextitem is None or nextitem.parent is not item.parent:
            _tear_down(item, nextitem)
        else:
            hook.pytest_runtest_logreport(report=_passed(item, "teardown", dict(keywords)))
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)

    def _report_call(self, item: CaseItem) -> None:
        call = pytest.CallInfo.from_call(
            lambda: self._call(item), when="call", reraise=NOT_REPORTED
        )
        report = self._finish(item, pytest.TestReport.from_item_and_call(item, call))
        item.ihook.pytest_runtest_logreport(report=report)
        if report.failed:
            item.ihook.pytest_exception_interact(node=item, call=call, report=report)

    def _call(self, item: CaseItem) -> None:
        os.environ["PYTEST_CURRENT_TEST"] = f"{item.nodeid} (call)".replace("\0", "(null)")
        with self._captured(item):
            item.runtest()

    def _captured(self, item: CaseItem) -> AbstractContextManager[Any]:
        if self._capture is None:
            return nullcontext()
        captured: AbstractContextManager[Any] = self._capture.item_capture("call", item)
        return captured


def _tear_down(item: CaseItem, nextitem: pytest.Item | None) -> None:
    """End what the tests before this one left for those below the same folders."""
    hook = item.ihook

    def tear_down() -> None:
        hook.pytest_runtest_setup(item=item)  # which the other relies on
        hook.pytest_runtest_teardown(item=item, nextitem=nextitem)

    call = pytest.CallInfo.from_call(tear_down, when="teardown", reraise=NOT_REPORTED)
    report = pytest.TestReport.from_item_and_call(item, call)
    hook.pytest_runtest_logreport(report=report)
    if report.failed:
        hook.pytest_exception_interact(node=item, call=call, report=report)


def _passed(
    item: CaseItem, when: Literal["setup", "teardown"], keywords: Mapping[str, Literal[1]]
) -> pytest.TestReport:
    now = time.time()
    return pytest.TestReport(
        nodeid=getattr(item, "id", item.nodeid),  # parsed already from pytest 9.2 on
        location=item.location,
        keywords=keywords,
        outcome="passed",
        longrepr=None,
        when=when,
        start=now,
        stop=now,
        user_properties=item.user_properties,
    )


def _listeners(hook: Any) -> list[Any]:
    return [one for phase in PHASES for one in getattr(hook, phase).get_hookimpls()]


def _does_nothing(listener: Any) -> bool:
    function = listener.function
    name = f"{function.__module__}.{getattr(function, '__qualname__', '')}"
    return name.startswith(NOTHING_FOR_A_CASE)
