"""A run made in parts, on machines that know nothing of each other, is one run afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evalkit.config import load_settings
from evalkit.errors import NotComparable, StoreError
from evalkit.merging import merge_runs
from evalkit.session import run_golden_sets
from evalkit.store.files import read_json, write_json
from evalkit.store.views import open_store
from evalkit.wiring import RunRequest
from tests.project import write_project


def run(folder: Path, store: Path, **request: Any) -> str:
    settings = load_settings(folder / "evalkit.toml")
    return run_golden_sets(settings, RunRequest(**request), store=str(store)).run_id


def scores(store: Path, run_id: str) -> list[dict[str, Any]]:
    sql = (
        "SELECT case_id, metric, prompt_version, trial, score FROM scores "
        "WHERE run_id = ? ORDER BY ALL"
    )
    return open_store(store).sql(sql, [run_id])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "project", target="tests.apps:always_billing", cases=23)


def test_shards_merged_are_the_run_made_in_one_go(project: Path, tmp_path: Path) -> None:
    whole = run(project, tmp_path / "one", trials=2)
    stores = [tmp_path / f"machine-{n}" for n in (1, 2, 3)]
    shards = [
        run(project, store, trials=2, shard=(n, 3)) for n, store in enumerate(stores, start=1)
    ]

    merged, summary = merge_runs(tmp_path / "one", shards, others=stores)

    assert summary.done == 46
    assert summary.complete
    assert scores(tmp_path / "one", merged) == scores(tmp_path / "one", whole)
    manifest = open_store(tmp_path / "one").manifest(merged)
    assert manifest["status"] == "complete"
    assert manifest["merged_from"] == shards
    assert manifest["golden_sets"]["tickets"]["n_cases"] == 23


def test_what_one_shard_noted_is_told_as_its_own(tmp_path: Path) -> None:
    project = write_project(tmp_path / "project", target="tests.apps:always_billing", cases=60)
    shards = [run(project, tmp_path / "one", shard=(n, 2)) for n in (1, 2)]

    merged, _ = merge_runs(tmp_path / "one", shards)

    notes = open_store(tmp_path / "one").manifest(merged)["notes"]
    assert notes
    assert {note.partition(": small")[0] for note in notes} <= {
        "duplicate_output", "shard 1: duplicate_output", "shard 2: duplicate_output",
    }  # fmt: skip


def test_a_missing_shard_is_named(project: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shards = [run(project, store, shard=(n, 3)) for n in (1, 3)]

    with pytest.raises(NotComparable, match="shard 2 of 3 is missing"):
        merge_runs(store, shards)


def test_a_shard_is_not_counted_twice(project: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shards = [run(project, store, shard=(n, 2)) for n in (1, 2, 2)]

    with pytest.raises(NotComparable, match="a shard is twice"):
        merge_runs(store, shards)


def test_shards_of_different_runs_do_not_fit(project: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    one = run(project, store, shard=(1, 2))
    other = run(project, store, shard=(2, 2), prompts=("classify@v2",))

    with pytest.raises(NotComparable, match="has other prompts than"):
        merge_runs(store, [one, other])


def test_shards_that_were_asked_for_something_else_do_not_fit(
    project: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    one = run(project, store, shard=(1, 2))
    more = run(project, store, shard=(2, 2), trials=2)
    fewer = run(project, store, shard=(2, 2), limit=10)

    with pytest.raises(NotComparable, match="other trials than"):
        merge_runs(store, [one, more])
    with pytest.raises(NotComparable, match="other limit than"):
        merge_runs(store, [one, fewer])


def test_shards_by_another_model_of_the_same_name_do_not_fit(project: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    one = run(project, store, shard=(1, 2))
    config = project / "evalkit.toml"
    text = config.read_text("utf-8")
    config.write_text(text.replace("always_billing", "by_rule"), encoding="utf-8")
    other = run(project, store, shard=(2, 2))

    with pytest.raises(NotComparable, match="another model small than"):
        merge_runs(store, [one, other])


def test_shards_are_of_all_cases_and_of_none_twice(project: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shards = [run(project, store, shard=(n, 2)) for n in (1, 2)]
    again = run(project, store, shard=(2, 2))
    path = store / "runs" / again / "manifest.json"
    manifest = read_json(path) | {"shard": {"number": 1, "of": 2}}
    write_json(path, manifest, replace=True)

    with pytest.raises(NotComparable, match="case t-0001, trial 0 of small/classify@v1 is in"):
        merge_runs(store, [again, shards[1]])

    manifest["golden_sets"]["tickets"]["n_cases"] = 9
    write_json(path, manifest, replace=True)
    with pytest.raises(NotComparable, match="has 9 cases of tickets; shard 1 of 2 of 20"):
        merge_runs(store, [again, shards[1]])

    assert len(open_store(store).runs()) == 3


def test_calls_of_shards_and_of_the_run_made_of_them_are_counted_once(
    project: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shards = [run(project, store, shard=(n, 2)) for n in (1, 2)]
    sql = "SELECT count(*) n, count(DISTINCT trace_id) traces FROM calls"

    before = open_store(store).sql(sql)
    merged, _ = merge_runs(store, shards)

    assert open_store(store).sql(sql) == before == [{"n": 23, "traces": 23}]
    (calls,) = open_store(store).call_files(merged)
    calls.chmod(0o600)
    calls.write_bytes(calls.read_bytes()[:-100])
    assert open_store(store).sql(sql) == before


def test_shards_are_merged_once(project: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shards = [run(project, store, shard=(n, 2)) for n in (1, 2)]
    merged, _ = merge_runs(store, shards)

    with pytest.raises(NotComparable, match=f"run {merged} .* merged from these shards already"):
        merge_runs(store, shards)


def test_a_whole_run_is_no_shard(project: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"

    with pytest.raises(NotComparable, match="is no shard"):
        merge_runs(store, [run(project, store)])
    with pytest.raises(StoreError, match="Name the shard's store"):
        merge_runs(store, ["nowhere"])
