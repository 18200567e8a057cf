"""What one table of `evalkit.toml` says about another, and secrets that stand in the file.

Settings in, faults out; `config.py` reads the file and words the lines.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evalkit.prices import INSTALL, is_installed
from evalkit.schemas import Fault, label, nearest
from evalkit.settings import FeatureSettings, ModelSettings, ProviderSettings, Settings
from evalkit.strict import Place, is_file

BASE_URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
"""Where a wire leads when `base_url` does not say."""

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


@dataclass(frozen=True, slots=True)
class Names:
    """What may be referred to: also tables that have faults of their own."""

    providers: Collection[str]
    models: Collection[str]
    features: Collection[str]
    flags: Collection[str]

    @classmethod
    def of(cls, table: Any, settings: Settings) -> Names:
        def names(section: str, more: Collection[str]) -> Collection[str]:
            written = table.get(section, {}) if isinstance(table, dict) else {}
            return {*more, *(written if isinstance(written, dict) else ())}

        return cls(
            names("providers", settings.providers),
            names("models", settings.models),
            names("features", ()),
            names("flags", ()),
        )


def cross_check(
    table: Mapping[str, Any], settings: Settings, *, names: Names, written: Mapping[str, Any]
) -> Iterator[Fault]:
    """What is left of `written` without its faults is `table`; a faulty key is not missing."""
    for name in table.get("providers", {}):
        yield from _check_provider(settings.providers[name], written["providers"][name])
    for name in table.get("models", {}):
        yield from _check_model(settings.models[name], written["models"][name], settings, names)
    for feature in settings.features.values():
        yield from _check_feature(feature, settings, names)
    for name in settings.budgets.features:
        yield from _known(("budgets", "features", name), "feature", name, names.features)
    for name in settings.retention.features:
        yield from _known(("retention", "features", name), "feature", name, names.features)
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
    yield from _check_free_table((*place, "options"), provider.options)
    if isinstance(provider.verify, Path):
        yield from _check_file((*place, "verify"), provider.verify)


def _check_file(place: Place, path: Path) -> Iterator[Fault]:
    if not is_file(path):
        yield Fault(place, f"{label(place)}: there is no file {path}", "Correct the path")


def _check_model(
    model: ModelSettings, table: Mapping[str, Any], settings: Settings, names: Names
) -> Iterator[Fault]:
    place: Place = ("models", model.name)
    yield from _known((*place, "provider"), "provider", model.provider, names.providers)
    yield from _check_free_table((*place, "params"), model.params)
    if model.price_from is not None and not is_installed():
        problem = f"{label((*place, 'price'))}: the maintained table is not installed"
        yield Fault((*place, "price"), problem, f"Install it: {INSTALL}")
    provider = settings.providers.get(model.provider)
    if provider is not None and provider.wire in BASE_URLS and "id" not in table:
        yield Fault(
            place,
            f'{label(place)} has no "id"',
            f'Add the name under which {provider.name} knows it, e.g. id = "gpt-4o-mini"',
        )


def _check_feature(feature: FeatureSettings, settings: Settings, names: Names) -> Iterator[Fault]:
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
        fix = 'Add tagger = "module:function", or a .jsonl file of examples'
        yield Fault((*place, "routes"), problem, fix)
    yield from _check_content(place, feature, settings)
    for part, most_ms in (("ttft_ms", feature.ttft_ms), ("attempt_ms", feature.attempt_ms)):
        if most_ms is not None and most_ms > feature.max_latency_ms:
            problem = f"{here}.{part} is more than max_latency_ms {feature.max_latency_ms:g}"
            yield Fault((*place, part), problem, "Lower it")
    if feature.input_schema is not None:
        yield from _check_file((*place, "input_schema"), feature.input_schema)
    if feature.output_schema is not None:
        yield from _check_file((*place, "output_schema"), feature.output_schema)
    if feature.flag is not None and feature.flag not in names.flags and not settings.flags_file:
        problem = f'{here}.flag: there is no flag "{feature.flag}"'
        yield Fault((*place, "flag"), problem, f"Add {feature.flag} = true under [flags]")


def _check_content(place: Place, feature: FeatureSettings, settings: Settings) -> Iterator[Fault]:
    """Examples and documents that a feature names by their path."""
    if feature.tagger is not None and ":" not in feature.tagger:
        yield from _check_file((*place, "tagger"), settings.root / feature.tagger)
    if feature.retriever is not None and ":" not in feature.retriever:
        folder = settings.root / feature.retriever
        if not folder.is_dir():
            problem = f"{label((*place, 'retriever'))}: there is no folder {folder}"
            yield Fault((*place, "retriever"), problem, "Correct the path")


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
        if not name.startswith("call:"):
            yield ("routes", kind), name


# --- secrets -----------------------------------------------------------------------

_SECRET_KEYS = frozenset({"api_key", "apikey", "key", "token", "secret", "password"})
_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "x-api-key", "api-key", "cookie"}
)


def secret_or(fault: Fault) -> Fault:
    """A key written into the file is more than an unknown key."""
    unknown = fault.problem.startswith("unknown key")
    if unknown and str(fault.place[-1]).lower() in _SECRET_KEYS:
        return _secret(fault.place)
    return fault


def _secret(place: Place) -> Fault:
    owner = next((str(part) for part in place[1:2] if len(place) > 2), "my")
    variable = re.sub(r"\W", "_", owner, flags=re.ASCII).upper() + "_API_KEY"
    return Fault(
        place,
        f"{label(place)} is a secret written into the file",
        f'Put it into an environment variable and name that: api_key_env = "{variable}"',
    )


def _check_free_table(place: Place, table: Mapping[str, Any]) -> Iterator[Fault]:
    """Keys that only the provider knows: whatever they are, a secret is not among them."""
    for key, value in table.items():
        if key.lower() in _SECRET_KEYS and isinstance(value, str):
            yield _secret((*place, key))
