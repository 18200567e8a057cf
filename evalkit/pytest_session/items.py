"""What pytest collects of a golden set: an item per case and pair, and a gate per pair."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from evalkit.errors import EvalkitError, GoldenSetError
from evalkit.pytest_session.judges import Judges
from evalkit.pytest_session.runs import Line
from evalkit.pytest_session.units import Wanted, numbers_of, units_of_case, units_of_set
from evalkit.records import Pair
from evalkit.score.golden import GoldenSet
from evalkit.wiring import pairs_of

if TYPE_CHECKING:
    from evalkit.pytest_session.hooks import EvalSession

BELOW_BAR = "evalkit_below_bar"
"""Key of a report's user_properties: metrics that an otherwise fine case failed."""
NOT_SCORED = "evalkit_not_scored"
"""The same of metrics that have no score: what failed was the infrastructure, or a judge."""
REASON_CHARS = 500
NO_MONEY = "--llm-eval-max-cost is reached: the call was not made"


class MustPassFailed(Exception):
    """A must-pass case failed a metric that it has to pass."""


class GateFailed(Exception):
    """The gate's verdict fails the build."""


class GoldenFile(pytest.File):
    """One golden_set.yaml."""

    def __init__(self, *, evaluation: EvalSession, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.evaluation = evaluation
        self.place: str | None = None
        """The file that the cases stand in, as reports name it."""

    @cached_property
    def hooks(self) -> Any:
        """The hooks that its items see; looking them up takes longer than calling them."""
        return super().ihook

    def collect(self) -> Iterable[pytest.Item]:
        evaluation = self.evaluation
        golden = evaluation.golden_set(self.path)
        pairs = pairs_of(golden, evaluation.request, evaluation.settings, option="--llm-eval-")
        ids = golden.cases.ids
        for number in numbers_of(golden, evaluation.request):
            for pair in pairs:
                if ids[number] == "gate":
                    raise GoldenSetError(
                        f"{golden.cases.path}:{golden.cases.line_of('gate')}: a case named gate "
                        "cannot be told from the gate under pytest. Give it another id."
                    )
                yield CaseItem.from_parent(
                    self, name=f"{ids[number]}[{pair}]", golden=golden, pair=pair, number=number
                )
        if not evaluation.options.value("no-gate"):
            for pair in pairs:
                yield GateItem.from_parent(self, name=f"gate[{pair}]", golden=golden, pair=pair)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return _shown(excinfo) or super().repr_failure(excinfo)


class EvalItem(pytest.Item):
    """An item of a golden set; `units` are the calls it needs."""

    parent: GoldenFile
    units: list[Wanted]

    def __init__(
        self, name: str, parent: GoldenFile, *, golden: GoldenSet, pair: Pair, **kwargs: Any
    ) -> None:
        # The id as text: pytest (9.2) reads the part in brackets off it, as it does when it
        # finds the id in its list of failures.
        super().__init__(name, parent, nodeid=f"{parent.nodeid}::{name}", **kwargs)
        self.golden, self.pair = golden, pair

    @property
    def evaluation(self) -> EvalSession:
        return self.parent.evaluation

    @property
    def ihook(self) -> Any:
        return self.parent.hooks

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return _shown(excinfo) or super().repr_failure(excinfo, style)


class Seen(NamedTuple):
    """What a case's lines say, once they are there."""

    properties: Sequence[tuple[str, Any]]
    must: str
    """Why it fails for real; empty when it does not."""
    unpaid: bool
    low: str
    """Names of the metrics that it failed."""
    missing: str
    """Names of those without a score."""


class CaseItem(EvalItem):
    """One case of a golden set, run by one pair."""

    def __init__(self, *, number: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = number
        self.units = units_of_case(self.golden, self.pair, number, self.evaluation.request)
        self._seen: Seen | None = None

    def runtest(self) -> None:
        if self._seen is None:  # a case that is run again, by whatever plugin, is not called again
            self._seen = seen_in(self.evaluation.lines(self, self.units), self.evaluation.judges)
        seen = self._seen
        self.user_properties += seen.properties
        if seen.must:
            raise MustPassFailed(seen.must)
        if seen.unpaid:
            pytest.skip(NO_MONEY)
        if seen.low:
            self.user_properties.append((BELOW_BAR, seen.low))
        elif seen.missing:
            self.user_properties.append((NOT_SCORED, seen.missing))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.golden.cases.path, self._line, self.name

    @cached_property
    def location(self) -> tuple[str, int | None, str]:
        """As pytest works it out, but the path once for all cases of a file."""
        if self.parent.place is None:
            self.parent.place = super().location[0]
        return self.parent.place, self._line, self.name

    @property
    def _line(self) -> int:
        cases = self.golden.cases
        return cases.line_of(cases.ids[self.number]) - 1


class GateItem(EvalItem):
    """The verdict on one pair of one golden set."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = []
        """Of the cases that no item runs; known when all items are."""

    def all_units(self) -> Iterable[Wanted]:
        return units_of_set(self.golden, self.pair, self.evaluation.request)

    def runtest(self) -> None:
        failures = self.evaluation.gate_failures(self)
        if failures:
            raise GateFailed("\n".join(failures))

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, 0, self.name


def seen_in(found: Sequence[Line | None], judges: Judges) -> Seen:
    """Reads the lines of all trials of a case; None where the money did not allow one."""
    lines = [line for line in found if line is not None]
    failed = [(line, s) for line in lines for s in line["scores"] if s["passed"] is False]
    for_real = [
        (line, score)
        for line, score in failed
        if score["metric"] in line["must_pass"] and judges.may_fail(score)
    ]
    return Seen(
        properties=[fact for line in lines for fact in properties_of(line)],
        must="\n".join(_why(line, score) for line, score in for_real),
        unpaid=len(lines) < len(found),
        low=_names(score for _, score in failed),
        missing=_names(s for line in lines for s in line["scores"] if s["score"] is None),
    )


def properties_of(line: Line) -> list[tuple[str, Any]]:
    """Scores, cost and trace id, as JUnit's properties have them; what is not known is left out."""
    found: list[tuple[str, Any]] = [
        (score["metric"], score["outcome"] if score["score"] is None else score["score"])
        for score in line["scores"]
    ]
    call, *judges = line["calls"]
    found.append(("trace_id", call["trace_id"]))
    for name, calls in (("cost_usd", [call]), ("judge_cost_usd", judges)):
        costs = [one["cost_usd"] for one in calls]
        if costs and None not in costs:
            found.append((name, sum(costs)))
    return found


def _names(scores: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(sorted({score["metric"] for score in scores}))


def _why(line: Line, score: Mapping[str, Any]) -> str:
    from evalkit.decide.render import plain

    reason = plain(score["reason"] or score["error_kind"] or "failed", REASON_CHARS)
    return f"{score['metric']}: {reason}\noutput: {line['calls'][0]['output']!r}"


def _shown(excinfo: pytest.ExceptionInfo[BaseException]) -> str | None:
    """Expected failures say what is wrong, without a traceback."""
    if isinstance(excinfo.value, (MustPassFailed, GateFailed, EvalkitError)):
        return str(excinfo.value)
    return None
