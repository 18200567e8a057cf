"""Wires by name: how each kind of provider is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib import import_module
from typing import cast

from evalkit.call.providers.base import Provider
from evalkit.call.providers.scrubbing import ScrubbedProvider, secret_names
from evalkit.config import ProviderSettings

WIRES: dict[str, tuple[str, str]] = {
    "openai": ("evalkit.call.providers.openai", "OpenAIProvider"),
    "anthropic": ("evalkit.call.providers.anthropic", "AnthropicProvider"),
    "embedded": ("evalkit.call.providers.embedded", "EmbeddedProvider"),
    "python": ("evalkit.call.providers.python", "PythonProvider"),
    "http": ("evalkit.call.providers.http", "HttpProvider"),
}
"""Wire -> (module, class); a module is imported when the first provider of its wire is built."""
READS_INPUT = frozenset({"python", "http"})
"""Wires whose application gets the feature's input, and answers by more than the messages."""
BATCH = ("evalkit.call.batch", "BatchProvider")
"""Of any provider with `options = { batch = true }`."""

BATCH_OPTIONS = frozenset({"batch", "batch_linger_s", "batch_poll_s"})
"""What a configuration may say of batches; beside it the provider is used as always."""


def build_provider(settings: ProviderSettings) -> Provider:
    """The provider that `settings.wire` names. Raises ConfigError for a missing key or extra."""
    batched = bool(settings.options.get("batch"))
    if not batched and settings.wire in ("openai", "anthropic"):
        own = {k: v for k, v in settings.options.items() if k not in BATCH_OPTIONS}
        settings = replace(settings, options=own)
    module, name = BATCH if batched else WIRES[settings.wire]
    build = cast("Callable[[ProviderSettings], Provider]", getattr(import_module(module), name))
    return build(settings)


class LazyProviders(Mapping[str, Provider]):
    """Providers by name, each built when first asked for: an unused one needs no key."""

    def __init__(self, settings: Mapping[str, ProviderSettings]) -> None:
        self._settings = settings
        names = (name for one in settings.values() for name in secret_names(one))
        self._secret_names = tuple(dict.fromkeys(names))
        self._opened: dict[str, Provider] = {}

    def __getitem__(self, name: str) -> Provider:
        if name not in self._opened:
            provider = build_provider(self._settings[name])
            if self._secret_names:
                provider = ScrubbedProvider(provider, self._secret_names)
            self._opened[name] = provider
        return self._opened[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)

    def opened(self) -> list[Provider]:
        """Those built so far; they are forgotten, so that a later call builds anew."""
        opened = list(self._opened.values())
        self._opened.clear()
        return opened
