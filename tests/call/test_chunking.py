"""Chunks follow a document's structure and stay within their size."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from evalkit.call.chunking import Chunk, Document, chunk_document, count_tokens

HELP = """Before any heading.

# Returns

You can return most items:

- within 30 days
- with the label,
  which is free

## Refunds

We refund within 3 days.

## Refunds

| country | days |
| --- | --- |
| DE | 2 |

### 2

```
# no heading
print(1)

print(2)
```
"""


def chunks_of(text: str, *, max_tokens: int = 300) -> list[Chunk]:
    return chunk_document(Document(id="help.md", text=text), max_tokens=max_tokens)


def test_each_section_is_a_chunk_named_after_its_heading() -> None:
    chunks = chunks_of(HELP)

    assert [chunk.id for chunk in chunks] == [
        "help.md#1",
        "help.md#returns",
        "help.md#refunds",
        "help.md#refunds-2",
        "help.md#2",
    ]
    assert chunks[2].text == "We refund within 3 days."
    assert chunks[4].metadata["section"] == "Returns > Refunds > 2"
    assert "# no heading\nprint(1)\n\nprint(2)" in chunks[4].text


def test_a_list_stays_with_what_introduces_it() -> None:
    returns = chunks_of(HELP)[1].text

    assert returns.startswith("You can return most items:")
    assert returns.endswith("- with the label,\n  which is free")


def test_a_heading_without_text_is_no_chunk() -> None:
    assert chunks_of("# One\n\n# Two\n\n") == []
    assert chunks_of("") == []


def test_an_edit_in_one_section_leaves_the_ids_of_others() -> None:
    before = [chunk.id for chunk in chunks_of(HELP)]

    after = [
        chunk.id for chunk in chunks_of(HELP.replace("# Returns", "# New\n\nText.\n\n# Returns"))
    ]

    assert [id for id in after if id != "help.md#new"] == before


def test_initials_alone_cost_no_quadratic_time() -> None:
    started = time.process_time()
    chunks = chunks_of("A. " * 20_000)

    assert time.process_time() - started < 2.0  # quadratic: about half a minute
    assert sum(chunk.text.count("A.") for chunk in chunks) == 20_000


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    text = " ".join(f"Sentence number {n} says a little." for n in range(40))

    chunks = chunks_of(text, max_tokens=60)

    assert len(chunks) > 5
    assert " ".join(chunk.text for chunk in chunks) == text
    assert all(chunk.text.endswith("little.") for chunk in chunks)


def test_a_long_table_keeps_its_head_in_every_chunk() -> None:
    rows = "\n".join(f"| country {n} | {n} days |" for n in range(60))

    chunks = chunks_of(f"| country | time |\n| --- | --- |\n{rows}", max_tokens=80)

    assert len(chunks) > 3
    assert all(chunk.text.startswith("| country | time |\n| --- |") for chunk in chunks)


def test_a_language_without_spaces_is_cut_behind_its_full_stops() -> None:
    text = "返品は三十日以内に可能です。送料は無料です。" * 40

    chunks = chunks_of(text, max_tokens=100)

    assert "".join(chunk.text.replace(" ", "") for chunk in chunks) == text
    assert all(chunk.text.endswith("。") for chunk in chunks)


def test_a_document_for_a_prompt_has_id_text_and_title() -> None:
    chunk = chunks_of(HELP)[2]

    assert chunk.as_document() == {
        "id": "help.md#refunds",
        "text": "We refund within 3 days.",
        "title": "Returns > Refunds",
    }


PIECES = ["- item\n", "1. one\n", "\n", "word ", "```\n", "~~~\n", "é" * 50, "x" * 400, "End. ",
          "\t", "\r\n", "字" * 60, "字。", "---\n"]  # fmt: skip
STRUCTURE = ["# A\n", "## B b\n", "# 2\n", "# A 2\n", "| a | b |\n", "#"]


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join), st.integers(8, 100))
@settings(max_examples=150, deadline=None)
def test_no_letter_is_lost_or_doubled(text: str, max_tokens: int) -> None:
    chunks = chunks_of(text, max_tokens=max_tokens)

    kept = "".join(chunk.text for chunk in chunks)
    assert "".join(kept.split()) == "".join(text.split())


@given(st.lists(st.sampled_from(PIECES + STRUCTURE), max_size=60).map("".join))
@settings(max_examples=150, deadline=None)
def test_no_chunk_is_empty_too_long_or_named_as_another(text: str) -> None:
    chunks = chunks_of(text, max_tokens=60)

    ids = [chunk.id for chunk in chunks]
    assert len(set(ids)) == len(ids)
    assert all(chunk.text.strip() for chunk in chunks)
    assert all(count_tokens(chunk.text) <= 61 for chunk in chunks)
