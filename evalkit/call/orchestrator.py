"""`execute()`: one call to one feature, the same for production and for evaluation.

It reads top to bottom like the whiteboard: flag, policy, guard, route, retrieve, prompt,
count, cache, budget, attempt, guard, validate, review, log. Settings and the sink of call
records are handed in; nothing here knows of scores, stores or gates. It never raises for
what a model or a provider did: the result says so.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

from evalkit.call.answering import Answer, Demands, Emit, Rule, find_answer
from evalkit.call.attempts import Clock, Target
from evalkit.call.budget import Budget
from evalkit.call.cache import Cached, ResponseCache
from evalkit.call.cache_storage import open_cache
from evalkit.call.context import trim
from evalkit.call.failures import FAILURES
from evalkit.call.flags import Flags, FlagSource
from evalkit.call.guards import Guard, redact_record
from evalkit.call.kept_answers import KeptAnswers
from evalkit.call.ledger import Hold, Ledger, has_caps
from evalkit.call.limits import ProviderGate
from evalkit.call.policy import check as check_policy
from evalkit.call.prompts import PromptRegistry
from evalkit.call.providers import LazyProviders
from evalkit.call.providers.base import Provider
from evalkit.call.retrieval import Retrievers, retrieve_context
from evalkit.call.review import ReviewQueue, review_wanted
from evalkit.call.routing import Tagger, answer_by_function, make_tagger, route
from evalkit.call.tokens import estimate_tokens
from evalkit.call.trace import Call, Rendered, Stages, new_id, sum_or_none
from evalkit.config import FeatureSettings, ModelSettings, Settings, load_settings
from evalkit.errors import CallError, ConfigError
from evalkit.json_schema import Validate, compile_schema
from evalkit.records import CallRecord, CallResult, Json, ModelRequest, TextDelta

log = logging.getLogger(__name__)

Sink = Callable[[CallRecord], None]
CHANGED_FEATURES_KEPT = 256
STREAM_PIECES_AHEAD = 64
"""Pieces of a stream that wait for a slow reader before the provider has to."""
CANARY_LINE = "\n\n[{canary}] This mark is private: never write it."


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
    ) -> None:
        self.settings = settings
        self.prompts = PromptRegistry(settings.root)
        self.log_failures = 0
        """Records that the sink did not take."""
        self._providers = LazyProviders(settings.providers) if providers is None else providers
        self._sink = sink
        self._clock = clock or Clock()
        self._given_cache = cache
        self._flags = flags or Flags(settings, self._clock)
        self._retrievers = Retrievers(settings)
        self._taggers: dict[str, Tagger | None] = {}
        self._gates: dict[str, ProviderGate] = {}
        self._changed: dict[tuple[Any, ...], FeatureSettings] = {}
        self._schemas: dict[Path, tuple[Mapping[str, Any], Validate]] = {}

    @classmethod
    def from_config(
        cls,
        config: str | Path | Settings | None = None,
        *,
        sink: Sink | None = None,
        clock: Clock | None = None,
    ) -> Orchestrator:
        """Build from `evalkit.toml` (searched upwards from here), a path to one, or settings.

        Raises ConfigError naming every problem of the file.
        """
        if not isinstance(config, Settings):
            config = load_settings(Path(config) if config is not None else None)
        return cls(config, sink=sink, clock=clock)

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
            input={"text": input} if isinstance(input, str) else input,
            trace_id=new_id(),
            ts=time.time_ns() // 1000,
            started=self._clock.monotonic(),
            stages=Stages(self._clock.monotonic),
            user_id=user_id,
            tenant=tenant,
            session_id=session_id,
            pinned=pinned,
        )
        try:
            with call.stages("flag"):
                self._check_flag(call)
            with call.stages("policy"):
                self._check_policy(call, tools)
            with call.stages("guard_in"):
                self._guard_input(call)
            with call.stages("route"):
                function = await self._route(call)
            if function is not None:
                await self._answer_by_function(call, function, emit)
                return self._finish(call)
            with call.stages("retrieve"):
                await self._retrieve(call)
            with call.stages("prompt"):
                call.rendered = rendered or self._render(call)
                schema, validate = self._output_schema(call.feature, response_schema)
                request = self._request(call, schema, tools)
            with call.stages("count"):
                request = self._made_to_fit(call, request)
            answer = self._fresh_answer(call, request, validate, budget, emit)
            await self._cached_or(call, request, answer, emit)
            with call.stages("review"):
                self._hold_for_review(call, action, idempotency_key)
        except CallError as error:
            self._fail(call, error)
            with call.stages("degrade"):
                await self._degrade(call)
        return self._finish(call)

    async def stream(
        self, feature: str, input: Mapping[str, Any] | str, **overrides: Any
    ) -> AsyncGenerator[TextDelta | CallResult, None]:
        """The answer piece by piece, and last the `CallResult` that `execute` would return.

        An answer with a schema is shown once it is valid, in one piece. Closing the
        iterator cancels the call.
        """
        pieces: asyncio.Queue[TextDelta | CallResult | BaseException] = asyncio.Queue(
            STREAM_PIECES_AHEAD
        )

        async def emit(text: str) -> None:
            await pieces.put(TextDelta(text))

        async def run() -> None:
            try:
                await pieces.put(await self.execute(feature, input, emit=emit, **overrides))
            except Exception as error:
                await pieces.put(error)

        running = asyncio.create_task(run())
        try:
            while isinstance(piece := await pieces.get(), TextDelta):
                yield piece
            if isinstance(piece, BaseException):
                raise piece
            yield piece
        finally:
            running.cancel()
            await asyncio.wait({running})

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
        opened = (
            self._providers.opened()
            if isinstance(self._providers, LazyProviders)
            else list(self._providers.values())
        )
        for provider in opened:
            await provider.aclose()
        if "_kept_answers" in self.__dict__:
            await self._kept_answers.aclose()
        for name in ("_ledger", "_reviews"):
            if (file := self.__dict__.pop(name, None)) is not None:
                file.close()

    async def __aenter__(self) -> Orchestrator:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # --- files behind the stages, opened when first needed --------------------------

    @cached_property
    def _guard(self) -> Guard:
        return Guard(self.settings.guard)

    @cached_property
    def _kept_answers(self) -> KeptAnswers:
        storage = self._given_cache or open_cache(self.settings)
        return KeptAnswers(storage, most_days=self.settings.retention.cache_days)

    @cached_property
    def _ledger(self) -> Ledger:
        return Ledger(Path(self.settings.store_path) / "budget.sqlite", self.settings.budgets)

    @cached_property
    def _reviews(self) -> ReviewQueue:
        return ReviewQueue(Path(self.settings.store_path) / "queue.sqlite")

    # --- the stages, in their order -----------------------------------------------

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
            self._changed[key] = _with_changes(feature, changes, prompt)
        return self._changed[key]

    def _check_flag(self, call: Call) -> None:
        """Let the feature's flag turn it off, or give this user its own model or prompt."""
        flag = call.feature.flag
        if flag is None:
            return
        variant = self._flags.variant(flag, user_id=call.user_id)
        call.flag_variant = variant.arm
        if not variant.enabled:
            raise CallError("killed", f"flag {flag} is off")
        if variant.model is not None or variant.prompt is not None:
            changes = {} if variant.model is None else {"model": variant.model}
            call.feature = _with_changes(call.feature, changes, variant.prompt)

    def _check_policy(self, call: Call, tools: Sequence[Mapping[str, Any]]) -> None:
        """Refuse tools and tiers that the feature has not declared; who evaluates may ask any."""
        model = None if call.pinned else self._model(call.feature.model, call.feature)
        check_policy(call.feature, tools=map(_tool_name, tools), model=model)

    def _guard_input(self, call: Call) -> None:
        """Replace or refuse what may not leave; from here on only the guarded input is used."""
        if not call.feature.guard:
            return
        call.guarded = self._guard.check_input(call.input)
        call.guard_events += call.guarded.events
        call.redactions += call.guarded.redactions

    async def _route(self, call: Call) -> str | None:
        """Choose who answers by the kind of query; the name of a function where one does."""
        feature = call.feature
        if feature.tagger is None or not feature.routes:
            return None
        if feature.name not in self._taggers:
            self._taggers[feature.name] = make_tagger(feature, self.settings)
        chosen = await route(feature, call.guarded.input, tagger=self._taggers[feature.name])
        call.route_reason = chosen.reason or None
        if chosen.model is not None and chosen.model != feature.model:
            first, *others = chosen.models(feature)
            call.feature = replace(feature, model=first, fallbacks=tuple(others))
        return chosen.function

    async def _answer_by_function(self, call: Call, function: str, emit: Emit | None) -> None:
        """Answer without any model: what is certain needs none."""
        with call.stages("function"):
            call.output, call.value = await answer_by_function(function, call.input)
        if emit is not None:
            await emit(call.output)

    async def _retrieve(self, call: Call) -> None:
        """Find the documents that the prompt is given, unless the input brings its own."""
        feature, input = call.feature, call.guarded.input
        if feature.retriever is None or "documents" in input:
            return
        retriever = await self._retrievers.get(feature)
        assert retriever is not None
        left_s = call.started + feature.max_latency_ms / 1000 - self._clock.monotonic()
        found = await retrieve_context(feature, input, retriever, timeout_s=left_s)
        call.retrieved_ids, call.index_version = found.ids, found.index_version
        call.guarded = replace(call.guarded, input={**input, "documents": found.documents()})

    def _render(self, call: Call) -> Rendered:
        feature, input = call.feature, call.guarded.input
        prompt = self.prompts.get(feature.prompt_name, feature.prompt_version)
        messages = prompt.render(input, documents=input.get("documents"))
        return Rendered(
            name=prompt.name,
            version=prompt.version,
            hash=prompt.hash,
            messages=messages,
        )

    def _with_canary(self, call: Call, request: ModelRequest) -> ModelRequest:
        """Plant the word in the system prompt by which a leak of it is known."""
        guard, messages = self.settings.guard, request.messages
        if not call.feature.guard or guard.output_leak == "off" or not messages:
            return request
        first, *others = messages
        if first["role"] != "system":
            return request
        call.canary, call.system_text = self._guard.canary(), str(first["content"])
        marked = {**first, "content": first["content"] + CANARY_LINE.format(canary=call.canary)}
        return replace(request, messages=(marked, *others))

    def _output_schema(
        self, feature: FeatureSettings, override: Mapping[str, Any] | None
    ) -> tuple[Mapping[str, Any] | None, Validate | None]:
        if override is not None:
            return override, None
        path = feature.output_schema
        if path is None:
            return None, None
        if path not in self._schemas:
            try:
                schema = json.loads(path.read_text(encoding="utf-8"))
                self._schemas[path] = schema, compile_schema(schema)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"{path}: output_schema of feature {feature.name}: {error}"
                ) from None
        return self._schemas[path]

    def _request(
        self, call: Call, schema: Mapping[str, Any] | None, tools: Sequence[Mapping[str, Any]]
    ) -> ModelRequest:
        feature, rendered = call.feature, call.rendered
        assert rendered is not None
        sampling = {"temperature": feature.temperature, "seed": feature.seed}
        call.params = {key: value for key, value in sampling.items() if value is not None}
        call.params["max_tokens"] = feature.max_tokens
        return ModelRequest(
            model_id="",
            messages=rendered.messages,
            max_tokens=feature.max_tokens,
            temperature=feature.temperature,
            seed=feature.seed,
            response_schema=schema,
            tools=tuple(tools),
            stream=feature.stream,
            task=feature.task,
            input=call.guarded.input,
        )

    def _made_to_fit(self, call: Call, request: ModelRequest) -> ModelRequest:
        """Refuse what is over the feature's own limit; trim what the model cannot take."""
        feature = call.feature
        context = self._model(feature.model, feature).context
        if feature.max_input_tokens is None and context is None:
            return request
        tokens = estimate_tokens(request.messages)
        if feature.max_input_tokens is not None and tokens > feature.max_input_tokens:
            limit = feature.max_input_tokens
            raise CallError("context_length", f"about {tokens} tokens, over the limit of {limit}")
        cut = []
        while context is not None and tokens + feature.max_tokens > context:
            trimmed = trim(request.messages)
            if trimmed is None:
                break
            cut.append(trimmed.cut)
            request = replace(request, messages=trimmed.messages)
            tokens = estimate_tokens(request.messages)
        if cut:
            call.route_reason = f"left out: {', '.join(cut)}"
        return request

    async def _cached_or(
        self,
        call: Call,
        request: ModelRequest,
        fresh: Callable[[], Awaitable[None]],
        emit: Emit | None,
    ) -> None:
        """An answer kept earlier, or a fresh one; of equal calls at once, one is made."""
        feature = call.feature
        if feature.cache_ttl <= 0 or request.tools:
            await fresh()
            return
        model = self._model(feature.model, feature)
        kept = await self._kept_answers.find_or_make(call, request, model, fresh)
        if kept is not None:
            self._take_cached(call, *kept)
            if emit is not None:
                await emit(self._restored(call))

    def _take_cached(self, call: Call, kept: Cached, kind: str) -> None:
        feature = call.feature
        call.cache_kind = kind
        call.answered_by = self.settings.models.get(kept.model)
        call.output, call.finish_reason = kept.output, kept.finish.finish_reason
        call.confidence = kept.finish.confidence
        if feature.output_schema is not None:
            with suppress(ValueError):
                call.value, call.schema_ok = json.loads(kept.output), True

    def _fresh_answer(
        self,
        call: Call,
        request: ModelRequest,
        validate: Validate | None,
        budget: Budget | None,
        emit: Emit | None,
    ) -> Callable[[], Awaitable[None]]:
        """The rest of the way, for when no kept answer will do: budget, route, attempt."""

        async def answer() -> None:
            feature = call.feature
            with call.stages("budget"):
                spend = self._reserve(call, request, budget)
            try:
                targets = self._targets(feature)
                demands = Demands(
                    validate=validate,
                    rules=[self._rule(name) for name in feature.rules],
                    guard=self._guard if feature.guard else None,
                    allow_tool=lambda name: check_policy(feature, tools=(name,)),
                )
                asked = self._with_canary(call, request)
                found = await find_answer(
                    call, asked, targets, demands, clock=self._clock, emit=emit
                )
            finally:
                spend(sum_or_none(a.cost_usd for a in call.attempts))
            self._take(call, found)
            if emit is not None and demands.read_whole and found.error is None:
                await emit(self._restored(call))

        return answer

    def _reserve(
        self, call: Call, request: ModelRequest, budget: Budget | None
    ) -> Callable[[float | None], None]:
        """Set aside what the call may cost at most; returns how it is settled.

        A run's own budget needs a price; caps of users and features count tokens and calls
        of a model without one.
        """
        model = self._model(call.feature.model, call.feature)
        capped = not call.pinned and has_caps(self.settings.budgets)
        if budget is None and not capped:
            return lambda cost_usd: None
        tokens = estimate_tokens(request.messages)
        most_usd = _most_usd(model, tokens, request.max_tokens)
        if budget is not None:
            _reserve_in_run(budget, model, most_usd)
        hold: Hold | None = None
        if capped:
            hold = self._ledger.reserve(
                most_usd,
                tokens + request.max_tokens,
                user=call.user_id,
                tenant=call.tenant,
                feature=call.feature.name,
            )

        def settle(cost_usd: float | None) -> None:
            if budget is not None:
                budget.settle(most_usd or 0.0, cost_usd)
            if hold is not None and call.attempts:
                self._ledger.settle(hold, cost_usd, call.total_tokens)
            elif hold is not None:
                self._ledger.release(hold)

        return settle

    def _targets(self, feature: FeatureSettings) -> list[Target]:
        return [
            self._target(self._model(name, feature)) for name in (feature.model, *feature.fallbacks)
        ]

    def _rule(self, name: str) -> Rule:
        return call_by_name(name)  # type: ignore[return-value]

    def _take(self, call: Call, answer: Answer) -> None:
        """The answer that was found, into the call; raises what is wrong with it."""
        call.output, call.value = answer.text, answer.value
        call.repaired, call.schema_ok = answer.repaired, answer.schema_ok
        if answer.reply is not None:
            call.answered_by = answer.target.model
            call.finish_reason = answer.reply.finish.finish_reason
            call.tool_calls = answer.reply.finish.tool_calls
            call.confidence = answer.confidence
        if answer.error is not None:
            raise answer.error

    def _hold_for_review(self, call: Call, action: str | None, key: str | None) -> None:
        policy = call.feature.review
        if policy == "never":
            return
        facts = {
            "feature": call.feature.name,
            "input": call.input,
            "output": call.output,
            "value": call.value,
            "confidence": call.confidence,
            "user_id": call.user_id,
        }
        if review_wanted(policy, facts, call_by_name):
            call.status = "pending_review"
            call.message = "This answer waits for a person."
            self._reviews.hold(self._record(call), action, key)

    async def _degrade(self, call: Call) -> None:
        """Answer without a model where the feature says how; else leave the failure as it is."""
        kind, _, argument = call.feature.on_failure.partition(":")
        if kind == "text":
            call.status, call.output, call.value = "degraded", argument, None
        elif kind == "degrade":
            answer = call_by_name(argument)(call.input)
            if inspect.isawaitable(answer):
                answer = await answer
            call.status, call.value = "degraded", None if isinstance(answer, str) else answer
            call.output = answer if isinstance(answer, str) else json.dumps(answer)

    # --- what a call leaves behind ------------------------------------------------

    def _fail(self, call: Call, error: CallError) -> None:
        call.error_kind = error.kind
        call.message = FAILURES[error.kind].message
        call.route_reason = str(error)[:500]
        call.status = "refused" if error.kind in REFUSED else "error"

    def _restored(self, call: Call) -> str:
        return self._guard.restore(call.output or "", call.guarded)

    def _finish(self, call: Call) -> CallResult:
        record = self._record(call)
        if self._sink is not None:
            try:
                self._sink(record)
            except Exception:
                self.log_failures += 1
                log.exception("the record of call %s was not taken", call.trace_id)
        waits = call.status == "pending_review"
        output: str | None
        output, value = call.output, call.value
        if call.guarded.placeholders and output is not None:
            output = self._restored(call)
            value = self._guard.restore_value(value, call.guarded)
        return CallResult(
            status=call.status,
            output=None if waits else output,
            value=None if waits else value,
            error_kind=call.error_kind,
            message=call.message,
            record=record,
        )

    def _record(self, call: Call) -> CallRecord:
        """The record as it may be written: an evaluation's as it was, for it is scored again."""
        record = call.record(self._clock.monotonic())
        if call.pinned:
            if call.guarded.placeholders:
                return replace(record, output=self._restored(call))
            return record
        return redact_record(record) if self.settings.retention.redact else record

    def _model(self, name: str, feature: FeatureSettings) -> ModelSettings:
        model = self.settings.models.get(name)
        if model is None:
            known = ", ".join(sorted(self.settings.models)) or "none"
            raise ConfigError(f"feature {feature.name}: no model {name!r}. There are: {known}.")
        return model

    def _target(self, model: ModelSettings) -> Target:
        gate = self._gates.get(model.provider)
        if gate is None:
            gate = self._gates[model.provider] = ProviderGate.of(
                self.settings.providers[model.provider],
                monotonic=self._clock.monotonic,
                sleep=self._clock.sleep,
            )
        return Target(model=model, provider=self._providers[model.provider], gate=gate)


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

REFUSED = frozenset({"budget", "killed", "refusal", "guard_block", "policy"})
"""Kinds of failure in which nothing broke: the answer is no."""


def _tool_name(tool: Mapping[str, Any]) -> str:
    """A tool's name, as the wires write it: {"name": …} or {"function": {"name": …}}."""
    function = tool.get("function")
    return str((function if isinstance(function, Mapping) else tool).get("name", ""))


def _with_changes(
    feature: FeatureSettings, changes: dict[str, Any], prompt: str | None
) -> FeatureSettings:
    if prompt is not None:
        prompt_name, at, version = prompt.rpartition("@")
        if not (at and prompt_name and version):
            raise ConfigError(f"{prompt!r} is not NAME@VERSION, e.g. classify-ticket@v2.")
        changes = changes | {"prompt_name": prompt_name, "prompt_version": version}
    return replace(feature, **changes)


def _most_usd(model: ModelSettings, tokens: int, max_tokens: int) -> float | None:
    """What one attempt may cost at most; None when the model has no price."""
    if model.price is None:
        return None
    return (tokens * model.price.input + max_tokens * model.price.output) / 1_000_000


def _reserve_in_run(budget: Budget, model: ModelSettings, most_usd: float | None) -> None:
    if most_usd is None:
        raise ConfigError(
            f"a spending limit needs the price of model {model.name}. "
            f"Add price = {{ input = …, output = … }} under [models.{model.name}]."
        )
    if not budget.reserve(most_usd):
        raise CallError("budget", f"{most_usd:.4f} USD more would pass the spending limit")


def call_by_name(name: str) -> Callable[..., Json | Awaitable[Json]]:
    """The function that `module:function` names. Raises ConfigError when there is none."""
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"{name!r} is not an importable module:function: {error}") from None
    if not callable(function):
        raise ConfigError(f"{name!r} is not a function.")
    return function  # type: ignore[no-any-return]
