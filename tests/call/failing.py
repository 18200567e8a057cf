"""A feature on two real HTTP providers that fail as told, and a clock that never waits."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evalkit.call.one_attempt import Clock
from evalkit.call.orchestrator import Orchestrator
from evalkit.config import FeatureSettings, ModelSettings, Price, ProviderSettings, Settings
from evalkit.records import CallRecord, CallResult, TextDelta
from tests.loopback import Behaviour, Loopback, Rule

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["billing", "delivery"]}},
    "required": ["label"],
    "additionalProperties": False,
}
GOOD = '{"label": "billing"}'
WHOLE = "Your parcel left our warehouse on Monday and will arrive on Thursday before noon."
SYSTEM = "Sort the ticket of a customer."


@dataclass
class QuickClock:
    """Real time, in which sleeping takes none: it is jumped over."""

    jitter: float = 0.5
    jumped: float = 0.0
    slept: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.jumped += seconds

    def pass_s(self, seconds: float) -> None:
        self.jumped += seconds

    def clock(self) -> Clock:
        return Clock(
            monotonic=lambda: time.monotonic() + self.jumped,
            sleep=self.sleep,
            jitter=lambda: self.jitter,
        )


class World:
    """Feature `sort` on model `small` of server `one`, and `spare` of server `two`.

    async with World(tmp_path, Behaviour(status=503)) as world: the first server fails so,
    the second is healthy. Changes are settings of the feature.
    """

    def __init__(self, folder: Path, *rules: Rule | Behaviour, **changes: Any) -> None:
        prompt = folder / "prompts" / "sort" / "v1.md"
        prompt.parent.mkdir(parents=True)
        prompt.write_text(f"## system\n{SYSTEM}\n\n## user\n{{{{ text }}}}\n", encoding="utf-8")
        schema = folder / "label.schema.json"
        schema.write_text(json.dumps(SCHEMA), encoding="utf-8")
        told = [Rule(r) if isinstance(r, Behaviour) else r for r in rules]
        self.one = Loopback(*told, answer=lambda request: GOOD)
        self.two = Loopback(answer=lambda request: GOOD)
        self.clock = QuickClock()
        self.log: list[CallRecord] = []
        self._changes = {"fallbacks": ("spare",), "output_schema": schema, **changes}
        self._folder = folder
        self._servers = AsyncExitStack()

    async def __aenter__(self) -> World:
        for server in (self.one, self.two):
            self._servers.enter_context(server)
        price = Price(input=1.0, output=2.0)
        urls = {"one": self.one.url, "two": self.two.url}
        feature = FeatureSettings(
            name="sort",
            task="classify",
            prompt_name="sort",
            prompt_version="v1",
            model="small",
            **{"max_tokens": 64, "retries": 2, **self._changes},
        )
        self.settings = Settings(
            root=self._folder,
            providers={
                name: ProviderSettings(name=name, wire="openai", base_url=f"{url}/v1")
                for name, url in urls.items()
            },
            models={
                "small": ModelSettings(name="small", provider="one", id="small-1", price=price),
                "spare": ModelSettings(name="spare", provider="two", id="spare-1", price=price),
            },
            features={"sort": feature},
        )
        self.build()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.orchestrator.aclose()
        await self._servers.aclose()

    def build(self, **parts: Any) -> None:
        """The orchestrator anew, from the settings as they are now."""
        parts = {"sink": self.log.append, "clock": self.clock.clock(), **parts}
        self.orchestrator = Orchestrator(self.settings, **parts)

    def set(self, **settings: Any) -> None:
        self.settings = replace(self.settings, **settings)
        self.build()

    def set_provider(self, name: str, **changes: Any) -> None:
        providers = dict(self.settings.providers)
        providers[name] = replace(providers[name], **changes)
        self.set(providers=providers)

    def set_model(self, name: str, **changes: Any) -> None:
        models = dict(self.settings.models)
        models[name] = replace(models[name], **changes)
        self.set(models=models)

    async def call(
        self, input: Mapping[str, Any] | str = "Two invoices for one order", **more: Any
    ) -> CallResult:
        return await self.orchestrator.execute("sort", input, **more)

    async def stream(self, input: str = "Where is it?") -> tuple[str, CallResult]:
        """The text that was shown, and the result."""
        shown = ""
        async for event in self.orchestrator.stream("sort", input):
            if not isinstance(event, TextDelta):
                return shown, event
            shown += event.text
        raise AssertionError("the stream ended without a result")

    async def first_request(self) -> None:
        """Wait until the first server has been asked."""
        async with asyncio.timeout(60):
            while not self.one.stats.requests:  # noqa: ASYNC110 - it counts in another thread
                await asyncio.sleep(0.002)

    @property
    def requests(self) -> tuple[int, int]:
        """How many requests each server got."""
        return self.one.stats.requests, self.two.stats.requests

    def bodies(self) -> list[Any]:
        """What the first server was asked."""
        return [request.json for request in self.one.requests]


def kinds(result: CallResult) -> list[str | None]:
    """The error kind of each attempt."""
    return [attempt.error_kind for attempt in result.record.attempts]


@contextmanager
def another_writes(path: Path) -> Iterator[None]:
    """Until the end of the block nobody else writes in a SQLite file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")
