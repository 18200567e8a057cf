"""`evalkit ci`: what a build does, in one step: baseline, run, gate, and where to show it.

GitHub's action and workflows call this and nothing else. The two halves, run and gate,
are the commands of that name as processes of their own: whatever ends them, the build
gets a verdict, and neither sees the build's tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from evalkit.cli.options import ALPHA, SHARE, USD, F, common_options, print_json, say
from evalkit.errors import EXIT_PASS, EXIT_USAGE, EvalkitError

PREFIX = "EVALKIT_CI_"


def _from_env(name: str) -> str:
    return PREFIX + name.upper().replace("-", "_")


def _option(name: str, **settings: Any) -> Callable[[F], F]:
    """An option that the environment can set, too: inputs of an action never reach a shell."""
    return click.option(f"--{name}", envvar=_from_env(name), show_envvar=True, **settings)


@click.group("ci")
def command() -> None:
    """Gate a change in CI. GitHub's action and workflows call this."""


@command.command("gate")
@_option("golden-sets", metavar="LIST", help="Golden sets; default: all.")
@_option("models", metavar="LIST", help="Models; default: as evalkit.toml says.")
@_option("prompts", metavar="LIST", help="NAME@V; default: as evalkit.toml says.")
@_option(
    "baseline",
    default="auto",
    metavar="auto|RUN|FILE|branch:NAME|none",
    help="auto: the default branch's artifact, else golden_sets/*/baseline.zip, else the base "
    "commit run here.",
)
@_option("alpha", type=ALPHA, help="As evalkit gate.")
@_option("max-drop", type=SHARE, help="As evalkit gate.")
@_option("strict", is_flag=True, help="As evalkit gate.")
@_option("max-cost", type=USD, metavar="USD", help="As evalkit run; of each run.")
@_option("replay", metavar="FILE", help="Recorded responses to answer from, as evalkit run.")
@_option("require-baseline", is_flag=True, help="Nothing to compare with is unmeasurable.")
@_option("report", default="true", metavar="true|false|F", help="The HTML report, and where.")
@_option(
    "out", default="evalkit-ci", type=click.Path(path_type=Path, file_okay=False),
    help="Folder for verdict, report and scores.",
)  # fmt: skip
@common_options
def gate(
    golden_sets: str | None,
    models: str | None,
    prompts: str | None,
    baseline: str,
    alpha: float | None,
    max_drop: float | None,
    strict: bool,
    max_cost: float | None,
    replay: str | None,
    require_baseline: bool,
    report: str,
    out: Path,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Run golden sets, compare with the baseline, and show the verdict.

    Lists are separated by commas, spaces or lines. Exit status as evalkit gate. On GitHub
    it writes the step's summary, annotations and outputs; everywhere the files in --out:
    verdict.json, verdict.md, junit.xml, results.sarif, code-quality.json, report.html,
    scores/, and on the default branch baseline.zip.
    """
    from evalkit.cli.ci_gate import Asked, run_ci_gate

    asked = Asked(
        golden_sets=_listed(golden_sets),
        models=_listed(models),
        prompts=_listed(prompts),
        baseline=baseline,
        alpha=alpha,
        max_drop=max_drop,
        strict=strict,
        max_cost_usd=max_cost,
        replay=Path(replay).absolute() if replay else None,
        require_baseline=require_baseline,
        report=_report(report, out),
        out=out,
        store=store,
        config=config,
    )
    ended = run_ci_gate(asked, say=say if as_json else click.echo)
    if as_json:
        print_json(ended.verdict)
    return ended.status


@command.command("comment")
@_option(
    "out", default="evalkit-ci", type=click.Path(path_type=Path, file_okay=False),
    help="Folder that evalkit ci gate wrote.",
)  # fmt: skip
@_option("artifact", default="evalkit-gate", help="After another workflow: its artifact.")
def comment(out: Path, artifact: str) -> int:
    """Keep one comment on the pull request, with the newest verdict.

    In the pull request's own workflow from --out; in a workflow_run workflow from the
    artifact of the run that ended, as data: that run may have been a fork's.
    """
    from evalkit.cli.ci_comment import keep_comment
    from evalkit.exchange.github_api import GitHubError

    try:
        say(keep_comment(out, artifact))
    except GitHubError as error:
        reason = " ".join(str(error).split())
        if not error.is_githubs_own:
            say(f"no comment: {reason}")
            return EXIT_USAGE
        # The gate has said what it has to say: that GitHub takes no comment fails no build.
        say(f"::warning title=evalkit::no comment: {reason}")
    except EvalkitError as error:
        say(f"no comment: {error}")
        return EXIT_USAGE
    return EXIT_PASS


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple((text or "").replace(",", " ").split())


def _report(text: str, out: Path) -> Path | None:
    if text.lower() in ("", "false", "no", "none"):
        return None
    return out / "report.html" if text.lower() in ("true", "yes") else Path(text)
