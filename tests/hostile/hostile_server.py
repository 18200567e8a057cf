"""A server that never behaves: each path is one attack on whoever reads its replies.

`python -m tests.hostile.hostile_server` prints its port and serves until it is killed. Raw
sockets, since a server library would refuse to send most of this.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from functools import cache

MB = 1_000_000
HUGE = 1_000_000_000
"""What a body is said to be, and would be, if anybody read on."""
CHUNK = b"x" * 64_000
OK = "HTTP/1.1 200 OK\r\n"
JSON = "content-type: application/json\r\n"
SSE = "content-type: text/event-stream\r\n"
Attack = Callable[[], AsyncIterator[bytes]]


def head(*lines: str, status: str = OK) -> bytes:
    return (status + "".join(lines) + "connection: close\r\n\r\n").encode("latin-1")


def chunked(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def delta(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return b"data: " + json.dumps({"model": "m", "choices": [choice]}).encode() + b"\n\n"


def whole(**message: object) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return json.dumps({"model": "m", "choices": [choice]}).encode()


def fixed(body: bytes, *lines: str) -> bytes:
    return head(*(lines or (JSON,)), f"content-length: {len(body)}\r\n") + body


async def body_of_1_gb() -> AsyncIterator[bytes]:
    yield head(JSON, f"content-length: {HUGE}\r\n")
    for _ in range(HUGE // len(CHUNK)):
        yield CHUNK


async def body_without_end() -> AsyncIterator[bytes]:
    yield head(JSON, "transfer-encoding: chunked\r\n")
    while True:
        yield chunked(CHUNK)


async def error_body_without_end() -> AsyncIterator[bytes]:
    yield head(JSON, "transfer-encoding: chunked\r\n", status="HTTP/1.1 500 No\r\n")
    while True:
        yield chunked(CHUNK)


@cache
def bomb(n_mb: int, *, wbits: int) -> bytes:
    """So many MB of nothing in a thousandth of the size."""
    packer = zlib.compressobj(1, zlib.DEFLATED, wbits)
    return b"".join(packer.compress(b"\0" * MB) for _ in range(n_mb)) + packer.flush()


async def gzip_bomb() -> AsyncIterator[bytes]:
    yield fixed(bomb(1000, wbits=31), JSON, "content-encoding: gzip\r\n")


async def gzip_bomb_in_gzip() -> AsyncIterator[bytes]:
    packed = gzip.compress(bomb(1000, wbits=31))
    yield fixed(packed, JSON, "content-encoding: gzip, gzip\r\n")


async def gzip_bomb_as_stream() -> AsyncIterator[bytes]:
    yield fixed(bomb(1000, wbits=31), SSE, "content-encoding: gzip\r\n")


async def deflate_bomb_as_error() -> AsyncIterator[bytes]:
    body = bomb(1000, wbits=15)
    size = f"content-length: {len(body)}\r\n"
    packed = "content-encoding: deflate\r\n"
    yield head(packed, size, status="HTTP/1.1 429 No\r\n") + body


async def broken_gzip() -> AsyncIterator[bytes]:
    yield fixed(b"\x1f\x8b\x08\x00garbage" * 10, JSON, "content-encoding: gzip\r\n")


async def stream_without_a_line_end() -> AsyncIterator[bytes]:
    yield head(SSE, "transfer-encoding: chunked\r\n")
    yield chunked(b"data: ")
    while True:
        yield chunked(CHUNK)


async def stream_of_comments() -> AsyncIterator[bytes]:
    yield head(SSE, "transfer-encoding: chunked\r\n")
    while True:
        yield chunked(b": still here\n\n" * 1000)


async def stream_of_empty_deltas() -> AsyncIterator[bytes]:
    yield head(SSE, "transfer-encoding: chunked\r\n")
    while True:
        yield chunked(delta("") * 200)


async def stream_without_end() -> AsyncIterator[bytes]:
    yield head(SSE, "transfer-encoding: chunked\r\n")
    while True:
        yield chunked(delta("word " * 20) * 50)


async def stream_of_data_lines_that_never_close() -> AsyncIterator[bytes]:
    yield head(SSE, "transfer-encoding: chunked\r\n")
    while True:
        yield chunked(b"data: a\n" * 8000)


async def slow_headers() -> AsyncIterator[bytes]:
    for byte in OK.encode() + b"x-slow: " + b"y" * 100_000:
        yield bytes([byte])
        await asyncio.sleep(0.05)


async def slow_body() -> AsyncIterator[bytes]:
    yield head(JSON, "content-length: 100000\r\n")
    for _ in range(100_000):
        yield b" "
        await asyncio.sleep(0.05)


async def slow_stream() -> AsyncIterator[bytes]:
    yield head(SSE, "transfer-encoding: chunked\r\n")
    while True:
        yield chunked(delta("w "))
        await asyncio.sleep(0.05)


async def headers_without_end() -> AsyncIterator[bytes]:
    yield OK.encode()
    for number in itertools.count():
        yield f"x-{number}: {'y' * 1000}\r\n".encode()


async def interim_replies_without_end() -> AsyncIterator[bytes]:
    while True:
        yield b"HTTP/1.1 100 Continue\r\n\r\n" * 100


async def silence() -> AsyncIterator[bytes]:
    yield b""
    await asyncio.sleep(60)


async def half_a_stream_then_silence() -> AsyncIterator[bytes]:
    yield head(SSE, "transfer-encoding: chunked\r\n") + chunked(delta("half "))
    await asyncio.sleep(60)


async def half_a_stream() -> AsyncIterator[bytes]:
    yield head(SSE, "transfer-encoding: chunked\r\n") + chunked(delta("half "))


async def less_than_promised() -> AsyncIterator[bytes]:
    yield head(JSON, "content-length: 5000\r\n") + whole(content="ok")


async def html() -> AsyncIterator[bytes]:
    yield fixed(b"<!doctype html><title>Sign in</title>", "content-type: text/html\r\n")


async def no_http() -> AsyncIterator[bytes]:
    yield b"220 mail.example ESMTP ready\r\n" * 3


async def redirect_to_itself() -> AsyncIterator[bytes]:
    yield head("location: /\r\n", "content-length: 0\r\n", status="HTTP/1.1 307 Go\r\n")


async def deep_json() -> AsyncIterator[bytes]:
    yield fixed(b"[" * (5 * MB))


async def deep_tool_arguments() -> AsyncIterator[bytes]:
    function = {"name": "f", "arguments": '{"a":' * 100_000}
    yield fixed(whole(tool_calls=[{"id": "1", "type": "function", "function": function}]))


async def number_of_a_million_digits() -> AsyncIterator[bytes]:
    yield fixed(b'{"choices": ' + b"9" * MB + b"}")


async def two_million_choices() -> AsyncIterator[bytes]:
    yield fixed(b'{"choices": [' + b"{}," * (2 * MB) + b"{}]}")


async def numbers_that_are_none() -> AsyncIterator[bytes]:
    usage = b'"usage": {"prompt_tokens": NaN, "completion_tokens": -1e999}'
    yield fixed(whole(content="ok")[:-1] + b", " + usage + b"}")


ATTACKS: dict[str, Attack] = {
    one.__name__: one
    for one in (
        body_of_1_gb, body_without_end, error_body_without_end, gzip_bomb, gzip_bomb_in_gzip,
        gzip_bomb_as_stream, deflate_bomb_as_error, broken_gzip, stream_without_a_line_end,
        stream_of_comments,
        stream_of_empty_deltas, stream_without_end, stream_of_data_lines_that_never_close,
        slow_headers, slow_body, slow_stream, headers_without_end, interim_replies_without_end,
        silence, half_a_stream_then_silence, half_a_stream, less_than_promised, html, no_http,
        redirect_to_itself, deep_json, deep_tool_arguments, number_of_a_million_digits,
        two_million_choices, numbers_that_are_none,
    )
}  # fmt: skip


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        request = await reader.readuntil(b"\r\n")
        name = request.split(b" ")[1].decode().strip("/").split("/")[0]
        await reader.readuntil(b"\r\n\r\n")
        async for piece in ATTACKS[name]():
            writer.write(piece)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


async def serve() -> None:
    bomb(1000, wbits=31)
    bomb(1000, wbits=15)
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
