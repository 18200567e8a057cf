"""`evalkit doctor`: what is missing for a run, each with what to do about it.

Looks only: it asks no model, shows no key, and reaches out only with --network.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from evalkit import __version__
from evalkit.call.providers.scrubbing import secret_names, unset_secrets
from evalkit.cli.options import common_options, count, print_json
from evalkit.errors import EXIT_PASS, EXIT_UNMEASURABLE, EXIT_USAGE, ConfigError, EvalkitError
from evalkit.git import git

if TYPE_CHECKING:
    from evalkit.settings import ProviderSettings, Settings

Status = Literal["ok", "note", "missing", "damaged"]
NETWORK_TIMEOUT_S = 5.0
LOW_SPACE_BYTES = 500_000_000


@click.command("doctor")
@click.option("--network", is_flag=True, help="Reach every provider, too; free of cost.")
@click.option("--files", is_flag=True, help="Read the store's files, each against its checksum.")
@common_options
def command(
    network: bool, files: bool, as_json: bool, store: str | None, config: Path | None
) -> int:
    """Say what is missing: Python, packages, keys, the store, providers, git.

    Exit status 2 when something that is needed is missing, 3 when a file of the store is
    damaged. Keys are looked for by the name of their environment variable and never shown.
    """
    findings = list(examine(config, store, network=network, files=files))
    found = {one.status for one in findings}
    healthy = found <= {"ok", "note"}
    if as_json:
        print_json({"ok": healthy, "findings": [asdict(one) for one in findings]})
    else:
        _print(findings)
    if "missing" in found:
        return EXIT_USAGE
    return EXIT_PASS if healthy else EXIT_UNMEASURABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    about: str
    status: Status
    """missing: a run needs it. damaged: what needs it cannot be measured. note: worth knowing."""
    detail: str
    fix: str = ""


def examine(
    config: Path | None, store: str | None, *, network: bool, files: bool = False
) -> Iterator[Finding]:
    """Look at everything, as far as each part can be seen without the others."""
    from evalkit.config import load_settings

    yield _python()
    yield from _packages()
    try:
        settings = load_settings(config)
    except ConfigError as error:
        for problem in error.problems:
            yield Finding(about="configuration", status="missing", detail=problem)
        return
    yield _configuration(settings)
    yield from _content(settings)
    yield _store(store or settings.store_path)
    if files:
        yield from _files(store or settings.store_path)
    needed = _needed_providers(settings)
    for provider in needed:
        yield _provider(provider)
        if network and provider.base_url:
            yield _reached(provider)
    for provider in settings.providers.values():
        if provider not in needed and unset_secrets(provider):
            yield _not_yet_used(provider)
    yield _git(settings)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    detail = f"Python {version}, evalkit {__version__} in {Path(__file__).parents[1]}"
    return Finding(about="python", status="ok", detail=detail)


def _packages() -> Iterator[Finding]:
    """Required packages that do not fit, and which extras are there."""
    from importlib.metadata import PackageNotFoundError, metadata, requires, version

    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in requires("evalkit") or ()]
        extras = metadata("evalkit").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        yield Finding(
            about="packages", status="note", detail="evalkit runs without being installed"
        )
        return

    def absent(extra: str) -> list[str]:
        gone = []
        for one in wanted:
            if one.marker is not None and not one.marker.evaluate({"extra": extra}):
                continue
            try:
                if not one.specifier.contains(version(one.name), prereleases=True):
                    gone.append(f"{one.name}{one.specifier} (there is {version(one.name)})")
            except PackageNotFoundError:
                gone.append(f"{one.name}{one.specifier}")
        return gone

    bad = absent("")
    detail = f"not as required: {', '.join(bad)}" if bad else "all that are required"
    fix = "python -m pip install --upgrade evalkit" if bad else ""
    yield Finding(about="packages", status="missing" if bad else "ok", detail=detail, fix=fix)
    for extra in extras:
        if extra == "dev":
            continue
        there = not absent(extra)
        yield Finding(
            about=f"extra {extra}",
            status="ok" if there else "note",
            detail="installed" if there else "not installed",
            fix="" if there else f'where wanted: python -m pip install "evalkit[{extra}]"',
        )


def _configuration(settings: Settings) -> Finding:
    if settings.path is None:
        detail = f"none in {settings.root} or above: defaults, the embedded model alone"
        return Finding(
            about="configuration", status="note", detail=detail, fix="start a project: evalkit init"
        )
    has = f"{count(len(settings.features), 'feature')}, {count(len(settings.models), 'model')}"
    return Finding(about="configuration", status="ok", detail=f"{settings.path}: {has}")


def _content(settings: Settings) -> Iterator[Finding]:
    from evalkit.cli.check import check_project

    found = check_project((), settings.path)
    n = len(found.problems)
    if n:
        first = str(found.problems[0])
        more = f" (and {n - 1} more)" if n > 1 else ""
        yield Finding(
            about="content",
            status="missing",
            detail=first + more,
            fix="see all with: evalkit check",
        )
        return
    for note in found.notes:
        yield Finding(about="configuration", status="note", detail=note.problem, fix=note.fix)
    sets, cases = found.checked.get("golden_sets", 0), found.checked.get("cases", 0)
    detail = f"{count(sets, 'golden set')} with {count(cases, 'case')}"
    status: Status = "ok" if sets else "note"
    fix = "" if sets else "add golden_sets/NAME/golden_set.yaml, or evalkit init"
    yield Finding(about="content", status=status, detail=detail, fix=fix)


# --- the store ---------------------------------------------------------------------


def _store(path: str) -> Finding:
    from evalkit.store.views import open_store

    try:
        opened = open_store(path)
    except EvalkitError as error:
        return Finding(about="store", status="missing", detail=str(error))
    there = next(p for p in (opened.path, *opened.path.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding(
            about="store",
            status="missing",
            detail=f"{opened.path}: cannot be written: {error.strerror}",
            fix="set store in evalkit.toml, or --store, to a folder you may write to",
        )
    runs = opened.runs()
    if opened.problems:
        return Finding(about="store", status="note", detail="; ".join(opened.problems[:3]))
    free = shutil.disk_usage(there).free
    detail = f"{opened.path}: writable, {len(runs)} runs, {free / 1e9:.1f} GB free"
    low = free < LOW_SPACE_BYTES
    return Finding(
        about="store",
        status="note" if low else "ok",
        detail=detail,
        fix="make space, or move the store" if low else "",
    )


def _files(path: str) -> Iterator[Finding]:
    """What of the store is not what was written."""
    from evalkit.store.checking import check_files
    from evalkit.store.views import open_store

    try:
        checked = check_files(open_store(path))
    except EvalkitError as error:
        yield Finding(about="files", status="damaged", detail=str(error))
        return
    for detail in checked.damaged:
        yield Finding(about="files", status="damaged", detail=detail)
    if not checked.damaged:
        detail = f"{count(checked.files, 'file')} read, each is what was written"
        yield Finding(about="files", status="ok", detail=detail)


# --- providers ---------------------------------------------------------------------


def _needed_providers(settings: Settings) -> list[ProviderSettings]:
    """Of the models that features and judges name; all of them where nothing is named."""
    models = {
        name
        for feature in settings.features.values()
        for name in (feature.model, *feature.fallbacks)
    }
    models |= {settings.run.judge_model} if settings.run.judge_model else set()
    names = {settings.models[name].provider for name in models if name in settings.models}
    return [one for name, one in settings.providers.items() if name in (names or {name})]


def _provider(settings: ProviderSettings) -> Finding:
    """Its key, by name, and whether it can be set up; nothing is sent."""
    from evalkit.call.functions import load_function
    from evalkit.call.providers import build_provider

    about = f"provider {settings.name}"
    gone = unset_secrets(settings)
    if gone:
        one = gone[0]
        return Finding(
            about=about,
            status="missing",
            detail=f"environment variable {', '.join(gone)} is not set",
            fix=f"export {one}=…",
        )
    if settings.wire in ("openai", "anthropic"):
        named = ", ".join(secret_names(settings)) or "no key"
        return Finding(about=about, status="ok", detail=f"{settings.base_url}, {named}")
    try:
        build_provider(settings)
        if settings.target:
            load_function(settings.target)
    except EvalkitError as error:
        return Finding(about=about, status="missing", detail=str(error))
    except Exception as error:  # a user's own function may fail in any way
        detail = f"cannot be set up: {type(error).__name__}: {error}"
        return Finding(about=about, status="missing", detail=detail, fix="correct its target")
    return Finding(about=about, status="ok", detail=f"wire {settings.wire}")


def _not_yet_used(settings: ProviderSettings) -> Finding:
    """A provider that no feature names: its key is needed once one does, or `--model` asks."""
    gone = ", ".join(unset_secrets(settings))
    detail = f"no feature uses it; environment variable {gone} is not set"
    return Finding(about=f"provider {settings.name}", status="note", detail=detail)


def _reached(settings: ProviderSettings) -> Finding:
    """Whether its server answers at all, and takes the key; asks for no completion."""
    import httpx

    about = f"network {settings.name}"
    url = str(settings.base_url).rstrip("/")
    key = os.environ.get(settings.api_key_env or "", "")
    headers: dict[str, str] = {}
    if settings.wire == "openai":
        url += "/models"
        headers = {"Authorization": f"Bearer {key}"} if key else {}
    elif settings.wire == "anthropic":
        url += "/v1/models"
        headers = {"x-api-key": key, "anthropic-version": "2023-06-01"} if key else {}
    verify = settings.verify if isinstance(settings.verify, bool) else str(settings.verify)
    try:
        with httpx.Client(timeout=NETWORK_TIMEOUT_S, verify=verify) as client:
            status = client.get(url, headers=headers).status_code
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return Finding(
            about=about,
            status="missing",
            detail=f"{settings.base_url} does not answer: {type(error).__name__}",
            fix="check base_url, the network and the proxy",
        )
    if status in (401, 403) and settings.wire in ("openai", "anthropic"):
        return Finding(
            about=about,
            status="missing",
            detail=f"{settings.base_url} refuses the key (status {status})",
            fix=f"set {settings.api_key_env or 'api_key_env'} to a key of this server",
        )
    return Finding(about=about, status="ok", detail=f"{settings.base_url} answers")


# --- git ---------------------------------------------------------------------------


def _git(settings: Settings) -> Finding:
    """The gate's default baseline is the default branch, so a repository has to have it."""
    if shutil.which("git") is None:
        return Finding(
            about="git",
            status="note",
            detail="not installed: runs do not know their commit and branch",
            fix="install git, or name baselines yourself: evalkit baseline set RUN",
        )
    ask = partial(git, settings.root)
    if ask("rev-parse", "--is-inside-work-tree") is None:
        return Finding(
            about="git",
            status="note",
            detail="not a repository: a run is compared with the one before it",
            fix="Start one: git init",
        )
    branch = settings.gate.default_branch
    known = [name for name in (branch, f"origin/{branch}") if ask("rev-parse", "--verify", name)]
    if not known:
        return Finding(
            about="git",
            status="note",
            detail=f"there is no branch {branch}, whose runs are the baseline",
            fix="set default_branch under [gate] in evalkit.toml",
        )
    here = ask("rev-parse", "--abbrev-ref", "HEAD")
    return Finding(about="git", status="ok", detail=f"on {here}; the baseline is {branch}")


def _print(findings: list[Finding]) -> None:
    from evalkit.errors import shown

    width = max(len(one.about) for one in findings)
    for one in findings:
        fix = f". {one.fix[:1].upper()}{one.fix[1:]}" if one.fix and one.status != "ok" else ""
        click.echo(f"{one.status:<7}  {one.about:<{width}}  {shown(one.detail.rstrip('.') + fix)}")
    n = sum(one.status == "missing" for one in findings)
    damaged = sum(one.status == "damaged" for one in findings)
    click.echo(f"\n{n} missing" if n else "\nnothing is missing")
    if damaged:
        click.echo(f"{damaged} damaged")
