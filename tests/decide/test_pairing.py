"""Which case meets which, and which run and pair: the names and the joins."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
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
from tests.decide.measured import NONE, scored
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


@pytest.mark.parametrize(
    ("text", "candidate", "baseline"),
    [
        ("x1/@:g1/@", ("x1", "", ""), ("g1", "", "")),
        ("openai/gpt-4o/@:openai/gpt-5/@", ("openai/gpt-4o", "", ""), ("openai/gpt-5", "", "")),
        ("a/b/p@v1:llama:8b/@v2", ("a/b", "p", "v1"), ("llama:8b", "", "v2")),
    ],
)
def test_pairs_of_files_can_be_named_as_they_are_shown(
    text: str, candidate: tuple[str, str, str], baseline: tuple[str, str, str]
) -> None:
    sides = parse_compare(text, is_run=lambda _: False)

    found = [(s.pair.model, s.pair.prompt_name, s.pair.prompt_version) for s in sides if s.pair]
    assert found == [candidate, baseline]


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


@contextmanager
def two_files(
    folder: Path, baseline: list[Any], candidate: list[Any], header: str
) -> Iterator[tuple[Engine, list[Meeting]]]:
    """Two results files in an engine, and the meeting of each of their metrics."""
    with Engine() as engine:
        sources = []
        for view, rows in (("baseline_file", baseline), ("candidate_file", candidate)):
            engine.add_table(view, file_rows(write_csv(folder / f"{view}.csv", rows, header)).table)
            sources.append(Source(name=view, run_id=None, view=view))
        gather_rows(engine, sources)
        groups = groups_of(engine)
        half = len(groups) // 2
        yield (
            engine,
            [
                Meeting(candidate=other, baseline=one, number=0)
                for one, other in zip(groups[:half], groups[half:], strict=True)
            ],
        )


def paired(
    folder: Path,
    baseline: list[Any],
    candidate: list[Any],
    header: str,
    *,
    runs: Collection[str] = (),
) -> Cases:
    """The cases of the one comparison of two results files; `runs` are taken for runs."""
    with two_files(folder, baseline, candidate, header) as (engine, meetings):
        [cases] = pairing.pair_cases(engine, meetings, runs, project=folder)
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


def matched(cases: Cases) -> tuple[list[float], list[float]]:
    assert cases.matched is not None
    return cases.matched.baseline.tolist(), cases.matched.candidate.tolist()


def test_means_are_of_all_trials_and_matched_ones_of_as_many_on_each_side(tmp_path: Path) -> None:
    baseline = [("a", 0, 1), ("b", 0, 1), ("c", 0, 0), ("c", 1, 1)]
    candidate = [("a", 0, 1), ("a", 1, 0), ("a", 2, 0), ("b", 0, 0), ("b", 1, 1), ("c", 0, 1)]

    cases = paired(tmp_path, baseline, candidate, "case_id,trial,score")

    assert cases.baseline.tolist() == [1, 1, 0.5]
    assert cases.candidate.tolist() == [pytest.approx(1 / 3), 0.5, 1]
    assert (cases.beyond, cases.candidate_has_more) == ((1, 3), True)
    assert matched(cases) == ([1, 1, 0], [1, 0, 1])


def test_trials_are_matched_case_by_case_and_by_those_with_a_score(tmp_path: Path) -> None:
    baseline = [("a", 0, 1), ("b", 1, 1), ("c", 2, 0), ("c", 3, ""), ("d", 3, 0), ("e", 0, "")]
    candidate = [
        ("a", 7, ""), ("a", 8, 1), ("b", 3, 0), ("b", 4, 1), ("c", 8, 1), ("c", 9, 0), ("d", 5, ""),
        ("d", 6, ""), ("e", 0, 1),
    ]  # fmt: skip

    cases = paired(tmp_path, baseline, candidate, "case_id,trial,score")

    assert cases.beyond == (0, 2)
    np.testing.assert_equal(matched(cases)[1], [1.0, 0.0, 1.0, np.nan, np.nan])
    assert cases.matched is not None
    assert cases.matched.candidate_trials.tolist() == [1, 2, 2, 0, 1]
    assert cases.matched.candidate_rows.tolist() == [2, 2, 2, 2, 1]


def test_a_candidate_asked_as_often_on_the_whole_has_no_more_trials(tmp_path: Path) -> None:
    baseline = [("a", 0, 1), ("a", 1, 1), ("b", 0, 1)]
    candidate = [("a", 0, 1), ("b", 0, 1), ("b", 1, 0)]

    cases = paired(tmp_path, baseline, candidate, "case_id,trial,score")

    assert (cases.beyond, cases.candidate_has_more) == ((1, 1), False)


@pytest.mark.parametrize(("lost", "is_uneven"), [(6, False), (7, True)])
def test_a_few_lost_trials_need_no_match(tmp_path: Path, lost: int, is_uneven: bool) -> None:
    thrice = [(f"c{n}", trial, 1) for n in range(20) for trial in range(3)]
    short = [
        (case, trial, "" if n < lost else 1) for n, (case, trial, _) in enumerate(thrice[2::3])
    ]
    baseline = [row for row in thrice if row[1] < 2] + short

    cases = paired(tmp_path, baseline, thrice, "case_id,trial,score")

    assert cases.beyond == (0, lost)
    assert (cases.matched is not None) == is_uneven


def test_a_case_alone_is_not_in_the_cluster_that_is_named_like_it(tmp_path: Path) -> None:
    rows = [("a", 1, ""), ("b", 1, "a"), ("c", 1, "a")]

    cases = paired(tmp_path, rows, rows, "case_id,score,cluster")

    assert cases.clusters is not None
    alone, *together = cases.clusters.tolist()
    assert together[0] == together[1] != alone


ONE_SIDE = (
    [("a", 1), ("b", 1), ("b-gone", 1), ("c", 1)],
    [("a", 1), ("a-new", 1), ("b", 0), ("c", 1)],
)


@pytest.mark.parametrize(
    ("runs", "new", "removed"),
    [
        ((), [], []),
        (("baseline_file",), ["a-new"], []),
        (("candidate_file",), [], ["b-gone"]),
        (("baseline_file", "candidate_file"), ["a-new"], ["b-gone"]),
    ],
)
def test_a_case_that_a_whole_side_lacks_is_apart_and_one_that_a_file_lacks_is_missing(
    tmp_path: Path, runs: tuple[str, ...], new: list[str], removed: list[str]
) -> None:
    cases = paired(tmp_path, *ONE_SIDE, "case_id,score", runs=runs)

    assert {why: ids.tolist() for why, ids in cases.apart.items()} == {
        "new": new, "removed": removed, "edited": []
    }  # fmt: skip
    assert cases.ids.tolist() == sorted({"a", "a-new", "b", "b-gone", "c"} - {*new, *removed})
    assert (cases.unpaired, cases.uncovered) == (len(new) + len(removed), 0)
    gone = {"baseline": 1 - len(new), "candidate": 1 - len(removed)}
    assert cases.outcomes == {side: {"absent": 1} if n else {} for side, n in gone.items()}
    assert cases.coverage == pytest.approx(3 / len(cases.ids))


EDITED = (
    [("a", 1, "h1"), ("b", 1, "old"), ("c", 1, "h3"), ("d", 1, "h4")],
    [("a", 0, "h1"), ("b", 0, "new"), ("c", 1, "h3"), ("e", 1, "h5")],
)


@pytest.mark.parametrize(
    ("runs", "ids", "unpaired", "uncovered"),
    [
        ((), ["a", "c", "d", "e"], 1, 1),
        (("baseline_file",), ["a", "c", "d"], 2, 1),
        (("candidate_file",), ["a", "c", "e"], 2, 1),
        (("baseline_file", "candidate_file"), ["a", "c"], 3, 0),
    ],
)
def test_an_edited_case_counts_once_beside_new_and_removed_ones(
    tmp_path: Path, runs: tuple[str, ...], ids: list[str], unpaired: int, uncovered: int
) -> None:
    cases = paired(tmp_path, *EDITED, "case_id,score,case_hash", runs=runs)

    assert cases.ids.tolist() == ids
    assert (cases.unpaired, cases.uncovered) == (unpaired, uncovered)
    assert cases.apart["edited"].tolist() == ["b"]
    assert cases.coverage == pytest.approx(2 / (len(ids) + uncovered))


def test_each_metric_meets_its_own_rows(tmp_path: Path) -> None:
    header = "case_id,metric,score"
    before = [("a", "x", 1), ("b", "x", 1), ("a", "y", 0.5), ("a", "z", 0.25), ("b", "z", 1)]
    after = [("a", "x", 0), ("b", "x", 1), ("a", "y", 0.75), ("a", "z", 0.5), ("b", "z", 0)]

    with two_files(tmp_path, before, after, header) as (engine, meetings):
        found = pairing.pair_cases(engine, meetings, (), project=tmp_path)

    assert [(cases.baseline.tolist(), cases.candidate.tolist()) for cases in found] == [
        ([1.0, 1.0], [0.0, 1.0]),
        ([0.5], [0.75]),
        ([0.25, 1.0], [0.5, 0.0]),
    ]


def test_cases_name_their_cluster_or_stand_for_themselves(tmp_path: Path) -> None:
    rows = [("a", 1, "doc"), ("b", 1, "doc"), ("c", 1, ""), ("d", 1, "")]

    cases = paired(tmp_path, rows, rows, "case_id,score,cluster")
    plain = paired(tmp_path, [("a", 1)], [("a", 1)], "case_id,score")

    assert cases.clusters is not None
    shared, same, alone, other = cases.clusters.tolist()
    assert shared == same
    assert len({shared, alone, other}) == 3
    assert plain.clusters is None


def test_a_slice_counts_anew_what_is_missing_in_it() -> None:
    cases = scored(
        [1.0, NONE, 0.5, 1.0], [1.0, 1.0, NONE, 0.0], clusters=np.arange(4, dtype=np.uint64),
        outcomes={"baseline": {"absent": 1}, "candidate": {"absent": 1}}, excluded=3, unpaired=2,
        apart={"new": np.array(["n"], dtype=object)}, uncovered=5,
    )  # fmt: skip

    part = pairing.take(cases, np.array([True, True, False, False]))
    unclustered = pairing.take(scored([1.0], [1.0]), np.array([True]))

    assert part.ids.tolist() == ["c0", "c1"]
    assert part.candidate.tolist() == [1.0, 1.0]
    assert part.clusters is not None
    assert part.clusters.tolist() == [0, 1]
    assert part.outcomes == {"baseline": {"no_score": 1}, "candidate": {}}
    assert (part.excluded, part.unpaired, part.uncovered, part.apart) == (0, 0, 0, {})
    assert part.coverage == 0.5
    assert unclustered.clusters is None


def test_coverage_counts_cases_that_ought_to_be_there() -> None:
    assert scored([1.0] * 3, [1.0, 1.0, NONE], uncovered=1).coverage == 0.5
    assert scored([], []).coverage == 0.0


# --- versions of the scorer ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        ([("a", 0, "v1")], [("a", 0, "v2")], {0: ("v1", "v2")}),
        ([("a", 0, "v1")], [("a", 0, "v1")], {}),
        ([("a", 0, "v1"), ("b", 0, "v2")], [("a", 0, "v1"), ("b", 0, "v2")], {}),
        ([("a", 0, "v1"), ("b", 0, "v2")], [("a", 0, "v1"), ("b", 0, "v3")], {0: ("v2", "v3")}),
        ([("a", 0, ""), ("a", 1, "")], [("a", 0, "v1"), ("a", 1, "v2")], {}),
        ([("a", 0, "v1"), ("a", 1, "v2")], [("a", 0, ""), ("a", 1, "")], {}),
    ],
)
def test_versions_differ_where_both_sides_scored_a_case_by_others(
    tmp_path: Path, before: list[Any], after: list[Any], found: dict[int, tuple[str, str]]
) -> None:
    sides = [[(case_id, n, 1, version) for case_id, n, version in s] for s in (before, after)]

    with two_files(tmp_path, *sides, "case_id,trial,score,scorer_version") as (engine, meetings):
        pairing.pair_cases(engine, meetings, (), project=tmp_path)
        differing = pairing.differing_versions(engine, meetings)

    assert differing == found


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
    found = {
        case_id: (None if np.isnan(b) else b, None if np.isnan(c) else c)
        for case_id, b, c in zip(cases.ids, cases.baseline, cases.candidate, strict=True)
    }
    ids = {case_id for case_id, _ in [*baseline, *candidate]}
    assert set(found) == ids
    assert found == {i: (mean(baseline, i), mean(candidate, i)) for i in ids}
    if cases.matched is None:
        return
    for number, case_id in enumerate(cases.ids):
        sides = [
            [score for (c, _), score in sorted(side.items()) if c == case_id and score != ""]
            for side in (baseline, candidate)
        ]
        most = min(map(len, sides))
        expected = [sum(side[:most]) / most if most else np.nan for side in sides]
        found_here = [cases.matched.baseline[number], cases.matched.candidate[number]]
        np.testing.assert_allclose(found_here, expected)
