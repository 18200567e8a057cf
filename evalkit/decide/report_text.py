"""Turn numbers and foreign text into what a report shows: short, bounded, never hidden.

Pure functions for the report's template. Model output is hostile: what cannot be seen is
written as an escape, what is long is cut and the rest counted. HTML is escaped elsewhere,
by the template engine, always.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from evalkit.strict import StrictError, loads_json

MAX_SHOWN_CHARS = 4_000
MAX_COMPARED = 600_000
"""Words of one text times those of the other, without what both begin and end with."""
MIN_ALIKE = 0.35
"""Texts less alike than this share are not marked word by word: all of it would be."""
NOT_KNOWN = "–"
SMALLEST_PRICE = 1e-9
"""In dollars; what is less is written with an exponent."""

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200e\u200f"
    "\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0e\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
)
"""Controls but tab and newline, what turns or hides text, halves of surrogate pairs."""
_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


def visible(value: Any) -> str:
    """Any value as text in which nothing is hidden; None is `NOT_KNOWN`."""
    if value is None:
        return NOT_KNOWN
    text = str(value).replace("\r\n", "\n")
    return _INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


# --- numbers ------------------------------------------------------------------------


def score(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.3f}"


def points(delta: float | None) -> str:
    """A difference of scores in points of 100, with its sign."""
    if delta is None:
        return NOT_KNOWN
    rounded = round(100 * delta, 1)
    sign = "−" if rounded < 0 else "+" if rounded > 0 else "±"
    return f"{sign}{abs(rounded):.1f}"


def interval(ci: Sequence[float] | None) -> str:
    return NOT_KNOWN if not ci else f"{points(ci[0])} to {points(ci[1])}"


def p_value(value: float | None, *, sign: bool = False) -> str:
    """A p-value; with `sign` as it goes on after the letter p."""
    if value is None:
        return NOT_KNOWN
    if value < 0.0001:
        return "< 0.0001"
    return ("= " if sign else "") + (f"{value:.4f}" if value < 0.1 else f"{value:.2f}")


def percent(share: float | None) -> str:
    return NOT_KNOWN if share is None else f"{100 * share:.1f} %"


def milliseconds(value: float | None) -> str:
    if value is None:
        return NOT_KNOWN
    if value < 10_000:
        return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"
    return f"{value / 1000:,.1f} s"


def dollars(value: float | None) -> str:
    """A price: cents, of less than a dollar three digits; an unknown one is never shown as 0."""
    if value is None:
        return "not known"
    if value == 0:
        return "$0"
    if abs(value) < SMALLEST_PRICE:
        return f"${value:.3g}"
    digits = max(2, 2 - math.floor(math.log10(abs(value))))
    whole, _, part = f"{value:,.{digits}f}".partition(".")
    return f"${whole}.{part.rstrip('0').ljust(2, '0')}"


def amount(value: float | None) -> str:
    """A mean of counts: one digit after the point below ten."""
    if value is None:
        return NOT_KNOWN
    return f"{value:,.1f}" if 0 < value < 10 else f"{value:,.0f}"


def hundredths(value: float | None) -> str:
    return NOT_KNOWN if value is None else f"{value:.2f}".replace("-", "−")


def changed_by(before: float | None, after: float | None) -> str:
    """A change as a share of what was; empty where there is none to be told."""
    if not before or after is None:
        return ""
    share = round(100 * (after / before - 1))
    return f"{'−' if share < 0 else '+' if share > 0 else '±'}{abs(share)} %"


def count(number: int, thing: str, *, plural: str | None = None) -> str:
    return f"{number:,} {thing if number == 1 else plural or thing + 's'}"


# --- texts --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shown:
    """A text as the report shows it, in pieces; `marked` ones differ from the other side."""

    pieces: tuple[tuple[str, bool], ...]
    n_cut: int = 0
    """Characters that are not shown."""

    @property
    def text(self) -> str:
        return "".join(piece for piece, _ in self.pieces)


def shown(text: str, limit: int = MAX_SHOWN_CHARS) -> Shown:
    """The beginning of a text, nothing hidden in it."""
    return Shown(((visible(text[:limit]), False),), max(0, len(text) - limit))


def side_by_side(before: str, after: str) -> tuple[Shown, Shown]:
    """Two texts with the words marked in which they differ."""
    left, right = shown(before), shown(after)
    a, b = _TOKEN.findall(left.text), _TOKEN.findall(right.text)
    words_a, words_b = _words(a), _words(b)
    start, end = _alike_ends([a[n] for n in words_a], [b[n] for n in words_b])
    inner_a, inner_b = words_a[start : len(words_a) - end], words_b[start : len(words_b) - end]
    if left.text == right.text or len(inner_a) * len(inner_b) > MAX_COMPARED:
        return left, right
    matcher = SequenceMatcher(None, [a[n] for n in inner_a], [b[n] for n in inner_b], False)
    blocks = matcher.get_matching_blocks()
    alike = start + end + sum(block.size for block in blocks)
    if not alike or 2 * alike < MIN_ALIKE * (len(words_a) + len(words_b)):
        return left, right
    for block in blocks:
        inner_a[block.a : block.a + block.size] = [-1] * block.size
        inner_b[block.b : block.b + block.size] = [-1] * block.size
    return (
        Shown(_pieces(a, set(inner_a)), left.n_cut),
        Shown(_pieces(b, set(inner_b)), right.n_cut),
    )


def _words(tokens: Sequence[str]) -> list[int]:
    """Places of what is no blank."""
    return [n for n, token in enumerate(tokens) if not token.isspace()]


def _alike_ends(a: Sequence[str], b: Sequence[str]) -> tuple[int, int]:
    """How many words two texts share at their beginning, and then at their end."""
    room = min(len(a), len(b))
    start = next((n for n in range(room) if a[n] != b[n]), room)
    room -= start
    return start, next((n for n in range(room) if a[-1 - n] != b[-1 - n]), room)


def _pieces(tokens: Sequence[str], marked: set[int]) -> tuple[tuple[str, bool], ...]:
    """Runs of tokens that are marked alike; a blank between two marked words joins them."""
    marks = [n in marked for n in range(len(tokens))]
    pieces: list[tuple[str, bool]] = []
    following = [*marks[1:], False]
    for token, word, after in zip(tokens, marks, following, strict=True):
        joins = token.isspace() and "\n" not in token and after and pieces and pieces[-1][1]
        mark = word or bool(joins)
        if pieces and pieces[-1][1] == mark:
            pieces[-1] = (pieces[-1][0] + token, mark)
        else:
            pieces.append((token, mark))
    return tuple(pieces)


def readable_output(text: str) -> str:
    """An answer for people: JSON objects and lists indented, all else as it came."""
    if text[:1] not in "{[" or len(text) > MAX_SHOWN_CHARS:
        return text
    try:
        return json.dumps(loads_json(text, where=""), indent=2, ensure_ascii=False)
    except StrictError:
        return text


def readable_value(value: Any) -> str:
    """An input or expected value: a bare text as it is, `{"text": …}` too, else YAML-like."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value and len(value) <= 20:
        if len(value) == 1 and isinstance(only := next(iter(value.values())), str):
            return only
        return "\n".join(f"{key}: {_one_value(item)}" for key, item in value.items())
    return json.dumps(value, indent=2, ensure_ascii=False)


def _one_value(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        return "".join(f"\n- {_document(one)}" for one in value)
    return json.dumps(value, ensure_ascii=False)


def _document(one: dict[str, Any]) -> str:
    """A document as people write one; anything else as JSON."""
    if one.keys() <= {"id", "title", "text"} and isinstance(one.get("text"), str):
        title = f"{one['title']}: " if one.get("title") else ""
        return f"[{one.get('id', '')}] {title}{one['text']}"
    return json.dumps(one, ensure_ascii=False)
