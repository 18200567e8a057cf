"""What a feature may use, and what it may not."""

from __future__ import annotations

from typing import Any

import pytest

from evalkit.call import policy
from evalkit.call.failures import FAILURES
from evalkit.config import FeatureSettings, ModelSettings
from evalkit.errors import CallError

FRONTIER = ModelSettings(name="big", provider="one", id="big-1", tier="frontier")


def feature(**values: Any) -> FeatureSettings:
    return FeatureSettings(
        name="help", prompt_name="help", prompt_version="v1", model="small", **values
    )


def test_what_is_declared_may_be_used() -> None:
    declared = feature(tools=("lookup",), sources=("faq", "terms"), allow_frontier=True)

    policy.check(declared, tools=["lookup"], sources=["faq"], model=FRONTIER)


@pytest.mark.parametrize(
    ("declared", "used", "says"),
    [
        ({}, {"tools": ["refund"]}, "tool 'refund' is not allowed (allowed: none)"),
        (
            {"tools": ("lookup",)},
            {"tools": ["lookup", "refund"]},
            "tool 'refund' is not allowed (allowed: lookup)",
        ),
        (
            {"sources": ("faq",)},
            {"sources": ["faq", "salaries"]},
            "source 'salaries' is not allowed (allowed: faq)",
        ),
        ({}, {"model": FRONTIER}, "model big is frontier, and allow_frontier is not set"),
    ],
)
def test_what_is_not_declared_is_a_typed_error(
    declared: dict[str, Any], used: dict[str, Any], says: str
) -> None:
    with pytest.raises(CallError) as error:
        policy.check(feature(**declared), **used)

    assert error.value.kind == "policy"
    assert str(error.value) == f"feature help: {says}"


def test_all_violations_are_named_at_once() -> None:
    with pytest.raises(CallError, match=r"tool 'a'.*; tool 'b'.*; model big is frontier"):
        policy.check(feature(), tools=["a", "b", "a"], model=FRONTIER)


def test_a_feature_without_a_list_of_sources_may_use_those_its_retriever_has() -> None:
    policy.check(feature(), sources=["faq"])


def test_a_violation_is_never_tried_again_or_elsewhere() -> None:
    row = FAILURES["policy"]

    assert (row.retries, row.fail_over, row.trips_breaker) == (0, False, False)
