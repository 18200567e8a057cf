"""A sampling job: what is scored, what is drawn, what is never paid twice."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from evalkit.cli.main import main
from evalkit.cli.periods import iso, now
from evalkit.score.label_queue import LabelQueue
from evalkit.store.views import open_store
from tests.loopback import Loopback
from tests.project import write_project
from tests.store.journal_lines import AT, call, plain
from tests.test_rescoring import judged_by

MINUTE = 60_000_000
HOUR = 60 * MINUTE


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """60 calls of an hour, every third of them by another model and with an invalid answer."""
    write_project(tmp_path)
    log(tmp_path, "log", range(60))
    return tmp_path


def log(folder: Path, file_id: str, numbers: range, *, at: int = AT, **more: Any) -> None:
    rows = []
    for number in numbers:
        bad = number % 3 == 0
        rows.append(
            plain(
                call(
                    trace_id=f"c-{number:03d}",
                    ts=at + number * MINUTE,
                    feature="classify",
                    model="other" if bad else "small",
                    input={"text": f"question {number}"},
                    output='{"label": "nonsense"}' if bad else '{"label": "billing"}',
                    **more,
                )
            )
        )
    open_store(folder / ".evalkit").add_calls(file_id, rows)


def sample(folder: Path, *options: str, since: int | None = AT, until: int = AT + HOUR) -> int:
    window = ["--until", iso(until), *([] if since is None else ["--since", iso(since)])]
    return main(["sample", "--config", str(folder / "evalkit.toml"), *window, *options])


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def rows(folder: Path, sql: str) -> list[dict[str, Any]]:
    return open_store(folder / ".evalkit").sql(sql)


def test_checks_without_expected_values_see_every_call(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample(project, "--json") == 0

    assert said(capsys)["calls"] == 60
    found = rows(
        project,
        "SELECT metric, model, count(*) n, avg(score) mean, min(inclusion_prob) p FROM scores"
        " GROUP BY ALL ORDER BY ALL",
    )
    # The metric "label" needs an expected value, which production has not.
    assert found == [
        {"metric": "shape", "model": "other", "n": 20, "mean": 0.0, "p": 1.0},
        {"metric": "shape", "model": "small", "n": 40, "mean": 1.0, "p": 1.0},
    ]


def test_a_judge_sees_the_sample_alone_with_its_chances(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Loopback() as server:
        judged_by(project, server.url)

        assert sample(project, "--per-stratum", "5", "--by", "model", "--json") == 0

        asked = server.stats.requests
    assert asked == 10
    printed = said(capsys)
    assert printed["drawn"] == {"random": 10, "active": 0}
    shape = [one for one in printed["estimates"] if one["metric"] == "shape"]
    assert [(one["pair"], one["estimate"]["mean"]) for one in shape] == [
        ("other/classify-ticket@v2", 0.0),
        ("small/classify-ticket@v2", 1.0),
    ]
    found = rows(
        project,
        "SELECT model, inclusion_prob p, count(*) n FROM scores WHERE tier = 2 GROUP BY ALL"
        " ORDER BY ALL",
    )
    assert found == [{"model": "other", "p": 0.25, "n": 5}, {"model": "small", "p": 0.125, "n": 5}]


def test_people_can_label_what_the_judge_saw_of_production(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Loopback() as server:
        judged_by(project, server.url)
        sample(project, "--per-stratum", "5", "--by", "model", "--json")
        run_id = said(capsys)["run_id"]

        config = ["--config", str(project / "evalkit.toml")]
        assert main(["label", "queue", run_id, "--budget", "6", "--json", *config]) == 0

    drawn = said(capsys)
    assert (drawn["population"], drawn["items"], drawn["left_out"]) == (10, 6, 0)
    with closing(LabelQueue(project / ".evalkit")) as queue:
        items = queue.items()
    assert all("question" in item["shown"]["input"]["text"] for item in items)
    assert {item["facts"][0]["run_id"] for item in items} == {run_id}


def test_the_same_window_again_changes_no_file_and_asks_no_judge(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Loopback() as server:
        judged_by(project, server.url)
        sample(project, "--rate", "0.5", "--json")
        first, asked = said(capsys), server.stats.requests
        before = files(project)

        assert sample(project, "--rate", "0.5", "--json") == 0

        again = said(capsys)
        assert server.stats.requests == asked
    assert again["already_done"]
    assert (again["run_id"], again["done"]) == (first["run_id"], first["done"])
    assert files(project) == before


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.glob(".evalkit/**/*.parquet")}


def stop_midway(folder: Path, server: Loopback, *options: str, until: int = AT + HOUR) -> int:
    """Raise the budget until some judges can be paid, not all: a judgement takes 0.00002 USD."""
    for step in range(1, 40):
        status = sample(folder, *options, "--max-cost", f"{step * 0.0003:.4f}", until=until)
        if server.stats.requests:
            return status
    raise AssertionError("no budget was enough")


def test_a_job_stopped_by_its_budget_is_finished_without_paying_twice(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Loopback() as server:
        judged_by(project, server.url)
        options = ("--rate", "1", "--concurrency", "1")
        stopped, asked = stop_midway(project, server, *options), server.stats.requests
        assert "the same command goes on" in capsys.readouterr().out

        assert sample(project, *options, "--json") == 0

        total = server.stats.requests
    assert stopped == 3
    assert 0 < asked < 60
    assert total == 60
    assert said(capsys)["resumed"] == asked
    assert rows(project, "SELECT count(*) n FROM scores WHERE tier = 2") == [{"n": 60}]


def test_without_a_start_each_job_follows_the_last(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample(project, "--json", until=AT + HOUR // 2)
    log(project, "later", range(100, 110))

    status = sample(project, "--json", since=None, until=AT + 3 * HOUR)
    nothing_new = sample(project, "--json", since=None, until=AT + 3 * HOUR)

    first, second, third = capsys.readouterr().out.replace("}\n{", "}\0{").replace(
        "}\nnull", "}\0null"
    ).split("\0")  # fmt: skip
    assert (status, nothing_new, json.loads(third)) == (0, 0, None)
    assert (json.loads(first)["calls"], json.loads(second)["calls"]) == (30, 40)
    assert json.loads(second)["since"] == json.loads(first)["until"]
    found = rows(project, "SELECT count(*) n, count(DISTINCT trace_id) d FROM scores")
    assert found == [{"n": 70, "d": 70}]


def test_a_job_that_was_stopped_is_finished_before_the_next_window(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Loopback() as server:
        judged_by(project, server.url)
        options = ("--rate", "1", "--concurrency", "1")
        stop_midway(project, server, *options, until=AT + HOUR // 2)
        capsys.readouterr()

        sample(project, *options, "--json", since=None)

    assert said(capsys)["until"] == iso((AT + HOUR // 2) // 1_000_000 * 1_000_000)


def test_calls_between_a_job_and_the_end_it_was_given_belong_to_the_next(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    later = now() + 24 * HOUR
    sample(project, "--json", until=later)
    assert said(capsys)["calls"] == 60
    log(project, "since", range(60, 70), at=now() - 59 * MINUTE)

    sample(project, "--json", since=None, until=later + HOUR)

    assert said(capsys)["calls"] == 10


def test_failed_calls_are_no_bad_answers_and_calls_without_texts_are_left_out(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = {"status": "error", "error_kind": "somebody_elses_kind"}
    log(project, "errors", range(200, 203), at=AT - 190 * MINUTE, **strange)
    gone = plain(call(trace_id="gone", feature="classify", ts=AT, input=None, output=None))
    open_store(project / ".evalkit").add_calls("gone", [gone])

    sample(project, "--json")

    assert said(capsys)["calls"] == 63
    found = rows(project, "SELECT outcome, score FROM scores WHERE error_kind IS NOT NULL")
    assert found == [{"outcome": "infra_error", "score": None}] * 3


def test_a_sample_is_never_taken_for_a_run_of_cases(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample(project, "--json")
    capsys.readouterr()

    options = ["--config", str(project / "evalkit.toml")]
    assert main(["gate", "--candidate", "latest", *options]) != 0

    assert "0 complete runs" in capsys.readouterr().err


def test_an_answer_of_doubt_is_picked_and_marked_apart(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log(project, "doubtful", range(300, 310), at=AT - 280 * MINUTE, repaired=True)
    with Loopback() as server:
        judged_by(project, server.url)

        sample(project, "--rate", "0.2", "--active-share", "0.3", "--json")

    drawn = said(capsys)["drawn"]
    assert drawn["active"] > 0
    found = rows(
        project,
        "SELECT count(*) n FROM scores WHERE slices['share'] = 'active' AND inclusion_prob IS NULL",
    )
    assert found == [{"n": drawn["active"]}]


def test_an_unknown_stratum_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sample(project, "--by", "colour") == 2

    assert "not a column to sample by" in capsys.readouterr().err


def test_a_window_that_ends_before_it_begins_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample(project, since=AT + HOUR, until=AT) == 2

    assert "--since is after --until" in capsys.readouterr().err


def test_the_table_says_what_was_done(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample(project)
    sample(project)

    out = capsys.readouterr().out
    assert "60 calls from 2025-10-09" in out
    assert "nothing was asked again" in out


def test_a_sample_is_not_finished_as_a_run_of_cases(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample(project, "--json")
    run_id = said(capsys)["run_id"]

    options = ["--config", str(project / "evalkit.toml")]
    assert main(["run", "--resume", run_id, *options]) == 2

    assert "Finish it with: evalkit sample" in capsys.readouterr().err


def test_what_users_said_later_makes_strata(project: Path) -> None:
    store = open_store(project / ".evalkit")
    for number in range(10):
        store.add_feedback(f"c-{number:03d}", score=0.0)
    with Loopback() as server:
        judged_by(project, server.url)

        sample(project, "--per-stratum", "4", "--by", "user_feedback")

    found = rows(
        project,
        "SELECT slices['user_feedback'] said, inclusion_prob p, count(*) n"
        " FROM scores WHERE tier = 2 GROUP BY ALL ORDER BY ALL",
    )
    assert found == [
        {"said": "", "p": 0.08, "n": 4},
        {"said": "down", "p": 0.4, "n": 4},
    ]
