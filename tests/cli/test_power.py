"""`evalkit power`: which runs it learns from, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.cli.main import main
from tests.project import case, write_project

TWO = ("--prompt", "classify@v1", "--prompt", "classify@v2")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def power(capsys: pytest.CaptureFixture[str], *options: str) -> dict:
    capsys.readouterr()
    assert main(["power", "tickets", "--json", *options]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    return found


def test_without_runs_it_assumes_the_worst_and_says_so(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(project, cases=200)

    assert main(["power", "tickets"]) == 0

    shown = capsys.readouterr().out
    assert "tickets: 200 cases x 1 trials, alpha 0.05 over 1 gating comparison" in shown
    assert "assumed, as no two earlier runs can be compared" in shown


def test_slices_that_gate_share_the_level(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    channels = ["mail"] * 6 + ["chat"] * 5 + ["fax"] * 4
    rows = [{**case(n), "metadata": {"channel": one}} for n, one in enumerate(channels)]
    write_project(project, cases=rows, header="slices: [{key: channel, gate: true}]")

    assert power(capsys)["comparisons"] == 3


def test_two_pairs_of_one_run_show_the_spread_of_a_change(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(project, target="tests.apps:by_prompt", cases=100)
    main(["run", *TWO])

    (label,) = power(capsys)["metrics"]

    assert not label["assumed"]
    assert label["source"] == "1 comparison of different pairs, 100 cases in 1 run"
    # Every other case falls by 1: variance 1/4 over cases, n - 1 in the denominator.
    assert label["between"] == pytest.approx(0.25 * 100 / 99)
    assert label["within"] is None


def test_trials_show_the_noise_within_cases(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(project, target="tests.cli.test_power:every_other_time", cases=30)
    main(["run", "--trials", "2", "--concurrency", "1"])
    main(["run", "--trials", "2", "--concurrency", "1"])

    (label,) = power(capsys)["metrics"]

    # Of two trials of a case one is right: variance 1/2 a side.
    assert label["within"] == pytest.approx(1.0)
    assert "of one pair with itself" in label["source"]


def every_other_time(input: dict, calls: list[int] = []) -> dict[str, str]:  # noqa: B006
    """Right at every second call."""
    calls.append(1)
    right = "billing" if "billing" in input["text"] else "delivery"
    wrong = "delivery" if right == "billing" else "billing"
    return {"label": right if len(calls) % 2 else wrong}


def test_a_run_that_stopped_early_is_no_history(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(project, target="tests.apps:by_prompt", cases=200)
    main(["run", "--stop-early", *TWO])

    (label,) = power(capsys)["metrics"]

    assert label["assumed"]


def test_clusters_are_counted(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [case(n, **({"cluster": f"doc-{n // 10}"} if n < 50 else {})) for n in range(100)]
    write_project(project, target="tests.apps:by_prompt", cases=cases)
    main(["run", *TWO])

    found = power(capsys)

    assert (found["n"], found["n_clusters"]) == (100, 55)
    assert not found["metrics"][0]["assumed"]


def test_a_metric_can_be_named_whether_it_gates_or_not(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(project)

    found = power(capsys, "--metric", "shape", "--trials", "5", "--drop", "0.1")

    assert [one["metric"] for one in found["metrics"]] == ["shape"]
    assert (found["trials"], found["drop"]) == (5, 0.1)


def test_an_unknown_metric_is_a_usage_error(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(project)

    assert main(["power", "tickets", "--metric", "lable"]) == 2
    assert "There are: label, shape." in capsys.readouterr().err
