"""What is called valid in a hurry is valid: jsonschema finds no fault in it."""

from __future__ import annotations

import copy
import datetime
import tomllib
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from evalkit import schemas

CHECKOUT = Path(__file__).resolve().parent.parent
CONFIG = tomllib.loads((CHECKOUT / "evalkit.toml").read_text(encoding="utf-8"))
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.sampled_from([1.0, -0.0, 10**30, float("nan"), [], {}, [1.0], {"a": 1}, {1: 2}, (1, 2)]),
    st.just(datetime.date(2026, 1, 1)),
)  # fmt: skip


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    if isinstance(value, (dict, list)):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            found += places(value[key], (*at, key))
    return found


def with_changed(place: tuple[Any, ...], new: Any) -> Any:
    config = copy.deepcopy(CONFIG)
    inner = config
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = new
    return config


def test_only_a_whole_fraction_asks_for_a_second_look() -> None:
    assert schemas._is_surely_valid({"run": {"concurrency": 8}}, "config")
    assert not schemas._is_surely_valid({"run": {"concurrency": 8.0}}, "config")
    assert schemas.find_faults({"run": {"concurrency": 8.0}}, "config")


@given(place=st.sampled_from(places(CONFIG)), new=ODD)
def test_nothing_with_a_fault_is_surely_valid(place: tuple[Any, ...], new: Any) -> None:
    config = with_changed(place, new)

    if schemas._is_surely_valid(config, "config"):
        assert not list(schemas._validator("config").iter_errors(config))
