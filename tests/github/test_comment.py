"""`evalkit ci comment`: in the pull request's own workflow, and for forks in a second one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.decide.github import MARKER
from tests.decide.test_github import comparison, verdict
from tests.github.api import REPOSITORY, TOKEN, FakeGitHub, serve

SHA = "c" * 40
RUN = {
    "id": 7, "event": "pull_request", "head_branch": "better", "head_sha": SHA,
    "html_url": "https://github.test/else/app/actions/runs/7",
    "head_repository": {"owner": {"login": "else"}, "full_name": "else/app"},
}  # fmt: skip


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with serve(FakeGitHub()) as served:
        served.pulls.append(
            {"number": 5, "owner": "else", "branch": "better", "head": {"sha": SHA}}
        )
        yield served


@pytest.fixture
def comment(
    github: FakeGitHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Run the command in a workflow_run workflow, unless told otherwise."""

    def run(event_name: str = "workflow_run", **event: Any) -> int:
        payload = {"workflow_run": RUN, **event}
        (tmp_path / "event.json").write_text(json.dumps(payload))
        for name, value in {
            "GITHUB_REPOSITORY": REPOSITORY, "GITHUB_API_URL": github.url,
            "GITHUB_EVENT_NAME": event_name, "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
            "EVALKIT_CI_TOKEN": TOKEN,
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        return main(["ci", "comment", "--out", str(tmp_path)])

    return run


def leave(github: FakeGitHub, value: Any, *, run_id: int = 7) -> None:
    """What a workflow of the fork left behind."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    github.add_artifact("evalkit-gate", {"verdict.json": data}, fork=True, run_id=run_id)


def test_a_forks_verdict_is_commented_by_the_second_workflow(
    comment: Callable[..., int], github: FakeGitHub
) -> None:
    leave(github, verdict(comparison()))

    assert comment() == 0

    (only,) = github.comments
    assert only["body"].startswith(MARKER)
    assert "**regression**" in only["body"]
    assert "POST issues/5/comments" in github.asked


def test_the_artifact_of_another_run_is_not_looked_at(
    comment: Callable[..., int], github: FakeGitHub
) -> None:
    leave(github, verdict(comparison()), run_id=8)

    assert comment() == 0

    assert github.comments == []


def test_a_pull_request_that_has_moved_on_gets_no_old_verdict(
    comment: Callable[..., int], github: FakeGitHub
) -> None:
    leave(github, verdict(comparison()))
    github.pulls[0]["head"]["sha"] = "d" * 40

    assert comment() == 0

    assert github.comments == []


@pytest.mark.parametrize(
    "forged",
    [
        b"\xff\xfe",
        b'{"verdict": "pass"}',
        b"[]",
        b"[" * 100_000,
        json.dumps(verdict(comparison(verdict="<b>fine</b>"))).encode(),
        json.dumps(verdict(comparison(n="<img src=x>"))).encode(),
        json.dumps(verdict(comparison(ci=None, delta=None))).encode(),
    ],
    ids=["no-text", "too-little", "a-list", "deep", "a-word", "a-number", "half-a-comparison"],
)
def test_what_is_no_verdict_is_refused_without_a_comment(
    comment: Callable[..., int], github: FakeGitHub, capsys: pytest.CaptureFixture[str],
    forged: bytes,
) -> None:  # fmt: skip
    leave(github, forged)

    assert comment() == 2

    assert github.comments == []
    assert "verdict.json" in capsys.readouterr().err


def test_a_forged_verdict_can_say_a_lie_but_no_markup(
    comment: Callable[..., int], github: FakeGitHub
) -> None:
    evil = "</details><script>alert(1)</script> @team [x](https://evil.test)"
    leave(github, verdict(comparison(metric=evil, regressed_cases=[evil]), notes=[evil]))

    assert comment() == 0

    body = github.comments[0]["body"]
    assert "<script" not in body
    assert "@team" not in body
    assert "https://evil" not in body


@pytest.mark.parametrize(("status", "ended"), [(403, 0), (500, 0), (429, 0), (404, 2), (401, 2)])
def test_a_github_that_takes_no_comment_is_said_and_fails_no_build(
    comment: Callable[..., int],
    github: FakeGitHub,
    capsys: pytest.CaptureFixture[str],
    status: int,
    ended: int,
) -> None:
    """A token that may only read, as Dependabot's, meets 403; a wrong setting is an error."""
    github.refuse = status

    assert comment() == ended

    said = capsys.readouterr().err
    assert f"no comment: GitHub, pulls: status {status}" in said
    assert said.startswith("::warning") is (ended == 0)
    assert TOKEN not in said


def test_outside_a_pull_request_there_is_nothing_to_say(
    comment: Callable[..., int], github: FakeGitHub
) -> None:
    assert comment("push") == 0
    assert github.asked == []


def test_a_run_for_a_push_is_not_commented(comment: Callable[..., int], github: FakeGitHub) -> None:
    leave(github, verdict(comparison()))

    assert comment(workflow_run={**RUN, "event": "push"}) == 0

    assert github.comments == []
