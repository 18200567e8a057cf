"""What one call leaves behind: stage times and the record, gathered while it runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from evalkit.call.guards import Guarded
from evalkit.config import FeatureSettings, ModelSettings
from evalkit.frozen import frozen
from evalkit.records import (
    Attempt,
    CallRecord,
    CallStatus,
    Json,
    Message,
    ToolCall,
)

if TYPE_CHECKING:
    from evalkit.call.allowance import Allowance


class Stages:
    """How long a call was in each stage, in the order they ran; one lasts until the next."""

    __slots__ = ("_monotonic", "_name", "_since", "_spent_s")

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._name, self._since = "", 0.0
        self._spent_s: dict[str, float] = {}

    def begin(self, name: str) -> None:
        """The stage before ends here; one that runs again goes on counting."""
        now = self._monotonic()
        if self._name:
            self._spent_s[self._name] = self._spent_s.get(self._name, 0.0) + now - self._since
        self._name, self._since = name, now

    def ms_at(self, now: float) -> dict[str, float]:
        """Stage to milliseconds, the stage that runs counted up to `now`."""
        spent_s = dict(self._spent_s)
        if self._name:
            spent_s[self._name] = spent_s.get(self._name, 0.0) + now - self._since
        return {name: round(seconds * 1000, 3) for name, seconds in spent_s.items()}


@frozen
class Rendered:
    """Messages ready to send, with the identity of the prompt they came from."""

    name: str
    version: str
    hash: str
    messages: tuple[Message, ...]


@dataclass(slots=True, kw_only=True)
class Call:
    """What is known of a call while it runs; `record()` is what is left of it."""

    feature: FeatureSettings
    input: Mapping[str, Any]
    trace_id: str
    ts: int
    started: float
    stages: Stages
    user_id: str | None
    tenant: str | None
    session_id: str | None
    pinned: bool = False
    guarded: Guarded = field(init=False)
    """The input as it may be sent; as it came, until the guard has seen it."""
    allowance: Allowance | None = None
    """What it may spend; None where nothing is limited."""
    step_aside: Callable[[], None] | None = None
    """Lets those go who wait for this call's answer; None where nobody may wait for it."""
    unshown: bool = False
    """Its answer is there whole, and its reader has seen none of it."""
    canary: str | None = None
    system_text: str = ""
    rendered: Rendered | None = None
    params: dict[str, Any] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    replies: dict[int, str] = field(default_factory=dict)
    """Usable replies by the place of their attempt; which of them is the answer shows later."""
    answered_by: ModelSettings | None = None
    answered_at: int | None = None
    """Place of the attempt that answered; others may have come after it, and failed."""
    status: CallStatus = "ok"
    error_kind: str | None = None
    message: str | None = None
    output: str | None = None
    value: Json = None
    finish_reason: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    confidence: float | None = None
    repaired: bool = False
    resumed: int = 0
    schema_ok: bool | None = None
    flag_variant: str | None = None
    route_reason: str | None = None
    escalated: bool = False
    cache_kind: str | None = None
    guard_events: tuple[str, ...] = ()
    retrieved_ids: tuple[str, ...] = ()
    index_version: str | None = None
    redactions: int = 0

    def __post_init__(self) -> None:
        self.guarded = Guarded(input=self.input)

    @property
    def total_tokens(self) -> int | None:
        """Of all attempts that were counted."""
        return _sum_known(
            count for a in self.attempts for count in (a.prompt_tokens, a.completion_tokens)
        )

    @property
    def decisive(self) -> Attempt | None:
        """The attempt that answered, else the last one; None when nobody was asked."""
        if self.answered_at is not None:
            return self.attempts[self.answered_at]
        return self.attempts[-1] if self.attempts else None

    def record(self, now: float) -> CallRecord:
        """The call as one row of `calls`; `now` is a reading of the call path's clock."""
        feature, rendered, attempts = self.feature, self.rendered, self.attempts
        last = self.decisive
        prompt_tokens = _sum_known(a.prompt_tokens for a in attempts)
        completion_tokens = _sum_known(a.completion_tokens for a in attempts)
        return CallRecord(
            trace_id=self.trace_id,
            ts=self.ts,
            user_id=self.user_id,
            tenant=self.tenant,
            session_id=self.session_id,
            feature=feature.name,
            task=feature.task,
            provider=last.provider if last else None,
            model=feature.model,
            served_model=self._served(last),
            prompt_name=rendered.name if rendered else feature.prompt_name,
            prompt_version=rendered.version if rendered else feature.prompt_version,
            prompt_hash=rendered.hash if rendered else "",
            params=self.params,
            flag_variant=self.flag_variant,
            status=self.status,
            error_kind=self.error_kind,
            finish_reason=self.finish_reason,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            total_tokens=(
                prompt_tokens + completion_tokens
                if prompt_tokens is not None and completion_tokens is not None
                else None
            ),
            cached_prompt_tokens=_sum_known(a.cached_prompt_tokens for a in attempts),
            latency_ms=round((now - self.started) * 1000, 3),
            ttft_ms=last.ttft_ms if last else None,
            cost_usd=sum_or_none(a.cost_usd for a in attempts) if attempts else 0.0,
            cache_hit=self.cache_kind is not None,
            cache_kind=self.cache_kind,
            tool_calls=self.tool_calls,
            user_feedback=None,
            attempts=self._with_replies(),
            retries=max(0, len(attempts) - 1),
            resumed=self.resumed,
            escalated=self.escalated,
            confidence=self.confidence,
            repaired=self.repaired,
            schema_ok=self.schema_ok,
            guard_events=self.guard_events,
            retrieved_ids=self.retrieved_ids or document_ids(self.input),
            route_reason=self.route_reason,
            stage_ms=self.stages.ms_at(now),
            quality={},
            redactions=self.redactions,
            input=self.input if self.pinned else self.guarded.input,
            output=self.output,
        )

    def _with_replies(self) -> tuple[Attempt, ...]:
        """The attempts, each with a reply that is not the answer; that one is in `output`."""
        attempts = list(self.attempts)
        for position, text in self.replies.items():
            if text != self.output:
                attempts[position] = replace(attempts[position], reply=text)
        return tuple(attempts)

    def _served(self, last: Attempt | None) -> str | None:
        """The configured model that answered, with the provider's own name where it differs."""
        if self.answered_by is None:
            return None
        model, named = self.answered_by, last.served_model if last else None
        if named is None or _is_version_of(named, model.id):
            return model.name
        return f"{model.name}({named})"


_VERSION = re.compile(r"(-v?\d[\d.]*)*")
"""A date, or numbers, that a provider adds to a model's name. A word makes it another model:
gpt-4o-mini is no gpt-4o."""


def _is_version_of(named: str, model_id: str) -> bool:
    """Whether a provider's name of who answered is a version of the model that was asked."""
    plain = model_id.removesuffix("-latest")
    rest = named.removeprefix(plain)
    return named == model_id or (rest != named and _VERSION.fullmatch(rest) is not None)


def document_ids(input: Mapping[str, Any]) -> tuple[str, ...]:
    """Ids of the documents an input brings with it; () when it brings none."""
    documents = input.get("documents")
    if not isinstance(documents, list):
        return ()
    return tuple(str(d["id"]) for d in documents if isinstance(d, Mapping) and "id" in d)


def _sum_known(counts: Iterable[int | None]) -> int | None:
    """Tokens that were counted, of failed attempts too; None when none were."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def sum_or_none(values: Iterable[float | None]) -> float | None:
    """Sum of known values; None when there is none, or when one of them is not known."""
    total: float | None = None
    for value in values:
        if value is None:
            return None
        total = value if total is None else total + value
    return total
