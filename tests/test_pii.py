"""What is personal data by its shape, what only looks like it, and how it is replaced."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.national_ids import NATIONAL_IDS
from evalkit.pii import (
    PII_KINDS,
    Finding,
    Placeholders,
    find_pii,
    non_overlapping,
    redact,
    texts_of,
)


def found(text: str, *kinds: str) -> list[str]:
    return [finding.text for finding in find_pii(text, kinds or None)]


NATIONAL = {
    "German tax id": "86095742719",
    "German tax id, spaced": "86 095 742 719",
    "French NIR": "255081416802538",
    "Spanish DNI": "12345678Z",
    "Spanish NIE": "X1234567L",
    "Italian codice fiscale": "RSSMRA85T10A562S",
    "Polish PESEL": "44051401359",
    "Swedish personnummer": "811228-9874",
    "Finnish henkilötunnus": "131052-308T",
    "Belgian rijksregisternummer": "85.07.30-033.28",
    "Swiss AHV": "756.9217.0769.85",
    "Brazilian CPF": "111.444.777-35",
    "Chinese id": "11010519491231002X",
}


@pytest.mark.parametrize("number", NATIONAL.values(), ids=NATIONAL.keys())
def test_national_id_is_found_by_its_check_digits(number: str) -> None:
    assert found(f"It is {number}, I think.", "national_id") == [number]


@pytest.mark.parametrize("number", NATIONAL.values(), ids=NATIONAL.keys())
def test_national_id_with_one_wrong_digit_is_none(number: str) -> None:
    place = max(i for i, char in enumerate(number[:-1]) if char.isdecimal())
    wrong = number[:place] + str((int(number[place]) + 1) % 10) + number[place + 1 :]

    assert found(f"It is {wrong}.", "national_id") == []


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("my BSN is 111222333", "111222333"),
        ("SIN: 130 692 544", "130 692 544"),
        ("Aadhaar number 2341 2341 2346", "2341 2341 2346"),
        ("CPF 11144477735", "11144477735"),
    ],
)
def test_number_with_a_weak_check_counts_only_where_it_is_named(text: str, number: str) -> None:
    assert found(text, "national_id") == [number]
    assert found(f"order {number}", "national_id") == []


def test_british_insurance_number_has_prefixes_that_are_never_given_out() -> None:
    assert found("NI number AB 12 34 56 C", "national_id") == ["AB 12 34 56 C"]
    assert found("NI number GB 12 34 56 C", "national_id") == []


def test_random_digits_are_seldom_a_national_id() -> None:
    generator = random.Random(7)
    numbers = ["".join(generator.choices("0123456789", k=11)) for _ in range(3000)]

    hits = sum(bool(found(f"order {number} is late", "national_id")) for number in numbers)

    assert hits < 0.04 * len(numbers)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("write to a.b+c@mail.example.co.uk!", "email", "a.b+c@mail.example.co.uk"),
        ("schreib an jörg@bücher.example", "email", "jörg@bücher.example"),
        ("call me at (96) 627-277", "phone", "(96) 627-277"),
        ("Telefon: 0621 1234567", "phone", "0621 1234567"),
        ("+49 (0)621 1234567", "phone", "+49 (0)621 1234567"),
        ("001-420-335-7509x38548", "phone", "001-420-335-7509x38548"),
        ("4111-1111-1111-1111", "card", "4111-1111-1111-1111"),
        ("to DE89 3704 0044 0532 0130 00 EUR 5", "iban", "DE89 3704 0044 0532 0130 00"),
        ("to DE89-3704-0044-0532-0130-00, now", "iban", "DE89-3704-0044-0532-0130-00"),
        ("card 4111.1111.1111.1111 of mine", "card", "4111.1111.1111.1111"),
        ("gb82west12345698765432", "iban", "gb82west12345698765432"),
        ("from 2001:db8::8a2e:370:7334", "ip", "2001:db8::8a2e:370:7334"),
        ("postgres://joe:hunter2@db/x", "key", "hunter2"),
        ("Authorization: Bearer abcdefghij0123456789xyz", "key", "abcdefghij0123456789xyz"),
        ("npm_abcdefghijklmnopqrstuvwxyz0123456789", "key", None),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N", "key", None),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIEab+/=\n-----END RSA PRIVATE KEY-----", "key", None),
        ("-----BEGIN PRIVATE KEY-----\nMIIEcut off", "key", None),
    ],
)  # fmt: skip
def test_value_is_found_whole(text: str, kind: str, value: str | None) -> None:
    assert found(text, kind) == [value or text]


@pytest.mark.parametrize(
    "text",
    [
        "on 05-12-2024 or 2024-05-12 or 12.05.2024",
        "Call me on 2024-05-12 at 10",
        "version 1.2.3.4.5",
        "ratio 1:2:3",
        "order 100-200-300",
        "ISBN 978-3-16-148410-0",
        "eyJ.eyJ",
        "sk-short",
        "127.0.0.1 and ::1",
        "a@b",
    ],
)
def test_look_alikes_are_left_alone(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    "text", ["４１１１　１１１１　１１１１　１１１１", "٤١١١١١١١١١١١١١١١", "4111–1111–1111–1111"]
)
def test_digits_of_other_widths_and_scripts_are_read(text: str) -> None:
    assert found(text, "card") == [text]


def test_unknown_kind_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="emial"):
        list(find_pii("a@b.example", ["emial"]))


def test_lone_surrogate_does_not_stop_the_search() -> None:
    assert found("\ud800 a@b.example") == ["a@b.example"]


def test_personal_data_of_other_people_texts_is_found(shared_data: Callable[[str], Path]) -> None:
    path = shared_data("hostile/pii") / "generated_small.json"
    items = json.loads(path.read_text("utf-8"))
    kinds = {
        "EMAIL_ADDRESS": "email", "CREDIT_CARD": "card", "US_SSN": "ssn", "IP_ADDRESS": "ip",
        "PHONE_NUMBER": "phone",
    }  # fmt: skip

    spans = [
        (kinds[span["entity_type"]], span["entity_value"], item["full_text"])
        for item in items
        for span in item["spans"]
        if span["entity_type"] in kinds
    ]
    missed = [(kind, value) for kind, value, text in spans if value not in found(text, kind)]

    assert len(spans) > 20
    assert {kind for kind, _ in missed} <= {"phone"}  # a number that nothing around it names
    assert len(missed) <= 1


# --- placeholders -----------------------------------------------------------------------


def test_equal_values_have_one_placeholder() -> None:
    assert redact("a@b.example, c@d.example and a@b.example") == (
        "[EMAIL_1], [EMAIL_2] and [EMAIL_1]",
        3,
    )


def test_lists_tables_keys_and_numbers_are_walked() -> None:
    value = {
        "to": ["a@b.example", {"card": 4111111111111111, "n": 3, "ok": True, "x": None}],
        "a@b.example": ("4111111111111111", 1.5),
    }

    assert redact(value) == (
        {
            "to": ["[EMAIL_1]", {"card": "[CARD_1]", "n": 3, "ok": True, "x": None}],
            "[EMAIL_1]": ["[CARD_1]", 1.5],
        },
        4,
    )


def test_objects_are_read_as_a_prompt_would_show_them() -> None:
    assert redact({"from": Path("/home/a@b.example")}) == ({"from": "/home/[EMAIL_1]"}, 1)
    assert redact({"n": 10**5000}) == ({"n": 10**5000}, 0)


@pytest.mark.parametrize(
    ("value", "clean"),
    [
        (b"to a@b.example", "to [EMAIL_1]"),
        (b"f\xfcr a@b.example", "f\ufffdr [EMAIL_1]"),
        (4111111111111111.0, "[CARD_1]"),
    ],
)
def test_bytes_and_whole_numbers_of_a_column_are_read_as_text(value: object, clean: str) -> None:
    assert redact({"text": value}) == ({"text": clean}, 1)


@pytest.mark.parametrize(
    "value",
    [b"hello", b"\x89PNG\0 a@b.example", 4111111111111112.0, 0.5, 1e300, math.inf, b"\xff\xad"],
)
def test_bytes_and_numbers_without_personal_data_stay_what_they_are(value: object) -> None:
    clean, count = redact([value])

    assert (clean, count, type(clean[0])) == ([value], 0, type(value))


def test_pictures_are_not_searched() -> None:
    picture = "data:image/png;base64,AAAA+4111111111111111+AAAA=="

    assert redact({"url": picture, "alt": "4111111111111111"}) == (
        {"url": picture, "alt": "[CARD_1]"},
        1,
    )


def test_placeholder_that_is_in_the_text_already_is_not_given_out() -> None:
    assert redact({"a": "a@b.example", "b": r"[email_1] [EMAIL\_2]"})[0]["a"] == "[EMAIL_3]"


def test_what_contains_itself_is_left_out_there_however_often() -> None:
    twice: list[object] = ["a@b.example"]
    twice += [twice, {"again": twice}]

    assert redact(twice) == (["[EMAIL_1]", "[TOO DEEP]", {"again": "[TOO DEEP]"}], 1)


def test_what_is_nested_too_deeply_is_left_out_of_a_record() -> None:
    value: object = "a@b.example"
    for _ in range(150):
        value = [value]

    clean, _ = redact(value)

    assert "a@b.example" not in json.dumps(clean)
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        texts_of(value, whole=True)


def test_of_overlapping_findings_the_longer_stays() -> None:
    short, long = Finding("key", 13, 17, "pa55"), Finding("email", 13, 32, "pa55@db.example.com")

    assert non_overlapping([short, long, Finding("ip", 40, 47, "8.8.8.8")]) == [
        long,
        Finding("ip", 40, 47, "8.8.8.8"),
    ]


@given(st.text(st.sampled_from("ab@.12[]_EMAIL\\ é４+-"), max_size=60))
def test_placeholders_put_back_give_the_text_again(text: str) -> None:
    placeholders = Placeholders(taken={"[EMAIL_1]"})

    replaced = placeholders.replace(text)
    for placeholder, value in placeholders.values.items():
        if placeholder not in text:
            replaced = replaced.replace(placeholder, value)

    assert replaced == text or any(p in text for p in placeholders.values)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists))
def test_what_has_nothing_to_replace_stays_as_it_is(value: object) -> None:
    clean, count = redact(value)

    assert count or clean == value


@pytest.mark.parametrize(
    "piece",
    ["a@", "1 ", "+1 ", "1.1.", "a:", "DE89", "tel ", "a://b:", "-----BEGIN PRIVATE KEY-----",
     "4111111111111111 ", "eyJaaaaaaaaaaaa.", "é1", "a@b.de ", "\u0301"],
)  # fmt: skip
def test_time_grows_linearly_with_hostile_text(piece: str) -> None:
    def seconds(size: int) -> float:
        text = piece * (size // len(piece))
        best = 9.0
        for _ in range(3):
            started = time.process_time()
            redact(text)
            best = min(best, time.process_time() - started)
        return best

    small, large = seconds(20_000), seconds(160_000)

    assert large < 24 * small + 0.02  # eight times the text; quadratic would be 64


def test_value_behind_a_megabyte_of_noise_is_found() -> None:
    generator = random.Random(1)
    noise = "".join(generator.choices("0123456789+()-. /@abcDEF:eyJsk\né", k=1_000_000))

    assert "hidden@mail.example" in found(noise + " hidden@mail.example", "email")


def test_every_kind_has_a_recogniser() -> None:
    assert PII_KINDS == ("email", "key", "iban", "card", "ssn", "national_id", "ip", "phone")
    assert len(NATIONAL_IDS) == len({pattern for pattern, _ in NATIONAL_IDS})
