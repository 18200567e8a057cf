"""Looks at anchors as series: each grade beside the anchor's first, day by day."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from evalkit.decide.anchor_series import FAMILY, HIGHER, LOWER, anchor_series
from evalkit.decide.series_rows import Series
from evalkit.store.anchor_looks import AnchorLook, look_path, save_look
from evalkit.store.views import Store, open_store

DAY = 86_400_000_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def look(
    store: Store,
    day: float,
    scores: Mapping[str, float],
    *,
    first: Mapping[str, float] | None = None,
    judge: str = "tone",
    version: str = "abc:small",
) -> None:
    """A look on that day of 1970; the first one where no first grades are given."""
    made = AnchorLook(
        judge=judge,
        scorer_version=version,
        at=int(day * DAY),
        scores=scores,
        first=scores if first is None else first,
        is_first=first is None,
    )
    save_look(store, made, f"day-{int(day)}")


def series(store: Store, *, since: int = 0) -> list[Series]:
    return list(anchor_series(store, since * DAY))


def observed(one: Series) -> list[tuple[float, list[float]]]:
    return [(block.at / DAY, block.values.tolist()) for block in one.blocks]


def test_grades_are_held_against_the_first_ones(store: Store) -> None:
    first = {"a": 0.5, "b": 1.0, "c": 0.0}
    look(store, 1, first)
    look(store, 2.75, {"a": 0.5, "b": 0.0, "c": 1.0}, first=first)
    look(store, 4, {"a": 0.25}, first=first)

    lower, higher = series(store)

    # (grade - first + 1) / 2; a look is of its day.
    assert observed(lower) == [(2.0, [0.5, 0.0, 1.0]), (4.0, [0.375])]
    assert observed(higher) == observed(lower)
    for one, metric, worse in ((lower, LOWER, "below"), (higher, HIGHER, "above")):
        assert one.names == ("judge:tone", "small", "abc", metric)
        assert (one.worse, one.family, one.version) == (worse, FAMILY, "abc:small")
        assert one.is_current
        assert all((block.weights == 1).all() for block in one.blocks)
        assert all((block.counts == 1).all() for block in one.blocks)


def test_the_look_that_gave_the_first_grades_is_no_news(store: Store) -> None:
    look(store, 1, {"a": 0.5})

    assert series(store) == []


def test_an_anchor_without_a_first_grade_is_not_compared(store: Store) -> None:
    look(store, 1, {"a": 0.5, "new": 0.0}, first={"a": 0.5})

    assert observed(series(store)[0]) == [(1.0, [0.5])]


def test_a_new_version_of_a_judge_ends_the_series_of_the_old_one(store: Store) -> None:
    look(store, 1, {"a": 0.5}, first={"a": 0.5})
    look(store, 2, {"a": 0.5}, version="def:small")
    look(store, 3, {"a": 0.5}, first={"a": 0.5}, version="def:small")
    look(store, 1, {"a": 0.5}, first={"a": 0.5}, judge="other")

    found = [(one.names[0], one.version, one.is_current) for one in series(store)[:3]]

    assert sorted(found) == [
        ("judge:other", "abc:small", True),
        ("judge:tone", "abc:small", False),
        ("judge:tone", "def:small", True),
    ]


def test_the_version_that_looked_last_goes_on_whatever_it_is_called(store: Store) -> None:
    for day, version in ((1, "b:small"), (2, "a:small"), (3, "b:small")):
        look(store, day, {"a": 0.5}, first={"a": 0.5}, version=version)

    assert {one.version: one.is_current for one in series(store)} == {
        "a:small": False, "b:small": True,
    }  # fmt: skip


def test_a_first_look_of_a_new_version_already_ends_the_old_one(store: Store) -> None:
    look(store, 1, {"a": 0.5}, first={"a": 0.5})
    look(store, 2, {"a": 0.5}, version="def:small")

    assert [(one.version, one.is_current) for one in series(store)] == [("abc:small", False)] * 2


def test_looks_are_read_from_a_day_on(store: Store) -> None:
    for day in (1, 2, 3):
        look(store, day, {"a": 0.5}, first={"a": 0.5})

    assert [at for at, _ in observed(series(store, since=2)[0])] == [2.0, 3.0]


def test_a_file_that_is_no_look_is_said(store: Store) -> None:
    path = look_path(store, "tone", "abc:small", "day-1")
    path.parent.mkdir(parents=True)
    path.write_text("{", encoding="utf-8")

    assert series(store) == []
    assert len(store.problems) == 1
