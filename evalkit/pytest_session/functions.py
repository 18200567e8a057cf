"""Tests written in Python that run over the cases of a golden set.

`@pytest.mark.llm_eval(golden_set="tickets")` on a function that takes `case` or `record`
makes it an item per case, pair and trial. Its calls are those of the golden set's own
items: made once, ahead, and kept in the same run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from evalkit.errors import EvalkitError, GoldenSetError
from evalkit.pytest_session.items import NO_MONEY, properties_of
from evalkit.pytest_session.runs import Line
from evalkit.pytest_session.units import Wanted, numbers_of, units_of_case
from evalkit.records import Attempt, CallRecord, Case, ToolCall
from evalkit.score.golden import GoldenSet, find_golden_sets
from evalkit.wiring import pairs_of

if TYPE_CHECKING:
    from evalkit.pytest_session.hooks import EvalSession

PARAMETER = "evalkit_case"
RECORD = pytest.StashKey[CallRecord]()
"""An item's own record, once it has been asked for."""


class OwnCase(NamedTuple):
    """What a function is parametrised with: a case is read when it is asked for."""

    golden: GoldenSet
    unit: Wanted

    def read(self) -> Case:
        return self.golden.cases[self.unit.number]


def case_of(item: pytest.Item) -> OwnCase | None:
    """The case that a function runs over; None for any other item."""
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get(PARAMETER)


def parametrize(metafunc: pytest.Metafunc, evaluation: EvalSession) -> None:
    """Give a function with a golden set an item per unit of it."""
    marker = metafunc.definition.get_closest_marker("llm_eval")
    if marker is None:
        return
    name = marker.kwargs.get("golden_set") or next(iter(marker.args), None)
    if name is None:
        return
    if PARAMETER not in metafunc.fixturenames:
        pytest.fail(
            f"{metafunc.function.__name__} is marked llm_eval(golden_set={name!r}) and takes "
            "neither `case` nor `record`. Add one, or leave out the golden set.",
            pytrace=False,
        )
    try:
        golden = named_set(name, evaluation)
        own = list(_own_cases(golden, evaluation))
    except EvalkitError as error:
        pytest.fail(str(error), pytrace=False)
    ids = [_id(golden, one.unit, evaluation) for one in own]
    metafunc.parametrize(PARAMETER, own, ids=ids, indirect=True)


def named_set(name: str, evaluation: EvalSession) -> GoldenSet:
    """The golden set of that name, or in that folder below the project's root."""
    root = evaluation.settings.root
    below = root / name
    found = find_golden_sets(
        [below if below.exists() else Path(name)], settings=evaluation.settings
    )
    if len(found) > 1:
        raise GoldenSetError(f"golden_set={name!r}: there are {len(found)} below it. Name one.")
    return evaluation.golden_set(found[0])


def _own_cases(golden: GoldenSet, evaluation: EvalSession) -> Iterator[OwnCase]:
    pairs = pairs_of(golden, evaluation.request, evaluation.settings, option="--llm-eval-")
    for number in numbers_of(golden, evaluation.request):
        for pair in pairs:
            for unit in units_of_case(golden, pair, number, evaluation.request):
                yield OwnCase(golden, unit)


def _id(golden: GoldenSet, unit: Wanted, evaluation: EvalSession) -> str:
    trials = evaluation.request.trials or golden.trials
    trial = f"-{unit.trial}" if trials > 1 else ""
    return f"{golden.cases.ids[unit.number]}-{unit.pair}{trial}"


class CaseFixtures:
    """The fixtures of such functions; there under `--llm-eval` only."""

    def __init__(self, evaluation: EvalSession) -> None:
        self._evaluation = evaluation

    @pytest.fixture
    def evalkit_case(self, request: pytest.FixtureRequest) -> OwnCase:
        if not hasattr(request, "param"):
            raise pytest.UsageError(
                "`case` and `record` are for tests marked "
                '@pytest.mark.llm_eval(golden_set="NAME"). Mark the test, or name a fixture of '
                "your own."
            )
        own: OwnCase = request.param
        return own

    @pytest.fixture
    def case(self, evalkit_case: OwnCase) -> Case:
        """The golden set's case that the test runs over."""
        return evalkit_case.read()

    @pytest.fixture
    def record(self, evalkit_case: OwnCase, request: pytest.FixtureRequest) -> CallRecord:
        """What the call for this case left behind."""
        return own_record(self._evaluation, request.node, evalkit_case.unit)


def own_record(evaluation: EvalSession, item: pytest.Item, unit: Wanted) -> CallRecord:
    """The record of the unit that `item` runs over; the item is given its properties."""
    if RECORD not in item.stash:
        (line,) = evaluation.lines(item, [unit])
        if line is None:
            pytest.skip(NO_MONEY)
        item.user_properties += properties_of(line)
        item.stash[RECORD] = record_of(line)
    return item.stash[RECORD]


def record_of(line: Line) -> CallRecord:
    """The record of a line's own call, whether it was read back from text or not."""
    call = dict(line["calls"][0])
    for name, kind in (("attempts", Attempt), ("tool_calls", ToolCall)):
        call[name] = tuple(kind(**one) if isinstance(one, dict) else one for one in call[name])
    for name in ("guard_events", "retrieved_ids"):
        call[name] = tuple(call[name])
    return CallRecord(**call)
