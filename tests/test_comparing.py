"""Runs compared answer by answer: `rescore --against`, and what a run notes of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evalkit.config import GateSettings, load_settings
from evalkit.decide.gate import run_gate
from evalkit.errors import NotComparable
from evalkit.rescoring import Rescored, RescoreRequest, rescore_run
from evalkit.session import FinishedRun, run_golden_sets
from evalkit.store.views import open_store
from evalkit.wiring import RunRequest
from tests.loopback import Behaviour, Loopback, Rule
from tests.project import write_project

JUDGE = """\
name: better
version: v1
model: embedded
inputs: [reference]
null_answers: allowed
pairwise: true
rubric: [{name: better, scale: better of two, description: Which says more of the reference?}]
"""
RIGHT = [json.dumps({"label": label}) for label in ("billing", "delivery")]


def project(folder: Path, url: str, **options: Any) -> Path:
    write_project(folder, base_url=f"{url}/v1", **options)
    with (folder / "evalkit.toml").open("a", encoding="utf-8") as file:
        file.write('[providers.own]\nwire = "embedded"\n[models.embedded]\nprovider = "own"\n'
                   'id = "hashed-ngrams"\nprice = { input = 0.0, output = 0.0 }\n')  # fmt: skip
    (folder / "judges").mkdir()
    (folder / "judges" / "better.yaml").write_text(JUDGE, encoding="utf-8")
    golden = folder / "golden_sets/tickets/golden_set.yaml"
    text = golden.read_text(encoding="utf-8")
    metric = "  - {name: preferred, judge: better, gate: true, max_drop: 0.3}\ncases: c"
    golden.write_text(text.replace("cases: c", metric), encoding="utf-8")
    return folder


def run(folder: Path, **request: Any) -> FinishedRun:
    return run_golden_sets(load_settings(folder / "evalkit.toml"), RunRequest(**request))


def rescore(folder: Path, run_id: str, **request: Any) -> Rescored:
    settings = load_settings(folder / "evalkit.toml")
    return rescore_run(settings, RescoreRequest(run_id=run_id, judges=("better",), **request))


def answers(server: Loopback, *texts: str) -> None:
    """The next answers, in turns; the last for all that follow."""
    server.script(
        *(Rule(Behaviour(text=text), times=1) for text in texts[:-1]),
        Rule(Behaviour(text=texts[-1])),
    )


def preferred(folder: Path, run_id: str) -> list[dict[str, Any]]:
    return open_store(folder / ".evalkit").sql(
        "SELECT case_id, score, outcome, error_kind, reason, scorer_version FROM scores "
        f"WHERE metric = 'preferred' AND run_id = '{run_id}' ORDER BY case_id"
    )


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[str, str]:
    """A baseline that answers all twelve cases rightly, and a candidate that errs in one."""
    with Loopback() as server:
        project(tmp_path, server.url, cases=12)
        answers(server, *RIGHT * 6)
        base = run(tmp_path, concurrency=1).run_id
        answers(server, RIGHT[1], *(RIGHT * 6)[1:])
        return base, run(tmp_path, concurrency=1).run_id


def test_the_candidate_scores_0_where_it_lost_and_half_where_nothing_changed(
    tmp_path: Path, two_runs: tuple[str, str]
) -> None:
    base, candidate = two_runs

    rescored = rescore(tmp_path, candidate, against=base)

    rows = preferred(tmp_path, rescored.run.run_id)
    assert [row["score"] for row in rows] == [0.0, *[0.5] * 11]
    assert rows[0]["reason"].startswith("[orders agree] ")
    assert rows[1]["reason"] == "[the same answer]"
    assert rows[0]["scorer_version"].endswith(f":against={base}:small/classify@v1")
    assert (
        "preferred on tickets: in 0 of 1 comparisons of small/classify@v1 (0%) the winner "
        "followed the order shown, and was made a tie"
    ) in rescored.run.notes
    manifest = open_store(tmp_path / ".evalkit").manifest(rescored.run.run_id)
    assert manifest["notes"] == list(rescored.run.notes)


def test_both_sides_against_the_baseline_can_be_gated(
    tmp_path: Path, two_runs: tuple[str, str]
) -> None:
    base, candidate = two_runs
    after = rescore(tmp_path, candidate, against=base).run.run_id
    before = rescore(tmp_path, base, against=base).run.run_id

    verdict = run_gate(
        open_store(tmp_path / ".evalkit"),
        candidate=after, baseline=before, settings=GateSettings(), project=tmp_path,
    )  # fmt: skip

    [one] = [c for c in verdict["comparisons"] if c["metric"] == "preferred" and not c["slice"]]
    assert one["baseline_mean"] == 0.5
    assert one["delta"] == pytest.approx(-0.5 / 12)
    assert one["verdict"] in ("pass", "inconclusive")


def test_a_plain_run_says_how_to_get_the_comparison(
    tmp_path: Path, two_runs: tuple[str, str]
) -> None:
    [row, *_] = preferred(tmp_path, two_runs[0])

    assert (row["score"], row["outcome"], row["error_kind"]) == (None, "judge_error", "no_opponent")
    assert "evalkit rescore RUN --judge better --against BASELINE" in row["reason"]


def test_an_answer_the_other_run_does_not_have_is_missing(tmp_path: Path) -> None:
    with Loopback() as server:
        project(tmp_path, server.url, cases=4, feature="retries = 0")
        server.script(Rule(Behaviour(finish_reason="length"), times=1))
        base = run(tmp_path, concurrency=1).run_id
        candidate = run(tmp_path, concurrency=1).run_id

    rows = preferred(tmp_path, rescore(tmp_path, candidate, against=base).run.run_id)

    assert [row["error_kind"] for row in rows] == ["no_opponent", None, None, None]


def test_several_pairs_have_to_be_told_apart(tmp_path: Path) -> None:
    with Loopback() as server:
        project(tmp_path, server.url, cases=3)
        base = run(tmp_path, prompts=("classify@v1", "classify@v2")).run_id

    with pytest.raises(NotComparable, match=r"has several pairs. Name one as RUN:PAIR"):
        rescore(tmp_path, base, against=base)
    named = rescore(tmp_path, base, against=f"{base}:small/classify@v2")
    assert named.run.summary.done == 6


# --- notes of a run -------------------------------------------------------------------


def test_a_constant_answer_is_noted(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, base_url=f"{server.url}/v1", cases=12)
        answers(server, RIGHT[0])

        finished = run(tmp_path)

    [note] = finished.notes
    assert note.startswith("duplicate_output: small/classify@v1 gave the same answer, or nearly,")
    assert "to 12 of 12 cases of tickets" in note
    assert open_store(tmp_path / ".evalkit").manifest(finished.run_id)["notes"] == [note]


def test_right_answers_that_repeat_are_not(tmp_path: Path) -> None:
    write_project(tmp_path, cases=12)

    assert run(tmp_path).notes == ()


# --- kept judgements -------------------------------------------------------------------


def test_scoring_again_pays_no_judge_for_the_same_answers(
    tmp_path: Path, two_runs: tuple[str, str]
) -> None:
    base, candidate = two_runs
    calls = "SELECT count(*) AS n FROM calls WHERE feature = 'judge:better'"
    store = open_store(tmp_path / ".evalkit")

    rescore(tmp_path, candidate, against=base)
    first = store.sql(calls)[0]["n"]
    rescore(tmp_path, candidate, against=base)
    again = store.sql(calls)[0]["n"]
    rescore(tmp_path, candidate, against=base, fresh=True)
    fresh = store.sql(calls)[0]["n"]

    assert (first, again - first, fresh - again) == (2, 0, 2)
