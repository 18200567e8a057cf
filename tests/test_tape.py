"""Responses on a file: golden sets run again without a provider, and come out the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.store.views import open_store
from tests.loopback import Behaviour, Loopback, Request, Rule
from tests.project import write_project

FINE = """
name: fine
version: v1
model: small
inputs: [input]
rubric:
  - {name: fine, scale: 0 or 1, description: Is it fine?, anchors: {"0": bad, "1": good}}
"""


def label_or_grade(request: Request) -> str:
    """What the application answers, and a judge who finds any label fine."""
    schema = request.json["response_format"]["json_schema"]["schema"]
    tag = schema["properties"].get("judgement_tag")
    if tag is None:
        return '{"label": "billing"}'
    fine = int("billing\\" in json.dumps(request.json["messages"]))
    return json.dumps({"judgement_tag": tag["const"], "reason": "so", "grades": {"fine": fine}})


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Loopback) -> Path:
    monkeypatch.chdir(tmp_path)
    header = "trials: 2"
    return write_project(tmp_path, base_url=f"{server.url}/v1", cases=6, header=header)


def run(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    capsys.readouterr()
    main(["run", "--json", *options])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def scores(run_id: str) -> list[dict[str, Any]]:
    return open_store(Path(".evalkit")).sql(
        "SELECT case_id, trial, metric, score, outcome, served_model, cost_usd FROM scores"
        " WHERE run_id = $1 ORDER BY ALL",
        [run_id],
    )


def test_a_replayed_run_scores_the_same_and_asks_nobody(
    project: Path, server: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = run(capsys, "--record", "tape.jsonl")
    asked = server.stats.requests

    replayed = run(capsys, "--replay", "tape.jsonl")

    assert server.stats.requests == asked == 12
    assert scores(replayed["run_id"]) == scores(recorded["run_id"])
    assert any("no model was asked" in note for note in replayed["notes"])


def test_what_decides_beside_the_model_decides_as_it_does_now(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = run(capsys, "--record", "tape.jsonl")
    golden = project / "golden_sets/tickets/golden_set.yaml"
    text = golden.read_text("utf-8")
    stricter = "  - {name: short, check: regex, pattern: 'x'}\ncases:"
    golden.write_text(text.replace("cases:", stricter, 1), encoding="utf-8")

    replayed = run(capsys, "--replay", "tape.jsonl")

    before, now = (
        {one["metric"]: one["mean"] for one in run["metrics"]} for run in (recorded, replayed)
    )
    assert now == {**before, "short": 0.0}


def test_another_prompt_has_no_recorded_responses_and_is_not_measured(
    project: Path, server: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "--record", "tape.jsonl")
    asked = server.stats.requests

    status = main(["run", "--replay", "tape.jsonl", "--prompt", "classify@v2"])

    shown = capsys.readouterr().out
    assert status == 3
    assert "12 requests are not in tape.jsonl" in shown
    assert server.stats.requests == asked


def test_a_failed_request_is_not_recorded_what_came_after_it_is(
    project: Path, server: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    server.script(Rule(Behaviour(status=503), times=2))
    run(capsys, "--record", "tape.jsonl", "--concurrency", "1")

    replayed = run(capsys, "--replay", "tape.jsonl")

    assert replayed["outcomes"] == {"scored": 12}
    assert len(Path("tape.jsonl").read_text("ascii").splitlines()) == 12


def test_inputs_and_keys_are_not_on_the_tape(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "--record", "tape.jsonl")

    assert "a question on" not in Path("tape.jsonl").read_text("ascii")


def test_a_judge_is_on_the_tape_whatever_it_said_before_and_whoever_draws_its_tag(
    project: Path, server: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = project / "judges"
    judge.mkdir()
    (judge / "fine.yaml").write_text(FINE, encoding="utf-8")
    golden = project / "golden_sets/tickets/golden_set.yaml"
    text = golden.read_text("utf-8")
    golden.write_text(
        text.replace("cases:", "  - {name: fine, judge: fine}\ncases:", 1), encoding="utf-8"
    )
    server.script(answer=label_or_grade)
    run(capsys)
    recorded = run(capsys, "--record", "tape.jsonl")
    asked = server.stats.requests
    shutil.rmtree(".evalkit")

    replayed = run(capsys, "--replay", "tape.jsonl")

    assert server.stats.requests == asked > 12
    assert recorded["outcomes"] == replayed["outcomes"] == {"scored": 12}


@pytest.mark.parametrize(
    "line", ["not json", "[]", '{"key": 1}', "[" * 100_000], ids=["text", "list", "key", "deep"]
)
def test_a_damaged_tape_is_named_with_its_line(
    project: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    Path("tape.jsonl").write_text(f'{{"key": "k", "text": ""}}\n{line}\n', encoding="utf-8")

    status = main(["run", "--replay", "tape.jsonl"])

    assert status == 2
    assert "tape.jsonl:2: is no recorded response" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--record", "evalkit.toml"), "is there already"),
        (("--record", "a", "--replay", "b"), "leave out one of them"),
        (("--resume", "r", "--replay", "b"), "leave out --record/--replay"),
        (("--replay", "nothing.jsonl"), "recorded responses cannot be read"),
    ],
)
def test_mistakes_are_told_before_any_call(
    project: Path, server: Loopback, capsys: pytest.CaptureFixture[str], options: Any, told: str
) -> None:
    status = main(["run", *options])

    assert status == 2
    assert told in capsys.readouterr().err
    assert server.stats.requests == 0
