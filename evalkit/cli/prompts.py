"""`evalkit prompts`: which versions there are, what they say, and what differs between two."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalkit.cli.options import common_options, print_json, say, warn
from evalkit.errors import EXIT_PASS, EXIT_USAGE, ConfigError, ContentError, StoreError

if TYPE_CHECKING:
    from evalkit.call.prompts import Prompt, PromptRegistry
    from evalkit.config import Settings


@click.group("prompts")
def command() -> None:
    """List prompt versions, show one, compare two.

    A version is its text: what has been run under a version is never edited, a new text
    is a new version.
    """


@command.command("list")
@common_options
def list_(as_json: bool, store: str | None, config: Path | None) -> int:
    """All versions, their hashes, who uses them; exit status 2 when one was edited after use."""
    settings, registry = _open(config)
    known = _hashes_in_store(store or settings.store_path)
    users = _users(settings)
    rows = []
    for name in registry.names():
        for version in registry.versions(name):
            identity, row = f"{name}@{version}", {"name": name, "version": version}
            rows.append(row | _state(registry, name, version, known.get(identity), users))
    if as_json:
        print_json({"prompts": rows})
    for row in rows if not as_json else ():
        _print_row(row)
    if not rows:
        say(f"no prompts in {registry.folder}")
    problems = [row["problem"] for row in rows if row["problem"] is not None]
    for problem in problems:
        say(problem)
    return EXIT_USAGE if problems else EXIT_PASS


@command.command("show")
@click.argument("prompt", metavar="NAME@VERSION")
@common_options
def show(prompt: str, as_json: bool, store: str | None, config: Path | None) -> int:
    """The text of one version."""
    settings, registry = _open(config)
    found = _get(registry, prompt)
    if as_json:
        print_json({
            "name": found.name,
            "version": found.version,
            "hash": found.hash,
            "path": str(found.path.relative_to(settings.root)),
            "meta": dict(found.meta),
            "used_by": _users(settings).get(prompt, []),
            "sections": [{"role": s.role, "text": s.text, "line": s.line} for s in found.sections],
        })  # fmt: skip
    else:
        say(f"{prompt}  {found.hash}  {found.path.relative_to(settings.root)}")
        click.echo(found.path.read_text(encoding="utf-8"), nl=False)
    return EXIT_PASS


@command.command("diff")
@click.argument("before", metavar="NAME@VERSION")
@click.argument("after", metavar="VERSION")
@common_options
def diff(before: str, after: str, as_json: bool, store: str | None, config: Path | None) -> int:
    """What VERSION (or another NAME@VERSION) says otherwise."""
    _, registry = _open(config)
    old = _get(registry, before)
    new = _get(registry, after if "@" in after else f"{old.name}@{after}")
    names = f"{old.name}@{old.version}", f"{new.name}@{new.version}"
    lines = list(unified_diff(_lines(old), _lines(new), *names, lineterm=""))
    if as_json:
        print_json({
            "before": {"prompt": names[0], "hash": old.hash},
            "after": {"prompt": names[1], "hash": new.hash},
            "diff": lines,
        })  # fmt: skip
        return EXIT_PASS
    for line in lines:
        colour = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
        click.secho(line, fg=colour)
    if not lines:
        say("the same text")
    return EXIT_PASS


def _open(config: Path | None) -> tuple[Settings, PromptRegistry]:
    from evalkit.call.prompts import PromptRegistry
    from evalkit.config import load_settings

    settings = load_settings(config)
    return settings, PromptRegistry(settings.root)


def _get(registry: PromptRegistry, identity: str) -> Prompt:
    name, at, version = identity.rpartition("@")
    if not (at and name and version):
        raise ConfigError(f"{identity!r} is not NAME@VERSION, e.g. classify-ticket@v2.")
    return registry.get(name, version)


def _lines(prompt: Prompt) -> list[str]:
    return prompt.path.read_text(encoding="utf-8").splitlines()


def _hashes_in_store(path: str) -> dict[str, str]:
    """NAME@VERSION -> the hash that `run` would hold it to, or production's at any address."""
    from evalkit.session import FIRST_HASHES, prompts_seen
    from evalkit.store.views import open_store

    store = open_store(path)
    known = prompts_seen(store)
    try:
        rows = store.sql(FIRST_HASHES) if (store.path / "calls").is_dir() else []
    except StoreError as error:
        store.problems.append(str(error))
        rows = []
    warn(dict.fromkeys(store.problems))
    used = {(row["name"], row["version"]): row["hash"] for row in rows} | known
    return {f"{name}@{version}": content_hash for (name, version), content_hash in used.items()}


def _users(settings: Settings) -> dict[str, list[str]]:
    """NAME@VERSION -> the features and flags that name it."""
    users: dict[str, list[str]] = {}
    for feature in settings.features.values():
        identity = f"{feature.prompt_name}@{feature.prompt_version}"
        users.setdefault(identity, []).append(f"feature {feature.name}")
    for flag in settings.flags.values():
        if flag.prompt is not None:
            users.setdefault(flag.prompt, []).append(f"flag {flag.name}")
    return users


def _state(
    registry: PromptRegistry,
    name: str,
    version: str,
    known: str | None,
    users: Mapping[str, list[str]],
) -> dict[str, Any]:
    """What is known of one version; `problem` where it cannot be used or was edited."""
    content_hash, problem = None, None
    try:
        content_hash = registry.get(name, version).hash
        if known is not None:
            registry.check_unchanged({(name, version): known})
    except ContentError as error:
        problem = str(error)
    return {
        "hash": content_hash,
        "used_by": users.get(f"{name}@{version}", []),
        "in_store": known is not None,
        "problem": problem,
    }


def _print_row(row: Mapping[str, Any]) -> None:
    identity = f"{row['name']}@{row['version']}"
    facts = [*row["used_by"], *(["has been run"] if row["in_store"] else [])]
    if row["problem"] is not None:
        facts.append("EDITED" if row["hash"] else "UNUSABLE")
    click.echo(f"{identity:<32} {row['hash'] or '-':<16} {', '.join(facts)}".rstrip())
