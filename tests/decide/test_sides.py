"""Which runs and files meet when a user names them, or nobody does; of manifests alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from evalkit.config import GateSettings
from evalkit.decide.rows import Source
from evalkit.decide.selectors import Manifest
from evalkit.decide.sides import Match, Request, Sides
from evalkit.errors import ConfigError, DamagedStore, NotComparable, StoreError
from evalkit.records import Pair
from evalkit.store.views import Engine, Store
from tests.decide.measured import V1, V2, file

V3 = Pair.parse("small/classify@v3")


def run(run_id: str, *, branch: str | None = "main", **facts: Any) -> dict[str, Any]:
    """A complete run of one golden set by one pair."""
    golden = {"tickets": {"feature": "classify", "pairs": [str(V2)]}}
    whole = {"run_id": run_id, "status": "complete", "git": {"branch": branch}}
    return {**whole, "golden_sets": golden, **facts}


def with_pairs(*pairs: Pair) -> dict[str, Any]:
    listed = [str(pair) for pair in pairs]
    return {"golden_sets": {"tickets": {"feature": "classify", "pairs": listed}}}


@dataclass
class Baselines:
    chosen: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def get(self, golden_set: str, feature: str) -> str | None:
        return self.chosen.get((golden_set, feature))


@dataclass
class FakeStore:
    """Manifests, newest first, and what cannot be read."""

    manifests: Sequence[Manifest]
    baselines: Baselines
    unreadable_runs: set[str] = field(default_factory=set)
    damaged: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    read: int = 0

    def runs(self) -> Sequence[Manifest]:
        self.read += 1
        return self.manifests

    def refuse_unreadable(self, text: str) -> None:
        if any(run_id.startswith(text) for run_id in self.unreadable_runs):
            raise StoreError(f"run {text} is damaged")

    def score_files(self, run_id: str) -> list[Path]:
        if run_id in self.damaged:
            raise DamagedStore(f"{run_id}.parquet is damaged.")
        return [Path(f"{run_id}.parquet")]


class FakeEngine:
    """Which files stand behind which view."""

    def __init__(self) -> None:
        self.views: dict[str, list[Path]] = {}

    def add_files(self, view: str, files: list[Path]) -> None:
        self.views[view] = files


def sides(
    *runs: Manifest, chosen: Mapping[tuple[str, str], str] | None = None,
    unreadable: Sequence[str] = (), damaged: Sequence[str] = (), default_branch: str = "main",
    **request: Any,
) -> Sides:  # fmt: skip
    store = FakeStore(runs, Baselines(chosen or {}), set(unreadable), set(damaged))
    if unreadable:
        store.problems.append("it is damaged.")
    return Sides(
        store=cast(Store, store),
        engine=cast(Engine, FakeEngine()),
        request=Request(**request),
        settings=GateSettings(default_branch=default_branch),
    )


def only(of: Sides) -> Match:
    [match] = of.matches()
    return match


def met(of: Sides) -> tuple[Any, ...]:
    """Candidate and baseline of the only match, each with its pair."""
    match = only(of)
    base = None if match.baseline is None else match.baseline.name
    return match.candidate.name, match.candidate_pair, base, match.baseline_pair


BRANCHED = (run("cand-01", branch="change"), run("base-02"), run("base-01"))


def test_a_gate_without_a_baseline_is_allowed_only_by_word() -> None:
    assert Request().allow_no_baseline is False


# --- the candidate ----------------------------------------------------------------------


def test_the_newest_whole_run_is_the_candidate() -> None:
    runs = (run("d", status="running"), run("c", shard={"number": 1, "of": 2}), *BRANCHED)

    assert met(sides(*runs))[0] == "cand-01"


def test_without_a_whole_run_there_is_no_candidate() -> None:
    with pytest.raises(NotComparable, match=r"no complete run in this store"):
        sides(run("c", status="running")).matches()
    without = Sides(
        store=None, engine=cast(Engine, FakeEngine()), request=Request(), settings=GateSettings()
    )
    with pytest.raises(NotComparable, match=r"no complete run in this store"):
        without.matches()


def test_a_candidate_is_named_by_its_run_by_a_pair_or_by_both() -> None:
    pair = "small/classify@v2"

    assert met(sides(*BRANCHED, candidate="base-02")) == ("base-02", None, "base-01", None)
    assert met(sides(*BRANCHED, candidate=pair)) == ("cand-01", V2, "base-02", None)
    assert met(sides(*BRANCHED, candidate=f"base-02:{pair}")) == ("base-02", V2, "base-01", None)
    assert met(sides(*BRANCHED, candidate="latest~1"))[0] == "base-02"


def test_a_run_that_goes_on_is_no_candidate() -> None:
    with pytest.raises(NotComparable, match=r"run going-1 is running"):
        sides(run("going-1", status="running"), *BRANCHED, candidate="going-1").matches()


def test_a_candidate_that_names_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither a run of this store"):
        sides(*BRANCHED, candidate="nobody").matches()


def test_a_candidate_file_needs_a_baseline() -> None:
    with pytest.raises(ConfigError, match="a candidate file needs a baseline"):
        sides(*BRANCHED, candidate=file("new.csv")).matches()
    match = only(sides(*BRANCHED, candidate=file("new.csv"), baseline=file("old.csv")))
    assert (match.candidate, match.baseline) == (file("new.csv"), file("old.csv"))


OLD, NEW = "0198" + "0" * 27 + "1", "0198" + "0" * 27 + "9"


@pytest.mark.parametrize("candidate", [None, "latest", "small/classify@v2"])
def test_where_a_newer_run_cannot_be_read_none_is_taken_in_its_place(
    candidate: str | None,
) -> None:
    damaged = sides(run(OLD), run("base-01"), unreadable=[NEW], candidate=candidate)

    with pytest.raises(NotComparable, match=rf"run {NEW} cannot be read .* --candidate {OLD}"):
        damaged.matches()


@pytest.mark.parametrize("unreadable", [OLD[:-1] + "0", "not-a-time", OLD, NEW[:-1]])
def test_a_run_that_is_not_newer_or_says_not_when_it_was_does_not_stop_anybody(
    unreadable: str,
) -> None:
    assert met(sides(run(OLD), run("base-01"), unreadable=[unreadable]))[0] == OLD
    assert met(sides(run("some-run"), run("base-01"), unreadable=[NEW]))[0] == "some-run"


def test_a_candidate_that_is_named_whole_is_taken_whatever_cannot_be_read() -> None:
    assert met(sides(run(OLD), run("base-01"), unreadable=[NEW], candidate=OLD))[0] == OLD


def test_a_whole_id_is_that_run_though_one_that_cannot_be_read_begins_so() -> None:
    of = sides(*BRANCHED, unreadable=["base-02-more"], candidate="base-02")

    assert met(of)[0] == "base-02"


def test_a_name_whose_run_cannot_be_read_says_so() -> None:
    with pytest.raises(StoreError, match="run gone-01 is damaged"):
        sides(*BRANCHED, unreadable=["gone-01"], candidate="gone-01").matches()


# --- the baseline that nobody names -----------------------------------------------------


def test_the_newest_run_of_the_default_branch_is_the_baseline_with_older_ones_to_pool() -> None:
    match = only(sides(*BRANCHED))

    assert (match.candidate.name, match.candidate_pair) == ("cand-01", None)
    assert match.baseline is not None
    assert (match.baseline.name, match.baseline_pair) == ("base-02", None)
    assert [one.name for one in match.pool] == ["base-01"]
    assert match.golden_set == "tickets"


def test_none_is_compared_with_nothing_whatever_the_store_has() -> None:
    of = sides(run("cand-01"), run("base-01"), baseline="none")

    (match,) = of.matches()

    assert (match.baseline, match.without) == (None, "none was asked for")


def test_runs_of_other_branches_are_named_where_the_default_branch_has_none() -> None:
    old = [run("base-02", branch="master"), run("base-01", branch="master")]

    match = only(sides(run("cand-01", branch="fix"), *old))

    assert match.baseline is None
    assert match.without == "no complete run on branch main (gate.default_branch); 2 on master"


def test_the_default_branch_is_that_of_the_settings() -> None:
    runs = (run("cand-01"), run("base-02"), run("base-01", branch="trunk"))

    assert met(sides(*runs, default_branch="trunk"))[2] == "base-01"


def test_the_first_run_has_no_baseline() -> None:
    of = sides(run("cand-01"))

    assert met(of) == ("cand-01", None, None, None)
    assert only(of).pool == ()
    assert of.problems == []


def test_each_golden_set_has_a_baseline_of_its_own() -> None:
    both = {name: {"feature": "f", "pairs": [str(V2)]} for name in ("tickets", "orders")}
    orders = {"orders": both["orders"]}

    matches = sides(
        run("cand-01", golden_sets=both), run("base-02", golden_sets=orders), run("base-01")
    ).matches()

    assert [(one.golden_set, one.baseline and one.baseline.name) for one in matches] == [
        ("tickets", "base-01"), ("orders", "base-02")
    ]  # fmt: skip


def test_a_baseline_that_was_chosen_is_taken_alone() -> None:
    match = only(sides(*BRANCHED, chosen={("tickets", "classify"): "base-01"}))

    assert match.baseline is not None
    assert (match.baseline.name, match.pool) == ("base-01", ())


def test_a_choice_for_another_feature_is_none_for_this_one() -> None:
    assert met(sides(*BRANCHED, chosen={("tickets", "other"): "base-01"}))[2] == "base-02"


def test_a_golden_set_without_a_feature_is_looked_up_without_one() -> None:
    plain = {"golden_sets": {"tickets": {"pairs": [str(V2)]}}}
    runs = [run(run_id, **plain) for run_id in ("cand-01", "base-02", "base-01")]

    assert met(sides(*runs, chosen={("tickets", ""): "base-01"}))[2] == "base-01"


def test_a_run_that_was_chosen_is_no_baseline_of_itself() -> None:
    match = only(sides(*BRANCHED, chosen={("tickets", "classify"): "cand-01"}))

    assert match.baseline is not None
    assert (match.baseline.name, len(match.pool)) == ("base-02", 1)


def test_a_baseline_that_was_chosen_and_is_damaged_is_not_replaced() -> None:
    damaged = sides(*BRANCHED, chosen={("tickets", "classify"): "gone-01"}, unreadable=["gone-01"])

    with pytest.raises(StoreError, match="run gone-01 is damaged"):
        damaged.matches()


def test_pooled_takes_the_chosen_run_and_what_fits_it() -> None:
    chosen = {("tickets", "classify"): "base-01"}
    match = only(sides(*BRANCHED, chosen=chosen, baseline="pooled"))

    assert match.baseline is not None
    assert match.baseline.name == "base-01"
    assert [one.name for one in match.pool] == ["base-02"]


def test_that_one_run_makes_no_pool_is_said_where_one_was_asked_for() -> None:
    asked, plain = sides(*BRANCHED[:2], baseline="pooled"), sides(*BRANCHED[:2])

    assert (only(asked).pool, asked.problems) == (
        (),
        ["there is one run of tickets to pool: base-02"],
    )
    assert (only(plain).pool, plain.problems) == ((), [])
    enough = sides(*BRANCHED, baseline="pooled")
    assert (len(only(enough).pool), enough.problems) == (1, [])


def test_a_damaged_run_is_left_out_of_the_pool_and_named() -> None:
    of = sides(*BRANCHED, run("base-00"), damaged=["base-01"])

    assert [one.name for one in only(of).pool] == ["base-00"]
    assert of.problems == [
        "base-01.parquet is damaged. The run is left out of the pooled baseline."
    ]


# --- the baseline that is named ---------------------------------------------------------


def test_a_baseline_is_a_run_a_pair_of_the_candidate_or_both() -> None:
    pair = "small/classify@v1"

    assert met(sides(*BRANCHED, baseline="base-01")) == ("cand-01", None, "base-01", None)
    assert met(sides(*BRANCHED, baseline=pair)) == ("cand-01", None, "cand-01", V1)
    assert met(sides(*BRANCHED, baseline=f"base-01:{pair}")) == ("cand-01", None, "base-01", V1)
    match = only(sides(*BRANCHED, baseline="base-01", candidate="small/classify@v2"))
    assert (match.candidate_pair, match.golden_set, match.pool) == (V2, None, ())


def test_a_branch_stands_for_its_newest_run_other_than_the_candidate() -> None:
    runs = (run("cand-01"), *BRANCHED[1:], run("old-1", branch="old"))

    assert met(sides(*runs, baseline="branch:main"))[2] == "base-02"
    assert met(sides(*runs, baseline="branch:old"))[2] == "old-1"
    assert met(sides(*runs, baseline="branch:nobody"))[2] is None
    [match] = sides(*runs, baseline="branch:nobody").matches()
    assert match.without.startswith("no other complete run on branch nobody; ")


# --- what a run compares with itself ----------------------------------------------------

OWN = {
    "stop_early": {
        "stopped": True,
        "comparisons": [
            {"golden_set": "tickets", "candidate": str(V2), "baseline": str(V1)},
            {"golden_set": "tickets", "candidate": str(V3), "baseline": str(V1)},
        ],
    }
}


def test_a_run_that_decided_among_its_pairs_meets_itself() -> None:
    matches = sides(run("cand-01", **OWN), *BRANCHED[1:]).matches()

    seen = [
        (one.candidate.name, one.candidate_pair, one.baseline and one.baseline.name,
         one.baseline_pair, one.golden_set)
        for one in matches
    ]  # fmt: skip
    assert seen == [
        ("cand-01", V2, "cand-01", V1, "tickets"), ("cand-01", V3, "cand-01", V1, "tickets")
    ]  # fmt: skip


def test_of_its_own_comparisons_that_of_the_pair_that_is_named_is_made() -> None:
    runs = (run("cand-01", **OWN), *BRANCHED[1:])

    match = only(sides(*runs, candidate="small/classify@v3"))

    assert (match.candidate_pair, match.baseline_pair) == (V3, V1)
    assert met(sides(*runs, candidate="small/classify@v1")) == ("cand-01", V1, "base-02", None)


def test_a_run_that_decided_among_its_pairs_meets_others_when_that_is_asked() -> None:
    runs = (run("cand-01", **OWN), *BRANCHED[1:])

    assert met(sides(*runs, baseline="pooled")) == ("cand-01", None, "base-02", None)
    assert met(sides(*runs, baseline="base-01")) == ("cand-01", None, "base-01", None)


# --- --compare --------------------------------------------------------------------------

TWO = "small/classify@v2:small/classify@v1"


def test_what_is_compared_by_name_is_all_that_is_compared() -> None:
    texts = ("cand-01:base-01", "base-02:base-01")
    matches = sides(*BRANCHED, compare=texts).matches()

    assert [(one.candidate.name, one.baseline and one.baseline.name) for one in matches] == [
        ("cand-01", "base-01"), ("base-02", "base-01")
    ]  # fmt: skip
    assert {one.pool for one in matches} == {()}


def test_a_pair_of_the_candidates_own_run_is_met_there() -> None:
    own = run("cand-01", branch="change", **with_pairs(V1, V2))

    assert met(sides(own, *BRANCHED[1:], compare=(TWO,))) == ("cand-01", V2, "cand-01", V1)


def test_a_pair_that_the_candidates_run_does_not_have_is_met_in_its_baseline() -> None:
    assert met(sides(*BRANCHED, compare=(TWO,))) == ("cand-01", V2, "base-02", V1)
    assert met(sides(BRANCHED[0], compare=(TWO,))) == ("cand-01", V2, None, V1)


def test_of_several_golden_sets_the_first_that_has_a_baseline_is_the_pairs() -> None:
    both = {name: {"feature": "f", "pairs": [str(V2)]} for name in ("orders", "tickets")}

    seen = met(sides(run("cand-01", golden_sets=both), run("base-01"), compare=(TWO,)))

    assert seen == ("cand-01", V2, "base-01", V1)


def test_a_pair_that_one_of_its_golden_sets_has_is_met_in_the_candidates_run() -> None:
    mixed = {
        "orders": {"feature": "f", "pairs": [str(V2)]},
        "tickets": {"feature": "f", "pairs": [str(V1), str(V2)]},
    }
    own = run("cand-01", branch="change", golden_sets=mixed)

    assert met(sides(own, *BRANCHED[1:], compare=(TWO,)))[2] == "cand-01"


def test_golden_sets_that_do_not_say_their_pairs_have_none() -> None:
    silent = run("cand-01", branch="change", golden_sets={"tickets": {}})

    assert met(sides(silent, *BRANCHED[1:], compare=(TWO,)))[2] == "base-02"


def test_a_pair_meets_the_baseline_that_is_named_beside_it() -> None:
    own = run("cand-01", branch="change", **with_pairs(V1, V2))

    seen = met(sides(own, *BRANCHED[1:], compare=(TWO,), baseline="base-01"))

    assert seen == ("cand-01", V2, "base-01", V1)


def test_a_pair_of_a_file_is_met_in_that_file() -> None:
    seen = met(sides(*BRANCHED, compare=(TWO,), candidate=file("new.csv")))

    assert seen == ("new.csv", V2, "new.csv", V1)


def test_a_pair_may_meet_all_runs_pooled() -> None:
    match = only(sides(*BRANCHED, compare=(TWO,), baseline="pooled"))

    assert match.baseline is not None
    assert (match.candidate_pair, match.baseline.name, match.baseline_pair) == (V2, "base-02", V1)
    assert len(match.pool) == 1
    named = only(sides(*BRANCHED, compare=("cand-01:base-01",), baseline="pooled"))
    assert (named.baseline and named.baseline.name, named.pool) == ("base-01", ())


# --- what is opened ---------------------------------------------------------------------


def test_each_run_is_opened_once_and_keeps_what_its_manifest_says() -> None:
    facts = {"stop_early": {"stopped": False}, "notes": ["a note"]}
    of = sides(run("cand-01", branch="change", **facts), *BRANCHED[1:])
    of.request = Request(compare=("cand-01:base-01", "cand-01:base-02"))

    first, second = of.matches()

    assert first.candidate is second.candidate
    assert cast(FakeEngine, of.engine).views == {
        f"run_{number}": [Path(f"{run_id}.parquet")]
        for number, run_id in enumerate(("cand-01", "base-01", "base-02"))
    }
    assert first.candidate == Source(
        name="cand-01", run_id="cand-01", view="run_0", notes=("a note",),
        golden_sets=run("cand-01")["golden_sets"], stop_early={"stopped": False},
    )  # fmt: skip
    assert cast(FakeStore, of.store).read == 1


def test_a_run_that_is_only_pooled_keeps_its_notes_to_itself() -> None:
    match = only(
        sides(run("cand-01"), run("base-02", notes=["told"]), run("base-01", notes=["not told"]))
    )

    assert match.baseline is not None
    assert (match.baseline.notes, match.pool[0].notes) == (("told",), ())


def test_a_run_without_golden_sets_has_none() -> None:
    match = only(sides(run("cand-01", golden_sets=None), *BRANCHED[1:], baseline="base-01"))

    assert match.candidate.golden_sets == {}


def test_a_run_knows_whose_answers_it_scored_again_however_often() -> None:
    runs = (
        run("cand-01", rescored_from="base-02"),
        run("base-02", rescored_from="base-01"),
        run("base-01", rescored_from="gone-01"),
    )

    assert only(sides(*runs)).candidate.answers_of == {"base-02", "base-01", "gone-01"}
    circle = run("cand-01", rescored_from="base-01"), run("base-01", rescored_from="cand-01")
    assert only(sides(*circle)).candidate.answers_of == {"base-01", "cand-01"}


def test_a_file_is_one_source_however_often_it_is_named() -> None:
    of = sides(candidate=file("same.csv"), baseline=file("same.csv"))

    match = only(of)

    assert match.candidate is match.baseline
    assert list(of.sources) == ["view_same.csv"]
