"""Numbers that states give to people, each with the check its issuer defines.

Used by `pii`. A number whose check one in ten random numbers would pass counts only behind
a word that names it (BSN, SIN, Aadhaar); the others speak for themselves.

Mod 11,10: ISO 7064. Verhoeff: Mathematisch Centrum tract 29 (1969). Luhn: ISO/IEC 7812-1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence


def digits_of(text: str) -> list[int]:
    return [int(char) for char in text if char.isdecimal()]


def luhn(digits: Sequence[int]) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = digit * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _weighted(digits: Sequence[int], weights: Sequence[int]) -> int:
    return sum(digit * weight for digit, weight in zip(digits, weights, strict=False))


def _is_date(month: int, day: int) -> bool:
    return 1 <= month <= 12 and 1 <= day <= 31


def us_ssn(found: str) -> bool:
    area, group, serial = found.split("-")
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def uk_nino(found: str) -> bool:
    return found[:2].upper() not in {"BG", "GB", "KN", "NK", "NT", "TN", "ZZ"}


def german_tax_id(found: str) -> bool:
    """Mod 11,10; of the first ten digits exactly one comes twice or three times."""
    digits = digits_of(found)
    repeated = [n for digit in set(digits[:10]) if (n := digits[:10].count(digit)) > 1]
    if digits[0] == 0 or len(repeated) != 1 or repeated[0] > 3:
        return False
    product = 10
    for digit in digits[:10]:
        product = ((digit + product) % 10 or 10) * 2 % 11
    return (11 - product) % 10 == digits[10]


def french_nir(found: str) -> bool:
    text = re.sub(r"\W", "", found).upper()
    number = text[:13].replace("2A", "19").replace("2B", "18")
    return number.isdecimal() and 97 - int(number) % 97 == int(text[13:])


def spanish_dni(found: str) -> bool:
    text = found.upper().replace("-", "").replace(" ", "")
    number = text[:-1].translate(str.maketrans("XYZ", "012"))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == text[-1]


_ODD = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21,
         2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
        strict=True,
    )
)  # fmt: skip
"""Values of the characters in odd places of a codice fiscale (DM 23/12/1976)."""


def italian_fiscal_code(found: str) -> bool:
    text = found.upper()
    even = sum(int(char) if char.isdecimal() else ord(char) - 65 for char in text[1:15:2])
    return chr(65 + (even + sum(_ODD[char] for char in text[:15:2])) % 26) == text[15]


def polish_pesel(found: str) -> bool:
    digits = digits_of(found)
    month = (digits[2] * 10 + digits[3]) % 20
    check = -_weighted(digits[:10], (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)) % 10
    return _is_date(month, digits[4] * 10 + digits[5]) and check == digits[10]


def swedish_number(found: str) -> bool:
    """Personnummer; from 61 on the day is one of a samordningsnummer."""
    digits = digits_of(found)[-10:]
    day = digits[4] * 10 + digits[5]
    return _is_date(digits[2] * 10 + digits[3], day - 60 if day > 60 else day) and luhn(digits)


def finnish_number(found: str) -> bool:
    check = "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(found[:6] + found[7:10]) % 31]
    return _is_date(int(found[2:4]), int(found[:2])) and check == found[10].upper()


def belgian_number(found: str) -> bool:
    """Mod 97; who was born from 2000 on has a 2 in front."""
    text = re.sub(r"\D", "", found)
    number, check = text[:9], int(text[9:])
    return check in (97 - int(number) % 97, 97 - int("2" + number) % 97)


def swiss_ahv(found: str) -> bool:
    """The check digit of EAN-13."""
    digits = digits_of(found)
    return -_weighted(digits[:12], (1, 3) * 6) % 10 == digits[12]


def brazilian_cpf(found: str) -> bool:
    digits = digits_of(found)
    if len(set(digits)) == 1:
        return False
    first = _weighted(digits, range(10, 1, -1)) * 10 % 11 % 10
    second = _weighted(digits, range(11, 1, -1)) * 10 % 11 % 10
    return [first, second] == digits[9:]


def chinese_id(found: str) -> bool:
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    check = "10X98765432"[_weighted([int(char) for char in found[:17]], weights) % 11]
    return _is_date(int(found[10:12]), int(found[12:14])) and check == found[17].upper()


def dutch_bsn(found: str) -> bool:
    digits = digits_of(found)
    return sum(digits) > 0 and _weighted(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) % 11 == 0


def canadian_sin(found: str) -> bool:
    digits = digits_of(found)
    return digits[0] != 0 and luhn(digits)


_DIHEDRAL = (
    "0123456789", "1234067895", "2340178956", "3401289567", "4012395678",
    "5987604321", "6598710432", "7659821043", "8765932104", "9876543210",
)  # fmt: skip
_PERMUTED = (
    "0123456789", "1576283094", "5803796142", "8916043527",
    "9453126870", "4286573901", "2793806415", "7046913258",
)  # fmt: skip


def aadhaar(found: str) -> bool:
    """Verhoeff's check, over the dihedral group D5."""
    check = 0
    for place, digit in enumerate(reversed(digits_of(found))):
        check = int(_DIHEDRAL[check][int(_PERMUTED[place % 8][digit])])
    return check == 0


def _named(words: str, number: str) -> str:
    return rf"(?i:\b(?:{words})\b)[^\d\n]{{0,24}}\b({number})\b"


NATIONAL_IDS: tuple[tuple[str, Callable[[str], bool]], ...] = (
    (r"\b[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b", uk_nino),
    (r"\b\d{11}\b|\b\d{2} \d{3} \d{3} \d{3}\b", german_tax_id),
    (
        r"\b[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}\b",
        french_nir,
    ),
    (r"\b(?:\d{8}|[XYZ]\d{7})[ \-]?[A-HJ-NP-TV-Z]\b", spanish_dni),
    (
        (
            r"\b[A-Z]{6}[0-9LMNPQRSTUV]{2}[ABCDEHLMPRST][0-9LMNPQRSTUV]{2}"
            r"[A-Z][0-9LMNPQRSTUV]{3}[A-Z]\b"
        ),
        italian_fiscal_code,
    ),
    (r"\b\d{11}\b", polish_pesel),
    (r"\b(?:19|20)?\d{6}[\-+]\d{4}\b", swedish_number),
    (r"\b\d{6}[\-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]\b", finnish_number),
    (r"\b\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}\b", belgian_number),
    (r"\b756\.?\d{4}\.?\d{4}\.?\d{2}\b", swiss_ahv),
    (r"\b\d{3}\.\d{3}\.\d{3}-\d{2}\b", brazilian_cpf),
    (r"\b[1-9]\d{5}(?:19|20)\d{9}[\dXx]\b", chinese_id),
    (_named("bsn|burgerservicenummer|sofinummer", r"\d{9}"), dutch_bsn),
    (_named("sin|social insurance", r"\d{3}[ \-]?\d{3}[ \-]?\d{3}"), canadian_sin),
    (_named("aadhaar|aadhar|uidai", r"[2-9]\d{3}[ \-]?\d{4}[ \-]?\d{4}"), aadhaar),
    (_named("cpf", r"\d{11}"), brazilian_cpf),
)
"""RE2 pattern of candidates, and whether a candidate is one. A group is the number alone."""
