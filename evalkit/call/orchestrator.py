"""`execute()`: one call to one feature, the same for production and for evaluation.

It reads top to bottom like the whiteboard: flag, policy, guard, route, retrieve, prompt,
count, cache, budget, attempt, guard, validate, review, log. Settings and the sink of call
records are handed in; nothing here knows of scores, stores or gates. It never raises for
what a model or a provider did: the result says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from evalkit.call import stages
from evalkit.call.answering import Emit
from evalkit.call.budget import Budget
from evalkit.call.cache import ResponseCache
from evalkit.call.flags import FlagSource
from evalkit.call.functions import make_importable
from evalkit.call.one_attempt import Clock
from evalkit.call.parts import Parts
from evalkit.call.prompts import PromptRegistry
from evalkit.call.providers.base import Provider
from evalkit.call.sharing import Gates
from evalkit.call.snapshot import snapshot
from evalkit.call.trace import Call, Rendered, Stages
from evalkit.config import FeatureSettings, Settings, load_settings
from evalkit.errors import CallError, ConfigError
from evalkit.ids import new_id
from evalkit.records import CallRecord, CallResult, TextDelta

log = logging.getLogger(__name__)

Sink = Callable[[CallRecord], None]
CHANGED_FEATURES_KEPT = 256
STREAM_PIECES_AHEAD = 64
"""Pieces of a stream that wait for a slow reader before the provider has to."""


class Orchestrator:
    """Executes features. Build it with `from_config()`; close it, or use `async with`.

    async with Orchestrator.from_config() as orchestrator:
        result = await orchestrator.execute("classify-ticket", {"text": "Where is it?"})
    """

    def __init__(
        self,
        settings: Settings,
        *,
        providers: Mapping[str, Provider] | None = None,
        sink: Sink | None = None,
        clock: Clock | None = None,
        cache: ResponseCache | None = None,
        flags: FlagSource | None = None,
        secret: str | None = None,
        gates: Gates | None = None,
    ) -> None:
        """`secret` is what the canary of prompts is drawn from; without, it is random. `gates`
        are those of providers that other processes ask, too.
        """
        self.settings = settings
        self.log_failures = 0
        """Records that the sink did not take."""
        self._parts = Parts(
            settings, providers=providers, clock=clock, cache=cache, flags=flags, secret=secret,
            gates=gates,
        )  # fmt: skip
        self._sink = sink
        self._changed: dict[tuple[Any, ...], FeatureSettings] = {}

    @classmethod
    def from_config(
        cls,
        config: str | Path | Settings | None = None,
        *,
        sink: Sink | None = None,
        clock: Clock | None = None,
        secret: str | None = None,
        gates: Gates | None = None,
    ) -> Orchestrator:
        """Build from `evalkit.toml` (searched upwards from here), a path to one, or settings.

        Raises ConfigError naming every problem of the file.
        """
        if not isinstance(config, Settings):
            config = load_settings(Path(config) if config is not None else None)
        if config.path is not None:
            make_importable(config.root)
        return cls(config, sink=sink, clock=clock, secret=secret, gates=gates)

    @property
    def prompts(self) -> PromptRegistry:
        return self._parts.prompts

    @property
    def storage(self) -> ResponseCache:
        """Where answers are kept; closed with the rest."""
        return self._parts.storage

    async def execute(
        self,
        feature: str,
        input: Mapping[str, Any] | str,
        *,
        model: str | None = None,
        fallbacks: Sequence[str] | None = None,
        prompt: str | None = None,
        max_latency_ms: float | None = None,
        retries: int | None = None,
        cache_ttl: float | None = None,
        on_failure: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        user_id: str | None = None,
        tenant: str | None = None,
        session_id: str | None = None,
        action: str | None = None,
        idempotency_key: str | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        pinned: bool = False,
        budget: Budget | None = None,
        rendered: Rendered | None = None,
        response_schema: Mapping[str, Any] | None = None,
        emit: Emit | None = None,
    ) -> CallResult:
        """Answer `input` with `feature`; each of the first keywords overrides its setting once.

        `prompt` is `NAME@VERSION`. `action` (module:function) runs once a person has approved
        an answer that waits for review; `idempotency_key` keeps it from running twice.
        `pinned` has the named model and prompt serve and nobody else, as an evaluation must:
        no fallback, cascade, flag, cache, cap, degradation or review. `rendered` replaces the
        prompt by ready messages, and `response_schema` is sent in place of the feature's own
        and left to the caller to read (a judge does). `emit` gets the text as it comes (see
        `stream`). Raises ConfigError for an unknown feature, model or prompt; whatever goes
        wrong with the model comes back as a result with a status.
        """
        overrides = {
            "model": model,
            "fallbacks": tuple(fallbacks) if fallbacks is not None else None,
            "max_latency_ms": max_latency_ms,
            "retries": retries,
            "cache_ttl": cache_ttl,
            "on_failure": on_failure,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        call = Call(
            feature=self._feature(feature, overrides, prompt, pinned),
            input=_as_fields(input),
            trace_id=new_id(),
            ts=time.time_ns() // 1000,
            started=self._parts.clock.monotonic(),
            stages=Stages(self._parts.clock.monotonic),
            user_id=_as_text(user_id),
            tenant=_as_text(tenant),
            session_id=_as_text(session_id),
            pinned=pinned,
        )
        # What a person may have to see first is shown to nobody before.
        waits = call.feature.review != "never"
        try:
            try:
                stages.refuse_shapeless(input)
                await self._answer(
                    call, tools=tools, rendered=rendered, schema=response_schema,
                    budget=budget, emit=None if waits else emit,
                )  # fmt: skip
                call.stages.begin("review")
                await stages.hold_for_review(call, self._parts, action, idempotency_key)
                if waits and emit is not None and call.status == "ok":
                    await stages.show(call, self._parts, emit)
            except CallError as error:
                stages.fail(call, error)
                call.stages.begin("degrade")
                await stages.degrade(call, self._parts)
        except asyncio.CancelledError:
            stages.fail(call, CallError("cancelled", "the caller went away"))
            self._finish(call)
            raise
        except Exception as error:
            # A fault of the application's own, or of a file: an answer is written down.
            if call.attempts or call.cache_kind is not None:
                stages.fail(call, CallError("server", f"{type(error).__name__} beside the model"))
                self._finish(call)
            raise
        return self._finish(call)

    async def _answer(
        self,
        call: Call,
        *,
        tools: Sequence[Mapping[str, Any]],
        rendered: Rendered | None,
        schema: Mapping[str, Any] | None,
        budget: Budget | None,
        emit: Emit | None,
    ) -> None:
        """The whiteboard. Raises CallError where the call ends without an answer."""
        parts = self._parts
        begin = call.stages.begin
        begin("flag")
        stages.check_flag(call, parts)
        begin("policy")
        stages.refuse_undeclared(call, parts, tools)
        begin("guard_in")
        stages.guard_input(call, parts)
        begin("route")
        function = await stages.route(call, parts)
        if function is not None:
            begin("function")
            await stages.answer_without_model(call, parts, function, emit)
            return
        begin("retrieve")
        await stages.retrieve(call, parts)
        begin("prompt")
        call.rendered = rendered or stages.render(call, parts)
        own, validate = parts.output_schema(call.feature)
        if schema is not None:
            own, validate = schema, None
        request = stages.build_request(call, parts, own, tools)
        begin("count")
        stages.refuse_too_long(call, parts, request)

        async def ask() -> None:
            await stages.ask(call, parts, request, validate, budget, emit)

        await stages.answer_from_cache_or(call, parts, request, ask, emit)

    async def stream(
        self, feature: str, input: Mapping[str, Any] | str, **overrides: Any
    ) -> AsyncGenerator[TextDelta | CallResult, None]:
        """The answer piece by piece, and last the `CallResult` that `execute` would return.

        An answer with a schema, or one that rules look at, is shown once it has passed, in one
        piece. Closing the iterator cancels the call.
        """
        input = input if isinstance(input, str) else snapshot(input)
        pieces: asyncio.Queue[TextDelta | CallResult | BaseException] = asyncio.Queue(
            STREAM_PIECES_AHEAD
        )

        async def emit(text: str) -> None:
            await pieces.put(TextDelta(text))

        has_reader = True

        async def run() -> None:
            try:
                await pieces.put(await self.execute(feature, input, emit=emit, **overrides))
            except BaseException as error:  # whatever ends this, its reader waits for a word
                if has_reader:
                    await pieces.put(error)

        running = asyncio.create_task(run())
        try:
            while isinstance(piece := await pieces.get(), TextDelta):
                yield piece
            if isinstance(piece, BaseException):
                raise piece
            yield piece
        finally:
            has_reader = False
            running.cancel()
            await asyncio.wait({running})

    def reviewed(
        self, feature: str, input: Mapping[str, Any] | str, idempotency_key: str
    ) -> CallResult | None:
        """What became of an answer that was held for a person under that key, without a call.

        `ok` with what was released, `refused` when it was rejected, else `pending_review`.
        None when no answer of this feature to this input is held under it.
        """
        if not self._parts.has_reviews:
            return None
        from evalkit.call.queue_file import to_json
        from evalkit.call.review import result_of

        review = self._parts.reviews.of_key(idempotency_key)
        if review is None or review.feature != feature:
            return None
        if to_json(review.input) != to_json(_as_fields(input)):
            return None
        return result_of(review, is_json=self.settings.features[feature].output_schema is not None)

    def execute_sync(
        self, feature: str, input: Mapping[str, Any] | str, **overrides: Any
    ) -> CallResult:
        """`execute` for scripts: runs an event loop of its own and closes the providers."""

        async def once() -> CallResult:
            async with self:
                return await self.execute(feature, input, **overrides)

        return asyncio.run(once())

    async def aclose(self) -> None:
        """Close connections and files; what is needed again is opened again."""
        await self._parts.aclose()

    async def __aenter__(self) -> Orchestrator:
        """Load what calls will use, so that the first does not wait for it."""
        from evalkit.call.warm_up import warm_up

        warm_up(self.settings)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _feature(
        self, name: str, overrides: Mapping[str, Any], prompt: str | None, pinned: bool
    ) -> FeatureSettings:
        feature = self.settings.features.get(name)
        if feature is None:
            known = ", ".join(sorted(self.settings.features)) or "none"
            raise ConfigError(f"no feature {name!r} in the configuration. There are: {known}.")
        changes = {key: value for key, value in overrides.items() if value is not None}
        if not changes and prompt is None and not pinned:
            return feature
        key = (name, prompt, pinned, *changes.items())
        if key not in self._changed:
            if len(self._changed) >= CHANGED_FEATURES_KEPT:
                self._changed.clear()
            if pinned:
                feature = replace(feature, **PINNED)
            self._changed[key] = stages.with_changes(feature, changes, prompt)
        return self._changed[key]

    def _record(self, call: Call) -> CallRecord:
        """What is left of the call; without its input where that cannot be looked through."""
        try:
            return stages.record_of(call, self._parts)
        except Exception as error:
            told = type(error).__name__  # its words may quote the input
            log.warning("call %s is recorded without its input: %s", call.trace_id, told)
            return stages.record_without_input(call, self._parts)

    def _finish(self, call: Call) -> CallResult:
        """Hand the record to the log, and the answer to the caller."""
        record = self._record(call)
        if self._sink is not None:
            try:
                self._sink(record)
            except Exception:
                self.log_failures += 1
                log.exception("the record of call %s was not taken", call.trace_id)
        waits = call.status == "pending_review"
        output, value = call.output, call.value
        if call.guarded.placeholders and output is not None:
            output = stages.restored(call, self._parts)
            value = self._parts.guard.restore_value(value, call.guarded)
        return CallResult(
            status=call.status,
            output=None if waits else output,
            value=None if waits else value,
            error_kind=call.error_kind,
            message=call.message,
            record=record,
            tool_calls=stages.restored_tools(call, self._parts) if call.status == "ok" else (),
        )


PINNED: Mapping[str, Any] = {
    "fallbacks": (),
    "escalate_below": None,
    "routes": {},
    "tagger": None,
    "cache_ttl": 0,
    "semantic_cache": None,
    "on_failure": "error",
    "on_refusal": "refuse",
    "review": "never",
    "flag": None,
}
"""What a pinned call leaves out: whatever could have somebody else answer."""


def _as_fields(input: object) -> Mapping[str, Any]:
    """A copy of the input by its fields; none where it is neither text nor fields: refused."""
    if isinstance(input, str):
        return {"text": input}
    return snapshot(input) if isinstance(input, Mapping) else {}


def _as_text(name: object) -> str | None:
    """An id as the records have it; an application may hand in its own number or UUID."""
    return name if name is None or isinstance(name, str) else str(name)
