"""`evalkit report`: the HTML report of a run, with what it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import common_options, open_project, print_json, say, warn
from evalkit.errors import EXIT_PASS, EXIT_UNMEASURABLE, EvalkitError

if TYPE_CHECKING:
    from evalkit.config import Settings
    from evalkit.decide.report_cases import Expected
    from evalkit.score.golden import GoldenSet
    from evalkit.store.views import Store


INDEXED_RUNS = 100
"""Newest runs that an index lists."""


@click.command("report")
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="F",
    help="The HTML file to write.",
)  # fmt: skip
@click.option(
    "--index", "folder", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
    help="A folder to write: index.html and a report of each run.",
)  # fmt: skip
@click.option("--baseline", metavar="RUN", help="Compare with this, now.")
@common_options
def command(
    runs: tuple[str, ...],
    output: Path | None,
    folder: Path | None,
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

    With --index, a folder to browse: the RUNs (default: the newest 100) with their newest
    verdicts, each with its report. A report that is there already is made anew only when
    there is a newer verdict.
    """

    _check_options(runs, output, folder, baseline)
    settings, opened = open_project(store, config)
    if folder is not None:
        said = _write_folder(folder, runs, opened, settings)
    else:
        assert output is not None
        said = _write_one(output, runs, baseline, opened, settings)
    damaged = [error for run in said["runs"] if (error := opened.damage_of(run))]
    warn(dict.fromkeys([*opened.problems, *damaged]))
    if as_json:
        print_json(said)
    return EXIT_UNMEASURABLE if damaged else EXIT_PASS


def _check_options(
    runs: Sequence[str], output: Path | None, folder: Path | None, baseline: str | None
) -> None:
    if folder is None and (output is None or not runs):
        raise click.UsageError("Name a RUN and a file to write with -o, or a folder with --index.")
    if folder is not None and (output is not None or baseline is not None):
        raise click.UsageError("--index goes without -o and --baseline: it shows kept verdicts.")


def _write_one(
    output: Path, runs: Sequence[str], baseline: str | None, store: Store, settings: Settings
) -> dict[str, Any]:
    from evalkit.decide.naming import run_named

    found = [str(run_named(store, run)["run_id"]) for run in runs]
    verdict = _verdict_on(found[0], baseline, store, settings)
    write_html(verdict, store, output, settings=settings, runs=found)
    say(f"wrote {output}")
    word = None if verdict is None else verdict["verdict"]
    return {"path": str(output), "runs": found, "verdict": word}


def _write_folder(
    folder: Path, runs: Sequence[str], store: Store, settings: Settings
) -> dict[str, Any]:
    from evalkit.decide.naming import run_named
    from evalkit.decide.report_index import newest_verdicts, write_index

    every = store.runs()
    listed = [run_named(store, run) for run in dict.fromkeys(runs)] or every[:INDEXED_RUNS]
    verdicts = newest_verdicts(store.verdicts())
    written = _write_reports(folder, listed, verdicts, store, settings)
    more = 0 if runs else len(every) - len(listed)
    path = write_index(
        listed, verdicts, folder, project=settings.root, n_more=more, problems=store.problems
    )
    say(f"wrote {path} and {written} of {len(listed)} reports")
    return {
        "path": str(path),
        "runs": [run["run_id"] for run in listed],
        "written": written,
        "verdicts": {run: verdict["verdict"] for run, verdict in verdicts.items()},
    }


def _write_reports(
    folder: Path,
    runs: Sequence[Mapping[str, Any]],
    verdicts: Mapping[str, Mapping[str, Any]],
    store: Store,
    settings: Settings,
) -> int:
    """The reports of sealed runs that are not there yet, or older than their verdict."""
    from evalkit.decide.report_index import INDEX, report_name

    written = 0
    for run in runs:
        run_id, verdict = run["run_id"], verdicts.get(run["run_id"])
        path = folder / report_name(run_id)
        newest = max((verdict or {}).get("created_at") or "", run.get("sealed_at") or "")
        if not run["files"] or (path.exists() and _modified(path) > newest):
            continue
        try:
            write_html(verdict, store, path, settings=settings, runs=[run_id], index=INDEX)
            written += 1
        except EvalkitError as error:
            store.problems.append(f"no report of {run_id}: {error}")
    return written


def _modified(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()


def write_html(
    verdict: Mapping[str, Any] | None,
    store: Store,
    path: Path,
    *,
    settings: Settings,
    runs: Sequence[str] = (),
    index: str | None = None,
) -> None:
    """Write the report with the expected values of the golden sets as they are on disk."""
    from evalkit.decide.report import budgets_of, write_report

    write_report(
        verdict,
        store,
        path,
        runs=runs,
        project=settings.root,
        expected=_expected(store, settings),
        budgets=budgets_of(settings),
        index=index,
    )


def _verdict_on(
    run_id: str, baseline: str | None, store: Store, settings: Settings
) -> Mapping[str, Any] | None:
    """The newest verdict on a run, else one made now; None when there is no baseline yet."""
    from evalkit.decide.gate import run_gate
    from evalkit.decide.report_index import newest_verdicts

    kept = newest_verdicts(store.verdicts()).get(run_id) if baseline is None else None
    verdict = kept or run_gate(
        store,
        candidate=run_id,
        baseline=baseline,
        settings=settings.gate,
        project=settings.root,
    )
    if baseline is not None or verdict["verdict"] != "unmeasurable":
        return verdict
    return verdict if any(one.get("baseline") for one in verdict["comparisons"]) else None


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
