"""Find personal data and secrets that have a checkable shape, and write placeholders for them.

Used by the guard of the call path, by whatever writes records, and by the check `no_pii`.
Patterns run in RE2, so time is linear whatever the text; what has a checksum or a range
(card, IBAN, IP, national id) must pass it. Names and addresses have no such shape and are
not looked for; a `Recogniser` of your own may find them.

Luhn: ISO/IEC 7812-1 annex B. IBAN: ISO 13616, mod 97-10 of ISO 7064.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from evalkit.national_ids import NATIONAL_IDS, digits_of, luhn, us_ssn
from evalkit.plain_text import fold
from evalkit.records import Json

SHORTEST = 6
"""Characters of the shortest thing there is to find, an e-mail address."""
SHORT = 64
"""Characters of a text that may well come again."""
MAX_DEPTH = 100
"""Of lists and tables in one another; what is deeper is left out of a record."""


class Finding(NamedTuple):
    """One piece of personal data, by kind and place."""

    kind: str
    start: int
    end: int
    text: str


class Recogniser(Protocol):
    """Finds personal data in a text; `kinds` None means all it knows."""

    def __call__(self, text: str, kinds: Collection[str] | None = None) -> Iterable[Finding]: ...


def find_pii(text: str, kinds: Collection[str] | None = None) -> Iterator[Finding]:
    """Yield what is found, kind by kind in the order of `PII_KINDS`, then by place.

    An e-mail address inside a longer token, or digits inside a longer number, do not
    count; digits and letters of other widths and scripts do. Findings of different kinds
    may overlap. Raises KeyError for a kind that is not in `PII_KINDS`.
    """
    if kinds is not None and (unknown := set(kinds).difference(PII_KINDS)):
        raise KeyError(min(unknown))
    if len(text) < SHORTEST or is_media(text):
        return
    found = _found_in_short(text) if len(text) <= SHORT else _found_in(text)
    for kind, findings in found:
        if kinds is None or kind in kinds:
            yield from findings


def _found_in(text: str) -> tuple[tuple[str, list[Finding]], ...]:
    """Findings of each kind, all kinds."""
    # RE2 takes no lone surrogates; a question mark in their place keeps every place.
    data = fold(text).encode("utf-8", "replace")
    folded = data.decode("utf-8")
    of_kind: dict[str, list[Finding]] = {}
    for number in sorted(_prefilter().Match(data) or ()):
        kind, pattern, accept = _RECOGNISERS[number]
        # Of bytes RE2 gives places at once; of text it has to count characters up to them.
        for match in _compiled(pattern).finditer(data if len(data) == len(folded) else folded):
            start, end = match.span(match.re.groups)
            end = start + accept(folded[start:end])
            marks = r"[.,\- ]" if kind == "phone" else r"[.,]"
            if end > start and not _inside_number(folded, start, end, marks):
                of_kind.setdefault(kind, []).append(Finding(kind, start, end, text[start:end]))
    return tuple((kind, non_overlapping(findings)) for kind, findings in of_kind.items())


_found_in_short = lru_cache(maxsize=1024)(_found_in)
"""Labels, names of users and tenants come again with every call."""


def is_media(text: str) -> bool:
    """Whether `text` is a picture, sound or film as a data URL: digits in there mean nothing."""
    return text.startswith("data:") and _MEDIA.fullmatch(text) is not None


_MEDIA = re.compile(r"data:(?:image|audio|video)/[\w.+-]{1,40};base64,[A-Za-z0-9+/=\s]*")


def _inside_number(text: str, start: int, end: int, marks: str) -> bool:
    """Whether digits go on behind one of `marks`: 1.2.3.4.5 is a version, not an address."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    return bool(re.match(marks + r"\d", after) or re.match(r"\d" + marks, before))


# --- one text in place of another ---------------------------------------------------


def non_overlapping(findings: Iterable[Finding]) -> list[Finding]:
    """Those that stay when of two that overlap the longer is kept, by place."""
    found = list(findings)
    if len(found) < 2:
        return found
    kept: list[Finding] = []
    for finding in sorted(found, key=lambda f: (f.start, -f.end)):
        if kept and finding.start < kept[-1].end:
            if finding.end - finding.start > kept[-1].end - kept[-1].start:
                kept[-1] = finding
        else:
            kept.append(finding)
    return kept


PLACEHOLDER = re.compile(r"\[([A-Za-z][A-Za-z0-9]*(?:\\?_[A-Za-z0-9]+)*?)\\?_(\d{1,6})\]")
"""[EMAIL_1], also as a model may write it: in small letters, or escaped for Markdown."""


class Placeholders:
    """One placeholder for each value, the same wherever the value stands.

    `taken` are placeholders that the text has already; they are never given out. `given` are
    those that stand for a value already: the same value gets the same one.
    """

    def __init__(
        self,
        recognise: Recogniser = find_pii,
        kinds: Collection[str] | None = None,
        *,
        taken: Collection[str] = (),
        given: Mapping[str, str] | None = None,
    ) -> None:
        self._recognise, self._kinds = recognise, kinds
        self._before = given or {}
        self._known = {value: placeholder for placeholder, value in self._before.items()}
        self._taken = {*taken, *self._before} if self._before else taken
        self._given: dict[tuple[str, str], str] = {}
        self._last: dict[str, int] = {}
        self.count = 0
        """Places where something was replaced."""

    def replace(self, text: str) -> str:
        findings = non_overlapping(self._recognise(text, self._kinds))
        if not findings:
            return text
        pieces: list[str] = []
        end = 0
        for finding in findings:
            pieces += text[end : finding.start], self._placeholder(finding)
            end = finding.end
        self.count += len(findings)
        return "".join(pieces) + text[end:]

    @property
    def values(self) -> Mapping[str, str]:
        """Placeholder to the value it stands for."""
        new = {placeholder: value for (_, value), placeholder in self._given.items()}
        return {**self._before, **new} if self._before else new

    def _placeholder(self, finding: Finding) -> str:
        known = self._given.get((finding.kind, finding.text)) or self._known.get(finding.text)
        if known is not None:
            return known
        name = _name_of(finding.kind)
        while True:
            self._last[name] = number = self._last.get(name, 0) + 1
            placeholder = f"[{name}_{number}]"
            if placeholder not in self._taken:
                self._given[finding.kind, finding.text] = placeholder
                return placeholder


@lru_cache(maxsize=256)
def _name_of(kind: str) -> str:
    """How a placeholder calls a kind."""
    return re.sub(r"[^A-Z0-9]+", "_", kind.upper()).strip("_") or "PII"


def redact(
    value: Json, *, recognise: Recogniser = find_pii, kinds: Collection[str] | None = None
) -> tuple[Json, int]:
    """`value` as it may be written down, and how many places were replaced in it.

    Walks lists and tables, keys included; whole numbers are looked at as well. What has
    nothing to replace comes back as it is. The values themselves are kept nowhere.
    """
    placeholders = Placeholders(recognise, kinds, taken=placeholders_in(value))
    return rewrite(value, placeholders.replace), placeholders.count


def placeholders_in(value: Json) -> set[str]:
    """What in `value` reads like a placeholder, in capitals and unescaped."""
    return {
        match[0].replace("\\", "").upper()
        for text in texts_of(value)
        if "[" in text
        for match in PLACEHOLDER.finditer(text)
    }


_TABLE = (dict, Mapping)
_NESTED = (dict, list, tuple, Mapping)
"""The usual types first: whether something is a Mapping takes ten times as long to find out."""


def texts_of(value: Json, *, whole: bool = False) -> list[str]:
    """Every text in `value`: keys, values, bytes, whole numbers long enough to be an id, and
    whatever else has a text form. `whole`: raises ValueError when it is nested too deeply to
    see all.
    """
    found: list[str] = []
    _gather(value, found, (), whole)
    return found


def _gather(value: Json, found: list[str], within: tuple[int, ...], whole: bool) -> None:
    if isinstance(value, str):
        found.append(value)
    elif value is None or isinstance(value, bool):
        return
    elif isinstance(value, (float, bytes)):
        if (text := _text_form(value)) is not None:
            found.append(text)
    elif isinstance(value, _NESTED):
        if len(within) >= MAX_DEPTH or id(value) in within:
            if whole:
                raise ValueError(f"nested more than {MAX_DEPTH} deep")
            return
        inside = (*within, id(value))
        if isinstance(value, _TABLE):
            found += [key for key in value if isinstance(key, str)]
            value = value.values()
        for one in value:
            _gather(one, found, inside, whole)
    elif (text := _text_form(value)) is not None:
        found.append(text)


def rewrite(value: Json, change: Callable[[str], str], within: tuple[int, ...] = ()) -> Json:
    """`value` with `change` applied to each of its texts.

    A number or an object that changes is a text then; what is nested too deeply, or contains
    itself, is left out. `within` are the identities of what `value` is in.
    """
    if isinstance(value, str):
        return change(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, _NESTED):
        if len(within) >= MAX_DEPTH or id(value) in within:
            return "[TOO DEEP]"
        inside = (*within, id(value))
        if isinstance(value, _TABLE):
            return {
                change(key) if isinstance(key, str) else key: rewrite(one, change, inside)
                for key, one in value.items()
            }
        return [rewrite(one, change, inside) for one in value]
    text = _text_form(value)
    changed = text if text is None else change(text)
    return value if changed == text else changed


def _text_form(value: Any) -> str | None:
    """How a prompt would show a number or an object; None for a number that is no id.

    A column of a table may have whole numbers as floats. Bytes are read as the text they are.
    """
    if isinstance(value, bytes):
        return _decoded(value)
    if isinstance(value, float):
        return str(int(value)) if 9_999_999 < abs(value) < 1e16 and value.is_integer() else None
    if not isinstance(value, int):
        return str(value)
    return str(value) if 9_999_999 < abs(value) < 10**40 else None


def _decoded(data: bytes) -> str | None:
    """The text that `data` is; None for what is no text, as a picture is none."""
    return None if b"\0" in data else data.decode("utf-8", "replace")


# --- kinds ---------------------------------------------------------------------------


def _if(valid: Callable[[str], bool]) -> Callable[[str], int]:
    return lambda found: len(found) if valid(found) else 0


def _is_card(found: str) -> bool:
    digits = digits_of(found)
    return 13 <= len(digits) <= 19 and 2 <= digits[0] <= 6 and len(set(digits)) > 1 and luhn(digits)


_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22,
    "BR": 29, "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28,
    "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23,
    "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26,
    "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LI": 21, "LT": 20, "LU": 20, "LV": 21,
    "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MT": 31, "MU": 30, "NL": 18, "NO": 15, "PK": 24,
    "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SE": 24, "SI": 19,
    "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip


def _iban_length(found: str) -> int:
    """Characters of the IBAN that `found` begins with, spaces and dashes included."""
    length = _IBAN_LENGTHS.get(found[:2].upper())
    places = [place for place, char in enumerate(found) if char not in " -"]
    if length is None or len(places) < length:
        return 0
    letters = "".join(found[place] for place in places[:length])
    if int("".join(str(int(char, 36)) for char in letters[4:] + letters[:4])) % 97 != 1:
        return 0
    return places[length - 1] + 1


def _is_address(found: str) -> bool:
    """A routable IPv4 or IPv6 address; loopback and all-zero say nothing about a person."""
    if ":" in found and len([group for group in found.split(":") if group]) < 3:
        return False
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)


_DATE = re.compile(r"\d{4}[-/. ]\d{1,2}[-/. ]\d{1,2}|\d{1,2}[-/. ]\d{1,2}[-/. ](?:19|20)\d{2}")


def _is_phone(found: str) -> bool:
    number = found.partition("x")[0]
    return 8 <= len(digits_of(number)) <= 15 and not _DATE.fullmatch(found)


_KEY = (
    r"\bsk-[A-Za-z0-9_\-]{16,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bgh[opsur]_[A-Za-z0-9]{30,}"
    r"|\bgithub_pat_[A-Za-z0-9_]{22,}"
    r"|\bglpat-[A-Za-z0-9_\-]{20,}"
    r"|\bxox[abeprs]-[A-Za-z0-9\-]{10,}"
    r"|\bAIza[0-9A-Za-z_\-]{35}"
    r"|\bya29\.[0-9A-Za-z_\-]{20,}"
    r"|\bhf_[A-Za-z0-9]{30,}"
    r"|\bnpm_[A-Za-z0-9]{36}\b"
    r"|\bpypi-AgEI[A-Za-z0-9_\-]{50,}"
    r"|\bSG\.[A-Za-z0-9_\-]{22}\.[A-Za-z0-9_\-]{43}"
    r"|\b[rsp]k_(?:live|test)_[A-Za-z0-9]{16,}"
    r"|\beyJ[A-Za-z0-9_\-]{10,}\.eyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]*"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:[A-Za-z0-9+/=\s\\:,]*"
    r"(?:-----END [A-Z ]{0,30}PRIVATE KEY-----)?)"
)

_KEY_IN_CONTEXT = r"(?i:\bbearer )([A-Za-z0-9._~+/\-]{20,}=*)"
_URL_PASSWORD = r"\b[A-Za-z][A-Za-z0-9+.\-]{1,20}://[^\s/:@]*:([^\s/@]+)@"

_PHONE = (
    r"\+\d{1,3}[ .\-]?(?:\(\d{1,4}\)[ .\-]?)?\d(?:[ .\-]?\d){6,13}(?: ?x\d{1,6})?\b"
    r"|\b00[1-9]\d{0,2}[ .\-]\d(?:[ .\-]?\d){6,12}(?: ?x\d{1,6})?\b"
    r"|(?:\(\d{3}\) ?|\b\d{3}[ .\-])\d{3}[ .\-]\d{4}(?: ?x\d{1,6})?\b"
    r"|\b0[1-9]\d{0,3}[ /\-](?:\d{4,10}|\d{2,5}(?:[ \-]\d{2,5}){1,3})\b"
    r"|\(0[1-9]\d{0,3}\) ?\d{2,5}(?:[ \-]?\d{2,5}){0,3}\b"
)
_PHONE_IN_CONTEXT = (
    r"(?i:\b(?:tele)?(?:phone|fax)\b|\btel\b|\b(?:mobile|cell|whatsapp|telefon|handy|rufnummer"
    r"|téléphone|teléfono|móvil|telefono|telefoon)\b|\b(?:call|ring|text|reach|phone) (?:me|us)\b)"
    r"[^\d\n(+]{0,24}(\+?\(?\d[\d ().\-/]{5,20}\d)\b"
)

_LETTER = r"A-Za-z\x{80}-\x{10FFFF}"
"""Any other script counts as letters: addresses are no longer in ASCII only."""

_Accept = Callable[[str], int]
_RECOGNISERS: tuple[tuple[str, str, _Accept], ...] = (
    (
        "email",
        rf"[{_LETTER}0-9._%+\-]+@(?:[{_LETTER}0-9][{_LETTER}0-9\-]*\.)+[{_LETTER}]{{2,24}}",
        len,
    ),
    ("key", _KEY, len),
    ("key", _KEY_IN_CONTEXT, len),
    ("key", _URL_PASSWORD, len),
    (
        "iban",
        r"(?i)\b[A-Z]{2}\d{2}(?:[ \-]?[A-Z0-9]{4}){2,7}(?:[ \-]?[A-Z0-9]{1,3})?\b",
        _iban_length,
    ),
    (
        "card",
        r"\b(?:\d{13,19}|\d{4}[ .\-]\d{4}[ .\-]\d{4}[ .\-]\d{1,7}|\d{4}[ \-]\d{6}[ \-]\d{5})\b",
        _if(_is_card),
    ),
    ("ssn", r"\b\d{3}-\d{2}-\d{4}\b", _if(us_ssn)),
    *(("national_id", pattern, _if(valid)) for pattern, valid in NATIONAL_IDS),
    (
        "ip",
        r"\b\d{1,3}(?:\.\d{1,3}){3}\b|\b[0-9A-Fa-f]{1,4}(?::{1,2}[0-9A-Fa-f]{1,4}){2,7}\b",
        _if(_is_address),
    ),
    ("phone", _PHONE, _if(_is_phone)),
    ("phone", _PHONE_IN_CONTEXT, _if(_is_phone)),
)
"""Kind, RE2 pattern of candidates, and how many characters of a candidate are one.

A pattern with a group means what is in the group. Of two kinds at the same place, of the
same length, the first counts.
"""

PII_KINDS: tuple[str, ...] = tuple(dict.fromkeys(kind for kind, _, _ in _RECOGNISERS))


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> Any:
    import re2

    return re2.compile(pattern)


@lru_cache(maxsize=1)
def _prefilter() -> Any:
    """All patterns in one pass: which of them match at all. Most texts have none."""
    import re2

    options = re2.Options()
    options.max_mem = 64 << 20
    patterns = re2.Set.SearchSet(options)
    for _, pattern, _ in _RECOGNISERS:
        patterns.Add(pattern)
    patterns.Compile()
    return patterns
