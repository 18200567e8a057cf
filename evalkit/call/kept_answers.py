"""The cache stage: a kept answer, or a fresh one that is then kept.

Of equal calls at once one is made and the others share its answer. The semantic cache is
asked after the exact one, and only where a feature turned it on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Literal

from evalkit.call.cache import Cached, ResponseCache, cache_key, normalised, stood_in, whole_answer
from evalkit.call.semantic_cache import (
    Embed,
    SemanticCache,
    blocks_of,
    embedder,
    split_asked,
    vectors_here,
)
from evalkit.call.single_flight import SingleFlight
from evalkit.call.trace import Call
from evalkit.config import ModelSettings, SemanticCacheSettings
from evalkit.errors import CallError
from evalkit.pii import rewrite
from evalkit.records import Message, ModelRequest

DAY_S = 86_400.0

OWN = frozenset({"budget", "incomplete", "timeout"})
"""Failures of one call that are none of those who wait for its answer."""

Kept = tuple[Cached, Literal["exact", "semantic"]]
Fits = Callable[[Cached], Awaitable[bool]]


class KeptAnswers:
    """Answers of one orchestrator's features, in a storage that other processes may share."""

    def __init__(self, storage: ResponseCache, *, most_days: float | None = None) -> None:
        self._storage = storage
        self._most_s = float("inf") if most_days is None else most_days * DAY_S
        self._flights: SingleFlight[Cached | None] = SingleFlight()
        self._semantic: dict[float, SemanticCache] = {}

    async def find_or_make(
        self,
        call: Call,
        request: ModelRequest,
        model: ModelSettings,
        make: Callable[[], Awaitable[None]],
        *,
        left_s: Callable[[], float],
        fits: Fits,
        reads_input: bool = False,
        timeout_s: float | None = None,
    ) -> Kept | None:
        """An answer kept or shared that `fits`; None when `make` has filled the call.

        A storage that takes longer than `timeout_s` is passed over.

        Raises what `make` raises. A call waits only for one with equal patience, and `left_s`
        at most: never beyond its own deadline, nor does it fail for another's shorter one.
        That another has nothing left to spend, or a reader who has seen a part of an answer
        that failed, is no reason either.
        """
        call.stages.begin("cache")
        key = _key(call, request, model, reads_input=reads_input)
        near = self._near(call, request, model, reads_input)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                if (found := await self._find(key, near, fits)) is not None:
                    return found

        flight = _flight(call, key)
        own: list[CallError] = []
        leads = False

        def step_aside() -> None:
            call.step_aside = None
            self._flights.hand_over(flight)

        async def made() -> Cached | None:
            nonlocal leads
            leads, call.step_aside = True, step_aside
            try:
                await make()
                return await self._keep(call, key, near)
            except CallError as error:
                if not error.own and error.kind not in OWN:
                    raise
                own.append(error)
                return None
            finally:
                call.step_aside = None

        kept = await self._flights.do(flight, made, left_s=left_s)
        if own:
            raise own[0]
        if leads:
            return None
        if kept is None or not await fits(kept):
            if left_s() <= 0:
                raise CallError("timeout", "an equal call had no answer in time")
            await make()
            return None
        return kept, "exact"

    async def _find(self, key: str, near: _Near | None, fits: Fits) -> Kept | None:
        kept = await self._storage.get(key)
        if kept is not None and await fits(kept):
            return kept, "exact"
        if near is not None and (found := await near.lookup()) is not None and await fits(found):
            return found, "semantic"
        return None

    async def _keep(self, call: Call, key: str, near: _Near | None) -> Cached | None:
        call.stages.begin("cache")
        made = whole_answer(call)
        if made is not None and not stood_in(call):
            ttl_s = min(call.feature.cache_ttl, self._most_s)
            await self._storage.put(key, made, ttl_s)
            if near is not None:
                await near.store(made, min(near.ttl_s or ttl_s, self._most_s))
        return made

    def _near(
        self, call: Call, request: ModelRequest, model: ModelSettings, reads_input: bool
    ) -> _Near | None:
        settings = call.feature.semantic_cache
        asked = split_asked(request.messages) if settings is not None else None
        if settings is None or asked is None:
            return None
        frame, text = asked
        blocks = blocks_of(request.messages[-1]["content"])
        namespace = _key(
            call, request, model, reads_input=reads_input, messages=frame, asked=blocks
        )
        return _Near(self._semantic_cache(settings), text, namespace, settings.ttl)

    def _semantic_cache(self, settings: SemanticCacheSettings) -> SemanticCache:
        if settings.threshold not in self._semantic:
            self._semantic[settings.threshold] = SemanticCache(
                self._storage, threshold=settings.threshold, embed=self._embed
            )
        return self._semantic[settings.threshold]

    @cached_property
    def _embed(self) -> Embed:
        return embedder(vectors_here())

    async def aclose(self) -> None:
        await self._storage.aclose()


class _Near:
    """The semantic cache, as far as one call is concerned."""

    def __init__(
        self, cache: SemanticCache, text: str, namespace: str, ttl_s: float | None
    ) -> None:
        self._cache = cache
        self._text = text
        self._namespace = namespace
        self.ttl_s = ttl_s

    async def lookup(self) -> Cached | None:
        near = await self._cache.lookup(self._text, self._namespace)
        return None if near is None else near.cached

    async def store(self, made: Cached, ttl_s: float) -> None:
        await self._cache.store(self._text, self._namespace, made, ttl_s)


def _flight(call: Call, key: str) -> str:
    """What calls have in common of which one may work for all."""
    feature = call.feature
    patience = (feature.max_latency_ms, feature.attempt_ms, feature.ttft_ms, feature.retries)
    return f"{key} {patience} {feature.fallbacks}"


def _key(
    call: Call,
    request: ModelRequest,
    model: ModelSettings,
    *,
    reads_input: bool,
    messages: Sequence[Message] | None = None,
    asked: Sequence[str] = (),
) -> str:
    """`messages` without `asked`, what the user wrote: a namespace for what is nearly equal."""
    feature = call.feature
    # No normalised text begins with a line end: a place taken is never another's value.
    places = {normalised(text): f"\n{place}" for place, text in enumerate(asked)}
    input = None
    if reads_input:
        input = rewrite(request.input, lambda text: places.get(plain := normalised(text), plain))
    pair = f"{feature.model}/{feature.prompt_name}@{feature.prompt_version}"
    return cache_key(
        messages=request.messages if messages is None else messages,
        input=input,
        model_id=model.id,
        params={**model.params, **call.params},
        schema=request.response_schema,
        index_version=call.index_version,
        tenant=call.tenant,
        namespace=f"{feature.name}/{pair}",
    )
