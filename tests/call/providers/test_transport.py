"""Connections: opened late, used again, closed for good, and bounded; keys never shown."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from evalkit.call.providers import build_provider, transport
from evalkit.call.providers.connections import MAX_OPENING
from evalkit.call.providers.transport import MAX_REPLY_BYTES, HttpTransport, proxy_for
from evalkit.config import ProviderSettings
from evalkit.errors import CallError, ConfigError
from evalkit.records import TextDelta
from tests.call.providers.asking import (
    KEY,
    KEY_NAME,
    a_request,
    ask,
    eventually,
    failure,
    provider_of,
)
from tests.loopback import Behaviour, Loopback, Rule

MODELS = pytest.mark.parametrize("wire", ["openai", "anthropic"])
"""Wires that stream; an application's reply comes whole."""


@pytest.fixture(params=["openai", "anthropic", "http"])
def wire(request: pytest.FixtureRequest) -> str:
    """Every test that asks for it runs on every wire over HTTP."""
    name: str = request.param
    return name


# --- connections -------------------------------------------------------------------


async def test_calls_one_after_another_share_a_connection(wire: str) -> None:
    with Loopback() as server:
        async with provider_of(wire, server) as provider:
            for _ in range(5):
                await ask(provider)

        assert server.stats.requests == 5
        assert server.stats.connections == 1


async def test_a_streams_connection_is_used_again(wire: str) -> None:
    with Loopback() as server:
        async with provider_of(wire, server) as provider:
            for _ in range(5):
                await ask(provider, stream=True)

        assert server.stats.connections == 1


async def test_an_error_reply_keeps_its_connection(wire: str) -> None:
    with Loopback(Rule(Behaviour(status=503))) as server:
        async with provider_of(wire, server) as provider:
            for _ in range(3):
                await failure(provider)

        assert server.stats.connections == 1


async def test_never_more_connections_than_may_be_in_flight(wire: str) -> None:
    with Loopback(delay_ms=5) as server:
        async with provider_of(wire, server, max_in_flight=3) as provider:
            await asyncio.gather(*(ask(provider) for _ in range(12)))

        assert server.stats.requests == 12
        assert server.stats.max_in_flight <= 3


async def test_a_connection_closed_while_idle_is_replaced_unseen(wire: str) -> None:
    with Loopback(Rule(Behaviour(close=True))) as server:
        async with provider_of(wire, server) as provider:
            for _ in range(3):
                await ask(provider)
                await eventually(lambda: not server.open_connections)
                await asyncio.sleep(0.02)  # the server counts a moment before its socket closes

        assert server.stats.connections == 3
        assert server.stats.requests == 3


async def test_a_connection_lost_after_sending_is_a_connect_failure_sent_once(wire: str) -> None:
    with Loopback(Rule(Behaviour(cut_after=-1), after=1)) as server:
        async with provider_of(wire, server) as provider:
            await ask(provider)
            error = await failure(provider)

        assert error.kind == "connect"
        assert server.stats.requests == 2
        assert server.stats.connections == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_closes_the_connection(wire: str, stream: bool) -> None:
    with Loopback(Rule(Behaviour(text="a b c d", stall_after=2))) as server:
        async with provider_of(wire, server) as provider:
            asking = asyncio.create_task(ask(provider, stream=stream))
            await eventually(lambda: server.stats.by_status[200] == 1)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

            await eventually(lambda: server.stats.lost == 1)
            assert server.stats.in_flight == 0


async def test_a_deadline_ends_a_call_that_never_answers(wire: str) -> None:
    with Loopback(Rule(Behaviour(stall_after=-1), times=1)) as server:
        async with provider_of(wire, server) as provider:
            asking = asyncio.create_task(ask(provider))
            await eventually(lambda: server.stats.requests == 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await asking

            await eventually(lambda: server.stats.lost == 1)
            _, finish = await ask(provider)

    assert finish.finish_reason == "stop"


@MODELS
async def test_an_error_is_what_its_status_says_also_where_its_words_never_come(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "ERROR_BODY_S", 0.05)
    behaviour = Behaviour(status=429, headers={"retry-after": "3"}, stall_after=5)
    with Loopback(Rule(behaviour)) as server:
        async with provider_of(wire, server) as provider:
            async with asyncio.timeout(30):
                error = await failure(provider)

    assert error.kind == "rate_limit"
    assert error.retry_after_s == 3.0


@MODELS
async def test_leaving_a_stream_early_closes_its_connection(wire: str) -> None:
    with Loopback(Rule(Behaviour(text="a b c d e f", stall_after=5))) as server:
        async with provider_of(wire, server) as provider:
            async with aclosing(provider.stream(a_request(stream=True))) as events:
                first = await anext(events)

            await eventually(lambda: server.stats.lost == 1)

    assert first == TextDelta("a")


async def test_a_closed_provider_opens_again(wire: str) -> None:
    with Loopback() as server:
        async with provider_of(wire, server) as provider:
            await ask(provider)
            await provider.aclose()
            await ask(provider)

        assert server.stats.connections == 2


def test_one_provider_serves_one_event_loop_after_another(wire: str) -> None:
    async def once(provider: Any) -> None:
        await ask(provider)
        await provider.aclose()

    with Loopback() as server:
        path = {"openai": "/v1", "anthropic": "", "http": "/app"}[wire]
        provider = build_provider(ProviderSettings(name="p", wire=wire, base_url=server.url + path))

        asyncio.run(once(provider))
        asyncio.run(once(provider))

        assert server.stats.requests == 2


async def test_closing_an_unused_provider_does_nothing(wire: str) -> None:
    with Loopback() as server:
        async with provider_of(wire, server):
            pass

        assert server.stats.connections == 0


# --- what goes wrong before there is a reply ----------------------------------------


async def test_a_refused_connection_is_a_connect_failure(wire: str) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # and does not listen
        port = deaf.getsockname()[1]
        async with provider_of(wire, base_url=f"http://127.0.0.1:{port}") as provider:
            error = await failure(provider)

    assert error.kind == "connect"
    assert "loop" in str(error)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70 + ".invalid"])
async def test_an_unknown_host_is_a_connect_failure(
    wire: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with provider_of(wire, base_url=f"http://{host}") as provider:
        error = await failure(provider)

    assert error.kind == "connect"


async def test_a_connection_that_does_not_stand_in_time_is_a_connect_failure(wire: str) -> None:
    with Loopback() as server:
        url = server.url.replace("http:", "https:")
        async with provider_of(wire, base_url=url, timeout_s=0.1) as provider:
            error = await failure(provider)  # the server waits for more than a TLS hello

    assert error.kind == "connect"


@contextmanager
def tls_server(folder: Path) -> Iterator[tuple[str, Path]]:
    """An HTTPS server with a certificate of its own, and that certificate."""
    import ssl

    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
        "-addext subjectAltName=IP:127.0.0.1"
    )
    try:
        subprocess.run(
            [*command.split(), "-keyout", str(key), "-out", str(certificate)],
            check=True, capture_output=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no openssl that makes a certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with Loopback(ssl=context) as server:
        yield server.url.replace("http:", "https:"), certificate


async def test_certificates_are_checked_unless_told_otherwise(tmp_path: Path) -> None:
    with tls_server(tmp_path) as (url, certificate):
        outcomes = {}
        for verify in (True, False, certificate):
            async with provider_of("http", base_url=url, verify=verify) as provider:
                try:
                    text, _ = await ask(provider)
                    outcomes[verify] = text
                except CallError as error:
                    outcomes[verify] = error.kind

    answer = json.dumps({"output": "ok"})
    assert outcomes == {True: "connect", False: answer, certificate: answer}


async def test_a_file_without_certificates_is_a_configuration_error(
    wire: str, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with Loopback() as server:
        async with provider_of(wire, server, verify=tmp_path / "ca.pem") as provider:
            with pytest.raises(ConfigError, match=r"providers\.loop\.verify"):
                await ask(provider)


async def test_a_server_that_speaks_no_http_is_a_bad_reply(wire: str) -> None:
    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with provider_of(wire, base_url=url) as provider:
            error = await failure(provider)

    assert error.kind == "bad_reply"


async def test_headers_beyond_the_bound_are_a_bad_reply(wire: str) -> None:
    with Loopback(Rule(Behaviour(header_bytes=20_000))) as server:
        async with provider_of(wire, server) as provider:
            error = await failure(provider)

    assert error.kind == "bad_reply"


async def test_a_redirect_is_not_followed_and_takes_no_key_along(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_NAME, KEY)
    with Loopback() as other, Loopback() as server:
        server.script(Rule(Behaviour(status=307, headers={"location": other.url + "/x"})))
        async with provider_of(wire, server, api_key_env=KEY_NAME) as provider:
            error = await failure(provider)

        assert error.kind == "bad_request"
        assert "base_url" in str(error)
        assert other.stats.requests == 0


# --- bounds ------------------------------------------------------------------------


@pytest.mark.parametrize("gzip", [False, True])
async def test_a_reply_beyond_the_bound_is_too_large(wire: str, gzip: bool) -> None:
    huge = json.dumps({"output": "x" * MAX_REPLY_BYTES})
    with Loopback(Rule(Behaviour(body=huge, gzip=gzip))) as server:
        async with provider_of(wire, server) as provider:
            error = await failure(provider)

    assert error.kind == "too_large"


@MODELS
async def test_a_stream_beyond_the_bound_is_too_large(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_REPLY_BYTES", 10_000)
    with Loopback(Rule(Behaviour(text="word " * 2000))) as server:
        async with provider_of(wire, server) as provider:
            error = await failure(provider, stream=True)

    assert error.kind == "too_large"


async def test_only_the_beginning_of_a_huge_error_is_read(wire: str) -> None:
    with Loopback(Rule(Behaviour(status=500, body="x" * 5_000_000))) as server:
        async with provider_of(wire, server) as provider:
            error = await failure(provider)

    assert error.kind == "server"
    assert len(str(error)) < 400


@pytest.mark.parametrize("stream", [False, True])
async def test_a_reply_that_drips_in_is_read_whole(wire: str, stream: bool) -> None:
    behaviour = Behaviour(text="Grüße 😀 aus Zürich", piece_bytes=1)
    with Loopback(Rule(behaviour)) as server:
        async with provider_of(wire, server, **_pointer(wire)) as provider:
            text, _ = await ask(provider, stream=stream)

    assert text == "Grüße 😀 aus Zürich"


async def test_a_zipped_reply_is_read(wire: str) -> None:
    with Loopback(Rule(Behaviour(text="zipped", gzip=True))) as server:
        async with provider_of(wire, server, **_pointer(wire)) as provider:
            text, _ = await ask(provider)

    assert text == "zipped"


def _pointer(wire: str) -> dict[str, str]:
    return {"output_pointer": "/output"} if wire == "http" else {}


# --- keys --------------------------------------------------------------------------


def test_a_key_that_is_not_there_is_named_before_any_call(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_NAME, raising=False)

    with pytest.raises(ConfigError, match=f"{KEY_NAME} is not set; provider p "):
        build_provider(
            ProviderSettings(name="p", wire=wire, base_url="http://x", api_key_env=KEY_NAME)
        )


async def test_the_key_is_read_with_the_first_request(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_NAME, "sk-before")
    with Loopback() as server:
        async with provider_of(wire, server, api_key_env=KEY_NAME) as provider:
            monkeypatch.setenv(KEY_NAME, f"{KEY}\n")
            await ask(provider)

        sent = server.requests[0].headers
        header = "x-api-key" if wire == "anthropic" else "authorization"
        assert sent[header] == (KEY if wire == "anthropic" else f"Bearer {KEY}")


async def test_a_key_that_vanished_is_an_auth_failure(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_NAME, KEY)
    with Loopback() as server:
        async with provider_of(wire, server, api_key_env=KEY_NAME) as provider:
            monkeypatch.delenv(KEY_NAME)
            error = await failure(provider)

    assert error.kind == "auth"
    assert KEY_NAME in str(error)


@pytest.mark.parametrize("key", ["sk-1\nx-injected: yes", "sk-ü", "sk-\x00"])
async def test_a_key_that_does_not_fit_a_header_is_not_sent_nor_shown(
    wire: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_NAME, "sk-1")
    with Loopback() as server:
        async with provider_of(wire, server, api_key_env=KEY_NAME) as provider:
            # The environment of a process cannot hold every key that is tested here.
            monkeypatch.setattr(os, "environ", {KEY_NAME: key})
            error = await failure(provider)

        assert error.kind == "auth"
        assert "sk-" not in str(error)
        assert server.stats.requests == 0


async def test_headers_may_come_from_the_environment(
    wire: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_NAME, KEY)
    headers = {"X-Team": "search", "Authorization": {"env": KEY_NAME, "prefix": "Token "}}
    with Loopback() as server:
        async with provider_of(wire, server, headers=headers) as provider:
            await ask(provider)

        sent = server.requests[0].headers
        assert sent["x-team"] == "search"
        assert sent["authorization"] == f"Token {KEY}"


FAULTS = {
    "an echo in an error": Behaviour(status=401, error_message=f"Incorrect key {KEY}"),
    "an echo in plain text": Behaviour(status=500, body=f"boom {KEY}"),
    "an echo under status 200": Behaviour(body=json.dumps({"error": {"message": KEY}})),
    "a cut body": Behaviour(cut_after=3),
    "no reply": Behaviour(cut_after=-1),
    "no JSON": Behaviour(body=f"<html>{KEY}</html>"),
    "huge headers": Behaviour(header_bytes=20_000),
    "a redirect": Behaviour(status=302, headers={"location": f"/?key={KEY}"}),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
async def test_no_failure_shows_the_key(
    wire: str, fault: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_NAME, KEY)
    with Loopback(Rule(FAULTS[fault])) as server:
        pointer = {"output_pointer": "/nowhere"} if wire == "http" else {}
        async with provider_of(wire, server, api_key_env=KEY_NAME, **pointer) as provider:
            error = await failure(provider, stream=stream)

            shown = "".join(traceback.format_exception(error))
            assert KEY not in f"{error} {error!r} {error.args} {shown} {provider!r}"
            assert KEY not in repr(vars(provider))


# --- proxies and imports -------------------------------------------------------------


def test_a_proxy_is_taken_from_the_environment_but_not_for_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "internal.example")

    assert proxy_for("https://api.example/v1") == "http://proxy.example:3128"
    assert proxy_for("https://internal.example/v1") is None
    assert proxy_for("https://localhost:8000/v1") is None
    assert proxy_for("https://127.0.0.1:8000/v1") is None


async def test_requests_go_through_the_proxy(wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Loopback() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        async with provider_of(wire, base_url="http://far.invalid/v1") as provider:
            await ask(provider)

        assert proxy.requests[0].path.startswith("http://far.invalid/v1")


def test_building_a_provider_loads_no_http_client(wire: str) -> None:
    code = (
        "import sys\nfrom evalkit.call.providers import build_provider\n"
        "from evalkit.config import ProviderSettings\n"
        f"build_provider(ProviderSettings(name='p', wire={wire!r}, base_url='http://x'))\n"
        "print([m for m in ('aiohttp', 'httpx') if m in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_an_unknown_option_names_the_nearest(wire: str) -> None:
    settings = ProviderSettings(
        name="p", wire=wire, base_url="http://x", options={"structurd": "off"}
    )

    with pytest.raises(ConfigError, match=r"providers\.p\.options\.structurd: no such option"):
        build_provider(settings)


async def test_thousands_of_calls_at_once_open_their_connections_some_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opening = most = 0

    async def create(*_: object) -> None:
        nonlocal opening, most
        opening += 1
        most = max(most, opening)
        await asyncio.sleep(0)
        opening -= 1
        raise aiohttp.ClientConnectionError("no server here")

    monkeypatch.setattr(aiohttp.TCPConnector, "_create_connection", create)
    settings = ProviderSettings(
        name="p", wire="openai", base_url="http://127.0.0.1:9", max_in_flight=3 * MAX_OPENING
    )
    transport = HttpTransport(settings, path="/x")

    posts = (transport.post(b"{}") for _ in range(3 * MAX_OPENING))
    errors = await asyncio.gather(*posts, return_exceptions=True)
    await transport.aclose()

    assert {getattr(error, "kind", error) for error in errors} == {"connect"}
    assert most == MAX_OPENING
