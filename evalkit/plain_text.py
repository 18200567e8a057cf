"""Read text as a person sees it: unseen characters, other widths, look-alike letters.

One pass in RE2 says what is odd about a text; most texts have nothing, and cost no more
than that pass. `fold` and `latin` keep the length, so places in their result are places
in the text. Normal forms: Unicode annex 15; look-alikes: the common ones of Unicode TR 39.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from functools import lru_cache
from typing import Any

MAX_MARKS = 30
"""Combining marks on one letter; with more, normal form would cost quadratic time."""

_ODD = (
    # 0: characters nobody sees, and joiners, which some scripts need
    (
        r"[\x00-\x08\x0b\x0e-\x1f\x7f\x{ad}\x{34f}\x{115f}\x{1160}\x{17b4}\x{17b5}\x{180b}-\x{180e}"
        r"\x{200b}-\x{200f}\x{202a}-\x{202e}\x{2060}-\x{206f}\x{3164}\x{feff}\x{ffa0}"
        r"\x{fff9}-\x{fffb}\x{e0000}-\x{e0fff}]"
    ),
    # 1: more marks than any script puts on a letter
    rf"\pM{{{MAX_MARKS + 1}}}",
    # 2: what has a plainer form: digits, dashes, quotes, spaces, widths, ligatures
    (
        r"[^\P{Nd}0-9]|[^\P{Pd}\-]|[^\P{Zs} ]|[\x{aa}\x{b2}\x{b3}\x{b9}\x{ba}\x{2018}-\x{201f}"
        r"\x{2024}\x{2032}\x{2070}-\x{209f}\x{2100}-\x{218f}\x{2212}\x{2460}-\x{24ff}"
        r"\x{3000}-\x{3004}\x{3200}-\x{33ff}\x{f900}-\x{fdff}\x{fe10}-\x{feff}\x{ff01}-\x{ffee}"
        r"\x{1d400}-\x{1d7ff}\x{1f100}-\x{1f16f}]"
    ),
    # 3: words of Latin and look-alike letters mixed, or of small capitals
    (
        r"[A-Za-z][\x{370}-\x{4ff}]|[\x{370}-\x{4ff}][A-Za-z]"
        r"|[\x{250}-\x{2af}\x{1d00}-\x{1d2b}\x{a730}\x{a731}]{2}"
    ),
    # 4: tags, a copy of ASCII that is not shown
    r"[\x{e0020}-\x{e007e}]{4}",
)
_UNSEEN, _MARKS, _FOLDABLE, _MIXED, _TAGS = range(len(_ODD))


def _odd_in(text: str) -> Collection[int]:
    try:
        return _odd().Match(text) or ()
    except UnicodeEncodeError:  # lone surrogates
        return _odd().Match(text.encode("utf-8", "replace")) or (_FOLDABLE,)


@lru_cache(maxsize=1)
def _odd() -> Any:
    import re2

    patterns = re2.Set.SearchSet()
    for pattern in _ODD:
        patterns.Add(pattern)
    patterns.Compile()
    return patterns


# --- what is not seen -----------------------------------------------------------------

_REGION = re.compile("\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{2,6}\U000e007f")
"""Flags of regions (Scotland, Wales) are the honest use of tags."""
_UNSEEN_CHARS = re.compile(
    f"({_REGION.pattern})"
    "|[\x00-\x08\x0b\x0e-\x1f\x7f\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u200e"
    "\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
    "|(?<=[\x00-\x7f\uff01-\uff5e])[\u200c\u200d]|[\u200c\u200d](?=[\x00-\x7f\uff01-\uff5e])"
)


def shown(text: str) -> str:
    """`text` without characters nobody sees; joiners stay where scripts and emoji need them."""
    if text.isascii() and text.replace("\n", " ").isprintable():
        return text
    return _UNSEEN_CHARS.sub(r"\1", text) if _UNSEEN in _odd_in(text) else text


def composed(text: str) -> str:
    """`text` in normal form C; as it is where that would take quadratic time."""
    if text.isascii() or _MARKS in _odd_in(text):
        return text
    return unicodedata.normalize("NFC", text)


def normal(text: str) -> str:
    """`text` as it is shown, in normal form C."""
    odd = () if text.isascii() else _odd_in(text)
    if text.isascii() or _MARKS in odd:
        return shown(text)
    if _UNSEEN in odd:
        text = _UNSEEN_CHARS.sub(r"\1", text)
        if _MARKS in _odd_in(text):
            return text
    return unicodedata.normalize("NFC", text)


def hidden_text(text: str) -> str:
    """What `text` says in tag characters; empty when it says nothing there."""
    if text.isascii() or _TAGS not in _odd_in(text):
        return ""
    rest = _REGION.sub("", text)
    return "".join(chr(ord(c) - 0xE0000) for c in rest if "\U000e0020" <= c <= "\U000e007e")


# --- plainer forms ----------------------------------------------------------------------


def fold(text: str) -> str:
    """`text` with every digit, dash, quote, space and width variant in its plain form.

    Lone surrogates, which RE2 refuses, become question marks.
    """
    if text.isascii() or _FOLDABLE not in _odd_in(text):
        return text
    return _BEYOND_ASCII.sub(lambda run: run[0].translate(_FOLD), text)


_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_QUOTES = {0x2018: "'", 0x2019: "'", 0x201B: "'", 0x2032: "'", 0x201C: '"', 0x201D: '"'}


class _Fold(dict[int, str]):
    def __missing__(self, code: int) -> str:
        char = chr(code)
        digit, category = unicodedata.decimal(char, None), unicodedata.category(char)
        plain = unicodedata.normalize("NFKC", char)
        if digit is not None:
            char = str(digit)
        elif category == "Cs":
            char = "?"
        elif category in ("Pd", "Zs") or code == 0x2212:
            char = " " if category == "Zs" else "-"
        elif len(plain) == 1:
            char = plain
        if code < 0x10000:
            self[code] = char
        return char


_FOLD = _Fold(_QUOTES)

_LATIN = {
    ord(other): latin
    for others, latins in (
        ("авсԁеһіјкӏмопрԛѕтѵԝху", "abcdehijklmonpqstvwxy"),
        ("АВСЕНІЈКМОРЅТХУ", "ABCEHIJKMOPSTXY"),
        ("αβεικνορτυχ", "abeiknoptux"),
        ("ΑΒΕΗΙΚΜΝΟΡΤΥΧ", "ABEHIKMNOPTYX"),
        ("ᴀʙᴄᴅᴇꜰɢʜɪᴊᴋʟᴍɴᴏᴘʀꜱᴛᴜᴠᴡʏᴢ", "abcdefghijklmnoprstuvwyz"),
    )
    for other, latin in zip(others, latins, strict=True)
}


def latin(text: str) -> str:
    """`text` with letters that only look Latin as Latin ones, where words mix the two."""
    if text.isascii() or _MIXED not in _odd_in(text):
        return text
    return text.translate(_LATIN)
