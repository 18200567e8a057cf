"""Who may talk to a page of this machine: the browser that opened a URL printed here, alone.

A token in that URL is good once and buys a cookie. Another site's page can neither read nor
post: its Host or Origin is wrong, the cookie is SameSite=Strict, and a form needs the
session's CSRF token. Every answer forbids scripts and styles but the page's own files.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from hashlib import sha256
from hmac import compare_digest
from http.cookies import CookieError, SimpleCookie
from typing import Any, TypeAlias
from urllib.parse import parse_qs

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_SESSIONS = 100
MAX_BODY_BYTES = 1_000_000
NO_SESSION = (
    "Open the address that {command} printed. It is good for one browser; when it was used, the "
    "server prints a new one."
)
USED = "This address was used before, or was never good. The server prints a new one."
FORM = "application/x-www-form-urlencoded"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Not no-referrer: browsers then post forms with `Origin: null`.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


@dataclass(slots=True)
class Session:
    """One browser, opened by one person."""

    who: str
    csrf: str
    told: str = ""
    """What the next page says first."""


@dataclass(slots=True)
class Access:
    """Tokens that wait to be used, and the sessions they bought. Secrets are kept as hashes."""

    port: int
    page: str
    """Its name among the pages of this machine, for the cookie."""
    command: str
    """That prints the address, for who comes without one."""
    start: str
    """Text of the link that leads on."""
    on_used: Callable[[str], None] = lambda who: None
    """Told whose token was used up, so that another one can be offered."""
    _invitations: dict[str, str] = field(default_factory=dict)
    _sessions: dict[str, Session] = field(default_factory=dict)

    @property
    def cookie(self) -> str:
        """Cookies do not know ports: two servers of one machine need two names."""
        return f"evalkit_{self.page}_{self.port}"

    @property
    def origins(self) -> tuple[str, ...]:
        return tuple(f"http://{host}" for host in self.hosts)

    @property
    def hosts(self) -> tuple[str, ...]:
        return (f"127.0.0.1:{self.port}", f"localhost:{self.port}")

    def invite(self, who: str) -> str:
        """A URL that is good for one browser."""
        token = secrets.token_urlsafe(32)
        self._invitations[_digest(token)] = who
        return f"http://127.0.0.1:{self.port}/?token={token}"

    def accept(self, token: str) -> str | None:
        """Use a token up; returns the secret of its session, None when it is not good."""
        who = self._invitations.pop(_digest(token), None)
        if who is None:
            return None
        secret = secrets.token_urlsafe(32)
        while len(self._sessions) >= MAX_SESSIONS:
            self._sessions.pop(next(iter(self._sessions)))
        self._sessions[_digest(secret)] = Session(who, secrets.token_urlsafe(32))
        self.on_used(who)
        return secret

    def session(self, secret: str) -> Session | None:
        return self._sessions.get(_digest(secret))


def _digest(secret: str) -> str:
    return sha256(secret.encode("utf-8", "replace")).hexdigest()


class Guard:
    """The ASGI app inside, for those who may; everybody else gets a refusal of one line."""

    def __init__(self, app: App, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        guarded = _with_headers(send)
        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _say(guarded, 403, refusal)
            return
        if token := self._token(scope):
            await self._enter(token, guarded)
            return
        session = self._session(headers)
        if session is None:
            await _say(guarded, 403, NO_SESSION.format(command=self._access.command))
            return
        scope["session"] = session
        if scope["method"] == "POST":
            form = await _read_form(receive)
            if form is None or not compare_digest(
                form.get("csrf", "").encode(), session.csrf.encode()
            ):
                await _say(guarded, 403, "This form is not from this page. Reload, and try again.")
                return
            scope["form"] = form
        await self._app(scope, receive, guarded)

    def _refusal(self, scope: Scope, headers: dict[str, bytes]) -> str | None:
        """What is wrong with a request whoever sends it."""
        method = scope["method"]
        if method not in ("GET", "HEAD", "POST"):
            return "Only GET and POST."
        names = [name for name, _ in scope["headers"]]
        if names.count(b"host") != 1 or _text(headers["host"]) not in self._access.hosts:
            return "Wrong Host: this page is served at 127.0.0.1 only."
        origin = headers.get("origin")
        if origin is not None and _text(origin) not in self._access.origins:
            return "Wrong Origin: another page may not talk to this one."
        if method == "POST":
            if origin is None:
                return "No Origin: forms are taken from this page only."
            kind = _text(headers.get("content-type", b"")).split(";")[0].strip().lower()
            if kind != FORM:
                return f"Forms are sent as {FORM}."
        return None

    def _token(self, scope: Scope) -> str | None:
        if scope["method"] != "GET" or scope["path"] != "/":
            return None
        return parse_qs(_text(scope["query_string"])).get("token", [None])[0]

    async def _enter(self, token: str, send: Send) -> None:
        secret = self._access.accept(token)
        if secret is None:
            await _say(send, 403, USED)
            return
        cookie = f"{self._access.cookie}={secret}; HttpOnly; SameSite=Strict; Path=/"
        # A page that goes on by itself: after a redirect from elsewhere, a browser would not
        # send the strict cookie along.
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>evalkit</title>'
            '<meta http-equiv="refresh" content="0;url=/">'
            f'<p><a href="/">{self._access.start}</a></p>'
        )
        await _answer(send, 200, "text/html; charset=utf-8", page, ("set-cookie", cookie))

    def _session(self, headers: dict[str, bytes]) -> Session | None:
        try:
            morsel = SimpleCookie(_text(headers.get("cookie", b""))).get(self._access.cookie)
        except CookieError:
            return None
        return None if morsel is None else self._access.session(morsel.value)


def _text(value: bytes) -> str:
    return value.decode("latin-1")


async def _read_form(receive: Receive) -> dict[str, str] | None:
    """The fields of a form, the first of each name; None for one that is too large or broken."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body"):
            break
    try:
        fields = parse_qs(
            body.decode("utf-8"), keep_blank_values=True, max_num_fields=100, errors="strict"
        )
    except (UnicodeDecodeError, ValueError):
        return None
    return {name: values[0] for name, values in fields.items()}


def _with_headers(send: Send) -> Send:
    async def guarded(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            own = {name.encode(): value.encode() for name, value in HEADERS.items()}
            kept = [pair for pair in message.get("headers", []) if pair[0].lower() not in own]
            message = {**message, "headers": [*kept, *own.items()]}
        await send(message)

    return guarded


async def _say(send: Send, status: int, text: str) -> None:
    await _answer(send, status, "text/plain; charset=utf-8", text + "\n")


async def _answer(send: Send, status: int, kind: str, text: str, *more: tuple[str, str]) -> None:
    headers = [("content-type", kind), ("content-length", str(len(text.encode()))), *more]
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": text.encode()})
