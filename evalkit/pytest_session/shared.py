"""The orchestrator that tests share: its connections outlive each test's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from evalkit.call.answering import Emit
from evalkit.call.functions import make_importable
from evalkit.call.orchestrator import Orchestrator
from evalkit.config import Settings
from evalkit.pytest_session.ahead import LoopThread
from evalkit.records import CallResult


class SharedOrchestrator(Orchestrator):
    """Makes its calls in one loop's thread, from whatever event loop they are awaited."""

    def __init__(self, settings: Settings) -> None:
        make_importable(settings.root)
        super().__init__(settings)
        self._thread = LoopThread()

    async def execute(
        self,
        feature: str,
        input: Mapping[str, Any] | str,
        *,
        emit: Emit | None = None,
        **overrides: Any,
    ) -> CallResult:
        asking = asyncio.get_running_loop()

        async def emit_there(text: str) -> None:
            assert emit is not None
            await asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(_emitted(emit, text), asking)
            )

        there = emit_there if emit is not None else None
        work = super().execute(feature, input, emit=there, **overrides)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._thread.loop))

    def execute_sync(
        self, feature: str, input: Mapping[str, Any] | str, **overrides: Any
    ) -> CallResult:
        return self._thread.run(super().execute(feature, input, **overrides))

    def close(self) -> None:
        """End what is under way, close connections and files."""
        self._thread.close(super().aclose())

    async def aclose(self) -> None:
        """Tests share it: the end of the session closes it."""


async def _emitted(emit: Emit, text: str) -> None:
    await emit(text)
