"""CPU of one call through the OpenAI wire, beside the clients it could stand on.

    python -m benchmarks.transport [--calls 2000] [--in-flight 100] [--rounds 3]

Every client sends the same request to a loopback provider in a process of its own,
which answers after 50 ms, and parses the reply. Medians over rounds in fresh processes,
taken in turns. The provider's own CPU is shown, so that it is seen not to be the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from benchmarks.runner import SCHEMA

DELAY_MS = 50
ROOT = Path(__file__).resolve().parent.parent
TEXT = "Order 7: the parcel has not arrived yet and I am waiting. " * 2
MESSAGES = (
    {"role": "system", "content": "Answer with a label as JSON."},
    {"role": "user", "content": TEXT},
)
BODY = {
    "model": "m",
    "messages": MESSAGES,
    "max_tokens": 64,
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA},
    },
}

Call = Callable[[], Awaitable[None]]
OpenCall = Callable[[str, int], AbstractAsyncContextManager[Call]]
"""Base URL and connections to one client's call, connections open until left."""


@asynccontextmanager
async def aiohttp_call(base_url: str, in_flight: int) -> AsyncIterator[Call]:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)) as session:

        async def call() -> None:
            async with session.post(f"{base_url}/chat/completions", json=BODY) as response:
                json.loads(await response.read())

        yield call


@asynccontextmanager
async def httpx_call(base_url: str, in_flight: int) -> AsyncIterator[Call]:
    import aiohttp
    import httpx
    from httpx_aiohttp import AiohttpTransport

    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight))
    async with httpx.AsyncClient(transport=AiohttpTransport(client=session)) as client:

        async def call() -> None:
            reply = await client.post(f"{base_url}/chat/completions", json=BODY)
            json.loads(reply.content)

        yield call


def provider_call(*, stream: bool) -> OpenCall:
    @asynccontextmanager
    async def open_call(base_url: str, in_flight: int) -> AsyncIterator[Call]:
        from evalkit.call.providers import build_provider
        from evalkit.config import ProviderSettings
        from evalkit.records import ModelRequest

        settings = ProviderSettings(
            name="loopback", wire="openai", base_url=base_url, max_in_flight=in_flight
        )
        provider = build_provider(settings)
        request = ModelRequest(
            model_id="m", messages=MESSAGES, max_tokens=64, response_schema=SCHEMA, stream=stream
        )

        async def call() -> None:
            async for _ in provider.stream(request):
                pass

        yield call
        await provider.aclose()

    return open_call


CLIENTS: dict[str, OpenCall] = {
    "aiohttp": aiohttp_call,
    "httpx on aiohttp": httpx_call,
    "evalkit": provider_call(stream=False),
    "evalkit, streamed": provider_call(stream=True),
}


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(name: str, base_url: str, calls: int, in_flight: int) -> tuple[float, float]:
    """(CPU microseconds per call, wall seconds), connections warm."""
    async with CLIENTS[name](base_url, in_flight) as call:

        async def work(numbers: Iterable[int]) -> None:
            for _ in numbers:
                await call()

        await asyncio.gather(*(call() for _ in range(in_flight)))
        line = iter(range(calls))
        started, used = time.perf_counter(), cpu_s()
        await asyncio.gather(*(work(line) for _ in range(in_flight)))
        return (cpu_s() - used) / calls * 1e6, time.perf_counter() - started


def server_cpu_s(url: str) -> float:
    with urllib.request.urlopen(f"{url}/stats") as reply:
        value: float = json.load(reply)["cpu_s"]
    return value


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transport", description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=CLIENTS, help=argparse.SUPPRESS)
    parser.add_argument("--base-url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        measured = measure(options.one, options.base_url, options.calls, options.in_flight)
        print(*asyncio.run(measured))
        return

    from tests.loopback import loopback_process

    ideal_s = options.calls * DELAY_MS / 1000 / options.in_flight
    print(f"{options.calls:,} calls at {DELAY_MS} ms, {options.in_flight} in flight")
    print(f"{'':20} CPU us/call   wall s   server CPU us/call   (ideal wall {ideal_s:.2f} s)")
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in CLIENTS}
    with loopback_process(delay_ms=DELAY_MS) as url:
        for _ in range(options.rounds):
            for name in CLIENTS:
                before = server_cpu_s(url)
                command = [
                    sys.executable, "-m", "benchmarks.transport", "--one", name,
                    "--base-url", f"{url}/v1", "--calls", str(options.calls),
                    "--in-flight", str(options.in_flight),
                ]  # fmt: skip
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
                cpu_us, wall_s = map(float, done.stdout.split())
                n_sent = options.calls + options.in_flight
                rows[name].append((cpu_us, wall_s, (server_cpu_s(url) - before) / n_sent * 1e6))
    for name, measured_rows in rows.items():
        cpu_us, wall_s, server_us = (statistics.median(c) for c in zip(*measured_rows, strict=True))
        print(f"{name:20} {cpu_us:11.0f}   {wall_s:6.2f}   {server_us:18.0f}")


if __name__ == "__main__":
    main()
