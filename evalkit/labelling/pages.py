"""What each page of the labelling server shows, as plain values for its template.

Blind: which model, prompt version or judge is behind an answer is not in these values,
unless the server was told to show it. Side-by-side answers change sides by annotator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.decide.report_page import templates
from evalkit.decide.report_text import count
from evalkit.labelling.agreeing import MetricAgreement, in_words
from evalkit.labelling.rendering import (
    Text,
    cut_note,
    document_numbers,
    render_documents,
    render_input,
    render_text,
    render_value,
)
from evalkit.score.labels import CANNOT_TELL, Aspect, Question

if TYPE_CHECKING:
    from jinja2 import Environment

    from evalkit.call.review import Review
    from evalkit.score.label_queue import Item, Mark

MAX_EDITED_CHARS = 50_000
"""Longer answers are not edited in a browser's text field."""
DIGITS = "123456789"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One button."""

    value: str
    text: str
    meaning: str
    keys: tuple[str, ...]
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One thing to decide, as the form has it."""

    field: str
    name: str
    text: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer on the page."""

    name: str
    text: Text
    whole: str
    """Where the whole text is, for one that was cut."""
    about: str
    """Which pair gave it; empty while the page is blind."""


def label_templates(project: Path) -> Environment:
    return templates(project, count=count, cut_note=cut_note, in_words=in_words)


# --- an item --------------------------------------------------------------------------


def item_values(
    item: Item, *, annotator: str, mark: Mark | None, show_pairs: bool, path: str
) -> dict[str, Any]:
    """Values of the page of one item."""
    shown, question = item.shown, item.question
    outputs = [str(output or "") for output in shown["outputs"]]
    sides = side_order(annotator, item.id) if len(outputs) == 2 else (0,)
    documents = shown.get("documents")
    numbers = document_numbers(documents)
    answers = [
        Answer(
            name=_answer_name(place, len(sides)),
            text=render_text(outputs[at], documents=numbers),
            whole=f"{path}/whole/{at}",
            about=_about(item.facts[at]) if show_pairs else "",
        )
        for place, at in enumerate(sides)
    ]
    return {
        "input": render_input(shown.get("input")),
        "documents": render_documents(documents, outputs),
        "reference": render_value(shown["reference"]) if "reference" in shown else None,
        "answers": answers,
        "question": question,
        "asks": asks_of(question, mark, sides),
        "is_one": len(question.aspects) == 1,
        "comment": "" if mark is None else mark.comment or "",
        "is_marked": mark is not None,
        "cannot_tell": mark is not None and mark.score is None,
    }


def side_order(annotator: str, item_id: str) -> tuple[int, ...]:
    """Which answer is on the left: random, each annotator's own, always the same."""
    coin = blake2b(f"side\0{annotator}\0{item_id}".encode(), digest_size=1).digest()[0]
    return (0, 1) if coin & 1 else (1, 0)


def _answer_name(place: int, n: int) -> str:
    return "Answer" if n == 1 else ("Answer on the left", "Answer on the right")[place]


def _about(facts: Mapping[str, Any]) -> str:
    return f"{facts.get('model')}/{facts.get('prompt_name')}@{facts.get('prompt_version')}"


def asks_of(question: Question, mark: Mark | None, sides: Sequence[int] = (0,)) -> list[Ask]:
    """The question's aspects with a key for every option."""
    chosen = {} if mark is None else mark.choices
    return [
        Ask(
            field=f"a{number}",
            name=aspect.name,
            text=aspect.text,
            choices=tuple(_choices(question, aspect, chosen.get(aspect.name), sides)),
        )
        for number, aspect in enumerate(question.aspects)
    ]


def _choices(
    question: Question, aspect: Aspect, chosen: str | None, sides: Sequence[int]
) -> list[Choice]:
    options = list(aspect.options)
    if question.kind == "preference" and tuple(sides) == (1, 0):
        options.reverse()
    letters = {"pass": "p", "fail": "f"}
    found = []
    for place, option in enumerate(options):
        text = option.text
        if question.kind == "preference":
            text = ("Left", "Equally good", "Right")[place]
        keys = [DIGITS[place]]
        if option.value in letters:
            keys.insert(0, letters[option.value])
        elif option.value in DIGITS:
            keys = [option.value]
        found.append(
            Choice(
                value=option.value,
                text=text,
                meaning=option.meaning,
                keys=tuple(keys),
                chosen=option.value == chosen,
            )
        )
    return found


def choices_in(form: Mapping[str, str], question: Question) -> dict[str, str]:
    """Aspect -> chosen value, from the fields of a form."""
    if "cannot_tell" in form:
        return {question.aspects[0].name: CANNOT_TELL}
    return {
        aspect.name: form[f"a{number}"]
        for number, aspect in enumerate(question.aspects)
        if f"a{number}" in form
    }


def in_short(question: Question, mark: Mark) -> str:
    """What somebody said, in a few words."""
    if mark.score is None:
        return "Cannot tell"
    named = {one.name: {o.value: o.text for o in one.options} for one in question.aspects}
    if question.kind == "preference":
        return {1.0: "The first", 0.5: "Equally good", 0.0: "The other"}[mark.score]
    told = [
        f"{name}: {named.get(name, {}).get(value, value)}" if len(named) > 1
        else named.get(name, {}).get(value, value)
        for name, value in mark.choices.items()
    ]  # fmt: skip
    return ", ".join(told)


def preferred_side(mark: Mark, sides: Sequence[int]) -> str:
    """A preference by the side it is on for who looks at it now."""
    if mark.score in (None, 0.5):
        return "Equally good" if mark.score else "Cannot tell"
    at = 0 if mark.score == 1.0 else 1
    return ("Left", "Right")[list(sides).index(at)]


# --- reviews and the end ----------------------------------------------------------------


def review_values(review: Review) -> dict[str, Any]:
    """Values of the page of one answer that waits before it goes out."""
    given = review.input
    documents = given.get("documents") if isinstance(given, dict) else None
    if isinstance(given, dict) and documents is not None:
        given = {key: value for key, value in given.items() if key != "documents"}
    output = str(review.record.get("output") or "")
    return {
        "review": review,
        "input": render_input(given),
        "documents": render_documents(documents, [output]),
        "answer": render_text(output, documents=document_numbers(documents)),
        "editable": _editable(output),
    }


def _editable(output: str) -> Any:
    """The answer for a text field: escaped, but with every character it has."""
    from markupsafe import escape

    return escape(output) if len(output) <= MAX_EDITED_CHARS else None


def agreement_values(found: Sequence[MetricAgreement]) -> list[dict[str, Any]]:
    """Rows of the table of agreement."""
    return [
        {
            "metric": one.metric,
            "annotators": len(one.annotators),
            "n_both": one.n_both,
            "value": one.overall.value,
            "ci": one.overall.ci,
            "statistic": one.statistic,
            "words": in_words(one),
        }
        for one in found
    ]
