"""Golden sets are read strictly: every problem at once, each with its file and line."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import GoldenSetError
from evalkit.schemas import find_faults, load_schema
from evalkit.score import cases
from evalkit.score.checks import CHECKS
from evalkit.score.golden import find_golden_sets, load_golden_set
from evalkit.strict import loads_json
from tests.score.golden_sets import (
    CASE,
    HEADER,
    case,
    config,
    json_values,
    load,
    metric,
    problems,
    quick,
    write,
)

CHECKOUT = Path(__file__).resolve().parents[2]


# --- what a golden set is ------------------------------------------------------------


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


def test_a_slice_may_gate(tmp_path: Path) -> None:
    two = [case(metadata={"channel": "chat", "language": "en"})]
    header = HEADER.replace("[channel]", "[language, {key: channel, gate: true}]")

    golden = load(tmp_path, two, header)

    assert golden.slices == ("language", "channel")
    assert golden.gating_slices == ("channel",)


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


@pytest.mark.parametrize("times_are_trusted", [False, True])
@pytest.mark.parametrize("times_are_set_back", [False, True])
def test_a_case_that_changed_since_it_was_loaded_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    times_are_trusted: bool,
    times_are_set_back: bool,
) -> None:
    if times_are_trusted:
        monkeypatch.setattr(cases, "GRAIN_NS", 0)
    golden = load(tmp_path)
    path = golden.cases.path
    before = path.stat()
    time.sleep(0.05)  # the clock of a file system has its steps
    write(tmp_path, [case(expected={"label": "billing "})])
    if times_are_set_back:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    with pytest.raises(GoldenSetError, match="case t-1: the file has changed since it was loaded"):
        golden.cases[0]


def test_a_file_that_was_only_touched_is_read_on(tmp_path: Path) -> None:
    golden = load(tmp_path)
    golden.cases.path.touch()

    assert golden.cases[0].expected == case()["expected"]


@pytest.mark.parametrize("name", ["tickets", "orders", "help-answers"])
def test_the_checkout_s_own_golden_sets_load(name: str) -> None:
    from evalkit.config import load_settings

    settings = load_settings(CHECKOUT / "evalkit.toml")

    golden = load_golden_set(CHECKOUT / "golden_sets" / name, settings=settings)

    assert golden.name == name
    assert len(golden.cases) > 50
    assert len({one.case_hash for one in golden.cases}) == len(golden.cases)


# --- what can be wrong with a header -------------------------------------------------


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
        HEADER.replace("[channel]", "[channel, {key: channel, gate: true}]"),
        'golden_set.yaml:3: slices: "channel" stands there twice. Keep one.',
    ),
    (
        HEADER.replace("[channel]", "[{key: channel, gates: true}]"),
        'golden_set.yaml:3: unknown key "gates" in slices[0]. Did you mean "gate"?',
    ),
    (
        HEADER.replace("[channel]", "[7]"),
        ("golden_set.yaml:3: slices[0] is 7. "
        "Write a key of metadata, or {key: channel, gate: true}."),
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


def mostly(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """`right`, and now and then any value."""
    return st.integers(0, 9).flatmap(lambda n: right if n else json_values)


right_metrics = st.sampled_from(
    [
        {"name": "a", "check": "equals", "path": "/label", "gate": True},
        {"name": "b", "judge": "helpfulness", "max_drop": 0.1},
        {"name": "c", "check": "json_schema", "schema": {"type": "object"}, "must_pass": True},
    ]
)
odd_metrics = st.fixed_dictionaries(
    {"name": st.just("d")},
    optional={
        "check": st.sampled_from(sorted(CHECKS)),
        "judge": st.just("helpfulness"),
        "value": json_values,
        "max": json_values,
        "gate": json_values,
    },
)


@quick
@given(
    header=st.fixed_dictionaries(
        {"name": st.just("tickets"), "feature": mostly(st.just("classify"))},
        optional={
            "metrics": mostly(
                st.lists(mostly(right_metrics) | odd_metrics, max_size=3, unique_by=json.dumps)
            ),
            "slices": mostly(st.just(["channel"])),
            "must_pass": mostly(st.just(["t-1"]) | st.booleans()),
            "cases": mostly(st.lists(mostly(st.just(CASE)), max_size=1)),
            "trials": mostly(st.integers(1, 9)),
        },
    )
)
def test_any_header_is_a_golden_set_or_a_list_of_problems(
    tmp_path: Path, header: dict[str, Any]
) -> None:
    try:
        golden = load(tmp_path, [CASE], json.dumps(header))
    except GoldenSetError:
        return

    assert len(list(golden.cases)) == len(golden.cases) > 0


# --- the schemas for editors ---------------------------------------------------------


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


# --- finding -------------------------------------------------------------------------


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
    with pytest.raises(GoldenSetError, match=r"add golden_sets/NAME/golden_set.yaml"):
        find_golden_sets([], settings=config(tmp_path))
