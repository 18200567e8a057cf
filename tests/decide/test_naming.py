"""Runs and baselines by name: the one that is meant, and never another in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.decide.named_baseline import known_baseline
from evalkit.decide.naming import run_named
from evalkit.errors import ConfigError, DamagedStore, NotComparable
from evalkit.store.views import Store, open_store
from tests.decide.results import cases, write_run

OLD, NEW = f"01a202441ead{0:020x}", f"01a202443312{0:020x}"
PAIR = "small/classify-ticket@v2"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def runs(store: Store, *run_ids: str, branch: str | None = "main") -> None:
    for run_id in run_ids:
        write_run(store, run_id, cases([1.0]), branch=branch)


def damage(store: Store, run_id: str) -> None:
    path = store.path / "runs" / run_id / "manifest.json"
    path.chmod(0o644)
    path.write_text("{", encoding="utf-8")


def named(store: Store, text: str) -> str:
    return str(run_named(store, text)["run_id"])


# --- a run ------------------------------------------------------------------------------


def test_a_run_is_named_by_its_id_its_beginning_or_how_far_back_it_is(store: Store) -> None:
    runs(store, OLD, NEW)

    assert [named(store, text) for text in (OLD, OLD[:12], "latest", "latest~1")] == [
        OLD, OLD, NEW, OLD,
    ]  # fmt: skip


def test_a_newer_run_that_cannot_be_read_may_be_the_latest(store: Store) -> None:
    runs(store, OLD, NEW)
    damage(store, NEW)

    with pytest.raises(DamagedStore, match=f"latest: run {NEW} cannot be read.*e.g. {OLD}"):
        run_named(store, "latest")
    assert named(store, OLD) == OLD


def test_an_older_run_that_cannot_be_read_is_not_the_latest(store: Store) -> None:
    runs(store, OLD, NEW)
    damage(store, OLD)

    assert named(store, "latest") == NEW
    with pytest.raises(DamagedStore, match=f"latest~1: run {OLD} cannot be read and may be meant"):
        run_named(store, "latest~1")


def test_a_run_that_cannot_be_read_is_refused_by_its_name(store: Store) -> None:
    runs(store, OLD, NEW)
    damage(store, OLD)

    with pytest.raises(DamagedStore, match="damaged"):
        run_named(store, OLD)


@pytest.mark.parametrize("text", ["latest~2", "gone-run"])
def test_a_run_that_is_not_there_is_refused(store: Store, text: str) -> None:
    runs(store, OLD, NEW)

    with pytest.raises(ConfigError):
        run_named(store, text)


def test_no_run_that_cannot_be_read_is_meant_by_another_name(store: Store) -> None:
    runs(store, OLD, NEW)
    damage(store, OLD)

    with pytest.raises(ConfigError, match="no run is named 'gone-run'"):
        run_named(store, "gone-run")


# --- a baseline --------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [None, "pooled", "branch:main", PAIR])
def test_what_names_no_single_run_is_left_as_it_is(store: Store, asked: str | None) -> None:
    runs(store, OLD)

    assert known_baseline(store, asked) == asked


@pytest.mark.parametrize(
    ("asked", "known"),
    [("latest", NEW), ("latest~1", OLD), (OLD[:12], OLD), (f"latest:{PAIR}", f"{NEW}:{PAIR}")],
)
def test_a_baseline_is_known_by_its_whole_id_before_another_run_is_the_latest(
    store: Store, asked: str, known: str
) -> None:
    runs(store, OLD, NEW)

    assert known_baseline(store, asked) == known


def test_a_branch_without_a_complete_run_is_no_baseline(store: Store) -> None:
    runs(store, OLD, branch="fix")

    with pytest.raises(NotComparable, match="no complete run of that branch; 1 on fix"):
        known_baseline(store, "branch:main")


def test_a_run_that_is_not_complete_is_no_baseline(store: Store) -> None:
    write_run(store, OLD, cases([1.0]), status="running")

    with pytest.raises(NotComparable, match="its scores are not all there"):
        known_baseline(store, OLD)


def test_a_baseline_that_cannot_be_read_is_damaged_not_unknown(store: Store) -> None:
    runs(store, OLD, NEW)
    damage(store, OLD)

    with pytest.raises(DamagedStore):
        known_baseline(store, OLD)


@pytest.mark.parametrize("suffix", [".csv", ".JSONL", ".ndjson", ".parquet", ".tsv"])
def test_a_file_of_results_is_no_run(store: Store, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"results{suffix}"
    path.write_text("case_id,metric,score\n", encoding="utf-8")

    with pytest.raises(ConfigError, match="is a file of results"):
        known_baseline(store, str(path))


@pytest.mark.parametrize(
    ("asked", "why"),
    [("gone.csv", r"gone\.csv: no such file"), ("gone.tsv", "neither a run"), ("gone", "gone")],
)
def test_what_is_not_there_is_refused(store: Store, asked: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        known_baseline(store, asked)
