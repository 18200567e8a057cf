"""Which model answers: the kind of a query decides, then the confidence of the answer.

A tagger says the kind, the feature's `routes` say who answers that kind: a model, or a
function of the user's own, without any model. What cannot be told goes to the feature's
own model. `is_unsure` is the rule of the cascade.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.call.functions import call_function, load_function, users_own
from evalkit.call.retrieval import query_of
from evalkit.errors import CallError, ConfigError
from evalkit.records import Json
from evalkit.settings import FeatureSettings, Settings
from evalkit.strict import StrictError, iter_jsonl

log = logging.getLogger(__name__)

CALL = "call:"
"""In front of a route that is a function, `call:module:function`."""
SURE = 0.5
"""Confidence of the embedded tagger below which it does not say a kind."""
NEAR = 0.4
"""And the similarity that the nearest kind must have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """What kind of query it is, as a tagger says."""

    kind: str
    confidence: float | None = None
    """0..1; None where the tagger does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Who answers one call, and why."""

    model: str | None
    """Name of the model asked first; None when a function answers."""
    function: str | None = None
    """The function that answers in a model's place, as module:function."""
    reason: str
    """For the call record: `kind code (0.93) -> large`."""

    def models(self, feature: FeatureSettings) -> tuple[str, ...]:
        """The models that may answer, in turn; () when a function does."""
        if self.model is None:
            return ()
        return (self.model, *(name for name in feature.fallbacks if name != self.model))


Tagger = Callable[[Mapping[str, Any]], Tag | str | Awaitable[Tag | str | None] | None]


async def route(
    feature: FeatureSettings,
    input: Mapping[str, Any],
    *,
    tagger: Tagger | None,
    timeout_s: float | None = None,
) -> Route:
    """Who answers `input`. A tagger that fails, is late or has no word for it costs no call."""
    if tagger is None or not feature.routes:
        return Route(model=feature.model, reason="")
    try:
        async with asyncio.timeout(timeout_s):
            said = await _called(tagger, input)
        tag = Tag(kind=said) if isinstance(said, str) else said
        if tag is not None and not isinstance(tag, Tag):
            raise TypeError(f"a tagger says a kind or None, not {type(tag).__name__}")
    except Exception as error:
        # The border: the tagger is the user's own, and the default model can answer all.
        log.warning("the tagger of %s failed", feature.name, exc_info=True)
        return Route(model=feature.model, reason=f"tagger failed: {type(error).__name__}")
    if tag is None:
        return Route(model=feature.model, reason="no kind fits")
    sure = "" if tag.confidence is None else f" ({tag.confidence:.2f})"
    target = feature.routes.get(tag.kind, feature.model)
    reason = f"kind {tag.kind[:60]}{sure} -> {target}"
    if target.startswith(CALL):
        return Route(model=None, function=target.removeprefix(CALL), reason=reason)
    return Route(model=target, reason=reason)


async def _called(tagger: Tagger, input: Mapping[str, Any]) -> Any:
    with users_own():
        said = tagger(input)
        return await said if inspect.isawaitable(said) else said


async def answer_by_function(
    function: str, input: Mapping[str, Any], *, timeout_s: float | None = None
) -> tuple[str, Json]:
    """The answer of a route's function as text, and as a value where it is no text.

    Raises CallError "server" when the function fails and "timeout" when it is late,
    ConfigError when there is none. One that is not async runs on in its thread, unheard.
    """
    answer = load_function(function)
    limit = asyncio.timeout(timeout_s)
    try:
        async with limit:
            value = await call_function(answer, input)
        text = (
            value
            if isinstance(value, str)
            else json.dumps(value, ensure_ascii=False, allow_nan=False)
        )
    except Exception as error:
        if limit.expired():
            raise CallError("timeout", f"{function} gave no answer in time") from None
        # The border: the function is the user's own.
        log.warning("%s failed", function, exc_info=True)
        raise CallError("server", f"{function} raised {type(error).__name__}") from None
    return text, None if isinstance(value, str) else value


# --- taggers -----------------------------------------------------------------------------


def make_tagger(feature: FeatureSettings, settings: Settings) -> Tagger | None:
    """The feature's tagger: a function of the user's own, or one that learns from examples.

    Raises ConfigError when there is no such function or the examples cannot be used.
    """
    name = feature.tagger
    if name is None:
        return None
    if name.endswith(".jsonl"):
        return ExampleTagger(read_examples(settings.root / name))
    function = load_function(name)

    async def tagger(input: Mapping[str, Any]) -> Tag | str | None:
        said: Tag | str | None = await call_function(function, input)
        return said

    return tagger


class ExampleTagger:
    """The kind whose examples are most like the query; None when none is like it enough."""

    def __init__(self, examples: Mapping[str, Sequence[str]]) -> None:
        from evalkit.call.embedded.classify import Classifier, Label, spell_out
        from evalkit.call.embedded.similarity import HashedBackend

        labels = [
            Label(
                name=kind,
                is_for=spell_out(kind),
                is_not_for="",
                is_fallback=False,
                examples=tuple(texts),
            )
            for kind, texts in examples.items()
        ]
        self._classifier = Classifier(labels, HashedBackend())

    def __call__(self, input: Mapping[str, Any]) -> Tag | None:
        chosen = self._classifier.choose(query_of(input))
        if chosen.confidence < SURE or chosen.best_vote < NEAR:
            return None
        return Tag(kind=chosen.label, confidence=chosen.confidence)


def read_examples(path: Path) -> dict[str, list[str]]:
    """Examples by kind, from lines of `{"kind": …, "text": …}`. Raises ConfigError."""
    examples: dict[str, list[str]] = {}
    problems: list[str] = []
    try:
        for line, _, row in iter_jsonl(path):
            kind, text = (row.get("kind"), row.get("text")) if isinstance(row, dict) else ("", "")
            if isinstance(kind, str) and kind and isinstance(text, str) and text.strip():
                examples.setdefault(kind, []).append(text)
            else:
                problems.append(f'{path.name}:{line}: is not {{"kind": "…", "text": "…"}}.')
    except StrictError as error:
        problems.append(f"{path.name}:{error.line}: {error.message}.")
    except OSError as error:
        problems.append(f"{path}: {error.strerror}.")
    if not problems and len(examples) < 2:
        problems.append(f"{path.name}: has {len(examples)} kinds. Give examples of two at least.")
    if problems:
        raise ConfigError(problems)
    return examples


# --- the cascade -------------------------------------------------------------------------


def is_unsure(confidence: float | None, below: float | None) -> bool:
    """Whether an answer goes to the next model. A confidence not known is no low one."""
    return below is not None and confidence is not None and confidence < below
