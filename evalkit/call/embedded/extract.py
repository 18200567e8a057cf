"""Fill fields from a text: candidates by kind, chosen by the words around them.

A field's name and description say which kind of value it is (a date, an amount, an id of
a shape …) and which words stand near it. Without a word about absent values the model
guesses, as weak models do; told to use null, it wants evidence near the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import islice
from typing import Any

from evalkit.call.embedded.structure import Slot
from evalkit.call.embedded.text import STOP_WORDS, WORD, fold, stem
from evalkit.call.embedded.values import (
    MAX_FOUND,
    Found,
    Money,
    amounts,
    apart_from,
    counts,
    currencies,
    dates,
    emails,
    full_names,
    ibans,
    ids,
    numbers,
    phones,
    shape_in,
    urls,
)

WINDOW_WORDS = 9
"""How far from a value its words may stand."""
NEAR_CHARS = 200
MAX_CHARS = 20_000
"""A longer text is read up to here."""
EVIDENCE = 0.3
"""What the words around a value must add up to before it is believed, where null is allowed."""

_KINDS: tuple[tuple[str, str], ...] = (
    # First match wins; the pattern is looked for in the field's name, then its description.
    ("email", r"e-?mails?\b|mail address"),
    ("phone", r"phones?\b|telephone|mobile|\btel\b|telefon|fax"),
    ("url", r"\burls?\b|website|web address|\blinks?\b"),
    ("iban", r"\biban\b"),
    ("date", r"\bdates?\b|\bdays? (?:on which|when|the|of)\b|\bday\b|\bdatum\b|deadline|\bdue\b|\bon which\b|birthday"),
    ("currency", r"\bcurrenc(?:y|ies)\b|iso 4217|währung"),
    ("amount", r"\bamounts?\b|\btotals?\b|\bprices?\b|\bcosts?\b|\bsums?\b|\bfees?\b|\bmoney\b|\bpaid\b|betrag|summe|\bsubtotal\b|\bvat\b|\btax\b|\bbalance\b|refund_value"),
    ("count", r"\bquantit(?:y|ies)\b|\bqty\b|\bhow many\b|\bnumber of\b|\bcount\b|\bpieces?\b|\bunits?\b|\bitems ordered\b|\bmenge\b|anzahl"),
    ("id", r"\bids?\b|\bidentifiers?\b|\breferences?\b|\bref\b|\bcodes?\b|\b(?:order|invoice|customer|ticket|tracking|account|case|policy|booking|serial|article|part|po|rma|contract|claim)[ _]?(?:no|nr|num|number|nos)\b|\bsku\b|\bvat_?id\b|nummer"),
    ("name", r"\bnames?\b|\bwho\b|\bperson\b|\bsender\b|\bcustomer\b|\bvendor\b|\bsupplier\b|\bcompany\b|\bcontact\b|\bauthor\b|\bcity\b|\bcountry\b"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldPlan:
    """One field as the prompt describes it; made once per prompt."""

    slot: Slot
    kind: str
    shape: re.Pattern[str] | None
    near: dict[str, float]
    """Stems that stand near the value, with their weight; negative ones speak against it."""
    may_be_null: bool
    month_first: bool
    date_format: str
    wants_last: bool
    wants_most: bool


@dataclass(frozen=True, slots=True)
class Filled:
    """A value and how sure the model is of it, 0..1."""

    value: Any
    confidence: float
    source: Found | None = None


# --- planning: what the prompt says of a field -------------------------------------------

_ISO_DATE = "%Y-%m-%d"
_MONTH_FIRST = re.compile(
    r"\bmonth[ -]first\b|\bUS(?:-style)? (?:date|format)|\bMM/DD\b", re.IGNORECASE
)
_DATE_FORMAT = re.compile(r"\b(YYYY|DD|MM)([-/.])(MM|DD)\2(YYYY|DD|MM)\b")
_STRFTIME = {"YYYY": "%Y", "MM": "%m", "DD": "%d"}
_EXCLUDED = re.compile(
    r"\b(?:not|never|excluding|without|except|rather than|instead of|ignore|nor)\b(?P<what>[^.;]*)",
    re.IGNORECASE,
)
_FIELD_NULL = re.compile(r"\bnull\b|\b(?:leave )?(?:empty|blank)\b", re.IGNORECASE)

# What the model knows of the words that stand near common kinds of value.
_KNOWN_NEAR = {
    "order": "ordered bestellt bestellung commande commandé pedido pedí placed",
    "invoice": "rechnung facture factura billed bill",
    "due": "pay payable until fällig zahlbar deadline échéance vencimiento",
    "total": "total sum altogether gesamt gesamtbetrag summe montant came grand importe overall",
    "delivery": "delivered arrive arrives arrival lieferung livraison entrega",
    "quantity": "qty x pcs pieces units ordered menge anzahl quantité cantidad stück",
    "name": "name mr mrs ms i'm called regards sincerely yours",
    "customer": "customer kunde client cliente",
    "phone": "phone call tel telephone mobile",
}


def plan_field(
    slot: Slot, description: str, *, told: str, null_if_absent: bool, rivals: Sequence[str]
) -> FieldPlan:
    """Read what the prompt and the schema say of a field.

    `told` is the whole prompt, for rules on all dates or numbers; `rivals` are the names
    of the other fields, whose words speak against a candidate.
    """
    text = f"{description} {slot.description}".strip()
    named = f"{told}\n{text}"
    formats = _DATE_FORMAT.search(text) or _DATE_FORMAT.search(told)
    kind = _kind_of(slot, text)
    return FieldPlan(
        slot=slot,
        kind=kind,
        shape=_pattern_of(slot) or (shape_in(text) if kind == "id" else None),
        near=_near(slot.name, text, rivals),
        may_be_null=null_if_absent or bool(_FIELD_NULL.search(text)),
        month_first=bool(_MONTH_FIRST.search(named)) and "day first" not in named,
        date_format="".join(_STRFTIME.get(part, part) for part in _format_parts(formats))
        if formats
        else _ISO_DATE,
        wants_last=bool(re.search(r"\b(?:last|latest|final|most recent)\b", text)),
        wants_most=bool(
            re.search(
                r"\b(?:total|whole|overall|grand|full)\b", f"{slot.name} {text}".replace("_", " ")
            )
        ),
    )


def _format_parts(match: re.Match[str]) -> tuple[str, ...]:
    return match[1], match[2], match[3], match[2], match[4]


def _pattern_of(slot: Slot) -> re.Pattern[str] | None:
    """The schema's own pattern, unanchored, for finding instead of checking."""
    if not slot.pattern or len(slot.pattern) > 200 or "(" in slot.pattern:
        return None
    try:
        return re.compile(rf"(?<!\w){slot.pattern.strip('^$')}(?!\w)")
    except re.error:
        return None


def _kind_of(slot: Slot, description: str) -> str:
    if slot.type == "boolean":
        return "boolean"
    by_format = {"date": "date", "email": "email", "uri": "url", "date-time": "date"}
    if slot.format in by_format:
        return by_format[slot.format]
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", slot.name).replace("_", " ").replace("-", " ")
    for text in (name, description):
        for kind, pattern in _KINDS:
            if re.search(pattern, text, re.IGNORECASE) and _fits(kind, slot.type):
                return kind
    return {"integer": "count", "number": "number"}.get(slot.type, "id" if slot.pattern else "text")


def _fits(kind: str, json_type: str) -> bool:
    if json_type in ("number", "integer"):
        return kind in ("amount", "count")
    return kind != "count"


def _near(name: str, description: str, rivals: Sequence[str]) -> dict[str, float]:
    near: dict[str, float] = {}
    for rival in rivals:
        for word in _terms(rival.replace("_", " ")):
            near[word] = -0.25
    positive = _EXCLUDED.sub(" ", description)
    for match in _EXCLUDED.finditer(description):
        for word in _terms(match["what"]):
            near[word] = -0.7
    for word in _terms(positive):
        near[word] = 0.5
    for word in _terms(name.replace("_", " ")):
        near[word] = 1.0
        for known in _terms(_KNOWN_NEAR.get(_KNOWN_BY_STEM.get(word, ""), "")):
            near.setdefault(known, 0.6)
    for word in _NO_EVIDENCE:
        near.pop(word, None)
    return near


def _terms(text: str) -> list[str]:
    return [stem(w) for w in WORD.findall(fold(text)) if w not in STOP_WORDS and not w.isdigit()]


_KNOWN_BY_STEM = {stem(word): word for word in _KNOWN_NEAR}
_NO_EVIDENCE = {stem(w) for w in ["null", "text", "say", "field", "value", "string", "number", "integer", "date", "format", "iso", "yyyy", "mm", "dd", "day", "month", "year", "digits", "followed", "email", "currency", "code", "letters", "three", "six"]}  # fmt: skip


# --- filling -----------------------------------------------------------------------------


def fill(plan: FieldPlan, text: str, taken: Sequence[Found] = ()) -> Filled:
    """The field's value in `text`; `taken` are places that belong to other kinds of value."""
    text = text[:MAX_CHARS]
    candidates = apart_from(taken, _FINDERS[plan.kind](plan, text))
    if not candidates:
        return Filled(_nothing(plan), 0.9 if plan.may_be_null else 0.2)
    scored = [
        (_evidence(plan, text, found, candidates, rank), -rank, found)
        for rank, found in enumerate(candidates)
    ]
    scored.sort(key=lambda one: (one[0], one[1]), reverse=True)
    score, _, best = scored[0]
    if plan.may_be_null and plan.slot.nullable and score < _needed(plan):
        return Filled(None, 0.6)
    runner_up = scored[1][0] if len(scored) > 1 else 0.0
    return Filled(_written(plan, best), _sure(score, runner_up), best)


def fill_all(plan: FieldPlan, text: str) -> list[Filled]:
    """Every value of the field's kind in `text`, in order, each once."""
    found = [
        Filled(_written(plan, one), 0.6, one) for one in _FINDERS[plan.kind](plan, text[:MAX_CHARS])
    ]
    return list({repr(one.value): one for one in found}.values())


def _needed(plan: FieldPlan) -> float:
    """An id of a known shape, an address or a link speaks for itself; other kinds need words."""
    if plan.shape is not None or plan.kind in ("email", "url", "iban", "phone", "currency"):
        return -1.0
    return EVIDENCE


def _sure(score: float, runner_up: float) -> float:
    margin = max(score, 0.0) - max(runner_up, 0.0)
    return round(min(0.97, 0.5 + 0.15 * min(max(score, 0.0), 2.0) + 0.2 * min(margin, 1.0)), 4)


def _evidence(
    plan: FieldPlan, text: str, found: Found, rivals: Sequence[Found], rank: int
) -> float:
    """How much the words around a candidate say that it is the one, near words most."""
    score = 0.0
    before = _window(text[max(0, found.start - NEAR_CHARS) : found.start], from_end=True)
    after = _window(text[found.end : found.end + NEAR_CHARS], from_end=False)
    for words_there, side in ((before, 1.0), (after, 0.7)):
        for distance, word in enumerate(words_there):
            weight = plan.near.get(word, 0.0)
            score += side * weight / (1 + 0.3 * distance)
    if plan.wants_last:
        score += 0.3 * rank / max(len(rivals) - 1, 1)
    if plan.wants_most and plan.kind == "amount":
        most = max(_number(other.value) for other in rivals)
        score += 0.3 if _number(found.value) == most else 0.0
    if plan.kind == "count":
        score += _counting(text, found)
    return score


def _counting(text: str, found: Found) -> float:
    """How much a number looks like it counts things: `2 x`, `2 pcs`, `2 folding chairs`."""
    if re.search(r"[x×]|pcs", text[found.start : found.end], re.IGNORECASE):
        return 0.6
    return 0.35 if _THINGS.match(text[found.end : found.end + 100]) else 0.0


_THINGS = re.compile(r"[ \t]+(?:[^\W\d_]+[ \t]+){0,2}[^\W\d_]{2,}(?:s|en)\b")
_STOPS = re.compile(r"[.!?;](?:\s|$)|\n")


def _window(text: str, *, from_end: bool) -> list[str]:
    """Telling stems beside a value, nearest first, up to the end of its sentence or line."""
    pieces = _STOPS.split(text)
    found = _terms(pieces[-1] if from_end else pieces[0])
    return found[::-1][:WINDOW_WORDS] if from_end else found[:WINDOW_WORDS]


def _number(value: Any) -> Decimal:
    if isinstance(value, Money):
        return value.amount
    return value if isinstance(value, Decimal) else Decimal(0)


def _nothing(plan: FieldPlan) -> Any:
    """No candidate: null where told so, else what a careless model writes."""
    slot = plan.slot
    if slot.nullable and (plan.may_be_null or slot.pattern or slot.format or slot.type != "string"):
        return None
    return {"number": 0, "integer": 0, "boolean": False}.get(slot.type, "")


def _written(plan: FieldPlan, found: Found) -> Any:
    """The value as JSON, in the type that the schema asks for."""
    value = found.value
    if isinstance(value, date):
        return value.strftime(plan.date_format)
    if isinstance(value, Money):
        value = value.amount
    if plan.slot.type in ("number", "integer"):
        number = Decimal(str(value))
        return (
            int(number) if plan.slot.type == "integer" or number == int(number) else float(number)
        )
    return str(value)


# --- finders by kind ---------------------------------------------------------------------

_AFTER_COLON = r"^[ \t>*-]*{name}[ \t]*[:=][ \t]*(\S[^\n]*)$"
_NAME_LEADS = re.compile(
    r"(?:\b(?:my name is|i am|i'm|this is|name[ \t]*:|mr\.?|mrs\.?|ms\.?|regards,?|sincerely,?|yours,?|thanks,?|"
    r"cheers,?|grüße,?|grüßen,?|saludos,?|cordialement,?|dear|customer)[ \t\n]+)$",
    re.IGNORECASE,
)


def _find_names(plan: FieldPlan, text: str) -> list[Found]:
    """Capitalised runs after a lead such as "my name is" or "Regards," or all of them."""
    runs = [run for run in full_names(text) if fold(run.value.split()[0]) not in STOP_WORDS]
    led = [run for run in runs if _NAME_LEADS.search(text[max(0, run.start - 40) : run.start])]
    return led or [run for run in runs if " " in run.value] or runs


def _find_text(plan: FieldPlan, text: str) -> list[Found]:
    """What stands after `name:` on a line, else the sentence nearest to the description."""
    name = re.escape(plan.slot.name.replace("_", " "))
    line = re.search(_AFTER_COLON.format(name=name), text, re.IGNORECASE | re.MULTILINE)
    if line:
        return [Found(line[1].strip(), line.start(1), line.end(1))]
    pieces = [
        Found(match.group().strip(), match.start(), match.end())
        for match in islice(re.finditer(r"[^.!?\n]+[.!?]?", text), MAX_FOUND)
        if match.group().strip()
    ]
    best = max(pieces, key=lambda piece: _overlap(plan, piece.value), default=None)
    return [best] if best is not None else []


def _overlap(plan: FieldPlan, sentence: str) -> float:
    return sum(plan.near.get(term, 0.0) for term in _terms(sentence))


def _find_numbers(plan: FieldPlan, text: str) -> list[Found]:
    return apart_from(dates(text), numbers(text))


def _find_amounts(plan: FieldPlan, text: str) -> list[Found]:
    """Numbers with a currency; without any, numbers with decimals."""
    return amounts(text) or [f for f in numbers(text) if f.value != int(f.value)]


def _find_dates(plan: FieldPlan, text: str) -> list[Found]:
    return dates(text, month_first=plan.month_first)


def _find_counts(plan: FieldPlan, text: str) -> list[Found]:
    """Whole numbers, in digits before words, none of them part of another value."""
    others = [*dates(text), *amounts(text), *phones(text), *ids(text), *emails(text)]
    free = apart_from(others, counts(text))
    digits = [found for found in free if text[found.start : found.end].strip()[0].isdigit()]
    return digits or [f for f in free if f.value != 1] or free


def _find_boolean(plan: FieldPlan, text: str) -> list[Found]:
    score = _overlap(plan, text)
    return [Found(score > 0.5, 0, 0)]


_FINDERS: dict[str, Callable[[FieldPlan, str], list[Found]]] = {
    "email": lambda plan, text: emails(text),
    "phone": lambda plan, text: phones(text),
    "url": lambda plan, text: urls(text),
    "iban": lambda plan, text: ibans(text),
    "date": _find_dates,
    "currency": lambda plan, text: currencies(text),
    "amount": _find_amounts,
    "count": _find_counts,
    "number": _find_numbers,
    "id": lambda plan, text: ids(text, plan.shape),
    "name": _find_names,
    "text": _find_text,
    "boolean": _find_boolean,
}
