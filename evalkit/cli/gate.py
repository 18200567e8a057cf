"""`evalkit gate`: compare a run, or any runner's results, with its baseline and decide."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import ALPHA, SHARE, common_options, echo_json, open_project, say
from evalkit.errors import cannot_be_written

if TYPE_CHECKING:
    from evalkit.config import GateSettings, Settings
    from evalkit.decide.rows import FileRows
    from evalkit.decide.terminal import Role
    from evalkit.store.views import Engine, Store

FILE = click.Path(path_type=Path, dir_okay=False, writable=True)


@click.command("gate")
@click.option(
    "--candidate",
    metavar="RUN|FILE",
    help="Default: latest, the newest complete run; latest~1 is the one before.",
)
@click.option(
    "--baseline",
    metavar="RUN|FILE|branch:NAME|pooled|none",
    help="Default: as set by `evalkit baseline`, else pooled: the default branch's complete runs. "
    "none: nothing is compared.",
)
@click.option(
    "--compare",
    multiple=True,
    metavar="CAND:BASE",
    help="Compare only these; each side RUN, MODEL/PROMPT@VERSION, or RUN:MODEL/PROMPT@VERSION.",
)
@click.option("--alpha", type=ALPHA, help="False alarms allowed; 0.05.")
@click.option("--correction", type=click.Choice(["holm", "bh"]), help="For many comparisons.")
@click.option("--tolerance", type=SHARE, help="Drop that is allowed, 0..1, for every metric.")
@click.option("--max-drop", type=SHARE, help="Drop that a pass has to exclude, for every metric.")
@click.option("--strict", is_flag=True, help="Inconclusive fails (3), too.")
@click.option("--allow-no-baseline", is_flag=True, help="Pass what has no baseline yet.")
@click.option("--junit", type=FILE, metavar="F", help="Write the verdict as JUnit XML.")
@click.option("--sarif", type=FILE, metavar="F", help="Write it as SARIF, for code scanning.")
@click.option("--markdown", type=FILE, metavar="F", help="Write it as Markdown.")
@click.option("--code-quality", type=FILE, metavar="F", help="Write it for GitLab's code quality.")
@click.option("--html", type=FILE, metavar="F", help="Write the HTML report.")
@common_options
def command(
    candidate: str | None,
    baseline: str | None,
    compare: tuple[str, ...],
    alpha: float | None,
    correction: str | None,
    tolerance: float | None,
    max_drop: float | None,
    strict: bool,
    allow_no_baseline: bool,
    junit: Path | None,
    sarif: Path | None,
    markdown: Path | None,
    code_quality: Path | None,
    html: Path | None,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Compare a run with its baseline, case by case, and decide.

    Exit status: 0 pass or inconclusive, 1 regression or a failed must-pass case,
    3 unmeasurable (and inconclusive with --strict). FILE is .csv, .jsonl or .parquet
    with case_id, metric and score, from any runner.
    """
    # No linear algebra here: its threads alone take a tenth of the CPU of a small gate.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

    from evalkit.decide.gate import exit_code, run_gate
    from evalkit.store.views import Engine

    texts = {"junit": junit, "sarif": sarif, "markdown": markdown, "code-quality": code_quality}
    _refuse_overwriting({"candidate": candidate, "baseline": baseline}, texts | {"html": html})
    settings, opened = open_project(store, config)
    policy = _policy(settings.gate, alpha=alpha, correction=correction, strict=strict or None)
    engine = Engine()
    verdict = run_gate(
        opened,
        candidate=_side(candidate, engine),
        baseline=_side(baseline, engine),
        settings=policy,
        compare=compare,
        tolerance=tolerance,
        max_drop=max_drop,
        allow_no_baseline=allow_no_baseline,
        project=settings.root,
        engine=engine,
    )
    if any(texts.values()):
        _write_texts(verdict, {kind: path for kind, path in texts.items() if path}, settings.root)
    if html:
        _write_html(verdict, opened, html, settings)
    if as_json:
        _print_json(verdict)
    else:
        print_verdict(verdict)
    return exit_code(verdict)


def _refuse_overwriting(
    sides: Mapping[str, str | None], outputs: Mapping[str, Path | None]
) -> None:
    """Raise UsageError where a file to be written is compared, or written twice."""
    from evalkit.strict import is_file, real_path

    files = {kind: Path(side) for kind, side in sides.items() if side}
    taken = {real_path(file): f"--{kind}" for kind, file in files.items() if is_file(file)}
    for kind, path in outputs.items():
        if path is None or path.is_char_device():
            continue
        other = taken.setdefault(real_path(path), f"--{kind}")
        if other != f"--{kind}":
            raise click.UsageError(f"--{kind} {path}: {other} has that name. Choose another.")


def _policy(settings: GateSettings, **changed: Any) -> GateSettings:
    return replace(settings, **{name: v for name, v in changed.items() if v is not None})


def _side(text: str | None, engine: Engine) -> str | FileRows | None:
    """A selector as it is; a results file as its rows."""
    from evalkit.exchange.results import is_results_file, load_results

    if text is None or not is_results_file(text):
        return text
    from evalkit.decide.rows import FileRows

    results = load_results(Path(text), engine=engine)
    return FileRows(name=text, table=results.table, notes=results.notes)


def _write_texts(verdict: Mapping[str, Any], paths: Mapping[str, Path], root: Path) -> None:
    from evalkit.decide import render
    from evalkit.decide.code_quality import code_quality

    write = {
        "junit": lambda: render.junit(verdict),
        "sarif": lambda: render.sarif(verdict, root=root),
        "markdown": lambda: render.markdown(verdict),
        "code-quality": lambda: code_quality(verdict, root=root),
    }
    for kind, path in paths.items():
        text = write[kind]()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise cannot_be_written(f"--{kind} {path}", error) from None
        say(f"wrote {path}")


def _write_html(verdict: Mapping[str, Any], store: Store, path: Path, settings: Settings) -> None:
    from evalkit.cli.report import write_html

    write_html(verdict, store, path, settings=settings)
    say(f"wrote {path}")


def _print_json(verdict: Mapping[str, Any]) -> None:
    """The verdict as one JSON document, a comparison a line: thousands are quick to write."""

    def text(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)

    comparisons = ",\n".join(f"    {text(one)}" for one in verdict["comparisons"])
    values = {key: text(value) for key, value in verdict.items() if key != "comparisons"}
    values["comparisons"] = f"[\n{comparisons}\n  ]" if comparisons else "[]"
    lines = ",\n".join(f"  {text(key)}: {values[key]}" for key in verdict)
    echo_json(f"{{\n{lines}\n}}")


def print_verdict(verdict: Mapping[str, Any]) -> None:
    from shutil import get_terminal_size

    from evalkit.decide.terminal import WIDTH, unpainted, verdict_lines

    screen = sys.stdout.isatty()
    for line in verdict_lines(
        verdict,
        width=get_terminal_size((WIDTH, 24)).columns if screen else WIDTH,
        paint=_paint if screen and not os.environ.get("NO_COLOR") else unpainted,
    ):
        click.echo(line)


def _paint(text: str, role: Role, bold: bool) -> str:
    colours = {"pass": "green", "regression": "red", "quiet": None}
    return click.style(
        text, fg=colours.get(role, "yellow"), bold=bold or None, dim=role == "quiet" or None
    )
