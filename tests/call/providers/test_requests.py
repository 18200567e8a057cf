"""Request bodies, options, and which schemas constrain."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest

from evalkit.call.providers.requests import (
    MAX_REMEMBERED,
    Remembered,
    is_closed,
    read_options,
    write_json,
)
from evalkit.config import ProviderSettings
from evalkit.errors import CallError, ConfigError

CLOSED = {
    "type": "object",
    "properties": {"a": {"type": "integer", "minimum": 1}},
    "required": ["a"],
    "additionalProperties": False,
}


def test_a_body_is_plain_json_also_from_read_only_mappings() -> None:
    body = {"text": "Grüße \ud83d", "inner": MappingProxyType({"n": 1})}

    written = write_json(body)

    assert written.isascii()
    assert json.loads(written) == {"text": "Grüße \ud83d", "inner": {"n": 1}}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), b"bytes"])
def test_what_json_does_not_have_is_a_bad_request(value: Any) -> None:
    with pytest.raises(CallError) as caught:
        write_json({"value": value})

    assert caught.value.kind == "bad_request"


def test_a_body_that_contains_itself_is_a_bad_request() -> None:
    body: dict[str, Any] = {}
    body["again"] = body

    with pytest.raises(CallError) as caught:
        write_json(body)

    assert caught.value.kind == "bad_request"


def options(**given: Any) -> dict[str, Any]:
    known = {"structured": ("auto", "off"), "cache": (True, False)}
    settings = ProviderSettings(name="p", wire="openai", options=given)
    return read_options(settings, known)


def test_options_have_the_first_of_their_values_by_default() -> None:
    assert options(cache=False) == {"structured": "auto", "cache": False}


def test_every_wrong_option_is_named_with_what_is_right() -> None:
    with pytest.raises(ConfigError) as caught:
        options(cach=True, structured="on")

    assert caught.value.problems == (
        "providers.p.options.cach: no such option of wire openai. Did you mean cache?",
        'providers.p.options.structured: \'on\' is none of "auto", "off".',
    )


@pytest.mark.parametrize(
    ("schema", "closed"),
    [
        (CLOSED, True),
        ({"type": "string"}, True),
        ({**CLOSED, "additionalProperties": True}, False),
        ({**CLOSED, "required": []}, False),
        ({"type": "object"}, False),
        ({"type": "array", "items": {"type": "object"}}, False),
        ({"anyOf": [CLOSED, {"properties": {}}]}, False),
        ({"$defs": {"x": {"type": "object"}}, "type": "string"}, False),
    ],
)
def test_a_schema_is_closed_when_every_object_in_it_is(schema: Any, closed: bool) -> None:
    assert is_closed(schema) is closed


def test_optional_properties_and_refused_keywords_can_be_told() -> None:
    optional = {**CLOSED, "required": []}

    assert is_closed(optional, all_required=False)
    assert not is_closed(CLOSED, refused={"minimum"})


def test_a_schema_is_looked_through_once_and_few_are_kept() -> None:
    seen = []
    remembered = Remembered(lambda schema: seen.append(schema) or len(seen))  # type: ignore[func-returns-value]
    schemas = [{"n": n} for n in range(MAX_REMEMBERED + 1)]

    first = [remembered(schemas[0]) for _ in range(3)]
    for schema in schemas:
        remembered(schema)

    assert first == [1, 1, 1]
    assert len(seen) == MAX_REMEMBERED + 1
    assert remembered(schemas[0]) == MAX_REMEMBERED + 2
