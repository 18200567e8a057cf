"""Answers as models write them, read against a schema."""

from __future__ import annotations

import time

import pytest

from evalkit.call.validation import validate_output


def anything(value: object) -> None:
    return None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1,}', {"a": 1}),
        ('{"a": [1, 2,\n],\n}', {"a": [1, 2]}),
        ("[true,]", [True]),
        ('```json\n{"a": "b",}\n```', {"a": "b"}),
        ('Here: {"a": "b,}",} as asked', {"a": "b,}"}),
        ('{"a": "\\",}",}', {"a": '",}'}),
    ],
)
def test_a_comma_behind_the_last_value_is_taken_off_and_counted(text: str, value: object) -> None:
    read = validate_output(text, anything)

    assert read.error is None
    assert read.value == value
    assert read.repaired is True


@pytest.mark.parametrize("text", ["[,]", "{,}", "[1,,]", '{"a":,}', '{"a": "b,}', "a, }"])
def test_other_commas_are_mistakes(text: str) -> None:
    read = validate_output(text, anything)

    assert read.error is not None
    assert read.repaired is False


@pytest.mark.parametrize("text", ["no JSON", '{"a": 1, "a": 2}', "Here: {1}"])
def test_what_is_no_json_is_told_once(text: str) -> None:
    error = validate_output(text, anything).error

    assert error is not None
    assert error.count("not valid JSON: ") == 1


def test_without_repair_a_comma_is_a_mistake() -> None:
    assert validate_output('{"a": 1,}', anything, repair=False).error is not None


def test_commas_are_looked_for_in_linear_time() -> None:
    started = time.process_time()

    for text in ('{"a": "' + '\\"' * 200_000, '{"a": 1' + "," * 200_000, "{" + ", " * 200_000):
        assert validate_output(text, anything).error is not None

    assert time.process_time() - started < 5
