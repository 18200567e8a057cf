"""The nouns: plain frozen records that cross every border.

`call` fills a `CallRecord`, `score` turns it into `Score` rows, `decide` reads
those rows back from the store. No I/O here, and nothing heavy imported.
Units end a name: `_ms`, `_s`, `_usd`. `None` means not known, never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from evalkit.frozen import frozen

Json: TypeAlias = Any
Message: TypeAlias = Mapping[str, Any]
"""One chat message, `{"role": …, "content": …}`; content is text or a list of parts."""

CallStatus = Literal["ok", "degraded", "refused", "error", "pending_review"]
Outcome = Literal[
    "scored",
    "product_failure",
    "infra_error",
    "judge_error",
    "check_error",
    "budget_stop",
    "cancelled",
]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Pair:
    """What is compared: a model and a version of a prompt."""

    model: str
    prompt_name: str
    prompt_version: str

    def __str__(self) -> str:
        return f"{self.model}/{self.prompt_name}@{self.prompt_version}"

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Pair:
        """Of a row of `calls` or `scores`."""
        return cls(**{name: row[name] for name in ("model", "prompt_name", "prompt_version")})

    @classmethod
    def parse(cls, text: str) -> Pair:
        """Read `MODEL/PROMPT@VERSION`; raises ValueError for anything else."""
        model, slash, prompt = text.partition("/")
        name, at, version = prompt.rpartition("@")
        if not (slash and at and model and name and version):
            raise ValueError(f"{text!r} is not MODEL/PROMPT@VERSION, e.g. small/classify-ticket@v2")
        return cls(model=model, prompt_name=name, prompt_version=version)


# --- one request to a model, and what comes back ---------------------------------


@frozen
class ModelRequest:
    """One request to a provider, before any wire format."""

    model_id: str
    """The provider's own name of the model."""
    messages: tuple[Message, ...]
    max_tokens: int
    follow_up: int = 0
    """Messages at the end that come back to an answer: it is asked for again, or goes on."""
    temperature: float | None = None
    seed: int | None = None
    response_schema: Mapping[str, Any] | None = None
    """JSON Schema the answer has to follow; sent as structured output."""
    tools: tuple[Mapping[str, Any], ...] = ()
    stream: bool = False
    wants_confidence: bool = False
    """Whether the confidence of the answer decides something."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Further provider parameters, passed through as they are."""
    task: str | None = None
    """The feature's declared task; only the embedded model looks at it, to refuse."""
    input: Mapping[str, Any] = field(default_factory=dict)
    """The feature's input as it came; for the wires whose far end is an application."""


@frozen
class Usage:
    """Tokens as the provider counted them; `prompt_tokens` includes the cached ones."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_prompt_tokens: int | None = None


@frozen
class ToolCall:
    """One tool call the model asks for; `arguments` is JSON text, not yet parsed."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the answer, in order. A plain (unstreamed) reply is one piece."""

    text: str
    """Empty for a piece of a stream that is not text: the model is at work on a tool call."""


@frozen
class Finish:
    """The last event of every complete reply; a stream without one has failed."""

    finish_reason: str
    """stop | length | content_filter | tool_calls"""
    usage: Usage
    served_model: str | None
    tool_calls: tuple[ToolCall, ...] = ()
    confidence: float | None = None
    """0..1 where the wire gives one (embedded softmax, mean token logprob)."""


Event: TypeAlias = TextDelta | Finish


@frozen
class Reply:
    """A complete answer to one `ModelRequest`."""

    text: str
    finish: Finish
    latency_ms: float
    ttft_ms: float | None


@frozen
class Attempt:
    """One request to a provider inside a call, as recorded and paid."""

    provider: str
    model: str
    served_model: str | None
    error_kind: str | None
    """None when the attempt gave a complete reply."""
    finish_reason: str | None
    latency_ms: float
    ttft_ms: float | None
    wait_ms: float
    """Back-off before this attempt."""
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_prompt_tokens: int | None
    cost_usd: float | None
    max_tokens: int
    reply: str | None = None
    """Text of a complete reply; in a record None for the one that `output` holds."""


# --- what one call left behind ---------------------------------------------------


@frozen
class CallRecord:
    """One row of `calls`: the column names are `store/schema.py`'s, in its order."""

    trace_id: str
    ts: int
    """UTC, microseconds since 1970."""
    user_id: str | None
    tenant: str | None
    session_id: str | None
    feature: str
    task: str
    provider: str | None
    model: str
    """The requested model, by its name in the configuration."""
    served_model: str | None
    """Name of the configured model that answered; a provider that names another model id
    than asked for shows here as `configured(id it named)`."""
    prompt_name: str
    prompt_version: str
    prompt_hash: str
    params: Mapping[str, Any]
    flag_variant: str | None
    status: CallStatus
    error_kind: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cached_prompt_tokens: int | None
    latency_ms: float
    ttft_ms: float | None
    cost_usd: float | None
    cache_hit: bool
    cache_kind: str | None
    tool_calls: tuple[ToolCall, ...]
    user_feedback: str | None
    attempts: tuple[Attempt, ...]
    retries: int
    resumed: int
    escalated: bool
    confidence: float | None
    repaired: bool
    schema_ok: bool | None
    guard_events: tuple[str, ...]
    retrieved_ids: tuple[str, ...]
    route_reason: str | None
    stage_ms: Mapping[str, float]
    quality: Mapping[str, float]
    redactions: int
    input: Json
    output: str | None


@frozen
class CallResult:
    """What `Orchestrator.execute` returns: the answer for the caller, the record for the log."""

    status: CallStatus
    output: str | None
    """The answer as text; None when there is none."""
    value: Json
    """The parsed answer where the feature has an output schema, else None."""
    error_kind: str | None
    message: str | None
    """For the caller's user when status is not ok; never a provider's raw error."""
    record: CallRecord
    tool_calls: tuple[ToolCall, ...] = ()
    """What the application is asked to run, as the model wrote it; the record's are redacted."""

    @property
    def trace_id(self) -> str:
        return self.record.trace_id

    @property
    def ok(self) -> bool:
        return self.status == "ok"


# --- golden sets and scores --------------------------------------------------------


@frozen
class Case:
    """One item of a golden set."""

    id: str
    input: Mapping[str, Any]
    """What `execute` gets; a case written with a bare text has `{"text": …}`."""
    expected: Json
    has_expected: bool
    metadata: Mapping[str, Any]
    cluster: str | None
    must_pass: bool
    checks: tuple[Mapping[str, Any], ...]
    """The case's own checks, on top of the golden set's metrics."""
    case_hash: str
    line: int
    """Where it stands in its file, from 1."""


@frozen
class Answer:
    """What a scorer looks at: one answer with everything it may be held against."""

    output: str
    case_id: str
    input: Mapping[str, Any]
    expected: Json
    has_expected: bool
    metadata: Mapping[str, Any]
    record: CallRecord
    trial: int = 0
    """Which execution of the case; a pairwise judge compares like with like."""


@frozen
class Mark:
    """What a scorer says of one answer.

    `score` is 0..1, and None unless `outcome` is scored (or product_failure: 0).
    """

    score: float | None
    passed: bool | None
    outcome: Outcome = "scored"
    error_kind: str | None = None
    reason: str | None = None


@frozen
class Score:
    """One row of `scores`: one (case, trial, metric) of one pair."""

    run_id: str
    golden_set: str
    golden_set_hash: str
    case_id: str
    case_hash: str
    cluster: str | None
    trial: int
    model: str
    served_model: str | None
    prompt_name: str
    prompt_version: str
    prompt_hash: str
    metric: str
    tier: int
    score: float | None
    passed: bool | None
    outcome: Outcome
    error_kind: str | None
    reason: str | None
    scorer: str
    scorer_version: str
    slices: Mapping[str, str]
    inclusion_prob: float | None
    trace_id: str | None
    latency_ms: float | None
    ttft_ms: float | None
    cost_usd: float | None
    created_at: int
    """UTC, microseconds since 1970."""
