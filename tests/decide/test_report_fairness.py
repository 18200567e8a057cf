"""Was the comparison fair? Each question of the report, and each of its answers."""

from __future__ import annotations

from typing import Any

import pytest

from evalkit.decide.report_cases import Meeting
from evalkit.decide.report_fairness import Compared, fairness

ABSENT = object()


def run(run_id: str, **facts: Any) -> dict[str, Any]:
    return {
        "run_id": run_id, "created_at": "2026-03-10T12:00:00+00:00", "seed": 1,
        "versions": {"evalkit": "1.0"}, "git": {"commit": "abc", "dirty": False},
        "golden_sets": {"tickets": {"trials": 1}}, **facts,
    }  # fmt: skip


def entry(**facts: Any) -> dict[str, Any]:
    missing = {"baseline": 0, "candidate": 0, "unpaired": 0, "excluded": 0, "coverage": 1.0}
    missing |= facts.pop("missing", {})
    return {"metric": "label", "n": 100, "missing": missing, **facts}


def scorer(side: str, *versions: str, metric: str = "label") -> dict[str, Any]:
    return {"side": side, "metric": metric, "versions": list(versions)}


def compared(
    *entries: dict[str, Any], golden_set: str = "tickets", baseline: Any = ABSENT,
    before: Any = ABSENT, after: Any = ABSENT, scorers: Any = (),
) -> Compared:  # fmt: skip
    known = {"run_id": "base"} if baseline is ABSENT else baseline
    meeting = Meeting(
        key="m", golden_set=golden_set, baseline=known, candidate={"run_id": "cand"}, gates=()
    )
    runs = {
        "baseline": run("base") if before is ABSENT else before,
        "candidate": run("cand") if after is ABSENT else after,
    }
    return Compared(meeting=meeting, entries=entries or [entry()], runs=runs, scorers=scorers)


def asked(question: str, *met: Compared) -> tuple[str, str] | None:
    """The answer to one question; None where it is not on the page."""
    found = {one.what: (one.word, one.text) for one in fairness(met)}
    return found.get(question)


def test_questions_come_in_a_fixed_order_and_none_without_a_baseline() -> None:
    both = compared(scorers=[scorer("baseline", "1"), scorer("candidate", "1")])

    assert [(one.what, one.word) for one in fairness([both])] == [
        ("The same cases?", "pass"), ("The same scorers?", "pass"),
        ("The models asked for?", "pass"), ("A score of every case?", "pass"),
        ("As many trials?", "pass"), ("The same program and seed?", "pass"),
        ("About the same time?", "pass"), ("From a commit?", "pass"),
    ]  # fmt: skip
    assert fairness([compared(baseline=None)]) == []
    assert fairness([]) == []


# --- cases ------------------------------------------------------------------------------


def test_the_cases_that_met_are_counted_over_golden_sets_by_their_fullest_metric() -> None:
    two = (compared(entry(n=90), entry(n=100), entry(n=None)), compared(entry(n=1_000)))

    assert asked("The same cases?", *two) == (
        "pass",
        "Yes: 1,100 cases, each compared with itself.",
    )
    assert asked("The same cases?", compared(entry(n=None))) == (
        "pass", "Yes: 0 cases, each compared with itself."
    )  # fmt: skip
    nothing = Compared(
        meeting=two[0].meeting, entries=[], runs={"baseline": None, "candidate": None}, scorers=[]
    )
    assert asked("The same cases?", nothing) == ("pass", "Yes: 0 cases, each compared with itself.")


def test_cases_of_one_side_are_told_by_golden_set() -> None:
    apart = compared(entry(missing={"unpaired": 2}), entry(missing={"unpaired": 7}))
    nameless = compared(entry(missing={"unpaired": 1}), golden_set="")

    assert asked("The same cases?", apart, nameless, compared()) == (
        "inconclusive",
        (
            "Not all. tickets: 7 cases on one side only, or edited since, left out; the cases: 1 "
            "case on one side only, or edited since, left out. 300 cases met."
        ),
    )


def test_six_are_told_and_the_others_counted() -> None:
    def apart(n: int) -> list[Compared]:
        return [compared(entry(missing={"unpaired": 1}), golden_set=f"g{at}") for at in range(n)]

    _, six = asked("The same cases?", *apart(6)) or ("", "")
    _, seven = asked("The same cases?", *apart(7)) or ("", "")
    _, eight = asked("The same cases?", *apart(8)) or ("", "")

    assert "g5:" in six
    assert "more" not in six
    assert "g5:" in eight
    assert "g6:" not in eight
    assert "; and 1 more." in seven
    assert "; and 2 more." in eight


# --- scorers ----------------------------------------------------------------------------


def test_scorers_of_one_version_are_counted_and_those_of_two_told() -> None:
    same = [scorer(side, "1", metric=metric) for metric in ("label", "tone")
            for side in ("baseline", "candidate")]  # fmt: skip
    changed = [scorer("candidate", "2", "3"), scorer("baseline", "1")]
    one_side = [scorer("candidate", "2", "3", metric="tone")]

    assert asked("The same scorers?", compared(scorers=same)) == (
        "pass", "Yes: 2 metrics, each scored by one version on both sides."
    )  # fmt: skip
    assert asked("The same scorers?", compared(scorers=[*changed, *one_side])) == (
        "inconclusive",
        (
            "No, and such scores are never compared. label on tickets: 2, 3 against 1; "
            "tone on tickets: 2, 3 against none."
        ),
    )
    unlike = [scorer("baseline", "1"), scorer("candidate", "1"), *one_side]
    word, text = asked("The same scorers?", compared(scorers=unlike)) or ("", "")
    assert word == "inconclusive"
    assert "label" not in text


def test_scores_that_say_no_version_are_not_known() -> None:
    silent = [{"side": side, "metric": "label", "versions": None} for side in ("baseline",)]

    for scorers in (silent, []):
        word, text = asked("The same scorers?", compared(scorers=scorers)) or ("", "")
        assert word == "none"
        assert text.startswith("Not known:")


# --- baseline and models ----------------------------------------------------------------


def test_pooled_runs_are_counted_and_one_is_not_told() -> None:
    def pool(*run_ids: str) -> Compared:
        return compared(baseline={"run_id": "base", "run_ids": list(run_ids)})

    word, text = asked("One run as baseline?", pool("a", "b", "c"), pool("a", "b"), pool("a")) or (
        "", ""
    )  # fmt: skip
    assert word == "pass"
    assert text.startswith("No: 2 or 3 runs of it are pooled")
    assert asked("One run as baseline?", pool("a"), compared()) is None


def test_answers_of_other_models_are_told() -> None:
    other = compared(entry(missing={"excluded": 3}))

    assert asked("The models asked for?", other, compared()) == (
        "inconclusive",
        "Not always. tickets: 3 cases answered by another model, not counted.",
    )
    assert asked("The models asked for?", compared({"metric": "x", "n": 1})) == (
        "pass", "Yes, as far as the providers say which model answered."
    )  # fmt: skip


# --- missing scores ---------------------------------------------------------------------


def test_missing_scores_are_told_of_the_metric_with_most() -> None:
    few = entry(metric="tone", missing={"candidate": 1})
    many = entry(missing={"baseline": 1_000, "candidate": 2, "coverage": 0.905, "fisher_p": 0.0123})

    assert asked("A score of every case?", compared(few, many)) == (
        "inconclusive",
        (
            "No. Without a score: label on tickets: 1,000 cases in the baseline and 2 in the "
            "candidate, 90.5 % are left, more on one side than chance explains (p 0.0123)."
        ),
    )


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ({"candidate": 2, "coverage": None, "fisher_p": None}, "2 in the candidate."),
        ({"candidate": 2, "coverage": 0.98, "fisher_p": 0.05}, "98.0 % are left."),
        ({"candidate": 2, "baseline": None, "coverage": None}, "0 cases in the baseline and 2 in"),
    ],
)
def test_what_is_not_known_of_missing_scores_is_left_out(
    missing: dict[str, Any], told: str
) -> None:
    _, text = asked("A score of every case?", compared(entry(missing=missing))) or ("", "")

    assert told in text


def test_golden_sets_without_entries_miss_nothing() -> None:
    nothing = Compared(
        meeting=compared().meeting, entries=[], runs={"baseline": None, "candidate": None},
        scorers=[],
    )  # fmt: skip

    assert asked("A score of every case?", nothing, compared({"metric": "x"})) == (
        "pass", "Yes: every case has a score on both sides."
    )  # fmt: skip


# --- trials -----------------------------------------------------------------------------


def tried(before: int | None, after: int | None, *, golden_set: str = "tickets") -> Compared:
    def of(run_id: str, trials: int | None) -> dict[str, Any]:
        return run(run_id, golden_sets={golden_set: {"trials": trials}})

    return compared(golden_set=golden_set, before=of("base", before), after=of("cand", after))


def test_trials_that_are_as_many_are_told() -> None:
    question = "As many trials?"

    assert asked(question, tried(1, 1)) == ("pass", "Yes: 1 trial of every case.")
    assert asked(question, tried(3, 3)) == ("pass", "Yes: 3 trials of every case.")
    assert asked(question, tried(3, 3), tried(None, 1)) == (
        "pass", "Yes: 1 or 3 trials of every case."
    )  # fmt: skip
    assert asked(question, compared(before=None)) is None
    assert asked(question, compared(after=None)) is None
    assert asked(question, compared(before=run("base", golden_sets=None))) == (
        "pass", "Yes: 1 trial of every case."
    )  # fmt: skip


def test_other_numbers_of_trials_are_told_with_their_golden_sets() -> None:
    end = ". A case's trials are averaged first, so it is fair."

    assert asked("As many trials?", tried(3, 1)) == (
        "pass", f"No: 3 of every case in the baseline, 1 in the candidate{end}"
    )  # fmt: skip
    several = (tried(3, 1), tried(3, 1, golden_set="orders"), tried(2, 2, golden_set="calls"))
    assert asked("As many trials?", *several) == (
        "pass",
        f"No: 3 of every case in the baseline, 1 in the candidate (tickets, orders){end}",
    )


# --- program, time, commit --------------------------------------------------------------


def test_other_versions_and_seeds_are_told_once() -> None:
    changed = compared(
        before=run("base", versions={"evalkit": "1.0", "numpy": "1"}, seed=None),
        after=run("cand", versions={"evalkit": "1.1", "scipy": "2"}),
    )

    assert asked("The same program and seed?", changed, changed) == (
        "inconclusive",
        "Not quite: evalkit 1.0, now 1.1; numpy 1, now none; scipy none, now 2; seed none, now 1.",
    )


def test_runs_that_say_no_versions_are_not_asked() -> None:
    question = "The same program and seed?"

    assert asked(question, compared()) == ("pass", "Yes: the same versions and seed.")
    assert asked(question, compared(before=None)) is None
    silent = compared(before=run("a", versions={}), after=run("b", versions=None))
    assert asked(question, silent) is None
    assert asked(question, silent, compared()) == ("pass", "Yes: the same versions and seed.")


@pytest.mark.parametrize(
    ("before", "word", "text"),
    [
        ("2026-03-10T12:00:00+00:00", "pass", "Yes: within the hour."),
        ("2026-03-10T11:00:01+00:00", "pass", "Yes: within the hour."),
        ("2026-03-10T11:00:00+00:00", "pass", "Yes: 1 hours apart."),
        ("2026-03-10T18:00:00+00:00", "pass", "Yes: 6 hours apart."),
        ("2026-03-09T12:00:00+00:00", "pass", "Yes: 1.0 days apart."),
        ("2026-02-08T12:00:00+00:00", "pass", "Yes: 30.0 days apart."),
        (
            "2026-02-07T12:00:00+00:00",
            "inconclusive",
            "No: 31 days apart. A provider may have changed the model since.",
        ),
    ],
)
def test_the_time_between_is_told(before: str, word: str, text: str) -> None:
    found = asked("About the same time?", compared(before=run("base", created_at=before)))

    assert found == (word, text)


def test_of_several_the_longest_time_is_told_and_what_is_no_time_is_not() -> None:
    old = compared(before=run("old", created_at="2026-03-05T12:00:00+00:00"))
    unknown = compared(before=run("odd", created_at="yesterday"))
    never = compared(before=run("none", created_at=None))

    assert asked("About the same time?", old, compared(), unknown) == (
        "pass", "Yes: 5.0 days apart."
    )  # fmt: skip
    assert asked("About the same time?", unknown, never) is None
    hours = compared(before=run("hours", created_at="2026-03-10T06:00:00+00:00"))
    assert asked("About the same time?", hours, compared()) == ("pass", "Yes: 6 hours apart.")
    years = compared(before=run("years", created_at="2024-03-10T12:00:00+00:00"))
    assert asked("About the same time?", years, compared()) == (
        "inconclusive", "No: 730 days apart. A provider may have changed the model since."
    )  # fmt: skip


def test_local_changes_and_commits_are_told() -> None:
    dirty = compared(before=run("base", git={"commit": "abc", "dirty": True}))
    both = compared(before=run("base", git={"dirty": True}), after=run("cand", git={"dirty": True}))
    without = compared(before=run("base", git=None))
    question = "From a commit?"

    assert asked(question, compared()) == ("pass", "Yes: both sides ran from a commit.")
    assert asked(question, dirty, dirty) == (
        "inconclusive", "No: 1 run had local changes that no commit holds."
    )  # fmt: skip
    assert asked(question, both) == (
        "inconclusive", "No: 2 runs had local changes that no commit holds."
    )  # fmt: skip
    assert asked(question, without) is None
    assert asked(question, compared(before=None)) is None
