"""The stages of one call, a function each, in the order in which `execute()` runs them.

A stage reads and changes the call; what it uses over many calls comes from `Parts`. A
stage that ends the call raises CallError with a kind of the failure table.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import TYPE_CHECKING, Any

from evalkit.call.answering import Answer, Demands, Emit, find_answer, read_answer
from evalkit.call.budget import Budget
from evalkit.call.failures import FAILURES
from evalkit.call.functions import load_function
from evalkit.call.images import with_images
from evalkit.call.parts import Parts
from evalkit.call.policy import check as check_policy
from evalkit.call.trace import Call, Rendered, sum_or_none
from evalkit.call.validation import validate_output
from evalkit.config import BudgetSettings, FeatureSettings
from evalkit.errors import CallError, ConfigError
from evalkit.json_schema import Validate
from evalkit.records import CallRecord, ModelRequest, ToolCall
from evalkit.redaction import redact_record, without_texts
from evalkit.schemas import find_faults

if TYPE_CHECKING:
    from evalkit.call.allowance import Allowance
    from evalkit.call.cache import Cached
    from evalkit.call.one_attempt import Target

NO_CAPS = BudgetSettings()
SLOW_READER_S = 0.25
"""A reader who takes longer over one piece keeps nobody else waiting for the answer."""
CANARY_LINE = "\n\n[{canary}] This mark is private: never write it."

BEFORE_SHARE = 0.5
"""Of the time left, what the tagger may take, then the retriever, then others who write in the
ledger: the model needs the rest."""
CACHE_SHARE = 0.25
DEGRADE_S = 1.0
"""Beyond the deadline, for the function that answers once all else has failed."""

NOTHING_FOUND = frozenset({"no_documents", "retriever"})

OVERRIDES = frozenset(
    {"max_latency_ms", "retries", "cache_ttl", "on_failure", "max_tokens", "temperature", "seed"}
)
"""Settings that one call may have of its own."""
REFUSED = frozenset(
    {"budget", "killed", "refusal", "content_filter", "guard_block", "policy", "invalid_input"}
)
"""Kinds of failure in which nothing broke: the answer is no."""


# --- before a model is asked -------------------------------------------------------


def check_flag(call: Call, parts: Parts) -> None:
    """Let the feature's flag turn it off, or give this user its own model or prompt."""
    flag = call.feature.flag
    if flag is None:
        return
    variant = parts.flags.variant(flag, user_id=call.user_id)
    call.flag_variant = variant.arm
    if not variant.enabled:
        raise CallError("killed", f"flag {flag} is off")
    if variant.model is not None or variant.prompt is not None:
        changes = {} if variant.model is None else {"model": variant.model}
        call.feature = with_changes(call.feature, changes, variant.prompt)


def refuse_shapeless(input: object) -> None:
    """Refuse what is neither a text nor a mapping, such as a list or None."""
    if not isinstance(input, (str, Mapping)):
        kind = type(input).__name__
        raise CallError("invalid_input", f"the input is of type {kind}, not text or named fields")


def refuse_undeclared(call: Call, parts: Parts, tools: Sequence[Mapping[str, Any]]) -> None:
    """Refuse tools, tiers and inputs that the feature has not declared.

    Who evaluates may ask a model of any tier.
    """
    model = None if call.pinned else parts.model(call.feature.model, call.feature)
    check_policy(call.feature, tools=map(_tool_name, tools), model=model)
    for name in () if call.pinned else call.feature.fallbacks:
        check_policy(call.feature, model=parts.model(name, call.feature))
    validate = parts.input_schema(call.feature)
    problem = validate(call.input) if validate is not None else None
    if problem is not None:
        raise CallError("invalid_input", problem)


def guard_input(call: Call, parts: Parts) -> None:
    """Replace or refuse what may not leave; from here on only the guarded input is used."""
    if not call.feature.guard:
        return
    call.guarded = parts.guard.check_input(call.input)
    call.guard_events += call.guarded.events
    call.redactions += call.guarded.redactions


async def route(call: Call, parts: Parts) -> str | None:
    """Choose who answers by the kind of query; the name of a function where one does."""
    feature = call.feature
    if feature.tagger is None or not feature.routes:
        return None
    from evalkit.call.routing import route as choose

    chosen = await choose(
        feature,
        call.guarded.input,
        tagger=parts.tagger(feature),
        timeout_s=_left_s(call, parts) * BEFORE_SHARE,
    )
    call.route_reason = chosen.reason or None
    if chosen.model is not None and chosen.model != feature.model:
        first, *others = chosen.models(feature)
        call.feature = replace(feature, model=first, fallbacks=tuple(others))
    return chosen.function


async def answer_without_model(call: Call, parts: Parts, function: str, emit: Emit | None) -> None:
    """What is certain needs no model."""
    from evalkit.call.routing import answer_by_function

    left_s = _left_s(call, parts)
    call.output, call.value = await answer_by_function(function, call.input, timeout_s=left_s)
    if emit is not None:
        await emit(call.output)


async def retrieve(call: Call, parts: Parts) -> None:
    """Find the documents that the prompt is given, unless the input brings its own."""
    feature, input = call.feature, call.guarded.input
    if feature.retriever is None or "documents" in input:
        return
    from evalkit.call.retrieval import retrieve_context

    retriever = await parts.retrievers.get(feature)
    assert retriever is not None
    timeout_s = _left_s(call, parts) * BEFORE_SHARE
    found = await retrieve_context(feature, input, retriever, timeout_s=timeout_s)
    call.retrieved_ids, call.index_version = found.ids, found.index_version
    if feature.guard:
        _guard_documents(call, parts, found.documents())
    else:
        documents = found.documents()
        call.guarded = replace(call.guarded, input={**input, "documents": documents}, clean=False)
    if found.note is not None or found.left_out:
        call.route_reason = found.note or f"left out: {found.left_out} documents over the budget"


def _guard_documents(call: Call, parts: Parts, documents: Sequence[Mapping[str, Any]]) -> None:
    """Replace or leave out what may not leave of the documents that were found."""
    before = call.guarded
    call.guarded, sent = parts.guard.check_documents(documents, before)
    call.redactions += call.guarded.redactions - before.redactions
    call.guard_events += tuple(e for e in call.guarded.events if e not in before.events)
    call.retrieved_ids = tuple(compress(call.retrieved_ids, sent))
    if documents and not any(sent) and call.feature.on_empty != "allow":
        raise CallError("guard_block", "the guard lets none of the documents found through")


def render(call: Call, parts: Parts) -> Rendered:
    """The feature's prompt with the guarded input in it."""
    feature, input = call.feature, call.guarded.input
    prompt = parts.prompts.get(feature.prompt_name, feature.prompt_version)
    messages = prompt.render(input, documents=input.get("documents"))
    if "images" in input:
        messages = with_images(messages, input["images"])
    return Rendered(name=prompt.name, version=prompt.version, hash=prompt.hash, messages=messages)


def build_request(
    call: Call,
    parts: Parts,
    schema: Mapping[str, Any] | None,
    tools: Sequence[Mapping[str, Any]],
) -> ModelRequest:
    """What will be asked; the model is the first of those that may be."""
    feature, rendered = call.feature, call.rendered
    assert rendered is not None
    sampling = {"temperature": feature.temperature, "seed": feature.seed}
    call.params = {key: value for key, value in sampling.items() if value is not None}
    call.params["max_tokens"] = feature.max_tokens
    # Pinned calls are asked the same: a threshold is found on their confidences.
    configured = parts.settings.features.get(feature.name, feature)
    return ModelRequest(
        model_id=parts.model(feature.model, feature).id,
        messages=rendered.messages,
        max_tokens=feature.max_tokens,
        temperature=feature.temperature,
        seed=feature.seed,
        response_schema=schema,
        tools=tuple(tools),
        stream=feature.stream,
        wants_confidence=configured.escalate_below is not None,
        task=feature.task,
        input=call.guarded.input,
    )


def refuse_too_long(call: Call, parts: Parts, request: ModelRequest) -> None:
    """Refuse what is over the feature's own limit; each model's is looked at with its turn."""
    feature, limit = call.feature, call.feature.max_input_tokens
    if limit is None:
        return
    tokens = parts.tokens.estimate(request, parts.model(feature.model, feature))
    if tokens > limit:
        raise CallError("context_length", f"about {tokens} tokens, over the limit of {limit}")


def _left_s(call: Call, parts: Parts) -> float:
    """What is left of the call's deadline."""
    deadline = call.started + call.feature.max_latency_ms / 1000
    return max(0.0, deadline - parts.clock.monotonic())


# --- the answer ---------------------------------------------------------------------


async def answer_from_cache_or(
    call: Call,
    parts: Parts,
    request: ModelRequest,
    fresh: Callable[[], Awaitable[None]],
    emit: Emit | None,
) -> None:
    """An answer kept earlier, or a fresh one; of equal calls at once, one is made."""
    if call.feature.cache_ttl <= 0 or request.tools:
        await fresh()
    else:
        await _share(call, parts, request, fresh)
    if emit is not None and call.unshown:
        await show(call, parts, emit)


async def _share(
    call: Call, parts: Parts, request: ModelRequest, fresh: Callable[[], Awaitable[None]]
) -> None:
    feature = call.feature
    kept = await parts.kept_answers.find_or_make(
        call,
        request,
        parts.model(feature.model, feature),
        fresh,
        left_s=lambda: _left_s(call, parts),
        fits=lambda kept: _fits(call, parts, request, kept),
        reads_input=parts.reads_input(feature),
        timeout_s=_left_s(call, parts) * CACHE_SHARE,
    )
    if kept is not None:
        _take_kept(call, parts, *kept)
        call.unshown = True


async def _fits(call: Call, parts: Parts, request: ModelRequest, kept: Cached) -> bool:
    """Whether an answer passes with this user's own data in the place of its placeholders."""
    if not call.guarded.placeholders:
        return True
    own, validate = parts.output_schema(call.feature)
    demands = _demands(call, parts, validate if request.response_schema is own else None)
    if not demands.is_read or (kept.finish.tool_calls and not kept.output.strip()):
        return True
    try:
        read = await read_answer(kept.output, demands, call, left_s=_left_s(call, parts))
    except CallError:
        return False
    return read.error is None


def _take_kept(call: Call, parts: Parts, kept: Cached, kind: str) -> None:
    call.cache_kind = kind
    call.answered_by = parts.settings.models.get(kept.model)
    call.output, call.finish_reason = kept.output, kept.finish.finish_reason
    call.confidence = kept.finish.confidence
    _, validate = parts.output_schema(call.feature)
    if validate is not None:
        # With placeholders the whole of it has been looked at, by `_fits`.
        checks = (lambda value: None) if call.guarded.placeholders else validate
        read = validate_output(kept.output, checks, repair=call.feature.repair)
        call.value, call.repaired = read.value, read.repaired
        call.schema_ok = read.error is None
    elif call.feature.rules:  # as a fresh answer that passed them
        call.value, call.schema_ok = kept.output, True


async def show(call: Call, parts: Parts, emit: Emit) -> None:
    """Give out an answer that is there whole."""
    call.stages.begin("show")
    await emit(delivered(call, parts))


async def ask(
    call: Call,
    parts: Parts,
    request: ModelRequest,
    validate: Validate | None,
    budget: Budget | None,
    emit: Emit | None,
) -> None:
    """Reserve what the call may cost, find an answer, settle."""
    demands = _demands(call, parts, validate)
    targets = parts.targets(call.feature)
    asked = _with_canary(call, parts, request)
    call.stages.begin("budget")
    call.allowance = await _set_aside(call, parts, asked, targets, budget)
    try:
        found = await find_answer(
            call, asked, targets, demands, clock=parts.clock, emit=_holding_nobody_up(call, emit)
        )
    finally:
        if call.allowance is not None:
            cost_usd = sum_or_none(a.cost_usd for a in call.attempts)
            call.allowance.settle(cost_usd, asked=bool(call.attempts))
    _take(call, found)
    call.unshown = demands.read_whole


def _demands(call: Call, parts: Parts, validate: Validate | None) -> Demands:
    feature = call.feature
    return Demands(
        validate=validate,
        rules=[load_function(name) for name in feature.rules],
        guard=parts.guard if feature.guard else None,
        allow_tool=lambda name: check_policy(feature, tools=(name,)),
    )


def _holding_nobody_up(call: Call, emit: Emit | None) -> Emit | None:
    """`emit` for a reader who may be slow, for whom nobody else who asked the same waits."""
    if emit is None or call.step_aside is None:
        return emit
    given, later = emit, asyncio.get_running_loop().call_later

    async def give(text: str) -> None:
        late = later(SLOW_READER_S, call.step_aside) if call.step_aside is not None else None
        try:
            await given(text)
        finally:
            if late is not None:
                late.cancel()

    return give


async def _set_aside(
    call: Call,
    parts: Parts,
    request: ModelRequest,
    targets: Sequence[Target],
    budget: Budget | None,
) -> Allowance | None:
    """What the call may spend; None where nothing is limited."""
    capped = not call.pinned and parts.settings.budgets != NO_CAPS
    if budget is None and not capped:
        return None
    from evalkit.call.allowance import set_aside

    return await set_aside(
        call,
        request,
        [target.model for target in targets],
        estimator=parts.tokens,
        budget=budget,
        ledger=parts.ledger if capped else None,
        wait_s=_left_s(call, parts) * BEFORE_SHARE,
    )


def _take(call: Call, answer: Answer) -> None:
    """The answer that was found, into the call; raises what is wrong with it."""
    call.output, call.value = answer.text, answer.value
    call.repaired, call.schema_ok = answer.repaired, answer.schema_ok
    if answer.reply is not None:
        call.answered_by, call.answered_at = answer.target.model, answer.at
        call.finish_reason = answer.reply.finish.finish_reason
        call.tool_calls = answer.reply.finish.tool_calls
        call.confidence = answer.confidence
    if answer.error is not None:
        raise answer.error


def _with_canary(call: Call, parts: Parts, request: ModelRequest) -> ModelRequest:
    """Plant the word in the system prompt by which a leak of it is known."""
    messages = request.messages
    if not call.feature.guard or parts.settings.guard.output_leak == "off" or not messages:
        return request
    first, *others = messages
    if first["role"] != "system":
        return request
    call.canary, call.system_text = parts.guard.canary(), str(first["content"])
    marked = {**first, "content": first["content"] + CANARY_LINE.format(canary=call.canary)}
    return replace(request, messages=(marked, *others))


# --- after the answer ---------------------------------------------------------------


async def hold_for_review(call: Call, parts: Parts, action: str | None, key: str | None) -> None:
    """Put the answer before a person where the feature says so; the caller does not get it."""
    policy = call.feature.review
    if policy == "never":
        return
    from evalkit.call.review import WAITS, review_wanted

    facts = {
        "feature": call.feature.name,
        "input": call.input,
        "output": delivered(call, parts),
        "value": call.value,
        "confidence": call.confidence,
        "user_id": call.user_id,
    }
    if review_wanted(policy, facts, load_function):
        call.status = "pending_review"
        call.message = WAITS
        # What will be released is what has to be looked at: nothing is redacted here.
        record = call.record(parts.clock.monotonic())
        record = replace(
            record,
            input=call.input,
            output=delivered(call, parts),
            tool_calls=restored_tools(call, parts),
        )
        # In a thread: it waits for the disk, and for others who write in the queue.
        await asyncio.to_thread(parts.reviews.hold, record, action, key)


def fail(call: Call, error: CallError) -> None:
    """Write down why the call has no answer of its own."""
    call.error_kind = error.kind
    call.guard_events = tuple(dict.fromkeys((*call.guard_events, *error.events)))
    call.message = FAILURES[error.kind].message
    call.route_reason = str(error)[:500]
    call.status = "refused" if error.kind in REFUSED or _refuses_empty(call) else "error"


def _refuses_empty(call: Call) -> bool:
    """Whether the call ended for want of documents, and the feature says no in that case."""
    return call.error_kind in NOTHING_FOUND and call.feature.on_empty == "refuse"


async def degrade(call: Call, parts: Parts) -> None:
    """Answer without a model where the feature says how; else leave the failure as it is."""
    kind, _, argument = call.feature.on_failure.partition(":")
    if _refuses_empty(call) or call.error_kind == "incomplete":
        return  # of the latter the caller has seen a part already: it stands as it was shown
    if kind == "text":
        call.status, call.output, call.value = "degraded", argument, None
    elif kind == "degrade":
        from evalkit.call.routing import answer_by_function

        most_s = _left_s(call, parts) + DEGRADE_S
        try:
            call.output, call.value = await answer_by_function(
                argument, call.input, timeout_s=most_s
            )
        except (CallError, ConfigError) as error:  # the failure stands as it is
            call.route_reason = f"{call.route_reason}; {error}"[:500]
        else:
            call.status = "degraded"


def restored(call: Call, parts: Parts) -> str:
    """The answer with the user's own data back in the place of its placeholders."""
    return parts.guard.restore(call.output or "", call.guarded)


def delivered(call: Call, parts: Parts) -> str:
    """The same as it is given out: of a repaired answer, the JSON without what was around it."""
    if not call.repaired:
        return restored(call, parts)
    return parts.guard.restore(json.dumps(call.value, ensure_ascii=False), call.guarded)


def restored_tools(call: Call, parts: Parts) -> tuple[ToolCall, ...]:
    """The tool calls with the user's own data in their arguments."""
    restore = parts.guard.restore
    if not call.tool_calls or not call.guarded.placeholders:
        return call.tool_calls
    return tuple(
        replace(one, arguments=restore(one.arguments, call.guarded)) for one in call.tool_calls
    )


def record_of(call: Call, parts: Parts) -> CallRecord:
    """The record as it may be written: an evaluation's as it was, for it is scored again."""
    record = call.record(parts.clock.monotonic())
    if call.pinned:
        if call.guarded.placeholders:
            return replace(record, output=restored(call, parts))
        return record
    if not parts.settings.retention.log_text:
        record = without_texts(record)
    if not parts.settings.retention.redact:
        return record
    return redact_record(record, clean_input=call.guarded.clean)


def record_without_input(call: Call, parts: Parts) -> CallRecord:
    """The record of a call whose input holds what cannot even be looked at."""
    call.input, call.guarded = {}, replace(call.guarded, input={})
    return replace(record_of(call, parts), input=None)


def _tool_name(tool: Mapping[str, Any]) -> str:
    """A tool's name, as the wires write it: {"name": …} or {"function": {"name": …}}."""
    function = tool.get("function")
    return str((function if isinstance(function, Mapping) else tool).get("name", ""))


def with_changes(
    feature: FeatureSettings, changes: Mapping[str, Any], prompt: str | None
) -> FeatureSettings:
    """The feature with some settings replaced.

    Raises ConfigError for an odd `prompt`, and for what the configuration could not say either.
    """
    if prompt is not None:
        prompt_name, at, version = prompt.rpartition("@")
        if not (at and prompt_name and version):
            raise ConfigError(f"{prompt!r} is not NAME@VERSION, e.g. classify-ticket@v2.")
        changes = {**changes, "prompt_name": prompt_name, "prompt_version": version}
    if asked := {name: changes[name] for name in OVERRIDES & changes.keys()}:
        _refuse_odd(asked)
    return replace(feature, **changes)


def _refuse_odd(asked: Mapping[str, Any]) -> None:
    """Hold a call's own settings to the schema of the configuration's."""
    feature = {"task": "classify", "prompt": "p@v", "model": "m", **asked}
    problems = [
        str(fault).removeprefix("features.f.")
        for fault in find_faults({"features": {"f": feature}}, "config")
    ]
    # No bound is passed by what compares with nothing.
    problems += [f"{name} is no number." for name, value in asked.items() if value != value]
    if problems:
        raise ConfigError(problems)
