"""Kept answers in a Redis server, for several machines; the extra `redis` brings the client.

The same protocol as the file: no failure of the server reaches a call. Redis itself
bounds the size (`maxmemory`, `maxmemory-policy`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from evalkit.call.cache import Cached
from evalkit.call.cache_storage import Health, decode, encode
from evalkit.errors import ConfigError

TIMEOUT_S = 0.25
"""A cache slower than this is not worth waiting for."""
PREFIX = "evalkit:"
MAX_BYTES = 8 * 1024 * 1024
"""Of one answer."""


class RedisCache:
    """Answers under `evalkit:KEY`. Raises ConfigError where the client is not installed."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            from redis.asyncio import Redis
        except ImportError:
            raise ConfigError(
                "a cache in Redis needs its client. Install it: pip install 'evalkit[redis]'"
            ) from None
        try:
            self._redis: Any = Redis.from_url(
                url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
            )
        except ValueError as error:
            raise ConfigError(f"the address of the Redis server cannot be used: {error}.") from None
        self._clock = clock
        self._monotonic = monotonic
        self._health = Health("response cache in Redis", monotonic)

    @property
    def errors(self) -> int:
        return self._health.errors

    async def get(self, key: str) -> Cached | None:
        if self._health.resting:
            return None
        began = self._monotonic()
        try:
            with self._health:
                data = await self._redis.get(PREFIX + key)
                return None if data is None else decode(data)
        except asyncio.CancelledError:
            self._health.given_up(self._monotonic() - began)
            raise
        return None

    async def put(self, key: str, cached: Cached, ttl_s: float) -> None:
        data = encode(cached, stored_at=self._clock())
        if ttl_s <= 0 or len(data) > MAX_BYTES or self._health.resting:
            return
        with self._health:
            await self._redis.set(PREFIX + key, data, px=max(1, int(ttl_s * 1000)))

    async def clear(
        self, namespace: str | None = None, *, stored_before: float | None = None
    ) -> int:
        """Delete the answers of a namespace (a feature), or of all; returns how many.

        `stored_before`, in seconds since 1970, leaves younger ones. Raises ConfigError when
        the server does not answer.
        """
        pattern = "*" if namespace is None else f"{_literal(namespace)}[:/]*"
        deleted = 0
        try:
            async for key in self._redis.scan_iter(match=PREFIX + pattern, count=1000):
                if stored_before is None or await self._is_older(key, stored_before):
                    deleted += await self._redis.unlink(key)
        except Exception as error:
            raise ConfigError(f"the cache in Redis cannot be cleared: {error}.") from None
        return deleted

    async def _is_older(self, key: bytes, than: float) -> bool:
        """Whether an answer was kept before then; one that cannot be read is not worth keeping."""
        data = await self._redis.get(key)
        if data is None:
            return False
        try:
            return decode(data).stored_at < than
        except ValueError:
            return True

    async def aclose(self) -> None:
        with self._health:
            await self._redis.aclose()


def _literal(text: str) -> str:
    """`text` for a Redis pattern, where it means itself."""
    return "".join(f"\\{char}" if char in "*?[]^-\\" else char for char in text)
