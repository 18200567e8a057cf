"""docs/failures.md says what the failure table says."""

from __future__ import annotations

from evalkit.call.failures import FAILURES
from scripts.failures import BEGIN, CAUSES, END, PAGE, made


def test_the_page_shows_the_table_as_it_is() -> None:
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    shown, _, _ = rest.partition(END)

    assert shown == made(), "write it anew: python -m scripts.failures"


def test_every_kind_and_no_other_has_its_cause_on_the_page() -> None:
    assert list(CAUSES) == list(FAILURES)
