"""Each part of a report's sentences: names, reasons, what is still open, what it cost."""

from __future__ import annotations

from typing import Any

import pytest

from evalkit.decide.report_sentences import (
    advisory,
    gating,
    headline,
    name_of,
    reasons,
    spending,
)
from tests.decide.report_world import comparison, passed, verdict


def only_reason(**entry: Any) -> str:
    [why] = reasons(verdict(comparison(**entry)))
    return why.text


def test_what_gates_is_what_says_so_and_else_whole_metrics() -> None:
    said, sliced = passed(metric="a"), passed(metric="b", slice="lang=de", gate=True)
    shown, shown_slice = passed(metric="c", gate=False), passed(metric="d", slice="x", gate=False)
    old, old_slice = passed(metric="e"), passed(metric="f", slice="lang=de")
    del old["gate"], old_slice["gate"]
    of = verdict(said, sliced, shown, shown_slice, old, old_slice)

    assert [one["metric"] for one in gating(of)] == ["a", "b", "e"]
    assert [one["metric"] for one in advisory(of)] == ["c"]


def test_a_name_has_its_golden_set_and_slice_and_is_cut_at_sixty_letters() -> None:
    assert name_of(comparison(golden_set=None)) == "label"
    assert name_of(comparison(slice="lang=de")) == "label on tickets (lang=de)"
    assert name_of(comparison(metric="m" * 60, golden_set="g" * 61)) == (
        f"{'m' * 60} on {'g' * 59}…"
    )


@pytest.mark.parametrize(("n", "more"), [(1, ""), (2, " (and 1 more)"), (3, " (and 2 more)")])
def test_what_cannot_be_measured_is_told_of_the_first(n: int, more: str) -> None:
    gone = [comparison(metric=f"m{at}", verdict="unmeasurable", reason="why") for at in range(n)]

    assert headline(verdict(*gone, word="unmeasurable")) == (
        f"Not measurable: m0 on tickets: why{more}."
    )


def test_without_a_reason_a_usual_one_is_told() -> None:
    none = comparison(verdict="unmeasurable", reason=None)

    assert headline(verdict(none, word="unmeasurable")) == (
        "Not measurable: label on tickets: too many cases have no score."
    )
    assert headline(verdict(word="unmeasurable")) == ("Not measurable: nothing could be compared.")
    assert only_reason(verdict="unmeasurable", reason=None) == (
        "Too many cases have no score on both sides."
    )


def test_a_fall_tells_how_many_cases_turned_where_that_is_known() -> None:
    assert only_reason(losses=1, wins=1_200).endswith(" 1 case got worse, 1,200 better.")
    assert only_reason(losses=2, wins=None).endswith(" 2 cases got worse, 0 better.")
    assert only_reason(losses=None).endswith("for the other metrics.")


@pytest.mark.parametrize(
    ("entry", "end"),
    [
        (
            {},
            (
                "so a drop of 5 points is still possible. About 300 cases would exclude it. A drop "
                "of 8.0 points would be seen 4 times in 5."
            ),
        ),
        (
            {"trials_needed": 1_000, "mde": None},
            (
                "so a drop of 5 points is still possible. About 300 cases would exclude it, or "
                "1,000 trials of each."
            ),
        ),
        (
            {"max_drop": None, "cases_needed": None, "mde": None},
            "so a drop of that is still possible.",
        ),
    ],
)
def test_what_is_open_tells_what_would_close_it(entry: dict[str, Any], end: str) -> None:
    assert only_reason(verdict="inconclusive", **entry) == (
        f"Changed by −10.0 points over 100 cases (90 % interval −16.0 to −4.0), {end}"
    )


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ({}, ""),
        ({"unpaired": 1}, " Not counted: 1 case on one side only, or edited since."),
        (
            {"excluded": 2, "worst_case_verdict": "unmeasurable"},
            " Not counted: 2 cases answered by another model.",
        ),
        (
            {"candidate": 3, "worst_case_verdict": "pass"},
            (
                " Not counted: 3 cases without a score in the candidate. Were they all as bad as "
                "can be, the verdict would be: pass."
            ),
        ),
        ({"baseline": 1, "worst_case_verdict": None},
         " Not counted: 1 case without a score in the baseline."),
    ],
)  # fmt: skip
def test_what_is_not_counted_is_told_with_the_worst_it_hides(
    missing: dict[str, Any], told: str
) -> None:
    text = only_reason(verdict="unmeasurable", reason="why", missing=missing)

    assert text == f"Why.{told}"


def test_must_pass_cases_that_failed_or_have_no_score_are_told() -> None:
    of = verdict(
        passed(),
        must_pass_failures=[
            {"golden_set": "tickets", "case_id": "t-1", "metric": "label", "reason": "wrong"},
            {"case_id": "t-2", "metric": "label"},
        ],
        must_pass_missing=[{"case_id": "t-3"}, {"case_id": "t-4"}],
    )

    assert [(one.word, one.what, one.text) for one in reasons(of)] == [
        ("regression", "must-pass case t-1 of tickets", "Failed label. wrong"),
        ("regression", "must-pass case t-2", "Failed label."),
        (
            "unmeasurable",
            "must-pass cases",
            "2 scores of must-pass cases could not be made: t-3, t-4",
        ),
    ]


def test_a_reason_is_cut_at_four_hundred_letters() -> None:
    def told(n: int) -> str:
        failure = {"case_id": "t-1", "metric": "label", "reason": "x" * n}
        return reasons(verdict(passed(), must_pass_failures=[failure]))[0].text

    assert told(400) == f"Failed label. {'x' * 400}"
    assert told(401) == f"Failed label. {'x' * 399}…"


def test_as_many_failures_as_are_told_leave_none_to_be_counted() -> None:
    def failed(n: int) -> list[str]:
        failures = [{"case_id": f"t-{at}", "metric": "label"} for at in range(n)]
        return [one.text for one in reasons(verdict(passed(), must_pass_failures=failures))]

    assert failed(20) == ["Failed label."] * 20
    assert failed(21) == [*["Failed label."] * 20, "1 more such failures."]


# --- what it cost -----------------------------------------------------------------------


def called(side: str, latency: float | None, cost: float | None, meeting: int = 0) -> Any:
    return {
        "meeting": meeting, "side": side, "golden_set": "tickets", "p95_latency_ms": latency,
        "mean_cost_usd": cost,
    }  # fmt: skip


def test_latency_and_cost_are_told_where_both_sides_made_calls() -> None:
    [text] = spending(
        [called("candidate", 200.0, 0.5), called("baseline", 100.0, 0.5),
         called("candidate", 1.0, 1.0, meeting=1), called("baseline", 1.0, 1.0, meeting=2)], []
    )  # fmt: skip

    assert text.startswith(
        "tickets: the 95th percentile of latency went from 100 ms to 200 ms (+100"
    )
    assert "; the cost of a call stayed at $0.50" in text


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({}, "spent $1.50, without a limit set, judges included."),
        ({"max_cost_usd": 5.0}, "spent $1.50 of $5.00 allowed, judges included."),
        ({"max_cost_usd": 0.0}, "of $0 allowed, judges included."),
        ({"n_unpriced": 1}, "spent $1.50 and 1 unpriced call, without a limit set"),
    ],
)
def test_a_run_tells_what_it_spent_of_what_it_might(facts: dict[str, Any], told: str) -> None:
    run = {"run_id": "run-1", "cost_usd": 1.5, "n_unpriced": 0, **facts}

    [text] = spending([], [run])

    assert text.startswith("Run run-1 spent")
    assert told in text
