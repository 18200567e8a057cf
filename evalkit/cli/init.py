"""`evalkit init`: a project that runs at once, and what to do with it.

Writes files that are not there yet and changes none that are. The first run, with the
older of two prompts, becomes the baseline, so that the gate has something to say.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from evalkit import __version__
from evalkit.cli.options import common_options, print_json, say
from evalkit.errors import EXIT_PASS, EvalkitError, cannot_be_written
from evalkit.git import git

CONFIG = "evalkit.toml"
PROJECT = {
    CONFIG: "project/evalkit.toml",
    "prompts/answer-question/v1.md": "project/prompts/answer-question/v1.md",
    "prompts/answer-question/v2.md": "project/prompts/answer-question/v2.md",
    "golden_sets/library-help/golden_set.yaml": "project/golden_sets/library-help/golden_set.yaml",
    "golden_sets/library-help/cases.jsonl": "project/golden_sets/library-help/cases.jsonl",
    "golden_sets/library-help/answer.schema.json": (
        "project/golden_sets/library-help/answer.schema.json"
    ),
    "golden_sets/library-help/README.md": "project/golden_sets/library-help/README.md",
    "judges/usable.yaml": "project/judges/usable.yaml",
}
"""File of the new project -> its template in scaffold/."""

IGNORE_FILE, STORE = ".gitignore", ".evalkit"
IGNORES = {IGNORE_FILE: "project/gitignore"}

WORKFLOWS = {
    ".github/workflows/evalkit-gate.yml": "github/evalkit-gate.yml",
    ".github/workflows/evalkit-comment.yml": "github/evalkit-comment.yml",
    ".github/workflows/evalkit-nightly.yml": "github/evalkit-nightly.yml",
    ".github/workflows/evalkit-sample.yml": "github/evalkit-sample.yml",
}

GOLDEN_SET = ("library-help", "answer-question")
"""The scaffold's golden set and its feature."""
BRANCH = "main"
"""The default branch that the templates name."""
FIRST_PROMPT = "answer-question@v1"


@click.command("init")
@click.argument(
    "folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path, file_okay=False)
)
@click.option("--ci", type=click.Choice(["github"]), help="Add workflows for this service, too.")
@click.option("--no-run", is_flag=True, help="Write files only; make no baseline.")
@common_options
def command(
    folder: Path,
    ci: str | None,
    no_run: bool,
    as_json: bool,
    store: str | None,
    config: Path | None,
) -> int:
    """Start a project in DIR (default: here) that runs at once, without key or network.

    Writes a configuration, two versions of a prompt, a golden set and a judge, and runs
    the golden set once with prompt v1 as a baseline. A file that is there is never
    changed. --ci github adds workflows: a gate on pull requests, a nightly
    run, a sample of production's calls; where there is a configuration, these alone.
    """
    from evalkit.config import config_in

    if config is not None:
        raise click.UsageError("--config names a configuration that is there; init writes one.")
    there = config_in(folder)
    example = {} if ci and there else {**PROJECT, **IGNORES}
    if there and there.name != CONFIG:
        example.pop(CONFIG, None)  # it would be read in place of the one that is there
    files = {**example, **(WORKFLOWS if ci else {})}
    made = scaffold(folder, files, branch=_default_branch(folder))
    own_project = not there and not set(made.kept) & set(PROJECT)
    run_id = None if no_run or not own_project else _first_run(folder, store)
    steps = _next_steps(folder, run_id, own_project=own_project)
    if as_json:
        print_json(
            {
                "dir": str(folder),
                "written": list(made.written),
                "kept": list(made.kept),
                "baseline_run": run_id,
                "next": [step for step, _ in steps],
            }
        )
    else:
        _print(made, folder, run_id, steps, example=bool(example), ci=ci)
    return EXIT_PASS


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaffolded:
    """What was done; paths inside the project, in order."""

    written: tuple[str, ...]
    kept: tuple[str, ...]
    """Files that were there before and are as they were."""


def scaffold(folder: Path, files: dict[str, str], *, branch: str = BRANCH) -> Scaffolded:
    """Write those of `files` (path -> template) that are not there; ConfigError when it cannot.

    `branch` is the repository's default branch.
    """
    from evalkit.content import find_content

    written, kept = [], []
    for name, template in files.items():
        text = find_content("scaffold", template, project=folder).read_text(encoding="utf-8")
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_new(path, _with_branch(text.replace("EVALKIT_VERSION", __version__), branch))
            written.append(name)
        except FileExistsError:
            kept.append(name)
        except OSError as error:
            advice = " Choose a folder that you may write to: evalkit init DIR."
            raise cannot_be_written(str(path), error, advice) from None
    return Scaffolded(written=tuple(written), kept=tuple(kept))


def _write_new(path: Path, text: str) -> None:
    """Write a file that is not there, or none: half of one would be kept by the next init."""
    with path.open("x", encoding="utf-8", newline="\n") as file:
        try:
            file.write(text)
            file.flush()
        except OSError:
            path.unlink()
            raise


def _with_branch(text: str, branch: str) -> str:
    """A template's text for a repository whose default branch is not called main."""
    if branch == BRANCH:
        return text
    name = json.dumps(branch)
    text = text.replace(f"branches: [{BRANCH}]", f"branches: [{name}]")
    return text.replace("[gate]\n", f"[gate]\ndefault_branch = {name}\n")


def _default_branch(folder: Path) -> str:
    """As git knows it: the remote's, else main or master, else the branch of the work tree."""
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.is_dir())

    if remote := git(there, "symbolic-ref", "--short", "refs/remotes/origin/HEAD"):
        return remote.removeprefix("origin/")
    for name in (BRANCH, "master"):
        if git(there, "rev-parse", "-q", "--verify", name):
            return name
    return git(there, "symbolic-ref", "--short", "HEAD") or BRANCH


def _first_run(folder: Path, store: str | None) -> str | None:
    """Run prompt v1 and choose it as the baseline; a new project is worth having without, too."""
    from evalkit.config import load_settings
    from evalkit.session import run_golden_sets
    from evalkit.store.views import open_store
    from evalkit.wiring import RunRequest

    try:
        settings = load_settings(folder / CONFIG)
        finished = run_golden_sets(settings, RunRequest(prompts=(FIRST_PROMPT,)), store=store)
        if not finished.summary.complete:
            return None
        open_store(finished.store).baselines.set(*GOLDEN_SET, finished.run_id)
    except EvalkitError as error:
        say(f"warning: the first run could not be made: {error}")
        return None
    return finished.run_id


def _next_steps(folder: Path, run_id: str | None, *, own_project: bool) -> list[tuple[str, str]]:
    """Commands, each with what it is for."""
    steps = []
    if folder.resolve() != Path.cwd():
        steps.append((f"cd {shlex.quote(str(folder))}", ""))
    if not own_project:
        return [*steps, ("evalkit check", "does what was there fit what is new?")]
    if run_id is None:
        steps.append((f"evalkit run --prompt {FIRST_PROMPT}", "the baseline"))
    return [
        *steps,
        ("evalkit run", "the golden set with prompt v2, which evalkit.toml names"),
        ("evalkit gate", "did quality drop against v1?"),
        ("evalkit show q-12", "one case: its line, its answer, its scores"),
        ("evalkit report latest -o evalkit-report.html", "the same for a browser"),
    ]


def _ignores_store(path: Path) -> bool:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.strip().strip("/") == STORE for line in lines)


def _print(
    made: Scaffolded,
    folder: Path,
    run_id: str | None,
    steps: Sequence[tuple[str, str]],
    *,
    example: bool,
    ci: str | None,
) -> None:
    for name in made.written:
        click.echo(f"wrote {name}")
    for name in made.kept:
        click.echo(f"kept  {name}: it was there")
        if name == IGNORE_FILE and not _ignores_store(folder / name):
            click.echo(f"      add to it: {STORE}/")
    if run_id is not None:
        click.echo(f"\nRan the golden set with prompt v1, to compare with: run {run_id}")
    click.echo("\nNext:\n")
    width = max(len(step) for step, _ in steps)
    for step, why in steps:
        click.echo(f"    {step:<{width}}  {'# ' + why if why else ''}".rstrip())
    click.echo()
    if example:
        click.echo("Then put your own cases, prompt and model in the place of these:")
        click.echo(f"golden_sets/library-help/README.md, {CONFIG}.")
        click.echo("What is missing: evalkit doctor.")
    if ci:
        click.echo("The workflows gate pull requests once they are on the default branch.")
