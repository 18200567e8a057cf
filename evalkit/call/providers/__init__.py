"""Wires by name: how each kind of provider is built."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from evalkit.call.providers.base import Provider
from evalkit.config import ProviderSettings

WIRES: dict[str, tuple[str, str]] = {
    "openai": ("evalkit.call.providers.openai", "OpenAIProvider"),
    "anthropic": ("evalkit.call.providers.anthropic", "AnthropicProvider"),
    "embedded": ("evalkit.call.providers.embedded", "EmbeddedProvider"),
    "python": ("evalkit.call.providers.python", "PythonProvider"),
    "http": ("evalkit.call.providers.http", "HttpProvider"),
}
"""Wire -> (module, class); a module is imported when the first provider of its wire is built."""


def build_provider(settings: ProviderSettings) -> Provider:
    """The provider that `settings.wire` names. Raises ConfigError for a missing key or extra."""
    module, name = WIRES[settings.wire]
    build = cast("Callable[[ProviderSettings], Provider]", getattr(import_module(module), name))
    return build(settings)
