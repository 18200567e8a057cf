"""Which runs a name means, which may be a baseline, and which may be pooled with it."""

from __future__ import annotations

from typing import Any

import pytest

from evalkit.decide.selectors import (
    MAX_POOLED,
    Manifest,
    Selector,
    baseline_runs,
    branch_of,
    counterpart,
    find_run,
    is_newer,
    is_sample,
    is_whole,
    newest_complete,
    parse_compare,
    parse_selector,
    pool_with,
    require_complete,
    runs_elsewhere,
    runs_named,
    stopped_early,
)
from evalkit.errors import ConfigError, NotComparable
from evalkit.records import Pair
from tests.decide.measured import V1, V2

SHARD = {"number": 1, "of": 2}


def run(run_id: str, *, branch: str | None = "main", **facts: Any) -> Manifest:
    """A complete run of `tickets` by one pair."""
    whole = {
        "run_id": run_id,
        "status": "complete",
        "git": {"branch": branch},
        "golden_sets": {"tickets": {"pairs": [str(V2)]}},
    }
    return whole | facts


def ids(runs: list[Manifest]) -> list[str]:
    return [one["run_id"] for one in runs]


# --- names ------------------------------------------------------------------------------


def named(*runs: str) -> Any:
    return lambda text: text in runs


def test_a_pair_of_a_model_whose_name_holds_colons_is_read_after_the_run() -> None:
    selector = parse_selector("run-a:llama:8b/p@v1", is_run=named("run-a"))

    assert selector == Selector(
        run="run-a", pair=Pair(model="llama:8b", prompt_name="p", prompt_version="v1")
    )


def test_a_run_of_which_the_rest_is_no_pair_is_refused_with_what_would_be_right() -> None:
    with pytest.raises(ConfigError, match=r"'run-a:v1' is neither a run .* nor RUN:MODEL/PROMPT"):
        parse_selector("run-a:v1", is_run=named("run-a"))


def test_what_stands_before_a_pair_has_to_be_a_run() -> None:
    selector = parse_selector("llama:8b/p@v1", is_run=named("run-a"))

    assert selector == Selector(pair=Pair(model="llama:8b", prompt_name="p", prompt_version="v1"))


def test_a_run_and_its_pair_stand_on_either_side() -> None:
    left, right = parse_compare("run-b/p@v1:run-a:m/p@v2", is_run=named("run-a"))

    assert (left.run, right.run) == (None, "run-a")
    assert (str(left.pair), str(right.pair)) == ("run-b/p@v1", "m/p@v2")


# --- runs by name -----------------------------------------------------------------------

LONG = [run("abcdef1"), run("abcdef2"), run("abcdef")]


def test_a_whole_id_is_that_run_though_others_begin_so() -> None:
    assert ids(runs_named(LONG, "abcdef")) == ["abcdef"]


def test_six_letters_are_enough_and_five_are_not() -> None:
    runs = [run("abcdefgh")]

    assert ids(runs_named(runs, "abcdef")) == ["abcdefgh"]
    assert runs_named(runs, "abcde") == []


def test_a_short_id_is_named_whole() -> None:
    assert ids(runs_named([run("r1"), run("r2")], "r2")) == ["r2"]


def test_neither_samples_nor_runs_that_go_on_are_counted_back() -> None:
    runs = [
        run("e", kind="sample"),
        run("d", status="running"),
        run("c"),
        run("b", kind="sample"),
        run("a"),
    ]

    assert [find_run(runs, text)["run_id"] for text in ("latest", "latest~1")] == ["c", "a"]
    with pytest.raises(ConfigError, match=r"latest~2: this store has 2 complete runs"):
        find_run(runs, "latest~2")


def test_a_run_that_is_named_need_not_be_complete() -> None:
    assert find_run([run("abcdef1", status="running")], "abcdef1")["status"] == "running"


def test_a_name_that_no_run_has_says_where_the_runs_are_listed() -> None:
    with pytest.raises(ConfigError, match=r"no run is named 'x' .*SELECT run_id FROM runs"):
        find_run([run("abcdef1")], "x")


# --- what a run is ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "whole"),
    [
        ({}, True),
        ({"status": "running"}, False),
        ({"status": None}, False),
        ({"shard": SHARD}, False),
        ({"shard": None}, True),
        ({"kind": "sample"}, False),
        ({"kind": "golden"}, True),
    ],
)
def test_a_run_of_all_cases_is_complete_no_shard_and_no_sample(
    facts: dict[str, Any], whole: bool
) -> None:
    assert is_whole(run("a", **facts)) is whole


def test_only_what_is_called_a_sample_is_one() -> None:
    assert is_sample({"kind": "sample"}) is True
    assert is_sample({}) is False


@pytest.mark.parametrize(
    ("facts", "early"), [({}, False), (None, False), ({"stopped": False}, False),
                         ({"stopped": True}, True)],
)  # fmt: skip
def test_a_run_stopped_early_when_it_says_so(facts: dict[str, Any] | None, early: bool) -> None:
    assert stopped_early(run("a", stop_early=facts)) is early


@pytest.mark.parametrize("git", [None, {}, {"branch": None}])
def test_a_run_outside_a_repository_has_no_branch(git: dict[str, Any] | None) -> None:
    assert branch_of({"run_id": "a", "git": git}) is None
    assert branch_of({"run_id": "a"}) is None
    assert branch_of(run("a", branch="main")) == "main"


def test_a_run_that_goes_on_has_no_scores_and_says_how_to_finish_it() -> None:
    with pytest.raises(NotComparable, match=r"run a is running: .*evalkit run --resume a"):
        require_complete(run("a", status="running"))
    assert require_complete(run("a"))["run_id"] == "a"


# --- baselines --------------------------------------------------------------------------


def test_the_newest_run_is_that_of_the_branch_and_golden_set_asked_for() -> None:
    runs = [
        run("d", branch="x"),
        run("c", golden_sets={"orders": {}}),
        run("b", golden_sets=None),
        run("a"),
    ]

    def newest(**asked: str) -> str | None:
        found = newest_complete(runs, **asked)
        return None if found is None else found["run_id"]

    assert newest() == "d"
    assert newest(branch="main") == "c"
    assert newest(branch="main", golden_set="tickets") == "a"
    assert newest(golden_set="orders") == "c"
    assert newest(golden_set="calls") is None
    assert newest(branch="y") is None


def earlier(
    runs: list[Manifest], *, candidate: Manifest | None = None, branch: str = "main"
) -> list[str]:
    found = baseline_runs(
        runs, candidate=candidate or runs[0], golden_set="tickets", default_branch=branch
    )
    return ids(found)


def test_baselines_are_whole_runs_of_the_default_branch_from_before_the_candidate() -> None:
    runs = [
        run("g"),
        run("f", branch="change"),
        run("e"),
        run("d", branch="other"),
        run("c", golden_sets={"orders": {}}),
        run("b2", golden_sets=None),
        run("b", status="running"),
        run("a"),
    ]

    assert earlier(runs, candidate=runs[1]) == ["e", "a"]
    assert earlier(runs, candidate=runs[1], branch="other") == ["d"]
    assert earlier(runs) == ["e", "a"]


def test_runs_without_a_repository_stand_for_the_branch_of_a_candidate_without_one() -> None:
    runs = [run("d", branch=None), run("c", branch=None), run("b", branch="x")]

    assert earlier(runs) == ["c"]
    assert earlier([*runs, run("a")]) == ["a"]
    assert earlier([run("e", branch="change"), *runs]) == []


def test_a_run_that_stopped_early_is_the_last_choice() -> None:
    runs = [run("d"), run("c", stop_early={"stopped": True}), run("b"), run("a")]

    assert earlier(runs) == ["b", "a", "c"]


def test_a_run_of_some_cases_is_no_baseline_where_there_is_one_of_all() -> None:
    some = run("c", request={"limit": 62})
    runs = [run("d", request={"limit": None}), some, run("b", request={}), run("a")]

    assert earlier(runs) == ["b", "a", "c"]
    assert earlier([runs[0], some]) == ["c"]
    assert pooled([run("b"), some, run("a")]) == ["a"]


# --- pools ------------------------------------------------------------------------------


def pooled(runs: list[Manifest], *, candidate: Manifest | None = None) -> list[str]:
    """What may be pooled with the first of `runs`."""
    known = candidate or run("cand")
    return ids(pool_with(runs[0], runs, candidate=known, golden_set="tickets"))


def of_pairs(*pairs: Pair) -> dict[str, Any]:
    return {"golden_sets": {"tickets": {"pairs": [str(pair) for pair in pairs]}}}


def test_runs_of_a_pair_that_the_newest_has_may_be_pooled_with_it() -> None:
    runs = [
        run("e", **of_pairs(V1, V2)),
        run("d", **of_pairs(V2)),
        run("c", **of_pairs(Pair.parse("large/classify@v2"))),
        run("b", **of_pairs(V1)),
        run("a", golden_sets={"tickets": {}}),
    ]

    assert pooled(runs) == ["d", "b"]
    assert pooled(runs[::-1]) == []


def test_a_run_that_stopped_early_is_not_pooled_and_does_not_stand_for_its_answers() -> None:
    runs = [
        run("c"),
        run("b", stop_early={"stopped": True}, rescored_from="a"),
        run("a"),
    ]

    assert pooled(runs) == ["a"]


def test_answers_that_were_scored_again_and_again_count_once() -> None:
    runs = [
        run("e"),
        run("d", rescored_from="c"),
        run("c", rescored_from="b"),
        run("b"),
        run("a"),
    ]

    assert pooled(runs) == ["d", "a"]


def test_the_candidates_own_answers_are_no_baseline() -> None:
    runs = [run("c"), run("b", rescored_from="a"), run("a")]

    assert pooled(runs, candidate=run("cand", rescored_from="a")) == []
    assert pooled(runs, candidate=run("cand", rescored_from="b")) == []
    assert pooled(runs, candidate=run("cand")) == ["b"]


def test_answers_of_a_run_that_is_gone_count_by_its_name() -> None:
    runs = [run("d"), run("c", rescored_from="gone"), run("b", rescored_from="gone"), run("a")]

    assert pooled(runs) == ["c", "a"]
    assert pooled(runs, candidate=run("cand", rescored_from="gone")) == ["a"]


def test_answers_are_followed_to_their_origin_through_every_run_there_is() -> None:
    runs = [run("c"), run("b", rescored_from="a"), run("a", rescored_from="gone")]

    assert pooled(runs, candidate=run("cand", rescored_from="b")) == []


def test_runs_that_name_each_other_as_their_origin_come_to_an_end() -> None:
    runs = [run("c"), run("b", rescored_from="a"), run("a", rescored_from="b")]

    assert len(pooled(runs)) in {1, 2}


def test_the_newest_runs_are_pooled_as_many_as_there_is_room_for() -> None:
    runs = [run(f"r{number:02d}") for number in range(MAX_POOLED + 5, 0, -1)]

    found = pooled(runs)

    assert found == ids(runs)[1:MAX_POOLED]
    assert len(found) == 19


def test_of_two_ids_that_begin_with_the_time_the_larger_is_newer() -> None:
    old, new = f"01a2{0:028x}", f"01a2{1:028x}"

    assert [is_newer(new, than=old), is_newer(old, than=new), is_newer(old, than=old)] == [
        True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), [("2" * 32, "run-1"), ("run-2", "1" * 32), ("b", "a")])
def test_an_id_without_a_time_says_nothing_of_what_is_newer(one: str, other: str) -> None:
    assert not is_newer(one, than=other)


def test_the_branches_of_runs_are_told_by_how_many_they_have_three_at_most() -> None:
    branches = ["a", "b", "b", "c", "c", "c", "d", "d", "d", "d"]
    runs = [run(f"{n}", branch=branch) for n, branch in enumerate(branches)]
    shard = run("shard", branch="main", shard=SHARD)

    assert runs_elsewhere([*runs, shard]) == "; 4 on d, 3 on c, 2 on b"
    assert runs_elsewhere([run("x", branch=None), *runs[:1]]) == "; 1 on a"
    assert runs_elsewhere([run("x", branch=None)]) == ""


# --- pairs ------------------------------------------------------------------------------


def test_a_pair_meets_no_version_of_another_prompt_or_model_while_there_are_several() -> None:
    of_model, of_prompt = Pair.parse("small/other@v1"), Pair.parse("large/classify@v1")

    assert counterpart(V2, [of_model, of_prompt]) is None
    assert counterpart(V2, [of_model, of_prompt, V1]) == V1
    assert counterpart(V2, [of_model]) == of_model
