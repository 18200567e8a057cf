"""How outcomes look, the evaluation's section at the end of pytest's output, the HTML report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from evalkit.errors import EvalkitError
from evalkit.pytest_session.items import BELOW_BAR, NO_MONEY, NOT_SCORED
from evalkit.pytest_session.runs import KeptRun

if TYPE_CHECKING:
    from evalkit.decide.terminal import Role
    from evalkit.pytest_session.hooks import EvalSession

Status: TypeAlias = tuple[str, str, tuple[str, dict[str, bool]]]
SOFT: dict[str, Status] = {
    BELOW_BAR: ("below bar", "b", ("BELOW BAR", {"yellow": True})),
    NOT_SCORED: ("not scored", "n", ("NOT SCORED", {"yellow": True})),
}
"""Category, letter and word of what is no pass and fails nobody."""
SHOWN_CASES = 10
NAME_CHARS = 80


def write_section(reporter: pytest.TerminalReporter, evaluation: EvalSession) -> None:
    """Runs, verdict, and where the report is."""
    assert evaluation.runs is not None
    reporter.write_sep("=", "evalkit")
    for run in evaluation.runs.kept:
        _write_run(reporter, run, evaluation)
    _write_soft(reporter)
    for why in evaluation.unmeasured:
        reporter.write_line(f"unmeasurable: {why}", red=True)
    if evaluation.calls_ahead:
        reporter.write_line(
            f"{evaluation.calls_ahead} calls ahead of the stop were made or under way; those "
            "that finished are kept"
        )
    if evaluation.verdict is not None:
        _write_verdict(reporter, evaluation)
    path = evaluation.options.value("report")
    if path is not None:
        _write_report(reporter, path, evaluation)


def _write_run(reporter: pytest.TerminalReporter, run: KeptRun, evaluation: EvalSession) -> None:
    summary = run.summary
    store = evaluation.store.path
    cost = f"${summary.cost_usd + summary.judge_cost_usd:.4f}"
    unpriced = " + unpriced" if summary.unpriced_calls else ""
    state = "" if summary.complete else f" of {summary.planned}"
    reporter.write_line(
        f"run {run.run_id} in {store}: {summary.done}{state} cases, {cost}{unpriced}"
    )
    if summary.errors:
        kinds = ", ".join(f"{kind} {n}" for kind, n in summary.errors.most_common())
        reporter.write_line(f"  failed calls: {kinds}")
    if not summary.complete:
        reporter.write_line(f"  run the others: evalkit run --resume {run.run_id}")
    if evaluation.verdict is not None and run.run_id == evaluation.ids.gated:
        return
    for (golden_set, pair, metric), totals in summary.metrics.items():
        mean = "-" if totals.mean is None else f"{totals.mean:.3f}"
        missing = f", {totals.missing} missing" if totals.missing else ""
        reporter.write_line(f"  {golden_set} {pair} {metric}: {mean} over {totals.n}{missing}")


def _write_soft(reporter: pytest.TerminalReporter) -> None:
    """The cases that are no pass and fail nobody: pytest lists failures, but not these."""
    from evalkit.decide.render import plain

    for name, (category, _, _) in SOFT.items():
        reports = reporter.stats.get(category, [])
        if reports:
            reporter.write_line(f"{category}: {len(reports)}; for one of them: evalkit show CASE")
        for report in reports[:SHOWN_CASES]:
            metrics = dict(report.user_properties)[name]
            case = plain(report.location[2], NAME_CHARS)
            reporter.write_line(f"  {case} {plain(metrics, NAME_CHARS)}")
        if len(reports) > SHOWN_CASES:
            reporter.write_line(f"  and {len(reports) - SHOWN_CASES} more")


def items_without_money(config: pytest.Config) -> int:
    """How many items were skipped because their calls could not be paid for, by any worker."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = [] if reporter is None else reporter.stats.get("skipped", [])
    return sum(NO_MONEY in str(report.longrepr) for report in skipped)


def _write_verdict(reporter: pytest.TerminalReporter, evaluation: EvalSession) -> None:
    from evalkit.decide.terminal import verdict_lines

    assert evaluation.verdict is not None
    screen = reporter._tw

    def paint(text: str, role: Role, bold: bool) -> str:
        colour = {"pass": "green", "regression": "red"}.get(role, "yellow")
        return screen.markup(text, bold=bold, **({} if role == "quiet" else {colour: True}))

    reporter.write_line("")
    for line in verdict_lines(evaluation.verdict, width=screen.fullwidth, paint=paint):
        reporter.write_line(line)
    verdict_id = evaluation.verdict.get("verdict_id")
    if verdict_id:
        reporter.write_line(f"verdict: {evaluation.store.path / 'verdicts' / verdict_id}.json")


def _write_report(reporter: pytest.TerminalReporter, path: Path, evaluation: EvalSession) -> None:
    from evalkit.decide.report import budgets_of, write_report

    assert evaluation.runs is not None
    runs = [run.run_id for run in evaluation.runs.kept if run.summary.complete]
    if not (runs or evaluation.verdict):
        reporter.write_line(f"no report {path}: no run is complete", yellow=True)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_report(
            evaluation.verdict,
            evaluation.store,
            path,
            runs=runs,
            project=evaluation.settings.root,
            expected=evaluation.expected,
            budgets=budgets_of(evaluation.settings),
        )
    except (EvalkitError, OSError) as error:
        reporter.write_line(f"no report {path}: {error}", red=True)
    else:
        reporter.write_line(f"report: {path}")
