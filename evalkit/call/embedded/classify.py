"""Choose a label: descriptions, rules and worked examples vote by similarity.

A label is known by its name, its description in the prompt, the rules that name it, and
the examples that carry it. The confidence is the softmax of the votes. Built once per
prompt, asked once per case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.call.embedded.reading import Instructions, Item, Shot
from evalkit.call.embedded.similarity import Backend, Index, Vector
from evalkit.call.embedded.text import fold, sentences, without_unticked, words

EXCLUSION_WEIGHT = 0.5
SHARPNESS = 2.0
"""Softmax temperature, inverted; calibrated on banking intents (docs/embedded-model.md)."""
FALLBACK_BELOW = 0.4
"""A best vote below this goes to the label for everything else, where the prompt has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What the prompt says of one label."""

    name: str
    is_for: str
    is_not_for: str
    is_fallback: bool
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen label with its share of the votes, and everyone's votes."""

    label: str
    confidence: float
    best_vote: float


class Classifier:
    """The labels of one prompt, ready to be compared with.

    `beside` is what else the prompt describes: words that stand there as well tell less.
    """

    def __init__(
        self, labels: Sequence[Label], backend: Backend, *, beside: Sequence[str] = ()
    ) -> None:
        self.labels = tuple(labels)
        known = [[label.is_for, *label.examples] for label in labels]
        self._for = backend.index([*known, *([text] for text in beside)])
        self._not_for: Index | None = None
        if any(label.is_not_for for label in labels):
            self._not_for = backend.index([[label.is_not_for] for label in labels])
        fallback = [i for i, label in enumerate(labels) if label.is_fallback]
        self._fallback = fallback[0] if len(fallback) == 1 else None

    def votes(self, text: str) -> Vector:
        """One vote per label, shape (n_labels,)."""
        text = without_unticked(text)
        votes = self._for.similarities(text)[: len(self.labels)]
        if self._not_for is not None:
            votes = votes - EXCLUSION_WEIGHT * self._not_for.similarities(text)
        return votes

    def choose(self, text: str) -> Choice:
        """The label with the most votes; the first in the prompt's order wins a tie."""
        votes = self.votes(text)
        if self._fallback is not None:
            others = np.delete(votes, self._fallback)
            if not len(others) or others.max() < FALLBACK_BELOW:
                votes[self._fallback] = max(votes.max(), FALLBACK_BELOW) + 0.02
        best = int(votes.argmax())
        shares = np.exp(SHARPNESS * (votes - votes.max()))
        return Choice(
            self.labels[best].name, float(shares[best] / shares.sum()), float(votes[best])
        )


# --- labels from the prompt ------------------------------------------------------------

_EXCLUDES = re.compile(
    r"(?:(?<=[.;,(:–—-])|(?<=^))[ \t]*(?:but )?(?:it is )?\b(?:never (?:for|use|choose|pick|if|when|the|a)\b|do not use|don't use|excludes?|excluding|except|"
    r"not (?:for|about|if|when|the|a|an|just|questions?|problems?|to be used|used|including|because))\b"
    r"[ \t]*:?(?P<what>[^.;)\n]*)",
    re.IGNORECASE,
)
_FALLBACK = re.compile(
    r"\b(?:anything|everything|something|nothing|none|all) (?:else|of (?:the|these)|other|fits)\b|"
    r"\b(?:does|do)(?: not|n't) (?:fit|match|belong)\b|\bno other\b|\bcatch[- ]?all\b|\bnot (?:covered|listed)\b",
    re.IGNORECASE,
)
_FALLBACK_NAMES = frozenset({"other", "others", "misc", "miscellaneous", "unknown", "sonstiges"})
_EXAMPLE_LEAD = re.compile(r"[\"“«]([^\"”»]{3,200})[\"”»]")


def labels_of(
    names: Sequence[str], items: Mapping[str, str], prompt: Instructions, field: str | None
) -> list[Label]:
    """Everything the prompt says of each of `names`.

    `items` maps a folded name to its description; `field` names the property of the
    answer, for reading worked examples that answer in JSON.
    """
    rules = _rules(names, prompt)
    return [
        _label(name, items.get(key_of(name), ""), rules[name], _examples_of(name, prompt, field))
        for name in names
    ]


def key_of(name: str) -> str:
    """A label's name as compared: folded, words only."""
    return " ".join(words(name.replace("_", " ")))


def _label(name: str, description: str, rules: Sequence[str], examples: Sequence[str]) -> Label:
    text = ". ".join([description, *rules])
    excluded = [match["what"] for match in _EXCLUDES.finditer(text)]
    spoken = spell_out(name)
    return Label(
        name=name,
        is_for=f"{spoken}. {spoken}. {_EXCLUDES.sub(' ', text)}",
        is_not_for=" ".join(excluded),
        is_fallback=bool(_FALLBACK.search(description)) or key_of(name) in _FALLBACK_NAMES,
        examples=(*_EXAMPLE_LEAD.findall(description), *examples),
    )


def spell_out(name: str) -> str:
    """`card_not_working`, `cardNotWorking` → card not working."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").replace("-", " ")


def _examples_of(name: str, prompt: Instructions, field: str | None) -> list[str]:
    wanted = key_of(name)
    return [shot.text for shot in prompt.shots if key_of(_label_in(shot, field)) == wanted]


def _label_in(shot: Shot, field: str | None) -> str:
    fields = shot.fields
    if field is not None and fields:
        value = fields.get(field)
        return value if isinstance(value, str) else ""
    if fields:
        return next((v for v in fields.values() if isinstance(v, str)), "")
    return shot.answer.strip(" .`\"'*")


_MENTION = r"(?:(?<=[`\"“'‘*])|(?<=label )|(?<=use )|(?<=choose )|(?<=pick )|(?<=is )|(?<=→ )|(?<=-> )|(?<=to ))"
_INSTEAD = re.compile(
    r"\b(?:not|rather than|instead of|never|over|nor)\b[ \t]*(?:the )?(?:label )?[`\"“'‘*]*$",
    re.IGNORECASE,
)


def _rules(names: Sequence[str], prompt: Instructions) -> dict[str, list[str]]:
    """Sentences such as "If money has to go back, choose `refund`, not `damage`", by label.

    A sentence counts for a label that is quoted, or stands after a word such as "choose",
    and only where it is the one label chosen.
    """
    found: dict[str, list[str]] = {name: [] for name in names}
    patterns = {
        name: re.compile(_MENTION + r"(?:label )?[`\"“'‘*]*" + re.escape(fold(name)) + r"(?!\w)")
        for name in names
    }
    for sentence in _rule_sentences(prompt):
        folded = fold(sentence)
        chosen, mentioned = [], []
        for name, pattern in patterns.items():
            for match in pattern.finditer(folded):
                mentioned.append(folded[match.start() : match.end()])
                if not _INSTEAD.search(folded[: match.start()]):
                    chosen.append(name)
        if len(set(chosen)) == 1:
            for mention in mentioned:
                folded = folded.replace(mention, " ")
            found[chosen[0]].append(_CHOOSING.sub(" ", folded))
    return found


_CHOOSING = re.compile(
    r"\b(?:choose|use|pick|label|answer|classify|category|rather than|instead of|customer|ticket|message|"
    r"if|when|even if|about|asks?|wants?|says?)\b"
)


def _rule_sentences(prompt: Instructions) -> list[str]:
    listed = {
        item.name for one in prompt.lists for item in one.items if item.name and item.description
    }
    return [
        sentence
        for sentence in sentences(prompt.text)
        if len(sentence) < 600 and not any(f"{name}:" in sentence for name in listed)
    ]


def described(items: Sequence[Item]) -> dict[str, str]:
    """Items by folded name; the first description of a name counts."""
    found: dict[str, str] = {}
    for item in items:
        if item.name and not found.get(key_of(item.name)):
            found[key_of(item.name)] = item.description
    return found
