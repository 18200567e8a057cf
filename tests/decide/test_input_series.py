"""Counts of inputs as series: which kinds are watched, and what they are a share of."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from evalkit.decide.input_series import MAX_KINDS, UNFAMILIAR, input_series
from evalkit.decide.series_rows import Series
from evalkit.store.input_profiles import Counted, day_path, save_day, save_topics
from evalkit.store.views import Store, open_store

DAY = 86_400_000_000
FROM = datetime(2026, 3, 2, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def date(number: int) -> str:
    return (FROM + timedelta(days=number)).date().isoformat()


def at(number: int) -> int:
    return (FROM + timedelta(days=number) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        microseconds=1
    )


def counts(of: Mapping[str, int], **names: Any) -> list[Counted]:
    known = {"feature": "classify", "what": "language", **names}
    return [Counted(kind=kind, n=n, **known) for kind, n in of.items()]


def days(store: Store, *of: Mapping[str, int], first: int = 0, **names: Any) -> None:
    """The counts of days, one after another."""
    for number, one in enumerate(of, first):
        save_day(store, date(number), counts(one, **names))


def shares(store: Store, *, since: int = 0) -> dict[str, list[tuple[int, float, float]]]:
    """Metric -> (day, how many of this kind, of how many)."""
    return {one.names[3]: observed(one) for one in input_series(store, since)}


def observed(one: Series) -> list[tuple[int, float, float]]:
    found = []
    for block in one.blocks:
        of = dict(zip(block.values.tolist(), block.counts.tolist(), strict=True))
        found.append(((block.at - at(0)) // DAY, of.get(1.0, 0.0), sum(of.values())))
    return found


USUAL = {"en": 90, "de": 8, "fr": 2}


def test_a_kind_is_a_share_of_the_calls_after_the_first_week(store: Store) -> None:
    days(store, *[USUAL] * 7, {"en": 80, "de": 15, "fr": 5}, {"en": 60, "de": 40})

    found = shares(store)

    assert found == {
        "language en": [(7, 80, 100), (8, 60, 100)],
        "language de": [(7, 15, 100), (8, 40, 100)],
        "language fr": [(7, 5, 100), (8, 0, 100)],
        "language other": [(7, 0, 100), (8, 0, 100)],
    }


def test_a_series_is_of_its_feature_and_pair_and_rises_for_the_worse(store: Store) -> None:
    names = {"model": "small", "prompt_version": "v2", "what": "answer", "version": "7"}
    days(store, *[{"refund": 9}] * 8, **names)

    one, _ = input_series(store, 0)

    assert one.names == ("classify", "small", "v2", "answer refund")
    assert (one.worse, one.family, one.version, one.is_current) == (
        "above", "answer mix", "7", True,
    )  # fmt: skip


def test_a_week_begins_with_the_first_day_there_is(store: Store) -> None:
    days(store, *[USUAL] * 8, first=3)

    assert [day for day, _, _ in shares(store)["language en"]] == [10]


def test_kinds_that_the_first_week_hardly_had_are_other(store: Store) -> None:
    # Of the 1,000 calls of the first week 20 are 2 %.
    week = [{"en": 961, "fr": 20, "it": 19}, *[{}] * 6]
    days(store, *week, {"en": 5, "fr": 3, "it": 2, "es": 4})

    assert shares(store) == {
        "language en": [(7, 5, 14)],
        "language fr": [(7, 3, 14)],
        "language other": [(7, 6, 14)],
    }


def test_what_is_called_other_is_among_the_others(store: Store) -> None:
    days(store, *[{"en": 50, "other": 50}] * 7, {"en": 1, "other": 2, "de": 4})

    assert shares(store) == {"language en": [(7, 1, 7)], "language other": [(7, 6, 7)]}


def test_at_most_so_many_kinds_are_watched_the_most_common_ones(store: Store) -> None:
    many = {f"k{n:02}": 100 - n for n in range(MAX_KINDS + 1)}
    days(store, *[many] * 7, dict.fromkeys(many, 1))

    found = shares(store)

    assert sorted(found) == [*(f"language k{n:02}" for n in range(MAX_KINDS)), "language other"]
    assert found["language other"] == [(7, 1, MAX_KINDS + 1)]
    assert MAX_KINDS == 12


def test_a_mix_without_a_day_after_the_first_week_is_no_series(store: Store) -> None:
    days(store, *[USUAL] * 7)

    assert shares(store) == {}


def test_each_feature_and_question_is_a_mix_of_its_own(store: Store) -> None:
    for number in range(8):
        save_day(
            store,
            date(number),
            [
                *counts({"en": 10 * (number + 1)}),
                *counts({"refund": 4}, what="route"),
                *counts({"en": 3}, feature="other"),
            ],
        )

    found = {one.names[:1] + one.names[3:]: observed(one) for one in input_series(store, 0)}

    assert found["classify", "language en"] == [(7, 80, 80)]
    assert found["classify", "route refund"] == [(7, 4, 4)]
    assert found["other", "language en"] == [(7, 3, 3)]


def test_counts_of_one_kind_on_one_day_are_added(store: Store) -> None:
    for number in range(8):
        save_day(store, date(number), [*counts({"en": 1}), *counts({"en": 2, "de": 1})])

    assert shares(store)["language en"] == [(7, 3, 4)]


def test_days_are_read_from_one_on_with_their_own_first_week(store: Store) -> None:
    days(store, *[USUAL] * 10)

    assert [day for day, _, _ in shares(store, since=at(2))["language en"]] == [9]
    # Any time of a day is that day.
    assert [day for day, _, _ in shares(store, since=at(2) + 1)["language en"]] == [9]


# --- topics ------------------------------------------------------------------------------


def topics(store: Store, *names: str, version: str = "7") -> None:
    save_topics(store, "classify", {"version": version, "names": list(names)})


def test_topics_are_watched_from_their_first_day_each_by_its_name(store: Store) -> None:
    topics(store, "1: card", "2: parcel")
    days(store, {"1: card": 6, UNFAMILIAR: 1, "gone": 3}, what="topic", version="7")

    assert shares(store) == {
        "topic 1: card": [(0, 6, 10)],
        "topic 2: parcel": [(0, 0, 10)],
        "topic unfamiliar": [(0, 1, 10)],
    }
    assert all(one.is_current for one in input_series(store, 0))


def test_topics_that_were_learnt_anew_end_the_series_of_the_old_ones(store: Store) -> None:
    topics(store, "1: garden", version="8")
    for number, (version, kind) in enumerate([("7", "1: card"), ("8", "1: garden")]):
        days(store, {kind: 2, UNFAMILIAR: 1}, first=number, what="topic", version=version)

    found = {(one.version, one.names[3]): one for one in input_series(store, 0)}

    assert {key: one.is_current for key, one in found.items()} == {
        ("7", "topic 1: card"): False,
        ("7", "topic unfamiliar"): False,
        ("8", "topic 1: garden"): True,
        ("8", "topic unfamiliar"): True,
    }
    assert observed(found["7", "topic 1: card"]) == [(0, 2, 3)]


def test_topics_that_nobody_knows_any_more_have_ended(store: Store) -> None:
    days(store, {"1: card": 2, UNFAMILIAR: 1}, what="topic", version="7")

    assert [one.is_current for one in input_series(store, 0)] == [False, False]


def test_a_day_that_cannot_be_read_is_said_and_nothing_watched(store: Store) -> None:
    days(store, *[USUAL] * 8)
    day_path(store, date(3)).write_text("{", encoding="utf-8")

    assert shares(store) == {}
    assert len(store.problems) == 1
