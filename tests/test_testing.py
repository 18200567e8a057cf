"""Helpers for tests written in Python: values, checks, and what they say when they fail."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evalkit.records import CallRecord
from evalkit.testing import assert_passes, mark_of, value_of
from tests.score.answers import make_answer

RECORD = make_answer('{"label": "billing"}').record


def with_output(output: str | None, error_kind: str | None = None) -> CallRecord:
    return replace(RECORD, output=output, error_kind=error_kind)


def test_a_value_is_the_answer_parsed() -> None:
    assert value_of(with_output('{"label": "billing"}')) == {"label": "billing"}


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (with_output("no json"), r"not JSON.*\nanswer: 'no json'"),
        (with_output(None, "timeout"), "gave no answer: timeout"),
    ],
)
def test_where_there_is_no_value_the_failure_says_why(record: CallRecord, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        value_of(record)


def test_a_check_by_name_passes_or_says_why_not() -> None:
    record = with_output("All is well.")

    assert_passes(record, {"check": "contains", "value": "well"})
    assert mark_of(record, {"check": "contains", "value": "ill."}).passed is False
    with pytest.raises(AssertionError, match=r"(?s)contains: .*\nanswer: 'All is well\.'"):
        assert_passes(record, {"check": "contains", "value": "broken"})


def test_a_check_that_is_none_is_the_tests_own_mistake() -> None:
    with pytest.raises(ValueError, match="contains"):
        assert_passes(with_output("x"), {"check": "contain", "value": "x"})
