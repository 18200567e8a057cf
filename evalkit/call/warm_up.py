"""Imports and compiles ahead what the first call would otherwise wait for: a fifth of a second.

Only what the configured features use. Nothing is opened, asked or read here, so nothing of
a project's own can fail here.
"""

from __future__ import annotations

from importlib import import_module

from evalkit.call.injection import find_injection
from evalkit.call.providers import WIRES
from evalkit.config import Settings
from evalkit.pii import find_pii

OVER_HTTP = frozenset({"openai", "anthropic", "http"})
_TEXT = "Write to nobody@example.com; this text is longer than those that are remembered."


def warm_up(settings: Settings) -> None:
    """Load what calls to the features of `settings` will use."""
    features = settings.features.values()
    import_module("evalkit.call.templating")
    if any(feature.output_schema is not None for feature in features):
        import_module("jsonschema_rs")
    if any(feature.guard for feature in features):
        list(find_pii(_TEXT))
        find_injection(_TEXT)
    names = {name for feature in features for name in (feature.model, *feature.fallbacks)}
    models = [settings.models[name] for name in names if name in settings.models]
    providers = {model.provider for model in models} & settings.providers.keys()
    for wire in {settings.providers[name].wire for name in providers}:
        import_module(WIRES[wire][0])
        if wire in OVER_HTTP:
            import_module("evalkit.call.providers.connections")
