"""What pytest calls under `--llm-eval`.

Order, fixtures and reports stay pytest's: an item's calls are made ahead in the loop's
thread, and the item waits for its own. A case that fails its checks is a soft failure; a
must-pass case and the gate fail for real.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from evalkit.decide.named_baseline import known_baseline
from evalkit.errors import EvalkitError
from evalkit.ids import new_id
from evalkit.pytest_options import Options
from evalkit.pytest_session import workers
from evalkit.pytest_session.calls import Calls
from evalkit.pytest_session.functions import (
    CaseFixtures,
    OwnCase,
    case_of,
    own_record,
    parametrize,
)
from evalkit.pytest_session.gate import gate_failures, unmeasured
from evalkit.pytest_session.items import CaseItem, GateItem, GoldenFile
from evalkit.pytest_session.judges import Judges
from evalkit.pytest_session.project import near, refuse_missing_keys, settings_of
from evalkit.pytest_session.protocol import ShortWay
from evalkit.pytest_session.runs import Line, SessionRuns, latency_s
from evalkit.pytest_session.terminal import SOFT, Status, items_without_money, write_section
from evalkit.pytest_session.units import Parts, RunIds, SessionPlan, Wanted, plan_session
from evalkit.records import CallRecord, Case
from evalkit.score.golden import HEADER, GoldenSet, load_golden_set
from evalkit.session import refuse_edited_prompts
from evalkit.store.views import Store, open_store
from evalkit.wiring import RunRequest

WAITED_S = pytest.StashKey[float]()
"""How long an item waited for its calls in the phase that is under way."""
LATENCY_S = pytest.StashKey[float]()
"""How long those calls themselves took."""


def register(config: pytest.Config, *, name: str) -> None:
    """Set the evaluation up. Raises EvalkitError or UsageError for what was said wrongly."""
    worker = workers.worker_of(config)
    evaluation = EvalSession(config, worker)
    config.pluginmanager.register(evaluation, name)
    config.pluginmanager.register(CaseFixtures(evaluation), f"{name}-fixtures")
    if worker is not None:
        config.pluginmanager.register(workers.WorkerHooks(evaluation, worker), f"{name}-worker")
    elif workers.has_workers(config):
        controller = workers.Controller(evaluation)
        config.pluginmanager.register(controller, f"{name}-controller")


class EvalSession:
    """One pytest session's evaluation, in the process that runs items or collects reports."""

    def __init__(self, config: pytest.Config, worker: workers.Worker | None = None) -> None:
        self.config = config
        self.settings = settings_of(config)
        self.options = Options(config, self.settings)
        self.worker = worker
        self.share = 1 if worker is None else worker.count
        self.request = self._asked()
        self._baseline = self._known_baseline()
        self.ids = RunIds(gated=new_id(), rest=new_id()) if worker is None else worker.ids
        self.runs: SessionRuns | None = None
        self.verdict: dict[str, Any] | None = None
        self.calls_ahead = 0
        self.unmeasured: list[str] = []
        """Why a session without gates fails all the same."""
        self._met_golden_set = False
        self._plan: SessionPlan | None = None
        self._calls: Calls | None = None
        self._sets: dict[Path, GoldenSet] = {}
        self._items: Sequence[pytest.Item] = ()
        self._units: list[Wanted] = []
        self._taken: set[Wanted] = set()
        self._first_unit: dict[pytest.Item, int] = {}
        """Position in `_units` of the first unit of an item."""
        self._short_way = ShortWay(config, _as_long_as_its_calls)

    def _asked(self) -> RunRequest:
        value = self.options.value
        max_cost_usd, concurrency = value("max-cost"), value("concurrency")
        return RunRequest(
            models=value("model") or (),
            prompts=value("prompt") or (),
            trials=value("trials"),
            limit=value("limit"),
            seed=value("seed"),
            concurrency=concurrency,
            max_cost_usd=None if max_cost_usd is None else max_cost_usd / self.share,
        )

    def _known_baseline(self) -> str | None:
        if self.worker is not None or self.options.value("no-gate"):
            return None
        return known_baseline(self.store, self.options.value("baseline"))

    @cached_property
    def store(self) -> Store:
        return open_store(self.options.value("store") or self.settings.store_path)

    @cached_property
    def judges(self) -> Judges:
        return Judges(self.store, floor=self.settings.gate.min_agreement)

    # --- collection --------------------------------------------------------------

    def pytest_report_header(self) -> list[str]:
        settings, here = self.settings, self.config.invocation_params.dir
        if settings.path is None:
            parts = [f"no evalkit.toml in {settings.root} or above"]
        else:
            parts = [near(settings.path, here)]
        if not self.options.value("store"):
            parts.append(f"store: {near(settings.store_path, here)}")
        return ["evalkit: " + ", ".join([*parts, *self.options.described()])]

    def golden_set(self, path: Path) -> GoldenSet:
        """The golden set at `path`, read once in a session."""
        path = path.absolute()
        if path not in self._sets:
            self._sets[path] = load_golden_set(path, settings=self.settings)
        return self._sets[path]

    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> pytest.Collector | None:
        if file_path.name != HEADER:
            return None
        self._met_golden_set = True
        return GoldenFile.from_parent(parent, path=file_path, evaluation=self)

    def pytest_report_collectionfinish(self) -> list[str]:
        """A session that could evaluate and does not, says so: `testpaths` may name tests alone."""
        home = self.settings.root / "golden_sets"
        if self._met_golden_set or self._units or next(home.rglob(HEADER), None) is None:
            return []
        place = near(home, self.config.invocation_params.dir)
        return [
            f"evalkit: no golden set is below the arguments. Name {place}, or add it to testpaths."
        ]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        parametrize(metafunc, self)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Gates run after every case, whatever order the items were given."""
        session.items.sort(key=lambda item: isinstance(item, GateItem))
        self._items = session.items
        units = {one: self.units_of(one) for one in self._items if not isinstance(one, GateItem)}
        covered = set(chain.from_iterable(units.values()))
        self._units, self._first_unit = [], {}
        for item in self._items:
            if isinstance(item, GateItem):
                item.units = [unit for unit in item.all_units() if unit not in covered]
                covered.update(item.units)
                units[item] = self.units_of(item)
            self._first_unit[item] = len(self._units)
            self._units += units[item]
        if self.worker is None and self.parts() and not self.config.getoption("collectonly"):
            try:
                self._plan = self.plan(self.parts())
                # A test of one's own may bring its key with it, in a fixture.
                cases = [one for one in units if isinstance(one, CaseItem) and units[one]]
                refuse_missing_keys(self.settings, {case.pair.model for case in cases})
            except EvalkitError as error:
                raise pytest.UsageError(str(error)) from None

    def units_of(self, item: pytest.Item) -> list[Wanted]:
        """The calls that an item needs, if it is one of ours and not to be skipped."""
        if isinstance(item, CaseItem | GateItem):
            return [] if item.get_closest_marker("skip") else item.units
        own = case_of(item)
        return [] if own is None else [own.unit]

    def units_from(self, items: Sequence[pytest.Item]) -> Iterator[Wanted]:
        return chain.from_iterable(map(self.units_of, items))

    def parts(self) -> Parts:
        """Which pairs of which golden sets have items, and whether their gate is one."""
        found = {(unit.path, unit.pair): False for unit in self._units}
        gates = (item for item in self._items if isinstance(item, GateItem))
        return found | {(str(gate.golden.path), gate.pair): True for gate in gates}

    # --- running -----------------------------------------------------------------

    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        if not self._short_way.fits(item):
            return None
        self._short_way.run(item, nextitem)
        return True

    def lines(self, item: pytest.Item, units: Sequence[Wanted]) -> list[Line | None]:
        """The journal lines of an item's units, waited for; None where money ran out."""
        calls = self._calls or self._start()
        started = time.perf_counter()
        lines = calls.lines(units, self._upcoming(item))
        self._taken.update(units)
        item.stash[WAITED_S] = time.perf_counter() - started
        item.stash[LATENCY_S] = sum(latency_s(line) for line in lines if line is not None)
        return lines

    def _upcoming(self, item: pytest.Item) -> Iterator[Wanted]:
        """The units of this item and of those after it that this process will run."""
        if self.worker is not None:
            return self.units_from(self.worker.own_items(item, self._items))
        first = self._first_unit.get(item, len(self._units))
        return map(self._units.__getitem__, range(first, len(self._units)))

    def plan(self, parts: Parts) -> SessionPlan:
        """Everything that the units of `parts` need."""
        sets = [self.golden_set(Path(path)) for path in dict.fromkeys(path for path, _ in parts)]
        plan = plan_session(self.settings, self.request, parts=parts, sets=sets, ids=self.ids)
        for prepared in plan.runs:
            refuse_edited_prompts(self.store, prepared)
        return plan

    def keep_runs(self, plan: SessionPlan) -> SessionRuns:
        """Start the session's runs in the store."""
        self.runs = SessionRuns(plan, self.store, request=self.request, settings=self.settings)
        return self.runs

    def _start(self) -> Calls:
        plan = self._plan or self.plan(self.parts())
        results = self.keep_runs(plan) if self.worker is None else self.worker.board
        self._calls = Calls(
            plan,
            results,
            concurrency=max(1, plan.concurrency // self.share),
            uses=Counter(self._units),
            stops_at_failure=bool(self.config.getvalue("maxfail")),
        )
        return self._calls

    def record_of(self, item: pytest.Item, case: Any, **asked: str) -> CallRecord:
        """What the call for `case` left behind: the item's own, or one made now."""
        own = case_of(item)
        if own is not None and not asked and _is_case(own, case):
            return own_record(self, item, own.unit)
        if own is not None and "feature" not in asked:
            pair = own.unit.pair
            prompt = f"{pair.prompt_name}@{pair.prompt_version}"
            asked = {"feature": own.golden.feature, "model": pair.model, "prompt": prompt, **asked}
        if "feature" not in asked:
            raise pytest.UsageError(
                "evalkit_record: no feature is known here. Name one (feature=...), or mark the "
                'test llm_eval(golden_set="NAME").'
            )
        value = case.input if isinstance(case, Case) else case
        return (self._calls or self._start()).execute(input=value, **asked).record

    # --- the gate ----------------------------------------------------------------

    def gate_failures(self, gate: GateItem) -> list[str]:
        """Why a gate fails; none when it passes, or when the controller is to decide."""
        if self.worker is not None:
            self.lines(gate, gate.units)
            return []
        if self.verdict is None:
            gates = [item for item in self._items if isinstance(item, GateItem)]
            wanted = dict.fromkeys(unit for one in gates for unit in one.all_units())
            self.lines(gate, [unit for unit in wanted if unit not in self._taken])
            self.verdict = self.decide()
        return gate_failures(self.verdict, gate.golden, gate.pair)

    def decide(self) -> dict[str, Any]:
        assert self.runs is not None
        return self.runs.decide(self.ids, self._baseline)

    def expected(self, golden_set: str, case_id: str, case_hash: str) -> tuple[bool, Any]:
        """Whether a case has an expected value, and which, for the report."""
        for golden in self._sets.values():
            if golden.name == golden_set and case_id in golden.cases:
                case = golden.cases[golden.cases.ids.index(case_id)]
                if case.case_hash == case_hash:
                    return case.has_expected, case.expected
        return False, None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._calls is not None:
            self.calls_ahead = self._calls.ahead
            # What another worker stole while it was under way here is not to be asked again there.
            finish = self.worker is not None and session.exitstatus != pytest.ExitCode.INTERRUPTED
            self._calls.close(finish=finish)
        if self.runs is not None:
            self.runs.close()
            if self.options.value("no-gate"):
                n_unpaid = items_without_money(self.config)
                self.unmeasured = unmeasured(self.runs.kept, n_unpaid=n_unpaid)
        if self.unmeasured and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    # --- reporting ---------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        return _as_long_as_its_calls(item, report)

    def pytest_report_teststatus(self, report: pytest.TestReport) -> Status | None:
        if report.when != "call" or not report.passed:
            return None
        for name, _ in report.user_properties:
            if name in SOFT:
                return SOFT[name]
        return None

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.runs is not None:
            write_section(terminalreporter, self)


def _is_case(own: OwnCase, case: Any) -> bool:
    return isinstance(case, Case) and case.id == own.golden.cases.ids[own.unit.number]


def _as_long_as_its_calls(item: pytest.Item, report: pytest.TestReport) -> pytest.TestReport:
    """A phase lasts as long as its calls took, not as long as they were waited for."""
    if WAITED_S in item.stash:
        waited_s, latency = item.stash[WAITED_S], item.stash[LATENCY_S]
        if not isinstance(item, GateItem):
            report.duration = max(report.duration - waited_s, 0.0) + latency
        del item.stash[WAITED_S]
    return report
