"""Runs from the request to the sealed store: what is measured, stopped, resumed, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from evalkit.call.prompts import PromptRegistry
from evalkit.config import load_settings
from evalkit.errors import ConfigError, ContentError, StoreError
from evalkit.frozen import by_field
from evalkit.session import FinishedRun, run_golden_sets
from evalkit.store.files import read_json, write_json
from evalkit.store.views import open_store
from evalkit.wiring import RunRequest
from tests.loopback import Behaviour, Loopback, Rule
from tests.project import case, write_project
from tests.store.journal_lines import call
from tests.test_rescoring import judged_by

CHECKOUT = Path(__file__).resolve().parent.parent


def run(folder: Path, resume: str | None = None, **request: object) -> FinishedRun:
    settings = load_settings(folder / "evalkit.toml")
    return run_golden_sets(settings, RunRequest(**request), resume=resume)  # type: ignore[arg-type]


def rows(folder: Path, sql: str) -> list[dict]:
    return open_store(folder / ".evalkit").sql(sql)


def test_a_run_scores_every_case_by_every_metric(tmp_path: Path) -> None:
    write_project(tmp_path, target="tests.apps:always_billing")

    finished = run(tmp_path)

    assert finished.summary.complete
    found = rows(
        tmp_path,
        "SELECT metric, count(*) n, avg(score) mean FROM scores GROUP BY metric ORDER BY metric",
    )
    assert found == [
        {"metric": "label", "n": 10, "mean": 0.5},
        {"metric": "shape", "n": 10, "mean": 1.0},
    ]
    assert rows(tmp_path, "SELECT count(*) n FROM calls") == [{"n": 10}]
    assert rows(tmp_path, "SELECT DISTINCT status FROM runs") == [{"status": "complete"}]


def test_a_call_of_a_run_has_the_scores_of_its_answer(tmp_path: Path) -> None:
    write_project(tmp_path, target="tests.apps:always_billing")

    run(tmp_path)

    found = rows(
        tmp_path,
        "SELECT c.quality, map_from_entries(list({k: s.metric, v: s.score})) AS scores"
        " FROM calls AS c JOIN scores AS s USING (trace_id) GROUP BY c.trace_id, c.quality",
    )
    assert len(found) == 10
    assert all(dict(one["quality"]) == dict(one["scores"]) for one in found)


def test_models_prompts_and_trials_multiply(tmp_path: Path) -> None:
    write_project(tmp_path, cases=3)

    finished = run(tmp_path, prompts=("classify@v1", "classify@v2"), trials=2)

    assert finished.summary.done == 12
    found = rows(
        tmp_path,
        "SELECT prompt_version, trial, count(*) n FROM scores WHERE metric = 'label' "
        "GROUP BY ALL ORDER BY ALL",
    )
    assert [(r["prompt_version"], r["trial"], r["n"]) for r in found] == [
        ("v1", 0, 3),
        ("v1", 1, 3),
        ("v2", 0, 3),
        ("v2", 1, 3),
    ]


def test_an_infrastructure_failure_has_no_score(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, base_url=server.url + "/v1", feature="retries = 0")
        server.script(Rule(Behaviour(status=503), times=4))
        finished = run(tmp_path, concurrency=1)

    assert finished.summary.complete
    assert finished.summary.outcomes == Counter(scored=6, infra_error=4)
    found = rows(
        tmp_path,
        "SELECT outcome, error_kind, count(*) n, count(score) scored FROM scores "
        "WHERE metric = 'label' GROUP BY ALL ORDER BY ALL",
    )
    assert found == [
        {"outcome": "infra_error", "error_kind": "server", "n": 4, "scored": 0},
        {"outcome": "scored", "error_kind": None, "n": 6, "scored": 6},
    ]


def test_an_answer_past_the_latency_budget_counts_against_quality(tmp_path: Path) -> None:
    write_project(tmp_path, cases=2, target="tests.test_session:slow", feature="max_latency_ms = 1")

    run(tmp_path)

    found = rows(tmp_path, "SELECT DISTINCT outcome, score FROM scores WHERE metric = 'label'")
    assert found in (
        [{"outcome": "product_failure", "score": 0.0}],
        [{"outcome": "infra_error", "score": None}],
    )


def slow(input: object) -> dict[str, str]:
    time.sleep(0.02)
    return {"label": "billing"}


def test_a_spending_limit_stops_the_run_and_it_goes_on_later(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, base_url=server.url + "/v1", cases=30)

        stopped = run(tmp_path, max_cost_usd=0.003, concurrency=4)
        finished = run(tmp_path, resume=stopped.run_id, max_cost_usd=10.0)
        requests = dict(server.stats.by_case)

    assert stopped.summary.stopped == "budget_stop"
    assert 0 < stopped.summary.done < 30
    assert stopped.summary.cost_usd <= 0.003
    assert finished.run_id == stopped.run_id
    assert finished.summary.complete
    assert finished.summary.resumed == stopped.summary.done
    assert max(requests.values()) == 1
    assert len(requests) == 30


def test_money_spent_on_cases_that_judges_could_not_finish_stays_spent(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(
            tmp_path,
            base_url=server.url + "/v1",
            cases=6,
            price="price = { input = 1, output = 1 }",
        )
        judged_by(tmp_path, server.url)
        config = (tmp_path / "evalkit.toml").read_text("utf-8")
        dear = config.replace("input = 1.0, output = 2.0", "input = 10.0, output = 20.0")
        (tmp_path / "evalkit.toml").write_text(dear, "utf-8")

        stopped = run(tmp_path, max_cost_usd=0.002)
        again = run(tmp_path, resume=stopped.run_id)
        for _ in range(10):
            last = run(tmp_path, resume=stopped.run_id)
        paid = server.stats.requests
        run(tmp_path, resume=stopped.run_id)
        refused = server.stats.requests - paid
        finished = run(tmp_path, resume=stopped.run_id, max_cost_usd=10.0)
        requests = server.stats.requests

    assert stopped.summary.done == 0
    assert 0 < stopped.summary.cost_usd < again.summary.cost_usd
    assert again.summary.cost_usd < last.summary.cost_usd <= 0.002
    assert refused == 0
    assert finished.summary.complete
    assert finished.summary.done == 6
    assert finished.summary.resumed == 0
    found = rows(tmp_path, "SELECT count(*) n, sum(cost_usd) usd FROM calls")
    assert found[0]["n"] == requests
    spent = finished.summary.cost_usd + finished.summary.judge_cost_usd
    assert found[0]["usd"] == pytest.approx(spent)
    scored = rows(tmp_path, "SELECT metric, count(*) n FROM scores GROUP BY 1 ORDER BY 1")
    assert scored == [{"metric": name, "n": 6} for name in ("fits", "label", "shape")]


@pytest.mark.slow
def test_a_spending_limit_cuts_no_call_that_is_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evalkit.score.runner.DRAIN_S", 0.2)
    with Loopback() as server:
        write_project(
            tmp_path, base_url=server.url + "/v1", cases=2, feature="max_latency_ms = 30000"
        )
        judged_by(tmp_path, server.url)
        server.script(Rule(Behaviour(delay_ms=1500), case="t-0001"))

        stopped = run(tmp_path, max_cost_usd=0.001, concurrency=2)
        finished = run(tmp_path, resume=stopped.run_id, max_cost_usd=10.0)

    assert stopped.summary.stopped == "budget_stop"
    assert finished.summary.complete
    asked = "SELECT input, count(*) n FROM calls WHERE feature = 'classify' GROUP BY 1"
    assert [row["n"] for row in rows(tmp_path, asked)] == [2, 2]


def test_an_unfinished_run_is_in_no_view_but_runs(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, base_url=server.url + "/v1", cases=30)
        run(tmp_path, max_cost_usd=0.003, concurrency=4)

    assert rows(tmp_path, "SELECT * FROM scores") == []
    assert [r["status"] for r in rows(tmp_path, "SELECT status FROM runs")] != ["complete"]


def test_a_run_is_not_finished_with_another_golden_set(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, base_url=server.url + "/v1", cases=30)
        stopped = run(tmp_path, max_cost_usd=0.003)
        cases = tmp_path / "golden_sets" / "tickets" / "cases.jsonl"
        text = cases.read_text(encoding="utf-8")
        cases.write_text(text + json.dumps(case(99)) + "\n", encoding="utf-8")

        with pytest.raises(StoreError, match="golden set tickets has changed since"):
            run(tmp_path, resume=stopped.run_id)

        cases.write_text(text, encoding="utf-8")
        assert run(tmp_path, resume=stopped.run_id, max_cost_usd=10.0).summary.complete


def test_a_run_is_not_finished_with_another_judge_model_or_parameter(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, base_url=server.url + "/v1", cases=30, feature="temperature = 0.0")
        judge_kindness(tmp_path)
        config, judge = tmp_path / "evalkit.toml", tmp_path / "judges" / "kind.yaml"
        asked = config.read_text("utf-8") + 'judge_model = "small"\n'
        config.write_text(asked, encoding="utf-8")
        stopped = run(tmp_path, max_cost_usd=0.003, concurrency=1)
        assert stopped.summary.done < 30

        def refused(path: Path, old: str, new: str) -> str:
            text = path.read_text("utf-8")
            assert old in text
            path.write_text(text.replace(old, new), encoding="utf-8")
            with pytest.raises(StoreError, match="changed since the run was started") as caught:
                run(tmp_path, resume=stopped.run_id, max_cost_usd=10.0)
            path.write_text(text, encoding="utf-8")
            return str(caught.value)

        assert "metric tickets/kind" in refused(judge, "kind?", "very kind?")
        assert "model small" in refused(config, "loopback-model", "loopback-other")
        assert "model small" in refused(config, server.url, "http://other.example")
        assert "feature classify" in refused(config, "temperature = 0.0", "temperature = 1.0")
        assert run(tmp_path, resume=stopped.run_id, max_cost_usd=10.0).summary.complete


def test_a_run_of_an_older_evalkit_is_finished_without_knowing_its_judges(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, base_url=server.url + "/v1", cases=30)
        stopped = run(tmp_path, max_cost_usd=0.003)
        path = tmp_path / ".evalkit" / "runs" / stopped.run_id / "manifest.json"
        manifest = read_json(path)
        del manifest["made_with"]
        write_json(path, manifest, replace=True)

        assert run(tmp_path, resume=stopped.run_id, max_cost_usd=10.0).summary.complete


def test_a_run_that_goes_on_takes_no_other_seed(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, base_url=server.url + "/v1", cases=30)
        stopped = run(tmp_path, max_cost_usd=0.003)

        with pytest.raises(ConfigError, match=r"leave out .*--seed"):
            run(tmp_path, resume=stopped.run_id, seed=0)


def test_a_run_is_finished_where_its_project_has_moved_to(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    with Loopback() as server:
        write_project(old, base_url=server.url + "/v1", cases=30)
        stopped = run(old, max_cost_usd=0.003)
        old.rename(new)

        finished = run(new, resume=stopped.run_id, max_cost_usd=10.0)

    assert finished.summary.complete
    assert finished.summary.resumed == stopped.summary.done


def test_an_edited_prompt_version_is_refused_before_any_call(tmp_path: Path) -> None:
    write_project(tmp_path)
    run(tmp_path)
    prompt = tmp_path / "prompts" / "classify" / "v1.md"
    prompt.write_text(prompt.read_text(encoding="utf-8") + "\nBe kind.\n", encoding="utf-8")

    with pytest.raises(ContentError, match="v3"):
        run(tmp_path)

    assert len(rows(tmp_path, "SELECT * FROM runs WHERE status = 'complete'")) == 1


def test_a_version_edited_after_production_used_it_is_refused_before_any_call(
    tmp_path: Path,
) -> None:
    write_project(tmp_path)
    used = PromptRegistry(tmp_path).get("classify", "v1").hash
    made = call(prompt_name="classify", prompt_version="v1", prompt_hash=used)
    open_store(tmp_path / ".evalkit").add_calls("log-1", [by_field(made)])
    prompt = tmp_path / "prompts" / "classify" / "v1.md"
    prompt.write_text(prompt.read_text(encoding="utf-8") + "\nBe kind.\n", encoding="utf-8")

    with pytest.raises(ContentError, match="save the new text as v3"):
        run(tmp_path)

    assert rows(tmp_path, "SELECT * FROM runs") == []


def test_a_seed_makes_limit_draw_the_same_cases(tmp_path: Path) -> None:
    write_project(tmp_path, cases=50)

    run(tmp_path, limit=7, seed=3)
    run(tmp_path, limit=7, seed=3)
    run(tmp_path, limit=7, seed=4)

    drawn = {}
    for row in rows(tmp_path, "SELECT run_id, case_id FROM scores WHERE metric = 'label'"):
        drawn.setdefault(row["run_id"], set()).add(row["case_id"])
    first, second, third = (drawn[run_id] for run_id in sorted(drawn))
    assert first == second
    assert first != third
    assert len(first) == 7


def test_a_right_answer_that_came_too_late_is_a_failure_of_the_product(tmp_path: Path) -> None:
    write_project(tmp_path, target="tests.apps:late", feature="max_latency_ms = 400", cases=2)

    finished = run(tmp_path)

    assert finished.summary.outcomes == Counter(product_failure=2)
    assert rows(tmp_path, "SELECT DISTINCT score, passed, error_kind FROM scores") == [
        {"score": 0.0, "passed": False, "error_kind": "over_latency_budget"}
    ]


@pytest.mark.slow
def test_a_slow_check_of_ones_own_makes_no_answer_late(tmp_path: Path) -> None:
    with Loopback(delay_ms=50) as server:
        write_project(
            tmp_path, base_url=server.url + "/v1", cases=6, feature="max_latency_ms = 2000"
        )
        golden = tmp_path / "golden_sets" / "tickets"
        (golden / "own.py").write_text(
            "import time\ndef slow(answer):\n    time.sleep(0.7)\n    return True\n", "utf-8"
        )
        header = (golden / "golden_set.yaml").read_text("utf-8")
        own = "metrics:\n  - {name: own, check: python, function: 'own.py:slow'}\n"
        (golden / "golden_set.yaml").write_text(header.replace("metrics:\n", own), "utf-8")

        finished = run(tmp_path, concurrency=6)

    assert finished.summary.outcomes == Counter(scored=6)


def test_a_run_goes_through_the_batch_endpoints_at_half_the_price(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, base_url=server.url + "/v1", cases=20)
        plain = run(tmp_path)
        config = tmp_path / "evalkit.toml"
        text = config.read_text(encoding="utf-8")
        quick = "[providers.app]\noptions = { batch_linger_s = 0.05, batch_poll_s = 0.05 }"
        config.write_text(text.replace("[providers.app]", quick), encoding="utf-8")
        batched = run(tmp_path, batch=True)
        requests = dict(server.stats.by_case)

    assert batched.summary.complete
    assert batched.summary.outcomes == Counter(scored=20)
    assert batched.summary.cost_usd == pytest.approx(plain.summary.cost_usd / 2, rel=0.1)
    assert set(requests.values()) == {2}


def test_a_killed_batch_run_takes_up_its_batches_again(tmp_path: Path) -> None:
    with Loopback() as server:
        write_project(tmp_path, base_url=server.url + "/v1", cases=6)
        judge_kindness(tmp_path)
        config = tmp_path / "evalkit.toml"
        text = config.read_text(encoding="utf-8")
        quick = "[providers.app]\noptions = { batch_linger_s = 0.05, batch_poll_s = 0.05 }"
        text = text.replace("[providers.app]", quick) + 'judge_model = "small"\n'
        config.write_text(text + '\n[guard]\noutput_leak = "block"\n', encoding="utf-8")
        run_id = kill_when_handed_in(server, tmp_path, 1, "--batch")
        kill_when_handed_in(server, tmp_path, 2, "--resume", run_id)

        ended = run(tmp_path, resume=run_id)

        handed_in = [len(batch.lines) for batch in server.batches.batches.values()]
    assert ended.summary.complete
    assert handed_in == [6, 6]


def judge_kindness(folder: Path) -> None:
    (folder / "judges").mkdir()
    (folder / "judges" / "kind.yaml").write_text(
        "name: kind\nversion: v1\nnull_answers: allowed\ninputs: [input]\nrubric:\n"
        "  - {name: kind, scale: 0 or 1, description: Is the answer kind?}\n",
        encoding="utf-8",
    )
    header = folder / "golden_sets" / "tickets" / "golden_set.yaml"
    text = header.read_text(encoding="utf-8")
    header.write_text(text.replace("cases:", "  - {name: kind, judge: kind}\ncases:"))


def kill_when_handed_in(server: Loopback, folder: Path, batches: int, *arguments: str) -> str:
    """Start a run and kill it while the provider has that many batches; returns its id."""
    server.batches.can_end = batches - 1
    process = start(folder, *arguments)
    deadline = time.monotonic() + 120
    while sum(batch.polls > 0 for batch in list(server.batches.batches.values())) < batches:
        assert time.monotonic() < deadline, "no batch was handed in"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    server.batches.can_end = sys.maxsize
    (run_id,) = os.listdir(folder / ".evalkit" / "runs")
    return run_id


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "evalkit", "run", "--json", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(server: Loopback, requests: int) -> None:
    """Until the server has answered so many; bounded by two minutes."""
    deadline = time.monotonic() + 120
    while server.stats.requests < requests:
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.01)


@pytest.mark.slow
def test_a_killed_run_is_resumed_and_no_finished_case_is_asked_again(tmp_path: Path) -> None:
    with Loopback(delay_ms=20) as server:
        write_project(tmp_path, base_url=server.url + "/v1", cases=2000)
        process = start(tmp_path, "--concurrency", "32")
        wait_for(server, 700)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        (run_id,) = os.listdir(tmp_path / ".evalkit" / "runs")
        journal = tmp_path / ".evalkit" / "runs" / run_id / "journal.jsonl"
        done = {json.loads(line)["key"][2] for line in journal.read_bytes().splitlines()[:-1]}

        output, errors = start(tmp_path, "--resume", run_id, "--concurrency", "32").communicate()
        requests = dict(server.stats.by_case)

    assert json.loads(output)["status"] == "complete", errors
    again = {case_id for case_id, count in requests.items() if count > 1}
    assert not again & done
    assert len(again) <= 32
    assert len(requests) == 2000
    found = rows(tmp_path, "SELECT count(*) n, count(DISTINCT case_id) cases FROM scores")
    assert found == [{"n": 4000, "cases": 2000}]


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_goes_on(tmp_path: Path) -> None:
    with Loopback(delay_ms=20) as server:
        write_project(tmp_path, base_url=server.url + "/v1", cases=400)
        process = start(tmp_path, "--concurrency", "8")
        wait_for(server, 40)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
        stopped = json.loads(output)
        again, _ = start(tmp_path, "--resume", stopped["run_id"]).communicate(timeout=300)
        requests = dict(server.stats.by_case)

    assert process.returncode == 130, errors
    assert stopped["status"] == "incomplete"
    assert stopped["stopped"] == "cancelled"
    assert json.loads(again)["status"] == "complete"
    assert set(requests.values()) == {1}


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait_and_says_how_to_go_on(tmp_path: Path) -> None:
    with Loopback(delay_ms=20_000) as server:
        write_project(tmp_path, base_url=server.url + "/v1", feature="max_latency_ms = 60000")
        process = start(tmp_path, "--concurrency", "4")
        wait_for(server, 4)
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        _, errors = process.communicate(timeout=120)

    (run_id,) = os.listdir(tmp_path / ".evalkit" / "runs")
    assert process.returncode == 130, errors
    assert time.monotonic() - begun < 4
    assert "Traceback" not in errors
    assert f"evalkit run --resume {run_id}" in errors
    assert [r["status"] for r in rows(tmp_path, "SELECT status FROM runs")] == ["incomplete"]
