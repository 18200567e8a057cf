"""Drawing from a window of the store: who counts, in which stratum, and what is read for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.score.log_draw import DrawRule
from evalkit.score.online import DrawnWindow, SamplePlan, draw_window
from evalkit.store.call_log import CallLog
from evalkit.store.views import Store, open_store
from tests.store.journal_lines import AT, call, plain

HOUR = 3_600_000_000
DAY = 24 * HOUR
ALL = DrawRule(rate=1.0)


class Plan(SamplePlan):
    """A plan of two features, without metrics: the draw alone."""

    __slots__ = ()

    @property
    def features(self) -> list[str]:
        return ["answer", "classify"]


def plan(rule: DrawRule = ALL, by: tuple[str, ...] = ("feature", "model")) -> Plan:
    return Plan(
        run_id="r", since=AT, until=AT + HOUR, rule=rule, by=by, sets=(), limits_ms={},
        concurrency=1, budget=None,
    )  # fmt: skip


def add(store: Store, file_id: str, *calls: dict[str, Any]) -> None:
    """Calls of `classify` in the window, unless they say otherwise."""
    usual = {"feature": "classify", "ts": AT, "input": {"text": "q"}}
    store.add_calls(
        file_id,
        [plain(call(trace_id=f"{file_id}-{n}", **usual | one)) for n, one in enumerate(calls)],
    )


def drawn(store: Store, asked: Plan) -> DrawnWindow:
    with store.production(since=asked.since, until=asked.until) as engine:
        return draw_window(engine, asked)


def test_calls_of_its_features_in_its_window_are_counted_by_feature(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    add(store, "a", {}, {"feature": "answer"}, {"feature": "other"}, {"ts": AT + HOUR}, {})

    found = drawn(store, plan())

    assert found.calls == {"classify": 2, "answer": 1}
    assert sorted(found.drawn) == ["a-0", "a-1", "a-4"]


@pytest.mark.parametrize("others", [[], [{"input": {"text": "q"}}]])
def test_a_call_without_a_text_is_left_out_wherever_it_lies(
    tmp_path: Path, others: list[dict[str, Any]]
) -> None:
    store = open_store(tmp_path)
    add(store, "whole", {}, {})
    add(store, "purged", {"input": None}, *others)
    with CallLog(tmp_path) as log:
        log(replace(call(), trace_id="late", feature="classify", ts=AT, input=None))
        log.flush()

        found = drawn(store, plan())

    assert found.calls == {"classify": 2 + len(others)}
    assert not {"purged-0", "late"} & set(found.drawn)


def test_a_value_that_is_not_there_and_an_empty_one_are_one_stratum(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    add(store, "a", {"tenant": None}, {"tenant": ""}, {"tenant": "t"}, {"tenant": "t"})

    found = drawn(store, plan(DrawRule(per_stratum=1), by=("tenant",)))

    assert len(found.drawn) == 2
    assert {place.inclusion_prob for place in found.drawn.values()} == {0.5}


def test_flags_make_strata(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    add(store, "a", *({"cache_hit": hit} for hit in (True, False, False, False)))

    found = drawn(store, plan(DrawRule(per_stratum=1), by=("cache_hit",)))

    assert sorted(place.inclusion_prob or 0 for place in found.drawn.values()) == [1 / 3, 1.0]


def test_an_engine_knows_from_footers_whether_a_column_is_filled(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    add(store, "whole", {}, {})

    with store.production() as engine:
        assert engine.is_filled("calls", "input")
        assert not engine.is_filled("calls", "tenant")
        assert not engine.is_filled("calls", "no_such_column")

    add(store, "purged", {}, {"input": None})

    with store.production() as engine:
        assert not engine.is_filled("calls", "input")
