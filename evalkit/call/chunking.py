"""Cut documents into chunks along their structure: sections, then blocks, then sentences.

A chunk never crosses a heading, and a list, a table or a block of code is only cut when
it is longer than a chunk may be. An id names the section, `returns.md#refunds`, so that
judgements of relevance outlive an edit elsewhere in the document.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evalkit.call.embedded.text import sentences

CHUNK_TOKENS = 300
"""About 150 words: as much as one thought needs, and as sentence vectors can read."""
MAX_SLUG_CHARS = 48
ID_MARK = "#"
"""Stands between a document's id and its part."""
SECTION_MARK = " > "
BYTES_PER_TOKEN = 3
"""Of UTF-8. Chunks must not depend on who reads them, so that no model's own count is used."""
MAX_CHAR_BYTES = 4
"""Of a character in UTF-8."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What is searched, before it is cut."""

    id: str
    text: str
    title: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A part of a document, as a model is given it."""

    id: str
    text: str
    score: float = 0.0
    """What the retriever thinks of it for one query; comparable within that query alone."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The document's own, with `document`, `title` and `section`."""

    def as_document(self) -> dict[str, str]:
        """As a prompt's `documents` want it: id, text, and a title where there is one."""
        title = self.metadata.get("section") or self.metadata.get("title")
        return {"id": self.id, "text": self.text} | ({"title": str(title)} if title else {})


def count_tokens(text: str) -> int:
    """Tokens of a text, an estimate on the high side."""
    return len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN + 1


def chunk_document(document: Document, *, max_tokens: int = CHUNK_TOKENS) -> list[Chunk]:
    """The chunks of a document, in its order; none is empty."""
    title = document.title
    parts = _Parts()
    chunks = []
    for headings, blocks in _sections(document.text):
        title = title or (headings[0] if headings else None)
        section = SECTION_MARK.join(headings)
        for text in _packed(blocks, max_tokens):
            facts = {"document": document.id, "title": title, "section": section}
            known = {key: value for key, value in facts.items() if value}
            part = parts.name(headings[-1] if headings else "")
            chunks.append(
                Chunk(
                    id=f"{document.id}{ID_MARK}{part}",
                    text=text,
                    metadata={**document.metadata, **known},
                )
            )
    return chunks


class _Parts:
    """Names of a document's parts: `refunds`, `refunds-2`, …; without a heading 1, 2, …"""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._taken: set[str] = set()

    def name(self, heading: str) -> str:
        plain = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode().lower()
        slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:MAX_SLUG_CHARS].strip("-")
        while True:
            self._counts[slug] += 1
            number = self._counts[slug]
            part = str(number) if not slug else slug if number == 1 else f"{slug}-{number}"
            if part not in self._taken:
                self._taken.add(part)
                return part


# --- structure -------------------------------------------------------------------------

_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.+?)[ \t]*#*[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ITEM = re.compile(r"\s*(?:[-*+•]|\d{1,9}[.)])\s+\S")
_ROW = re.compile(r"\s*\|.*\|\s*$")


@dataclass(frozen=True, slots=True)
class _Block:
    """Lines that belong together."""

    kind: str
    """paragraph | list | table | code"""
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def _sections(text: str) -> Iterator[tuple[list[str], list[_Block]]]:
    """Runs of blocks under the same headings, with these from the outermost on."""
    headings: list[tuple[int, str]] = []
    blocks: list[_Block] = []
    for found in _blocks(text.replace("\r\n", "\n").replace("\r", "\n").split("\n")):
        if isinstance(found, _Block):
            blocks.append(found)
            continue
        if blocks:
            yield [name for _, name in headings], blocks
        blocks = []
        headings = [one for one in headings if one[0] < found[0]] + [found]
    if blocks:
        yield [name for _, name in headings], blocks


def _blocks(lines: Sequence[str]) -> Iterator[_Block | tuple[int, str]]:
    """Blocks, and headings as (level, words), in order."""
    kept: list[str] = []
    kind, fence = "", ""
    for line in lines:
        if fence:
            kept.append(line)
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                yield _Block("code", tuple(kept))
                kept, kind, fence = [], "", ""
            continue
        heading, opens = _HEADING.match(line), _FENCE.match(line)
        found = _kind_of(line, kind)
        if kept and (heading or opens or found != kind):
            yield _Block(kind, tuple(kept))
            kept = []
        kind = found
        if heading:
            kind = ""
            yield len(heading[1]), heading[2]
        elif opens:
            fence, kept = opens[1], [line]
        elif kind:
            kept.append(line.rstrip())
    if kept:
        yield _Block("code" if fence else kind, tuple(kept))


def _kind_of(line: str, before: str) -> str:
    """What a line is, after a line of kind `before`; "" for an empty one."""
    if not line.strip():
        return ""
    if _ROW.match(line):
        return "table"
    if _ITEM.match(line):
        return "list"
    return "list" if before == "list" else "paragraph"


# --- sizes -----------------------------------------------------------------------------


def _packed(blocks: Sequence[_Block], max_tokens: int) -> Iterator[str]:
    """As many blocks in a chunk as fit; one that does not fit alone is cut."""
    kept: list[str] = []
    for piece in (piece for block in blocks for piece in _cut(block, max_tokens)):
        if kept and count_tokens("\n\n".join([*kept, piece])) > max_tokens:
            yield "\n\n".join(kept)
            kept = []
        kept.append(piece)
    if kept:
        yield "\n\n".join(kept)


def _cut(block: _Block, max_tokens: int) -> Iterator[str]:
    """A block in pieces that fit: sentences of a paragraph, lines of anything else."""
    if count_tokens(block.text) <= max_tokens:
        yield block.text
        return
    head = "\n".join(block.lines[:2]) if block.kind == "table" else ""
    lines = block.lines[2:] if head else block.lines
    parts = sentences(" ".join(lines)) if block.kind == "paragraph" else lines
    joint = " " if block.kind == "paragraph" else "\n"
    room = max(max_tokens - count_tokens(head), max_tokens // 2) if head else max_tokens
    for run in _runs(parts, joint, room):
        yield f"{head}\n{run}" if head else run


def _runs(parts: Sequence[str], joint: str, max_tokens: int) -> Iterator[str]:
    kept = ""
    for piece in (piece for part in parts for piece in _short_enough(part, max_tokens)):
        longer = f"{kept}{joint}{piece}" if kept else piece
        if kept and count_tokens(longer) > max_tokens:
            yield kept
            longer = piece
        kept = longer
    if kept.strip():
        yield kept


def _short_enough(text: str, max_tokens: int) -> Iterator[str]:
    """A text as it is, or cut behind a word or sentence, or anywhere where there is none."""
    if count_tokens(text) <= max_tokens:
        yield text
        return
    size = max(1, max_tokens * BYTES_PER_TOKEN // MAX_CHAR_BYTES)
    while text:
        ends = [text.rfind(mark, size // 2, size) + 1 for mark in " 。！？"]
        at = len(text) if len(text) <= size else max(ends) or size
        yield text[:at].strip(" ")
        text = text[at:].lstrip(" ")
