"""One client of `benchmarks.callpath`, in a process of its own: many calls, one line of JSON.

    python benchmarks/callpath_client.py CLIENT --base-url URL --calls N --in-flight N

Runs alone, with nothing of this package but for client `evalkit`, so that another
environment's Python can run it. Every client sends the same request, reads the reply and
takes the answer out of it; `evalkit` does so with every stage of the call path on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

MODEL = "loopback-model"
SYSTEM = "Answer with a label as JSON."
SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": ["billing", "delivery", "other"]}},
    "required": ["label"],
    "additionalProperties": False,
}
FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA},
}
MAX_TOKENS = 64

Call = Callable[[int], Awaitable[str]]
"""A call's number to the answer's text."""


def text_of(number: int) -> str:
    """No two are alike; each has an address that the guard replaces."""
    return (
        f"Order {number}: the parcel has not arrived yet and I am waiting. "
        f"Please write to customer{number}@example.com when it is on its way."
    )


def messages_of(number: int) -> list[dict[str, str]]:
    user = f"<data>\n{text_of(number)}\n</data>"
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]


def body_of(number: int) -> dict[str, object]:
    return {
        "model": MODEL,
        "messages": messages_of(number),
        "max_tokens": MAX_TOKENS,
        "response_format": FORMAT,
    }


def content_of(reply: bytes) -> str:
    content: str = json.loads(reply)["choices"][0]["message"]["content"]
    return content


# --- the clients -------------------------------------------------------------------


@asynccontextmanager
async def raw(base_url: str, in_flight: int) -> AsyncIterator[Call]:
    """Bytes made beforehand over plain sockets: what the server itself can do."""
    host, _, port = base_url.split("/")[2].partition(":")
    body = json.dumps(body_of(0)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n"
    request = head.encode() + body
    idle = [await asyncio.open_connection(host, int(port)) for _ in range(in_flight)]

    async def call(number: int) -> str:
        reader, writer = idle.pop()
        writer.write(request)
        reply_head = await reader.readuntil(b"\r\n\r\n")
        size = int(reply_head.rpartition(b"content-length: ")[2])
        reply = await reader.readexactly(size)
        idle.append((reader, writer))
        return reply.decode()

    yield call
    for _, writer in idle:
        writer.close()


@asynccontextmanager
async def bare_aiohttp(base_url: str, in_flight: int) -> AsyncIterator[Call]:
    import aiohttp

    url = f"{base_url}/chat/completions"
    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def call(number: int) -> str:
            async with session.post(url, json=body_of(number)) as response:
                return content_of(await response.read())

        yield call


@asynccontextmanager
async def bare_httpx(base_url: str, in_flight: int) -> AsyncIterator[Call]:
    import httpx

    url = f"{base_url}/chat/completions"
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    async with httpx.AsyncClient(limits=limits, timeout=120) as client:

        async def call(number: int) -> str:
            return content_of((await client.post(url, json=body_of(number))).content)

        yield call


@asynccontextmanager
async def litellm(base_url: str, in_flight: int) -> AsyncIterator[Call]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # nothing is fetched from elsewhere
    import litellm  # type: ignore[import-not-found]

    litellm.telemetry = False
    litellm.suppress_debug_info = True

    async def call(number: int) -> str:
        reply = await litellm.acompletion(
            model=f"openai/{MODEL}",
            messages=messages_of(number),
            max_tokens=MAX_TOKENS,
            response_format=FORMAT,
            api_base=base_url,
            api_key="none",
        )
        content: str = reply.choices[0].message.content
        return content

    yield call


PROJECT = """
[providers.loopback]
wire = "openai"
base_url = "{base_url}"
max_in_flight = {in_flight}

[models.m]
provider = "loopback"
id = "{model}"
price = {{ input = 0.1, output = 0.2 }}

[features.label]
task = "classify"
prompt = "label@v1"
model = "m"
output_schema = "label.schema.json"
max_tokens = {max_tokens}
max_latency_ms = 60000
cache_ttl = 3600

[guard]
pii = "replace"
injection = "flag"
output_pii = "flag"
output_leak = "flag"
"""
CAPS = """
[budgets]
total = { day_usd = 1000.0 }
user = { day_calls = 1000000 }
"""
PROMPT = f"## system\n\n{SYSTEM}\n\n## user\n\n{{{{ text }}}}\n"


@asynccontextmanager
async def evalkit(base_url: str, in_flight: int, caps: str = "") -> AsyncIterator[Call]:
    """Guard, prompt, cache, schema and record, for every call; with `caps` a ledger as well."""
    from evalkit import Orchestrator

    records: set[str] = set()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "prompts" / "label").mkdir(parents=True)
        (folder / "prompts" / "label" / "v1.md").write_text(PROMPT)
        (folder / "label.schema.json").write_text(json.dumps(SCHEMA))
        config = folder / "evalkit.toml"
        config.write_text(
            PROJECT.format(
                base_url=base_url, in_flight=in_flight, model=MODEL, max_tokens=MAX_TOKENS
            )
            + caps
        )
        orchestrator = Orchestrator.from_config(
            config, sink=lambda record: records.add(record.trace_id)
        )
        n_calls = 0
        async with orchestrator:

            async def call(number: int) -> str:
                nonlocal n_calls
                n_calls += 1
                result = await orchestrator.execute(
                    "label", {"text": text_of(number)}, user_id=f"user-{number % 100}"
                )
                if (
                    not result.ok
                    or result.value is None
                    or "pii:email" not in (result.record.guard_events)
                ):
                    raise RuntimeError(f"{result.status}: {result.record.route_reason}")
                return result.output or ""

            yield call
        if len(records) != n_calls:
            raise RuntimeError(f"{n_calls} calls left {len(records)} records")


CLIENTS = {
    "raw": raw,
    "aiohttp": bare_aiohttp,
    "httpx": bare_httpx,
    "litellm": litellm,
    "evalkit": evalkit,
    "capped": partial(evalkit, caps=CAPS),
}


# --- measuring ---------------------------------------------------------------------


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def measure(
    name: str, base_url: str, calls: int, in_flight: int, warm: int
) -> dict[str, Any]:
    """Make `calls`, so many at once, after `warm` that do not count."""
    latencies_s: list[float] = []
    failed: list[str] = []

    async with CLIENTS[name](base_url, in_flight) as call:

        async def timed(number: int) -> None:
            started = time.perf_counter()
            try:
                await call(number)
            except Exception as error:
                failed.append(f"{type(error).__name__}: {error}"[:200])
            else:
                latencies_s.append(time.perf_counter() - started)

        async def work(numbers: Iterator[int]) -> None:
            for number in numbers:
                await timed(number)

        await asyncio.gather(*(timed(-1 - number) for number in range(warm)))
        latencies_s.clear()
        numbers = iter(range(calls))
        started, used = time.perf_counter(), cpu_s()
        await asyncio.gather(*(work(numbers) for _ in range(in_flight)))
        wall_s, used = time.perf_counter() - started, cpu_s() - used
    latencies_s.sort()
    return {
        "cpu_us": used / calls * 1e6,
        "wall_s": wall_s,
        "finished": len(latencies_s),
        "p50_s": latencies_s[len(latencies_s) // 2] if latencies_s else None,
        "p99_s": latencies_s[int(0.99 * (len(latencies_s) - 1))] if latencies_s else None,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "failed": len(failed),
        "first_failure": failed[0] if failed else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--warm", type=int, default=0)
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    facts = asyncio.run(
        measure(options.client, options.base_url, options.calls, options.in_flight, options.warm)
    )
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
