"""From a request to an answer that can be used: attempts, output guard, validation.

The middle of one call. What is wrong with an answer goes back to the model (the error
alone), then to the next model; one that is not sure of itself may be asked again of a
better model. Attempts are added to the call as they are made, failed ones too.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal

from evalkit.call.attempts import Tried, attempt_until_answered
from evalkit.call.functions import users_own
from evalkit.call.guard_stream import StreamGuard
from evalkit.call.guards import Guard
from evalkit.call.one_attempt import Clock, Patience, Target
from evalkit.call.shown import Shown
from evalkit.call.trace import Call
from evalkit.call.validation import Validated, ask_again, validate_output
from evalkit.config import FeatureSettings
from evalkit.errors import CallError
from evalkit.frozen import frozen
from evalkit.json_schema import Validate
from evalkit.records import Json, ModelRequest, Reply

log = logging.getLogger(__name__)

Emit = Callable[[str], Awaitable[None]]
Rule = Callable[[Json], Any]
"""A business rule, async or not: says None, or what is wrong with the parsed answer."""
RULE_S = 1.0
"""Beyond the deadline, for an async rule: an answer that came in time may still be looked at."""

WHOLE = frozenset({"guard_block", "truncated", "content_filter", "refusal"})
"""Failures of an answer that came to its end: it was not interrupted, whatever was shown of it."""
REFUSALS = frozenset({"refusal", "content_filter"})


@frozen
class Demands:
    """What an answer has to be like."""

    validate: Validate | None = None
    rules: Sequence[Rule] = ()
    guard: Guard | None = None
    allow_tool: Callable[[str], None] | None = None
    """Raises CallError for a tool that the feature may not use."""

    @property
    def read_whole(self) -> bool:
        """Whether an answer must be there whole before any of it may be shown."""
        guard = self.guard
        return self.is_read or (guard is not None and bool(guard.settings.output_rules))

    @property
    def is_read(self) -> bool:
        """Whether an answer is held to a schema or to business rules."""
        return self.validate is not None or bool(self.rules)


@frozen
class Answer:
    """What a target said, read; `error` is None when it can be used."""

    target: Target
    reply: Reply | None
    text: str | None
    """As it may be written down: guarded, placeholders in place."""
    value: Json = None
    repaired: bool = False
    schema_ok: bool | None = None
    error: CallError | None = None
    at: int | None = None
    """Place of its attempt in the call; None without a reply."""

    @property
    def confidence(self) -> float | None:
        return self.reply.finish.confidence if self.reply is not None else None


async def find_answer(
    call: Call,
    request: ModelRequest,
    targets: Sequence[Target],
    demands: Demands,
    *,
    clock: Clock,
    emit: Emit | None = None,
) -> Answer:
    """The best answer that `targets`, asked in their order, give within the deadline.

    `emit` gets the text as it comes, unless it has to be read whole first. An answer
    whose confidence is below the feature's `escalate_below` stands when the models after
    it fail.
    """
    asking = _Asking(call, demands, clock, emit, may_resume=not request.tools)
    best: Answer | None = None
    rest = list(targets)
    while True:
        answer = await asking.of(request, rest)
        rest = rest[rest.index(answer.target) + 1 :]
        may_go_on = bool(rest) and not asking.has_shown and not asking.is_late
        if answer.error is None:
            best = answer
            if not may_go_on or not _is_unsure(answer, call.feature):
                return best
            call.escalated = True
        elif best is not None:
            return best
        elif not may_go_on or answer.error.kind != "invalid_output":
            return answer


def _is_unsure(answer: Answer, feature: FeatureSettings) -> bool:
    bar = feature.escalate_below
    return bar is not None and answer.confidence is not None and answer.confidence < bar


class _Asking:
    """One call's way of asking: its deadline, its demands, and what has been shown."""

    def __init__(
        self,
        call: Call,
        demands: Demands,
        clock: Clock,
        emit: Emit | None,
        *,
        may_resume: bool = True,
    ) -> None:
        self._call = call
        self._demands = demands
        self._clock = clock
        self._patience = _patience(call)
        self._shown: Shown | None = None
        self._screen: StreamGuard | None = None
        if emit is not None and not demands.read_whole:
            self._show_as_it_comes(emit, resume=may_resume and call.feature.resume_stream)

    def _show_as_it_comes(self, emit: Emit, *, resume: bool) -> None:
        call, guard = self._call, self._demands.guard
        if guard is not None:
            self._screen = StreamGuard(
                guard, call.guarded, canary=call.canary, system_text=call.system_text
            )
        self._shown = Shown(emit, resume=resume, screen=self._screen)

    @property
    def has_shown(self) -> bool:
        return self._shown is not None and self._shown.seen

    @property
    def is_late(self) -> bool:
        return self._clock.monotonic() >= self._patience.deadline

    async def of(self, request: ModelRequest, targets: Sequence[Target]) -> Answer:
        """Ask until an answer is valid; a re-ask goes to who answered, with the error alone."""
        ask, reasks = replace(request, stream=True) if self._shown else request, 0
        while True:
            self._call.stages.begin("attempt")
            tried = await attempt_until_answered(
                ask,
                targets,
                patience=self._patience,
                clock=self._clock,
                shown=self._shown,
                attempts=self._call.attempts,
            )
            answer = await self._read(tried)
            if answer.error is not None:
                answer.error.own |= self.has_shown or self.is_late
            if answer.error is None or answer.error.kind != "invalid_output":
                return answer
            if reasks >= self._call.feature.retries or self.is_late or answer.text is None:
                return answer
            reasks += 1
            targets = targets[targets.index(answer.target) :]
            by_schema = self._demands.validate is not None
            again = ask_again(answer.text, str(answer.error), by_schema=by_schema)
            ask = replace(request, messages=request.messages + again, follow_up=len(again))

    async def _read(self, tried: Tried) -> Answer:
        """What was tried, taken into the call, guarded and validated."""
        call = self._call
        if tried.cut:
            call.route_reason = f"left out: {', '.join(tried.cut)}"
        text = tried.reply.text if tried.reply is not None else None
        if text is not None and tried.error is None:
            call.replies[len(call.attempts) - 1] = text
        if self._shown is not None:
            call.resumed, text = self._shown.resumed, self._shown.text or None
        answer = Answer(
            target=tried.target, reply=tried.reply, text=text, error=tried.error, at=tried.reply_at
        )
        if tried.error is not None:
            return replace(answer, text=self._screened(text), error=self._incomplete(tried.error))
        try:
            guarded = await self._guarded(answer)
            if guarded != answer.text:
                answer = replace(answer, text=guarded)
            if answer.reply is not None and answer.reply.finish.tool_calls:
                answer = replace(answer, reply=self._guarded_tools(answer.reply))
            call.stages.begin("validate")
            return await self._validated(answer)
        except CallError as error:
            blocked = error.kind == "guard_block"
            return replace(answer, text=None if blocked else answer.text, error=error)

    def _incomplete(self, error: CallError) -> CallError:
        if not self.has_shown or error.kind in WHOLE:
            return error
        assert self._shown is not None
        seen = len(self._shown.text)
        return CallError("incomplete", f"cut after {seen} characters: {error}")

    def _screened(self, text: str | None) -> str | None:
        """What may be shown of the text of an answer that failed; None where nothing may."""
        guard = self._demands.guard
        if guard is None or not text:
            return text
        if self._screen is not None:
            self._call.guard_events += self._screen.events
            return self._screen.text or None
        with suppress(CallError):
            return self._checked_by(guard, text)
        return None

    async def _guarded(self, answer: Answer) -> str:
        """The text as it may be shown and kept. Raises CallError guard_block."""
        guard, text = self._demands.guard, answer.text or ""
        if guard is None:
            return text
        self._call.stages.begin("guard_out")
        if self._screen is None or self._shown is None:
            return self._checked_by(guard, text)
        try:
            await self._shown.flush()
        finally:
            self._call.guard_events += self._screen.events
        return self._screen.text

    def _guarded_tools(self, reply: Reply) -> Reply:
        """The reply with the arguments of its tool calls as they may leave the call."""
        guard, call = self._demands.guard, self._call
        if guard is None:
            return reply
        given = (call.guarded.input, list(call.guarded.placeholders.values()), call.system_text)
        tools = []
        for tool in reply.finish.tool_calls:
            events = guard.check_leak(
                tool.arguments, call.guarded, canary=call.canary, system_text=call.system_text
            )
            arguments, kinds = guard.check_personal(tool.arguments, given)
            call.guard_events += (*events, *kinds)
            tools.append(replace(tool, arguments=arguments))
        return replace(reply, finish=replace(reply.finish, tool_calls=tuple(tools)))

    def _checked_by(self, guard: Guard, text: str) -> str:
        call = self._call
        text, events = guard.check_output(
            text, call.guarded, canary=call.canary, system_text=call.system_text
        )
        call.guard_events += events
        return text

    async def _validated(self, answer: Answer) -> Answer:
        """The answer read by its schema, its rules and the tools it may use."""
        assert answer.reply is not None
        tools = answer.reply.finish.tool_calls
        if self._demands.allow_tool is not None:
            for tool in tools:
                self._demands.allow_tool(tool.name)
        if not self._demands.is_read or (tools and not (answer.text or "").strip()):
            return answer
        left_s = max(0.0, self._patience.deadline - self._clock.monotonic())
        read = await read_answer(answer.text or "", self._demands, self._call, left_s=left_s)
        return Answer(
            target=answer.target,
            reply=answer.reply,
            text=answer.text,
            value=read.value,
            repaired=read.repaired,
            schema_ok=read.error is None,
            error=None if read.error is None else CallError("invalid_output", read.error),
            at=answer.at,
        )


async def read_answer(text: str, demands: Demands, call: Call, *, left_s: float) -> Validated:
    """An answer read by its schema and its rules, as the caller will have it.

    Value and error still have the placeholders, since both are sent and written. Raises
    CallError for a rule that fails, or takes much longer than `left_s`.
    """
    read, guard = _validated_as_given(text, demands, call), demands.guard
    if read.error is None and demands.rules:
        value = read.value
        if guard is not None and call.guarded.placeholders:
            value = _as_given(value, guard, call)
        for rule in demands.rules:
            if problem := await _said(rule, value, call, left_s):
                read = replace(read, error=problem)
                break
    if read.error is not None and guard is not None:
        read = replace(read, error=guard.hide(read.error, call.guarded))
    return read


def _validated_as_given(text: str, demands: Demands, call: Call) -> Validated:
    validate, guard = demands.validate, demands.guard
    if validate is None:
        return Validated(value=text, repaired=False, error=None)
    if guard is None or not call.guarded.placeholders:
        return validate_output(text, validate, repair=call.feature.repair)
    return validate_output(
        text, lambda value: validate(_as_given(value, guard, call)), repair=call.feature.repair
    )


def _as_given(value: Json, guard: Guard, call: Call) -> Json:
    if isinstance(value, str):
        return guard.restore(value, call.guarded)
    return guard.restore_value(value, call.guarded)


async def _said(rule: Rule, value: Json, call: Call, left_s: float) -> str | None:
    """What a rule says of an answer. A rule that is broken lets nothing pass: CallError."""
    limit = asyncio.timeout(left_s + RULE_S)
    try:
        with users_own():
            said = rule(value)
            if inspect.isawaitable(said):
                async with limit:
                    said = await said
    except Exception as error:  # the border: the rule is the user's own
        if limit.expired():
            raise CallError("timeout", "a rule said nothing in time") from None
        log.warning("a rule of %s failed", call.feature.name, exc_info=True)
        raise CallError("server", f"a rule raised {type(error).__name__}") from None
    if said is None or isinstance(said, str):
        return said
    kind = type(said).__name__
    raise CallError("server", f"a rule returned {kind}, not None or what is wrong")


def _patience(call: Call) -> Patience:
    feature = call.feature
    return Patience(
        retries=feature.retries,
        deadline=call.started + feature.max_latency_ms / 1000,
        ttft_s=feature.ttft_ms / 1000 if feature.ttft_ms is not None else None,
        attempt_s=feature.attempt_ms / 1000 if feature.attempt_ms is not None else None,
        idle_s=feature.idle_ms / 1000,
        hedge_after_s=_hedge_after_s(feature),
        also_fail_over=REFUSALS if feature.on_refusal == "fallback" else frozenset(),
        allowance=call.allowance,
    )


def _hedge_after_s(feature: FeatureSettings) -> float | Literal["p95"] | None:
    after = feature.hedge_after_ms
    return after / 1000 if isinstance(after, (int, float)) else after
