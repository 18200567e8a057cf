"""Posts one message to a chat's webhook, in the shape that Slack takes.

The address is a secret and comes from the environment: it is in no message and no log.
Only hosts that are listed are posted to, over TLS (but for 127.0.0.1), and no redirect
is followed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from urllib.parse import urlsplit

from evalkit.errors import ConfigError, EvalkitError

LOOPBACK = "127.0.0.1"
HOSTS = ("hooks.slack.com", LOOPBACK)
MAX_CHARS = 30_000
TIMEOUT_S = 10.0


class WebhookError(EvalkitError):
    """The message was not taken; the next run sends it."""


def webhook_url(env: str, *, hosts: Sequence[str]) -> str:
    """The address in the variable `env`. Raises ConfigError where it must not be posted to."""
    url = os.environ.get(env)
    if not url:
        raise ConfigError(f"alerts.webhook_env: {env} is not set. Set it to the webhook's URL.")
    try:
        parts = urlsplit(url)
        host, scheme = parts.hostname or "", parts.scheme
    except ValueError:
        raise ConfigError(f"{env} is no URL.") from None
    if host not in (*HOSTS, *hosts):
        raise ConfigError(
            f"{env} is an address at {host or 'no host'}, which alerts.webhook_hosts does not "
            f"list. Add it there, or use one of: {', '.join(HOSTS)}."
        )
    if scheme != "https" and (scheme, host) != ("http", LOOPBACK):
        raise ConfigError(f"{env}: only https:// is posted to (http:// at {LOOPBACK}).")
    return url


def post_text(url: str, text: str) -> None:
    """Post `{"text": …}`; WebhookError unless it was taken."""
    import httpx

    try:
        reply = httpx.post(
            url, json={"text": text[:MAX_CHARS]}, timeout=TIMEOUT_S, follow_redirects=False
        )
    except httpx.HTTPError as error:
        raise WebhookError(f"webhook: {type(error).__name__}; it is sent next time.") from None
    if not reply.is_success:
        raise WebhookError(f"webhook: HTTP {reply.status_code}; it is sent next time.")


def escaped(text: str) -> str:
    """Text that Slack shows as it is: no link, no mention, no line of its own."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
