"""Read `evalkit.toml` into frozen settings, with every problem at once and its line.

The shape stands in `schemas/config.schema.json`; what one table says about another
(models, providers, budgets of features) is `config_checks.py`'s. No key is ever read:
secrets are named by environment variable, and a key in the file is refused, unshown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from evalkit.config_checks import BASE_URLS, Names, cross_check, secret_or
from evalkit.errors import ConfigError
from evalkit.prices import with_maintained_prices
from evalkit.schemas import Fault, find_faults
from evalkit.settings import (
    EMBEDDED,
    AlertSettings,
    BudgetSettings,
    FeatureSettings,
    FlagSettings,
    GateSettings,
    GuardSettings,
    ModelSettings,
    Price,
    ProviderSettings,
    PytestSettings,
    RetentionSettings,
    RunSettings,
    SemanticCacheSettings,
    Settings,
    SpendCap,
    embedded_models,
    embedded_providers,
)
from evalkit.strict import MAX_TOML_BYTES, Located, Place, StrictError, load_toml, read_text

__all__ = [
    "BASE_URLS",
    "EMBEDDED",
    "AlertSettings",
    "BudgetSettings",
    "FeatureSettings",
    "FlagSettings",
    "GateSettings",
    "GuardSettings",
    "ModelSettings",
    "Price",
    "ProviderSettings",
    "PytestSettings",
    "RetentionSettings",
    "RunSettings",
    "SemanticCacheSettings",
    "Settings",
    "SpendCap",
    "load_settings",
    "read_flag",
]


def load_settings(path: Path | None = None, *, start: Path | None = None) -> Settings:
    """Settings from `path`, else from the first configuration found from `start` upwards.

    That is `evalkit.toml`, or `pyproject.toml` with a `[tool.evalkit]` table. Without
    any, the embedded model alone is set up. Raises ConfigError with all problems.
    """
    start = (start or Path.cwd()).absolute()
    path = path.absolute() if path is not None else _find_config(start)
    if path is None:
        return Settings(root=start)
    if not path.exists():
        raise ConfigError(f"{path}: there is no such file. Correct the path, or create it.")
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
    faults += cross_check(sound, settings, names=Names.of(table, settings), written=table)
    if faults:
        raise ConfigError(_problems(faults, document, prefix, path.name))
    return with_maintained_prices(settings)


def _find_config(start: Path) -> Path | None:
    found = (config_in(folder) for folder in (start, *start.parents))
    return next((path for path in found if path is not None), None)


def config_in(folder: Path) -> Path | None:
    """The configuration that stands in `folder` itself."""
    own, shared = folder / "evalkit.toml", folder / "pyproject.toml"
    if own.is_file():
        return own
    if shared.is_file() and b"tool.evalkit" in shared.read_bytes():
        return shared
    return None


def _problems(faults: Iterable[Fault], document: Located, prefix: Place, name: str) -> list[str]:
    lines = {(document.line((*prefix, *fault.place)), str(secret_or(fault))) for fault in faults}
    return [f"{name}:{line}: {text}" for line, text in sorted(lines)]


def _without_faults(table: Any, faults: Sequence[Fault]) -> Mapping[str, Any]:
    """What is left of `table` without its faulty keys, so that the rest can be checked too.

    A table that misses a required key then goes as well: at most once per level.
    """
    sound: dict[str, Any] = deepcopy(table)
    while faults:
        if any(not fault.place for fault in faults):
            return {}
        for fault in faults:
            _drop(sound, fault.place[:3])
        faults = find_faults(sound, "config")
    return sound


def _drop(table: dict[Any, Any], place: Place) -> None:
    """Remove the key at `place`, or the nearest one around it that is in a table."""
    *around, last = place
    for key in around:
        if not isinstance(table.get(key), dict):
            last = key
            break
        table = table[key]
    table.pop(last, None)


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
        providers=embedded_providers() | providers,
        models=embedded_models() | models,
        features={k: _feature(k, t, root) for k, t in table.get("features", {}).items()},
        run=RunSettings(**table.get("run", {})),
        gate=GateSettings(**table.get("gate", {})),
        pytest=PytestSettings(**_tuples(table.get("pytest", {}))),
        budgets=_budgets(table.get("budgets", {})),
        guard=GuardSettings(**_tuples(table.get("guard", {}))),
        retention=RetentionSettings(**table.get("retention", {})),
        alerts=AlertSettings(**_tuples(table.get("alerts", {}))),
        flags={k: read_flag(k, value) for k, value in flags.items()},
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
    price = values.pop("price", None)
    if isinstance(price, str):
        values["price_from"] = price
    elif price is not None:
        values["price"] = Price(**price)
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


def read_flag(name: str, value: bool | Mapping[str, Any]) -> FlagSettings:
    """A flag as `[flags]`, or a file of flags, writes it."""
    return FlagSettings(name=name, **({"enabled": value} if isinstance(value, bool) else value))


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in table.items()}
