"""Which project a pytest session is about: the configuration nearest to what it was given."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from evalkit.call.providers.scrubbing import is_unset, unset_secrets
from evalkit.config import load_settings
from evalkit.errors import ConfigError
from evalkit.settings import Settings


def settings_of(config: pytest.Config) -> Settings:
    """The first configuration from the session's arguments upwards, else from pytest's root.

    One project may be a folder of a larger repository, with pytest's root far above it.
    Raises ConfigError for a configuration that is faulty.
    """
    settings = load_settings(start=_common_folder(config))
    return settings if settings.path is not None else load_settings(start=config.rootpath)


def near(place: Path | str, folder: Path) -> str:
    """A path as `folder` sees it where it lies inside; a URL as it is."""
    below = "://" not in str(place) and Path(place).is_relative_to(folder)
    return str(Path(place).relative_to(folder) if below else place)


def _common_folder(config: pytest.Config) -> Path:
    """The deepest folder that all arguments are in; without any, the working directory."""
    here = config.invocation_params.dir
    named = [here / argument.split("::", 1)[0] for argument in config.args]
    there = [path for path in named if path.exists()] or [here]
    common = Path(os.path.commonpath([path.absolute() for path in there]))
    return common if common.is_dir() else common.parent


def refuse_missing_keys(settings: Settings, models: Iterable[str]) -> None:
    """Say once, before the first call, what every case would say for itself.

    Raises ConfigError where a provider of `models` reads a key that the environment has not.
    """
    for name in dict.fromkeys(settings.models[model].provider for model in models):
        provider = settings.providers.get(name)
        if provider is not None and (missing := unset_secrets(provider)):
            raise ConfigError([is_unset(key, provider) for key in missing])
