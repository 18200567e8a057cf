"""Golden sets are read strictly: every problem at once, each with file, line and case."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalkit.errors import GoldenSetError
from evalkit.schemas import find_faults, load_schema
from evalkit.score.checks import CHECKS
from evalkit.score.golden import GoldenSet, find_golden_sets, load_golden_set
from evalkit.settings import FeatureSettings, Settings
from evalkit.strict import loads_json

HEADER = """\
name: tickets
feature: classify
slices: [channel]
metrics:
  - {name: label, check: equals, path: /label, gate: true}
cases: cases.jsonl
"""
CASE = {
    "id": "t-1",
    "input": {"text": "Where is my parcel?"},
    "expected": {"label": "delivery"},
    "metadata": {"channel": "chat"},
}
CHECKOUT = Path(__file__).resolve().parents[2]


def config(root: Path) -> Settings:
    feature = FeatureSettings(
        name="classify", prompt_name="classify", prompt_version="v1", model="embedded"
    )
    return Settings(root=root, features={"classify": feature})


def write(root: Path, cases: Iterable[Any] | str | bytes, header: str = HEADER) -> Path:
    """A golden set in `root`; cases as values, or as the text or bytes of the whole file."""
    folder = root / "golden_sets" / "tickets"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "golden_set.yaml").write_text(header, encoding="utf-8")
    if not isinstance(cases, (str, bytes)):
        cases = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in cases)
    data = cases.encode() if isinstance(cases, str) else cases
    (folder / "cases.jsonl").write_bytes(data)
    return folder


def load(
    root: Path, cases: Iterable[Any] | str | bytes = (CASE,), header: str = HEADER
) -> GoldenSet:
    return load_golden_set(write(root, cases, header), settings=config(root))


def problems(
    root: Path, cases: Iterable[Any] | str | bytes = (CASE,), header: str = HEADER
) -> list[str]:
    """What is wrong, without the folder that every line starts with."""
    with pytest.raises(GoldenSetError) as caught:
        load(root, cases, header)
    lines = caught.value.problems
    assert all(line.startswith("golden_sets/tickets/") for line in lines)
    return [line.removeprefix("golden_sets/tickets/") for line in lines]


def case(**changes: Any) -> dict[str, Any]:
    """CASE with changes; None takes a key out."""
    return {key: value for key, value in (CASE | changes).items() if value is not None}


# --- what a golden set is ----------------------------------------------------------


def test_a_golden_set_has_its_header_and_its_cases(tmp_path: Path) -> None:
    header = HEADER + "description: Customer messages.\ntrials: 3\n"
    bare = {"id": "t-2", "input": "hello", "expected": {"label": "other"}, "must_pass": True}

    golden = load(tmp_path, [case(cluster="mail-1"), bare], header)

    first, second = golden.cases
    assert (golden.name, golden.feature, golden.trials) == ("tickets", "classify", 3)
    assert golden.path == tmp_path / "golden_sets/tickets/golden_set.yaml"
    assert golden.slices == ("channel",)
    assert golden.must_pass == ("t-2",)
    assert [(m.name, m.tier, m.kind, m.gate, m.line) for m in golden.metrics] == [
        ("label", 1, "equals", True, 5)
    ]
    assert golden.metrics[0].check_spec() == {"check": "equals", "path": "/label"}
    assert (first.id, first.line, first.cluster, first.must_pass) == ("t-1", 1, "mail-1", False)
    assert (second.input, second.metadata, second.must_pass) == ({"text": "hello"}, {}, True)


def test_cases_are_found_by_number_and_by_id(tmp_path: Path) -> None:
    golden = load(tmp_path, "\n" + json.dumps(CASE) + "\n\n" + json.dumps(case(id="t-2")) + "\n")

    cases = golden.cases
    assert (len(cases), cases.ids) == (2, ["t-1", "t-2"])
    assert [one.id for one in cases] == ["t-1", "t-2"]
    assert cases[-1] == cases[1]
    assert (cases.line_of("t-1"), cases.line_of("t-2")) == (2, 4)
    assert cases.hash_at(1) == cases.hash_of("t-2") == cases[1].case_hash
    with pytest.raises(IndexError):
        cases[2]


def test_inline_cases_are_the_same_cases_as_those_of_a_file(tmp_path: Path) -> None:
    inline = HEADER.replace("cases: cases.jsonl\n", "cases:\n") + (
        "  - id: t-1\n"
        "    input: {text: 'Where is my parcel?'}\n"
        "    expected: {label: delivery}\n"
        "    metadata: {channel: chat}\n"
        "  - {id: t-2, input: hi, expected: {label: other}}\n"
    )
    rows = [CASE, {"id": "t-2", "input": "hi", "expected": {"label": "other"}}]

    from_yaml = load(tmp_path, "", inline)
    from_file = load(tmp_path, rows)

    assert from_yaml.cases.ids == from_file.cases.ids
    assert [c.case_hash for c in from_yaml.cases] == [c.case_hash for c in from_file.cases]
    assert [c.input for c in from_yaml.cases] == [c.input for c in from_file.cases]
    assert from_yaml.cases.path.name == "golden_set.yaml"
    assert from_yaml.cases.line_of("t-2") == 11


def test_an_expected_null_is_not_a_missing_expected(tmp_path: Path) -> None:
    header = HEADER.replace("check: equals, path: /label", "check: words, max: 9")

    with_null, without = load(
        tmp_path, [{**CASE, "expected": None}, case(id="t-2", expected=None)], header
    ).cases

    assert (with_null.has_expected, without.has_expected) == (True, False)
    assert with_null.case_hash != without.case_hash


def test_must_pass_in_the_header_names_cases_or_means_all(tmp_path: Path) -> None:
    rows = [CASE, case(id="t-2"), case(id="t-3", must_pass=True)]

    named = load(tmp_path, rows, HEADER + "must_pass: [t-1]\n")
    every = load(tmp_path, rows, HEADER + "must_pass: true\n")

    assert named.must_pass == ("t-1", "t-3")
    assert every.must_pass == ("t-1", "t-2", "t-3")


def test_own_checks_are_metrics_with_names_of_their_own(tmp_path: Path) -> None:
    checks = [
        {"check": "contains", "value": "a"},
        {"check": "contains", "value": "b"},
        {"check": "words", "max": 5, "name": "brief", "must_pass": True},
        {"check": "equals", "value": 1},
    ]
    header = HEADER.replace("name: label", "name: equals")

    golden = load(
        tmp_path, [case(checks=checks), case(id="t-2", checks=checks, must_pass=True)], header
    )

    own = golden.case_metrics(golden.cases[0])
    assert [(m.name, m.kind, m.must_pass) for m in own] == [
        ("contains", "contains", False),
        ("contains_2", "contains", False),
        ("brief", "words", True),
        ("equals_2", "equals", False),
    ]
    assert own[0].check_spec() == checks[0]
    assert all(m.must_pass for m in golden.case_metrics(golden.cases[1]))


def test_a_case_that_changed_since_it_was_loaded_is_refused(tmp_path: Path) -> None:
    golden = load(tmp_path)
    write(tmp_path, [case(expected={"label": "billing "})])

    with pytest.raises(GoldenSetError, match="case t-1: the file has changed since it was loaded"):
        golden.cases[0]


@pytest.mark.parametrize("name", ["tickets", "orders", "help-answers"])
def test_the_checkout_s_own_golden_sets_load(name: str) -> None:
    from evalkit.config import load_settings

    settings = load_settings(CHECKOUT / "evalkit.toml")

    golden = load_golden_set(CHECKOUT / "golden_sets" / name, settings=settings)

    assert golden.name == name
    assert len(golden.cases) > 50
    assert len({one.case_hash for one in golden.cases}) == len(golden.cases)


# --- what can be wrong with a case -------------------------------------------------


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


def test_reading_stops_when_every_line_is_wrong(tmp_path: Path) -> None:
    found = problems(tmp_path, [{"input": "a"}] * 5000)

    assert len(found) == 201
    assert found[-1] == ("cases.jsonl:200: 200 problems up to here, the rest was not looked at.")


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


# --- what can be wrong with a header -----------------------------------------------


def metric(text: str) -> str:
    """HEADER with its metric replaced; the metric stands on line 5."""
    return HEADER.replace("{name: label, check: equals, path: /label, gate: true}", text)


BAD_HEADERS = [
    (
        metric("{name: label, check: equalz}"),
        'golden_set.yaml:5: metrics[0].check is "equalz". Did you mean "equals"?',
    ),
    (
        metric("{name: label, check: is-json}"),
        'golden_set.yaml:5: metrics[0].check is "is-json". Did you mean "is_json"?',
    ),
    (
        metric("{name: label, check: equals, pth: /label}"),
        'golden_set.yaml:5: metric label: check equals does not know "pth". Did you mean "path"?',
    ),
    (
        metric("{name: label, check: equals, tolerence: 0.1}"),
        ('golden_set.yaml:5: metric label: check equals does not know "tolerence". '
        'Did you mean "tolerance"?'),
    ),
    (
        metric("{name: label, check: equals, path: 3}"),
        ("golden_set.yaml:5: metric label: check equals: path is 3. "
        'It must be a JSON pointer such as /label, or "".'),
    ),
    (
        metric("{name: label, check: equals, gate: yes}"),
        ('golden_set.yaml:5: metrics[0].gate must be true or false, not "yes". '
        "Write it without quotes."),
    ),
    (
        metric("{name: label, check: equals, max_drop: 5}"),
        "golden_set.yaml:5: metrics[0].max_drop is 5. It must be at most 1.",
    ),
    (
        metric("{name: label, check: words}"),
        "golden_set.yaml:5: metric label: check words: min or max is missing.",
    ),
    (
        metric("{name: shape, check: json_schema, schema: label.json}"),
        ('golden_set.yaml:5: metric shape: check json_schema: there is no file "label.json" '
        "beside golden_set.yaml. Add it."),
    ),
    (
        metric("{name: label}"),
        ("golden_set.yaml:5: metrics[0] must have one of the keys that exclude each other. "
        "Give each metric either check or judge."),
    ),
    (
        metric("{name: good, judge: helpfullness}"),
        ('golden_set.yaml:5: metric good: there is no judge "helpfullness". '
        'Did you mean "helpfulness"?'),
    ),
    (
        metric("{name: good, judge: helpfulness, path: /label}"),
        ('golden_set.yaml:5: metric good: "path" belongs to a check. '
        "Leave it out; a judge's settings stand in judges/helpfulness.yaml."),
    ),
    (
        HEADER.replace("cases: ", "  - {name: label, check: is_json}\ncases: "),
        'golden_set.yaml:6: metric "label" stands on line 5 already. Give it another name.',
    ),
    (
        HEADER.replace("slices: [channel]", "slices: [chanel]"),
        'golden_set.yaml:3: slices: no case has "chanel" in its metadata. Did you mean "channel"?',
    ),
    (
        HEADER + "must_pass: [t-11]\n",
        'golden_set.yaml:7: must_pass: there is no case "t-11". Did you mean "t-1"?',
    ),
    (
        HEADER.replace("cases.jsonl", "case.jsonl"),
        'golden_set.yaml:6: cases: there is no file "case.jsonl". Did you mean "cases.jsonl"?',
    ),
    (
        HEADER.replace("cases.jsonl", "../../../../secret"),
        ('golden_set.yaml:6: cases: "../../../../secret" leads out of the project. '
        "Put the file beside golden_set.yaml."),
    ),
    (
        HEADER.replace("slices:", "slice:"),
        'golden_set.yaml:3: unknown key "slice". Did you mean "slices"?',
    ),
    (
        HEADER.replace("name: tickets", "name: tickets\nname: orders"),
        'golden_set.yaml:2: key "name" stands on line 1 already. Keep one.',
    ),
    (
        HEADER.replace("slices: [channel]", "slices: &all [channel]"),
        "golden_set.yaml:3: anchor &all is not allowed. Write the value out.",
    ),
    (
        HEADER.replace("slices: [channel]", "slices: *all"),
        "golden_set.yaml:3: alias *all is not allowed. Write the value out.",
    ),
    ("", ("golden_set.yaml:1: the document must be a table of keys and values, not null. "
     "Write a table of keys and values.")),
    (
        "feature: classify\n",
        'golden_set.yaml:1: no "name". Add name: name of the golden set.',
    ),
]  # fmt: skip


@pytest.mark.parametrize(("header", "problem"), BAD_HEADERS, ids=[p[:70] for _, p in BAD_HEADERS])
def test_a_wrong_header_is_named_with_what_would_be_right(
    tmp_path: Path, header: str, problem: str
) -> None:
    assert problem in problems(tmp_path, header=header)


def test_a_missing_header_is_an_error_not_a_traceback(tmp_path: Path) -> None:
    with pytest.raises(GoldenSetError, match=r"^no/golden_set.yaml:1: cannot be read: No such"):
        load_golden_set(tmp_path / "no" / "golden_set.yaml", settings=config(tmp_path))


def test_a_judge_that_needs_a_reference_needs_it_in_every_case(tmp_path: Path) -> None:
    header = metric("{name: right, judge: correctness}")

    found = problems(tmp_path, [case(expected=None)], header)

    assert found == [
        (
            'cases.jsonl:1: case t-1: no "expected", but metric right needs one. '
            "Add it, or drop right in golden_set.yaml:5."
        )
    ]


# --- identity ----------------------------------------------------------------------


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


characters = st.characters(exclude_categories=("Cs",))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(characters, max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=("Cs",)), max_size=4), inner, max_size=3
        )
    ),
    max_leaves=8,
)
objects = st.dictionaries(st.text("abc/~é\u2028", max_size=4), json_values, max_size=3)
cases = st.fixed_dictionaries(
    {"id": st.just("t-1"), "input": objects | st.text(max_size=8)},
    optional={"expected": json_values, "metadata": objects, "cluster": st.just("one")},
)
LENIENT = "name: tickets\nfeature: classify\nmetrics: [{name: json, check: is_json, gate: true}]\n"
quick = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


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


@quick
@given(
    row=st.dictionaries(
        st.sampled_from(["id", "input", "expected", "metadata", "cluster", "must_pass", "x"]),
        json_values | st.just("t-1"),
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


# --- the schemas for editors -------------------------------------------------------


@pytest.mark.parametrize("name", ["metric", "own_check"])
def test_the_schema_for_editors_knows_every_check_and_parameter(name: str) -> None:
    definition = load_schema("golden_set")["$defs"][name]
    params = {"negate", *(param for kind in CHECKS.values() for param in kind.params)}

    assert definition["properties"]["check"]["enum"] == list(CHECKS)
    assert params <= definition["properties"].keys()


def test_a_case_is_the_same_in_both_schemas() -> None:
    golden, alone = load_schema("golden_set"), load_schema("case")

    assert golden["$defs"]["case"]["properties"] == alone["properties"]
    assert golden["$defs"]["own_check"] == alone["$defs"]["own_check"]


@pytest.mark.parametrize("name", ["tickets", "orders", "help-answers"])
def test_the_checkout_s_own_golden_sets_follow_the_schemas(name: str) -> None:
    from evalkit.strict import load_yaml

    folder = CHECKOUT / "golden_sets" / name
    header = load_yaml((folder / "golden_set.yaml").read_text(encoding="utf-8"), where="").value
    rows = (folder / "cases.jsonl").read_text(encoding="utf-8").splitlines()

    assert find_faults(header, "golden_set") == []
    assert [find_faults(loads_json(row, where=""), "case") for row in rows[:30]] == [[]] * 30


# --- finding -----------------------------------------------------------------------


def test_golden_sets_are_found_by_folder_file_and_name(tmp_path: Path) -> None:
    folder = write(tmp_path, [CASE])
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "golden_set.yaml").write_text(HEADER)
    project = config(tmp_path)
    asked = [(), (folder,), (folder / "golden_set.yaml",), (tmp_path,), (Path("tickets"), folder)]

    found = [find_golden_sets(paths, settings=project) for paths in asked]

    assert found == [[folder / "golden_set.yaml"]] * 5


def test_a_path_without_a_golden_set_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path, [CASE])

    with pytest.raises(GoldenSetError) as caught:
        find_golden_sets([Path("ticket"), Path("nowhere")], settings=config(tmp_path))

    assert caught.value.problems == (
        'ticket: there is no golden_set.yaml. Did you mean "tickets"?',
        "nowhere: there is no golden_set.yaml. Known: tickets.",
    )


def test_a_project_without_golden_sets_is_told_where_to_add_one(tmp_path: Path) -> None:
    with pytest.raises(GoldenSetError, match=r"Add golden_sets/NAME/golden_set.yaml"):
        find_golden_sets([], settings=config(tmp_path))


# --- size --------------------------------------------------------------------------


def test_twenty_thousand_cases_cost_a_few_megabytes(tmp_path: Path) -> None:
    folder = write(tmp_path, (case(id=f"t-{n:05}", input=f"case {n}") for n in range(20_000)))
    project = config(tmp_path)
    load_golden_set(folder, settings=project)
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
