"""Fields filled from a text, as the prompt and the schema describe them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.json_schema import compile_schema
from tests.call.embedded.asking import ask, nullable, prompt, record, value

ORDER = record(
    order_id=nullable("string"),
    order_date=nullable("string"),
    amount=nullable("number"),
    quantity=nullable("integer"),
    email=nullable("string"),
)
TOLD = (
    "Fill in the fields. Use null for every field that the text does not say.\n\n"
    "Fields:\n\n"
    "- order_id: The number of the order, written ORD- and six digits.\n"
    "- order_date: The day on which the order was placed, as YYYY-MM-DD. Not the day of delivery.\n"
    "- amount: The total paid for the order. Not the shipping.\n"
    "- quantity: How many pieces were ordered.\n"
    "- email: The customer's e-mail address.\n"
)
NOTHING = dict.fromkeys(("order_id", "order_date", "amount", "quantity", "email"))


def test_a_plain_message_is_read_in_full() -> None:
    text = (
        "I ordered 4 lamps on 3 March 2025 (ORD-418207), delivered on 9 March 2025. "
        "The total paid was 34.90 EUR, shipping 4.90 EUR.\nines@mailbox.example"
    )

    assert value(prompt(TOLD, text), ORDER) == {
        "order_id": "ORD-418207",
        "order_date": "2025-03-03",
        "amount": 34.9,
        "quantity": 4,
        "email": "ines@mailbox.example",
    }


def test_absent_values_are_null_where_the_prompt_says_so() -> None:
    assert value(prompt(TOLD, "Hello, is anybody there?"), ORDER) == NOTHING


def test_a_prompt_without_a_word_on_absent_values_gets_guesses() -> None:
    bare = "Fill in these fields:\n- order_id\n- order_date\n- amount\n- quantity\n- email"
    text = "The parcel CUS-55021 left the depot on 2 May 2025."

    told, guessed = value(prompt(TOLD, text), ORDER), value(prompt(bare, text), ORDER)

    assert (told["order_id"], told["order_date"]) == (None, None)
    assert (guessed["order_id"], guessed["order_date"]) == ("CUS-55021", "2025-05-02")


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("1,234.50 EUR", 1234.5),
        ("1.234,50 €", 1234.5),
        ("€ 1 234,50", 1234.5),
        ("GBP 12", 12),
        ("12,5 euros", 12.5),
    ],
)
def test_amounts_are_read_as_written_in_several_countries(written: str, number: float) -> None:
    schema = record(amount={"type": "number"})

    assert value(prompt(TOLD, f"total paid {written}"), schema) == {"amount": number}


@pytest.mark.parametrize(
    "written", ["2025-03-04", "4 March 2025", "March 4, 2025", "04.03.2025", "4. März 2025"]
)
def test_dates_are_given_in_iso_form(written: str) -> None:
    schema = record(order_date=nullable("string"))

    assert value(prompt(TOLD, f"ordered on {written}"), schema) == {"order_date": "2025-03-04"}


def test_a_currency_is_that_of_the_amount() -> None:
    schema = record(
        amount=nullable("number"),
        currency={"type": ["string", "null"], "enum": ["EUR", "GBP", None]},
    )

    answer = value(prompt(TOLD, "total paid £20.00, and I was once refunded 3.00 EUR"), schema)

    assert answer == {"amount": 20, "currency": "GBP"}


def test_only_ticked_options_of_a_form_are_read() -> None:
    schema = record(reason={"type": "string", "enum": ["damaged", "late", "not_wanted"]})
    told = "Fields:\n- reason: why.\n  damaged: broken\n  late: overdue\n  not_wanted: no use"

    answer = value(prompt(told, "Reason: [ ] damaged [x] late [ ] not wanted"), schema)

    assert answer == {"reason": "late"}


def test_lists_and_objects_are_filled_in_their_shape() -> None:
    schema = record(
        contact={"type": "object", "properties": {"email": {"type": "string"}}},
        links={"type": "array", "items": {"type": "string"}, "description": "every link"},
    )

    answer = value(
        prompt(
            "Extract the fields.", "a@b.example, see https://x.example/1 and https://x.example/2"
        ),
        schema,
    )

    assert answer["contact"] == {"email": "a@b.example"}
    assert answer["links"] == ["https://x.example/1", "https://x.example/2"]


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=400) | st.text(alphabet="0123456789.,€$ -/:ORD\n", max_size=400))
def test_any_text_gives_a_record_that_follows_the_schema(text: str) -> None:
    spoken = ask(prompt(TOLD, text.replace("<", "&lt;")), ORDER)
    answer = value(prompt(TOLD, text.replace("<", "&lt;")), ORDER)

    assert compile_schema(ORDER)(answer) is None
    assert 0 <= spoken.confidence <= 1


@pytest.mark.parametrize("unit", ["EUR 1 ", "1.1.2020 ", "a-", "DE12 3456 ", "+1 2-3 ", "1", "A. "])
def test_a_huge_text_of_near_values_is_read_in_bounded_time(unit: str) -> None:
    text = unit * (100_000 // len(unit))

    answer: dict[str, Any] = value(prompt(TOLD, text), ORDER)

    assert set(answer) == set(ORDER["properties"])
