"""The evaluation inside a pytest session: collect, run ahead, report, gate.

Cases run concurrently in one event loop of a thread of its own, inside a window ahead
of the item that reports; the order, the fixtures and the hooks stay pytest's. A case
that fails its checks is a soft failure; a must-pass case and the gate fail for real.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evalkit.call.budget import Budget
from evalkit.call.trace import new_id
from evalkit.config import Settings, load_settings
from evalkit.errors import EvalkitError
from evalkit.pytest_plugin import option
from evalkit.records import Pair
from evalkit.score.golden import GoldenSet, load_golden_set
from evalkit.score.runner import RunSummary, Unit, count_line, run_unit
from evalkit.session import manifest_of, refuse_edited_prompts
from evalkit.store.views import Store, open_store
from evalkit.wiring import PreparedRun, RunRequest, pairs_of, prepare_run

WINDOW_FACTOR = 2
"""How many times the concurrency may be under way or finished ahead of the reporting item."""

BELOW_BAR = "evalkit_below_bar"
"""Key of a report's user_properties: metrics that an otherwise fine case failed."""


class MustPassFailed(Exception):
    """A must-pass case failed a metric that it has to pass."""


class GateFailed(Exception):
    """The gate's verdict fails the build."""


@dataclass(slots=True)
class _Running:
    """The loop's thread and what it works on, from the first item to the end."""

    prepared: PreparedRun
    store: Store
    writer: Any
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    slots: asyncio.Semaphore
    budget: Budget | None
    summary: RunSummary
    sealed: bool = False


class EvalSession:
    """Registered as a plugin when `--llm-eval` is given."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.settings: Settings = load_settings(start=Path(config.rootpath))
        self.request = _request(config)
        self.store_path = option(config, "store")[0] or self.settings.store_path
        self._items: list[CaseItem] = []
        self._position: dict[CaseItem, int] = {}
        self._futures: dict[CaseItem, Future[list[dict[str, Any]]]] = {}
        self._submitted = 0
        self._running: _Running | None = None
        self._verdict: dict[str, Any] | None = None
        self._gate_error: str | None = None

    # --- collection --------------------------------------------------------------

    def pytest_report_header(self) -> list[str]:
        parts = [f"store: {self.store_path}"]
        for name in ("model", "prompt", "trials", "limit", "max-cost", "baseline"):
            value, source = option(self.config, name)
            if value:
                shown = " ".join(value) if isinstance(value, list) else value
                parts.append(f"{name}: {shown} ({source})")
        return ["evalkit: " + ", ".join(parts)]

    def pytest_collect_file(
        self, file_path: Path, parent: pytest.Collector
    ) -> pytest.Collector | None:
        if file_path.name != "golden_set.yaml":
            return None
        return GoldenFile.from_parent(parent, path=file_path, session_plugin=self)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Gates run after every case, whatever the order of files."""
        items.sort(key=lambda item: isinstance(item, GateItem))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._items = [item for item in session.items if isinstance(item, CaseItem)]
        self._position = {item: number for number, item in enumerate(self._items)}

    # --- running -----------------------------------------------------------------

    def lines_of(self, item: CaseItem) -> list[dict[str, Any]]:
        """The journal lines of an item's trials; submits the window ahead of it first."""
        running = self._running or self._start()
        window = WINDOW_FACTOR * running.prepared.plan.concurrency
        until = min(len(self._items), self._position[item] + window)
        while self._submitted < until:
            ahead = self._items[self._submitted]
            work = self._run_item(ahead, running)
            self._futures[ahead] = asyncio.run_coroutine_threadsafe(work, running.loop)
            self._submitted += 1
        return self._futures.pop(item).result()

    async def _run_item(self, item: CaseItem, running: _Running) -> list[dict[str, Any]]:
        planned = next(
            one for one in running.prepared.plan.sets if one.golden.path == item.golden.path
        )
        lines = []
        for trial in range(planned.trials):
            async with running.slots:
                line = await run_unit(
                    Unit(planned, item.number, item.pair, trial),
                    running.prepared.plan,
                    running.prepared.orchestrator,
                    running.budget,
                )
            if line is None:
                raise EvalkitError("--llm-eval-max-cost is reached: the call was not made")
            running.writer.append(line)
            count_line(line, running.summary)
            lines.append(line)
        return lines

    def _start(self) -> _Running:
        sets = list({item.golden.path: item.golden for item in self._items}.values())
        prepared = prepare_run(self.settings, self.request, run_id=new_id(), sets=sets)
        store = open_store(self.store_path)
        refuse_edited_prompts(store, prepared)
        manifest = manifest_of(prepared, self.request, self.settings)
        trials = {planned.golden.path: planned.trials for planned in prepared.plan.sets}
        units = sum(trials[item.golden.path] for item in self._items)
        manifest["planned"] = units
        writer = store.create_run(manifest)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="evalkit", daemon=True)
        thread.start()
        self._running = _Running(
            prepared=prepared,
            store=store,
            writer=writer,
            loop=loop,
            thread=thread,
            slots=asyncio.Semaphore(prepared.plan.concurrency),
            budget=prepared.plan.budget,
            summary=RunSummary(planned=units),
        )
        return self._running

    # --- the gate ----------------------------------------------------------------

    def verdict(self) -> dict[str, Any]:
        """Seal the run and decide, once. Raises EvalkitError when there is nothing to decide."""
        if self._verdict is None:
            self._verdict = self._decide()
        return self._verdict

    def _decide(self) -> dict[str, Any]:
        from evalkit.decide.gate import run_gate

        if self._running is None:
            raise EvalkitError("no case has run")
        running = self._running
        self._seal(running)
        return run_gate(
            running.store,
            candidate=running.writer.run_id,
            baseline=option(self.config, "baseline")[0],
            settings=self.settings.gate,
        )

    def pytest_sessionfinish(self) -> None:
        running = self._running
        if running is None:
            return
        for future in self._futures.values():
            future.cancel()
        closing = asyncio.run_coroutine_threadsafe(
            running.prepared.orchestrator.aclose(), running.loop
        )
        closing.result(timeout=10)
        running.loop.call_soon_threadsafe(running.loop.stop)
        running.thread.join(timeout=10)
        if running.summary.complete:
            self._seal(running)
        running.writer.close()

    def _seal(self, running: _Running) -> None:
        if not running.sealed:
            running.writer.seal("complete", counts=dict(running.summary.outcomes))
            running.sealed = True

    # --- reporting ---------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if isinstance(item, CaseItem) and call.when == "call" and item.lines:
            report.duration = sum(line["calls"][0]["latency_ms"] for line in item.lines) / 1000
        return report

    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        if report.when != "call" or not report.passed:
            return None
        if any(name == BELOW_BAR for name, _ in report.user_properties):
            return "below bar", "b", ("BELOW BAR", {"yellow": True})
        return None

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        running = self._running
        if running is None:
            return
        terminalreporter.section("evalkit")
        terminalreporter.write_line(f"run {running.writer.run_id} in {running.store.path}")
        for (golden_set, pair, metric), totals in running.summary.metrics.items():
            mean = "-" if totals.mean is None else f"{totals.mean:.3f}"
            missing = f", {totals.missing} missing" if totals.missing else ""
            terminalreporter.write_line(
                f"{golden_set} {pair} {metric}: {mean} over {totals.n}{missing}"
            )
        if self._verdict is not None:
            from evalkit.decide.terminal import verdict_lines

            for line in verdict_lines(self._verdict, width=terminalreporter._tw.fullwidth):
                terminalreporter.write_line(line)


class GoldenFile(pytest.File):
    """One golden_set.yaml: an item per case and pair, and a gate per pair."""

    def __init__(self, *, session_plugin: EvalSession, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plugin = session_plugin

    def collect(self) -> Iterable[pytest.Item]:
        settings = self.plugin.settings
        golden = load_golden_set(self.path, settings=settings)
        pairs = pairs_of(golden, self.plugin.request, settings)
        limit = self.plugin.request.limit
        for number in range(len(golden.cases) if limit is None else min(limit, len(golden.cases))):
            for pair in pairs:
                yield CaseItem.from_parent(
                    self,
                    name=f"{golden.cases.ids[number]}[{pair}]",
                    golden=golden,
                    number=number,
                    pair=pair,
                    plugin=self.plugin,
                )
        if self.plugin.config.getoption("--llm-eval-no-gate"):
            return
        for pair in pairs:
            yield GateItem.from_parent(
                self, name=f"gate[{pair}]", golden=golden, pair=pair, plugin=self.plugin
            )

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, EvalkitError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


class CaseItem(pytest.Item):
    """One case of a golden set, run by one pair."""

    def __init__(
        self, *, golden: GoldenSet, number: int, pair: Pair, plugin: EvalSession, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.golden, self.number, self.pair, self.plugin = golden, number, pair, plugin
        self.lines: list[dict[str, Any]] = []

    def runtest(self) -> None:
        self.lines = self.plugin.lines_of(self)
        failed, must = [], []
        for line in self.lines:
            for score in line["scores"]:
                value = "missing" if score["score"] is None else score["score"]
                self.user_properties.append((score["metric"], value))
                if score["passed"] is False:
                    failed.append(score)
                    if score["metric"] in line["must_pass"]:
                        must.append(score)
            self.user_properties.append(("trace_id", line["calls"][0]["trace_id"]))
            self.user_properties.append(("cost_usd", line["calls"][0]["cost_usd"]))
        if must:
            raise MustPassFailed("; ".join(f"{s['metric']}: {s['reason']}" for s in must))
        if failed:
            names = ", ".join(sorted({score["metric"] for score in failed}))
            self.user_properties.append((BELOW_BAR, names))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, (MustPassFailed, EvalkitError)):
            output = self.lines[0]["calls"][0]["output"] if self.lines else None
            return f"{excinfo.value}\noutput: {output!r}"
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        cases = self.golden.cases
        return cases.path, cases.line_of(cases.ids[self.number]) - 1, self.name


class GateItem(pytest.Item):
    """The verdict on one pair of one golden set."""

    def __init__(
        self, *, golden: GoldenSet, pair: Pair, plugin: EvalSession, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.golden, self.pair, self.plugin = golden, pair, plugin

    def runtest(self) -> None:
        from evalkit.decide.render import comparison_sentence, must_pass_sentence

        verdict = self.plugin.verdict()
        mine = [c for c in verdict["comparisons"] if c["gate"] and self._is_mine(c, c["candidate"])]
        failing = {"regression", "unmeasurable"}
        bad = [comparison_sentence(c) for c in mine if c["verdict"] in failing]
        bad += [must_pass_sentence(e) for e in verdict["must_pass_failures"] if self._is_mine(e, e)]
        missing = sum(self._is_mine(entry, entry) for entry in verdict["must_pass_missing"])
        if missing:
            bad.append(f"unmeasurable: {missing} must-pass scores are missing")
        if not (mine or bad or self._has_only_to_pass(verdict)):
            bad.append("unmeasurable: " + ("; ".join(verdict["notes"]) or "no comparison"))
        if bad:
            raise GateFailed("\n".join(bad))

    def _is_mine(self, entry: Mapping[str, Any], side: Mapping[str, Any]) -> bool:
        """Whether an entry of the verdict is about this pair on this golden set."""
        pair = self.pair
        wanted = (self.golden.name, pair.model, pair.prompt_version)
        return (entry["golden_set"], side["model"], side["prompt_version"]) == wanted

    def _has_only_to_pass(self, verdict: Mapping[str, Any]) -> bool:
        """Whether must-pass metrics are all that this golden set is held to, and were looked at."""
        must_pass = any(metric.must_pass for metric in self.golden.metrics)
        gates = any(metric.gate for metric in self.golden.metrics)
        return must_pass and not gates and self.golden.name in verdict["golden_sets"]

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, (GateFailed, EvalkitError)):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, 0, self.name


def _request(config: pytest.Config) -> RunRequest:
    def number(name: str, kind: type[int] | type[float]) -> Any:
        value, source = option(config, name)
        if value is None:
            return None
        try:
            return kind(value)
        except ValueError:
            raise pytest.UsageError(
                f"--llm-eval-{name} ({source}): {value!r} is not a number"
            ) from None

    return RunRequest(
        models=tuple(option(config, "model")[0] or ()),
        prompts=tuple(option(config, "prompt")[0] or ()),
        trials=number("trials", int),
        limit=number("limit", int),
        max_cost_usd=number("max-cost", float),
    )
