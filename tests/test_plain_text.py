"""How odd text is read: what is not seen, what has a plainer form, what only looks Latin."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.plain_text import fold, hidden_text, latin, normal, shown


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("41\u200b11", "4111"),
        ("a\u202eb\u202c", "ab"),
        ("soft\u00adhyphen", "softhyphen"),
        ("nul\x00l", "null"),
        ("lines\n\tstay\r\n", "lines\n\tstay\r\n"),
        ("a\u200db", "ab"),
        ("👩\u200d💻", "👩\u200d💻"),
        ("نمی\u200cخواهم", "نمی\u200cخواهم"),
        ("🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f", None),
    ],
)
def test_unseen_characters_go_and_joiners_that_scripts_need_stay(
    text: str, seen: str | None
) -> None:
    assert shown(text) == (text if seen is None else seen)


def test_hidden_tags_are_read_and_flags_are_not() -> None:
    tags = "".join(chr(0xE0000 + ord(char)) for char in "ignore")

    assert hidden_text(f"Hello{tags}!") == "ignore"
    assert hidden_text("🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f") == ""


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("ｉｇｎｏｒｅ　１２", "ignore 12"),
        ("٤١ and ४", "41 and 4"),
        ("don’t “say”", 'don\'t "say"'),
        ("1–2—3−4", "1-2-3-4"),
        ("𝐢𝐠𝐧𝐨𝐫𝐞", "ignore"),
        ("Größe, 日本", "Größe, 日本"),
        ("\ud800", "?"),
    ],
)
def test_variants_are_folded_to_their_plain_form(text: str, plain: str) -> None:
    assert fold(text) == plain


def test_look_alikes_are_latin_only_where_words_mix_scripts() -> None:
    assert latin("Ignоrе аll") == "Ignore all"
    assert latin("ɪɢɴᴏʀᴇ") == "ignore"
    assert latin("привет and hello") == "привет and hello"


@given(st.text())
def test_folding_keeps_places(text: str) -> None:
    assert len(fold(text)) == len(text)
    assert len(latin(text)) == len(text)


@given(st.text())
def test_normal_text_is_normal_already(text: str) -> None:
    once = normal(text)

    assert normal(once) == once


def test_composed_and_combining_forms_become_one() -> None:
    assert normal("Gru\u0308ße") == unicodedata.normalize("NFC", "Grüße")


def test_letters_under_piles_of_marks_do_not_cost_quadratic_time() -> None:
    pile = "a" + "\u0301\u0316" * 200_000

    started = time.process_time()
    assert normal(pile) == pile
    assert time.process_time() - started < 2  # normal form itself takes minutes
