"""Prices of models from a table that others maintain, for `price = "maintained"`.

The table comes with the package genai-prices (extra `prices`): nothing is fetched, and it is
as new as the installed package. A model that it does not know has no price; its costs are
None and counted, never 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from evalkit.settings import ModelSettings, Price, ProviderSettings, Settings

MAINTAINED = "maintained"
INSTALL = "pip install 'evalkit[prices]'"


def is_installed() -> bool:
    return find_spec("genai_prices") is not None


def with_maintained_prices(settings: Settings) -> Settings:
    """Settings in which every model that asks for it has the table's price, where known."""
    if not any(model.price_from == MAINTAINED for model in settings.models.values()):
        return settings
    models = {
        name: replace(model, price=maintained_price(model.id, settings.providers[model.provider]))
        if model.price_from == MAINTAINED
        else model
        for name, model in settings.models.items()
    }
    return replace(settings, models=models)


def maintained_price(model_id: str, provider: ProviderSettings) -> Price | None:
    """Today's price of a model at a provider, else under its id alone; None when not known.

    A gateway's address says nothing of who serves a model behind it.
    """
    import genai_prices

    usage = genai_prices.Usage(input_tokens=0, output_tokens=0)
    for url in dict.fromkeys((provider.base_url, None)):
        try:
            found = genai_prices.calc_price(usage, model_id, provider_api_url=url)
        except LookupError:
            continue
        return _price(found.model_price)
    return None


def unpriced(settings: Settings) -> Iterator[ModelSettings]:
    """Models whose price was looked up and not found."""
    for model in settings.models.values():
        if model.price_from == MAINTAINED and model.price is None:
            yield model


def _price(listed: Any) -> Price | None:
    """A listed price as ours: per million tokens of text; None for what is sold otherwise."""
    values = [
        getattr(listed, key, None) for key in ("input_mtok", "output_mtok", "cache_read_mtok")
    ]
    starts = [tier.start for value in values for tier in getattr(value, "tiers", ())]
    sold = [None if v is None else float(getattr(v, "base", v)) for v in values]
    if sold[0] is None or sold[1] is None:
        return None
    return Price(
        input=sold[0], output=sold[1], cached_input=sold[2], up_to=min(starts, default=None)
    )
