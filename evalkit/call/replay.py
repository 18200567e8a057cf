"""Do a recorded call again: from its recorded replies, or from another model or prompt.

From its replies, every decision of the call path is taken anew and compared with the
one on record. No provider, retriever or function that answers is asked, and nothing is
written. What the record leaves open (fallbacks of that call, whether it was to degrade)
is taken from what happened.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from evalkit.call.orchestrator import Orchestrator
from evalkit.call.providers.recorded import NotRecorded, Recording, was_streamed
from evalkit.errors import ConfigError
from evalkit.records import CallRecord, CallResult, Json, Pair
from evalkit.settings import BudgetSettings, FeatureSettings, FlagSettings, Settings, SpendCap

ALONE: Mapping[str, Any] = {
    "routes": {},
    "tagger": None,
    "cache_ttl": 0,
    "semantic_cache": None,
}
"""Of a feature: nobody answers but the model that is named, and those after it."""
RETRIEVERS = {
    "retriever": "evalkit.call.providers.recorded:retriever_that_fails",
    "no_documents": "evalkit.call.providers.recorded:retriever_that_finds_nothing",
}
"""Kind of failure -> the retriever that fails so again."""
DECISIONS = (
    "status", "error_kind", "served_model", "finish_reason", "output", "schema_ok", "repaired",
    "resumed", "escalated",
)  # fmt: skip
"""Fields of a record that say what the call path decided, beside its attempts."""
FROM_CACHE = ("status", "error_kind", "served_model", "output")
"""Those that mean the same when a cache gave the answer and when a model does."""
NOTHING_LEFT = BudgetSettings(total=SpendCap(day_calls=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One decision that came out otherwise."""

    decision: str
    recorded: Json
    replayed: Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """How a replay ended."""

    record: CallRecord | None
    """The call as it went now; None when it left the record before it had an answer."""
    value: Json
    """The parsed answer where the feature has an output schema, else None."""
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]
    """What has changed since the call, or cannot be known from its record."""

    @property
    def same(self) -> bool:
        return not self.differences


async def replay(record: CallRecord, settings: Settings) -> Replayed:
    """Take every decision of `record` again, from its recorded replies.

    Raises ConfigError when the record has no texts, or its feature, model or prompt is gone.
    """
    feature = _feature(record, settings)
    recording = Recording(record, settings.models)
    notes = tuple(_notes(record, settings))
    with tempfile.TemporaryDirectory(prefix="evalkit-replay-") as folder:
        orchestrator = Orchestrator(
            _as_it_was(record, feature, settings, folder),
            providers=recording.providers(settings.providers),
            clock=recording.clock(),
        )
        async with orchestrator:
            try:
                input = _input(record, feature)
                result = await orchestrator.execute(record.feature, input, **_asked(record))
            except NotRecorded as error:
                left = Difference(decision="attempts", recorded=_kinds(record), replayed=str(error))
                if not record.attempts:
                    notes += ("what refused the call has changed, or is not on record",)
                return Replayed(record=None, value=None, differences=(left,), notes=notes)
    after = result.record
    if result.output is not None:
        # As the user gets it: what is on record has been restored, or redacted, already.
        after = replace(after, output=result.output)
    return Replayed(
        record=after, value=result.value, differences=_differences(record, after), notes=notes
    )


async def run_against(record: CallRecord, settings: Settings, pair: Pair) -> CallResult:
    """Ask another model or prompt the same, for real; nobody else answers, nothing is kept."""
    feature = _feature(record, settings)
    if pair.model not in settings.models:
        known = ", ".join(sorted(settings.models))
        raise ConfigError(f"--against {pair}: no model {pair.model!r}. There are: {known}.")
    alone = replace(feature, **ALONE, flag=None, review="never", on_failure="error")
    with tempfile.TemporaryDirectory(prefix="evalkit-replay-") as folder:
        orchestrator = Orchestrator.from_config(_with_feature(settings, alone, folder))
        async with orchestrator:
            return await orchestrator.execute(
                record.feature,
                record.input,
                model=pair.model,
                prompt=f"{pair.prompt_name}@{pair.prompt_version}",
                fallbacks=(),
                **_sampling(record),
            )


def decisions(record: CallRecord) -> dict[str, Json]:
    """What the call path decided in a call."""
    return {name: getattr(record, name) for name in DECISIONS} | {"attempts": _kinds(record)}


# --- the call as it was ------------------------------------------------------------


def _feature(record: CallRecord, settings: Settings) -> FeatureSettings:
    feature = settings.features.get(record.feature)
    if feature is None:
        known = ", ".join(sorted(settings.features)) or "none"
        raise ConfigError(
            f"trace {record.trace_id}: no feature {record.feature!r} in the configuration "
            f"(judges cannot be replayed). There are: {known}."
        )
    if not isinstance(record.input, Mapping):
        raise ConfigError(
            f"trace {record.trace_id} has no texts: they were not logged ([retention] log_text), "
            "or have been purged. It cannot be replayed."
        )
    if "function" in record.stage_ms:
        raise ConfigError(
            f"trace {record.trace_id} was answered by a function of yours, not by a model "
            f"({record.route_reason or 'no reason on record'}). It is not called again."
        )
    return feature


def _input(record: CallRecord, feature: FeatureSettings) -> dict[str, Any]:
    """The input, with documents by id alone where the record does not have their texts."""
    input = dict(record.input)
    if feature.retriever is not None and record.retrieved_ids and "documents" not in input:
        input["documents"] = [{"id": one, "text": ""} for one in record.retrieved_ids]
    return input


def _as_it_was(
    record: CallRecord, feature: FeatureSettings, settings: Settings, folder: str
) -> Settings:
    """Settings under which nothing but the record decides, with files in `folder` alone."""
    degraded = record.status == "degraded"
    feature = replace(
        feature,
        **ALONE,
        flag="recorded",
        hedge_after_ms=None,
        review=feature.review if record.status == "pending_review" else "never",
        on_failure=f"text:{record.output or ''}" if degraded else "error",
        retriever=RETRIEVERS.get(record.error_kind or "", feature.retriever),
    )
    flag = FlagSettings(name="recorded", enabled=record.error_kind != "killed")
    return replace(
        _with_feature(settings, feature, folder),
        flags={"recorded": flag},
        flags_file=None,
        budgets=NOTHING_LEFT if _was_refused(record) else BudgetSettings(),
        providers={k: replace(p, rpm=None, tpm=None) for k, p in settings.providers.items()},
        retention=replace(settings.retention, redact=False),
    )


def _was_refused(record: CallRecord) -> bool:
    """Whether a spending limit left no room for the call, and not only for one attempt more."""
    return record.error_kind == "budget" and not record.attempts


def _with_feature(settings: Settings, feature: FeatureSettings, folder: str) -> Settings:
    return replace(
        settings,
        store=folder,
        features={**settings.features, feature.name: feature},
        budgets=BudgetSettings(),
    )


def _asked(record: CallRecord) -> dict[str, Any]:
    """The arguments of the call."""
    others = dict.fromkeys(a.model for a in record.attempts if a.model != record.model)
    asked: dict[str, Any] = {
        "model": record.model,
        "prompt": f"{record.prompt_name}@{record.prompt_version}",
        "fallbacks": tuple(others),
        "user_id": record.user_id,
        "tenant": record.tenant,
        "session_id": record.session_id,
        **_sampling(record),
    }
    if was_streamed(record):
        asked["emit"] = _ignore
    return asked


def _sampling(record: CallRecord) -> dict[str, Any]:
    names = ("max_tokens", "temperature", "seed")
    return {name: record.params[name] for name in names if name in record.params}


async def _ignore(text: str) -> None: ...


# --- what came of it ---------------------------------------------------------------


def _kinds(record: CallRecord) -> list[str]:
    """Each attempt as `model at provider: kind`; the loser of a hedged pair is left out."""
    return [
        f"{one.model} at {one.provider}: {one.error_kind or 'answered'}"
        for one in record.attempts
        if one.error_kind != "cancelled"
    ]


def _differences(recorded: CallRecord, replayed: CallRecord) -> tuple[Difference, ...]:
    before, after = decisions(recorded), decisions(replayed)
    names = FROM_CACHE if recorded.cache_hit else before
    return tuple(
        Difference(decision=name, recorded=before[name], replayed=after[name])
        for name in names
        if before[name] != after[name]
    )


def _notes(record: CallRecord, settings: Settings) -> list[str]:
    notes = []
    prompt = Orchestrator(settings, providers={}).prompts.get(
        record.prompt_name, record.prompt_version
    )
    if prompt.hash != record.prompt_hash:
        notes.append(
            f"prompt {prompt.name}@{prompt.version} has been edited since: "
            f"{record.prompt_hash} then, {prompt.hash} now"
        )
    if record.redactions:
        notes.append(f"{record.redactions} places were redacted: the replay sees what was written")
    if record.cache_hit:
        notes.append("a cache gave the answer: it is read again as if the model had given it")
    return notes
