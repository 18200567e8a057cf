"""The pass over the cases finds every problem, with its line and case, in bounded memory."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import GoldenSetError
from evalkit.schemas import find_faults
from evalkit.score.golden import load_golden_set
from tests.score.golden_sets import (
    CASE,
    HEADER,
    LENIENT,
    case,
    config,
    json_values,
    load,
    metric,
    objects,
    problems,
    quick,
    write,
)


def test_a_repeated_id_names_both_lines(tmp_path: Path) -> None:
    found = problems(tmp_path, [CASE, case(id="t-2"), case(input="again")])

    assert found == ["cases.jsonl:3: case t-1: line 1 has this id already. Give it another."]


BAD_TEXT = [
    (
        b'{"id": "t-1", "input": "caf\xe9"}\n',
        "cases.jsonl:1: byte 0xe9 at offset 27 is not UTF-8. Save the file as UTF-8.",
    ),
    (
        b'\xef\xbb\xbf{"id": "t-1", "input": "a"}\n',
        "cases.jsonl:1: the file starts with a byte order mark. Save it as UTF-8 without BOM.",
    ),
    (
        b'{"id": "t-1", "input": {"price": NaN}}\n',
        "cases.jsonl:1: NaN is not JSON. Use null, or leave it out.",
    ),
    (
        b'{"id": "t-1", "input": "a", "input": "b"}\n',
        'cases.jsonl:1: key "input" stands twice. Keep one.',
    ),
    (
        b'{"id": "t-1", "input": "a"\n',
        (
            "cases.jsonl:1: not valid JSON: expecting ',' delimiter. "
            "Write one case, a JSON object of at most 1 MB, on each line."
        ),
    ),
    (
        b'{"id": "t-1", "input": "\\ud800"}\n',
        (
            "cases.jsonl:1: half of a surrogate pair (\\ud800 to \\udfff) is not a character. "
            "Write one case, a JSON object of at most 1 MB, on each line."
        ),
    ),
    (
        b'["t-1"]\n',
        'cases.jsonl:1: a case must be an object, not a list. Write {"id": …, "input": …}.',
    ),
    (
        b"\n  \n",
        'cases.jsonl:1: no cases. Add a case: {"id": "c-001", "input": "…", "expected": …}.',
    ),
]


@pytest.mark.parametrize(
    ("data", "problem"), BAD_TEXT, ids=[p.split(": ")[1][:24] for _, p in BAD_TEXT]
)
def test_what_two_readers_could_read_differently_is_refused(
    tmp_path: Path, data: bytes, problem: str
) -> None:
    assert problems(tmp_path, data) == [problem]


def test_a_line_that_is_too_long_is_refused_without_being_held_in_memory(tmp_path: Path) -> None:
    long_line = '{"id": "t-0", "input": "' + "x" * 30_000_000 + '"}\n'
    write(tmp_path, long_line + json.dumps(CASE) + "\n")
    del long_line

    tracemalloc.start()
    with pytest.raises(GoldenSetError) as caught:
        load_golden_set(tmp_path / "golden_sets/tickets", settings=config(tmp_path))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert caught.value.problems == (
        (
            "golden_sets/tickets/cases.jsonl:1: a line is longer than 1 MB. "
            "Write one case, a JSON object of at most 1 MB, on each line."
        ),
    )
    assert peak_bytes < 8_000_000


BAD_CASES = [
    (case(id=None), 'no "id". Add one, unique in the golden set.'),
    (case(input=None), 'case t-1: no "input". Add what the feature gets: an object, or text.'),
    (case(id=17), 'id is 17. Quote it: "17".'),
    (
        case(id="t 1\n"),
        'id is "t 1\\n". Write 1 to 200 printable characters, none blank at either end.',
    ),
    (case(input=["a"]), "case t-1: input is a list. Write an object, or text."),
    (case(inputs={}), 'case t-1: unknown key "inputs". Did you mean "input"?'),
    (case(metadata=["chat"]), "case t-1: metadata is a list. Write an object."),
    (case(metadata="chat"), 'case t-1: metadata is "chat". Write an object.'),
    (
        case(metadata={"channel": {"kind": "chat"}}),
        (
            "case t-1: metadata.channel is a table, but golden_set.yaml:3 slices by it. "
            "Write text, a number, true or false, or leave it out."
        ),
    ),
    (case(cluster=7), "case t-1: cluster is 7. Write text."),
    (case(cluster=""), "case t-1: cluster is empty. Leave it out."),
    (case(must_pass="yes"), 'case t-1: must_pass is "yes". Write true or false.'),
    (
        case(expected=None),
        (
            'case t-1: no "expected", but metric label needs one. '
            "Add it, or drop label in golden_set.yaml:5."
        ),
    ),
    (
        case(expected={"lable": "delivery"}),
        (
            'case t-1: no "/label" in "expected", but metric label needs one. '
            "Add it, or drop label in golden_set.yaml:5."
        ),
    ),
    (case(checks={}), "case t-1: checks is an empty table. Write a list of checks."),
    (
        case(checks=["contains"]),
        'case t-1: checks[0] is "contains". Write {"check": "contains", "value": …}.',
    ),
    (
        case(checks=[{"check": "contain", "value": "a"}]),
        'case t-1: checks[0]: check "contain" is not known. Did you mean "contains"?',
    ),
    (
        case(checks=[{"check": "contains", "values": ["a"]}]),
        'case t-1: checks[0]: check contains does not know "values". Did you mean "value"?',
    ),
    (
        case(checks=[{"check": "contains", "value": "a", "gate": True}]),
        (
            "case t-1: checks[0]: gate belongs to the golden set's metrics. "
            "Leave it out; must_pass: true makes the case count by itself."
        ),
    ),
    (
        case(checks=[{"check": "contains", "value": "a", "name": "label"}]),
        'case t-1: checks[0]: another metric is called "label". Give it another name.',
    ),
    (
        case(expected=None, checks=[{"check": "contains"}]),
        (
            'case t-1: no "expected", but metric label needs one. '
            "Add it, or drop label in golden_set.yaml:5."
        ),
    ),
]


@pytest.mark.parametrize(("row", "problem"), BAD_CASES, ids=[p[:40] for _, p in BAD_CASES])
def test_a_wrong_case_is_named_with_what_would_be_right(
    tmp_path: Path, row: Mapping[str, Any], problem: str
) -> None:
    sound = case(id="t-0")

    found = problems(tmp_path, [sound, row])

    assert found[0] == f"cases.jsonl:2: {problem}"


def test_all_problems_of_header_and_cases_are_shown_together(tmp_path: Path) -> None:
    header = HEADER.replace("feature: classify", "feature: clasify").replace(
        "cases:", "  - {name: words, check: words, maxx: 3}\ncases:"
    )

    found = problems(tmp_path, [case(id=None), CASE, "{", case(id="t-3", input=None)], header)

    assert found == [
        (
            'golden_set.yaml:2: there is no feature "clasify" in the configuration. '
            'Did you mean "classify"?'
        ),
        'golden_set.yaml:6: metric words: check words does not know "maxx". Did you mean "max"?',
        'cases.jsonl:1: no "id". Add one, unique in the golden set.',
        'cases.jsonl:3: a case must be an object, not "{". Write {"id": …, "input": …}.',
        'cases.jsonl:4: case t-3: no "input". Add what the feature gets: an object, or text.',
    ]


@pytest.mark.parametrize("line", ['{"input": "a"}\n', "{\n"])
def test_reading_stops_when_every_line_is_wrong(tmp_path: Path, line: str) -> None:
    found = problems(tmp_path, line * 5000)

    assert len(found) == 201
    assert found[-1] == "cases.jsonl:200: 200 problems up to here, the rest was not looked at."


def test_a_wrong_metric_does_not_make_its_cases_wrong_too(tmp_path: Path) -> None:
    header = metric("{name: label, check: equalz, gate: true}")

    found = problems(tmp_path, [case(must_pass=True)], header)

    assert found == ['golden_set.yaml:5: metrics[0].check is "equalz". Did you mean "equals"?']


def test_line_ends_of_windows_are_no_part_of_a_case(tmp_path: Path) -> None:
    rows = "".join(json.dumps(case(id=f"t-{n}")) + "\n" for n in range(3))

    unix = load(tmp_path, rows)
    windows = load(tmp_path, rows.replace("\n", "\r\n"))

    assert [one.case_hash for one in windows.cases] == [unix.cases.hash_at(n) for n in range(3)]
    assert windows.hash == unix.hash


def test_several_metrics_that_miss_the_same_are_one_problem(tmp_path: Path) -> None:
    header = HEADER.replace("cases:", "  - {name: also, check: equals}\ncases:")

    found = problems(tmp_path, [case(expected=None)], header)

    assert found == [
        (
            'cases.jsonl:1: case t-1: no "expected", but metrics label, also need one. '
            "Add it, or drop them in golden_set.yaml:5, golden_set.yaml:6."
        )
    ]


def test_a_must_pass_case_that_nothing_can_fail_is_a_problem(tmp_path: Path) -> None:
    header = HEADER.replace(", gate: true", "")

    found = problems(tmp_path, [case(must_pass=True)], header)

    assert found == [
        (
            "cases.jsonl:1: case t-1: it must pass, but there is nothing that it has to pass. "
            "Set gate: true on a metric in golden_set.yaml."
        )
    ]


def test_a_case_that_nothing_scores_is_a_problem(tmp_path: Path) -> None:
    header = "name: tickets\nfeature: classify\n"
    own = case(id="t-2", checks=[{"check": "is_json"}])

    found = problems(tmp_path, [CASE, own], header)

    assert found == [
        (
            "cases.jsonl:1: case t-1: nothing would score it. "
            "Add metrics in golden_set.yaml, or checks to the case."
        )
    ]


@quick
@given(
    row=st.fixed_dictionaries(
        {},
        optional={
            "id": st.just("t-1") | json_values,
            "input": objects | json_values,
            "expected": json_values,
            "metadata": objects | json_values,
            "cluster": st.text(max_size=2) | json_values,
            "must_pass": st.booleans() | json_values,
            "checks": st.just([{"check": "is_json"}]) | json_values,
            "odd": st.nothing() | st.just(1),
        },
    )
)
def test_the_pass_over_cases_says_what_the_schema_for_editors_says(
    tmp_path: Path, row: dict[str, Any]
) -> None:
    # The schema cannot say which characters are printable.
    odd_id = isinstance(row.get("id"), str) and not row["id"].isprintable()
    by_schema = not find_faults(row, "case") and not odd_id

    try:
        by_pass = len(load(tmp_path, [row], LENIENT).cases) == 1
    except GoldenSetError:
        by_pass = False

    assert by_pass == by_schema


# --- size ----------------------------------------------------------------------------


def test_twenty_thousand_cases_cost_a_few_megabytes(tmp_path: Path) -> None:
    folder = write(tmp_path, (case(id=f"t-{n:05}", input=f"case {n}") for n in range(20_000)))
    project = config(tmp_path)

    began = time.process_time()
    load_golden_set(folder, settings=project)
    took_s = time.process_time() - began

    tracemalloc.start()
    golden = load_golden_set(folder, settings=project)
    kept_bytes, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(golden.cases) == 20_000
    assert kept_bytes < 5_000_000
    assert peak_bytes < 8_000_000
    # Measured 0.6 s; the margin is for a busy machine.
    assert took_s < 3.0
