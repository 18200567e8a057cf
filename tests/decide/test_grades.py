"""On which scale a judge and people meet, and what each of them said on it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from evalkit.decide.grades import PREFERENCES, Grades, grades_of

NONE = pytest.approx(math.nan, nan_ok=True)


def judge(grades: Grades, scores: Sequence[float], passed: Sequence[bool | None] = ()) -> list:
    return grades.judge(np.array(scores), passed or [None] * len(scores)).tolist()


def people(grades: Grades, *means: float) -> list[float]:
    return grades.people(np.array(means)).tolist()


# --- which scale ------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [[0.0, 1.0, 1.0], [1.0], [0.0, 0.0], []])
def test_labels_that_are_all_yes_or_no_are_pass_or_fail(labels: list[float]) -> None:
    grades = grades_of(labels)

    assert grades.pass_or_fail is True
    assert grades.grid.tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("labels", "grid"),
    [
        ([1.0, 0.5, 0.0, 0.5], [0.0, 0.5, 1.0]),
        ([0.25, 0.75], [0.25, 0.75]),
        ([0.5, 0.5], [0.0, 0.25, 0.5, 0.75, 1.0]),
        ([n / 10 for n in range(11)], [n / 10 for n in range(11)]),
        ([n / 11 for n in range(12)], [0.0, 0.25, 0.5, 0.75, 1.0]),
    ],
)
def test_each_of_a_few_labels_is_a_grade_and_one_or_many_are_put_on_five(
    labels: list[float], grid: list[float]
) -> None:
    grades = grades_of(labels)

    assert grades.pass_or_fail is False
    assert grades.grid.tolist() == pytest.approx(grid)


def test_labels_may_come_one_after_another() -> None:
    assert grades_of(label for label in (0.5, 1.0)).grid.tolist() == [0.5, 1.0]


def test_of_two_answers_one_is_better_or_neither() -> None:
    assert PREFERENCES.pass_or_fail is False
    assert PREFERENCES.grid.tolist() == [0.0, 0.5, 1.0]


# --- what was said ----------------------------------------------------------------------


def test_on_pass_or_fail_a_judge_says_whether_the_answer_passed() -> None:
    grades = grades_of([0.0, 1.0])

    assert judge(grades, [0.9, 0.1, 1.0], [False, True, None]) == [0.0, 1.0, 0.0]


def test_on_grades_a_judge_says_the_nearest_whatever_passed() -> None:
    grades = grades_of([0.0, 0.5, 1.0])

    assert judge(grades, [0.2, 0.3, 0.76, 1.0], [False] * 4) == [0.0, 0.5, 1.0, 1.0]


def test_people_say_what_most_of_them_say_and_nothing_where_they_split() -> None:
    grades = grades_of([0.0, 1.0])

    assert people(grades, 0.0, 1 / 3, 2 / 3, 1.0) == [0.0, 0.0, 1.0, 1.0]
    assert people(grades, 0.5, 0.5 + 1e-12, 0.5 - 1e-12) == [NONE] * 3
    assert people(grades, 0.5 + 1e-6, 0.5 - 1e-6) == [1.0, 0.0]


def test_people_who_grade_say_the_grade_nearest_to_their_mean() -> None:
    grades = grades_of([0.0, 0.5, 1.0])

    assert people(grades, 0.2, 0.3, 0.5, 0.8) == [0.0, 0.5, 0.5, 1.0]


def test_near_misses_count_for_grades_and_not_for_pass_or_fail() -> None:
    generator = np.random.default_rng(1)
    graded, yes_no = grades_of([0.0, 0.5, 1.0]), grades_of([0.0, 1.0])
    a = generator.integers(0, 3, 60)
    b = np.where(generator.random(60) < 0.6, a, generator.integers(0, 3, 60))

    by_square = graded.kappa(a / 2, b / 2).value
    plain = yes_no.kappa(a / 2, b / 2).value

    assert by_square == pytest.approx(cohen_kappa_score(a, b, weights="quadratic"))
    assert plain == pytest.approx(cohen_kappa_score(a, b))
    assert plain != pytest.approx(by_square)
