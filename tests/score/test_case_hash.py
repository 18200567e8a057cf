"""A case is known by its input, what is expected, and the checks applied; by nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from tests.score.golden_sets import (
    CASE,
    HEADER,
    LENIENT,
    case,
    cases,
    load,
    metric,
    quick,
    write,
)


def hash_with(
    root: Path, row: Mapping[str, Any] = CASE, header: str = HEADER, schema: str | None = None
) -> str:
    if schema is not None:
        (write(root, []) / "label.json").write_text(schema, encoding="utf-8")
    return load(root, [row], header).cases.hash_at(0)


@pytest.mark.parametrize(
    "header",
    [
        metric("{name: other, check: equals, path: /label, gate: true}"),
        metric("{name: label, check: equals, path: /label}"),
        metric("{name: label, check: equals, path: /label, must_pass: true}"),
        metric("{name: label, check: equals, path: /label, tolerance: 0.1, max_drop: 0.2}"),
        metric("{max_drop: 0.2, path: /label, check: equals, name: label}"),
        HEADER.replace("cases: ", "  - {name: judged, judge: correctness}\ncases: "),
        HEADER + "trials: 5\ndescription: other words\n",
    ],
)
def test_what_the_gate_does_with_a_score_is_no_part_of_a_case(tmp_path: Path, header: str) -> None:
    assert hash_with(tmp_path, header=header) == hash_with(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        metric("{name: label, check: equals, path: /label, negate: true}"),
        metric("{name: label, check: equals, path: ''}"),
        metric("{name: label, check: contains, path: /label}"),
        HEADER.replace("cases: ", "  - {name: words, check: words, max: 9}\ncases: "),
    ],
)
def test_another_check_is_another_case(tmp_path: Path, header: str) -> None:
    assert hash_with(tmp_path, header=header) != hash_with(tmp_path)


def test_the_order_of_metrics_is_no_part_of_a_case(tmp_path: Path) -> None:
    one, other = "  - {name: a, check: is_json}\n", "  - {name: b, check: words, max: 9}\n"
    head = "name: tickets\nfeature: classify\nmetrics:\n"

    assert hash_with(tmp_path, header=head + one + other) == hash_with(
        tmp_path, header=head + other + one
    )


def test_a_schema_counts_by_what_it_says(tmp_path: Path) -> None:
    header = metric("{name: shape, check: json_schema, schema: label.json}")

    first = hash_with(tmp_path, header=header, schema='{"type": "object", "minProperties": 1}')
    spaced = hash_with(tmp_path, header=header, schema='{"minProperties":1,  "type": "object"}')
    other = hash_with(tmp_path, header=header, schema='{"type": "object", "minProperties": 2}')

    assert first == spaced != other


def test_a_check_counts_the_same_in_the_header_and_in_the_case(tmp_path: Path) -> None:
    with_two = HEADER.replace("cases: ", "  - {name: w, check: words, max: 9}\ncases: ")

    assert hash_with(tmp_path, case(checks=[{"check": "words", "max": 9}])) == hash_with(
        tmp_path, header=with_two
    )


def test_the_hash_of_a_golden_set_is_of_all_of_it(tmp_path: Path) -> None:
    rows = [CASE, case(id="t-2")]
    base = load(tmp_path, rows).hash

    respaced = "".join(json.dumps(r, indent=None, sort_keys=True) + "\n\n" for r in rows)
    others = [
        load(tmp_path, rows[::-1]).hash,
        load(tmp_path, [CASE, case(id="t-2", metadata={"channel": "mail"})]).hash,
        load(tmp_path, rows, HEADER + "trials: 2\n").hash,
        load(tmp_path, rows, HEADER.replace("gate: true", "gate: false")).hash,
    ]

    assert load(tmp_path, respaced).hash == base
    assert len({base, *others}) == 5


def shuffled(value: Any) -> Any:
    """The same JSON value with the keys of every object in the other order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@quick
@given(row=cases)
def test_a_case_is_read_as_it_was_written(tmp_path: Path, row: dict[str, Any]) -> None:
    line = json.dumps(row)

    (read,) = load(tmp_path, line, LENIENT).cases

    written = row["input"] if isinstance(row["input"], dict) else {"text": row["input"]}
    assert json.dumps(read.input) == json.dumps(written)
    assert json.dumps(read.expected) == json.dumps(row.get("expected"))
    assert read.has_expected == ("expected" in row)
    assert json.dumps(read.metadata) == json.dumps(row.get("metadata", {}))


@quick
@given(one=cases, other=cases)
def test_a_hash_is_equal_when_and_only_when_input_and_expected_are(
    tmp_path: Path, one: dict[str, Any], other: dict[str, Any]
) -> None:
    def decides(row: dict[str, Any]) -> str:
        given_input = row["input"] if isinstance(row["input"], dict) else {"text": row["input"]}
        return json.dumps(
            [given_input, [row["expected"]] if "expected" in row else []], sort_keys=True
        )

    hashes = [hash_with(tmp_path, row, LENIENT) for row in (one, other, shuffled(one))]

    assert hashes[0] == hashes[2]
    assert (hashes[0] == hashes[1]) == (decides(one) == decides(other))
