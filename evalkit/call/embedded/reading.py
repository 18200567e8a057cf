"""Read a prompt: what is asked, with which labels, fields, examples and documents.

Input is what any model gets: the rendered messages and the response schema. The reading
is tolerant of phrasing (bullets, numbers, tables, `name: …`, `name — …`), but what a
prompt does not say, the model does not know. docs/embedded-model.md describes the rules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.call.embedded.text import sentences
from evalkit.records import Json, Message

MAX_LIST_ITEMS = 1_000
MAX_SHOTS = 500
MAX_SHOT_CHARS = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One line of a list in the prompt: a label or field, and what is said of it."""

    name: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemList:
    """A list in the prompt with the line above it."""

    heading: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One worked example of the prompt."""

    text: str
    answer: str

    @property
    def fields(self) -> Mapping[str, Json]:
        """The answer's fields where it is a JSON object, else none."""
        try:
            value = json.loads(self.answer)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document the prompt brings along."""

    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Instructions:
    """What a prompt says, apart from the data of the case: the same for every case."""

    text: str
    lists: tuple[ItemList, ...]
    shots: tuple[Shot, ...]
    schema: Mapping[str, Any] | None
    abstain_phrase: str | None
    """What to answer when the documents do not say; None when the prompt does not tell."""
    cite: bool
    short: bool
    null_if_absent: bool
    wants_json: bool

    def lists_about(self, topic: re.Pattern[str]) -> list[ItemList]:
        """The lists whose heading speaks of `topic`."""
        return [one for one in self.lists if topic.search(one.heading)]


LABEL_TOPIC = re.compile(
    r"\b(?:labels?|categor|class(?:es)?\b|queues?|teams?|departments?|routes?|intents?|topics?|"
    r"tags?|bucket|kinds?|types?|reasons?|one of|kategorie|etiquet|étiquet)",
    re.IGNORECASE,
)
FIELD_TOPIC = re.compile(
    r"\b(?:fields?|keys?|propert|attributes?|extract|values?|columns?|felder|campos|champs)",
    re.IGNORECASE,
)

_DATA = re.compile(r"<data(?:\s[^>]{0,200})?>\n?(.*?)\n?</data>", re.DOTALL)
_DOCUMENT = re.compile(r"<document\b([^>]{0,2000})>\n?(.*?)\n?</document>", re.DOTALL)
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_QUESTION_LINE = re.compile(
    r"^[ \t]*(?:customer(?:'s)? )?(?:question|query|frage|pregunta|input|text|ticket|message)"
    r"[ \t]*:[ \t]*(\S.*)$",
    re.IGNORECASE | re.MULTILINE,
)


def content_of(message: Message) -> str:
    """A message's text; parts that are not text are left out."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, Sequence):
        return ""
    parts = [part.get("text") for part in content if isinstance(part, Mapping)]
    return "\n".join(part for part in parts if isinstance(part, str))


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Messages parted into what the prompt says and what the case brings."""

    told: str
    pairs: tuple[tuple[str, str], ...]
    query: str
    documents: tuple[Document, ...]


def split_messages(messages: Sequence[Message]) -> Split:
    """Part instructions from data; data stands in `<data>` and `<document>` blocks.

    The last user message with such a block is the case (a re-ask may follow it); without
    any block it is the last user message, whole. User and assistant turns before it are
    worked examples.
    """
    users = [i for i, m in enumerate(messages) if m.get("role") == "user"]
    texts = [content_of(message) for message in messages]
    with_data = [i for i in users if _blocks(_DATA, texts[i]) or _blocks(_DOCUMENT, texts[i])]
    case = (with_data or users or [-1])[-1]
    systems = [t for m, t in zip(messages, texts, strict=True) if m.get("role") in _TELLING]
    pairs = [
        (_shown(texts[i]), texts[i + 1])
        for i in users
        if i < case and i + 1 < len(messages) and messages[i + 1].get("role") == "assistant"
    ]
    query, documents, rest = _case_of(texts[case]) if case >= 0 else ("", (), "")
    return Split(
        told="\n\n".join([*systems, rest]).strip(),
        pairs=tuple(pairs[:MAX_SHOTS]),
        query=query,
        documents=documents,
    )


_TELLING = ("system", "developer")


def _case_of(text: str) -> tuple[str, tuple[Document, ...], str]:
    """A user message's data, its documents, and what is left as instruction."""
    documents = tuple(_document(m[1], m[2]) for m in _blocks(_DOCUMENT, text))
    without = _without(_DOCUMENT, text)
    blocks = [_plain(block[1]) for block in _blocks(_DATA, without)]
    if blocks:
        return "\n".join(blocks), documents, _without(_DATA, without)
    asked = _QUESTION_LINE.findall(without)
    return (_plain(asked[-1] if asked else without.strip()), documents, "")


def _blocks(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    return list(pattern.finditer(text, 0, _closed(pattern, text)))


def _without(pattern: re.Pattern[str], text: str) -> str:
    end = _closed(pattern, text)
    return pattern.sub("\n", text[:end]) + text[end:]


def _closed(pattern: re.Pattern[str], text: str) -> int:
    """Where the last block ends: behind it, every open tag would be read on in vain."""
    tag = "</data>" if pattern is _DATA else "</document>"
    last = text.rfind(tag)
    return last + len(tag) if last >= 0 else 0


def _document(attributes: str, body: str) -> Document:
    named = dict(_ATTRIBUTE.findall(attributes))
    inner = _DATA.search(body, 0, _closed(_DATA, body))
    return Document(
        id=_plain(named.get("id", "")),
        title=_plain(named.get("title", "")),
        text=_plain(inner.group(1) if inner else body).strip(),
    )


def _shown(text: str) -> str:
    """The data of an example's user message, or the message where it has no block."""
    return "\n".join(_plain(block[1]) for block in _blocks(_DATA, text)) or _plain(text)


def _plain(text: str) -> str:
    return (
        text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"').replace("&amp;", "&")
    )


def read_instructions(
    told: str, pairs: Sequence[tuple[str, str]], schema: Mapping[str, Any] | None
) -> Instructions:
    """Take the prompt's own words apart."""
    shots = [Shot(text=text, answer=answer.strip()) for text, answer in pairs]
    in_text, rest = _shots_in(told)
    return Instructions(
        text=rest,
        lists=tuple(_lists_in(rest)),
        shots=tuple([*shots, *in_text][:MAX_SHOTS]),
        schema=schema,
        abstain_phrase=_abstain_phrase(rest),
        cite=bool(_CITE.search(_FORM.sub(" ", rest))),
        short=bool(_SHORT.search(rest)),
        null_if_absent=any(_tells_null(sentence) for sentence in _loose_sentences(rest)),
        wants_json=schema is not None or bool(re.search(r"\bJSON\b", rest)),
    )


# --- lists -------------------------------------------------------------------------

_BULLET = re.compile(
    r"^[ \t]*(?:[-*•+–]|\d{1,3}[.)]|\([a-z0-9]{1,2}\))[ \t]+(\S.*)$", re.IGNORECASE
)
_TABLE_ROW = re.compile(r"^[ \t]*\|(.+)\|[ \t]*$")
_HEADING = re.compile(r"^[ \t]*(?:#{1,6}[ \t]+(.+?)|(\S.*?:)[*_]*|\*\*(.+?)\*\*)[ \t]*$")
_QUOTED_NAME = re.compile(
    r"^(?:\*\*|__)?[`\"“'‘«]?(?P<name>[^`\"”'’»*:|=]{1,60}?)[`\"”'’»]?(?:\*\*|__)?"
    r"(?:[ \t]*\([^)]{0,60}\))?[ \t]*"
    r"(?:(?:\*\*|__)?(?::|=)(?:\*\*|__)?[ \t]+|[ \t]+[-–—][ \t]+|[ \t]*[–—][ \t]*|[ \t]*(?:->|→|=>)[ \t]*)"
    r"(?P<description>\S.*)$"
)
_BARE_NAME = re.compile(
    r"^(?:\*\*|__)?[`\"“'‘«]?([^`\"”'’»*:|]{1,60}?)[`\"”'’»]?(?:\*\*|__)?[.;,:]?$"
)
_MAX_NAME_WORDS = 6


def _lists_in(text: str) -> Iterator[ItemList]:
    """Every list with its heading; `Labels: a, b, c` on one line counts as well."""
    heading, items, gap = "", [], 0
    for line in text.splitlines():
        item = _item(line, under=heading)
        if item is not None:
            items.append(item)
            gap = 0
        elif items and line[:1] in " \t" and line.strip() and not _HEADING.match(line):
            last = items[-1]
            items[-1] = Item(name=last.name, description=f"{last.description} {line.strip()}")
        elif not line.strip():
            gap += 1
        else:
            if items:
                yield ItemList(heading=heading, items=tuple(items[:MAX_LIST_ITEMS]))
            found = _HEADING.match(line)
            heading = next((g for g in found.groups() if g), "") if found else line
            items, gap = [], 0
            inline = _inline_items(line)
            if inline:
                yield ItemList(heading=line, items=inline)
    if items:
        yield ItemList(heading=heading, items=tuple(items[:MAX_LIST_ITEMS]))


def _item(line: str, *, under: str) -> Item | None:
    row = _TABLE_ROW.match(line)
    if row:
        cells = [cell.strip().strip("`*\"'") for cell in row.group(1).split("|")]
        if not cells[0] or set(cells[0]) <= set("-: ") or cells[0].casefold() in _TABLE_HEADS:
            return None if not cells[0] else Item(name="", description="")
        return Item(name=cells[0], description=" ".join(cells[1:]).strip())
    bullet = _BULLET.match(line)
    listing = bool(under) and bool(LABEL_TOPIC.search(under) or FIELD_TOPIC.search(under))
    if not bullet and not (listing and under.rstrip("*_ ").endswith(":")):
        return None
    content = bullet.group(1).strip() if bullet else line.strip()
    named = _QUOTED_NAME.match(content)
    if named and len(named["name"].split()) <= _MAX_NAME_WORDS:
        return Item(name=named["name"].strip(), description=named["description"].strip())
    if not bullet:
        return None
    bare = _BARE_NAME.match(content)
    if bare and len(bare.group(1).split()) <= _MAX_NAME_WORDS:
        return Item(name=bare.group(1).strip(), description="")
    return Item(name="", description=content)


_TABLE_HEADS = frozenset(
    "label labels category categories class queue team field fields name key intent topic route "
    "value tag department column property type reason code id input text example ticket".split()
)

_INLINE = re.compile(
    r"(?:\b(?:labels?|categor\w+|class(?:es)?|queues?|teams?|departments?|routes?|intents?|topics?|"
    r"tags?|fields?|keys?|one of|values?)\b[^:\n]{0,60}:|\bone of(?: these| the following)?\b(?! the)[^`\"“'\n:]{0,30}?)"
    r"[ \t]*(?P<list>[`\"“'\w][^\n]*?[,|/][^\n]+)$",
    re.IGNORECASE,
)
_INLINE_BREAK = re.compile(
    r"[ \t]*(?:,|;|\||/)[ \t]*(?:(?:or|and|oder|und)[ \t]+)?|[ \t]+(?:or|and|oder|und)[ \t]+"
)


def _inline_items(line: str) -> tuple[Item, ...]:
    found = _INLINE.search(line)
    if not found:
        return ()
    listed = re.split(r"(?<=[\w`\"”'])\.(?:\s|$)", found["list"])[0]
    names = [name.strip(" `\"“”'‘’*.") for name in _INLINE_BREAK.split(listed)]
    if any(not name or len(name.split()) > 4 for name in names):
        return ()
    return tuple(Item(name=name, description="") for name in names)


# --- worked examples -----------------------------------------------------------------

_ASK = (
    r"input|text|ticket|message|customer(?: message)?|e-?mail|mail|question|q|user|note|request|"
    r"order|document|eingabe|entrada|entrée"
)
_REPLY = (
    r"output|labels?|category|answer|a|result|json|assistant|expected|reply|response|queue|team|"
    r"intent|ausgabe|salida|sortie"
)
_SHOT = re.compile(
    rf"^[ \t>*_-]*(?:{_ASK})(?:[ \t]*\d+)?[*_]*[ \t]*:[*_]*(?P<text>.{{1,{MAX_SHOT_CHARS}}}?)\n+"
    rf"[ \t>*_-]*(?:{_REPLY})(?:[ \t]*\d+)?[*_]*[ \t]*:[*_]*(?P<answer>.{{1,{MAX_SHOT_CHARS}}}?)"
    rf"(?=\n[ \t]*\n|\n[ \t>*_#-]*(?:example|{_ASK})\b[^\n]{{0,40}}:|\n#|\Z)",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
_ARROW_SHOT = re.compile(
    r"^[ \t]*(?:[-*•]|\d+[.)])?[ \t]*[\"“'‘«](?P<text>[^\n]{2,600}?)[\"”'’»][ \t]*"
    r"(?:->|→|=>|⇒|:|=|–|—)[ \t]*(?P<answer>[^\n]{1,600}?)[ \t]*$",
    re.MULTILINE,
)
_FENCE = re.compile(r"^```\w*\n?|\n?```$")


def _shots_in(text: str) -> tuple[list[Shot], str]:
    """Worked examples written into the prompt's text, and the text without them."""
    shots: list[Shot] = []

    def take(match: re.Match[str]) -> str:
        shown, answer = _bare(match["text"]), _bare(match["answer"])
        if match.re is _ARROW_SHOT and len(answer.split()) > 2 >= len(shown.split()):
            return match.group()  # `"late" → the parcel is overdue` describes a label
        shots.append(Shot(text=shown, answer=answer))
        return "\n"

    return shots, _ARROW_SHOT.sub(take, _SHOT.sub(take, text))


def _bare(text: str) -> str:
    stripped = _FENCE.sub("", _shown(text.strip())).strip()
    if len(stripped) > 1 and stripped[0] in "\"“'‘«`" and stripped[-1] in "\"”'’»`":
        stripped = stripped[1:-1]
    return stripped


# --- instructions ----------------------------------------------------------------------

_CITE = re.compile(
    r"\b(?:cite|cites|citing|citations?|zitier\w*)\b|\bids?\b[^.\n]{0,40}\bdocuments?\b|"
    r"\bdocuments?(?:'s)? ids?\b|\b(?:name|list|give|quote|state|mention)\b[^.\n]{0,40}\bsources?\b",
    re.IGNORECASE,
)
_FORM = re.compile(r"\{[^{}]{0,2000}\}")
"""The answer's form written out, such as `{"citations": []}`: it names keys, it asks for nothing."""
_SHORT = re.compile(
    r"\b(?:one|a single|1) sentence\b|\bshort(?:ly)?\b|\bconcise(?:ly)?\b|\bbrief(?:ly)?\b|"
    r"\bas few words\b",
    re.IGNORECASE,
)
_NULL = re.compile(
    r"\bnull\b|\bNone\b|\bleave (?:it|them|the field)?\s?(?:empty|blank|out)\b", re.IGNORECASE
)
_ABSENT = re.compile(
    r"\b(?:not|no|n't|absent|missing|without|unknown|unclear|unsure|only|nowhere|cannot|unless|"
    r"lacks?|doesn't|isn't|don't|guess|invent)\b",
    re.IGNORECASE,
)
_NOT_THERE = re.compile(
    r"\b(?:not|no|n't|cannot|can't|don't|doesn't|isn't|none|never|without|unless|missing|unsure|"
    r"neither|nothing|insufficient|lack|outside|fail)\b|n't\b",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"\b(?:if|when|whenever|unless|in case|where|otherwise|falls|wenn)\b", re.IGNORECASE
)
_SAY = r"(?:say|answer|reply|respond|write|return|output|use|state|give|antworte|put|set)"
_QUOTED = re.compile(
    r"[\"“«]([^\"”»\n]{2,160})[\"”»]|`([^`\n]{2,160})`|(?<!\w)['‘]([^'’\n]{2,160}?(?:n['’]t[^'’\n]{0,120}?)?)['’](?!\w)"
)
_UNQUOTED_PHRASE = re.compile(
    rf"\b{_SAY}(?: with| only| exactly| just)*:?[ \t]+([A-Z][A-Z_ ]{{3,40}}[A-Z]|unknown)\b"
)
_SAYS_UNKNOWN = re.compile(
    rf"\b{_SAY}\b[^.\n]{{0,30}}\b(?:you (?:do not|don't|cannot|can't) (?:know|answer|tell|find)|"
    r"it is (?:not known|unknown))",
    re.IGNORECASE,
)


def _loose_sentences(text: str) -> list[str]:
    """Sentences, with a line that ends in a colon joined to the one after it."""
    return sentences(re.sub(r":[ \t]*\n+[ \t]*(?=[\"“'`])", ": ", text))


def _tells_null(sentence: str) -> bool:
    return bool(
        _NULL.search(sentence) and (_ABSENT.search(sentence) or _CONDITION.search(sentence))
    )


def _abstain_phrase(text: str) -> str | None:
    """What the prompt says to answer when nothing fits; a hint without words gets ours."""
    for sentence in _loose_sentences(text):
        if not (_CONDITION.search(sentence) and _NOT_THERE.search(sentence)):
            continue
        if not re.search(rf"\b{_SAY}\b", sentence, re.IGNORECASE):
            continue
        quoted = [next(g for g in groups if g) for groups in _QUOTED.findall(sentence)]
        if quoted:
            return str(quoted[-1])
        unquoted = _UNQUOTED_PHRASE.search(sentence)
        if unquoted:
            return unquoted.group(1)
        if _SAYS_UNKNOWN.search(sentence):
            return "I don't know."
    return None
