"""The work of `evalkit ci comment`: one comment on a pull request, kept up to date.

A fork's workflow cannot write, so a second workflow comments for it. What that one finds
in the artifact may be forged: it is held against the verdict's schema, written with our
own words, and goes to the pull request that GitHub, not the artifact, names.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.cli.ci_gate import VERDICT
from evalkit.cli.ci_github import TOKEN, Context, read_context
from evalkit.errors import ConfigError, InputFileError

if TYPE_CHECKING:
    from evalkit.exchange.github_api import GitHub

MAX_VERDICT_BYTES = 20_000_000


def keep_comment(out: Path, artifact: str) -> str:
    """Write or change the comment; says what was done, or why nothing."""
    context = read_context()
    if context.event_name not in ("pull_request", "workflow_run"):
        return f"no pull request: the event is {context.event_name or 'none'}"
    if context.is_fork:
        return "a fork's pull request: the workflow evalkit-comment comments on it"
    if not context.token:
        raise ConfigError(f"{TOKEN} is not set. Pass github-token, with pull-requests: write.")
    from evalkit.exchange.github_api import GitHub

    with GitHub(context.repository, api_url=context.api_url, token=context.token) as github:
        if context.event_name == "pull_request":
            number = int(context.event["pull_request"]["number"])
            data, run_url = _local(out), context.run_url
        else:
            found = _of_ended_run(github, context, artifact)
            if found is None:
                return "nothing to say: no verdict, or no pull request at that commit any more"
            number, data, run_url = found
        return _write(github, number, read_verdict(data), run_url)


def _local(out: Path) -> bytes:
    try:
        return (out / VERDICT).read_bytes()
    except OSError as error:
        raise InputFileError(f"{out / VERDICT}: {error.strerror}. Run evalkit ci gate.") from None


def _of_ended_run(github: GitHub, context: Context, artifact: str) -> tuple[int, bytes, str] | None:
    """The pull request and the verdict of the workflow run that ended."""
    run = context.event.get("workflow_run") or {}
    if run.get("event") != "pull_request":
        return None
    number = github.open_pull_request(
        owner=str(((run.get("head_repository") or {}).get("owner") or {}).get("login")),
        branch=str(run.get("head_branch")),
        head_sha=str(run.get("head_sha")),
    )
    found = github.artifacts(artifact, run_id=int(run["id"]))
    if number is None or not found:
        return None
    data = github.artifact_file(found[0], VERDICT, max_bytes=MAX_VERDICT_BYTES)
    return number, data, str(run.get("html_url") or "")


def read_verdict(data: bytes) -> dict[str, Any]:
    """A verdict of whatever origin; InputFileError unless it is one through and through."""
    from evalkit.schemas import find_faults
    from evalkit.strict import StrictError, loads_json

    try:
        verdict = loads_json(data.decode("utf-8"), where=VERDICT)
    except (StrictError, UnicodeDecodeError) as error:
        raise InputFileError(f"{VERDICT}: {error}") from None
    faults = find_faults(verdict, "verdict")
    if faults:
        raise InputFileError(f"{VERDICT}: {faults[0]}")
    assert isinstance(verdict, dict)
    return verdict


def _write(github: GitHub, number: int, verdict: dict[str, Any], run_url: str) -> str:
    from evalkit.decide.github import MARKER, comment

    facts = [f"[the build and its artifacts]({run_url})"] if run_url.startswith("https://") else []
    try:
        body = comment(verdict, facts=facts)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        # The schema allows it, and still it cannot be said: no verdict of the gate's.
        raise InputFileError(f"{VERDICT}: cannot be shown: {error}.") from None
    done = github.keep_comment(number, body, marker=MARKER)
    return f"comment on #{number} {done}"
