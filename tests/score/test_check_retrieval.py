"""Recall@k, MRR and nDCG against numbers worked out by hand, and against scikit-learn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.records import Mark
from evalkit.score.check_retrieval import ndcg, recall_at_k, reciprocal_rank
from evalkit.score.checks import CheckSpecError, compile_check, needs_expected
from tests.score.answers import make_answer

HERE = Path(__file__).parent


def score(spec: dict[str, Any], retrieved: list[str], **answer: Any) -> Mark:
    check = compile_check(spec, base=HERE)
    return check(make_answer("an answer", retrieved_ids=tuple(retrieved), **answer))


@pytest.mark.parametrize(
    ("retrieved", "relevant", "k", "recall", "mrr"),
    [
        (["a", "b", "c"], ["a"], 10, 1.0, 1.0),
        (["x", "a", "y", "b"], ["a", "b"], 10, 1.0, 1 / 2),
        (["x", "a", "y", "b"], ["a", "b"], 3, 1 / 2, 1 / 2),
        (["x", "y", "z", "a"], ["a", "b", "c"], 10, 1 / 3, 1 / 4),
        (["x", "y", "z", "a"], ["a", "b", "c"], 3, 0.0, 0.0),
        ([], ["a"], 10, 0.0, 0.0),
    ],
)
def test_recall_and_reciprocal_rank_are_the_hand_worked_numbers(
    retrieved: list[str], relevant: list[str], k: int, recall: float, mrr: float
) -> None:
    found = score({"check": "recall_at_k", "k": k}, retrieved, expected=relevant)
    ranked = score({"check": "mrr", "k": k}, retrieved, expected=relevant)

    assert found.score == pytest.approx(recall)
    assert ranked.score == pytest.approx(mrr)


def test_ndcg_of_a_textbook_example_is_the_hand_worked_number() -> None:
    # Grades in the order retrieved: 3, 2, 3, 0, 1, 2. Best order: 3, 3, 2, 2, 1, 0.
    # DCG  = 3 + 2/1.58496 + 3/2 + 0 + 1/2.58496 + 2/2.80735 = 6.86113
    # IDCG = 3 + 3/1.58496 + 2/2 + 2/2.32193 + 1/2.58496     = 7.14100
    retrieved = ["d1", "d2", "d3", "d4", "d5", "d6"]
    grades = {"d1": 3, "d2": 2, "d3": 3, "d4": 0, "d5": 1, "d6": 2}

    mark = score({"check": "ndcg"}, retrieved, expected={"relevant": grades})
    at_path = score(
        {"check": "ndcg", "expected_path": "/relevant"}, retrieved, expected={"relevant": grades}
    )

    assert mark.error_kind == "bad_expected"
    assert at_path.score == pytest.approx(6.86113 / 7.14100, abs=1e-5)
    assert at_path.score == pytest.approx(0.961, abs=5e-4)


def test_ndcg_counts_what_was_not_retrieved_against_the_best_order() -> None:
    mark = score({"check": "ndcg", "k": 2}, ["x", "a"], expected=["a", "b", "c"])

    assert mark.score == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))


@given(
    grades=st.lists(st.integers(0, 4), min_size=2, max_size=12).filter(any),
    order=st.randoms(use_true_random=False),
    k=st.integers(1, 12),
)
@settings(deadline=None)
def test_ndcg_is_scikit_learns(grades: list[int], order: Any, k: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn to compare with")
    ids = [f"d{n}" for n in range(len(grades))]
    order.shuffle(ids)
    relevance = {id: float(grade) for id, grade in zip(ids, grades, strict=True)}

    ours = ndcg(ids, relevance, k)
    theirs = metrics.ndcg_score([grades], [list(range(len(ids), 0, -1))], k=k)

    assert ours == pytest.approx(theirs)


@given(
    retrieved=st.lists(st.sampled_from("abcdef"), unique=True),
    relevant=st.sets(st.sampled_from("abcdef"), min_size=1),
    k=st.integers(1, 8),
)
def test_rates_stay_between_0_and_1_and_are_1_for_the_best_order(
    retrieved: list[str], relevant: set[str], k: int
) -> None:
    grades = dict.fromkeys(relevant, 1.0)
    best = sorted(relevant) + [id for id in retrieved if id not in relevant]

    for rate in (recall_at_k, reciprocal_rank, ndcg):
        assert 0.0 <= rate(retrieved, grades, k) <= 1.0
    assert reciprocal_rank(best, grades, k) == 1.0
    assert ndcg(best, grades, k) == pytest.approx(1.0)
    assert recall_at_k(best, grades, len(relevant)) == 1.0


def test_chunks_of_a_document_count_once_by_document() -> None:
    retrieved = ["returns.md#1", "returns.md#refunds", "orders.md#1"]

    by_document = {"check": "mrr", "by": "document", "value": "orders.md"}
    by_chunk = {"check": "mrr", "value": "orders.md"}

    assert score(by_document, retrieved).score == pytest.approx(1 / 2)
    assert score(by_chunk, retrieved).score == 0.0


@pytest.mark.parametrize("nothing", [[], {}, {"d1": 0}])
def test_a_case_without_a_relevant_document_has_no_score(nothing: Any) -> None:
    mark = score({"check": "recall_at_k"}, ["d1"], expected=nothing)

    assert (mark.score, mark.outcome, mark.error_kind) == (None, "check_error", "nothing_relevant")


@pytest.mark.parametrize("bad", [[None], [True], [["d1"]], {"d1": -1}, {"d1": "high"},
                                 {"d1": math.nan}, {"d1": True}])  # fmt: skip
def test_relevance_that_is_none_is_the_checks_fault_not_the_answers(bad: Any) -> None:
    assert score({"check": "ndcg"}, ["d1"], expected=bad).error_kind == "bad_expected"


def test_relevance_comes_from_the_check_or_from_the_case() -> None:
    assert needs_expected({"check": "ndcg"})
    assert not needs_expected({"check": "ndcg", "values": ["d1"]})
    assert score({"check": "recall_at_k", "values": ["d1"]}, ["d1"]).passed is True
    assert score({"check": "recall_at_k"}, ["d1"]).error_kind == "no_expected"


def test_reason_shows_what_was_retrieved_and_what_was_wanted() -> None:
    mark = score({"check": "recall_at_k", "k": 2}, ["d9", "d8"], expected=["d1"])

    assert mark.reason == "0.000: retrieved ['d9', 'd8'] of ['d1']"
    assert mark.passed is False


def test_k_of_zero_is_refused_before_any_call() -> None:
    with pytest.raises(CheckSpecError, match="1 or more"):
        compile_check({"check": "mrr", "k": 0}, base=HERE)
