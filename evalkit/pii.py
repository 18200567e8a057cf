"""Find personal data and secrets that have a checkable shape.

Used by the tier-1 check `no_pii`. Patterns run in RE2, so time is linear whatever the
text; what has a checksum or a range (card, IBAN, IP) must pass it. Names and addresses
have no such shape and are not looked for.

Luhn: ISO/IEC 7812-1 annex B. IBAN: ISO 13616, mod 97-10 of ISO 7064.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

MAX_CANDIDATES = 10_000
"""Pattern hits looked at per kind; a text with more is full of them anyway."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One piece of personal data, by kind and place."""

    kind: str
    start: int
    end: int
    text: str


def find_pii(text: str, kinds: Collection[str] | None = None) -> Iterator[Finding]:
    """Yield what is found, kind by kind in the order of `PII_KINDS`, then by place.

    An e-mail address inside a longer token, or digits inside a longer number, do not
    count. Raises KeyError for a kind that is not in `PII_KINDS`.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")  # RE2 refuses lone surrogates
    unknown = set(kinds or ()) - PII_KINDS.keys()
    if unknown:
        raise KeyError(sorted(unknown)[0])
    for kind, (pattern, accept) in PII_KINDS.items():
        if kinds is not None and kind not in kinds:
            continue
        for count, match in enumerate(_compiled(pattern).finditer(text)):
            if count == MAX_CANDIDATES:
                break
            found = match.group(0)
            marks = r"[.,\- ]" if kind == "phone" else r"[.,]"
            if accept(found) and not _inside_number(text, match.start(), match.end(), marks):
                yield Finding(kind, match.start(), match.end(), found)


def _inside_number(text: str, start: int, end: int, marks: str) -> bool:
    """Whether digits go on behind one of `marks`: 1.2.3.4.5 is a version, not an address."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    return bool(re.match(marks + r"\d", after) or re.match(r"\d" + marks, before))


def _is_card(found: str) -> bool:
    digits = re.sub(r"\D", "", found)
    if not 13 <= len(digits) <= 19 or digits[0] not in "23456" or len(set(digits)) == 1:
        return False
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


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


def _is_iban(found: str) -> bool:
    letters = found.replace(" ", "")
    length = _IBAN_LENGTHS.get(letters[:2])
    if length is None or len(letters) < length:
        return False
    letters = letters[:length]
    return int("".join(str(int(char, 36)) for char in letters[4:] + letters[:4])) % 97 == 1


def _is_address(found: str) -> bool:
    """A routable IPv4 or IPv6 address; loopback and all-zero say nothing about a person."""
    if ":" in found and len([group for group in found.split(":") if group]) < 3:
        return False
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)


def _is_phone(found: str) -> bool:
    return 8 <= len(re.sub(r"\D", "", found)) <= 15


def _is_ssn(found: str) -> bool:
    area, group, serial = found.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _any(found: str) -> bool:
    return True


_KEY = (
    r"\bsk-[A-Za-z0-9_\-]{16,200}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bgh[opsur]_[A-Za-z0-9]{30,255}"
    r"|\bgithub_pat_[A-Za-z0-9_]{22,255}"
    r"|\bglpat-[A-Za-z0-9_\-]{20,100}"
    r"|\bxox[abeprs]-[A-Za-z0-9\-]{10,200}"
    r"|\bAIza[0-9A-Za-z_\-]{35}"
    r"|\bhf_[A-Za-z0-9]{30,100}"
    r"|\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,200}"
    r"|\beyJ[A-Za-z0-9_\-]{10,500}\.eyJ[A-Za-z0-9_\-]{10,500}\."
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----"
)

_PHONE = (
    r"\+\d{1,3}[ .\-]?(?:\(\d{1,4}\)[ .\-]?)?\d(?:[ .\-]?\d){6,13}(?: ?x\d{1,6})?\b"
    r"|\b00[1-9]\d{0,2}[ .\-]\d(?:[ .\-]?\d){6,12}\b"
    r"|(?:\(\d{3}\) ?|\b\d{3}[ .\-])\d{3}[ .\-]\d{4}(?: ?x\d{1,6})?\b"
    r"|\b0[1-9]\d{0,3}[ /\-]\d{2,5}(?:[ \-]\d{2,5}){0,3}\b"
    r"|\(0[1-9]\d{0,3}\) ?\d{2,5}(?:[ \-]?\d{2,5}){0,3}\b"
)

PII_KINDS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "email": (
        r"[A-Za-z0-9._%+\-]{1,64}@(?:[A-Za-z0-9][A-Za-z0-9\-]{0,62}\.){1,6}[A-Za-z]{2,24}\b",
        _any,
    ),
    "phone": (_PHONE, _is_phone),
    "card": (
        r"\b(?:\d{13,19}|\d{4}[ \-]\d{4}[ \-]\d{4}[ \-]\d{1,7}|\d{4}[ \-]\d{6}[ \-]\d{5})\b",
        _is_card,
    ),
    "iban": (r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b", _is_iban),
    "ip": (
        r"\b\d{1,3}(?:\.\d{1,3}){3}\b|\b[0-9A-Fa-f]{1,4}(?::{1,2}[0-9A-Fa-f]{1,4}){2,7}\b",
        _is_address,
    ),
    "ssn": (r"\b\d{3}-\d{2}-\d{4}\b", _is_ssn),
    "key": (_KEY, _any),
}
"""Kind -> RE2 pattern of candidates, and whether a candidate is one."""


@lru_cache(maxsize=32)
def _compiled(pattern: str) -> Any:
    import re2

    return re2.compile(pattern)
