"""`evalkit report`: the HTML report of a run, with what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import common_options, print_json, say
from evalkit.errors import EXIT_PASS, EvalkitError

if TYPE_CHECKING:
    from evalkit.config import Settings
    from evalkit.decide.report_cases import Expected
    from evalkit.score.golden import GoldenSet
    from evalkit.store.views import Store


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="F",
    help="The HTML file to write.",
)  # fmt: skip
@click.option("--baseline", metavar="RUN", help="Compare with this, now.")
@common_options
def command(
    runs: tuple[str, ...],
    output: Path,
    baseline: str | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Write the HTML report of a RUN: one file that loads nothing.

    The first RUN is shown with the newest verdict the store keeps on it, else it is
    compared now, as `evalkit gate` does. Where there is no baseline yet, the metrics of
    all RUNs stand side by side. The exit status does not tell the verdict: that is the
    gate's.
    """
    from evalkit.config import load_settings
    from evalkit.decide.selectors import find_run
    from evalkit.store.views import open_store

    settings = load_settings(config)
    opened = open_store(store or settings.store_path)
    found = [str(find_run(opened.runs(), run)["run_id"]) for run in runs]
    verdict = _verdict_on(found[0], baseline, opened, settings)
    write_html(verdict, opened, output, settings=settings, runs=found)
    say(f"wrote {output}")
    for problem in opened.problems:
        say(f"warning: {problem}")
    if as_json:
        word = None if verdict is None else verdict["verdict"]
        print_json({"path": str(output), "runs": found, "verdict": word})
    return EXIT_PASS


def write_html(
    verdict: Mapping[str, Any] | None,
    store: Store,
    path: Path,
    *,
    settings: Settings,
    runs: Sequence[str] = (),
) -> None:
    """Write the report with the expected values of the golden sets as they are on disk."""
    from evalkit.decide.report import write_report

    write_report(
        verdict,
        store,
        path,
        runs=runs,
        project=settings.root,
        expected=_expected(store, settings),
        budgets=budgets_of(settings),
    )


def budgets_of(settings: Settings) -> dict[str, float]:
    """Feature -> the milliseconds that a call of it may take."""
    return {name: feature.max_latency_ms for name, feature in settings.features.items()}


def _verdict_on(
    run_id: str, baseline: str | None, store: Store, settings: Settings
) -> Mapping[str, Any] | None:
    """The newest verdict on a run, else one made now; None when there is no baseline yet."""
    if baseline is None:
        for verdict in store.verdicts():
            comparisons = verdict.get("comparisons") or []
            if comparisons and all(one["candidate"].get("run_id") == run_id for one in comparisons):
                return verdict
    from evalkit.decide.gate import run_gate

    verdict = run_gate(
        store,
        candidate=run_id,
        baseline=baseline,
        settings=settings.gate,
        project=settings.root,
    )
    compared = any(one.get("baseline") for one in verdict["comparisons"])
    return verdict if compared or baseline is not None else None


def _expected(store: Store, settings: Settings) -> Expected:
    """Looks a case's expected value up in its golden set, unless the case was edited since."""
    paths = {
        name: settings.root / one["path"]
        for run in reversed(store.runs())
        for name, one in (run.get("golden_sets") or {}).items()
        if one.get("path")
    }
    loaded: dict[str, GoldenSet | None] = {}

    def load(name: str) -> GoldenSet | None:
        from evalkit.score.golden import load_golden_set

        try:
            return load_golden_set(paths[name], settings=settings) if name in paths else None
        except EvalkitError:
            return None  # moved, or no longer valid: the report says what it knows without

    def expected(golden_set: str, case_id: str, case_hash: str) -> tuple[bool, Any]:
        if golden_set not in loaded:
            loaded[golden_set] = load(golden_set)
        golden = loaded[golden_set]
        if golden is None or case_id not in golden.cases:
            return False, None
        case = golden.cases[golden.cases.ids.index(case_id)]
        return (case.has_expected, case.expected) if case.case_hash == case_hash else (False, None)

    return expected
