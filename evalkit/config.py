"""Read `evalkit.toml` into frozen settings, with every problem at once and its line.

The shape stands in `schemas/config.schema.json`; what one table says about another
(models, providers, budgets of features) is checked here. No key is ever read: secrets
are named by environment variable, and a key in the file is refused without being shown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evalkit.errors import ConfigError
from evalkit.records import Usage
from evalkit.schemas import Fault, find_faults, label, nearest
from evalkit.strict import MAX_TOML_BYTES, Located, Place, StrictError, load_toml, read_text

EMBEDDED = "embedded"
"""Provider, model and wire that need no key and no network; there without being written."""

BASE_URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
"""Where a wire leads when `base_url` does not say."""


# --- what the settings are --------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """US dollars per million tokens."""

    input: float
    output: float
    cached_input: float | None = None
    """None: cached tokens cost what others cost."""

    def cost_usd(self, usage: Usage) -> float | None:
        """What a reply cost; None when its tokens were not counted."""
        if usage.prompt_tokens is None or usage.completion_tokens is None:
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
    """Kind of query -> model; `tagger` says the kind."""
    tagger: str | None = None
    input_schema: Path | None = None
    output_schema: Path | None = None
    rules: tuple[str, ...] = ()
    """Business rules on the parsed answer, as module:function."""
    max_tokens: int = 1024
    max_input_tokens: int | None = None
    max_latency_ms: float = 30_000
    """One deadline for all attempts."""
    ttft_ms: float | None = None
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
    cache: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """When a drop fails the build."""

    alpha: float = 0.05
    correction: str = "holm"
    """holm | bh"""
    tolerance: float = 0.0
    max_drop: float = 0.05
    min_coverage: float = 0.95
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
    max_input_chars: int = 1_000_000
    input_rules: tuple[str, ...] = ()
    output_rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """How long what is kept, in days; None: for ever."""

    text_days: int | None = None
    calls_days: int | None = None
    cache_days: int | None = None
    log_text: bool = True
    redact: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSettings:
    """When `evalkit alerts` speaks up; None: not looked at."""

    webhook_env: str | None = None
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


def _embedded_providers() -> dict[str, ProviderSettings]:
    return {EMBEDDED: ProviderSettings(name=EMBEDDED, wire=EMBEDDED)}


def _embedded_models() -> dict[str, ModelSettings]:
    return {EMBEDDED: ModelSettings(name=EMBEDDED, provider=EMBEDDED, id=EMBEDDED)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration. Relative paths in it start from `root`."""

    root: Path
    path: Path | None = None
    """The file it was read from; None when there is none."""
    store: str = ".evalkit"
    providers: Mapping[str, ProviderSettings] = field(default_factory=_embedded_providers)
    models: Mapping[str, ModelSettings] = field(default_factory=_embedded_models)
    features: Mapping[str, FeatureSettings] = field(default_factory=dict)
    run: RunSettings = RunSettings()
    gate: GateSettings = GateSettings()
    budgets: BudgetSettings = BudgetSettings()
    guard: GuardSettings = GuardSettings()
    retention: RetentionSettings = RetentionSettings()
    alerts: AlertSettings = AlertSettings()
    flags: Mapping[str, FlagSettings] = field(default_factory=dict)
    flags_file: Path | None = None
    """Read again when it changes, without a restart."""

    @property
    def store_path(self) -> str:
        """The store as a URL or a path that holds from any working directory."""
        return self.store if "://" in self.store else str(self.root / self.store)


# --- finding and reading the file --------------------------------------------------


def load_settings(path: Path | None = None, *, start: Path | None = None) -> Settings:
    """Settings from `path`, else from the first configuration found from `start` upwards.

    That is `evalkit.toml`, or `pyproject.toml` with a `[tool.evalkit]` table. Without
    any, the embedded model alone is set up. Raises ConfigError with all problems.
    """
    start = (start or Path.cwd()).absolute()
    path = path.absolute() if path is not None else _find_config(start)
    if path is None:
        return Settings(root=start)
    try:
        document = load_toml(read_text(path, max_bytes=MAX_TOML_BYTES), where=path.name)
    except StrictError as error:
        raise ConfigError(f"{path.name}:{error.line}: {error.message}.") from None
    prefix: Place = ("tool", "evalkit") if path.name == "pyproject.toml" else ()
    table = document.value
    for key in prefix:
        table = table.get(key, {}) if isinstance(table, dict) else {}
    faults = find_faults(table, "config")
    sound = _without_faults(table, faults)
    settings = _settings(sound, path)
    faults += _cross_check(sound, settings, names=_Names.of(table, settings))
    if faults:
        raise ConfigError(_problems(faults, document, prefix, path.name))
    return settings


def _find_config(start: Path) -> Path | None:
    for folder in (start, *start.parents):
        own, shared = folder / "evalkit.toml", folder / "pyproject.toml"
        if own.is_file():
            return own
        if shared.is_file() and b"[tool.evalkit" in shared.read_bytes():
            return shared
    return None


def _problems(faults: Collection[Fault], document: Located, prefix: Place, name: str) -> list[str]:
    lines = {(document.line((*prefix, *f.place)), str(_secret_or(f))) for f in faults}
    return [f"{name}:{line}: {text}" for line, text in sorted(lines)]


def _without_faults(table: Any, faults: Sequence[Fault]) -> Mapping[str, Any]:
    """What is left of `table` without its faulty keys, so that the rest can be checked too.

    A table that misses a required key then goes as well: at most once per level.
    """
    sound = deepcopy(table)
    while faults:
        for fault in faults:
            _drop(sound, fault.place[:3])
        if any(not fault.place for fault in faults):
            return {}
        faults = find_faults(sound, "config")
    return sound  # type: ignore[no-any-return]


def _drop(table: Any, place: Place) -> None:
    for key in place[:-1]:
        table = table.get(key, {}) if isinstance(table, dict) else {}
    if isinstance(table, dict) and place:
        table.pop(place[-1], None)


_SECRET_KEYS = frozenset({"api_key", "apikey", "key", "token", "secret", "password"})
_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "x-api-key", "api-key", "cookie"}
)


def _secret_or(fault: Fault) -> Fault:
    """A key written into the file is more than an unknown key."""
    if fault.problem.startswith("unknown key") and fault.place[-1] in _SECRET_KEYS:
        name = str(fault.place[-2]).upper().replace("-", "_").replace(".", "_")
        return Fault(
            fault.place,
            f"{'.'.join(map(str, fault.place))} is a secret written into the file",
            f'Put it into an environment variable and name that: api_key_env = "{name}_API_KEY"',
        )
    return fault


# --- from tables to settings ---------------------------------------------------------


def _settings(table: Mapping[str, Any], path: Path) -> Settings:
    root = path.parent
    flags = dict(table.get("flags", {}))
    flags_file = flags.pop("file", None)
    providers = {k: _provider(k, t, root) for k, t in table.get("providers", {}).items()}
    models = {k: _model(k, t) for k, t in table.get("models", {}).items()}
    return Settings(
        root=root,
        path=path,
        store=table.get("store", ".evalkit"),
        providers=_embedded_providers() | providers,
        models=_embedded_models() | models,
        features={k: _feature(k, t, root) for k, t in table.get("features", {}).items()},
        run=RunSettings(**table.get("run", {})),
        gate=GateSettings(**table.get("gate", {})),
        budgets=_budgets(table.get("budgets", {})),
        guard=GuardSettings(**_tuples(table.get("guard", {}))),
        retention=RetentionSettings(**table.get("retention", {})),
        alerts=AlertSettings(**table.get("alerts", {})),
        flags={k: _flag(k, value) for k, value in flags.items()},
        flags_file=root / flags_file if flags_file else None,
    )


def _provider(name: str, table: Mapping[str, Any], root: Path) -> ProviderSettings:
    values = dict(table)
    values.setdefault("base_url", BASE_URLS.get(table["wire"]))
    if isinstance(values.get("verify"), str):
        values["verify"] = root / values["verify"]
    return ProviderSettings(name=name, **values)


def _model(name: str, table: Mapping[str, Any]) -> ModelSettings:
    values = {"id": name, **table}
    if "price" in values:
        values["price"] = Price(**values["price"])
    return ModelSettings(name=name, **values)


def _feature(name: str, table: Mapping[str, Any], root: Path) -> FeatureSettings:
    values = _tuples(table)
    values["prompt_name"], _, values["prompt_version"] = values.pop("prompt").rpartition("@")
    for key in ("input_schema", "output_schema"):
        if key in values:
            values[key] = root / values[key]
    if "semantic_cache" in values:
        values["semantic_cache"] = SemanticCacheSettings(**values["semantic_cache"])
    return FeatureSettings(name=name, **values)


def _budgets(table: Mapping[str, Any]) -> BudgetSettings:
    values: dict[str, Any] = {}
    for key, caps in table.items():
        named = key in ("users", "tenants", "features")
        values[key] = (
            {name: SpendCap(**cap) for name, cap in caps.items()} if named else SpendCap(**caps)
        )
    return BudgetSettings(**values)


def _flag(name: str, value: bool | Mapping[str, Any]) -> FlagSettings:
    return FlagSettings(name=name, **({"enabled": value} if isinstance(value, bool) else value))


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}


# --- what one table says about another -----------------------------------------------


@dataclass(frozen=True, slots=True)
class _Names:
    """What may be referred to: also tables that have faults of their own."""

    providers: Collection[str]
    models: Collection[str]
    features: Collection[str]
    flags: Collection[str]

    @classmethod
    def of(cls, table: Any, settings: Settings) -> _Names:
        def names(section: str, more: Collection[str]) -> Collection[str]:
            written = table.get(section, {}) if isinstance(table, dict) else {}
            return {*more, *(written if isinstance(written, dict) else ())}

        return cls(
            names("providers", settings.providers),
            names("models", settings.models),
            names("features", ()),
            names("flags", ()),
        )


def _cross_check(table: Mapping[str, Any], settings: Settings, *, names: _Names) -> Iterator[Fault]:
    for name, provider in table.get("providers", {}).items():
        yield from _check_provider(settings.providers[name], provider)
    for name, model in table.get("models", {}).items():
        yield from _check_model(settings.models[name], model, settings, names)
    for feature in settings.features.values():
        yield from _check_feature(feature, settings, names)
    for name in settings.budgets.features:
        yield from _known(("budgets", "features", name), "feature", name, names.features)
    if settings.run.judge_model is not None:
        yield from _known(("run", "judge_model"), "model", settings.run.judge_model, names.models)
    for flag in settings.flags.values():
        if flag.model is not None:
            yield from _known(("flags", flag.name, "model"), "model", flag.model, names.models)


def _known(place: Place, what: str, name: str, known: Collection[str]) -> Iterator[Fault]:
    if name not in known:
        yield Fault(place, f'{label(place)}: there is no {what} "{name}"', nearest(name, known))


def _check_provider(provider: ProviderSettings, table: Mapping[str, Any]) -> Iterator[Fault]:
    place: Place = ("providers", provider.name)
    here = label(place)
    needs = {"http": "base_url", "python": "target"}.get(provider.wire)
    if needs and needs not in table:
        yield Fault(place, f'{here} has wire "{provider.wire}" but no {needs}', f"Add {needs}")
    for key, wires in _WIRES_OF.items():
        if key in table and provider.wire not in wires:
            yield Fault(
                (*place, key),
                f'{here}.{key} means nothing for wire "{provider.wire}"',
                f"Remove it; it belongs to wire {' or '.join(wires)}",
            )
    for header, value in provider.headers.items():
        if header.lower() in _SECRET_HEADERS and isinstance(value, str):
            yield Fault(
                (*place, "headers", header),
                f"header {header} of {here} is a secret written into the file",
                f'Write {header} = {{ env = "NAME_OF_A_VARIABLE" }}',
            )
    if isinstance(provider.verify, Path):
        yield from _check_file((*place, "verify"), provider.verify)


_WIRES_OF: Mapping[str, tuple[str, ...]] = {
    "base_url": ("openai", "anthropic", "http"),
    "api_key_env": ("openai", "anthropic", "http"),
    "headers": ("openai", "anthropic", "http"),
    "verify": ("openai", "anthropic", "http"),
    "timeout_s": ("openai", "anthropic", "http"),
    "target": ("python",),
    "output_pointer": ("http",),
}
"""Keys of a provider that only some wires read."""


def _check_file(place: Place, path: Path) -> Iterator[Fault]:
    if not path.is_file():
        yield Fault(place, f"{label(place)}: there is no file {path}", "Correct the path")


def _check_model(
    model: ModelSettings, table: Mapping[str, Any], settings: Settings, names: _Names
) -> Iterator[Fault]:
    place: Place = ("models", model.name)
    yield from _known((*place, "provider"), "provider", model.provider, names.providers)
    provider = settings.providers.get(model.provider)
    if provider is not None and provider.wire in BASE_URLS and "id" not in table:
        yield Fault(
            place,
            f'{label(place)} has no "id"',
            f'Add the name under which {provider.name} knows it, e.g. id = "gpt-4o-mini"',
        )


def _check_feature(feature: FeatureSettings, settings: Settings, names: _Names) -> Iterator[Fault]:
    place: Place = ("features", feature.name)
    here = label(place)
    for key, name in _models_of(feature):
        yield from _known((*place, *key), "model", name, names.models)
        yield from _check_use((*place, *key), feature, settings.models.get(name))
    if feature.model in feature.fallbacks:
        yield Fault(
            (*place, "fallbacks"),
            f'{here} falls back from model "{feature.model}" to itself',
            "Remove it from fallbacks",
        )
    if feature.escalate_below is not None and not feature.fallbacks:
        yield Fault(
            (*place, "escalate_below"),
            f"{here}.escalate_below has no model to escalate to",
            'Add fallbacks = ["…"], or remove it',
        )
    if feature.routes and feature.tagger is None:
        problem = f"{here}.routes has no tagger that says the kind of a query"
        yield Fault((*place, "routes"), problem, 'Add tagger = "module:function"')
    if feature.ttft_ms is not None and feature.ttft_ms > feature.max_latency_ms:
        problem = f"{here}.ttft_ms is more than max_latency_ms {feature.max_latency_ms:g}"
        yield Fault((*place, "ttft_ms"), problem, "Lower it")
    if feature.input_schema is not None:
        yield from _check_file((*place, "input_schema"), feature.input_schema)
    if feature.output_schema is not None:
        yield from _check_file((*place, "output_schema"), feature.output_schema)
    if feature.flag is not None and feature.flag not in names.flags and not settings.flags_file:
        problem = f'{here}.flag: there is no flag "{feature.flag}"'
        yield Fault((*place, "flag"), problem, f"Add {feature.flag} = true under [flags]")


def _check_use(
    place: Place, feature: FeatureSettings, model: ModelSettings | None
) -> Iterator[Fault]:
    """Whether a feature may use a model: its tier, and whether the answer fits."""
    if model is None:
        return
    here = f"features.{feature.name}"
    if model.tier == "frontier" and not feature.allow_frontier:
        yield Fault(
            place,
            f'{here} uses model "{model.name}" of tier frontier without opting in',
            f"Add allow_frontier = true under [{here}], or name a cheap model",
        )
    if model.context is not None and feature.max_tokens >= model.context:
        yield Fault(
            ("features", feature.name, "max_tokens"),
            f"{here}.max_tokens {feature.max_tokens:,} leaves no room for a prompt "
            f'in model "{model.name}" (context {model.context:,})',
            "Lower max_tokens",
        )


def _models_of(feature: FeatureSettings) -> Iterator[tuple[Place, str]]:
    yield ("model",), feature.model
    for number, name in enumerate(feature.fallbacks):
        yield ("fallbacks", number), name
    for kind, name in feature.routes.items():
        yield ("routes", kind), name
