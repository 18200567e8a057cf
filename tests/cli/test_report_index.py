"""`evalkit report --index`: a folder over all runs, each with its report."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from evalkit.cli.main import main
from evalkit.decide.report_index import write_index
from evalkit.store.views import Store
from tests.decide.report_world import (
    BASELINE,
    CANDIDATE,
    Page,
    comparison,
    hostile_world,
    line,
    little_store,
    verdict,
)

HOSTILE = "</td><script>alert(1)</script>"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    store = little_store(tmp_path / "store")
    store.save_verdict("0001", verdict(comparison(), created_at="2026-01-01T00:00:00+00:00"))
    return store


def index(*arguments: str) -> Page:
    assert main(["report", "--index", "site", "--store", "store", *arguments]) == 0
    return Page(Path("site/index.html").read_text("utf-8"))


def test_all_runs_are_listed_newest_first_with_their_verdicts(store: Store) -> None:
    shown = index()

    assert "2 runs: 1 regression." in shown.text
    assert shown.text.index(CANDIDATE) < shown.text.index(BASELINE)
    assert "regression Quality dropped: label on tickets" in shown.text
    assert "not compared" in shown.text[shown.text.index(BASELINE) :]


def test_cases_are_counted_in_whole_numbers(tmp_path: Path) -> None:
    golden_sets = {"tickets": {"n_cases": 5}}
    run = {"run_id": "1", "created_at": "2026-01-01", "status": "complete"}

    write_index([{**run, "golden_sets": golden_sets}], {}, tmp_path, project=tmp_path)

    assert 'data-name="cases">5</td>' in (tmp_path / "index.html").read_text("utf-8")


def test_every_run_leads_to_its_report_and_back(store: Store) -> None:
    links = [one["href"] for one in index().all("a") if "#" not in str(one["href"])]

    assert links == [f"{CANDIDATE}.html", f"{BASELINE}.html"]
    for name, told in zip(links, ("Quality dropped", "there is no baseline"), strict=True):
        report = Page(Path("site", str(name)).read_text("utf-8"))
        assert told in report.text
        assert "index.html" in [one["href"] for one in report.all("a")]


def test_a_report_that_is_there_is_made_anew_only_for_a_newer_verdict(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    index()
    capsys.readouterr()

    index("--json")
    kept = json.loads(capsys.readouterr().out)["written"]
    for path in Path("site").glob("run-*.html"):
        os.utime(path, (time.time() - 60, 0))
    later = verdict(comparison(), word="regression", created_at="2999-01-01T00:00:00+00:00")
    store.save_verdict("0002", later)
    index("--json")
    made = json.loads(capsys.readouterr().out)["written"]

    assert (kept, made) == (0, 2)


def test_named_runs_alone_are_listed(store: Store) -> None:
    shown = index(CANDIDATE)

    assert "1 run: 1 regression." in shown.text
    assert not Path("site", f"{BASELINE}.html").exists()


def test_a_run_that_is_not_complete_is_listed_without_a_report(store: Store) -> None:
    with store.create_run({"run_id": "run-3", "golden_sets": {}, "pairs": [], "git": {}}) as run:
        run.append(line("run-3", "t-001"))

    shown = index()

    assert "run-3 incomplete" in shown.text
    assert "run-3.html" not in [one["href"] for one in shown.all("a")]


def test_an_empty_store_has_an_index_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert "There is no run yet." in index().text


def test_hostile_names_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    of, store = hostile_world(tmp_path / "store", HOSTILE)
    store.save_verdict("0001", {**of, "created_at": "2026-01-01T00:00:00+00:00"})

    shown = index()

    assert not shown.all("script")
    assert shown.text.count(HOSTILE) >= 3
    assert "script-src" not in str(shown.all("meta"))


@pytest.mark.parametrize(
    "arguments", [[], ["latest"], ["-o", "r.html"], ["--index", "d", "-o", "r.html"],
                  ["latest", "--index", "d", "--baseline", "x"]],
)  # fmt: skip
def test_options_that_do_not_go_together_are_a_usage_error(
    store: Store, arguments: list[str]
) -> None:
    assert main(["report", *arguments, "--store", "store"]) == 2
