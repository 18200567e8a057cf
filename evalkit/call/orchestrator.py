"""`execute()`: one call to one feature, the same for production and for evaluation.

It reads top to bottom like the whiteboard: flag, prompt, budget, route, attempt,
validate, log. Settings and the sink of call records are handed in; nothing here
knows of scores, stores or gates. It never raises for what a model or a provider
did: the result says so.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from evalkit.call.attempts import Clock, Patience, Target, Tried, attempt_until_answered
from evalkit.call.budget import Budget
from evalkit.call.failures import FAILURES
from evalkit.call.limits import ProviderGate
from evalkit.call.prompts import PromptRegistry
from evalkit.call.providers import LazyProviders
from evalkit.call.providers.base import Provider
from evalkit.call.shown import Shown
from evalkit.call.tokens import estimate_tokens
from evalkit.call.trace import Call, Rendered, Stages, new_id, sum_or_none
from evalkit.call.validation import Validated, ask_again, validate_output
from evalkit.config import FeatureSettings, ModelSettings, Settings, load_settings
from evalkit.errors import CallError, ConfigError
from evalkit.json_schema import Validate, compile_schema
from evalkit.records import (
    CallRecord,
    CallResult,
    Json,
    ModelRequest,
    TextDelta,
)

Sink = Callable[[CallRecord], None]
Emit = Callable[[str], Awaitable[None]]
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
        providers: Mapping[str, Provider],
        sink: Sink | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self._providers = providers
        self._sink = sink
        self._clock = clock or Clock()
        self.prompts = PromptRegistry(settings.root)
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
        settings = (
            config
            if isinstance(config, Settings)
            else load_settings(Path(config) if config is not None else None)
        )
        providers = LazyProviders(settings.providers)
        return cls(settings, providers=providers, sink=sink, clock=clock)

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
        budget: Budget | None = None,
        rendered: Rendered | None = None,
        response_schema: Mapping[str, Any] | None = None,
        emit: Emit | None = None,
    ) -> CallResult:
        """Answer `input` with `feature`; each keyword overrides the feature's setting once.

        `prompt` is `NAME@VERSION`. `rendered` replaces the prompt by ready messages, and
        `response_schema` is sent in place of the feature's own and left to the caller to
        read (a judge does). `emit` gets the text as it comes (see `stream`). Raises
        ConfigError for an unknown feature, model or prompt; whatever goes wrong with the
        model comes back as a result with a status.
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
        settings = self._feature(feature, overrides, prompt)
        call = Call(
            feature=settings,
            input={"text": input} if isinstance(input, str) else input,
            trace_id=new_id(),
            ts=time.time_ns() // 1000,
            started=self._clock.monotonic(),
            stages=Stages(self._clock.monotonic),
            user_id=user_id,
            tenant=tenant,
            session_id=session_id,
        )
        reserved_usd = 0.0
        try:
            with call.stages("flag"):
                self._check_flag(call)
            with call.stages("prompt"):
                call.rendered = rendered or self._render(call)
                schema, validate = self._output_schema(settings, response_schema)
                request = self._request(call, schema)
            with call.stages("budget"):
                reserved_usd = self._reserve(call, request, budget)
            with call.stages("route"):
                targets = self._targets(settings)
            await self._answer(call, request, targets, validate, emit)
        except CallError as error:
            self._fail(call, error)
        finally:
            if budget is not None and reserved_usd:
                budget.settle(reserved_usd, sum_or_none(a.cost_usd for a in call.attempts))
        if call.error_kind is not None:
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
        """Close the providers' connections."""
        opened = (
            self._providers.opened()
            if isinstance(self._providers, LazyProviders)
            else list(self._providers.values())
        )
        for provider in opened:
            await provider.aclose()

    async def __aenter__(self) -> Orchestrator:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    # --- the stages, in their order -----------------------------------------------

    def _feature(
        self, name: str, overrides: Mapping[str, Any], prompt: str | None
    ) -> FeatureSettings:
        feature = self.settings.features.get(name)
        if feature is None:
            known = ", ".join(sorted(self.settings.features)) or "none"
            raise ConfigError(f"no feature {name!r} in the configuration. There are: {known}.")
        changes = {key: value for key, value in overrides.items() if value is not None}
        if not changes and prompt is None:
            return feature
        key = (name, prompt, *changes.items())
        if key not in self._changed:
            if len(self._changed) >= CHANGED_FEATURES_KEPT:
                self._changed.clear()
            self._changed[key] = self._with_changes(feature, changes, prompt)
        return self._changed[key]

    def _with_changes(
        self, feature: FeatureSettings, changes: dict[str, Any], prompt: str | None
    ) -> FeatureSettings:
        if prompt is not None:
            prompt_name, at, version = prompt.rpartition("@")
            if not (at and prompt_name and version):
                raise ConfigError(f"{prompt!r} is not NAME@VERSION, e.g. classify-ticket@v2.")
            changes |= {"prompt_name": prompt_name, "prompt_version": version}
        return replace(feature, **changes)

    def _check_flag(self, call: Call) -> None:
        flag = call.feature.flag
        if flag is None:
            return
        enabled = self.settings.flags.get(flag, True)
        call.flag_variant = "on" if enabled else "off"
        if not enabled:
            raise CallError("killed", f"flag {flag} is off")

    def _render(self, call: Call) -> Rendered:
        feature = call.feature
        prompt = self.prompts.get(feature.prompt_name, feature.prompt_version)
        documents = call.input.get("documents")
        return Rendered(
            name=prompt.name,
            version=prompt.version,
            hash=prompt.hash,
            messages=prompt.render(call.input, documents=documents),
        )

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

    def _request(self, call: Call, schema: Mapping[str, Any] | None) -> ModelRequest:
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
            stream=feature.stream,
            task=feature.task,
            input=call.input,
        )

    def _reserve(self, call: Call, request: ModelRequest, budget: Budget | None) -> float:
        """Set aside what one attempt may cost at most; an unpriced model cannot be budgeted."""
        if budget is None:
            return 0.0
        model = self._model(call.feature.model, call.feature)
        if model.price is None:
            raise ConfigError(
                f"a spending limit needs the price of model {model.name}. "
                f"Add price = {{ input = …, output = … }} under [models.{model.name}]."
            )
        most_usd = (
            estimate_tokens(request.messages) * model.price.input
            + request.max_tokens * model.price.output
        ) / 1_000_000
        if not budget.reserve(most_usd):
            raise CallError("budget", f"{most_usd:.4f} USD more would pass the spending limit")
        return most_usd

    def _targets(self, feature: FeatureSettings) -> list[Target]:
        return [
            self._target(self._model(name, feature)) for name in (feature.model, *feature.fallbacks)
        ]

    async def _answer(
        self,
        call: Call,
        request: ModelRequest,
        targets: Sequence[Target],
        validate: Validate | None,
        emit: Emit | None,
    ) -> None:
        """Attempts until one answer is valid; a re-ask carries the validation error alone."""
        feature = call.feature
        patience = Patience(
            retries=feature.retries,
            deadline=call.started + feature.max_latency_ms / 1000,
            ttft_s=feature.ttft_ms / 1000 if feature.ttft_ms is not None else None,
            hedge_after_s=_hedge_after_s(feature),
        )
        shown = Shown(emit, resume=feature.resume_stream) if emit and validate is None else None
        ask, reasks = replace(request, stream=True) if shown else request, 0
        while True:
            with call.stages("attempt"):
                tried = await attempt_until_answered(
                    ask, targets, patience=patience, clock=self._clock, shown=shown
                )
            self._take(call, tried, shown)
            if tried.error is not None:
                raise tried.error
            if validate is None:
                return
            with call.stages("validate"):
                read = self._validate(call, validate)
            if read.error is None:
                if emit is not None and call.output is not None:
                    await emit(call.output)
                return
            if reasks >= feature.retries or self._clock.monotonic() >= patience.deadline:
                raise CallError("invalid_output", read.error)
            reasks += 1
            assert call.output is not None
            ask = replace(request, messages=request.messages + ask_again(call.output, read.error))

    def _take(self, call: Call, tried: Tried, shown: Shown | None) -> None:
        call.attempts.extend(tried.attempts)
        if tried.cut:
            call.route_reason = f"left out: {', '.join(tried.cut)}"
        if shown is not None:
            call.resumed, call.output = shown.resumed, shown.text or None
            if tried.error is not None and shown.text:
                raise CallError(
                    "incomplete", f"cut after {len(shown.text)} characters: {tried.error}"
                )
        if tried.reply is None:
            return
        call.answered_by = tried.target.model
        call.output = tried.reply.text
        call.finish_reason = tried.reply.finish.finish_reason
        call.tool_calls = tried.reply.finish.tool_calls
        call.confidence = tried.reply.finish.confidence

    def _validate(self, call: Call, validate: Validate) -> Validated:
        if call.tool_calls and not (call.output or "").strip():
            return Validated(value=None, repaired=False, error=None)
        read = validate_output(call.output or "", validate)
        call.value, call.repaired = read.value, call.repaired or read.repaired
        call.schema_ok = read.error is None
        return read

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
        call.status = "refused" if error.kind in {"budget", "killed", "refusal"} else "error"

    def _finish(self, call: Call) -> CallResult:
        record = call.record(self._clock.monotonic())
        if self._sink is not None:
            self._sink(record)
        return CallResult(
            status=call.status,
            output=call.output,
            value=call.value,
            error_kind=call.error_kind,
            message=call.message,
            record=record,
        )

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


def _hedge_after_s(feature: FeatureSettings) -> float | Literal["p95"] | None:
    after = feature.hedge_after_ms
    return after / 1000 if isinstance(after, (int, float)) else after


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
