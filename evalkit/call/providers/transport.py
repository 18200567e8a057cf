"""One server over HTTP: connections, keys, bounds, and failures as kinds of the table.

Wires post bytes and get a reply to read, whole or as events. Nothing is retried here,
and a deadline is the caller's: cancelling closes the connection. A key is read from the
environment for the first request and never part of a message.

aiohttp by itself, because a call costs half the CPU of httpx on an aiohttp transport
(`python -m benchmarks.transport`).
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from evalkit.call.providers.replies import error_of_status, quoted, read_json
from evalkit.call.providers.scrubbing import is_unset, secret_names, unset_secrets
from evalkit.call.providers.sse import EventDecoder, ServerSentEvent
from evalkit.config import ProviderSettings
from evalkit.errors import CallError, ConfigError

if TYPE_CHECKING:
    import aiohttp

MAX_REPLY_BYTES = 16_000_000
MAX_ERROR_BYTES = 65_536
ERROR_BODY_S = 1.0
"""How long the words of an error are waited for: its status says what it is."""
MAX_FILE_BYTES = 2_000_000_000
"""Of a file of results that is read line by line."""
KEEP_ALIVE_S = 15.0
DRAIN_S = 0.1
"""How long the end of a stream is waited for, so that its connection can be used again."""


class HttpTransport:
    """Connections to one URL. Opened by the first request, in the event loop it runs in."""

    def __init__(
        self,
        settings: ProviderSettings,
        *,
        path: str,
        key_header: str = "authorization",
        key_prefix: str = "Bearer ",
        headers: Mapping[str, str] | None = None,
        good: range = range(200, 201),
    ) -> None:
        """`good` are the statuses of a reply that is an answer."""
        self.url = f"{(settings.base_url or '').rstrip('/')}{path}"
        self.secrets: tuple[str, ...] = ()
        self._settings = settings
        self._key_header = key_header
        self._key_prefix = key_prefix
        self._wire_headers = headers or {}
        self._good = good
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failures: tuple[type[Exception], ...] = ()
        self._proxy: str | None = None
        self._secret_names = secret_names(settings)
        if missing := unset_secrets(settings):
            raise ConfigError([is_unset(name, settings) for name in missing])

    async def post(self, body: bytes) -> Reply:
        """Send `body`; the reply is there when its headers are, if its status is good.

        Raises CallError for any other status and for what goes wrong on the way. Close the
        reply (`with`): what was not read to its end takes its connection along.
        """
        return await self._send("POST", self.url, body, None)

    async def send(
        self, method: str, path: str, body: bytes | None = None, *, content_type: str | None = None
    ) -> Reply:
        """The same for any method and a path below the URL."""
        headers = None if content_type is None else {"content-type": content_type}
        return await self._send(method, self.url + path, body, headers)

    async def _send(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str] | None
    ) -> Reply:
        session = self._opened()
        try:
            response = await session.request(
                method, url, data=body, headers=headers, allow_redirects=False, proxy=self._proxy
            )
        except self._failures as error:
            if session.closed:  # by whoever asked: it says nothing of the provider
                raise CallError("cancelled", f"{self._settings.name} was closed") from None
            raise self._unsent(error) from None
        reply = Reply(response, self._failures, self.secrets)
        if response.status not in self._good:
            with reply:
                raise await reply.error()
        return reply

    async def aclose(self) -> None:
        """Close every connection; a later request opens new ones."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _opened(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._loop = loop
            self._session = self._open()
        return self._session

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        from evalkit.call.providers.connections import GradualConnector

        self._failures = (aiohttp.ClientError, OSError, UnicodeError)  # the last: no host name
        self._proxy = proxy_for(self.url)
        settings = self._settings
        return aiohttp.ClientSession(
            connector=GradualConnector(
                limit=settings.max_in_flight,
                keepalive_timeout=KEEP_ALIVE_S,
                ssl=_tls(settings),
            ),
            headers=self._headers(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=settings.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    def _headers(self) -> dict[str, str]:
        settings = self._settings
        values = {name: _secret(name, settings) for name in self._secret_names}
        self.secrets = tuple(values.values())
        headers = {
            "content-type": "application/json",
            "accept-encoding": "identity",
            "user-agent": "evalkit",
            **self._wire_headers,
        }
        if settings.api_key_env is not None:
            headers[self._key_header] = self._key_prefix + values[settings.api_key_env]
        for name, value in settings.headers.items():
            if isinstance(value, Mapping):
                value = value.get("prefix", "") + values[value["env"]]
            headers[name.lower()] = value
        return headers

    def _unsent(self, error: Exception) -> CallError:
        """A failure before the reply's headers: no connection, or no HTTP on it."""
        import aiohttp

        name = self._settings.name
        if isinstance(error, aiohttp.ClientResponseError) and not isinstance(
            error, aiohttp.ClientHttpProxyError
        ):
            reason = quoted(error.message, self.secrets)
            return CallError("bad_reply", f"{name} does not speak HTTP: {reason}")
        reason = quoted(str(error), self.secrets) or type(error).__name__
        failed = CallError("connect", f"no connection to {name}: {reason}")
        # A connection that was there and is lost may have taken the request along.
        lost = isinstance(error, aiohttp.ServerDisconnectedError | OSError)
        never = isinstance(error, aiohttp.ClientConnectorError | TimeoutError)
        failed.was_sent = lost and not never
        return failed


class Reply:
    """A reply with a good status whose body is still to be read, once."""

    __slots__ = ("_ahead", "_decoder", "_failures", "_most", "_response", "_size", "secrets")

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        failures: tuple[type[Exception], ...],
        secrets: tuple[str, ...],
    ) -> None:
        self._response = response
        self._failures = failures
        self._decoder = EventDecoder()
        self._ahead: bytes | None = None
        self._size = 0
        self._most = MAX_REPLY_BYTES
        self.secrets = secrets

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, *exc: object) -> None:
        self._response.close()

    async def is_events(self, asked: bool) -> bool:
        """Whether the body is a stream of events.

        Where one was `asked` for and no type says what came, its beginning does: no event
        begins like JSON.
        """
        kind = self._response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "text/event-stream":
            return True
        if kind == "application/json" or not asked:
            return False
        self._ahead = await self._chunk()
        return not self._ahead.lstrip().startswith(b"{")

    async def body(self) -> bytes:
        """The whole body."""
        chunks: list[bytes] = []
        try:
            while chunk := await self._chunk():
                chunks.append(chunk)
        except CallError:
            chunks.clear()  # else they live as long as the error does
            raise
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def json(self) -> Any:
        return read_json(await self.body())

    async def events(self) -> list[ServerSentEvent] | None:
        """The events that came since last asked, none at times; None after the last."""
        chunk = await self._chunk()
        return self._decoder.feed(chunk) if chunk else None

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """The lines of a file, which may be longer than any other reply."""
        self._most = MAX_FILE_BYTES
        rest = b""
        while chunk := await self._chunk():
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line
            if len(rest) > MAX_REPLY_BYTES:
                raise CallError("too_large", f"a line passed {MAX_REPLY_BYTES:,} bytes")
        if rest:
            yield rest

    async def drain(self) -> None:
        """Wait shortly for the end of a body that has nothing more to say."""
        if self._response.content.at_eof():
            return
        try:
            async with asyncio.timeout(DRAIN_S):
                while await self._chunk():
                    pass
        except (TimeoutError, CallError):
            pass

    async def error(self) -> CallError:
        """What a status that is not good means; its body is read only so far."""
        response = self._response
        body = b""
        try:
            async with asyncio.timeout(ERROR_BODY_S):
                while len(body) < MAX_ERROR_BYTES and (chunk := await self._chunk()):
                    body += chunk
        except (TimeoutError, CallError):
            pass
        return error_of_status(
            response.status, body, headers=response.headers, secrets=self.secrets
        )

    async def _chunk(self) -> bytes:
        """The next piece of the body; empty at its end."""
        if self._ahead is not None:
            ahead, self._ahead = self._ahead, None
            return ahead
        try:
            chunk = await self._response.content.readany()
        except self._failures as error:
            raise CallError("stream_cut", f"the reply was cut: {type(error).__name__}") from None
        self._size += len(chunk)
        if self._size > self._most:
            raise CallError("too_large", f"the reply passed {self._most:,} bytes")
        return chunk


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for a URL; None for this machine's own servers."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in {"localhost", "127.0.0.1", "::1"} or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)


def _tls(settings: ProviderSettings) -> ssl.SSLContext | bool:
    if isinstance(settings.verify, bool):
        return settings.verify
    try:
        return ssl.create_default_context(cafile=settings.verify)
    except OSError as error:
        reason = error.strerror or "no certificates in it"
        raise ConfigError(
            f"providers.{settings.name}.verify: {settings.verify}: {reason}."
        ) from None


def _secret(name: str, settings: ProviderSettings) -> str:
    value = os.environ.get(name, "").strip()
    if not value:
        raise CallError("auth", is_unset(name, settings))
    if not (value.isascii() and value.isprintable()):
        raise CallError("auth", f"{name} holds characters that cannot be sent in a header.")
    return value
