"""Which case meets which, and which run and pair: the names and the joins."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.decide import pairing
from evalkit.decide.pairing import Cases, Meeting
from evalkit.decide.rows import Source, gather_rows, groups_of
from evalkit.decide.selectors import (
    Selector,
    counterpart,
    find_run,
    newest_complete,
    parse_compare,
    parse_selector,
)
from evalkit.errors import ConfigError
from evalkit.records import Pair
from evalkit.store.views import Engine
from tests.decide.results import file_rows, write_csv

V1, V2, V3 = (Pair.parse(f"small/classify@{version}") for version in ("v1", "v2", "v3"))
OTHER = Pair.parse("large/classify@v1")


def is_run(text: str) -> bool:
    return text in {"run-a", "run-b"}


# --- selectors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "candidate", "baseline"),
    [
        ("run-a:run-b", Selector(run="run-a"), Selector(run="run-b")),
        ("small/classify@v2:small/classify@v1", Selector(pair=V2), Selector(pair=V1)),
        ("run-a:small/classify@v1", Selector(run="run-a"), Selector(pair=V1)),
        ("small/classify@v1:run-b", Selector(pair=V1), Selector(run="run-b")),
        (
            "run-a:small/classify@v2:run-b:small/classify@v1",
            Selector(run="run-a", pair=V2),
            Selector(run="run-b", pair=V1),
        ),
        (
            "llama:8b/p@v2:llama:8b/p@v1",
            Selector(pair=Pair(model="llama:8b", prompt_name="p", prompt_version="v2")),
            Selector(pair=Pair(model="llama:8b", prompt_name="p", prompt_version="v1")),
        ),
    ],
)
def test_compare_names_two_sides(text: str, candidate: Selector, baseline: Selector) -> None:
    assert parse_compare(text, is_run=is_run) == (candidate, baseline)


@pytest.mark.parametrize("text", ["", "run-a", "run-a:", ":", "run-a:run-c", "small/classify@v1"])
def test_compare_that_names_no_two_sides_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not CANDIDATE:BASELINE"):
        parse_compare(text, is_run=is_run)


def test_a_selector_is_a_run_a_pair_or_both() -> None:
    assert parse_selector("run-a", is_run=is_run) == Selector(run="run-a")
    assert parse_selector("run-a:small/classify@v1", is_run=is_run) == Selector(
        run="run-a", pair=V1
    )
    with pytest.raises(ConfigError):
        parse_selector("small/classify", is_run=is_run)


@pytest.mark.parametrize(
    ("baseline", "found"),
    [
        ([V1, V2, OTHER], V2),
        ([V1, OTHER], V1),
        ([OTHER], OTHER),
        ([V1, V3], None),
        ([OTHER, Pair.parse("large/classify@v2")], None),
        ([], None),
    ],
)
def test_a_pair_meets_its_like_else_the_only_choice(
    baseline: list[Pair], found: Pair | None
) -> None:
    assert counterpart(V2, baseline) == found


def test_a_run_is_named_by_a_beginning_that_only_it_has() -> None:
    runs = [{"run_id": "0198aaaa1"}, {"run_id": "0198bbbb2"}]

    assert find_run(runs, "0198bb")["run_id"] == "0198bbbb2"
    with pytest.raises(ConfigError, match="no run"):
        find_run(runs, "0198")
    with pytest.raises(ConfigError, match="2 runs begin with"):
        find_run([*runs, {"run_id": "0198bbbb3"}], "0198bb")


def test_only_complete_runs_of_the_golden_set_are_baselines() -> None:
    runs = [
        {"run_id": "4", "status": "running", "golden_sets": {"a": {}}, "git": {"branch": "main"}},
        {"run_id": "3", "status": "complete", "golden_sets": {"b": {}}, "git": {"branch": "main"}},
        {"run_id": "2", "status": "complete", "golden_sets": {"a": {}}, "git": {"branch": "x"}},
        {"run_id": "1", "status": "complete", "golden_sets": {"a": {}}, "git": {"branch": "main"}},
    ]

    found = newest_complete(runs, branch="main", golden_set="a")

    assert found is not None
    assert found["run_id"] == "1"


# --- cases ------------------------------------------------------------------------------


def paired(folder: Path, baseline: list[Any], candidate: list[Any], header: str) -> Cases:
    """The cases of the one comparison of two results files."""
    with Engine() as engine:
        sources = []
        for view, rows in (("baseline_file", baseline), ("candidate_file", candidate)):
            engine.add_table(view, file_rows(write_csv(folder / f"{view}.csv", rows, header)).table)
            sources.append(Source(name=view, run_id=None, view=view))
        gather_rows(engine, sources)
        one, other = groups_of(engine)
        meeting = Meeting(candidate=other, baseline=one, number=0)
        [cases] = pairing.pair_cases(engine, [meeting], (), project=folder)
    return cases


def test_trials_of_a_case_become_its_mean_and_spread(tmp_path: Path) -> None:
    rows = [("a", 0, 1), ("a", 1, 0), ("a", 2, ""), ("b", 0, 1)]

    cases = paired(tmp_path, rows, rows, "case_id,trial,score")

    assert cases.ids.tolist() == ["a", "b"]
    assert cases.baseline.tolist() == [0.5, 1.0]
    assert cases.baseline_trials.tolist() == [2, 1]
    assert cases.baseline_rows.tolist() == [3, 1]
    assert cases.baseline_var[0] == pytest.approx(0.5)
    assert np.isnan(cases.baseline_var[1])


def test_missing_scores_are_counted_by_side_and_outcome(tmp_path: Path) -> None:
    header = "case_id,score,outcome"
    baseline = [("a", 1, ""), ("b", "", "judge_error"), ("c", 1, ""), ("d", 1, "")]
    candidate = [("a", 1, ""), ("b", 1, ""), ("c", "", "infra_error")]

    cases = paired(tmp_path, baseline, candidate, header)

    assert cases.outcomes == {
        "baseline": {"judge_error": 1},
        "candidate": {"absent": 1, "infra_error": 1},
    }
    assert cases.coverage == 0.25


def test_an_edited_case_is_unpaired_once_and_counts_against_a_files_coverage(
    tmp_path: Path,
) -> None:
    header = "case_id,score,case_hash"
    baseline = [("a", 1, "h1"), ("b", 1, "h2")]
    candidate = [("a", 1, "h1"), ("b", 0, "edited")]

    cases = paired(tmp_path, baseline, candidate, header)

    assert cases.ids.tolist() == ["a"]
    assert (cases.unpaired, cases.uncovered, cases.coverage) == (1, 1, 0.5)


def test_hashes_that_only_one_side_knows_are_not_compared(tmp_path: Path) -> None:
    with Engine() as engine:
        known = file_rows(
            write_csv(tmp_path / "a.csv", [("a", 1, "h1")], "case_id,score,case_hash")
        )
        unknown = file_rows(write_csv(tmp_path / "b.csv", [("a", 0)]))
        engine.add_table("one", known.table)
        engine.add_table("two", unknown.table)
        gather_rows(engine, [Source(name=name, run_id=None, view=name) for name in ("one", "two")])
        first, second = groups_of(engine)
        meeting = Meeting(candidate=second, baseline=first, number=0)

        [cases] = pairing.pair_cases(engine, [meeting], (), project=tmp_path)

    assert (cases.baseline.tolist(), cases.candidate.tolist()) == ([1.0], [0.0])


def test_a_candidates_trials_beyond_the_baselines_are_left_out(tmp_path: Path) -> None:
    baseline = [("a", 0, 1), ("b", 0, 1)]
    candidate = [("a", 0, 1), ("a", 1, 0), ("a", 2, 0), ("b", 0, 0), ("b", 1, 1)]

    cases = paired(tmp_path, baseline, candidate, "case_id,trial,score")

    assert cases.candidate.tolist() == [1.0, 0.0]
    assert cases.candidate_trials.tolist() == [1, 1]


side = st.dictionaries(
    st.tuples(st.sampled_from("abcdef"), st.integers(0, 2)),
    st.sampled_from(["", 0, 0.25, 1]),
    min_size=1,
    max_size=12,
)


@settings(max_examples=20, deadline=None)
@given(baseline=side, candidate=side)
def test_pairing_agrees_with_a_loop_over_the_rows(
    tmp_path_factory: pytest.TempPathFactory,
    baseline: dict[tuple[str, int], Any],
    candidate: dict[tuple[str, int], Any],
) -> None:
    folder = tmp_path_factory.mktemp("pairs")

    def rows(scores: dict[tuple[str, int], Any]) -> list[tuple[Any, ...]]:
        return [(case_id, trial, score) for (case_id, trial), score in scores.items()]

    def mean(scores: dict[tuple[str, int], Any], case_id: str) -> float | None:
        of_case = [s for (c, _), s in scores.items() if c == case_id and s != ""]
        return sum(of_case) / len(of_case) if of_case else None

    cases = paired(folder, rows(baseline), rows(candidate), "case_id,trial,score")
    most = max(Counter(case_id for case_id, _ in baseline).values())
    counted = sorted({trial for _, trial in candidate})[:most]
    candidate = {key: score for key, score in candidate.items() if key[1] in counted}

    found = {
        case_id: (None if np.isnan(b) else b, None if np.isnan(c) else c)
        for case_id, b, c in zip(cases.ids, cases.baseline, cases.candidate, strict=True)
    }
    ids = {case_id for case_id, _ in [*baseline, *candidate]}
    assert set(found) == ids
    assert found == {i: (mean(baseline, i), mean(candidate, i)) for i in ids}
