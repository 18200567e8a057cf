"""The verdict in sentences, and numbers and texts as a report shows them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.decide.report import render_report
from evalkit.decide.report_sentences import headline, reasons
from evalkit.decide.report_text import (
    p_value,
    points,
    readable_value,
    side_by_side,
    visible,
)
from evalkit.store.views import Store
from tests.decide.report_world import (
    Page,
    comparison,
    passed,
    verdict,
)


def page(of: dict[str, Any] | None, store: Store | None = None, **options: Any) -> Page:
    return Page(render_report(of, store, **options))


@pytest.mark.parametrize(
    ("of", "sentence"),
    [
        (
            verdict(comparison()),
            "Quality dropped: label on tickets from 0.900 to 0.800 (−10.0 points).",
        ),
        (
            verdict(passed(metric="shape"), comparison(), comparison(metric="tone", delta=-0.2)),
            (
                "Quality dropped in 2 of 3 gating metrics, most in tone on tickets from 0.900 to "
                "0.800 (−20.0 points)."
            ),
        ),
        (
            verdict(passed(), must_pass_failures=[{"golden_set": "tickets", "case_id": "t-1"}] * 2),
            "Failed: 1 must-pass case did not pass.",
        ),
        (
            verdict(passed(), passed(metric="x"), word="pass"),
            (
                "No significant drop: for each of 2 gating metrics a drop of more than 5 points "
                "is excluded."
            ),
        ),
        (
            verdict(passed(), passed(max_drop=0.1, metric="x"), word="pass"),
            (
                "No significant drop: for each of 2 gating metrics a drop of more than its limit "
                "is excluded."
            ),
        ),
        (
            verdict(passed(verdict="inconclusive"), word="inconclusive"),
            (
                "Too little data: no significant drop, but for 1 of 1 gating metric a drop of more "
                "than 5 points cannot be excluded; about 300 cases would tell."
            ),
        ),
        (
            verdict(
                comparison(verdict="unmeasurable", reason="no case has a score on both sides"),
                word="unmeasurable",
            ),
            "Not measurable: label on tickets: no case has a score on both sides.",
        ),
        (
            verdict(word="unmeasurable", notes=["run x is not complete."]),
            "Not measurable: run x is not complete.",
        ),
    ],
)
def test_the_verdict_is_one_sentence_and_comes_first(of: dict[str, Any], sentence: str) -> None:
    text = page(of).text

    assert headline(of) == sentence
    assert text.index(sentence) < 600
    assert text.count(sentence) == 1


def test_reasons_name_interval_p_and_the_cases_that_changed() -> None:
    why = reasons(verdict(comparison()))

    assert [(one.word, one.what) for one in why] == [("regression", "label on tickets")]
    assert why[0].text == (
        "Fell by 10.0 points over 100 cases (90 % interval −16.0 to −4.0), p = 0.0020 after "
        "correction for the other metrics. 10 cases got worse, 0 better."
    )


def test_missing_scores_are_told_with_the_worst_they_could_hide() -> None:
    missing = {
        "baseline": 1, "candidate": 30, "excluded": 2, "unpaired": 0,
        "worst_case_verdict": "regression",
    }  # fmt: skip

    why = reasons(
        verdict(comparison(verdict="unmeasurable", reason="too few", missing=missing), word="x")
    )

    assert why[0].text == (
        "Too few. Not counted: 1 case without a score in the baseline; 30 cases without a score "
        "in the candidate; 2 cases answered by another model. Were they all as bad as can be, "
        "the verdict would be: regression."
    )


def test_worst_reason_comes_first_and_notes_last() -> None:
    of = verdict(
        comparison(metric="c", verdict="inconclusive"),
        comparison(metric="b", verdict="unmeasurable", ci=None, delta=None, p_adjusted=None),
        comparison(metric="a"),
        passed(metric="fine"),
        comparison(metric="advisory", gate=False),
        notes=["take care"],
    )

    assert [one.what.split()[0] if one.what else one.text for one in reasons(of)] == [
        "a", "b", "c", "take care",
    ]  # fmt: skip


def test_many_must_pass_failures_are_counted() -> None:
    failures = [
        {"golden_set": "tickets", "case_id": f"t-{n}", "metric": "label", "reason": "x" * 5000}
        for n in range(50)
    ]

    why = reasons(verdict(passed(), must_pass_failures=failures))

    assert len(why) == 21
    assert why[20].text == "30 more such failures."
    assert all(len(one.text) < 500 for one in why)


def test_interval_level_follows_alpha() -> None:
    assert "80 % interval" in page(verdict(comparison(), alpha=0.1)).text


# --- numbers and texts --------------------------------------------------------------------


def test_points_have_a_sign_and_zero_has_both() -> None:
    assert [points(d) for d in (-0.1234, 0.1, 0.0, -0.0001, None)] == [
        "−12.3", "+10.0", "±0.0", "±0.0", "–",
    ]  # fmt: skip


def test_small_p_values_are_bounds() -> None:
    assert [p_value(p) for p in (0.00005, 0.0012, 0.5, None)] == ["< 0.0001", "0.0012", "0.50", "–"]


@given(before=st.text(max_size=200), after=st.text(max_size=200))
def test_marking_differences_loses_no_character(before: str, after: str) -> None:
    left, right = side_by_side(before, after)

    assert (left.text, right.text) == (visible(before), visible(after))


def test_words_that_differ_are_marked_and_joined_over_blanks() -> None:
    before = "Returns are free of charge within 30 days."
    after = "Returns cost five euros within 30 days."

    left, right = side_by_side(before, after)

    assert [piece for piece, marked in left.pieces if marked] == ["are free of charge"]
    assert [piece for piece, marked in right.pieces if marked] == ["cost five euros"]


WORDS = st.lists(st.sampled_from(["the", "refund", "takes", "14", "days", ",", "\n"]), max_size=30)


@given(before=WORDS, after=WORDS)
def test_what_is_not_marked_is_on_both_sides_in_the_same_order(
    before: list[str], after: list[str]
) -> None:
    left, right = side_by_side(" ".join(before), " ".join(after))

    if any(marked for side in (left, right) for _, marked in side.pieces):
        kept = [
            "".join(piece for piece, m in side.pieces if not m).split() for side in (left, right)
        ]
        assert kept[0] == kept[1]


def test_one_word_is_found_in_a_long_answer() -> None:
    words = [f"word{n % 37}" for n in range(500)]
    changed = [*words[:250], "something", *words[251:]]

    left, right = side_by_side(" ".join(words), " ".join(changed))

    assert [piece for piece, marked in left.pieces if marked] == ["word28"]
    assert [piece for piece, marked in right.pieces if marked] == ["something"]


def test_texts_that_have_nothing_in_common_are_not_marked() -> None:
    left, _ = side_by_side("one two three", "alpha, beta; gamma: delta")

    assert not any(marked for _, marked in left.pieces)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ({"text": "only"}, "only"),
        ({"question": "why", "n": 1}, "question: why\nn: 1"),
        ({"d": [{"id": "d1", "title": "T", "text": "x"}]}, "d: \n- [d1] T: x"),
        ([1, 2], "[\n  1,\n  2\n]"),
        (None, "null"),
        ({}, "{}"),
    ],
)
def test_values_read_as_people_write_them(value: Any, text: str) -> None:
    assert readable_value(value) == text
