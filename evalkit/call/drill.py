"""Fail providers on purpose, and compare what the call path does with the failure table.

The providers are those of the configuration, each behind a wrapper that fails for the
feature's first model and lets the others through: who stands in is asked for real.
Nothing is cached, capped, reviewed or logged.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from evalkit.call.answering import REFUSALS
from evalkit.call.attempts import MAX_TRIMS
from evalkit.call.breaker import THRESHOLD
from evalkit.call.failures import FAILURES
from evalkit.call.one_attempt import Clock
from evalkit.call.orchestrator import Orchestrator
from evalkit.call.providers import LazyProviders
from evalkit.call.providers.base import Provider
from evalkit.errors import CallError
from evalkit.records import CallResult, Event, Finish, ModelRequest, TextDelta, Usage
from evalkit.settings import (
    BudgetSettings,
    FeatureSettings,
    FlagSettings,
    ModelSettings,
    Settings,
    SpendCap,
)

FAILING_RETRIEVER = "evalkit.call.providers.recorded:retriever_that_fails"
NO_FAULT = "(no fault)"
Reach = Literal["provider", "model", "call"]


def _reply(text: str, reason: str = "stop") -> tuple[Event, ...]:
    return TextDelta(text), Finish(finish_reason=reason, usage=Usage(), served_model=None)


FAULTS: dict[str, tuple[Reach, tuple[Event, ...] | None]] = {
    NO_FAULT: ("call", None),
    # A whole provider fails: every model it serves.
    "rate_limit": ("provider", None),
    "quota_exhausted": ("provider", None),
    "server": ("provider", None),
    "connect": ("provider", None),
    "ttft_timeout": ("provider", None),
    "timeout": ("provider", None),
    "stream_cut": ("provider", (TextDelta("The answer is"),)),
    "breaker_open": ("provider", None),
    "auth": ("provider", None),
    # One model fails, or one request to it.
    "bad_reply": ("model", None),
    "too_large": ("model", None),
    "bad_request": ("model", None),
    "not_found": ("model", None),
    "context_length": ("model", None),
    "content_filter": ("model", _reply("", "content_filter")),
    "refusal": ("model", None),
    "truncated": ("model", _reply("The answer is", "length")),
    "empty": ("model", _reply("")),
    "invalid_output": ("model", _reply("The answer is, as so often, no JSON.")),
    # Refused before any model is asked.
    "retriever": ("call", None),
    "budget": ("call", None),
    "killed": ("call", None),
}
"""Kind -> what fails with it, and what it sends; None: the failure itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the failure table says of one fault."""

    failed: range
    """How often the first model may have been tried without success."""
    answered_by: str | None
    """None: nobody answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drilled:
    """What one fault came to."""

    kind: str
    expected: Expected
    failed: int
    """Attempts on the first model that failed."""
    attempts: int
    answered_by: str | None
    status: str
    error_kind: str | None
    latency_ms: float
    cost_usd: float | None
    note: str | None

    @property
    def as_expected(self) -> bool:
        return self.failed in self.expected.failed and (
            self.answered_by == self.expected.answered_by
        )


async def drill_failover(
    settings: Settings,
    feature: FeatureSettings,
    input: Mapping[str, Any],
    *,
    on_done: Callable[[Drilled], None] = lambda done: None,
) -> list[Drilled]:
    """Put every fault that fits `feature` in front of its first model, one call for each."""
    drilled = []
    providers = LazyProviders(settings.providers)
    try:
        with tempfile.TemporaryDirectory(prefix="evalkit-drill-") as folder:
            for kind in FAULTS:
                if not _fits(kind, feature, input):
                    continue
                under_test = _settings_for(kind, settings, feature, folder)
                done = await _drill(kind, under_test, feature.name, input, providers)
                drilled.append(done)
                on_done(done)
    finally:
        for provider in providers.opened():
            await provider.aclose()
    return drilled


def _fits(kind: str, feature: FeatureSettings, input: Mapping[str, Any]) -> bool:
    """Whether a fault can happen to this feature at all."""
    if kind == "invalid_output":
        return feature.output_schema is not None
    if kind == "retriever":
        return feature.retriever is not None and "documents" not in input
    return True


async def _drill(
    kind: str,
    settings: Settings,
    name: str,
    input: Mapping[str, Any],
    providers: Mapping[str, Provider],
) -> Drilled:
    feature = settings.features[name]
    first = settings.models[feature.model]
    # Without jitter a back-off is no wait: what is drilled is who is asked.
    orchestrator = Orchestrator(
        settings,
        providers={p: _Faulty(p, providers, kind, first) for p in settings.providers},
        clock=Clock(jitter=lambda: 0.0),
    )
    async with orchestrator:
        if kind == "breaker_open":
            await orchestrator.execute(name, input)
        result = await orchestrator.execute(name, input)
    return _drilled(kind, result, settings, feature)


class _Faulty:
    """A provider that fails where the fault reaches, and else is the real one."""

    def __init__(
        self, name: str, providers: Mapping[str, Provider], kind: str, first: ModelSettings
    ) -> None:
        self._name = name
        self._providers = providers
        self._kind = kind
        self._first = first

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
        reach, sent = FAULTS[self._kind]
        if not self._is_reached(reach, request):
            async for event in self._providers[self._name].stream(request):
                yield event
            return
        for event in sent or ():
            yield event
        if sent is None:
            # What opens a breaker at once, so that the next call finds it open.
            kind = "quota_exhausted" if self._kind == "breaker_open" else self._kind
            raise CallError(kind, "failed on purpose")

    def _is_reached(self, reach: Reach, request: ModelRequest) -> bool:
        if reach == "call" or self._name != self._first.provider:
            return False
        return reach == "provider" or request.model_id == self._first.id

    async def aclose(self) -> None: ...


def _settings_for(kind: str, settings: Settings, feature: FeatureSettings, folder: str) -> Settings:
    """The configuration with nothing between a call and its failure table."""
    alone = replace(
        feature,
        flag="drill",
        cache_ttl=0,
        semantic_cache=None,
        hedge_after_ms=None,
        escalate_below=None,
        routes={},
        tagger=None,
        review="never",
        retriever=FAILING_RETRIEVER if kind == "retriever" else feature.retriever,
    )
    spent = SpendCap(day_calls=0)
    return replace(
        settings,
        store=folder,
        features={**settings.features, feature.name: alone},
        budgets=BudgetSettings(total=spent) if kind == "budget" else BudgetSettings(),
        flags={"drill": FlagSettings(name="drill", enabled=kind != "killed")},
        flags_file=None,
    )


# --- what the table says ---------------------------------------------------------------


def expected_of(kind: str, feature: FeatureSettings, settings: Settings) -> Expected:
    """What has to come of a fault at the feature's first model."""
    if kind == NO_FAULT or (kind == "retriever" and feature.on_empty == "allow"):
        return Expected(failed=range(1), answered_by=feature.model)
    if FAULTS[kind][0] == "call":
        return Expected(failed=range(1), answered_by=None)
    row = FAILURES[kind]
    fails_over = row.fail_over or (kind in REFUSALS and feature.on_refusal == "fallback")
    stand_ins: Sequence[str] = feature.fallbacks if fails_over else ()
    if kind == "context_length":
        stand_ins = [name for name in stand_ins if _may_fit(name, feature, settings)]
    return Expected(
        failed=_tries(kind, feature), answered_by=stand_ins[0] if stand_ins else None
    )  # fmt: skip


def _tries(kind: str, feature: FeatureSettings) -> range:
    if kind == "context_length":
        return range(1, MAX_TRIMS + 2)
    row = FAILURES[kind]
    again = feature.retries if row.retries is None else min(row.retries, feature.retries)
    if kind == "invalid_output":
        again = feature.retries
    tries = min(1 + again, THRESHOLD + 1) if row.trips_breaker else 1 + again
    return range(tries, tries + 1)


def _may_fit(name: str, feature: FeatureSettings, settings: Settings) -> bool:
    least, context = settings.models[feature.model].context, settings.models[name].context
    return least is None or context is None or context > least


def _drilled(
    kind: str, result: CallResult, settings: Settings, feature: FeatureSettings
) -> Drilled:
    record, expected = result.record, expected_of(kind, feature, settings)
    answers = [one.model for one in record.attempts if one.error_kind is None]
    answered_by = answers[-1] if result.ok and answers else None
    on_first = [one for one in record.attempts if one.model == feature.model]
    return Drilled(
        kind=kind,
        expected=expected,
        failed=len(on_first) - (answered_by == feature.model),
        attempts=len(record.attempts),
        answered_by=answered_by,
        status=result.status,
        error_kind=result.error_kind,
        latency_ms=record.latency_ms,
        cost_usd=record.cost_usd,
        note=_note(kind, answered_by, expected, settings, feature),
    )


def _note(
    kind: str,
    answered_by: str | None,
    expected: Expected,
    settings: Settings,
    feature: FeatureSettings,
) -> str | None:
    """What explains that nobody answered."""
    if answered_by is not None:
        return None
    provider = settings.models[feature.model].provider
    beside = [name for name in feature.fallbacks if settings.models[name].provider == provider]
    if expected.answered_by in beside and FAULTS[kind][0] == "provider":
        return f"{expected.answered_by} is at the same provider, {provider}"
    row = FAILURES.get(kind)
    if row is not None and row.fail_over and not feature.fallbacks:
        return "no fallback is configured"
    return None
