"""Take keys out of what comes back: a server, or a program of one's own, may repeat them.

Around a provider, before any of its text is shown, checked, judged, cached or written. A key
that comes in pieces, one to an event, is found like a whole one. The keys are those of all
providers of the configuration, as the environment has them with the first request.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from evalkit.call.providers.base import Provider
from evalkit.config import ProviderSettings
from evalkit.errors import CallError
from evalkit.records import Event, Finish, ModelRequest, TextDelta

MASK = "***"
MIN_CHARS = 8
"""A shorter key is a word like others: masking it would change answers, and hide nothing."""


def secret_names(settings: ProviderSettings) -> tuple[str, ...]:
    """Environment variables that hold this provider's secrets."""
    names = [settings.api_key_env] if settings.api_key_env is not None else []
    names += [v["env"] for v in settings.headers.values() if isinstance(v, Mapping)]
    return tuple(dict.fromkeys(names))


def unset_secrets(settings: ProviderSettings) -> list[str]:
    """Those of its variables that the environment lacks, or has nothing under."""
    return [name for name in secret_names(settings) if not os.environ.get(name, "").strip()]


def is_unset(name: str, settings: ProviderSettings) -> str:
    """What is said of a variable that is not set."""
    return f"environment variable {name} is not set; provider {settings.name} needs its key there."


def secrets_of(names: Iterable[str]) -> tuple[str, ...]:
    """What the environment has under these names, longest first: one may begin with another."""
    values = {os.environ.get(name, "").strip() for name in names}
    return tuple(sorted((v for v in values if len(v) >= MIN_CHARS), key=len, reverse=True))


def masked(text: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        if secret in text:
            text = text.replace(secret, MASK)
    return text


class Scrubber:
    """Masks secrets in a text that comes in pieces; keeps back what may be the start of one."""

    __slots__ = ("_kept", "_secrets")

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = secrets
        self._kept = ""

    def feed(self, piece: str) -> str:
        """What of the text so far can be passed on."""
        text = masked(self._kept + piece, self._secrets)
        keep = max((_begun(text, secret) for secret in self._secrets), default=0)
        self._kept = text[len(text) - keep :]
        return text[: len(text) - keep]

    def rest(self) -> str:
        rest, self._kept = self._kept, ""
        return rest


def _begun(text: str, secret: str) -> int:
    """Length of the longest end of `text` that `secret` begins with."""
    at = max(0, len(text) - len(secret) + 1)
    while (at := text.find(secret[0], at)) >= 0:
        if secret.startswith(text[at:]):
            return len(text) - at
        at += 1
    return 0


class ScrubbedProvider:
    """A provider from whose replies and errors the secrets are gone."""

    def __init__(self, provider: Provider, names: Sequence[str]) -> None:
        self._provider = provider
        self._names = names

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
        secrets = secrets_of(self._names)
        scrubber = Scrubber(secrets)
        try:
            async with aclosing(self._provider.stream(request)) as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        text = scrubber.feed(event.text)
                        if text or not event.text:
                            yield event if text is event.text else TextDelta(text)
                        continue
                    rest = scrubber.rest()
                    if rest:
                        yield TextDelta(rest)
                    yield _finish(event, secrets)
        except CallError as error:
            raise _error(error, secrets) from None

    async def aclose(self) -> None:
        await self._provider.aclose()


def _finish(finish: Finish, secrets: Sequence[str]) -> Finish:
    model = finish.served_model
    if model is not None:
        finish = replace(finish, served_model=masked(model, secrets))
    if finish.tool_calls:
        calls = tuple(
            replace(
                call,
                id=masked(call.id, secrets),
                name=masked(call.name, secrets),
                arguments=masked(call.arguments, secrets),
            )
            for call in finish.tool_calls
        )
        finish = replace(finish, tool_calls=calls)
    return finish


def _error(error: CallError, secrets: Sequence[str]) -> CallError:
    told = str(error)
    clean = masked(told, secrets)
    if clean == told:
        return error
    return CallError(error.kind, clean, status=error.status, retry_after_s=error.retry_after_s)
