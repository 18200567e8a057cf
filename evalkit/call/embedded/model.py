"""Decide what a prompt asks for, and have it done: label, record, answer, or grade.

What is read of a prompt is kept per prompt, so that a case costs only its own text. Who
asks for something else gets a `CallError` that says what can be done.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalkit.call.embedded.answer import Answering
from evalkit.call.embedded.classify import Classifier, described, key_of, labels_of
from evalkit.call.embedded.grade import grade, is_judge_schema
from evalkit.call.embedded.reading import (
    LABEL_TOPIC,
    Instructions,
    Split,
    read_instructions,
    split_messages,
)
from evalkit.call.embedded.record import RecordFiller
from evalkit.call.embedded.similarity import Backend
from evalkit.call.embedded.structure import Slot, read_schema
from evalkit.errors import CallError
from evalkit.records import Json, Message

MAX_PLANS = 64
"""Prompts kept ready at once."""
CAN_DO = (
    "The embedded model can choose a label that the prompt or the response schema lists, fill "
    "the fields that they list, answer from <document id=…> blocks in the prompt, and grade an "
    "answer for a judge. It writes no text of its own: use a language model for that"
)
_FREE_TEXT_TASKS = frozenset({"generate", "summarise", "plan"})


@dataclass(frozen=True, slots=True)
class Spoken:
    """An answer as text, and how sure the model is of it, 0..1."""

    text: str
    confidence: float


Plan = Callable[[Split], Spoken]


class EmbeddedModel:
    """Answers prompts by similarity; the same prompt always gets the same answer."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._plans: OrderedDict[tuple[Any, ...], Plan] = OrderedDict()
        self._lock = threading.Lock()

    def reply(
        self,
        messages: Sequence[Message],
        schema: Mapping[str, Any] | None,
        *,
        task: str | None = None,
    ) -> Spoken:
        """The answer to `messages`. Raises CallError "unsupported" for what it cannot do."""
        if task in _FREE_TEXT_TASKS:
            raise CallError("unsupported", f"task {task!r} asks for free text. {CAN_DO}.")
        if is_judge_schema(schema):
            judgement, confidence = grade(messages, schema, self._backend)
            return Spoken(_as_json(judgement), confidence)
        split = split_messages(messages)
        return self._plan(split, schema)(split)

    def _plan(self, split: Split, schema: Mapping[str, Any] | None) -> Plan:
        key = (split.told, split.pairs, json.dumps(schema), bool(split.documents))
        with self._lock:
            plan = self._plans.pop(key, None)
            if plan is None:
                told = read_instructions(split.told, split.pairs, schema)
                plan = make_plan(told, self._backend, with_documents=bool(split.documents))
            self._plans[key] = plan
            if len(self._plans) > MAX_PLANS:
                self._plans.popitem(last=False)
        return plan


def make_plan(told: Instructions, backend: Backend, *, with_documents: bool) -> Plan:
    """Which of the tasks a prompt asks for, made ready for its cases."""
    root = read_schema(told.schema) if told.schema is not None else None
    choice = _choice_slot(root)
    if choice is not None:
        return _label_plan(told, backend, choice=choice, root=root)
    if with_documents:
        answering = Answering(told, root, backend)
        return lambda split: _speak(*answering.answer(split.query, split.documents))
    if root is not None and root.slots:
        filler = RecordFiller(told, root, backend)
        return lambda split: _speak(*filler.fill(split.query))
    if root is None and _names_in(told):
        return _label_plan(told, backend, choice=None, root=None)
    raise CallError("unsupported", f"no labels, fields or documents in this prompt. {CAN_DO}.")


def _speak(value: Json, confidence: float) -> Spoken:
    return Spoken(value if isinstance(value, str) else _as_json(value), confidence)


def _as_json(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


# --- labels ------------------------------------------------------------------------------

_ASIDES = re.compile(r"confiden|certain|score|reason|explan|rationale|why|comment|note", re.I)


def _choice_slot(root: Slot | None) -> Slot | None:
    """The one field with a list of values, where all others only comment on it."""
    if root is None:
        return None
    if root.type == "string" and len(root.enum) > 1:
        return root
    choices = [slot for slot in root.slots if len(slot.enum) > 1]
    others = [slot for slot in root.slots if len(slot.enum) <= 1]
    if len(choices) == 1 and all(_ASIDES.search(slot.name) for slot in others):
        return choices[0]
    return None


def _names_in(told: Instructions) -> list[str]:
    """Labels of the first list that has a heading about labels and two names or more."""
    for one in told.lists_about(LABEL_TOPIC):
        names = list(dict.fromkeys(item.name for item in one.items if item.name))
        if len(names) > 1:
            return names
    return []


def _label_plan(
    told: Instructions, backend: Backend, *, choice: Slot | None, root: Slot | None
) -> Plan:
    names = list(choice.enum) if choice is not None else _names_in(told)
    listed = described([item for one in told.lists for item in one.items])
    field = choice.name if choice is not None and choice.name else None
    classifier = Classifier(labels_of(names, listed, told, field), backend)
    key = field or _key_in_form(told)

    def choose(split: Split) -> Spoken:
        chosen = classifier.choose(split.query)
        if root is not None and root.slots:
            value: Json = {
                slot.name: _said_of(slot, chosen.label, chosen.confidence, field)
                for slot in root.slots
                if slot.required or slot.name == field
            }
        elif root is None and told.wants_json:
            value = {key: chosen.label}
        else:
            value = json.dumps(chosen.label) if root is not None else chosen.label
        return _speak(value, chosen.confidence)

    return choose


def _said_of(slot: Slot, label: str, confidence: float, field: str | None) -> Json:
    if slot.name == field:
        return label
    if slot.type == "number":
        return round(confidence, 3)
    if slot.type == "integer":
        return round(confidence * 100)
    return f"The words of the text are nearest to {key_of(label)}."


def _key_in_form(told: Instructions) -> str:
    """The key in a form such as `{"label": "…"}` of a prompt without a schema."""
    found = re.search(r'\{\s*"([^"\n]{1,60})"\s*:', told.text)
    return found.group(1) if found else "label"
