"""A judge that passes answers which say nothing decides nothing: neither red nor green."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.score.null_answers import MAX_TRIES, NULL_ANSWERS
from evalkit.store.views import open_store
from tests.hostile.judges import ASKED
from tests.project import write_project

JUDGE = """\
name: fit
version: v1
model: judge
inputs: [input]
{more}
rubric: [{{name: right, scale: 0 or 1, description: Is it right?}}]
"""


@pytest.fixture(autouse=True)
def nobody_asked() -> Iterator[None]:
    ASKED.clear()
    yield
    ASKED.clear()


def judged_by(folder: Path, character: str, more: str = "", metrics: int = 1) -> None:
    """A project whose only gating metrics are those of one judge."""
    write_project(folder)
    with (folder / "evalkit.toml").open("a", encoding="utf-8") as file:
        file.write(
            f'\n[providers.judges]\nwire = "python"\ntarget = "tests.hostile.judges:{character}"\n'
            '[models.judge]\nprovider = "judges"\nid = "judge"\n'
            "price = { input = 1.0, output = 2.0 }\n[gate]\nmin_agreement = -1.0\n"
        )
    golden = folder / "golden_sets/tickets/golden_set.yaml"
    text = golden.read_text(encoding="utf-8").replace("path: /label, gate: true", "path: /label")
    fits = "".join(f"  - {{name: fits_{n}, judge: fit, gate: true}}\n" for n in range(metrics))
    golden.write_text(text.replace("cases: c", f"{fits}cases: c"), encoding="utf-8")
    (folder / "judges").mkdir()
    (folder / "judges/fit.yaml").write_text(JUDGE.format(more=more), encoding="utf-8")


def evalkit(folder: Path, command: str, *options: str) -> int:
    return main([command, "--config", str(folder / "evalkit.toml"), *options])


def gated(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    """Two runs, one against the other."""
    for _ in range(2):
        assert evalkit(folder, "run") == 0
    runs = sorted(run["run_id"] for run in open_store(folder / ".evalkit").runs())
    capsys.readouterr()
    status = evalkit(
        folder, "gate", "--candidate", runs[1], "--baseline", runs[0], "--max-drop", "0.5", "--json"
    )
    return status, json.loads(capsys.readouterr().out)


def judged(folder: Path) -> list[dict[str, Any]]:
    return open_store(folder / ".evalkit").sql(
        "SELECT DISTINCT score, outcome, error_kind FROM scores WHERE tier = 2"
    )


def test_a_judge_that_fails_them_gates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judged_by(tmp_path, "fair")

    status, verdict = gated(tmp_path, capsys)

    assert (status, verdict["verdict"]) == (0, "pass")
    assert judged(tmp_path) == [{"score": 1.0, "outcome": "scored", "error_kind": None}]


@pytest.mark.parametrize("character", ["credulous", "one_token"])
def test_a_judge_that_passes_one_makes_its_metric_unmeasurable(
    character: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged_by(tmp_path, character)

    status, verdict = gated(tmp_path, capsys)

    assert (status, verdict["verdict"]) == (3, "unmeasurable")
    assert judged(tmp_path) == [
        {"score": None, "outcome": "judge_error", "error_kind": "judge_untrusted"}
    ]
    assert set(ASKED) == set(NULL_ANSWERS)
    [note] = [note for note in verdict["notes"] if "null_answers" in note]
    assert note.startswith(
        "fits_0 on tickets has no scores: judge fit passes the answer ':', which"
    )


def test_they_are_asked_once_for_all_metrics_and_runs(tmp_path: Path) -> None:
    judged_by(tmp_path, "fair", metrics=3)

    evalkit(tmp_path, "run")
    evalkit(tmp_path, "run", "--limit", "3", "--seed", "7")

    assert {ASKED[text] for text in NULL_ANSWERS} == {1}


def test_what_they_cost_is_in_the_calls(tmp_path: Path) -> None:
    judged_by(tmp_path, "fair")

    evalkit(tmp_path, "run")

    calls = "SELECT count(*) n FROM calls WHERE feature = 'judge:fit'"
    answers = open_store(tmp_path / ".evalkit").sql("SELECT count(DISTINCT output) n FROM calls "
                                                    "WHERE feature = 'classify'")  # fmt: skip
    found = open_store(tmp_path / ".evalkit").sql(calls)
    assert found[0]["n"] == sum(ASKED.values()) >= answers[0]["n"] + len(NULL_ANSWERS)


def test_a_rubric_may_allow_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judged_by(tmp_path, "credulous", "null_answers: allowed")

    status, verdict = gated(tmp_path, capsys)

    assert (status, verdict["verdict"]) == (0, "pass")
    assert not set(ASKED) & set(NULL_ANSWERS)


def test_a_judge_without_a_judgement_on_them_is_asked_a_few_times_and_then_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged_by(tmp_path, "mute")

    assert evalkit(tmp_path, "run") == 0

    assert judged(tmp_path) == [{"score": 1.0, "outcome": "scored", "error_kind": None}]
    assert {ASKED[text] for text in NULL_ANSWERS} == {2 * MAX_TRIES}


def test_a_misspelt_word_for_them_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged_by(tmp_path, "fair", "null_answers: alowed")

    status = evalkit(tmp_path, "run")

    assert status == 2
    assert "judges/fit.yaml:5" in capsys.readouterr().err
    assert not ASKED
