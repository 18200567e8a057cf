"""One view of all sides' rows, and what is known of each metric of each pair in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from evalkit.decide.rows import Group, Source, gather_rows, groups_of, untrusted_judges
from evalkit.records import Pair
from evalkit.store.views import Engine

V2 = Pair.parse("small/classify@v2")
PLAIN: dict[str, Any] = {
    "golden_set": "tickets", "metric": "label", "model": "small", "prompt_name": "classify",
    "prompt_version": "v2", "case_id": "c1", "case_hash": "", "cluster": None, "trial": 0,
    "scorer_version": None, "tier": 1, "passed": None, "reason": None, "latency_ms": None,
    "cost_usd": None, "served_model": None, "score": 1.0, "outcome": "scored", "error_kind": None,
}  # fmt: skip
KINDS = {
    "trial": pa.int64(), "tier": pa.int64(), "passed": pa.bool_(), "latency_ms": pa.float64(),
    "cost_usd": pa.float64(), "score": pa.float64(),
}  # fmt: skip


def of_file(name: str = "new.csv", view: str = "view_file") -> Source:
    return Source(name=name, run_id=None, view=view)


def of_run(run_id: str = "run-1", view: str = "view_run") -> Source:
    return Source(name=run_id, run_id=run_id, view=view)


def row(**changes: Any) -> dict[str, Any]:
    return PLAIN | changes


@contextmanager
def gathered(*sides: tuple[Source, list[dict[str, Any]]]) -> Iterator[Engine]:
    """The rows of these sources in one view; slices are a map in a run, a list in a file."""
    with Engine() as engine:
        for source, rows in sides:
            text = pa.string()
            slices = pa.map_(text, text) if source.is_run else pa.list_(text)
            kinds = KINDS | {"slices": slices}
            whole = [{"slices": []} | one for one in rows]
            schema = pa.schema([(name, kinds.get(name, text)) for name in whole[0]])
            engine.add_table(source.view, pa.Table.from_pylist(whole, schema=schema))
        gather_rows(engine, [source for source, _ in sides])
        yield engine


def group_of(*rows: dict[str, Any]) -> Group:
    with gathered((of_file(), list(rows))) as engine:
        [group] = groups_of(engine)
    return group


def test_a_file_and_a_run_stand_in_one_view_told_apart_by_their_source() -> None:
    in_file = row(slices=["channel=mail"])
    in_run = row(slices=[("channel", "chat"), ("lang", "de")])

    with gathered((of_file(), [in_file]), (of_run(), [in_run])) as engine:
        found = engine.rows("SELECT source, slices, score FROM score_rows ORDER BY source")

    assert [one["source"] for one in found] == ["view_file", "view_run"]
    assert [one["slices"] for one in found] == [["channel=mail"], ["channel=chat", "lang=de"]]


def test_a_row_that_another_model_served_has_no_score() -> None:
    rows = [
        row(case_id="own", served_model="small"),
        row(case_id="unsaid", served_model=None),
        row(case_id="other", served_model="large"),
    ]

    with gathered((of_file(), rows)) as engine:
        found = engine.rows("SELECT case_id, score, outcome FROM score_rows ORDER BY case_id")

    assert [tuple(one.values()) for one in found] == [
        ("other", None, "excluded"), ("own", 1.0, "scored"), ("unsaid", 1.0, "scored")
    ]  # fmt: skip


def test_a_group_says_what_its_rows_have() -> None:
    plain = group_of(row())

    assert plain == Group(
        source="view_file", golden_set="tickets", metric="label", pair=V2, tier=1, n_rows=1,
        has_hashes=False, has_slices=False, has_calls=False, versions=None,
        n_scored=1,
    )  # fmt: skip


def test_a_group_has_what_any_of_its_rows_has() -> None:
    rows = [
        row(case_hash="h1", slices=["channel=mail"], latency_ms=5.0, scorer_version="2"),
        row(trial=1, scorer_version="1"),
        row(trial=2, score=None, scorer_version="3"),
    ]

    group = group_of(*rows)

    assert (group.n_rows, group.n_scored) == (3, 2)
    assert (group.has_hashes, group.has_slices, group.has_calls) == (True, True, True)
    assert group.versions == ("1", "2")
    assert group_of(row(cost_usd=0.1)).has_calls is True


def test_a_file_that_says_no_tier_has_none() -> None:
    assert group_of(row(tier=None)).tier == 0
    assert group_of(row(tier=2)).tier == 2


def test_a_metric_whose_rows_have_no_score_is_a_group_all_the_same() -> None:
    group = group_of(row(score=None, outcome="infra_error", scorer_version="1"))

    assert (group.n_rows, group.n_scored, group.versions) == (1, 0, None)


def test_groups_come_in_a_fixed_order_by_source_pair_tier_and_metric() -> None:
    rows = [
        row(metric="tone", tier=2), row(metric="label"), row(metric="a", prompt_version="v3"),
        row(metric="exact"), row(metric="z", golden_set="orders"),
    ]  # fmt: skip

    with gathered((of_run(), rows), (of_file(), [row()])) as engine:
        groups = groups_of(engine)

    assert [(one.source, one.golden_set, one.metric) for one in groups] == [
        ("view_file", "tickets", "label"),
        ("view_run", "orders", "z"),
        ("view_run", "tickets", "exact"),
        ("view_run", "tickets", "label"),
        ("view_run", "tickets", "tone"),
        ("view_run", "tickets", "a"),
    ]


def test_a_judge_that_passes_anything_is_told_once_and_only_of_runs() -> None:
    untrusted = row(metric="tone", score=None, error_kind="judge_untrusted", reason="it passed all")
    rows = [untrusted, untrusted | {"case_id": "c2"}, row(error_kind="timeout", reason="late")]
    run, again, file = of_run(), of_run("run-2", "view_again"), of_file()

    with gathered((run, rows), (again, rows), (file, rows)) as engine:
        told = untrusted_judges(engine, [run, again, file])
        of_files = untrusted_judges(engine, [file])

    assert told == ["tone on tickets has no scores: it passed all"]
    assert of_files == []
