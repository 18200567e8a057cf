"""action.yml end to end: its steps run as a runner runs them, each way a build can end."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from evalkit.decide.github import MARKER, MAX_ANNOTATIONS
from evalkit.store.views import open_store
from tests.github.api import REPOSITORY, FakeGitHub, serve
from tests.github.composite import Job, Runner
from tests.project import write_project

BASE, HEAD = "a" * 40, "b" * 40

APP = """
import os, re

def answer(input):
    number = int(re.match(r"\\d+", input["text"])[0])
    {spoiler}
    return '{{"label": "%s"}}' % ("billing" if number % 2 == 0 else "delivery")
"""
GOOD = "pass"
WORSE = "number += number % 3 == 0"
KILLED = "os.kill(os.getpid(), 9)"
CHOOSES = """
    if number == 0:
        from evalkit.store.views import open_store
        store = open_store(".evalkit")
        (first,) = [run["run_id"] for run in store.runs() if run["status"] == "complete"]
        store.baselines.set("tickets", "classify", first)
""".strip()
DOWN = "raise RuntimeError('the database is down')"
LEAKS = "assert not [n for n in os.environ if 'TOKEN' in n or n == 'GITHUB_OUTPUT']"


@pytest.fixture(scope="module")
def blessed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose baseline is committed beside its golden set."""
    folder = write_project(tmp_path_factory.mktemp("blessed"), target="app:answer", cases=60)
    (folder / "app.py").write_text(APP.format(spoiler=GOOD))
    place = str(folder / "golden_sets/tickets/baseline.zip")
    for words in (["run"], ["baseline", "set", "latest"], ["baseline", "export", place]):
        subprocess.run([sys.executable, "-m", "evalkit", *words], cwd=folder, check=True)
    shutil.rmtree(folder / ".evalkit")
    return folder


@pytest.fixture
def project(blessed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(blessed, tmp_path / "work"))


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    with serve(FakeGitHub()) as served:
        yield served


@pytest.fixture
def build(project: Path, tmp_path: Path, github: FakeGitHub) -> Callable[..., Job]:
    """Run the action on a pull request of the same repository, unless told otherwise."""

    def run(
        app: str = GOOD, *, event_name: str = "pull_request", ref_name: str = "5/merge",
        event: dict[str, Any] | None = None, **inputs: str,
    ) -> Job:  # fmt: skip
        (project / "app.py").write_text(APP.format(spoiler=app))
        inputs.setdefault("report", "false")
        pull = {"number": 5, "base": {"sha": BASE}, "head": {"repo": {"full_name": REPOSITORY}}}
        payload = {"repository": {"default_branch": "main"}, "pull_request": pull, **(event or {})}
        (tmp_path / "event.json").write_text(json.dumps(payload))
        env = {
            "GITHUB_REPOSITORY": REPOSITORY,
            "GITHUB_SERVER_URL": "https://github.test",
            "GITHUB_API_URL": github.url,
            "GITHUB_EVENT_NAME": event_name,
            "GITHUB_EVENT_PATH": str(tmp_path / "event.json"),
            "GITHUB_REF_NAME": ref_name,
            "GITHUB_SHA": HEAD,
            "GITHUB_RUN_ID": "99",
        }
        return Runner(tmp_path, project, env).use_action(**inputs)

    return run


def annotations(job: Job) -> list[str]:
    return [line for line in job.log.splitlines() if line.startswith(("::error", "::warning"))]


def committed(project: Path) -> Callable[..., str]:
    """Commit the project as it is; returns git, to ask more of it."""

    def git(*words: str) -> str:
        who = ["-c", "user.name=t", "-c", "user.email=t@t.test"]
        done = subprocess.run(
            ["git", *who, *words], cwd=project, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    (project / ".gitignore").write_text(".evalkit/\n")
    git("init", "-q", "-b", "main")
    git("add", "-A")
    git("commit", "-q", "-m", "base")
    return git


def without_baseline(project: Path) -> None:
    (project / "golden_sets/tickets/baseline.zip").unlink()


# --- the ways a build ends ---------------------------------------------------------------


def test_no_drop_passes_and_leaves_verdict_report_and_scores(
    build: Callable[..., Job], tmp_path: Path, github: FakeGitHub
) -> None:
    job = build(report="true")

    out = tmp_path / "evalkit-gate"
    verdict = json.loads(job.outputs["verdict-json"])
    assert (job.status, job.outputs["verdict"], annotations(job)) == (0, "pass", [])
    assert verdict["comparisons"][0]["candidate"]["run_id"] == job.outputs["run-id"]
    assert job.outputs["report-path"] == str(out / "report.html")
    assert verdict == json.loads((out / "verdict.json").read_text())
    assert {path.name for path in out.iterdir()} == {
        "verdict.json", "verdict.md", "junit.xml", "results.sarif", "code-quality.json",
        "report.html", "scores",
    }  # fmt: skip
    assert [path.suffix for path in (out / "scores").iterdir()] == [".parquet"]
    assert job.used == {
        "Keep verdict, report and scores": {
            "name": "evalkit-gate", "path": str(out), "overwrite": "True",
        }
    }  # fmt: skip
    assert "### pass" in job.summary
    assert [one["body"].startswith(MARKER) for one in github.comments] == [True]


def test_a_drop_fails_and_points_at_the_lines_of_the_golden_set(
    build: Callable[..., Job], github: FakeGitHub
) -> None:
    job = build(WORSE)

    found = annotations(job)
    assert (job.status, job.outputs["verdict"]) == (1, "regression")
    assert found[0].startswith("::error file=golden_sets/tickets/golden_set.yaml,line=")
    assert "file=golden_sets/tickets/cases.jsonl,line=1," in found[1]
    assert len(found) == MAX_ANNOTATIONS
    assert found[-1].endswith("more in the report")
    assert "**regression**" in job.summary
    assert "**regression**" in github.comments[0]["body"]
    assert "Comment" in job.ran


def test_too_little_data_passes_and_is_3_when_strict(build: Callable[..., Job]) -> None:
    job = build(max_drop="0.0001")
    strict = build(max_drop="0.0001", strict="true")

    assert (job.status, job.outputs["verdict"]) == (0, "inconclusive")
    assert (strict.status, strict.outputs["verdict"]) == (3, "inconclusive")
    assert [line.partition(" ")[0] for line in annotations(job)] == ["::warning"]


def test_without_a_baseline_it_passes_with_a_warning(
    build: Callable[..., Job], project: Path
) -> None:
    without_baseline(project)

    job = build()

    assert (job.status, job.outputs["verdict"]) == (0, "pass")
    assert [line.partition(":: ")[0][:40] for line in annotations(job)] == [
        "::warning title=evalkit%3A no baseline::"
    ]


def test_a_baseline_whose_metrics_have_other_names_by_now_is_not_called_missing(
    build: Callable[..., Job], project: Path
) -> None:
    header = project / "golden_sets/tickets/golden_set.yaml"
    text = header.read_text().replace("name: label", "name: right").replace("shape", "form")
    header.write_text(text)

    job = build()

    (said,) = annotations(job)
    assert job.status == 0
    assert "Nothing could be compared with the baseline (committed" in said
    assert "the baseline has no rows of this metric" in said


def test_without_a_baseline_that_is_required_it_is_unmeasurable(
    build: Callable[..., Job], project: Path
) -> None:
    without_baseline(project)

    job = build(require_baseline="true")

    assert (job.status, job.outputs["verdict"]) == (3, "unmeasurable")
    assert annotations(job)[0].startswith("::error title=evalkit%3A no baseline::")


def test_a_run_that_is_killed_is_unmeasurable_and_can_be_resumed(
    build: Callable[..., Job], github: FakeGitHub
) -> None:
    job = build(KILLED)

    assert (job.status, job.outputs["verdict"]) == (3, "unmeasurable")
    assert job.outputs["run-id"]
    assert f"--resume {job.outputs['run-id']}" in job.outputs["verdict-json"]
    assert job.outputs["report-path"] == ""
    assert "signal 9" in annotations(job)[0]
    assert "Keep verdict, report and scores" in job.used
    assert "unmeasurable" in github.comments[0]["body"]


def test_a_mistake_in_a_golden_set_is_2_and_named_at_its_line(
    build: Callable[..., Job], project: Path
) -> None:
    cases = project / "golden_sets/tickets/cases.jsonl"
    cases.write_text(cases.read_text() + '{"id": "t-9", "input": {"text": "x"}}\n')

    job = build()

    assert (job.status, job.outputs["verdict"], job.outputs["run-id"]) == (2, "unmeasurable", "")
    assert "file=golden_sets/tickets/cases.jsonl,line=61,title=evalkit check::" in job.log


def test_a_prompt_that_is_not_there_is_2_and_annotated(build: Callable[..., Job]) -> None:
    job = build(prompts="classify-ticket@v9")

    assert (job.status, job.outputs["verdict"]) == (2, "unmeasurable")
    [said] = annotations(job)
    assert said.startswith("::error ")


@pytest.mark.parametrize(
    ("named", "status", "why"),
    [
        ("scores.xlsx", 2, "'scores.xlsx' is neither a run"),
        ("nope", 2, "'nope' is neither a run"),
        ("nope.csv", 2, "nope.csv"),
        ("nope.zip", 2, "nope.zip"),
        ("branch:mian", 3, "no complete run of that branch"),
    ],
)
def test_a_baseline_that_is_named_and_not_there_is_said_before_any_call(
    build: Callable[..., Job], project: Path, named: str, status: int, why: str
) -> None:
    job = build(baseline=named)

    assert (job.status, job.outputs["verdict"]) == (status, "unmeasurable")
    assert why in annotations(job)[0]
    assert open_store(project / ".evalkit").runs() == []


# --- where the baseline is from ----------------------------------------------------------


def test_a_push_to_the_default_branch_makes_the_next_baseline(
    build: Callable[..., Job], project: Path, github: FakeGitHub
) -> None:
    without_baseline(project)
    pushed = build(event_name="push", ref_name="main")
    archive = Path(pushed.used["Keep the baseline"]["path"])
    github.add_artifact("evalkit-baseline", {archive.name: archive.read_bytes()}, sha=BASE)
    (scores,) = (archive.parent / "scores").iterdir()
    rows = parquet.ParquetFile(scores).metadata.num_rows
    shutil.rmtree(project / ".evalkit")

    job = build(WORSE)

    assert (pushed.status, rows) == (0, 120)
    assert (job.status, job.outputs["verdict"]) == (1, "regression")
    assert "main at aaaaaaaaaa (artifact)" in job.log


def test_a_push_during_an_outage_makes_no_baseline(
    build: Callable[..., Job], project: Path, tmp_path: Path
) -> None:
    without_baseline(project)
    build(event_name="push", ref_name="main")
    shutil.rmtree(tmp_path / "evalkit-gate")
    before = open_store(project / ".evalkit").baselines.all()

    job = build(DOWN, event_name="push", ref_name="main")

    assert (job.status, job.outputs["verdict"]) == (3, "unmeasurable")
    assert "Keep the baseline" not in job.used
    assert "this run is no baseline for tickets: 60 of 60 scores of label" in job.log
    assert open_store(project / ".evalkit").baselines.all() == before


def test_a_baseline_that_somebody_chose_meanwhile_stays(
    build: Callable[..., Job], project: Path
) -> None:
    without_baseline(project)
    first = build()

    job = build(CHOOSES, event_name="push", ref_name="main")

    with zipfile.ZipFile(job.used["Keep the baseline"]["path"]) as archive:
        (left,) = json.loads(archive.read("baselines.json"))["baselines"]
    chosen = open_store(project / ".evalkit").baselines.get("tickets", "classify")
    assert (job.status, job.outputs["verdict"]) == (0, "pass")
    assert (chosen, left["run_id"]) == (first.outputs["run-id"], job.outputs["run-id"])
    assert "the store's choice was left alone: tickets: its baseline is" in job.log


def test_the_merge_queue_compares_with_the_commit_it_merges_onto(
    build: Callable[..., Job], project: Path, github: FakeGitHub
) -> None:
    zipped = (project / "golden_sets/tickets/baseline.zip").read_bytes()
    without_baseline(project)
    github.add_artifact("evalkit-baseline", {"baseline.zip": zipped}, sha=BASE)
    github.add_artifact("evalkit-baseline", {"baseline.zip": zipped}, sha="c" * 40)

    job = build(
        WORSE, event_name="merge_group", ref_name="gh-readonly-queue/main/pr-5-a",
        event={"merge_group": {"base_sha": BASE}, "pull_request": None},
    )  # fmt: skip

    assert (job.status, job.outputs["verdict"]) == (1, "regression")
    assert "baseline: main at aaaaaaaaaa (artifact)" in job.log
    assert github.comments == []
    assert "Keep the baseline" not in job.used


def test_an_artifact_of_a_fork_with_a_branch_of_that_name_is_not_the_baseline(
    build: Callable[..., Job], project: Path, github: FakeGitHub
) -> None:
    data = (project / "golden_sets/tickets/baseline.zip").read_bytes()
    github.add_artifact("evalkit-baseline", {"baseline.zip": data}, fork=True)
    github.add_artifact("evalkit-baseline", {"baseline.zip": data}, branch="other")

    job = build()

    assert "baseline: committed: golden_sets/tickets/baseline.zip\n" in job.log
    assert not [one for one in github.asked if one.endswith("/zip")]


def test_a_damaged_artifact_is_named_and_the_next_source_is_taken(
    build: Callable[..., Job], github: FakeGitHub
) -> None:
    github.add_artifact("evalkit-baseline", {"baseline.zip": b"not a zip"})

    job = build()

    assert (job.status, job.outputs["verdict"]) == (0, "pass")
    assert "not an export of baselines" in job.log
    assert "baseline: committed: " in job.log


def test_the_base_commit_is_run_where_nothing_else_is_there(
    build: Callable[..., Job], project: Path
) -> None:
    without_baseline(project)
    git = committed(project)
    sha = git("rev-parse", "HEAD")

    job = build(WORSE, event={"pull_request": {"number": 5, "base": {"sha": sha}}})

    assert (job.status, job.outputs["verdict"]) == (1, "regression")
    assert f"baseline: {sha[:10]}, run in this job" in job.log
    assert git("worktree", "list").count("\n") == 0


def test_none_compares_nothing_whatever_the_store_has(
    build: Callable[..., Job], project: Path
) -> None:
    build()

    job = build(WORSE, baseline="none")

    assert (job.status, job.outputs["verdict"], compared(job)) == (0, "pass", set())
    assert "baseline: none was asked for" in job.log
    assert annotations(job)[0].endswith("::none was asked for")


def test_what_a_store_that_outlives_the_job_has_is_announced_as_the_baseline(
    build: Callable[..., Job], project: Path
) -> None:
    without_baseline(project)
    first = build()

    job = build(WORSE)

    assert (job.status, job.outputs["verdict"]) == (1, "regression")
    assert f"baseline: of this store: run {first.outputs['run-id']} for tickets" in job.log
    assert "no baseline yet" not in job.log


def add_orders(project: Path) -> None:
    """A second golden set, like the first."""
    orders = shutil.copytree(project / "golden_sets/tickets", project / "golden_sets/orders")
    header = orders / "golden_set.yaml"
    header.write_text(header.read_text().replace("name: tickets", "name: orders"))
    (orders / "baseline.zip").unlink(missing_ok=True)


def compared(job: Job) -> set[str]:
    return {one["golden_set"] for one in json.loads(job.outputs["verdict-json"])["comparisons"]}


def test_an_artifact_without_one_of_the_golden_sets_is_not_all_there_is_to_compare_with(
    build: Callable[..., Job], project: Path, github: FakeGitHub
) -> None:
    zipped = (project / "golden_sets/tickets/baseline.zip").read_bytes()
    github.add_artifact("evalkit-baseline", {"baseline.zip": zipped}, sha=BASE)
    without_baseline(project)
    add_orders(project)
    sha = committed(project)("rev-parse", "HEAD")

    job = build(WORSE, event={"pull_request": {"number": 5, "base": {"sha": sha}}})

    assert (job.status, compared(job)) == (1, {"tickets", "orders"})
    assert f"baseline: {sha[:10]}, run in this job" in job.log


def test_a_new_golden_set_is_said_to_have_no_baseline_and_costs_no_run_of_the_base(
    build: Callable[..., Job], project: Path, github: FakeGitHub
) -> None:
    zipped = (project / "golden_sets/tickets/baseline.zip").read_bytes()
    github.add_artifact("evalkit-baseline", {"baseline.zip": zipped}, sha=BASE)
    without_baseline(project)
    sha = committed(project)("rev-parse", "HEAD")
    add_orders(project)

    job = build(event={"pull_request": {"number": 5, "base": {"sha": sha}}})

    assert (job.status, compared(job)) == (0, {"tickets"})
    assert "baseline: there is none for orders" in job.log
    assert "run in this job" not in job.log


@pytest.mark.parametrize(
    ("spoilt", "inputs", "why"),
    [
        ("cost", {"max_cost": "0.000001"}, "the base commit's run stopped at --max-cost (run "),
        ("toml", {}, "the base commit's run ended with status 2 and left no result"),
    ],
)
def test_a_base_commit_that_cannot_be_measured_is_no_pass(
    build: Callable[..., Job], project: Path, spoilt: str, inputs: dict[str, str], why: str
) -> None:
    without_baseline(project)
    config = project / "evalkit.toml"
    whole = config.read_text()
    (project / "app.py").write_text(APP.format(spoiler=GOOD))
    if spoilt == "toml":
        config.write_text(whole.replace("classify@v1", "classify@v9"))
    sha = committed(project)("rev-parse", "HEAD")
    # The change costs nothing, so that only the base meets the limit.
    config.write_text(re.sub(r"price = .*", "price = { input = 0.0, output = 0.0 }", whole))

    job = build(event={"pull_request": {"number": 5, "base": {"sha": sha}}}, **inputs)

    assert (job.status, job.outputs["verdict"]) == (3, "unmeasurable")
    assert why in annotations(job)[0]
    assert why in json.loads(job.outputs["verdict-json"])["notes"][0]


def test_base_and_change_run_side_by_side(
    build: Callable[..., Job], project: Path, tmp_path: Path
) -> None:
    without_baseline(project)
    here, met = tmp_path / "here", tmp_path / "met"
    waits = (
        f"import time; from pathlib import Path; until = time.monotonic() + 60\n    while not "
        f"Path({str(here)!r}).exists() and time.monotonic() < until: time.sleep(0.01)\n    "
        f"Path({str(here)!r}).exists() and Path({str(met)!r}).touch()"
    )
    (project / "app.py").write_text(APP.format(spoiler=waits))
    sha = committed(project)("rev-parse", "HEAD")

    job = build(
        f"open({str(here)!r}, 'w').close()",
        event={"pull_request": {"number": 5, "base": {"sha": sha}}},
    )

    assert f"baseline: {sha[:10]}, run in this job" in job.log
    assert met.exists()


def test_recorded_responses_need_no_model_and_no_key(
    build: Callable[..., Job], project: Path
) -> None:
    (project / "app.py").write_text(APP.format(spoiler=GOOD))
    record = [sys.executable, "-m", "evalkit", "run", "--record", "tape.jsonl"]
    subprocess.run(record, cwd=project, check=True)

    job = build(KILLED, replay="tape.jsonl")

    assert (job.status, job.outputs["verdict"]) == (0, "pass")


# --- what others must not do -------------------------------------------------------------


def test_code_under_test_sees_no_token_and_cannot_speak_for_the_step(
    build: Callable[..., Job],
) -> None:
    job = build(LEAKS)

    assert (job.status, job.outputs["verdict"]) == (0, "pass")


def test_inputs_reach_no_shell(build: Callable[..., Job], tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    job = build(prompts=f"$(touch {marker}) `touch {marker}` ; touch {marker}")

    assert job.status == 2
    assert not marker.exists()


def test_what_a_golden_set_says_is_no_command_for_the_runner(
    build: Callable[..., Job], project: Path
) -> None:
    header = project / "golden_sets/tickets/golden_set.yaml"
    cases = project / "golden_sets/tickets/cases.jsonl"
    without_baseline(project)
    first, rest = cases.read_text().split("\n", 1)
    evil = {
        **json.loads(first),
        "id": "::error::%0A",
        "must_pass": True,
        "expected": {"label": "x"},
    }
    cases.write_text(json.dumps(evil) + "\n" + rest)
    assert header.exists()

    job = build()

    assert job.outputs["verdict"] == "regression"
    (line,) = [one for one in annotations(job) if "has to pass" in one]
    assert "::%3A" not in line
    assert "::error::%250A has to pass label" in line
    assert "::error::" not in job.summary


def test_a_forks_pull_request_gets_no_comment_from_its_own_workflow(
    build: Callable[..., Job], github: FakeGitHub
) -> None:
    fork = {"number": 5, "base": {"sha": BASE}, "head": {"repo": {"full_name": "else/app"}}}

    job = build(event={"pull_request": fork})

    assert job.status == 0
    assert github.comments == []


def test_the_comment_is_one_however_often_the_build_runs(
    build: Callable[..., Job], github: FakeGitHub
) -> None:
    build()
    github.comments.insert(0, {"id": 0, "user": {"type": "User"}, "body": MARKER})
    github.comments[1]["id"] = 1

    build(WORSE)

    assert [one["body"] == MARKER for one in github.comments] == [True, False]
    assert "**regression**" in github.comments[1]["body"]
    assert "[the build and its artifacts](https://github.test/" in github.comments[1]["body"]


def test_a_comment_that_cannot_be_written_does_not_change_the_verdict(
    build: Callable[..., Job], github: FakeGitHub
) -> None:
    job = build(comment="false")

    assert job.status == 0
    assert "Comment" not in job.ran
    assert github.comments == []
