"""Stored answers scored again: what is scored, what is carried over, what is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.config import load_settings
from evalkit.errors import ConfigError, NotComparable, StoreError
from evalkit.rescoring import Rescored, RescoreRequest, rescore_run
from evalkit.session import run_golden_sets
from evalkit.store.views import open_store
from evalkit.wiring import RunRequest
from tests.loopback import Behaviour, Loopback, Rule
from tests.project import write_project

JUDGE = """name: {name}
version: v{version}
model: judge
inputs: [input]
null_answers: allowed
rubric:
  - name: right
    description: Does the label fit? ({version})
    scale: 0 or 1
    anchors:
      "0": It does not.
      "1": It does.
"""


def run(folder: Path, **request: object) -> str:
    settings = load_settings(folder / "evalkit.toml")
    return run_golden_sets(settings, RunRequest(**request)).run_id  # type: ignore[arg-type]


def rescore(folder: Path, run_id: str = "", resume: str | None = None, **more: object) -> Rescored:
    settings = load_settings(folder / "evalkit.toml")
    request = RescoreRequest(run_id=run_id, **more)  # type: ignore[arg-type]
    return rescore_run(settings, request, resume=resume)


def rows(folder: Path, sql: str) -> list[dict]:
    return open_store(folder / ".evalkit").sql(sql)


def scores(folder: Path, run_id: str) -> list[dict]:
    return rows(
        folder,
        "SELECT case_id, case_hash, trial, model, prompt_version, metric, score, passed, outcome, "
        "error_kind, trace_id, served_model, latency_ms, cost_usd, golden_set_hash, slices "
        f"FROM scores WHERE run_id = '{run_id}' ORDER BY ALL",
    )


def edit_cases(folder: Path, old: str, new: str) -> None:
    path = folder / "golden_sets" / "tickets" / "cases.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def judged_by(tmp_path: Path, url: str, *, version: str = "1") -> None:
    """Let a judge on the loopback provider score the project's golden set, too."""
    config, golden = tmp_path / "evalkit.toml", tmp_path / "golden_sets/tickets/golden_set.yaml"
    if "models.judge" not in config.read_text(encoding="utf-8"):
        with config.open("a", encoding="utf-8") as file:
            file.write(
                f'\n[providers.judges]\nwire = "openai"\nbase_url = "{url}/v1"\n'
                '[models.judge]\nprovider = "judges"\nid = "loopback-model"\n'
                "price = { input = 1.0, output = 2.0 }\n"
            )
        text = golden.read_text(encoding="utf-8")
        golden.write_text(
            text.replace("cases: c", "  - {name: fits, judge: fit}\ncases: c"), encoding="utf-8"
        )
    (tmp_path / "judges").mkdir(exist_ok=True)
    text = JUDGE.format(name="fit", version=version)
    (tmp_path / "judges" / "fit.yaml").write_text(text, encoding="utf-8")


def test_the_same_scorers_give_the_same_scores_and_no_model_is_called(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, base_url=server.url + "/v1")
        old = run(tmp_path, trials=2, prompts=("classify@v1", "classify@v2"))
        asked = server.stats.requests

        rescored = rescore(tmp_path, old)

        assert server.stats.requests == asked
    assert rescored.run.run_id != old
    assert rescored.run.summary.done == 40
    assert scores(tmp_path, rescored.run.run_id) == scores(tmp_path, old)
    assert rows(tmp_path, "SELECT count(*) n FROM calls") == [{"n": 40}]


def test_the_manifest_says_where_the_answers_come_from(tmp_path: Path) -> None:
    write_project(tmp_path)
    old = run(tmp_path)

    new = rescore(tmp_path, old).run.run_id

    store = open_store(tmp_path / ".evalkit")
    before, after = store.manifest(old), store.manifest(new)
    assert after["rescored_from"] == old
    assert after["status"] == "complete"
    for key in ("pairs", "prompts", "git", "seed", "golden_sets"):
        assert after[key] == before[key]


def test_the_old_run_is_not_touched(tmp_path: Path) -> None:
    write_project(tmp_path)
    old = run(tmp_path)

    def files() -> dict[Path, bytes]:
        found = (tmp_path / ".evalkit").rglob("*")
        return {path: path.read_bytes() for path in found if path.is_file()}

    before = files()
    rescore(tmp_path, old)

    after = files()
    assert {path: after[path] for path in before} == before


def test_changed_and_gone_cases_are_listed_and_left_out(tmp_path: Path) -> None:
    write_project(tmp_path)
    old = run(tmp_path)
    edit_cases(tmp_path, '"3: a question', '"3: another question')
    edit_cases(tmp_path, '"id": "t-0004"', '"id": "t-1004"')
    edit_cases(
        tmp_path,
        '[case t-0005]"}, "expected": {"label": "delivery"}',
        '[case t-0005]"}, "expected": {"label": "billing"}',
    )

    rescored = rescore(tmp_path, old)

    assert [(one.case_id, one.why) for one in rescored.left_out] == [
        ("t-0003", "changed"),
        ("t-0004", "gone"),
        ("t-0005", "edited"),
    ]
    assert {row["case_id"] for row in scores(tmp_path, rescored.run.run_id)} == {
        f"t-{n:04d}" for n in (0, 1, 2, 6, 7, 8, 9)
    }


def test_edited_scores_the_same_input_against_what_is_expected_now(tmp_path: Path) -> None:
    write_project(tmp_path)
    old = run(tmp_path)
    edit_cases(tmp_path, '"expected": {"label": "delivery"}', '"expected": {"label": "billing"}')

    rescored = rescore(tmp_path, old, edited=True)

    assert rescored.left_out == ()
    found = rows(
        tmp_path,
        "SELECT avg(score) mean, count(DISTINCT case_hash) n FROM scores WHERE metric = 'label' "
        f"AND run_id = '{rescored.run.run_id}'",
    )
    assert found == [{"mean": 0.5, "n": 10}]


def test_failures_stay_what_they_were(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, base_url=server.url + "/v1", cases=6, feature="retries = 0")
        server.script(
            Rule(Behaviour(status=503), times=2), Rule(Behaviour(finish_reason="length"), times=1)
        )
        old = run(tmp_path, concurrency=1)

        new = rescore(tmp_path, old).run.run_id

    assert scores(tmp_path, new) == scores(tmp_path, old)
    found = rows(
        tmp_path,
        "SELECT outcome, count(*) n, count(score) scored FROM scores WHERE metric = 'label' "
        f"AND run_id = '{new}' GROUP BY ALL ORDER BY ALL",
    )
    assert found == [
        {"outcome": "infra_error", "n": 2, "scored": 0},
        {"outcome": "product_failure", "n": 1, "scored": 1},
        {"outcome": "scored", "n": 3, "scored": 3},
    ]


def test_only_the_judge_asked_for_scores_again(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, cases=4)
        judged_by(tmp_path, server.url)
        old = run(tmp_path)
        asked = server.stats.requests
        judged_by(tmp_path, server.url, version="2")

        new = rescore(tmp_path, old, judges=("fit",)).run.run_id

        assert server.stats.requests > asked
    versions = {
        row["metric"]: row["n"]
        for row in rows(
            tmp_path,
            "SELECT metric, count(DISTINCT scorer_version) n FROM scores GROUP BY metric",
        )
    }
    assert versions == {"label": 1, "shape": 1, "fits": 2}
    made = rows(tmp_path, f"SELECT metric, min(created_at) t, run_id = '{old}' old FROM scores "
                "WHERE metric <> 'fits' GROUP BY ALL ORDER BY metric, old")  # fmt: skip
    assert made[0]["t"] == made[1]["t"]
    store = open_store(tmp_path / ".evalkit")
    assert store.manifest(new)["request"]["judges"] == ["fit"]


def test_the_judges_spending_limit_stops_it_and_it_goes_on_later(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, cases=12)
        judged_by(tmp_path, server.url)
        old = run(tmp_path)
        judged_by(tmp_path, server.url, version="2")

        stopped = rescore(tmp_path, old, max_cost_usd=0.008, concurrency=1)
        finished = rescore(tmp_path, resume=stopped.run.run_id, max_cost_usd=10.0)

    assert stopped.run.summary.stopped == "budget_stop"
    assert 0 < stopped.run.summary.done < 12
    assert 0 < stopped.run.summary.judge_cost_usd <= 0.008
    assert finished.run.run_id == stopped.run.run_id
    assert finished.run.summary.resumed == stopped.run.summary.done
    assert finished.run.summary.complete


def test_votes_paid_for_an_answer_that_was_not_judged_stay_spent(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, cases=1)
        judged_by(tmp_path, server.url)
        old = run(tmp_path)
        judged_by(tmp_path, server.url, version="2")
        judge = tmp_path / "judges" / "fit.yaml"
        judge.write_text(judge.read_text("utf-8") + "votes: 3\n", "utf-8")
        asked = server.stats.requests

        stopped = rescore(tmp_path, old, max_cost_usd=0.006, fresh=True)
        paid = server.stats.requests - asked
        again = rescore(tmp_path, resume=stopped.run.run_id)

    spent = stopped.run.summary.judge_cost_usd
    assert 0 < paid < 3
    assert spent > 0
    assert again.run.summary.judge_cost_usd >= spent
    assert stopped.run.summary.done == again.run.summary.done == 0


def test_a_rescoring_is_not_finished_by_another_judge(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, cases=12)
        judged_by(tmp_path, server.url)
        old = run(tmp_path)
        judged_by(tmp_path, server.url, version="2")
        stopped = rescore(tmp_path, old, max_cost_usd=0.008, concurrency=1)
        judged_by(tmp_path, server.url, version="3")

        with pytest.raises(StoreError, match="a golden set or a judge has changed"):
            rescore(tmp_path, resume=stopped.run.run_id)


def test_a_rescored_run_can_be_scored_again(tmp_path: Path) -> None:
    write_project(tmp_path)
    old = run(tmp_path)
    first = rescore(tmp_path, old).run.run_id

    second = rescore(tmp_path, first)

    assert second.rescored_from == first
    assert scores(tmp_path, second.run.run_id) == scores(tmp_path, old)


def test_what_cannot_be_scored_again_is_refused(tmp_path: Path) -> None:
    write_project(tmp_path, cases=3)
    old = run(tmp_path)
    new = rescore(tmp_path, old).run.run_id

    with pytest.raises(ConfigError, match=r'--metric lable: .* Did you mean "label"'):
        rescore(tmp_path, old, metrics=("lable",))
    with pytest.raises(ConfigError, match=f"evalkit rescore --resume {new}"):
        run_golden_sets(load_settings(tmp_path / "evalkit.toml"), RunRequest(), resume=new)
    with pytest.raises(ConfigError, match=f"evalkit run --resume {old}"):
        rescore(tmp_path, resume=old)
    edit_cases(tmp_path, "a question", "no question")
    with pytest.raises(NotComparable, match="3 cases with another input now"):
        rescore(tmp_path, old)


def test_an_unfinished_run_is_not_scored_again(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, base_url=server.url + "/v1", cases=30)
        old = run(tmp_path, max_cost_usd=0.003, concurrency=1)

    with pytest.raises(NotComparable, match="not complete"):
        rescore(tmp_path, old)


def test_left_out_cases_are_in_the_json(tmp_path: Path) -> None:
    write_project(tmp_path)
    old = run(tmp_path)
    edit_cases(tmp_path, '"3: a question', '"3: another question')

    document = json.loads(json.dumps(rescore(tmp_path, old).as_json()))

    assert document["left_out"] == [
        {"golden_set": "tickets", "case_id": "t-0003", "why": "changed"}
    ]
    assert document["status"] == "complete"
