"""JSON Schema on hostile values: linear patterns, bounded work, nothing fetched."""

from __future__ import annotations

import time

import pytest

from evalkit.json_schema import MAX_NODES, compile_schema


def test_valid_value_gives_none_and_invalid_value_says_where() -> None:
    validate = compile_schema({"properties": {"n": {"type": "integer"}}})

    assert validate({"n": 1}) is None
    assert validate({"n": "x"}) == "/n: 'x' is not of type 'integer'"


def test_pattern_with_nested_quantifiers_does_not_hang() -> None:
    validate = compile_schema(
        {"pattern": "^(a+)+$", "patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}
    )
    hostile = "a" * 100_000 + "!"
    started = time.process_time()

    assert validate(hostile) is not None
    assert validate({hostile: 1}) is not None
    assert time.process_time() - started < 5


@pytest.mark.parametrize("pattern", [r"(a)\1", "(?=a)b", "(?<!a)b", "("])
@pytest.mark.parametrize("where", ["pattern", "patternProperties"])
def test_pattern_outside_the_linear_engine_is_refused_with_its_text(
    pattern: str, where: str
) -> None:
    inner = pattern if where == "pattern" else {pattern: {}}

    with pytest.raises(ValueError, match="linear time"):
        compile_schema({"items": {where: inner}})


def test_unevaluated_beside_pattern_properties_is_refused_where_jsonschema_would_run_re() -> None:
    with pytest.raises(ValueError, match="unevaluatedProperties"):
        compile_schema({"patternProperties": {"^a": {}}, "unevaluatedProperties": False})


def test_unique_items_compares_objects_in_linear_time_and_as_json_does() -> None:
    validate = compile_schema({"uniqueItems": True})
    started = time.process_time()

    assert validate([{"a": i} for i in range(50_000)]) is None
    assert time.process_time() - started < 5
    assert validate([{"a": [1]}, {"a": [1.0]}]) is not None
    assert validate([1, True, "1", [1], {"1": 1}, None, 0, False]) is None


def test_value_with_too_many_parts_is_refused_not_waited_for() -> None:
    validate = compile_schema({"items": {"type": "string"}})

    problem = validate([1] * (MAX_NODES + 1))

    assert problem is not None


@pytest.mark.parametrize(
    "ref", ["http://127.0.0.1:9/x.json", "file:///etc/passwd", "other.json", "//host/x"]
)
def test_reference_out_of_the_schema_is_refused(ref: str) -> None:
    with pytest.raises(ValueError, match="leaves the schema"):
        compile_schema({"properties": {"a": {"$ref": ref}}})


def test_endless_reference_is_refused_and_recursive_schema_works() -> None:
    with pytest.raises(ValueError, match="without end"):
        compile_schema({"$ref": "#"})

    tree = compile_schema({"type": "object", "properties": {"next": {"$ref": "#"}}})
    assert tree({"next": {"next": {}}}) is None
    assert tree({"next": {"next": 1}}) == "/next/next: 1 is not of type 'object'"


def test_hostile_scalars_never_raise() -> None:
    validate = compile_schema({"multipleOf": 0.1, "pattern": "a", "format": "regex"})

    assert validate(10**400) is None or isinstance(validate(10**400), str)
    assert validate("\ud800") is not None
    assert validate("(" * 5000 + "a") is not None
