"""Find values in a text: dates, amounts, numbers, e-mails, phones, and ids of a given shape.

Each finder gives candidates with their place; which of them is meant is for `extract`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import Any

from evalkit.call.embedded.text import fold

MAX_FOUND = 200
"""Values of one kind that are looked at in one text."""


@dataclass(frozen=True, slots=True)
class Found:
    """A value with its place in the text."""

    value: Any
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Money:
    """An amount with its currency's ISO code, where one stands beside it."""

    amount: Decimal
    currency: str | None


def apart_from(taken: Sequence[Found], found: Iterable[Found]) -> list[Found]:
    """Those of `found` that share no place with what is taken."""
    return [one for one in found if not any(t.start < one.end and one.start < t.end for t in taken)]


# --- dates -----------------------------------------------------------------------------

_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "january jan januar jänner janvier enero ene gennaio",
            "february feb februar février fevrier febrero febbraio",
            "march mar märz maerz mars marzo mrz",
            "april apr avril abril abr aprile",
            "may mai mayo maggio",
            "june jun juni juin junio giugno",
            "july jul juli juillet julio luglio",
            "august aug août aout agosto ago",
            "september sep sept septembre septiembre settembre",
            "october oct oktober okt octobre octubre ottobre",
            "november nov novembre noviembre",
            "december dec dezember dez décembre decembre diciembre dic dicembre",
        ),
        start=1,
    )
    for name in names.split()
}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_DATE = re.compile(
    rf"\b(?P<y1>\d{{4}})[-/.](?P<m1>\d{{1,2}})[-/.](?P<d1>\d{{1,2}})(?!\d)"
    rf"|\b(?P<d2>\d{{1,2}})(?:st|nd|rd|th|\.|er)?[\s-]*(?:of |de |den )?(?P<n2>{_MONTH})\b\.?(?:,)?"
    rf"(?:[\s-]*(?:of |de |del )?(?P<y2>\d{{4}}|'\d{{2}}))?"
    rf"|\b(?P<n3>{_MONTH})\.? (?P<d3>\d{{1,2}})(?:st|nd|rd|th)?\b(?:,? (?P<y3>\d{{4}}))?"
    rf"|\b(?P<a4>\d{{1,2}})(?P<s4>[./-])(?P<b4>\d{{1,2}})(?P=s4)(?P<y4>\d{{4}}|\d{{2}})(?!\d)",
    re.IGNORECASE,
)


def dates(text: str, *, month_first: bool = False) -> list[Found]:
    """Every date as a `date`; one without a year takes the year of a date beside it.

    `month_first` decides 03/04/2025; dots are always day first.
    """
    found: list[Found] = []
    yearless: list[tuple[int, int, int, int]] = []
    for match in islice(_DATE.finditer(text), MAX_FOUND):
        year, month, day = _parts(match, month_first)
        if year is None:
            yearless.append((month, day, match.start(), match.end()))
        elif (value := _date(year, month, day)) is not None:
            found.append(Found(value, match.start(), match.end()))
    for month, day, start, end in yearless:
        if found:
            nearest = min(found, key=lambda one: abs(one.start - start))
            value = _date(nearest.value.year, month, day)
            if value is not None:
                found.append(Found(value, start, end))
    return sorted(found, key=lambda one: one.start)


def _parts(match: re.Match[str], month_first: bool) -> tuple[int | None, int, int]:
    got = match.groupdict()
    if got["y1"]:
        return int(got["y1"]), int(got["m1"]), int(got["d1"])
    if got["n2"]:
        year = got["y2"].strip("'") if got["y2"] else None
        return _year(year), _MONTHS[fold(got["n2"])], int(got["d2"])
    if got["n3"]:
        return _year(got["y3"]), _MONTHS[fold(got["n3"])], int(got["d3"])
    first, second = int(got["a4"]), int(got["b4"])
    if (month_first and got["s4"] != "." and first <= 12) or second > 12:
        first, second = second, first
    return _year(got["y4"]), second, first


def _year(text: str | None) -> int | None:
    if text is None:
        return None
    return 2000 + int(text) if len(text) == 2 else int(text)


def _date(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None


# --- amounts and numbers -----------------------------------------------------------------

_SIGNS = {"€": "EUR", "£": "GBP", "$": "USD", "¥": "JPY", "₹": "INR", "zł": "PLN", "₺": "TRY"}
_CODES = (
    "EUR USD GBP CHF JPY CNY INR PLN SEK NOK DKK CZK HUF RON AUD CAD NZD SGD HKD BRL MXN ZAR TRY"
).split()
_CURRENCY_WORDS = {
    "euro": "EUR", "euros": "EUR", "pound": "GBP", "pounds": "GBP", "quid": "GBP",
    "dollar": "USD", "dollars": "USD", "franken": "CHF", "francs": "CHF", "yen": "JPY",
    "zloty": "PLN", "złoty": "PLN", "rupees": "INR", "kronor": "SEK", "sterling": "GBP",
}  # fmt: skip
_NUMBER = r"\d{1,3}(?:[.,'  ]\d{3}){1,4}(?:[.,]\d{1,2})?|\d{1,15}(?:[.,]\d{1,9})?"
_UNIT = "|".join([*(re.escape(sign) for sign in _SIGNS), *(rf"{code}\b" for code in _CODES)])
_UNIT_AFTER = (
    _UNIT + "|" + "|".join(rf"{word}\b" for word in sorted(_CURRENCY_WORDS, key=len, reverse=True))
)
_AMOUNT = re.compile(
    rf"(?:(?P<before>(?<![A-Za-z])(?:{_UNIT}))[ \t]{{0,8}}(?P<n1>-?(?:{_NUMBER})))(?!\d)"
    rf"|(?<![\w.,-])(?P<n2>-?(?:{_NUMBER}))(?:,-|\.-|,–)?[ \t]?(?P<after>{_UNIT_AFTER})",
    re.IGNORECASE,
)
_PLAIN_NUMBER = re.compile(rf"(?<![\w.,#/:-])-?(?:{_NUMBER})(?![\w:/-]|[.,]\d)")


def amounts(text: str) -> list[Found]:
    """Every number with a currency beside it, as `Money`."""
    found = []
    for match in islice(_AMOUNT.finditer(text), MAX_FOUND):
        number = read_number(match["n1"] or match["n2"])
        if number is not None:
            unit = currency_code(match["before"] or match["after"])
            found.append(Found(Money(number, unit), match.start(), match.end()))
    return found


def currency_code(text: str) -> str | None:
    """The ISO code of a currency's sign, code or name; None for anything else."""
    if text in _SIGNS:
        return _SIGNS[text]
    if text.upper() in _CODES:
        return text.upper()
    return _CURRENCY_WORDS.get(fold(text), _SIGNS.get(fold(text)))


def currencies(text: str) -> list[Found]:
    """Every currency sign, code or name."""
    pattern = rf"(?<![A-Za-z])(?:{_UNIT_AFTER})"
    found = []
    for match in islice(re.finditer(pattern, text, re.IGNORECASE), MAX_FOUND):
        code = currency_code(match.group())
        if code is not None and (
            match.group() in _SIGNS or len(match.group()) > 3 or match.group().isupper()
        ):
            found.append(Found(code, match.start(), match.end()))
    return found


def numbers(text: str) -> list[Found]:
    """Every number that stands alone, as a `Decimal`."""
    found = []
    for match in islice(_PLAIN_NUMBER.finditer(text), MAX_FOUND):
        number = read_number(match.group())
        if number is not None:
            found.append(Found(number, match.start(), match.end()))
    return found


def read_number(text: str) -> Decimal | None:
    """`1,234.50`, `1.234,50`, `1 234,50` and `12,5` as numbers."""
    plain = re.sub(r"['  ]", "", text)
    last = max(plain.rfind("."), plain.rfind(","))
    if last >= 0:
        decimals = len(plain) - last - 1
        both = "." in plain and "," in plain
        if decimals == 3 and not both:
            plain = plain.replace(".", "").replace(",", "")
        else:
            plain = plain[:last].replace(".", "").replace(",", "") + "." + plain[last + 1 :]
    try:
        return Decimal(plain)
    except InvalidOperation:
        return None


_COUNT_WORDS = {
    word: number
    for number, names in {
        1: "one single eine einen einem einer un une uno una",
        2: "two both pair couple zwei deux dos",
        3: "three drei trois tres",
        4: "four vier quatre cuatro",
        5: "five fünf cinq cinco",
        6: "six sechs six seis",
        7: "seven sieben sept siete",
        8: "eight acht huit ocho",
        9: "nine neun neuf nueve",
        10: "ten zehn dix diez",
        12: "twelve dozen zwölf douze doce",
    }.items()
    for word in names.split()
}
_COUNT = re.compile(
    r"(?<![\w.,#/:-])(?:(?P<x>x)[ \t]?)?(?P<digits>\d{1,5})(?P<after>[ \t]*[x×]\b|[ \t]?pcs\b)?(?![\d%°]|[.,:/-]\d)"
    r"|\b(?P<word>" + "|".join(sorted(_COUNT_WORDS, key=len, reverse=True)) + r")\b",
    re.IGNORECASE,
)
_NOT_COUNTED = re.compile(
    r"^[ \t-]*(?:%|percent|prozent|days?|weeks?|months?|years?|hours?|minutes?|mins?|hrs?|tage?n?|wochen?|"
    r"monate?n?|jahre?n?|uhr|stunden?|jours?|semaines?|mois|heures?|d[ií]as?|semanas?|meses|horas?|am|pm|cm|mm|"
    r"km|kg|g|ml|l|inch|th|st|nd|rd|o'clock|times|stars?)\b",
    re.IGNORECASE,
)


def counts(text: str) -> list[Found]:
    """Every whole number that may count things, in digits or as a word; no durations."""
    found = []
    for match in islice(_COUNT.finditer(text), MAX_FOUND):
        if _NOT_COUNTED.match(text[match.end() : match.end() + 40]):
            continue
        value = int(match["digits"]) if match["digits"] else _COUNT_WORDS[fold(match["word"])]
        found.append(Found(value, match.start(), match.end()))
    return found


# --- names of things -----------------------------------------------------------------------

_EMAIL = re.compile(
    r"[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b"
)
_URL = re.compile(r"\bhttps?://[^\s<>\"')\]]{3,500}|\bwww\.[^\s<>\"')\]]{3,500}")
_PHONE = re.compile(r"(?<![\w-])\+?\(?\d[\d ()/.-]{5,20}\d(?![\w-])")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b")
_ID = re.compile(
    r"(?<![\w@.])(?=[A-Za-z0-9_/-]{0,60}\d)(?=[A-Za-z0-9_/-]{0,60}[A-Za-z])[A-Za-z0-9]{1,60}(?:[-_/][A-Za-z0-9]{1,60}){0,8}(?![\w@])|#\d{3,}|(?<![\w.,/-])\d{5,}(?![\w-]|[.,]\d)"
)
_FULL_NAME = re.compile(
    r"\b(?:[A-ZÀ-Þ][\w'’]*(?:-[A-ZÀ-Þ][\w'’]*)?\.?)(?:[ \t]+(?:van|von|de|der|la|del|di|da|O'|bin))*"
    r"(?:[ \t]+[A-ZÀ-Þ][\w'’]*(?:-[A-ZÀ-Þ][\w'’]*)?\.?){0,3}"
)


def _all(pattern: re.Pattern[str], text: str) -> Iterator[Found]:
    for match in islice(pattern.finditer(text), MAX_FOUND):
        yield Found(match.group(), match.start(), match.end())


def emails(text: str) -> list[Found]:
    """Every e-mail address."""
    return list(_all(_EMAIL, text))


def urls(text: str) -> list[Found]:
    """Every web address, without a closing full stop."""
    return [Found(f.value.rstrip(".,;!?"), f.start, f.end) for f in _all(_URL, text)]


def phones(text: str) -> list[Found]:
    """Every run of 7 to 15 digits written like a phone number, no dates."""
    return [
        Found(found.value.strip(), found.start, found.end)
        for found in apart_from(dates(text), _all(_PHONE, text))
        if 7 <= sum(c.isdigit() for c in found.value) <= 15
    ]


def ibans(text: str) -> list[Found]:
    """Every IBAN, by its shape."""
    return list(_all(_IBAN, text))


def ids(text: str, shape: re.Pattern[str] | None = None) -> list[Found]:
    """Every token of `shape`; without one, whatever mixes letters and digits."""
    return list(_all(shape or _ID, text))


def full_names(text: str) -> list[Found]:
    """Runs of capitalised words."""
    return list(_all(_FULL_NAME, text))


_WORD_NUMBERS = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8,
    "nine": 9, "ten": 10, "twelve": 12,
}  # fmt: skip
_PREFIX_THEN = re.compile(
    r"[`\"“'‘]?(?P<prefix>[A-Za-z]{0,8}[-#/_]?)[`\"”'’]?,?[ \t]+(?:followed by|and then|plus|and|then|with)[ \t]+"
    r"(?:exactly )?(?P<n>\d{1,2}|"
    + "|".join(_WORD_NUMBERS)
    + r")[ \t-]+(?P<what>digits?|letters?|characters?|numbers?)",
    re.IGNORECASE,
)
_N_DIGITS = re.compile(
    r"\b(?P<n>\d{1,2}|" + "|".join(_WORD_NUMBERS) + r")[ -](?P<what>digits?|letters?)\b",
    re.IGNORECASE,
)
_STARTS = re.compile(
    r"\b(?:starts?|starting|begins?|beginning|prefix(?:ed)?)[ \t]+(?:with|by)[ \t]+[`\"“'‘]?(?P<prefix>[A-Za-z0-9]{1,8}[-#/_]?)"
)
_SAMPLE = re.compile(
    r"(?:e\.g\.|i\.e\.|for example|such as|like|format:?|looks like|form|pattern)[,:]?[ \t]*(?:the )?[`\"“'‘]?"
    r"(?P<sample>[A-Za-z0-9#]+(?:[-_/][A-Za-z0-9#]+)*)[`\"”'’]?"
)
_CLASS = {"d": r"\d", "l": "[A-Za-z]", "c": "[A-Za-z0-9]", "n": r"\d"}


def shape_in(description: str) -> re.Pattern[str] | None:
    """The shape an id has by its description; None where it gives none.

    Reads "ORD- followed by six digits", "starts with INV", "e.g. ORD-123456" and
    "an 8-digit number".
    """
    found = _PREFIX_THEN.search(description)
    if found and found["prefix"]:
        return _shape(re.escape(found["prefix"]) + _repeat(found["what"], found["n"]))
    found = _SAMPLE.search(description)
    if found and re.search(r"\d|XX|##|NN", found["sample"]):
        return _shape(_generalised(found["sample"]))
    found = _STARTS.search(description)
    if found:
        return _shape(re.escape(found["prefix"]) + r"[A-Za-z0-9-]*\d")
    found = _N_DIGITS.search(description)
    if found:
        return _shape(_repeat(found["what"], found["n"]))
    return None


def _shape(pattern: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w]){pattern}(?![\w])", re.IGNORECASE)


def _repeat(what: str, count: str) -> str:
    number = int(count) if count.isdigit() else _WORD_NUMBERS[count.casefold()]
    return _CLASS[what[0].casefold()] + f"{{{number}}}"


def _generalised(sample: str) -> str:
    """`ORD-123456` → ORD-, six digits: letters stay, digits and placeholders open up."""
    pieces = []
    for run in re.findall(r"\d+|#+|X{2,}|N{2,}|[A-Za-z]+|[-_/]", sample):
        if run[0].isdigit() or run[0] == "#" or run in ("X" * len(run), "N" * len(run)):
            pieces.append(rf"\d{{{len(run)}}}")
        else:
            pieces.append(re.escape(run))
    return "".join(pieces)
