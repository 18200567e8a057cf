"""JSON as bytes comes back as it was, whatever is in it, and says so where it cannot."""

from __future__ import annotations

import json
import math
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evalkit import json_bytes
from evalkit.records import Usage

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
SURROGATES = st.text(st.characters(categories=["Cs", "L"]), min_size=1)
VALUES = st.recursive(
    SCALARS | SURROGATES,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
FINITE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def holds_infinity(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(holds_infinity, value.values()))
    if isinstance(value, list):
        return any(map(holds_infinity, value))
    return isinstance(value, float) and not math.isfinite(value)


@given(VALUES)
@example(2**63)
@example(-(2**63) - 1)
def test_what_was_written_exactly_comes_back(value: Any) -> None:
    if holds_infinity(value):
        return

    assert json_bytes.decode(json_bytes.encode_exactly(value)) == value


@given(VALUES)
def test_every_value_makes_one_line_of_utf_8(value: Any) -> None:
    if holds_infinity(value):
        return

    data = json_bytes.encode(value)

    assert b"\n" not in data
    json.loads(data.decode("utf-8"))


@given(st.dictionaries(st.text() | SURROGATES, FINITE, min_size=2))
def test_the_order_of_keys_is_no_difference_to_a_hash(value: dict[str, Any]) -> None:
    turned = dict(reversed(list(value.items())))

    assert json_bytes.encode_sorted(turned) == json_bytes.encode_sorted(value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("wrap", [lambda n: n, lambda n: [n], lambda n: {"a": {"b": [1, n]}}])
def test_a_number_that_is_none_is_refused_where_it_must_be(number: float, wrap: Any) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_bytes.encode_strictly(wrap(number))


def test_records_and_mappings_are_written_by_their_fields() -> None:
    value = MappingProxyType({"usage": Usage(prompt_tokens=3), "ids": ("a", "b")})

    assert json_bytes.decode(json_bytes.encode(value)) == {
        "usage": {"prompt_tokens": 3, "completion_tokens": None, "cached_prompt_tokens": None},
        "ids": ["a", "b"],
    }


def test_a_surrogate_in_a_record_is_written_all_the_same() -> None:
    value = {"usage": Usage(prompt_tokens=3), "text": "a\ud800b"}

    assert json.loads(json_bytes.encode(value))["text"] == "a?b"


@pytest.mark.parametrize("value", [{1, 2}, object(), {"a": b"bytes"}])
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="is not JSON"):
        json_bytes.encode(value)


@pytest.mark.parametrize("data", [b"", b"{", b'{"a": 1', b"\xff", b"[1,]"])
def test_damage_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expecting|Unterminated|decode|Illegal"):
        json_bytes.decode(data)
