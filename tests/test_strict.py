"""Foreign text: read alike by everybody and within bounds, or refused with its line."""

from __future__ import annotations

import json
import math
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.strict import (
    MAX_DEPTH,
    MAX_INT_DIGITS,
    MAX_LINE_BYTES,
    MAX_YAML_NODES,
    StrictError,
    iter_jsonl,
    load_toml,
    load_yaml,
    loads_json,
    parse_line,
    read_text,
)

Read = Callable[[], object]


def refusal(read: Read) -> str:
    """`line:column: message` of the one error that `read` raises."""
    with pytest.raises(StrictError) as caught:
        read()
    return f"{caught.value.line}:{caught.value.column}: {caught.value.message}"


# --- JSON ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": NaN}', "1:7: NaN is not JSON. Use null, or leave it out"),
        ('{"NaN": "NaN",\n "b": NaN}', "2:7: NaN is not JSON. Use null, or leave it out"),
        ("[1,\n -Infinity]", "2:2: -Infinity is not JSON. Use null, or leave it out"),
        ("1e999", "1:1: 1e999 is too large for a number"),
        ("[-1e999]", "1:2: -1e999 is too large for a number"),
        ("1" * 400, "1:1: a whole number of 400 digits is too large"),
        ('{"a": 1,\n "a": 2}', '2:2: key "a" stands twice. Keep one'),
        ('{"a": 1, "\\u0061": 2}', '1:10: key "a" stands twice. Keep one'),
        ('{"x": {"a": 1}, "y": {"a": 2, "a": 3}}', '1:31: key "a" stands twice. Keep one'),
        (
            '{"a": "\\udc00x"}',
            "1:7: half of a surrogate pair (\\ud800 to \\udfff) is not a character",
        ),
        ('"\ud800"', "1:2: half of a surrogate pair is not a character"),
        ("[1,]", "1:4: not valid JSON: expecting value"),
        ('{"a": 1} x', "1:10: not valid JSON: extra data"),
        ("", "1:1: not valid JSON: expecting value"),
        ("[" * (MAX_DEPTH + 1), "1:65: nested deeper than 64 levels"),
    ],
)
def test_json_that_readers_read_differently_is_refused(text: str, expected: str) -> None:
    assert refusal(lambda: loads_json(text, where="x")) == expected


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_deep_json_is_refused_quickly(opening: str) -> None:
    started = time.process_time()

    message = refusal(lambda: loads_json(opening * 1_000_000, where="x"))

    assert message.endswith("nested deeper than 64 levels")
    assert time.process_time() - started < 5


def test_brackets_in_text_are_no_depth() -> None:
    text = json.dumps(["[" * 500, {"{" * 500: 1}])

    assert loads_json(text, where="x") == ["[" * 500, {"{" * 500: 1}]


def test_the_message_says_where() -> None:
    with pytest.raises(StrictError, match=r"^not valid JSON: .* \(cases.jsonl, line 1 column 1\)$"):
        loads_json("nul", where="cases.jsonl")


NUMBERS = st.one_of(
    st.integers(-(10 ** (MAX_INT_DIGITS - 1)), 10 ** (MAX_INT_DIGITS - 1)),
    st.floats(allow_nan=False, allow_infinity=False),
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(TEXTS, inner)),
    max_leaves=40,
)


@settings(deadline=None)
@given(VALUES, st.booleans(), st.sampled_from([None, 1, "\t"]))
def test_valid_json_is_read_as_everybody_reads_it(value: Any, ascii: bool, indent: Any) -> None:
    text = json.dumps(value, ensure_ascii=ascii, indent=indent)

    assert loads_json(text, where="x") == json.loads(text)


@settings(deadline=None)
@given(st.text(st.sampled_from('{}[]",:.\\u0019eE+-dDnulltrueNaI \n\ud800é')))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        value = loads_json(text, where="x")
        line = 1
    except StrictError as error:
        value, line = None, error.line

    assert 1 <= line <= text.count("\n") + 1
    if value is not None:
        assert value == json.loads(text)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


# --- JSON Lines --------------------------------------------------------------------


def test_lines_come_with_number_and_offset(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_bytes('{"id": "ä"}\n\n{"id": 2}\r\n[3]'.encode())

    lines = list(iter_jsonl(path))

    assert lines == [(1, 0, {"id": "ä"}), (3, 14, {"id": 2}), (4, 25, [3])]
    data = path.read_bytes()
    for number, offset, value in lines:
        assert parse_line(data[offset:].split(b"\n")[0], line=number, offset=offset) == value


def test_one_pass_finds_every_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": NaN}\n{"a": 2}\n\xff\n{"a"\n{"a": 3}\n')
    errors: list[StrictError] = []

    values = [value for _, _, value in iter_jsonl(path, on_error=errors.append)]

    assert values == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert [f"{error.line}: {error.message}" for error in errors] == [
        "2: NaN is not JSON. Use null, or leave it out",
        "4: byte 0xff at offset 29 is not UTF-8. Save the file as UTF-8",
        "5: not valid JSON: expecting ':' delimiter",
    ]


def test_a_line_of_100_mb_costs_neither_time_nor_memory(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    with path.open("wb") as file:
        file.write(b'{"a": 1}\n{"a": "')
        for _ in range(99):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n{"a": 2}\n')
    errors: list[StrictError] = []
    tracemalloc.start()
    started = time.process_time()

    values = [value for _, _, value in iter_jsonl(path, on_error=errors.append)]

    seconds, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert values == [{"a": 1}, {"a": 2}]
    assert [f"{e.line}: {e.message}" for e in errors] == ["2: a line is longer than 1 MB"]
    assert peak < 6 * MAX_LINE_BYTES
    assert seconds < 5


def test_a_file_beyond_its_bound_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    with path.open("wb") as file:
        file.truncate(100_000_001)

    assert refusal(lambda: next(iter_jsonl(path))) == (
        "1:1: the file is larger than 100 MB. Split it"
    )


# --- text --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            b"\xef\xbb\xbf{}",
            "1:1: the file starts with a byte order mark. Save it as UTF-8 without BOM",
        ),
        ("{}".encode("utf-16"), "1:1: the file is UTF-16. Save it as UTF-8 without BOM"),
        (
            b"a\nGr\xfc\xdfe",
            "2:3: byte 0xfc at offset 4 is not UTF-8. Save the file as UTF-8",
        ),
        (
            b"\xed\xa0\x80",
            "1:1: byte 0xed at offset 0 is not UTF-8. Save the file as UTF-8",
        ),
        (b"x" * 101, "1:1: the file is larger than 0.0001 MB. Split it"),
    ],
)
def test_text_that_is_not_plain_utf8_is_refused(tmp_path: Path, data: bytes, expected: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(data)

    assert refusal(lambda: read_text(path, max_bytes=100)) == expected


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert refusal(lambda: read_text(tmp_path, max_bytes=1)) == "1:1: not a regular file"
    assert refusal(lambda: read_text(tmp_path / "no", max_bytes=1)) == (
        "1:1: cannot be read: No such file or directory"
    )


# --- YAML --------------------------------------------------------------------------

BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("b: 1\na: &x 1", "2:4: anchor &x is not allowed. Write the value out"),
        ("a: *x", "1:4: alias *x is not allowed. Write the value out"),
        (BOMB, "1:4: anchor &a is not allowed. Write the value out"),
        ("a: !x 1", "1:4: tag !x is not allowed. Remove it"),
        (
            'a: !!python/object/apply:os.system ["x"]',
            "1:4: tag tag:yaml.org,2002:python/object/apply:os.system is not allowed. Remove it",
        ),
        ("<<: {a: 1}", "1:1: merge key << is not allowed. Write the keys out"),
        ("a: 1\nb: 2\na: 3", '3:1: key "a" stands on line 1 already. Keep one'),
        ("a: .nan", "1:4: .nan cannot be compared. Use null, or quote it as text"),
        ("a: -.inf", "1:4: -.inf cannot be compared. Use null, or quote it as text"),
        ("a: 1e999", "1:4: 1e999 is too large for a number"),
        ("1: x", '1:1: key 1 is read as a number. Quote it: "1"'),
        ("true: x", '1:1: key true is read as true or false. Quote it: "true"'),
        ("a: 1\n---\nb: 2", "2:1: a second document begins here. Keep one per file"),
        ("[" * 100, "1:66: nested deeper than 64 levels"),
        ("a: b: c", "1:5: not valid YAML: mapping values are not allowed in this context"),
        ("a: \x07", "1:4: character U+0007 is not allowed in YAML. Remove it"),
    ],
    ids=lambda value: value[:30],
)
def test_yaml_beyond_plain_data_is_refused(text: str, expected: str) -> None:
    assert refusal(lambda: load_yaml(text, where="x")) == expected


def test_yaml_is_bounded_in_size_and_in_values() -> None:
    many = "[" + "0," * (MAX_YAML_NODES + 1) + "]"

    assert refusal(lambda: load_yaml("a" * 4_000_001, where="x")) == "1:1: larger than 4 MB"
    assert refusal(lambda: load_yaml(many, where="x")).endswith(
        "more than 200,000 values. Move cases to cases.jsonl"
    )


def test_yaml_means_what_it_says() -> None:
    text = "a: no\nb: 22:10\nc: 2020-01-01\nd: 1_000\ne: 0x1f\nf: ~\ng: true\nh: 1e3\ni: '5'\n"

    value = load_yaml(text, where="x").value

    assert value == {
        "a": "no", "b": "22:10", "c": "2020-01-01", "d": "1_000", "e": 31, "f": None,
        "g": True, "h": 1000.0, "i": "5",
    }  # fmt: skip


def test_yaml_values_know_their_lines() -> None:
    located = load_yaml("name: x\nmetrics:\n  - name: a\n    check: b\n  - name: c\n", where="x")

    assert located.line(("metrics", 1, "name")) == 5
    assert located.line(("metrics", 0, "check")) == 4
    assert located.line(("metrics", 0, "unknown", "deeper")) == 3
    assert located.line(("unknown",)) == 1


KEYS = st.text(st.characters(codec="ascii", categories=["L"]), min_size=1).map("k{}".format)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-(10**18), 10**18), st.text("abc :#-'\"\n"))


@settings(deadline=None)
@given(st.recursive(PLAIN, lambda v: st.one_of(st.lists(v), st.dictionaries(KEYS, v))))
def test_json_is_yaml_of_the_same_value(value: Any) -> None:
    assert load_yaml(json.dumps(value), where="x").value == value


# --- TOML --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = nan", "1:1: a is not a finite number"),
        ("[x]\na = [1,\n inf]", "2:1: x.a.1 is not a finite number"),
        ("a = 1\na = 2", "2:1: not valid TOML: cannot overwrite a value"),
        ("[a]\n[b]\n[a]", "3:3: not valid TOML: cannot declare ('a',) twice"),
        ('a = "x', "1:1: not valid TOML: unterminated string"),
        ("a = " + "[" * 5000 + "]" * 5000, "1:1: nested too deeply"),
        ("a" * 1_000_001, "1:1: larger than 1 MB"),
    ],
    ids=lambda value: value[:30],
)
def test_toml_that_cannot_be_used_is_refused(text: str, expected: str) -> None:
    assert refusal(lambda: load_toml(text, where="x")) == expected


def test_toml_values_know_their_lines() -> None:
    text = (
        '# a "comment"\nstore = """\n[not.a.table]\n"""\n\n[models.small]\nid = "x"\n'
        "price = { input = 1.0, output = 2 }\n"
        '[[list]]\na = 1\n[[list]]\na = 2\n"dotted.key".b = 3\n'
    )

    located = load_toml(text, where="x")

    assert located.line(("store",)) == 2
    assert located.line(("models", "small", "id")) == 7
    assert located.line(("models", "small", "price", "output")) == 8
    assert located.line(("list", 1, "a")) == 12
    assert located.line(("list", 1, "dotted.key", "b")) == 13


# --- real hostile files --------------------------------------------------------------


def test_hostile_json_files_are_read_or_refused(shared_data: Callable[[str], Path]) -> None:
    """JSONTestSuite: y_ must be read, n_ must be refused, i_ is up to the reader."""
    files = sorted(shared_data("hostile/json").rglob("*.json"))
    assert files

    for path in files:
        try:
            value = loads_json(read_text(path, max_bytes=1_000_000), where=path.name)
        except StrictError:
            assert not path.name.startswith("y_") or "duplicate" in path.name, path.name
        else:
            assert not path.name.startswith("n_"), path.name
            assert not isinstance(value, float) or math.isfinite(value)
