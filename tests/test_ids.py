"""Words that nobody can guess, the same again for who has the secret."""

from __future__ import annotations

import re

from evalkit.ids import drawn_from


def test_of_one_secret_the_same_is_drawn_again() -> None:
    drawn = {drawn_from("s", "canary"), drawn_from("s", "canary")}

    assert len(drawn) == 1
    assert drawn.isdisjoint({drawn_from("s", "nonce"), drawn_from("t", "canary")})


def test_without_a_secret_every_word_is_another() -> None:
    drawn = {drawn_from(None, "canary") for _ in range(100)}

    assert len(drawn) == 100
    assert all(re.fullmatch("[0-9a-f]{16}", word) for word in drawn)
