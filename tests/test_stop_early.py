"""Runs that end when enough is known: what still runs, what is sealed, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.cli.main import main
from evalkit.cli.stop_early import early_rule, meetings_of
from evalkit.config import load_settings
from evalkit.errors import ConfigError
from evalkit.records import Pair
from evalkit.session import FinishedRun, run_golden_sets
from evalkit.store.views import open_store
from evalkit.wiring import RunRequest
from tests.loopback import Behaviour, Loopback, Rule
from tests.project import case, write_project

TWO = ("classify@v1", "classify@v2")


def run(folder: Path, resume: str | None = None, **request: object) -> FinishedRun:
    settings = load_settings(folder / "evalkit.toml")
    return run_golden_sets(
        settings,
        RunRequest(**request),  # type: ignore[arg-type]
        resume=resume,
        stop_rule=early_rule(settings.gate),
    )


def pairs(*texts: str) -> list[Pair]:
    return [Pair.parse(text) for text in texts]


def test_a_bad_edit_is_found_with_few_calls(tmp_path: Path) -> None:
    write_project(tmp_path, target="tests.apps:by_prompt", cases=200)

    finished = run(tmp_path, prompts=TWO, stop_early=True)

    early = open_store(tmp_path / ".evalkit").manifest(finished.run_id)["stop_early"]
    assert finished.summary.complete
    assert early["stopped"]
    assert early["calls_saved"] == 400 - finished.summary.done > 200
    (label,) = early["comparisons"]
    assert (label["baseline"], label["candidate"]) == ("small/classify@v1", "small/classify@v2")
    assert label["decision"] == "regression"


def test_slices_that_gate_need_the_whole_run(tmp_path: Path) -> None:
    rows = [{**case(n), "metadata": {"channel": "mail"}} for n in range(20)]
    write_project(tmp_path, cases=rows, header="slices: [{key: channel, gate: true}]")

    with pytest.raises(ConfigError, match=r"golden set tickets gates on slices \(channel\)"):
        run(tmp_path, prompts=TWO, stop_early=True)

    assert open_store(tmp_path / ".evalkit").runs() == []


def test_a_run_that_decides_nothing_runs_to_its_end(tmp_path: Path) -> None:
    write_project(tmp_path, cases=20)

    finished = run(tmp_path, prompts=TWO, stop_early=True)

    assert finished.summary.done == 40
    assert finished.stop_early is not None
    assert not finished.stop_early["stopped"]
    assert finished.stop_early["comparisons"][0]["decision"] is None


def test_cases_run_in_a_random_order_of_their_own(tmp_path: Path) -> None:
    write_project(tmp_path, target="tests.apps:by_prompt", cases=200)

    drawn = []
    for _ in range(2):
        run_id = run(tmp_path, prompts=TWO, stop_early=True).run_id
        rows = open_store(tmp_path / ".evalkit").sql(
            f"SELECT DISTINCT case_id FROM scores WHERE run_id = '{run_id}'"
        )
        drawn.append({row["case_id"] for row in rows})

    first = {f"t-{n:04d}" for n in range(len(drawn[0]))}
    assert drawn[0] != first
    assert drawn[0] != drawn[1]


def test_must_pass_cases_run_whatever_is_decided(tmp_path: Path) -> None:
    cases = [case(n, must_pass=n % 40 == 0) for n in range(200)]
    write_project(tmp_path, target="tests.apps:by_prompt", cases=cases)

    finished = run(tmp_path, prompts=TWO, stop_early=True)

    rows = open_store(tmp_path / ".evalkit").sql("SELECT DISTINCT case_id FROM scores")
    assert {f"t-{n:04d}" for n in range(0, 200, 40)} <= {row["case_id"] for row in rows}
    assert finished.summary.done < 200


def test_a_run_stopped_by_its_budget_decides_on_when_resumed(tmp_path: Path) -> None:
    with Loopback() as server:
        server.script(Rule(Behaviour(text='{"label": "billing"}')))
        write_project(tmp_path, base_url=server.url + "/v1", cases=300)
        stopped = run(tmp_path, prompts=TWO, stop_early=True, max_cost_usd=0.003, concurrency=2)
        finished = run(tmp_path, resume=stopped.run_id, max_cost_usd=10.0)
        asked = dict(server.stats.by_case)

    assert stopped.summary.stopped == "budget_stop"
    assert finished.summary.complete
    assert finished.summary.saved > 0
    assert max(asked.values()) <= 2
    assert finished.stop_early is not None
    assert finished.stop_early["comparisons"][0]["decision"] is not None


def test_a_baseline_pair_runs_beside_the_features_own(tmp_path: Path) -> None:
    write_project(tmp_path, cases=200)

    finished = run(tmp_path, stop_early=True, baseline_pair="small/classify@v2")

    assert finished.stop_early is not None
    (label,) = finished.stop_early["comparisons"]
    assert (label["baseline"], label["candidate"]) == ("small/classify@v2", "small/classify@v1")
    assert label["decision"] == "pass"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prompts": ("classify@v1",)}, "1 pairs run, and it is not plain"),
        ({"baseline_pair": "small/classify@v1"}, "is the only pair of this run"),
        ({"baseline_pair": "big/classify@v1"}, "no model 'big'. There are: .*small"),
        ({"baseline_pair": "small/other@v1"}, "golden set tickets runs prompt classify"),
        ({"baseline_pair": "v1"}, "is not MODEL/PROMPT@VERSION"),
    ],
)
def test_what_is_compared_has_to_be_plain(
    tmp_path: Path, asked: dict[str, object], message: str
) -> None:
    write_project(tmp_path)

    with pytest.raises(ConfigError, match=message):
        run(tmp_path, stop_early=True, **asked)

    assert not (tmp_path / ".evalkit").exists()


def test_two_prompts_meet_for_each_model() -> None:
    asked = pairs("a/p@v1", "b/p@v1", "a/p@v2", "b/p@v2")

    assert meetings_of(asked, None) == [(asked[0], asked[2]), (asked[1], asked[3])]


def test_two_models_meet_on_one_prompt() -> None:
    asked = pairs("a/p@v1", "b/p@v1")

    assert meetings_of(asked, None) == [(asked[0], asked[1])]


def test_every_other_pair_meets_the_one_named() -> None:
    asked = pairs("a/p@v1", "a/p@v2", "a/p@v3")

    assert meetings_of(asked, "a/p@v1") == [(asked[0], asked[1]), (asked[0], asked[2])]


def test_the_command_says_what_was_decided_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(tmp_path, target="tests.apps:by_prompt", cases=200)
    monkeypatch.chdir(tmp_path)

    status = main(["run", "--stop-early", "--prompt", TWO[0], "--prompt", TWO[1]])

    shown = capsys.readouterr().out
    assert status == 0
    assert "label: small/classify@v2 against small/classify@v1: regression after" in shown
    assert "calls saved" in shown
    assert "--compare small/classify@v2:small/classify@v1" in shown


def test_a_run_without_the_option_says_nothing_of_it(tmp_path: Path) -> None:
    write_project(tmp_path)

    finished = run(tmp_path)

    assert "stop_early" not in open_store(tmp_path / ".evalkit").manifest(finished.run_id)
    assert "stop_early" not in json.dumps(finished.as_json())
