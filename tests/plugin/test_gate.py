"""The gate as an item: it fails the session, `--lf` runs it again, the report shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.store.views import open_store
from tests.plugin.conftest import Project


def make_worse(project: Project, *arguments: str, **more: tuple[str, ...]) -> pytest.RunResult:
    """v2, which is wrong on half of the cases, against v1."""
    project.write_cases(60)
    baseline = project.make_baseline()
    return project.eval(
        "--llm-eval-prompt", "classify@v2", "--llm-eval-baseline", baseline, *arguments, **more
    )


def test_a_first_run_has_no_baseline_and_says_so(project: Project) -> None:
    result = project.eval()

    assert result.ret == 1
    result.assert_outcomes(passed=10, failed=1)
    result.stdout.fnmatch_lines(["label on tickets*cannot be measured: no baseline*"])


def test_it_passes_when_nothing_dropped(project: Project) -> None:
    project.write_cases(60)
    baseline = project.make_baseline()

    result = project.eval("--llm-eval-baseline", baseline)

    assert result.ret == 0
    result.assert_outcomes(passed=61)
    result.stdout.fnmatch_lines(["*= evalkit =*", "run * 60 cases, $*", "pass*"])


def test_it_fails_the_session_on_a_regression(project: Project) -> None:
    result = make_worse(project, "--junitxml", "junit.xml")

    assert result.ret == 1
    result.stdout.fnmatch_lines(["label on tickets*quality fell by 50 points*"])
    result.stdout.fnmatch_lines(["FAILED *golden_set.yaml::gate?small/classify@v2?*"])
    outcomes = result.parseoutcomes()
    assert (outcomes["failed"], outcomes["below"]) == (1, 30)
    assert project.junit()["gate[small/classify@v2]"].find("failure") is not None


def test_what_a_session_notes_of_its_answers_is_in_its_run_and_in_the_verdict(
    project: Project,
) -> None:
    project.write_cases(60)
    project.make_baseline()

    project.eval("--llm-eval-prompt", "classify@v2", "--llm-eval-no-gate")

    [run] = [r for r in open_store(project.path / ".evalkit").runs() if r["notes"]]
    assert "duplicate_output: small/classify@v2 gave the same answer" in run["notes"][0]


def test_the_report_is_written_and_its_path_shown(project: Project) -> None:
    result = make_worse(project, "--llm-eval-report", "out/report.html")

    page = (project.path / "out" / "report.html").read_text("utf-8")
    assert "quality fell" in page or "regression" in page
    result.stdout.fnmatch_lines(["report: *out/report.html"])
    result.stdout.fnmatch_lines(["=* evalkit =*", "run * cases, *"], consecutive=True)


def test_the_verdict_is_kept_and_its_file_shown(project: Project) -> None:
    result = make_worse(project)

    (line,) = [line for line in result.stdout.lines if line.startswith("verdict: ")]
    verdict = json.loads(Path(line.removeprefix("verdict: ")).read_text("utf-8"))
    assert verdict["verdict"] == "regression"


def test_last_failed_runs_the_gate_again_with_all_its_cases(project: Project) -> None:
    make_worse(project, plugins=("cacheprovider",))

    again = project.eval(
        "--lf", "--llm-eval-prompt", "classify@v2", "--llm-eval-baseline", project.run_ids()[-1],
        plugins=("cacheprovider",),
    )  # fmt: skip

    assert again.ret == 1
    assert again.parseoutcomes()["failed"] == 1
    assert "passed" not in again.parseoutcomes()
    again.stdout.fnmatch_lines(["run * 60 cases, $*"])


def test_a_gate_alone_runs_the_cases_that_no_item_runs(project: Project) -> None:
    project.write_cases(60)
    baseline = project.make_baseline()

    result = project.eval("-k", "gate or t-0001", "--llm-eval-baseline", baseline)

    result.assert_outcomes(passed=2, deselected=59)


def test_gates_come_last_whatever_the_order(project: Project) -> None:
    project.pytester.makeconftest(
        """
        def pytest_collection_modifyitems(items):
            items.reverse()
        """
    )

    result = project.eval("-v")

    lines = [line for line in result.stdout.lines if "golden_set.yaml::" in line and "[" in line]
    names = [line for line in lines if "100%" in line]
    assert "gate[" in names[-1]


def test_a_set_held_only_to_must_pass_metrics_needs_no_baseline(project: Project) -> None:
    header = project.path / "golden_sets" / "tickets" / "golden_set.yaml"
    text = header.read_text("utf-8")
    text = text.replace("gate: true", "must_pass: true")
    header.write_text(text, encoding="utf-8")

    good = project.eval()
    bad = project.eval("--llm-eval-prompt", "classify@v2", "-k", "gate")

    assert good.ret == 0
    assert bad.ret == 1
    bad.stdout.fnmatch_lines(["must-pass case t-0001 failed label*"])


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("nope", "ERROR: 'nope' is neither a run of this store nor *"),
        ("branch:nope", "ERROR: branch:nope: this store has no complete run of that branch"),
        ("nope.csv", "ERROR: nope.csv: no such file."),
    ],
)
def test_a_baseline_that_is_not_there_is_said_before_any_call_is_paid(
    served: Project, named: str, said: str
) -> None:
    result = served.eval("--llm-eval-baseline", named)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([said])
    assert served.run_ids() == []


def test_the_latest_run_is_the_one_before_this_session(project: Project) -> None:
    project.write_cases(60)
    project.make_baseline()

    result = project.eval("--llm-eval-prompt", "classify@v2", "--llm-eval-baseline", "latest")

    result.stdout.fnmatch_lines(["label on tickets*quality fell by 50 points*"])
