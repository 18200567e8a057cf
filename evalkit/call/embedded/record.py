"""Fill a record: every field of a schema, by what the prompt and the schema say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evalkit.call.embedded.classify import Classifier, described, key_of, labels_of
from evalkit.call.embedded.extract import FieldPlan, Filled, fill, fill_all, plan_field
from evalkit.call.embedded.reading import FIELD_TOPIC, Instructions
from evalkit.call.embedded.similarity import Backend
from evalkit.call.embedded.structure import Slot
from evalkit.call.embedded.values import Money, currency_code
from evalkit.records import Json

NOTHING_FITS_BELOW = 0.5
"""A best vote below this is null, where the prompt says that absent values are null."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _ChoiceField:
    """A field whose value is one of a list."""

    slot: Slot
    classifier: Classifier
    may_be_null: bool


class RecordFiller:
    """The fields of one prompt, ready for texts."""

    def __init__(self, told: Instructions, root: Slot, backend: Backend) -> None:
        self._told = told
        self._backend = backend
        self._items = [item for one in told.lists for item in one.items]
        about = [item for one in told.lists_about(FIELD_TOPIC) for item in one.items]
        self._described = described(self._items) | described(about)
        self._root = root
        self._plans = {id(slot): self._plan(slot, root) for slot in _leaves(root)}
        amounts = [
            plan
            for plan in self._plans.values()
            if isinstance(plan, FieldPlan) and plan.kind == "amount"
        ]
        self._amount = amounts[0] if len(amounts) == 1 else None

    def fill(self, text: str) -> tuple[Json, float]:
        """The record as JSON, and the least certain field's confidence."""
        confidences: list[float] = []
        value = self._value(self._root, text, confidences)
        return value, min(confidences, default=0.0)

    def _plan(self, slot: Slot, root: Slot) -> FieldPlan | _ChoiceField:
        description = self._described.get(key_of(slot.name), "")
        if slot.enum and not all(currency_code(value) for value in slot.enum):
            labels = labels_of(slot.enum, self._described, self._told, slot.name)
            return _ChoiceField(
                slot=slot,
                classifier=Classifier(labels, self._backend, beside=self._beside(slot)),
                may_be_null=slot.nullable and self._told.null_if_absent,
            )
        return plan_field(
            slot,
            description,
            told=self._told.text,
            null_if_absent=self._told.null_if_absent,
            rivals=[other.name for other in _leaves(root) if other.name != slot.name],
        )

    def _beside(self, slot: Slot) -> list[str]:
        """What the prompt says of the other fields."""
        others = [other for other in _leaves(self._root) if other is not slot]
        return [self._described.get(key_of(other.name), "") for other in others]

    def _value(self, slot: Slot, text: str, confidences: list[float]) -> Json:
        if slot.type == "object":
            return {one.name: self._value(one, text, confidences) for one in slot.slots}
        if slot.type == "array":
            return self._list(slot, text, confidences)
        plan = self._plans[id(slot)]
        if isinstance(plan, _ChoiceField):
            return _choose(plan, text, confidences)
        filled = self._currency(plan, text) if plan.kind == "currency" else fill(plan, text)
        confidences.append(filled.confidence)
        if slot.enum and filled.value not in slot.enum:
            return None if slot.nullable else slot.enum[0]
        return filled.value

    def _currency(self, plan: FieldPlan, text: str) -> Filled:
        """The currency that stands with the record's amount, where the record has one."""
        if self._amount is None:
            return fill(plan, text)
        amount = fill(self._amount, text)
        if amount.source is None or not isinstance(amount.source.value, Money):
            return Filled(None, amount.confidence) if plan.may_be_null else fill(plan, text)
        return Filled(amount.source.value.currency, amount.confidence)

    def _list(self, slot: Slot, text: str, confidences: list[float]) -> list[Json]:
        """Every value of the kind; lists of objects are beyond this model and stay empty."""
        plan = self._plans.get(id(slot.items))
        if isinstance(plan, FieldPlan):
            filled = fill_all(plan, text)
            confidences.append(0.6 if filled else 0.4)
            return [one.value for one in filled]
        confidences.append(0.0)
        return []


def _leaves(slot: Slot) -> Sequence[Slot]:
    """Every field that holds one value."""
    if slot.type == "object":
        return [leaf for one in slot.slots for leaf in _leaves(one)]
    if slot.type == "array":
        return [slot.items] if slot.items is not None and not slot.items.slots else []
    return [slot]


def _choose(plan: _ChoiceField, text: str, confidences: list[float]) -> Json:
    chosen = plan.classifier.choose(text)
    if plan.may_be_null and chosen.best_vote < NOTHING_FITS_BELOW:
        confidences.append(0.6)
        return None
    confidences.append(chosen.confidence)
    return chosen.label
