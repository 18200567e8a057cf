"""The audit's arithmetic, and the file of labelled pairs it reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.call.cache_audit import SHIPPED_PAIRS, LabelledPair, Share, audit, load_pairs, wilson
from evalkit.errors import InputFileError


def pair(a: str, b: str, *, same: bool, kind: str = "k") -> LabelledPair:
    return LabelledPair(a=a, b=b, same=same, kind=kind)


PAIRS = [
    pair("Where is my order?", "where is my order", same=True),
    pair("Where is my order?", "What happened to my parcel?", same=True),
    pair("Cancel my order", "Do not cancel my order", same=False, kind="negation"),
    pair("Where is my order?", "Please, where is my order?", same=False, kind="mislabelled"),
]


def test_hits_are_counted_by_label_and_kind() -> None:
    found = audit(PAIRS, threshold=0.5, embed=lambda text: (1.0,))

    assert (found.true_hits.hits, found.true_hits.n) == (1, 2)
    assert (found.false_hits.hits, found.false_hits.n) == (1, 2)
    assert (found.false_among_hits.hits, found.false_among_hits.n) == (1, 2)
    assert {kind: share.hits for (_, kind), share in found.by_kind().items()} == {
        "k": 1,
        "negation": 0,
        "mislabelled": 1,
    }


def test_without_the_words_every_near_pair_would_be_a_hit() -> None:
    found = audit(PAIRS, threshold=0.5, embed=lambda text: (1.0,))

    assert found.by_vectors_alone(same=False).hits == 2
    assert found.by_vectors_alone(same=True).hits == 2


def test_below_the_threshold_nothing_is_a_hit() -> None:
    found = audit(PAIRS, threshold=0.5, embed=lambda text: (0.1,))

    assert found.true_hits.hits == found.false_hits.hits == 0
    assert found.at(0.005).true_hits.hits == 1


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17:857-872, table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611),
     (1, 29, 0.0061, 0.1718)],
)  # fmt: skip
def test_the_interval_is_wilsons(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx((low, high), abs=5e-5)


def test_the_interval_of_all_is_that_of_none_turned_round() -> None:
    low, high = wilson(20, 20)

    assert high == 1.0
    assert low == pytest.approx(1 - wilson(0, 20)[1])


def test_a_share_of_nothing_is_not_known() -> None:
    assert Share(hits=0, n=0).value is None
    assert Share(hits=0, n=0).ci is None


def test_the_shipped_pairs_are_many_of_both_and_each_only_once() -> None:
    pairs = load_pairs(SHIPPED_PAIRS)

    assert sum(p.same for p in pairs) >= 50
    assert sum(not p.same for p in pairs) >= 100
    assert len({frozenset((p.a, p.b)) for p in pairs}) == len(pairs)


def test_a_pair_without_a_kind_has_its_label_for_one(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"a": "x", "b": "y", "same": False}), encoding="utf-8")

    assert load_pairs(path) == [pair("x", "y", same=False, kind="different")]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("[]", "not an object"),
        ('{"a": "x", "same": true}', "needs texts a and b"),
        ('{"a": "x", "b": "y", "same": 1}', "same: true or false"),
        ('{"a": "x", "b": "y", "same": true, "kind": 3}', "kind is no text"),
        ('{"a": "x", "b": "y", "same": true', "pairs.jsonl:2"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"a": "x", "b": "y", "same": true}\n' + line + "\n", encoding="utf-8")

    with pytest.raises(InputFileError, match=r"pairs\.jsonl:2") as refused:
        load_pairs(path)

    assert says in str(refused.value)


def test_a_file_without_pairs_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")

    with pytest.raises(InputFileError, match="no pairs"):
        load_pairs(tmp_path / "empty.jsonl")
    with pytest.raises(InputFileError, match=r"none\.jsonl"):
        load_pairs(tmp_path / "none.jsonl")
