"""Tier 1: every kind of check, on answers as they should be and as they should not."""

from __future__ import annotations

import json
import math
import textwrap
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.records import Mark, ToolCall
from evalkit.score.checks import (
    CHECK_PARAMS,
    CHECKS,
    CheckSpecError,
    check_version,
    compile_check,
    needs_expected,
)
from tests.score.answers import RECORD, make_answer

HERE = Path(__file__).parent


def score(spec: Mapping[str, Any], output: str, **answer: Any) -> Mark:
    return compile_check(spec, base=HERE)(make_answer(output, **answer))


def passes(spec: Mapping[str, Any], output: str, **answer: Any) -> bool:
    mark = score(spec, output, **answer)
    assert mark.outcome == "scored", mark
    assert mark.passed is not None
    return mark.passed


# --- what the answer says -----------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "output", "expected", "passed"),
    [
        ({"check": "equals"}, "billing", "billing", True),
        ({"check": "equals"}, "Billing", "billing", False),
        ({"check": "equals", "case_sensitive": False}, "STRASSE", "straße", True),
        ({"check": "equals"}, "billing\n", "billing", False),
        ({"check": "equals", "normalise": True}, " billing\u00a0 now\n", "billing now", True),
        ({"check": "equals", "normalise": ["punctuation", "articles", "whitespace"]},
         "The answer, is: 42!", "answer is 42", True),
        ({"check": "equals", "value": "x"}, "x", "ignored", True),
        ({"check": "equals"}, '{"b": [1.0], "a": null}', {"a": None, "b": [1]}, True),
        ({"check": "equals"}, "1", True, False),
        ({"check": "equals"}, "true", 1, False),
        ({"check": "equals"}, "[1, 2]", [2, 1], False),
        ({"check": "equals", "unordered": True}, '[1, {"a": [2, 3]}]', [{"a": [3, 2]}, 1], True),
        ({"check": "equals", "unordered": True}, "[1, 1, 2]", [1, 2, 2], False),
        ({"check": "equals", "path": "/label"}, '{"label": "a"}', {"label": "a", "x": 1}, True),
        ({"check": "equals", "path": "/label"}, '{"label": "a"}', "a", True),
        ({"check": "equals", "path": "/label"}, '{"label": "b"}', "a", False),
        ({"check": "equals", "path": "/tags"}, '{"tags": ["x"]}', ["x"], True),
        ({"check": "equals", "path": "/a~1b/m~0n/0"}, '{"a/b": {"m~n": [7]}}', 7, True),
        ({"check": "equals", "path": "/x", "expected_path": "/want"},
         '{"x": 3}', {"want": 3}, True),
        ({"check": "one_of"}, "b", ["a", "b"], True),
        ({"check": "one_of", "path": "/n", "values": [1, 2]}, '{"n": 2}', None, True),
        ({"check": "one_of", "values": ["a"]}, "b", None, False),
        ({"check": "one_of", "values": [1, 2]}, "1", None, True),
        ({"check": "one_of", "values": [1, 2]}, "3", None, False),
        ({"check": "one_of", "values": [1, 2]}, "one", None, False),
        ({"check": "one_of", "values": [1, "one"]}, "1.0", None, True),
        ({"check": "one_of", "values": [1, "one"]}, "one", None, True),
        ({"check": "one_of", "values": [1, "one"], "negate": True}, "two", None, True),
        ({"check": "contains"}, "A full refund.", "refund", True),
        ({"check": "contains"}, "A full Refund.", "refund", False),
        ({"check": "icontains"}, "A full Refund.", "refund", True),
        ({"check": "contains_any", "values": ["x", "full"]}, "A full refund.", None, True),
        ({"check": "contains_any"}, "A full refund.", ["x", "y"], False),
        ({"check": "contains_all", "values": ["A", "full"]}, "A full refund.", None, True),
        ({"check": "contains_all", "values": ["A", "none"]}, "A full refund.", None, False),
        ({"check": "icontains_any", "values": ["FULL"]}, "A full refund.", None, True),
        ({"check": "icontains_all", "values": ["FULL", "a "]}, "A full refund.", None, True),
        ({"check": "starts_with", "value": "A f"}, "A full refund.", None, True),
        ({"check": "ends_with", "value": "refund"}, "A full refund.", None, False),
        ({"check": "regex", "pattern": r"\bref\w+\b"}, "A full refund.", None, True),
        ({"check": "regex", "pattern": "refund", "full": True}, "A full refund.", None, False),
        ({"check": "regex", "pattern": "REFUND", "case_sensitive": False}, "refund", None, True),
        ({"check": "regex", "pattern": r"\b\d{16}\b", "negate": True}, "none", None, True),
        ({"check": "regex", "pattern": "^é.$"}, "é\ud800", None, True),
    ],
)  # fmt: skip
def test_text_check_tells_right_from_wrong(
    spec: dict[str, Any], output: str, expected: Any, passed: bool
) -> None:
    assert passes(spec, output, expected=expected) is passed


@pytest.mark.parametrize(
    ("spec", "output", "passed"),
    [
        ({"value": 12}, "12", True),
        ({"value": 12}, " 1,200e-2 ", True),
        ({"value": 1234567}, "1,234,567", True),
        ({"value": 12, "abs_tol": 0.5}, "12.5", True),
        ({"value": 12, "abs_tol": 0.5}, "12.6", False),
        ({"value": 200, "rel_tol": 0.01}, "201.9", True),
        ({"value": 12}, "about 12 apples", False),
        ({"value": 12, "extract": "first"}, "12 of 13", True),
        ({"value": 13, "extract": "last"}, "12 of 13 apples", True),
        ({"value": -3, "extract": "last"}, "x = -3", True),
        ({"value": 12, "extract": "last"}, "no idea", False),
        ({"value": 12, "path": "/n"}, '{"n": 12.0}', True),
        ({"value": 1, "path": "/n"}, '{"n": true}', False),
        ({"value": 1}, "NaN", False),
        ({"value": 1}, "1e9999", False),
        ({"value": 1}, "9" * 5000, False),
        ({"value": 0.5}, ".5", True),
        ({"value": 5}, "5.", True),
        ({"value": -5}, "\u22125", True),
        ({"value": 0.5, "extract": "first"}, "total: .5", True),
        ({"value": -0.5, "extract": "last"}, "x = -.5", True),
        ({"value": 5, "extract": "first"}, "No.5", True),
        ({"value": 5, "extract": "first"}, "so ...5", True),
        ({"value": 5, "extract": "last"}, "between 3-5", True),
        ({"value": 17, "extract": "last"}, "2024-05-17", True),
        ({"value": -5, "extract": "last"}, "between 3 and -5", True),
        ({"value": 4, "extract": "last"}, "GPT-4", True),
        ({"value": 1, "extract": "first"}, "1,2345", True),
        ({"value": 2345, "extract": "last"}, "1,2345", True),
        ({"value": 1, "extract": "first"}, "1e99999", False),
        ({"value": 12345, "extract": "first"}, "x" * 99_998 + "12345", True),
        ({"value": 345, "extract": "last"}, "12345" + "x" * 99_997, False),
    ],
)
def test_number_reads_numbers_and_nothing_else(
    spec: dict[str, Any], output: str, passed: bool
) -> None:
    assert passes({"check": "number", **spec}, output) is passed


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Your parcel will arrive on Monday, and we will tell you.", "en"),
        ("Ich kann die Antwort in den Unterlagen nicht finden.", "de"),
        ("Je ne trouve pas la réponse dans les documents.", "fr"),
        ("No encuentro la respuesta en los documentos.", "es"),
        ("Non trovo la risposta perché non è nei documenti.", "it"),
        ("Não encontro a resposta, mas posso ajudar com isso.", "pt"),
        ("Ik kan het antwoord niet in de documenten vinden.", "nl"),
        ("Nie mogę znaleźć odpowiedzi w dokumentach.", "pl"),
        ("Jag kan inte hitta svaret i dokumenten.", "sv"),
        ("Ваша посылка прибудет в понедельник.", "ru"),
        ("荷物は月曜日に届きます。", "ja"),
        ("您的包裹将于星期一到达。", "zh"),
    ],
)
def test_language_of_a_sentence_is_told(text: str, code: str) -> None:
    other = "en" if code != "en" else "de"

    assert passes({"check": "language", "value": code}, text)
    assert passes({"check": "language", "values": [other, f"{code}-XX"]}, text)
    assert not passes({"check": "language", "value": other}, text)


def test_language_of_too_little_text_is_not_known() -> None:
    mark = score({"check": "language", "value": "de"}, "OK")

    assert (mark.outcome, mark.error_kind, mark.score) == ("check_error", "undetermined", None)


@pytest.mark.parametrize(
    ("output", "refuses"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I’m not able to provide that information.", True),
        ("As an AI language model, I cannot do so.", True),
        ("Dabei kann ich Ihnen leider nicht helfen.", True),
        ("Leider kann ich dabei nicht helfen. Ich darf Ihnen das nicht beantworten.", True),
        ("Lo siento, pero no puedo ayudarte con eso.", True),
        ("I cannot find the answer in the documents.", False),
        ("Your parcel arrives on Monday.", False),
        ("", False),
    ],
)  # fmt: skip
def test_refusal_is_told_from_an_answer(output: str, refuses: bool) -> None:
    assert passes({"check": "is_refusal"}, output) is refuses


def test_answer_that_the_provider_filtered_is_a_refusal() -> None:
    assert passes({"check": "is_refusal"}, "…", finish_reason="content_filter")


# --- personal data --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "write to Jo.Doe+x@mail.example.org, please"),
        ("phone", "call +49 (0)30 1234567 now"),
        ("phone", "call (212) 555-0100."),
        ("card", "card 4111 1111 1111 1111"),
        ("card", "card 378282246310005,"),
        ("iban", "to DE89 3704 0044 0532 0130 00 by Monday"),
        ("iban", "GB82WEST12345698765432"),
        ("ip", "from 192.168.17.43 today"),
        ("ip", "from 2001:db8::8a2e:370:7334"),
        ("ssn", "078-05-1120"),
        ("key", "key sk-proj-abcdefghijklmnop1234"),
        ("key", "AKIAIOSFODNN7EXAMPLE"),
        ("key", "-----BEGIN RSA PRIVATE KEY-----"),
    ],
)
def test_personal_data_is_found_and_not_quoted(kind: str, text: str) -> None:
    mark = score({"check": "no_pii"}, text)

    assert mark.passed is False
    assert mark.reason is not None
    assert kind in mark.reason
    assert text.split()[-1] not in mark.reason
    assert passes({"check": "no_pii", "types": [kind]}, text) is False


@pytest.mark.parametrize(
    "text",
    [
        "card 4111 1111 1111 1112",
        "order 4111111111111111111111",
        "DE89 3704 0044 0532 0130 01",
        "version 1.2.3.4.5 at 12:30:45",
        "999.1.1.1 and 127.0.0.1",
        "2024-01-31 09:15, 3 of 14",
        "user at example dot com",
        "000-12-3456",
        "",
    ],
)
def test_what_only_looks_like_personal_data_is_left_alone(text: str) -> None:
    assert passes({"check": "no_pii"}, text)


def test_personal_data_of_the_input_may_be_repeated_where_allowed() -> None:
    spec = {"check": "no_pii", "allow_from_input": True}
    asked = {"text": "My card is 4111-1111-1111-1111."}

    assert passes(spec, "Card 4111 1111 1111 1111 is blocked.", input=asked)
    assert not passes(spec, "Card 5500 0000 0000 0004 is blocked.", input=asked)


def test_personal_data_in_real_text_is_found(shared_data: Callable[[str], Path]) -> None:
    texts = json.loads((shared_data("hostile/pii") / "generated_small.json").read_text("utf-8"))
    kinds = {"EMAIL_ADDRESS": "email", "CREDIT_CARD": "card", "US_SSN": "ssn", "IP_ADDRESS": "ip"}

    missed = [
        (kind, item["full_text"])
        for item in texts
        for span in item["spans"]
        if (kind := kinds.get(span["entity_type"]))
        and passes({"check": "no_pii", "types": [kind]}, item["full_text"])
    ]

    assert missed == []


# --- form -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "output",
    [
        '{"a": NaN}',
        "[Infinity]",
        "-Infinity",
        '{"a": 1, "a": 2}',
        "{'a': 1}",
        '{"a": 1} {"b": 2}',
        '```json\n{"a": 1}\n```',
        "[" * 100 + "]" * 100,
        '"\\ud800"',
        "1e999",
        "",
    ],
)
def test_loose_json_is_no_json_and_fails_a_check_of_a_path(output: str) -> None:
    at_path = score({"check": "equals", "path": "/a", "value": 1}, output)

    assert not passes({"check": "is_json"}, output)
    assert (at_path.outcome, at_path.score, at_path.passed) == ("scored", 0.0, False)
    assert at_path.reason is not None
    assert "not strict JSON" in at_path.reason


def test_negation_does_not_turn_unreadable_json_into_a_pass() -> None:
    spec = {"check": "contains", "path": "/text", "value": "secret", "negate": True}

    assert passes(spec, '{"text": "nothing"}')
    assert not passes(spec, "{")
    assert not passes(spec, '{"other": "nothing"}')


def test_json_files_made_to_break_parsers_are_read_as_they_should_be(
    shared_data: Callable[[str], Path],
) -> None:
    wrong = []
    for path in sorted(shared_data("hostile/json").glob("[yn]_*.json")):
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            assert path.name.startswith("n_")
            continue
        duplicate = "duplicated_key" in path.name
        if passes({"check": "is_json"}, text) is not (path.name[0] == "y" and not duplicate):
            wrong.append(path.name)

    assert wrong == []


@pytest.mark.parametrize(
    ("spec", "output", "passed"),
    [
        ({"check": "is_json", "type": "object"}, "{}", True),
        ({"check": "is_json", "type": "array"}, "{}", False),
        ({"check": "is_json", "type": "number"}, "true", False),
        ({"check": "is_json", "schema": {"required": ["a"]}}, "{}", False),
        ({"check": "is_json", "negate": True}, "{", True),
        ({"check": "json_schema", "schema": {"type": "object"}}, "{}", True),
        ({"check": "json_schema", "schema": {"type": "object"}}, "[]", False),
        ({"check": "json_schema", "schema": {"type": "object"}}, "{", False),
        ({"check": "json_schema", "schema": {"pattern": "^(a+)+$"}}, f'"{"a" * 60}!"', False),
        ({"check": "json_schema", "schema": {"minimum": 1}, "path": "/n"}, '{"n": 0}', False),
        ({"check": "contains_json"}, 'Here: {"a": [1]} ok', True),
        ({"check": "contains_json"}, "Here: {a} [x] nothing", False),
        ({"check": "contains_json"}, 'dup {"a": 1, "a": 2}', False),
        ({"check": "contains_json", "schema": {"required": ["b"]}}, '{"a": 1} {"b": 2}', True),
        ({"check": "contains_json", "schema": {"required": ["c"]}}, '{"a": 1} {"b": 2}', False),
        ({"check": "length", "max": 3}, "héé", True),
        ({"check": "length", "min": 4}, "héé", False),
        ({"check": "words", "min": 2, "max": 3}, " one  two\nthree ", True),
        ({"check": "words", "max": 2}, "one two three", False),
        ({"check": "tokens", "max": 20}, "…", True),
        ({"check": "tokens", "max": 19}, "…", False),
    ],
)
def test_check_of_form_tells_right_from_wrong(
    spec: dict[str, Any], output: str, passed: bool
) -> None:
    assert passes(spec, output) is passed


def test_schema_file_is_found_beside_the_golden_set(tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"type": "array"}', encoding="utf-8")
    check = compile_check({"check": "json_schema", "schema": "s.json"}, base=tmp_path)

    assert check(make_answer("[]")).passed
    assert check(make_answer("{}")).passed is False


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ("missing.json", "missing.json"),
        ({"type": "thing"}, "not a valid JSON Schema"),
        ({"$ref": "http://127.0.0.1/x"}, "leaves the schema"),
        ({"pattern": "(?=x)"}, "linear time"),
    ],
)
def test_schema_that_cannot_be_used_is_refused_before_any_call(
    schema: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckSpecError, match=message):
        compile_check({"check": "json_schema", "schema": schema}, base=tmp_path)


# --- likeness ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, kind in CHECKS.items() if kind.threshold == 0.5
                                  or name in ("levenshtein", "similar")
                                  if name not in ("python", "mrr", "ndcg")])  # fmt: skip
def test_likeness_is_one_for_the_same_text_and_low_for_another(name: str) -> None:
    same = score({"check": name}, "the parcel came late", expected="the parcel came late")
    other = score({"check": name}, "quick brown fox", expected="the parcel came late")

    assert same.score == pytest.approx(1.0)
    assert same.passed is True
    assert other.score is not None
    assert other.score < 0.4
    assert other.passed is False


@pytest.mark.parametrize(
    ("spec", "output", "expected", "value"),
    [
        ({"check": "levenshtein"}, "kitten", "sitting", 1 - 3 / 7),
        ({"check": "rouge_l", "measure": "recall"}, "a c d", "a b c d", 3 / 4),
        ({"check": "rouge_l", "measure": "precision"}, "a c d x", "a b c d", 3 / 4),
        ({"check": "rouge_n", "n": 2}, "a b c", "a b d", 1 / 2),
        ({"check": "token_f1"}, "the tall tower", "tower of Pisa", 2 / 5),
        ({"check": "bleu", "n": 1}, "a a a b", "a b", 1 / 2),
        ({"check": "token_f1"}, "Paris", ["London", "Paris, France", "paris"], 1.0),
        ({"check": "rouge_n"}, "", "", 1.0),
        ({"check": "similar"}, "!?", "!?", 1.0),
    ],
)
def test_likeness_has_the_value_of_its_definition(
    spec: dict[str, Any], output: str, expected: Any, value: float
) -> None:
    assert score(spec, output, expected=expected).score == pytest.approx(value)


def test_threshold_decides_the_pass_and_not_the_score() -> None:
    spec = {"check": "token_f1", "value": "tower of Pisa", "threshold": 0.4}

    mark = score(spec, "tall tower")
    lower = score({**spec, "threshold": 0.41}, "tall tower")
    negated = score({**spec, "negate": True}, "tall tower")

    assert (mark.score, mark.passed) == (0.4, True)
    assert (lower.score, lower.passed) == (0.4, False)
    assert (negated.score, negated.passed) == (0.6, False)


# --- what it does -------------------------------------------------------------------------

DOCUMENTS = {"question": "?", "documents": [{"id": "d1", "text": "…"}, {"id": "d2", "text": "…"}]}


@pytest.mark.parametrize(
    ("spec", "output", "passed"),
    [
        ({}, "Two years [d1].", True),
        ({}, "Two years [d1, d2].", True),
        ({}, "Two years.", False),
        ({"min_count": 0}, "Two years.", True),
        ({"min_count": 2}, "Two years [d1][d1].", False),
        ({}, "Two years [d1][d9].", False),
        ({}, "Two years [sic] [d1], see [d3](http://x).", True),
        ({}, "From the log [r7].", True),
        ({"require": "all", "values": ["d1", "d2"]}, "x [d1]", False),
        ({"require": "any", "values": ["d1", "d2"]}, "x [d1]", True),
        ({"require": "exact", "value": "d1"}, "x [d1] [d2]", False),
        ({"path": "/ids"}, '{"ids": ["d1", "d2"]}', True),
        ({"path": "/ids"}, '{"ids": ["d1", "d7"]}', False),
        ({"path": "/ids"}, '{"ids": [{"id": "d1"}]}', True),
        ({"path": "/ids"}, '{"ids": [[1]]}', False),
        ({"path": "/ids"}, '{"ids": []}', False),
    ],
)
def test_citations_must_be_of_documents_that_were_given(
    spec: dict[str, Any], output: str, passed: bool
) -> None:
    answer = {"input": DOCUMENTS, "retrieved_ids": ("r7",)}

    assert passes({"check": "citations", **spec}, output, **answer) is passed


def test_an_id_with_blanks_or_commas_in_it_can_be_cited() -> None:
    given = {"retrieved_ids": ("my doc.pdf", "Smith, 2020", "d1")}

    assert passes({"check": "citations"}, "Two years [my doc.pdf].", **given)
    assert passes({"check": "citations", "min_count": 2}, "So [d1; my doc.pdf].", **given)
    assert passes({"check": "citations"}, "So [Smith, 2020].", **given)
    assert not passes({"check": "citations"}, "So [my doc2.pdf].", **given)


def test_citations_say_what_was_cited_and_what_was_wanted() -> None:
    wanted = {"check": "citations", "require": "exact", "value": "d1"}

    missed = score(wanted, "x [d1] [d2]", input=DOCUMENTS)
    nothing = score(wanted, "x", input=DOCUMENTS)

    assert missed.reason == "cites 'd1', 'd2'; wanted (exact): 'd1'"
    assert nothing.reason == "cites 0 documents, at least 1 wanted"


def call(name: str, arguments: str) -> ToolCall:
    return ToolCall(id="c1", name=name, arguments=arguments)


@pytest.mark.parametrize(
    ("spec", "made", "passed"),
    [
        ({}, [call("area", '{"base": 10, "height": 5}')], True),
        ({}, [call("area", '{"base": 10, "height": 5, "unit": "cm"}')], False),
        ({"arguments": "include"}, [call("area", '{"base": 10, "height": 5, "unit": 1}')], True),
        ({"arguments": "ignore"}, [call("area", "{}")], True),
        ({}, [call("volume", '{"base": 10, "height": 5}')], False),
        ({}, [call("area", '{"base": 10, "height": NaN}')], False),
        ({}, [], False),
        ({}, [call("area", '{"base": 10, "height": 5}'), call("log", "{}")], False),
        ({"allow_extra": True},
         [call("log", "{}"), call("area", '{"base": 10, "height": 5}')], True),
    ],
)  # fmt: skip
def test_tool_call_is_held_against_name_and_arguments(
    spec: dict[str, Any], made: list[ToolCall], passed: bool
) -> None:
    expected = {"name": "area", "arguments": {"base": 10, "height": 5}}

    mark = score({"check": "tool_call", **spec}, "", expected=expected, tool_calls=tuple(made))

    assert mark.passed is passed


def test_tool_call_accepts_listed_alternatives_and_left_out_arguments() -> None:
    spec = {
        "check": "tool_call",
        "path": "",
        "arguments": "alternatives",
        "value": {"name": "area", "arguments": {"base": [10, 10.5], "unit": ["cm", ""]}},
    }

    assert passes(spec, '{"name": "area", "arguments": {"base": 10}}')
    assert passes(spec, '{"name": "area", "arguments": {"base": 10.5, "unit": "cm"}}')
    assert not passes(spec, '{"name": "area", "arguments": {"base": 10, "unit": "m"}}')
    assert not passes(spec, '{"name": "area", "arguments": {"unit": "cm"}}')
    assert not passes(spec, '{"name": "area", "arguments": {"base": 10, "x": 1}}')


def test_each_tool_call_goes_where_the_others_still_find_theirs() -> None:
    included = {
        "check": "tool_call",
        "arguments": "include",
        "value": ["f", {"name": "f", "arguments": {"a": 1}}],
    }
    listed = {
        "check": "tool_call",
        "arguments": "alternatives",
        "value": [
            {"name": "f", "arguments": {"x": [1, 2, 3]}},
            {"name": "f", "arguments": {"x": [1, 2]}},
            {"name": "f", "arguments": {"x": [1]}},
        ],
    }

    def made(*arguments: str) -> tuple[ToolCall, ...]:
        return tuple(call("f", each) for each in arguments)

    assert passes(included, "", tool_calls=made('{"a": 1}', '{"b": 2}'))
    assert not passes(included, "", tool_calls=made('{"a": 2}', '{"b": 2}'))
    assert passes(listed, "", tool_calls=made('{"x": 1}', '{"x": 2}', '{"x": 3}'))
    assert not passes(listed, "", tool_calls=made('{"x": 2}', '{"x": 2}', '{"x": 3}'))


def test_ordered_tool_calls_may_have_others_between_them_only_where_extra_ones_may_be() -> None:
    spec = {"check": "tool_call", "value": ["a", "b"], "ordered": True}
    made = (call("a", "{}"), call("log", "{}"), call("b", "{}"))

    assert passes({**spec, "allow_extra": True}, "", tool_calls=made)
    assert not passes(spec, "", tool_calls=made)
    assert not passes({**spec, "allow_extra": True}, "", tool_calls=made[1:])


def test_order_of_tool_calls_counts_only_when_asked() -> None:
    made = (call("b", "{}"), call("a", "{}"))
    spec = {"check": "tool_call", "value": ["a", "b"]}

    assert passes(spec, "", tool_calls=made)
    assert not passes({**spec, "ordered": True}, "", tool_calls=made)


# --- what it cost -------------------------------------------------------------------------


def test_ceilings_on_time_and_money() -> None:
    assert passes({"check": "latency", "max_ms": 800}, "…")
    assert not passes({"check": "latency", "max_ms": 799}, "…")
    assert passes({"check": "ttft", "max_ms": 200}, "…")
    assert not passes({"check": "cost", "max_usd": 0.001}, "…")


@pytest.mark.parametrize(
    ("spec", "record"),
    [
        ({"check": "cost", "max_usd": 1}, {"cost_usd": None}),
        ({"check": "cost", "max_usd": 1, "negate": True}, {"cost_usd": None}),
        ({"check": "ttft", "max_ms": 1}, {"ttft_ms": None}),
        ({"check": "tokens", "max": 1}, {"completion_tokens": None}),
    ],
)
def test_what_the_record_does_not_know_is_neither_pass_nor_fail(
    spec: dict[str, Any], record: dict[str, Any]
) -> None:
    mark = score(spec, "…", **record)

    assert (mark.score, mark.passed, mark.outcome) == (None, None, "check_error")
    assert mark.error_kind is not None
    assert mark.error_kind.startswith("unknown_")


# --- the user's own -------------------------------------------------------------------------


@pytest.fixture
def own_check(tmp_path: Path) -> Callable[[str], Callable[..., Mark]]:
    def make(body: str, **spec: Any) -> Callable[..., Mark]:
        source = "def check(answer):\n" + textwrap.indent(textwrap.dedent(body), "    ")
        (tmp_path / "own.py").write_text(source, encoding="utf-8")
        check = compile_check(
            {"check": "python", "function": "own.py:check", **spec}, base=tmp_path
        )
        return lambda output="x", **answer: check(make_answer(output, **answer))

    return make


@pytest.mark.parametrize(
    ("body", "value", "passed"),
    [
        ("return True", 1.0, True),
        ("return answer.output == 'y'", 0.0, False),
        ("return 0.75", 0.75, True),
        ("return {'score': 0.25, 'reason': 'why'}", 0.25, False),
        ("return {'score': 0.25, 'passed': True}", 0.25, True),
        ("return {'passed': False}", 0.0, False),
    ],
)
def test_own_function_may_return_bool_number_or_dict(
    own_check: Callable[..., Callable[..., Mark]], body: str, value: float, passed: bool
) -> None:
    mark = own_check(body)()

    assert (mark.score, mark.passed) == (value, passed)


def test_own_function_gets_a_threshold(own_check: Callable[..., Callable[..., Mark]]) -> None:
    assert own_check("return 0.75", threshold=0.8)().passed is False


@pytest.mark.parametrize(
    "body",
    [
        "raise KeyError('nope')",
        "return None",
        "return 'yes'",
        "return 1.5",
        "return float('nan')",
        "return {'score': float('inf')}",
        "return {'passed': 'yes'}",
        "return {}",
        "import asyncio\nreturn asyncio.sleep(0)",
        "return answer.no_such",
        "return check(answer)",
    ],
)
def test_what_an_own_function_does_amiss_is_a_check_error(
    own_check: Callable[..., Callable[..., Mark]], body: str
) -> None:
    mark = own_check(body)()

    assert (mark.score, mark.passed, mark.outcome) == (None, None, "check_error")
    assert mark.error_kind == "python"
    assert mark.reason


def test_an_own_function_has_a_copy_of_the_answer(
    own_check: Callable[..., Callable[..., Mark]],
) -> None:
    given, expected = {"text": ["a"]}, ["b"]

    mark = own_check(
        "answer.input['text'].append('HACK')\n"
        "answer.expected.clear()\n"
        "answer.record.stage_ms['own'] = 1\n"
        "return answer.input['text'] == ['a', 'HACK']"
    )(input=given, expected=expected)

    assert mark.passed
    assert (given, expected) == ({"text": ["a"]}, ["b"])
    assert RECORD.stage_ms == {}


def test_exception_of_an_own_function_is_kept_with_its_line(
    own_check: Callable[..., Callable[..., Mark]],
) -> None:
    mark = own_check("x = 1\nraise KeyError('nope')")()

    assert mark.reason is not None
    assert "KeyError" in mark.reason
    assert "own.py:3" in mark.reason


def test_own_function_of_an_importable_module() -> None:
    mark = score({"check": "python", "function": "tests.score.answers:make_answer"}, "x")

    assert mark.error_kind == "python"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no_such_module_x:f", "cannot be imported"),
        ("missing.py:f", "cannot be imported"),
        ("tests.score.answers:no_such", "no function no_such"),
        ("tests.score.answers:RECORD", "no function RECORD"),
        ("asyncio:sleep", "is async"),
        ("tests.score.answers", "must be a function"),
    ],
)
def test_own_function_that_is_not_there_is_refused_before_any_call(
    function: str, message: str
) -> None:
    with pytest.raises(CheckSpecError, match=message):
        compile_check({"check": "python", "function": function}, base=HERE)


# --- specs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"check": "equalz"}, 'check "equalz" is not known. Did you mean "equals"?'),
        ({"check": "is-json"}, 'Did you mean "is_json"?'),
        ({"check": "contains-any", "values": ["a"]}, 'Did you mean "contains_any"?'),
        ({"check": "qqqq"}, "Known: bleu, citations"),
        ({"judge": "x"}, 'no "check"'),
        ({"check": "regex"}, "check regex: pattern is missing"),
        ({"check": "length"}, "min or max is missing"),
        ({"check": "length", "min": 3, "max": 2}, "min 3 is more than max 2"),
        ({"check": "equals", "pth": "/x"}, '"pth" is not known. Did you mean "path"?'),
        ({"check": "equals", "path": "label"}, '"path" must be a JSON pointer'),
        ({"check": "equals", "negate": "yes"}, '"negate" must be true or false'),
        ({"check": "rouge_n", "threshold": 75}, "number from 0 to 1"),
        ({"check": "rouge_n", "threshold": math.nan}, "number from 0 to 1"),
        ({"check": "latency", "max_ms": True}, "number, 0 or more"),
        ({"check": "contains_any", "values": []}, "list of texts"),
        ({"check": "contains_any", "values": ["a"], "value": "b"}, "cannot both"),
        ({"check": "number", "value": 1, "extract": "any"}, "one of only, first, last"),
        ({"check": "language", "value": "klingon"}, "not one that can be told"),
        ({"check": "no_pii", "types": ["emial"]}, "list of email"),
        ({"check": "regex", "pattern": r"(a)\1"}, "lookaround and backreferences"),
        ({"check": "regex", "pattern": "(?!a)b"}, "lookaround and backreferences"),
        ({"check": "regex", "pattern": "("}, "cannot be used"),
    ],
)
def test_spec_that_can_never_work_says_what_would_be_right(
    spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckSpecError) as error:
        compile_check(spec, base=HERE)

    assert message in str(error.value)


def test_case_without_expected_is_a_check_error_and_can_be_known_before() -> None:
    spec = {"check": "equals", "path": "/label", "name": "label", "gate": True}

    mark = score(spec, '{"label": "a"}')

    assert (mark.outcome, mark.error_kind) == ("check_error", "no_expected")
    assert needs_expected(spec)
    assert not needs_expected({**spec, "value": "a"})
    assert not needs_expected({"check": "is_json"})
    assert needs_expected({"check": "citations", "require": "all"})


def test_keys_of_the_gate_do_not_change_the_version_and_keys_of_the_check_do() -> None:
    spec = {"check": "equals", "path": "/label"}
    gate = {"name": "n", "gate": True, "tolerance": 0.1, "max_drop": 0.2, "must_pass": True}

    assert check_version({**spec, **gate}) == check_version(spec)
    assert check_version({**spec, "negate": True}) != check_version(spec)
    assert check_version({"check": "contains", "path": "/label"}) != check_version(spec)


def test_version_follows_schema_file_and_own_source(tmp_path: Path) -> None:
    schema, own = tmp_path / "s.json", tmp_path / "own_version.py"
    schema.write_text("{}", encoding="utf-8")
    own.write_text("def f(a):\n    return True\n", encoding="utf-8")
    specs = [
        {"check": "json_schema", "schema": "s.json"},
        {"check": "python", "function": "own_version.py:f"},
    ]
    before = [check_version(spec, base=tmp_path) for spec in specs]

    schema.write_text('{"type": "object"}', encoding="utf-8")
    own.write_text("def f(a):\n    return False\n", encoding="utf-8")
    after = [check_version(spec, base=tmp_path) for spec in specs]

    assert before[0] != after[0]
    assert before[1] != after[1]


def test_every_check_lists_its_parameters() -> None:
    assert CHECK_PARAMS.keys() == CHECKS.keys()
    assert all("negate" in params for params in CHECK_PARAMS.values())


# --- hostile answers ---------------------------------------------------------------------------

SPECS: dict[str, dict[str, Any]] = {
    "equals": {"value": "a"},
    "one_of": {"values": ["a", 1]},
    "contains": {"value": "a"},
    "icontains": {"value": "A"},
    "contains_any": {"values": ["a", "b"]},
    "contains_all": {"values": ["a", "b"]},
    "icontains_any": {"values": ["a"]},
    "icontains_all": {"values": ["a"]},
    "starts_with": {"value": "a", "normalise": True},
    "ends_with": {"value": "a", "normalise": ["punctuation", "articles", "unicode"]},
    "regex": {"pattern": "^(a+)+$"},
    "number": {"value": 1, "extract": "last"},
    "is_json": {},
    "contains_json": {"schema": {"required": ["zz"]}},
    "json_schema": {"schema": {"type": "object", "properties": {"a": {"pattern": "(a*)*b"}}}},
    "length": {"max": 100},
    "words": {"max": 100},
    "tokens": {"max": 100},
    "language": {"value": "de"},
    "levenshtein": {"value": "the parcel came late"},
    "rouge_l": {"value": "the parcel came late"},
    "rouge_n": {"value": "the parcel came late", "n": 3},
    "bleu": {"value": "the parcel came late"},
    "token_f1": {"value": "the parcel came late"},
    "similar": {"value": "the parcel came late"},
    "recall_at_k": {"values": ["d1"]},
    "mrr": {"value": "d1"},
    "ndcg": {"value": {"d1": 2, "d2": 1}},
    "citations": {"min_count": 0},
    "tool_call": {"value": "a", "path": ""},
    "no_pii": {"allow_from_input": True},
    "is_refusal": {},
    "latency": {"max_ms": 1},
    "ttft": {"max_ms": 1},
    "cost": {"max_usd": 1},
    "python": {"function": "tests.score.answers:says_something"},
}

JSONISH = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
).map(lambda value: json.dumps(value))
HOSTILE = st.text(st.characters(codec=None), max_size=200) | JSONISH | st.text('{}[]":,\\ua1 ')


def hostile_checks(**more: Any) -> list[Callable[..., Mark]]:
    return [compile_check({"check": k, **spec, **more}, base=HERE) for k, spec in SPECS.items()]


def test_there_is_a_hostile_spec_for_every_check() -> None:
    assert SPECS.keys() == CHECKS.keys()


PLAIN, NEGATED = hostile_checks(), hostile_checks(negate=True)


@given(output=HOSTILE)
@settings(max_examples=150, deadline=None)
def test_no_answer_makes_a_check_raise_crash_or_leave_its_range(output: str) -> None:
    answer = make_answer(output)

    for check in PLAIN:
        mark = check(answer)

        assert mark.error_kind != "crashed", mark
        assert (mark.score is None) == (mark.outcome == "check_error")
        assert mark.score is None or 0.0 <= mark.score <= 1.0
        assert mark.reason is None or mark.reason.encode("utf-8")


@given(output=HOSTILE)
@settings(max_examples=100, deadline=None)
def test_negation_flips_a_score_and_leaves_faults_alone(output: str) -> None:
    answer = make_answer(output)

    for plain, negated in zip(PLAIN, NEGATED, strict=True):
        one, other = plain(answer), negated(answer)

        if one.outcome == "check_error":
            assert other == one
        elif one == other:
            assert one.score == 0.0  # the answer could not be read: fails both ways
            assert one.passed is False
        else:
            assert one.score is not None
            assert other.score == pytest.approx(1.0 - one.score)
            assert other.passed is not one.passed


def big(piece: str, size: int = 1_000_000) -> str:
    return piece * (size // len(piece))


@pytest.mark.parametrize(
    "output",
    [
        big("a"),
        big("a "),
        big("["),
        big("{"),
        big('{"a":'),
        big('["'),
        big("[1,"),
        big("[{}],"),
        big("9"),
        big("1,"),
        big("111,") + "1111",
        big("1.") + "e",
        big("-"),
        big("4111 1111 1111 1111 "),
        big("a@b."),
        big("\ufdfa"),
        big("[d1] "),
        big("I can't "),
        '"' + big("a") + '"',
        "[" + big("1,") + "1]",
        '[{"a": 1}' + big(', {"a": 1}') + "]",
        big("wörd "),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_megabyte_of_hostile_text_does_not_hang_any_check(output: str) -> None:
    answer = make_answer(output, input=DOCUMENTS)
    limit_s = 60.0  # CPU time of one check: most take 0.3; a quadratic one, a quarter of an hour

    for name, check in zip(SPECS, PLAIN, strict=True):
        started = time.process_time()
        mark = check(answer)

        assert mark.error_kind != "crashed", (name, mark)
        assert time.process_time() - started < limit_s, name


def test_json_is_found_behind_a_long_text_full_of_brackets() -> None:
    output = "[see {" * 50_000 + 'so: {"zz": 1}'

    mark = score({"check": "contains_json", "schema": {"required": ["zz"]}}, output)

    assert mark.score == 1.0


def test_reading_a_prefix_only_is_said_in_the_reason() -> None:
    mark = score({"check": "levenshtein", "value": "x" * 30_000}, "x" * 30_000)

    assert mark.score == 1.0
    assert mark.reason is not None
    assert "first 20000 characters" in mark.reason


def test_texts_that_differ_only_behind_what_is_aligned_are_not_alike() -> None:
    start = "ab" * 10_000
    one, other = start + "c" * 20_000, start + "d" * 20_000

    different = score({"check": "levenshtein", "value": one}, other)
    longer = score({"check": "levenshtein", "value": start}, start + "c" * 20_000)
    far_apart = score({"check": "levenshtein", "value": "x" + one + "x"}, "y" + other + "y")

    assert different.score == pytest.approx(0.5)
    assert longer.score == pytest.approx(0.5)
    assert far_apart.score is not None
    assert 0.4 < far_apart.score <= 0.5


def test_words_that_differ_only_behind_what_is_aligned_are_not_alike() -> None:
    one, other = "y " + "a " * 20_000 + "b " * 20_000, "z " + "a " * 20_000 + "c " * 20_000

    mark = score({"check": "rouge_l", "value": one}, other)
    alike = score({"check": "rouge_l", "value": one}, one)

    assert mark.score is not None
    assert 0.49 < mark.score <= 20_000 / 40_001
    assert mark.reason is not None
    assert "first 20000 words, what differs beyond counts in full" in mark.reason
    assert alike.score == 1.0


def test_one_letter_in_a_long_text_costs_as_much_as_one_letter() -> None:
    text = "ab" * 20_000

    mark = score({"check": "levenshtein", "value": text}, "x" + text[1:])

    assert mark.score == pytest.approx(1 - 1 / 40_000)


def test_naughty_strings_are_scored_like_any_other(shared_data: Callable[[str], Path]) -> None:
    strings = json.loads(shared_data("hostile/blns.json").read_text("utf-8"))

    for text in strings:
        for check in PLAIN:
            assert check(make_answer(text)).error_kind != "crashed"
