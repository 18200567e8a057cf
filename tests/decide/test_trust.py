"""Which judges may gate: those that people's labels have shown to agree with people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from evalkit.decide.comparison import Planned, Side
from evalkit.decide.people import Labels
from evalkit.decide.rows import Group
from evalkit.decide.trust import Trust, agrees, is_judged
from evalkit.store.judges import save_figure
from evalkit.store.views import Engine, Store, open_store
from tests.decide.measured import V2, file, planned, run


def figure(kappa: Any = 0.5, n: Any = 20) -> dict[str, Any]:
    return {"overall": {"n": n, "kappa": {"value": kappa}}}


def judged(*, source: str = "cand", version: str | None = "judge-1") -> Planned:
    group = Group(
        source=f"view_{source}", golden_set="tickets", metric="helpful", pair=V2, tier=2,
        n_rows=100, n_scored=100, has_hashes=True, has_slices=False,
        has_calls=False, versions=None if version is None else ("judge-0", version),
    )  # fmt: skip
    return replace(
        planned(metric="helpful", tier=2),
        candidate=Side(source=run(source), pair=V2),
        candidate_group=group,
    )


@contextmanager
def trust(
    store: Store | None, *, floor: float = 0.4, judge: str | None = "help"
) -> Iterator[Trust]:
    with Engine() as engine:
        for source in ("cand", "other"):
            rows = {
                "scorer": [judge, judge, "another"],
                "golden_set": ["tickets", "tickets", "orders"],
                "metric": ["helpful"] * 3,
                "scorer_version": ["judge-1", None, "judge-1"],
            }
            engine.add_table(f"view_{source}", pa.table(rows))
        labels = Labels(None, [], project=Path.cwd())
        yield Trust(store=store, engine=engine, labels=labels, floor=floor)


def objection(store: Store | None, plan: Planned | None = None, **options: Any) -> str | None:
    with trust(store, **options) as asked:
        return asked.objection(plan or judged())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


# --- a figure ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "enough"),
    [
        (figure(), True),
        (figure(kappa=0.4), True),
        (figure(kappa=0.39), False),
        (figure(n=19), False),
        (figure(kappa=None), False),
        (figure(n=None), False),
        ({"overall": {"n": 40}}, False),
        ({"overall": "0.9"}, False),
        ({"overall": {"n": 40, "kappa": 0.9}}, False),
        ({"overall": {"n": 40, "kappa": [{"value": 0.9}]}}, False),
        (figure(kappa="0.9"), False),
        (figure(kappa=float("nan")), False),
        (figure(kappa=float("inf")), False),
        (figure(kappa=True), False),
        (figure(kappa=1.0), True),
        (figure(kappa=-1.0), False),
        (figure(n="many"), False),
        (figure(n=float("inf")), False),
        (figure(n=[40]), False),
        ({}, False),
        (None, False),
    ],
)
def test_a_figure_is_enough_with_as_many_labels_and_as_much_agreement_as_asked(
    found: Mapping[str, Any] | None, enough: bool
) -> None:
    assert agrees(found, floor=0.4) is enough


def test_a_floor_below_all_agreement_asks_for_nothing() -> None:
    assert agrees(None, floor=-1.0) is True
    assert agrees(None, floor=-0.99) is False


def test_a_judge_scored_what_is_of_tier_2_of_a_run() -> None:
    of_file = replace(judged(), candidate=Side(source=file("new.csv"), pair=V2))

    assert is_judged(judged()) is True
    assert [is_judged(plan) for plan in (of_file, planned(tier=1), planned(tier=3))] == [False] * 3


# --- objections -------------------------------------------------------------------------

FIX = "evalkit judge calibrate help --labels FILE"


@pytest.mark.parametrize("kappa", [0.4, 0.9])
def test_a_judge_that_agrees_as_much_as_asked_over_enough_labels_may_gate(
    store: Store, kappa: float
) -> None:
    save_figure(store, "help", "judge-1", figure(kappa, n=20))

    assert objection(store) is None


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (figure(None), f"its judge was never calibrated on people's labels. Do so: {FIX}"),
        (figure(n=19), f"its judge was held to 19 labels, 20 are asked: {FIX}"),
        (figure(n=None), f"its judge was held to 0 labels, 20 are asked: {FIX}"),
        (
            figure(0.3, n=25),
            (
                "the judge agrees too little with people (kappa 0.30 over 25 labels, at least 0.4 "
                f"is asked). Change its rubric or model, then: {FIX}"
            ),
        ),
    ],
)
def test_what_is_not_enough_says_why_and_what_to_do(
    store: Store, found: dict[str, Any], why: str
) -> None:
    save_figure(store, "help", "judge-1", found)

    assert objection(store) == why


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"overall": {"n": 40, "kappa": 0.9}}, "never calibrated"),
        ({"overall": {"n": 40, "kappa": {"value": "0.9"}}}, "never calibrated"),
        ({"overall": {"n": 40, "kappa": {"value": 1.5}}}, "never calibrated"),
        ({"overall": {"n": "40", "kappa": {"value": 0.9}}}, "held to 0 labels"),
    ],
)
def test_a_figure_that_is_damaged_lets_no_judge_gate(
    store: Store, found: dict[str, Any], why: str
) -> None:
    save_figure(store, "help", "judge-1", found)

    assert why in (objection(store) or "")


def test_a_judge_without_a_name_is_told_so_that_one_can_fill_it_in(store: Store) -> None:
    assert "evalkit judge calibrate JUDGE --labels FILE" in (objection(store, judge=None) or "")


def test_what_no_judge_of_a_known_version_scored_meets_no_objection(store: Store) -> None:
    plans = (planned(tier=1), judged(version=None), replace(judged(), candidate_group=None))

    assert [objection(store, plan) for plan in plans] == [None] * 3
    assert objection(None) is None
    assert objection(store) is not None


def test_a_floor_below_all_agreement_meets_no_objection(store: Store) -> None:
    assert objection(store, floor=-1.0) is None
    assert objection(store, floor=-0.99) is not None


def test_an_answer_holds_for_one_invocation_and_one_run(store: Store) -> None:
    with trust(store) as asked:
        before = asked.objection(judged())
        save_figure(store, "help", "judge-1", figure())

        again, of_another = asked.objection(judged()), asked.objection(judged(source="other"))

    assert before == again is not None
    assert of_another is None
