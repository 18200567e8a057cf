"""What can be said against a judge, or a run, without asking anybody.

A judge that grades answers of its own family of models may prefer them; a model that gives
the same answer to many cases may still score well. Both become notes, never scores.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

from evalkit.config import Settings
from evalkit.plain_text import composed
from evalkit.records import Json
from evalkit.score.metric_specs import canonical

if TYPE_CHECKING:
    from evalkit.score.judge import JudgeSpec

FAMILIES = {
    "gpt": "gpt", "chatgpt": "gpt", "o1": "gpt", "o3": "gpt", "o4": "gpt", "davinci": "gpt",
    "claude": "claude", "gemini": "gemini", "gemma": "gemini", "palm": "gemini",
    "llama": "llama", "codellama": "llama", "mistral": "mistral", "mixtral": "mistral",
    "ministral": "mistral", "magistral": "mistral", "codestral": "mistral", "qwen": "qwen",
    "qwq": "qwen", "deepseek": "deepseek", "command": "command", "grok": "grok", "phi": "phi",
    "nova": "nova", "titan": "nova", "smollm": "smollm", "granite": "granite", "yi": "yi",
}  # fmt: skip
"""First word of a model's id -> the family it belongs to."""


def family_of(model_id: str) -> str:
    """The family a model's id belongs to: `openai/gpt-4o-mini` -> gpt.

    An id that no family is known by stands for its own first word.
    """
    name = model_id.rsplit("/", 1)[-1].lower()
    words = re.findall(r"o[134]\b|[a-z]+", name)
    return next((FAMILIES[word] for word in words if word in FAMILIES), words[0] if words else name)


def self_preference(
    judges: Mapping[str, JudgeSpec], judged: Iterable[str], settings: Settings
) -> list[str]:
    """A note for each judge whose model is of the family of a model that it judges.

    `judged` are names of configured models. An in-process judge has no taste of its own.
    """
    notes = []
    names = sorted(set(judged) & settings.models.keys())
    for spec in {leaf.name: leaf for one in judges.values() for leaf in one.leaves}.values():
        model = settings.models.get(spec.model or settings.run.judge_model or "")
        if model is None or _is_a_ruler(model.provider, settings):
            continue
        family = family_of(model.id)
        same = [name for name in names if family_of(settings.models[name].id) == family]
        if same:
            notes.append(
                f"judge {spec.name} ({model.id}) is of the same family as {', '.join(same)}, "
                "which it judges: judges prefer their own kind. Use another, or calibrate it"
            )
    return notes


def _is_a_ruler(provider: str, settings: Settings) -> bool:
    found = settings.providers[provider]
    return found.wire == "embedded" and found.options.get("backend") != "llm"


# --- the same answer to many cases -------------------------------------------------

MIN_CASES = 10
END_CHARS = 200
"""What is looked at of an answer: so much of its beginning, and of its end."""
SHOWN_CHARS = 60
NEAR_WORDS = 5
"""Answers of so many words are the same when they differ in numbers alone."""
SAMPLE = 500
"""Texts looked at before all are: an answer to half of the cases shows among fewer."""
SAMPLE_ERROR = 0.05
"""A share halved, of `SAMPLE` drawn, is nearer to the true one in all but one of 100,000 draws."""
_WORDS = re.compile(r"[^\W_]+")


@dataclass(slots=True)
class Repeats:
    """How often each answer was given, by one pair on one golden set."""

    texts: Counter[str] = field(default_factory=Counter)

    def add(self, output: str) -> None:
        """Count an answer; what is nearly the same is found out at the end, if ever."""
        cut = len(output) > 2 * END_CHARS
        self.texts[output[:END_CHARS] + output[-END_CHARS:] if cut else output] += 1

    def commonest(self) -> tuple[int, int, str]:
        """Cases with the commonest answer, near ones together; of how many; one of its texts.

        Of a sample, where no answer is common enough in it to matter.
        """
        texts = self.texts.most_common()
        found = _together(texts[:: max(1, len(texts) // SAMPLE)])
        most, n, _ = found
        return _together(texts) if 3 * most > n else found


def _together(texts: Sequence[tuple[str, int]]) -> tuple[int, int, str]:
    counts: Counter[bytes] = Counter()
    shown: dict[bytes, str] = {}
    for text, n in texts:
        digest = same_answer(text)
        counts[digest] += n
        shown.setdefault(digest, text)
    digest, most = counts.most_common(1)[0]
    return most, counts.total(), shown[digest]


def same_answer(text: str) -> bytes:
    """What answers share that differ only in case, blanks, punctuation, or a number or two."""
    words = _WORDS.findall(composed(text).casefold())
    plain = [word for word in words if not any(c.isdigit() for c in word)]
    kept = plain if len(plain) >= NEAR_WORDS else words
    return blake2b(
        " ".join(kept or [text.strip()]).encode(errors="replace"), digest_size=8
    ).digest()


def duplicate_output(
    repeats: Repeats, expected: Callable[[int | None], Sequence[Json]]
) -> tuple[int, int, str] | None:
    """(cases with the commonest answer, cases, that answer) where it is suspiciously common.

    As common as half of the cases, and well beyond how often one answer is expected: right
    answers repeat too, where there are few labels. `expected` is asked only when it matters:
    for so many drawn cases, and for all (None) where those leave it open.
    """
    if repeats.texts.total() < MIN_CASES:
        return None
    most, n, text = repeats.commonest()
    if 2 * most < n:
        return None
    beyond = most / n - _suspicious(expected(SAMPLE))
    if abs(beyond) < SAMPLE_ERROR:
        beyond = most / n - _suspicious(expected(None))
    return None if beyond < 0 else (most, n, text[:SHOWN_CHARS])


def _suspicious(expected: Sequence[Json]) -> float:
    """The share from which on an answer is given too often: halfway from its usual one to all."""
    right = Counter(same_answer(_text(value)) for value in expected)
    usual = max(right.values(), default=0) / max(right.total(), 1)
    return max(0.5, (1 + usual) / 2)


def _text(value: Json) -> str:
    return value if isinstance(value, str) else canonical(value)
