"""A verdict on a terminal: the answer first, lines that fit, lists that end."""

from __future__ import annotations

import pytest

from evalkit.decide.terminal import verdict_lines
from tests.decide.verdicts import HOSTILE, SIDE, comparison, verdict

PASS = {"verdict": "pass", "delta": 0.004, "ci": [-0.01, 0.019], "p_adjusted": 0.7}


def lines_of(*comparisons: dict[str, object], width: int = 100, **changes: object) -> list[str]:
    return verdict_lines(verdict(*comparisons, **changes), width=width)


def test_the_verdict_comes_first_then_who_met_whom() -> None:
    lines = lines_of(comparison(baseline=SIDE | {"prompt_version": "v1"}))

    assert lines[:5] == [
        "regression: quality fell",
        "candidate  run run-2",
        "baseline   run run-1",
        "tickets  small/classify@v2 against v1",
        "",
    ]


def test_regressions_come_before_what_is_open_and_that_before_what_passed() -> None:
    open_one = comparison(metric="b", verdict="inconclusive")
    gone = comparison(metric="c", verdict="unmeasurable", reason="no scores", ci=None)

    lines = lines_of(comparison(metric="a", **PASS), open_one, gone, comparison(metric="d"))

    words = ("regression", "unmeasurable", "inconclusive", "pass")
    assert [line for line in lines if line in words] == list(words)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("no baseline: no earlier complete run of this golden set", True),
        ("30 of 100 scores are missing; no baseline: no earlier complete run", False),
    ],
)
def test_a_first_run_is_told_how_to_become_the_baseline_if_it_was_measured(
    reason: str, said: bool
) -> None:
    first = comparison(verdict="unmeasurable", baseline=None, reason=reason, ci=None)

    lines = lines_of(first, verdict="unmeasurable")

    hint = "compare later runs with this one: evalkit baseline set run-2"
    assert (hint in lines) == said


def test_a_regression_is_a_sentence_with_the_cases_that_fell_most() -> None:
    many = comparison(regressed_cases=[f"t-{n}" for n in range(30)], losses=30)

    lines = lines_of(many, width=120)

    *sentence, cases = (line.strip() for line in lines[6:])
    assert " ".join(sentence) == (
        "label on tickets: quality fell by 4.1 points (90 % interval 1.6 to 6.7), "
        "p = 0.004 after correcting for 12 comparisons"
    )
    assert cases == "cases that fell: t-0, t-1, t-2, t-3, t-4, t-5, t-6, t-7, t-8, t-9 and 20 more"


def test_what_passed_is_a_row_each_with_its_columns_in_line() -> None:
    rose = comparison(metric="cites", p_improvement=0.001, **PASS)

    lines = lines_of(comparison(**PASS), rose, verdict="pass")

    title, label, cites = lines[-3:]
    assert title.split("  ")[-1] == "verdict"
    assert "0.900 → 0.859" in label
    assert "+0.4 (−1.0 to 1.9)" in label
    assert label.endswith("pass")
    assert cites.endswith("pass, rose")
    assert label.index("pass") == cites.index("pass") == title.index("verdict")


def test_golden_sets_have_a_column_where_there_are_several() -> None:
    other = comparison(golden_set="orders", **PASS)

    lines = lines_of(comparison(**PASS), other, verdict="pass")

    assert lines[-3].split()[:2] == ["golden", "set"]
    assert lines[-1].split()[0] == "orders"


def test_pairs_are_named_beside_each_metric_where_several_met_on_a_golden_set() -> None:
    other = comparison(candidate=SIDE | {"model": "large", "run_id": "run-2"})

    lines = lines_of(comparison(), other)

    assert any("label on tickets (small/classify@v2): quality" in line for line in lines)
    assert any("label on tickets (large/classify@v2 against" in line for line in lines)


def test_runs_that_were_pooled_are_counted() -> None:
    pooled = SIDE | {"run_ids": ["run-1", "run-0", "run-a"]}

    assert lines_of(comparison(baseline=pooled))[2] == "baseline   run run-1 pooled with 2 more"


def test_what_fell_without_gating_is_five_lines_and_a_count_the_worst_first() -> None:
    metrics = [
        comparison(metric=f"m{n}", gate=False, look_here=True, delta=-n / 10) for n in range(1, 9)
    ]

    lines = lines_of(comparison(**PASS), *metrics, verdict="pass")

    at = lines.index("look here: these fell, and do not gate")
    assert [line.split()[0] for line in lines[at + 1 : at + 6]] == ["m8", "m7", "m6", "m5", "m4"]
    assert lines[at + 6] == "  and 3 more: --json and --html have all"


def test_slices_that_fell_are_one_line_the_worst_first() -> None:
    slices = [
        comparison(slice=f"lang={n}", gate=False, look_here=True, delta=-n / 10)
        for n in range(1, 8)
    ]

    lines = lines_of(comparison(**PASS), *slices, verdict="pass", width=120)

    assert lines[-1].strip() == (
        "label on tickets fell in lang=7 by 70, lang=6 by 60, lang=5 by 50, lang=4 by 40, "
        "lang=3 by 30 points and 2 more"
    )


def test_a_failed_must_pass_case_is_named() -> None:
    failure = {
        "golden_set": "tickets", "case_id": "t-9", "metric": "shape", "model": "small",
        "prompt_name": "classify", "prompt_version": "v2", "reason": "no label",
    }  # fmt: skip

    lines = lines_of(comparison(**PASS), must_pass_failures=[failure])

    assert lines[0] == "regression: 1 must-pass score failed"
    assert "  must-pass case t-9 failed shape (tickets, small/classify@v2): no label" in lines


@pytest.mark.parametrize("width", [20, 60, 80, 100, 300])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    long = "a_metric_with_a_name_that_goes_on_and_on_" * 3
    comparisons = [
        comparison(metric=long, golden_set=f"{long}{n}", verdict=word, reason="x " * 200)
        for n, word in enumerate(("regression", "unmeasurable", "inconclusive", "pass"))
    ]

    lines = lines_of(*comparisons, notes=["y " * 300], width=width)

    assert max(map(len, lines)) <= min(max(width, 60), 120)


def test_lists_end() -> None:
    words = ("regression", "inconclusive", "pass")
    many = [comparison(metric=f"m{n}", verdict=word) for n in range(300) for word in words]

    lines = lines_of(*many, notes=["note"] * 300)

    assert len(lines) < 120
    assert "  and 290 more" in lines
    assert "  and 260 more" in lines


def test_wide_letters_keep_the_columns_in_line() -> None:
    wide = comparison(metric="品質の指標", **PASS)

    _, one, other = lines_of(comparison(metric="label", **PASS), wide, verdict="pass")[-3:]

    assert one.index("0.900") - other.index("0.900") == 5


def test_colour_marks_only_what_words_say_already() -> None:
    one = verdict(comparison(), comparison(metric="b", **PASS), notes=["a note"])

    painted = verdict_lines(one, paint=lambda text, role, bold: f"<{role}>{text}<>")

    stripped = [line.replace("<>", "").split(">", 1)[-1] for line in painted]
    assert stripped == verdict_lines(one)
    assert painted[0].startswith("<regression>regression")


def test_the_terminal_gets_no_control_characters() -> None:
    lines = lines_of(
        comparison(metric=HOSTILE, golden_set=HOSTILE, regressed_cases=[HOSTILE]),
        notes=[HOSTILE, "x" * 5_000],
    )

    assert all(line.isprintable() for line in lines)
