"""The embedded models as a provider: in process, no key, no network.

They see what any provider sees, the rendered messages and the response schema, and never
the feature's input or a case's id. docs/embedded-model.md says what they can and cannot do.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from evalkit.call.providers.base import Provider
from evalkit.config import ProviderSettings
from evalkit.errors import CallError, ConfigError
from evalkit.records import Event, Finish, ModelRequest, TextDelta, Usage

if TYPE_CHECKING:
    from evalkit.call.embedded.model import EmbeddedModel, Spoken
    from evalkit.call.embedded.similarity import Backend

VERSION = 1
"""Counted up when answers change; part of the served model's name."""
ANY_BACKEND = "embedded"
"""A model id that stands for whichever backend is configured."""


class EmbeddedProvider:
    """Answers in process. Raises ConfigError for an unknown backend or a missing extra."""

    def __init__(self, settings: ProviderSettings) -> None:
        wanted = settings.options.get("backend", "base")
        if wanted not in BACKENDS:
            known = ", ".join(sorted(BACKENDS))
            raise ConfigError(
                f"providers.{settings.name}.backend: no backend {wanted!r}. There are: {known}."
            )
        self._model = BACKENDS[wanted](settings)

    def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
        """The answer of the backend, piece by piece where a stream is asked for."""
        return self._model.stream(request)

    async def aclose(self) -> None:
        await self._model.aclose()


class SimilarityModel:
    """Answers by similarity: no text of its own, no randomness."""

    def __init__(self, backend: Backend, *, in_thread: bool) -> None:
        from evalkit.call.embedded.model import EmbeddedModel

        self._model: EmbeddedModel = EmbeddedModel(backend)
        self._name = backend.name
        self._in_thread = in_thread

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
        """Yield the answer, word by word where a stream is asked for."""
        served = self._served(request.model_id)
        spoken = await self._reply(request)
        text, tokens, finish_reason = clip(spoken.text, request.max_tokens)
        for piece in re.findall(r"\s*\S+\s*$|\s*\S+", text) if request.stream else [text]:
            yield TextDelta(piece)
        yield Finish(
            finish_reason=finish_reason,
            usage=Usage(
                prompt_tokens=sum(_tokens_of(str(m["content"])) for m in request.messages),
                completion_tokens=tokens,
                cached_prompt_tokens=0,
            ),
            served_model=served,
            confidence=min(1.0, max(0.0, spoken.confidence)),
        )

    async def aclose(self) -> None:
        """Nothing is open."""

    async def _reply(self, request: ModelRequest) -> Spoken:
        if self._in_thread:
            return await asyncio.to_thread(self._speak, request)
        # Others take their turn first: a hundred calls in flight stay a hundred short ones.
        await asyncio.sleep(0)
        return self._speak(request)

    def _speak(self, request: ModelRequest) -> Spoken:
        return self._model.reply(request.messages, request.response_schema, task=request.task)

    def _served(self, model_id: str) -> str:
        if model_id in (ANY_BACKEND, self._name):
            return f"{model_id}-{VERSION}"
        raise CallError(
            "not_found", f"no embedded model {model_id!r}. There are: {ANY_BACKEND}, {self._name}."
        )


def _base(_: ProviderSettings) -> Provider:
    from evalkit.call.embedded.similarity import HashedBackend

    return SimilarityModel(HashedBackend(), in_thread=False)


def _local(_: ProviderSettings) -> Provider:
    from evalkit.call.embedded.minilm import MiniLMBackend

    return SimilarityModel(MiniLMBackend(), in_thread=True)


def _llm(settings: ProviderSettings) -> Provider:
    from evalkit.call.embedded.llm import LanguageModel

    where = f"providers.{settings.name}.options"
    return LanguageModel(settings.options, where=where, any_name=ANY_BACKEND)


BACKENDS: dict[str, Callable[[ProviderSettings], Provider]] = {
    "base": _base,
    "llm": _llm,
    "local": _local,
}
"""`options.backend` of the provider -> how to build it."""


@lru_cache(maxsize=64)
def _tokens_of(text: str) -> int:
    from evalkit.call.embedded.text import count_tokens

    return count_tokens(text)


def clip(text: str, max_tokens: int) -> tuple[str, int, str]:
    """`text` cut after `max_tokens`, its tokens, and the finish reason, stop or length."""
    tokens = _tokens_of(text)
    if tokens <= max_tokens:
        return text, tokens, "stop"
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _tokens_of(text[:middle]) <= max_tokens else (low, middle - 1)
    return text[:low], max_tokens, "length"
