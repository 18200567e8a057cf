"""The settings: what `evalkit.toml` says, as frozen records.

Read by `config.py`; every other file is handed them. A default here is what holds where
the file says nothing. `None` means not limited, or not known; never zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from evalkit.records import Usage

EMBEDDED = "embedded"
"""Provider, model and wire that need no key and no network; there without being written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per million tokens."""

    input: float
    output: float
    cached_input: float | None = None
    """None: cached tokens cost what others cost."""
    up_to: int | None = None
    """Prompt tokens for which this holds; what a longer prompt costs is not known."""

    def cost_usd(self, usage: Usage) -> float | None:
        """What a reply cost; None when its tokens were not counted, unless all are free."""
        if not (self.input or self.output or self.cached_input) and self.up_to is None:
            return 0.0
        if usage.prompt_tokens is None or usage.completion_tokens is None:
            return None
        if self.up_to is not None and usage.prompt_tokens > self.up_to:
            return None
        cached = min(usage.cached_prompt_tokens or 0, usage.prompt_tokens)
        cached_price = self.input if self.cached_input is None else self.cached_input
        return (
            (usage.prompt_tokens - cached) * self.input
            + cached * cached_price
            + usage.completion_tokens * self.output
        ) / 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSettings:
    """How to reach a server that has models."""

    name: str
    wire: str
    """openai | anthropic | embedded | python | http"""
    base_url: str | None = None
    api_key_env: str | None = None
    max_in_flight: int = 64
    rpm: int | None = None
    tpm: int | None = None
    target: str | None = None
    """wire python: the function that answers, as module:function."""
    output_pointer: str | None = None
    """wire http: JSON pointer to the answer in the reply."""
    headers: Mapping[str, str | Mapping[str, str]] = field(default_factory=dict)
    """Values are text, or `{"env": NAME, "prefix": TEXT}` for a secret."""
    options: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 10.0
    """Until a connection must stand; answers have the feature's deadline."""
    verify: bool | Path = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """A model under the name that features use."""

    name: str
    provider: str
    id: str
    """The provider's own name of the model."""
    tier: str = "cheap"
    """cheap | frontier"""
    context: int | None = None
    """Tokens that fit in; None when not known."""
    price: Price | None = None
    """None when not known: costs are then None, never 0."""
    price_from: str | None = None
    """maintained: `price` is what the maintained table says, which may be nothing."""
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticCacheSettings:
    """A cache that also answers near-equal inputs."""

    threshold: float = 0.95
    ttl: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSettings:
    """The unit that production calls: `execute(name, input)`."""

    name: str
    prompt_name: str
    prompt_version: str
    model: str
    task: str = "generate"
    """classify | extract | generate | answer | summarise | route | plan"""
    fallbacks: tuple[str, ...] = ()
    allow_frontier: bool = False
    escalate_below: float | None = None
    """Confidence below which the next model is asked."""
    routes: Mapping[str, str] = field(default_factory=dict)
    """Kind of query -> model, or call:module:function; `tagger` says the kind."""
    tagger: str | None = None
    """module:function, or a .jsonl file of examples."""
    input_schema: Path | None = None
    output_schema: Path | None = None
    rules: tuple[str, ...] = ()
    """Business rules on the parsed answer, as module:function."""
    max_tokens: int = 1024
    max_input_tokens: int | None = None
    max_latency_ms: float = 30_000
    """One deadline for all attempts."""
    attempt_ms: float | None = None
    """Most that one attempt may take; None: its model's share of the deadline."""
    ttft_ms: float | None = None
    idle_ms: float = 20_000
    """Silence between two pieces of a stream after which it counts as cut."""
    hedge_after_ms: float | Literal["p95"] | None = None
    """Silence after which the same is asked once more; the first answer wins, both are paid."""
    retries: int = 2
    temperature: float | None = None
    seed: int | None = None
    stream: bool = False
    resume_stream: bool = False
    repair: bool = True
    cache_ttl: float = 0
    """Seconds; 0 keeps nothing."""
    semantic_cache: SemanticCacheSettings | None = None
    on_failure: str = "error"
    """error | text:… | degrade:module:function"""
    on_refusal: str = "refuse"
    """refuse | fallback"""
    on_empty: str = "refuse"
    """refuse | degrade | allow, when the retriever finds nothing"""
    review: str = "never"
    """never | always | rule:module:function"""
    flag: str | None = None
    retriever: str | None = None
    """A folder of documents, or module:name."""
    sources: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    guard: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """How golden sets are run."""

    concurrency: int = 16
    judge_model: str | None = None
    seed: int | None = None
    max_cost_usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PytestSettings:
    """What `pytest --llm-eval` does where neither command line nor environment says so."""

    model: tuple[str, ...] = ()
    prompt: tuple[str, ...] = ()
    trials: int | None = None
    limit: int | None = None
    baseline: str | None = None
    report: str | None = None
    """File of the HTML report, relative to the configuration."""
    no_gate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """When a drop fails the build."""

    alpha: float = 0.05
    correction: str = "holm"
    """holm | bh"""
    tolerance: float = 0.0
    max_drop: float = 0.05
    min_coverage: float = 0.95
    min_agreement: float = 0.4
    """Chance-corrected agreement with people's labels below which a judge does not gate."""
    strict: bool = False
    default_branch: str = "main"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendCap:
    """A spending limit; None: not limited. Days and months are UTC."""

    day_usd: float | None = None
    month_usd: float | None = None
    day_tokens: int | None = None
    month_tokens: int | None = None
    day_calls: int | None = None
    month_calls: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetSettings:
    """Spending limits, checked before each call; a named one's own cap replaces the general."""

    total: SpendCap = SpendCap()
    user: SpendCap = SpendCap()
    """Of each user."""
    tenant: SpendCap = SpendCap()
    feature: SpendCap = SpendCap()
    users: Mapping[str, SpendCap] = field(default_factory=dict)
    tenants: Mapping[str, SpendCap] = field(default_factory=dict)
    features: Mapping[str, SpendCap] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardSettings:
    """What is looked for in inputs and answers: off | flag | replace | block."""

    pii: str = "off"
    injection: str = "off"
    output_pii: str = "off"
    output_leak: str = "off"
    pii_kinds: tuple[str, ...] | None = None
    """None: all kinds."""
    recognisers: tuple[str, ...] = ()
    """Further finders of personal data, as module:function."""
    max_input_chars: int = 1_000_000
    input_rules: tuple[str, ...] = ()
    output_rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """How long what is kept, in days; None: for ever."""

    text_days: int | None = None
    features: Mapping[str, int] = field(default_factory=dict)
    """Feature -> its own days in place of `text_days`."""
    calls_days: int | None = None
    cache_days: int | None = None
    log_text: bool = True
    redact: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSettings:
    """When `evalkit alerts` speaks up; None: not looked at."""

    webhook_env: str | None = None
    webhook_hosts: tuple[str, ...] = ()
    """Hosts a webhook may have, beside hooks.slack.com and 127.0.0.1."""
    runbook_url: str | None = None
    """Where alerts link to; None: the runbook of evalkit's documentation, as a path."""
    spend_ratio: float = 2.0
    min_spend_usd: float = 1.0
    error_share: float | None = None
    cache_hit_share: float | None = None
    latency_p95_ms: float | None = None
    min_quality: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagSettings:
    """A feature flag, and its kill switch; as a truth value it is `enabled`."""

    name: str
    enabled: bool = True
    share: float | None = None
    """Share of users for whom it is on; None: for all."""
    prompt: str | None = None
    """NAME@VERSION of the prompt where it is on."""
    model: str | None = None

    def __bool__(self) -> bool:
        return self.enabled


def embedded_providers() -> dict[str, ProviderSettings]:
    return {EMBEDDED: ProviderSettings(name=EMBEDDED, wire=EMBEDDED)}


def embedded_models() -> dict[str, ModelSettings]:
    return {EMBEDDED: ModelSettings(name=EMBEDDED, provider=EMBEDDED, id=EMBEDDED)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration. Relative paths in it start from `root`."""

    root: Path
    path: Path | None = None
    """The file it was read from; None when there is none."""
    store: str = ".evalkit"
    providers: Mapping[str, ProviderSettings] = field(default_factory=embedded_providers)
    models: Mapping[str, ModelSettings] = field(default_factory=embedded_models)
    features: Mapping[str, FeatureSettings] = field(default_factory=dict)
    run: RunSettings = RunSettings()
    gate: GateSettings = GateSettings()
    pytest: PytestSettings = PytestSettings()
    budgets: BudgetSettings = BudgetSettings()
    guard: GuardSettings = GuardSettings()
    retention: RetentionSettings = RetentionSettings()
    alerts: AlertSettings = AlertSettings()
    flags: Mapping[str, FlagSettings] = field(default_factory=dict)
    flags_file: Path | None = None
    """Read again when it changes, without a restart."""

    def with_store(self, store: str | None) -> Settings:
        """The same with the store that `--store` names, if any: from the working directory."""
        if not store:
            return self
        return replace(self, store=store if "://" in store else str(Path(store).absolute()))

    @property
    def store_path(self) -> str:
        """The store as a URL or a path that holds from any working directory."""
        return self.store if "://" in self.store else str(self.root / self.store)
