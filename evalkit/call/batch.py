"""Calls at batch prices: many requests wait together and go out as one file.

`BatchProvider` is a provider like any other, so that a run needs no second path: its
`stream` hands the request to a collector and ends when the provider has answered, hours
later perhaps. `batch_settings` makes a configuration that has that much patience. A run
that was killed meanwhile finds its batches again when it is resumed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evalkit.call.batch_collector import Collector, Sleep
from evalkit.call.batch_file import BatchFile
from evalkit.call.providers.anthropic import AnthropicProvider
from evalkit.call.providers.batches import BATCH_WIRES, Batches
from evalkit.call.providers.openai import OpenAIProvider
from evalkit.call.queue_file import NAME
from evalkit.config import ModelSettings, ProviderSettings, Settings
from evalkit.errors import ConfigError
from evalkit.records import Event, ModelRequest

LINGER_S = 2.0
"""Quiet time after the last request before a batch is handed in."""
POLL_S = 15.0

MAX_WAIT_S = 26 * 3600.0
"""Providers answer, or give up, within 24 hours."""
PRICE_SHARE = 0.5
"""What both providers charge of the usual price."""
MAX_CONCURRENCY = 10_000
"""Cases that may wait for their batch at once; more go into the next one."""

WIRES: dict[str, type[OpenAIProvider] | type[AnthropicProvider]] = {
    "openai": OpenAIProvider,
    "anthropic": AnthropicProvider,
}
OPTIONS: dict[str, type | tuple[type, ...]] = {
    "batch": bool,
    "batch_scope": str,
    "batch_file": str,
    "batch_linger_s": (int, float),
    "batch_poll_s": (int, float),
}
"""Options of a provider that are read here; the others are its wire's. `batch_scope` and
`batch_file`: which run this is and where its batches are written down."""


def batch_settings(settings: Settings, *, scope: str) -> Settings:
    """The same configuration with every provider that has batch endpoints using them.

    `scope` is the run's id: a resumed run takes up the batches it left. Features wait up
    to 26 hours, without streams, hedges or rates; known prices are halved. Apply it last,
    when all features (the judges too) are there. Raises ConfigError when there is no
    provider with batch endpoints.
    """
    batched = {n: _batched(p, settings, scope) for n, p in settings.providers.items()
               if p.wire in BATCH_WIRES}  # fmt: skip
    if not batched:
        raise ConfigError(
            f"no provider has batch endpoints: those of wire {' and '.join(BATCH_WIRES)} have."
        )
    patient = {
        name: replace(
            feature,
            max_latency_ms=MAX_WAIT_S * 1000,
            ttft_ms=None,
            hedge_after_ms=None,
            stream=False,
            resume_stream=False,
        )
        for name, feature in settings.features.items()
    }
    models = {n: _cheaper(m) if m.provider in batched else m for n, m in settings.models.items()}
    providers = {**settings.providers, **batched}
    return replace(settings, providers=providers, models=models, features=patient)


def _batched(provider: ProviderSettings, settings: Settings, scope: str) -> ProviderSettings:
    options = {**provider.options, "batch": True}
    if "://" not in settings.store_path:
        path = str(Path(settings.store_path) / NAME)
        options |= {"batch_scope": scope, "batch_file": path}
    return replace(
        provider, options=options, max_in_flight=10 * MAX_CONCURRENCY, rpm=None, tpm=None
    )


def _cheaper(model: ModelSettings) -> ModelSettings:
    price = model.price
    if price is None:
        return model
    cached = None if price.cached_input is None else price.cached_input * PRICE_SHARE
    halved = replace(
        price,
        input=price.input * PRICE_SHARE,
        output=price.output * PRICE_SHARE,
        cached_input=cached,
    )
    return replace(model, price=halved)


class BatchProvider:
    """A provider whose requests go out in batches; one for each run."""

    def __init__(self, settings: ProviderSettings, *, sleep: Sleep = asyncio.sleep) -> None:
        own = {name: value for name, value in settings.options.items() if name in OPTIONS}
        _check_options(settings, own)
        rest = {name: value for name, value in settings.options.items() if name not in OPTIONS}
        settings = replace(settings, options=rest)
        self._wire = WIRES[settings.wire](settings)
        self._batches: Batches = BATCH_WIRES[settings.wire](settings)
        scope, path = own.get("batch_scope", ""), own.get("batch_file")
        self._collector = Collector(
            self._batches,
            linger_s=own.get("batch_linger_s", LINGER_S),
            poll_s=own.get("batch_poll_s", POLL_S),
            file=BatchFile(path, provider=settings.name, scope=scope) if path else None,
            sleep=sleep,
        )

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
        body = self._wire.body(replace(request, stream=False))
        reply = await self._collector.ask(body)
        for event in self._wire.events(body, reply, secrets=self._batches.secrets):
            yield event

    async def aclose(self) -> None:
        await self._collector.aclose()
        await self._batches.aclose()
        await self._wire.aclose()


def _check_options(settings: ProviderSettings, own: Mapping[str, Any]) -> None:
    where = f"providers.{settings.name}"
    if settings.wire not in BATCH_WIRES:
        raise ConfigError(
            f"{where}: wire {settings.wire} has no batch endpoints; "
            f"{' and '.join(BATCH_WIRES)} have. Remove the option batch."
        )
    for name, value in own.items():
        kinds = OPTIONS[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise ConfigError(f"{where}.options.{name}: {value!r} is not of its type.")
