"""Answer a question with sentences of the documents in the prompt, and name the documents.

Extractive: the answer is copied, never written. How much is copied, whether documents are
named, and whether nothing may be the answer, is for the prompt's words to say.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from evalkit.call.embedded.reading import Document, Instructions
from evalkit.call.embedded.similarity import Backend, Vector
from evalkit.call.embedded.structure import Slot
from evalkit.call.embedded.text import content_stems, sentences
from evalkit.records import Json

SHARPNESS = 10.0
TITLE_WEIGHT = 0.45
"""What the title of a document adds for its sentences, for words the sentence lacks."""
TOLD_WEIGHT = 0.5
"""What a word counts that stands beside the question, not in it."""
KIND_BONUS = 0.12
"""For a sentence with a value of the kind that the question asks for: days, euros, a time."""
MEANING_WEIGHT = 0.1
USUAL_NEARNESS = 3.0
"""What a backend that reads meaning adds, and the nearness of texts on one subject."""
NEAR_BEST = 0.75
"""Without being told to cite only what it used, the model names each document this near."""
ABSTAIN_BELOW = 0.3
NO_ANSWER = "The documents do not say."


@dataclass(frozen=True, slots=True)
class Passage:
    """A sentence with the place it stands at."""

    document: int
    place: int
    text: str


class Answering:
    """What one prompt says about answering."""

    def __init__(self, told: Instructions, root: Slot | None, backend: Backend) -> None:
        self._told = told
        self._root = root
        self._backend = backend

    def answer(self, question: str, documents: Sequence[Document]) -> tuple[Json, float]:
        """The answer in the form that is asked for, and its confidence."""
        passages = _passages(documents)
        if not passages:
            return self._form(self._told.abstain_phrase or NO_ANSWER, []), 0.0
        scores = relevance(question, documents, passages)
        if self._backend.reads_meaning:
            index = self._backend.index(
                [[f"{documents[p.document].title}: {p.text}"] for p in passages]
            )
            scores = scores + MEANING_WEIGHT * (index.similarities(question) - USUAL_NEARNESS)
        best = int(scores.argmax())
        shares = np.exp(SHARPNESS * (scores - scores.max()))
        confidence = float(shares[best] / shares.sum())
        if self._told.abstain_phrase is not None and scores[best] < ABSTAIN_BELOW:
            return self._form(self._told.abstain_phrase, []), min(
                1.0, max(0.0, 1.0 - float(scores[best]))
            )
        cited = self._cited(scores, best, documents, passages)
        return self._form(self._text(best, passages), cited), confidence

    def _text(self, best: int, passages: Sequence[Passage]) -> str:
        """The sentence alone where the prompt asks for short; else with the one after it."""
        chosen = passages[best]
        if self._told.short or best + 1 >= len(passages):
            return chosen.text
        after = passages[best + 1]
        if after.document != chosen.document:
            return chosen.text
        return f"{chosen.text} {after.text}"

    def _cited(
        self,
        scores: Vector,
        best: int,
        documents: Sequence[Document],
        passages: Sequence[Passage],
    ) -> list[str]:
        used = {passages[best].document}
        if not self._told.cite:
            near = NEAR_BEST * scores[best]
            used |= {
                one.document for one, score in zip(passages, scores, strict=True) if score >= near
            }
        return [one.id for i, one in enumerate(documents) if i in used and one.id]

    def _form(self, text: str, cited: list[str]) -> Json:
        if self._root is None:
            marks = "".join(f" [{one}]" for one in cited) if self._told.cite else ""
            return text + marks
        if not self._root.slots:
            return text
        value: dict[str, Json] = {}
        for slot in self._root.slots:
            if slot.type == "array":
                value[slot.name] = cited if _CITES.search(f"{slot.name} {slot.description}") else []
            elif slot.type == "boolean":
                value[slot.name] = bool(cited)
            elif slot.type == "string" and _CITES.search(slot.name):
                value[slot.name] = cited[0] if cited else (None if slot.nullable else "")
            elif slot.type == "string":
                value[slot.name] = text
            elif slot.required:
                value[slot.name] = None if slot.nullable else 0
        return value


_CITES = re.compile(
    r"cit|source|document|\bids?\b|\brefs?\b|references|quelle|fuente", re.IGNORECASE
)


# --- which sentence answers --------------------------------------------------------------


def _passages(documents: Sequence[Document]) -> list[Passage]:
    return [
        Passage(i, place, text)
        for i, document in enumerate(documents)
        for place, text in enumerate(_split(document.text))
    ]


@lru_cache(maxsize=2_048)
def _split(text: str) -> tuple[str, ...]:
    return tuple(sentences(text))


@lru_cache(maxsize=8_192)
def _stems(text: str) -> frozenset[str]:
    return frozenset(content_stems(text))


def relevance(question: str, documents: Sequence[Document], passages: Sequence[Passage]) -> Vector:
    """How much of the question each passage speaks of, shape (n_passages,), 0 to about 1.

    Words of the question weigh by how few passages hold them (Robertson and Spärck Jones
    1976); a word that only the document's title holds counts for less.
    """
    asked = _asked(question)
    held = [_stems(one.text) for one in passages]
    titles = [_stems(one.title) for one in documents]
    n = len(passages)
    weights = {
        word: share * math.log(1 + n / (1 + sum(word in words for words in held)))
        for word, share in asked.items()
    }
    total = sum(weights.values()) or 1.0
    wanted = _wanted_kind(question)
    scores = np.zeros(n)
    for i, (one, words) in enumerate(zip(passages, held, strict=True)):
        title = titles[one.document]
        found = sum(
            weight if word in words else TITLE_WEIGHT * weight if word in title else 0.0
            for word, weight in weights.items()
        )
        scores[i] = found / total - 0.004 * len(words)
        if wanted is not None and wanted.search(one.text):
            scores[i] += KIND_BONUS
    return scores


def _asked(question: str) -> dict[str, float]:
    """The question's words; those of a sentence that asks nothing count for less."""
    pieces = sentences(question)
    asking = [piece for piece in pieces if piece.rstrip("\"')").endswith("?")] or pieces
    found = dict.fromkeys(_stems(question), TOLD_WEIGHT)
    for piece in asking:
        found |= dict.fromkeys(_stems(piece), 1.0)
    return found


_KINDS = (
    (
        re.compile(r"\bhow (?:long|soon|many (?:days|hours|weeks|months|years))\b|\bwithin what\b|\bby when\b|\bperiod\b|\bdeadline\b|\buntil when\b|\bwhen\b", re.IGNORECASE),
        re.compile(r"\b\d+ (?:working )?(?:minutes?|hours?|days?|weeks?|months?|years?)\b|\bonce\b|\buntil\b|\bwhen\b", re.IGNORECASE),
    ),
    (
        re.compile(r"\bhow much (?:does|do|is|are|did)\b|\bcosts?\b|\bprice\b|\bfee\b|\bcharge\b|\bpay\b", re.IGNORECASE),
        re.compile(r"[€£$]|\b\d+(?:\.\d+)? (?:euros?|pounds?|dollars?|percent)\b|\bfree\b", re.IGNORECASE),
    ),
    (
        re.compile(r"\bhow (?:heavy|much does .* weigh)\b|\bweight\b", re.IGNORECASE),
        re.compile(r"\b\d+ (?:kg|kilograms?|grams?|pounds?)\b", re.IGNORECASE),
    ),
    (re.compile(r"\bhow (?:many|often)\b", re.IGNORECASE), re.compile(r"\b\d+\b|\bonce\b|\btwice\b|\bone\b|\btwo\b", re.IGNORECASE)),
)  # fmt: skip


def _wanted_kind(question: str) -> re.Pattern[str] | None:
    return next((value for asks, value in _KINDS if asks.search(question)), None)
