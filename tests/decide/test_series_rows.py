"""Rows of counts and scores as series by day, and what each may spend of alpha."""

from __future__ import annotations

import math
from typing import Any

import pytest

from evalkit.decide.series import alpha_shares
from evalkit.decide.series_rows import Block, Series, made_series, share_series

DAY = 86_400_000_000


def row(day: int, value: float = 1.0, *, p: float = 1.0, n: int = 1, **more: Any) -> dict[str, Any]:
    plain = {"feature": "f", "model": "m", "prompt_version": "v1", "metric": "q"}
    return {**plain, "day": day * DAY, "value": value, "p": p, "n": n, **more}


def plain(block: Block) -> tuple[float, list[float], list[float], list[float]]:
    return block.at / DAY, block.values.tolist(), block.weights.tolist(), block.counts.tolist()


def test_rows_of_a_day_are_a_block_and_days_come_in_order() -> None:
    rows = [row(3, 0.5, n=2), row(1, 1.0), row(3, 0.25, n=4)]

    [series] = made_series(rows, worse="below", family="mix")

    assert [plain(block) for block in series.blocks] == [
        (1, [1.0], [1.0], [1.0]),
        (3, [0.5, 0.25], [1.0, 1.0], [2.0, 4.0]),
    ]
    assert (series.names, series.worse, series.family) == (("f", "m", "v1", "q"), "below", "mix")
    assert (series.version, series.is_current) == ("", True)


def test_a_weight_is_the_least_chance_of_the_day_over_the_rows_own() -> None:
    rows = [row(1, p=0.5), row(2, p=0.1), row(2, p=0.2), row(1, p=0.01, metric="other")]

    first, other = made_series(rows, worse="below")

    assert [block.weights.tolist() for block in first.blocks] == [
        [1.0], [pytest.approx(1.0), pytest.approx(0.5)]
    ]  # fmt: skip
    assert [block.least for block in first.blocks] == [0.5, 0.1]
    assert other.blocks[0].weights.tolist() == [1.0]


def test_versions_of_a_scorer_are_series_of_their_own() -> None:
    rows = [row(1, version="1", is_current=False), row(1, version="2"), row(2, version="2")]

    old, new = made_series(rows, worse="below")

    assert (old.version, old.is_current, len(old.blocks)) == ("1", False, 1)
    assert (new.version, new.is_current, len(new.blocks)) == ("2", True, 2)


def test_what_nobody_named_is_of_all() -> None:
    [series] = made_series([row(1, model=None, prompt_version=None)], worse="below")

    assert series.names == ("f", "", "", "q")
    assert series.key == "f/q"


@pytest.mark.parametrize(
    ("names", "key"),
    [
        (("f", "m", "v1", "q"), "f/m@v1/q"),
        (("f", "m", "", "q"), "f/m@?/q"),
        (("f", "", "v1", "q"), "f/q"),
    ],
)
def test_a_series_is_known_by_its_names(names: Any, key: str) -> None:
    series = Series(names=names, blocks=[], worse="below")

    assert series.key == key
    assert series.is_current


def test_shares_are_ones_and_noughts_that_are_worse_above() -> None:
    rows = [{**row(0), "day": 5, "n": 10, "k": 3}, {**row(0), "day": 6, "n": 4, "k": 4},
            {**row(0), "day": 7, "n": 2, "k": 0}]  # fmt: skip

    [series] = share_series(rows, family="mix")

    assert [plain(block) for block in series.blocks] == [
        (5, [0.0, 1.0], [1.0, 1.0], [7.0, 3.0]),
        (6, [1.0], [1.0], [4.0]),
        (7, [0.0], [1.0], [2.0]),
    ]
    assert (series.worse, series.family) == ("above", "mix")
    assert series.is_current


# --- alpha ------------------------------------------------------------------------------


def begun(day: int, name: str, **more: Any) -> Series:
    [series] = made_series([row(day, metric=name), row(day + 1, metric=name)], worse="below")
    return Series(
        **{
            "names": series.names, "blocks": series.blocks, "worse": "below",
            "family": "", "version": "", **more,
        }
    )  # fmt: skip


def of_day(n: int) -> float:
    """What the n-th day has of all: 1 / ((n + 1) log² (n + 1)), over their sum."""
    return 1 / (2.11 * (n + 1) * math.log(n + 1) ** 2)


def test_a_day_has_its_part_of_alpha_by_its_number_among_days_on_which_any_began() -> None:
    shares = alpha_shares([begun(30, "b"), begun(3, "a"), begun(30, "c"), begun(99, "d")])

    assert shares == pytest.approx([of_day(2) / 2, of_day(1), of_day(2) / 2, of_day(3)])


def test_questions_share_alike_and_so_do_the_kinds_of_one() -> None:
    kinds = [begun(0, f"language {code}", family="language mix") for code in ("de", "en")]
    versions = [begun(0, "q", version=version) for version in ("1", "2")]

    shares = alpha_shares([*kinds, *versions])

    third = of_day(1) / 3
    assert shares == pytest.approx([third / 2, third / 2, third, third])
    assert alpha_shares([]) == []
