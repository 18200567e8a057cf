"""What GitHub tells a step, and where a step answers: environment, event, files.

Nothing here asks the network. Outside GitHub everything is absent, and writing an
output does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from os import environ
from pathlib import Path, PurePosixPath
from secrets import token_hex
from typing import Any

MAX_EVENT_BYTES = 30_000_000
TOKEN = "EVALKIT_CI_TOKEN"
SECRET_PREFIXES = ("ACTIONS_", "GITHUB_TOKEN", "GH_TOKEN", TOKEN)
"""Variables that a run of the code under test must not see."""
ANSWERS = ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STEP_SUMMARY", "GITHUB_STATE")
"""Files by which a step speaks for the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Where a step runs, and for which change."""

    event_name: str
    event: Mapping[str, Any]
    repository: str
    sha: str
    ref_name: str
    api_url: str
    run_url: str
    token: str
    workspace: Path | None
    problem: str | None = None
    """What keeps the event from being known."""

    @property
    def on_github(self) -> bool:
        return bool(self.repository)

    @property
    def default_branch(self) -> str | None:
        return (self.event.get("repository") or {}).get("default_branch")

    @property
    def base_sha(self) -> str | None:
        """The commit that a change starts from; None where the event names none."""
        if self.event_name in ("pull_request", "pull_request_target"):
            return (_pull(self.event).get("base") or {}).get("sha")
        if self.event_name == "merge_group":
            return (self.event.get("merge_group") or {}).get("base_sha")
        before = self.event.get("before") if self.event_name == "push" else None
        return before if before and set(before) != {"0"} else None

    @property
    def is_default_push(self) -> bool:
        return self.event_name == "push" and self.ref_name == self.default_branch

    @property
    def is_fork(self) -> bool:
        """Whether a pull request comes from another repository, which has no say here."""
        head = (_pull(self.event).get("head") or {}).get("repo") or {}
        return self.event_name == "pull_request" and head.get("full_name") != self.repository


def _pull(event: Mapping[str, Any]) -> Mapping[str, Any]:
    return event.get("pull_request") or {}


def read_context() -> Context:
    """The step's context; all empty outside GitHub."""
    server, repository = environ.get("GITHUB_SERVER_URL", ""), environ.get("GITHUB_REPOSITORY", "")
    workspace = environ.get("GITHUB_WORKSPACE")
    event, problem = _event(environ.get("GITHUB_EVENT_PATH"))
    return Context(
        event_name=environ.get("GITHUB_EVENT_NAME", ""),
        event=event,
        repository=repository,
        sha=environ.get("GITHUB_SHA", ""),
        ref_name=environ.get("GITHUB_REF_NAME", ""),
        api_url=environ.get("GITHUB_API_URL", "https://api.github.com"),
        run_url=f"{server}/{repository}/actions/runs/{environ.get('GITHUB_RUN_ID', '')}",
        token=environ.get(TOKEN, ""),
        workspace=Path(workspace) if workspace else None,
        problem=problem,
    )


def _event(path: str | None) -> tuple[Mapping[str, Any], str | None]:
    """What happened, and what keeps it from being known."""
    from evalkit.strict import StrictError, loads_json, read_text

    if not path:
        return {}, None
    try:
        event = loads_json(read_text(Path(path), max_bytes=MAX_EVENT_BYTES), where=path)
    except (OSError, StrictError) as error:
        return {}, f"GITHUB_EVENT_PATH cannot be read, so no base commit is known: {error}"
    if not isinstance(event, dict):
        return {}, f"GITHUB_EVENT_PATH ({path}) has no object, so no base commit is known"
    return event, None


def prefix_of(root: Path, context: Context) -> PurePosixPath:
    """From the repository's folder to the project's."""
    if context.workspace is None:
        return PurePosixPath()
    try:
        inside = root.resolve().relative_to(context.workspace.resolve())
    except ValueError:
        return PurePosixPath()
    return PurePosixPath(inside.as_posix())


def for_code_under_test() -> dict[str, str]:
    """The environment without the job's tokens and without its files for answers."""
    return {
        name: value
        for name, value in environ.items()
        if not name.startswith(SECRET_PREFIXES) and name not in ANSWERS
    }


def write_outputs(outputs: Mapping[str, str]) -> None:
    """The step's outputs; the word that ends a value cannot stand in it by chance."""
    path = environ.get("GITHUB_OUTPUT")
    if not path:
        return
    with open(path, "a", encoding="utf-8") as file:
        for name, value in outputs.items():
            end = f"end-{token_hex(16)}"
            file.write(f"{name}<<{end}\n{value}\n{end}\n")


def write_summary(text: str) -> None:
    path = environ.get("GITHUB_STEP_SUMMARY")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(text)


@contextmanager
def commands_off(write: Callable[[str], object], *, on: bool) -> Iterator[None]:
    """While what others wrote is printed, GitHub takes no line of it for a command."""
    if not on:
        yield
        return
    word = f"evalkit-{token_hex(16)}"
    write(f"::stop-commands::{word}")
    try:
        yield
    finally:
        write(f"::{word}::")
