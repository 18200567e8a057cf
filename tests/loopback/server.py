"""The server: HTTP/1.1 with keep-alive on a bare asyncio protocol.

No framework, because a slow mock hides what it should measure: a plain reply costs about
150 microseconds of CPU here, half of a client's (`python -m benchmarks.transport`).
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.loopback import wires
from tests.loopback.batches import BatchServer
from tests.loopback.behaviour import CASE_HEADER, CASE_IN_BODY, Behaviour, Request, Rule

Answer = Callable[[Request], Any]
"""Returns a Behaviour, the answer's text, or a JSON value to answer with."""

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_STREAM = re.compile(rb'"stream"\s*:\s*true')
_MAX_HEAD = 65_536
_REASONS = {status.value: status.phrase for status in HTTPStatus}


@dataclass(slots=True)
class Stats:
    """What has arrived since the start or the last reset."""

    requests: int = 0
    connections: int = 0
    lost: int = 0
    """Connections that the client closed while it was being answered."""
    in_flight: int = 0
    max_in_flight: int = 0
    by_path: Counter[str] = field(default_factory=Counter)
    by_case: Counter[str] = field(default_factory=Counter)
    """Requests per case marker; see `CASE_IN_BODY`."""
    by_status: Counter[int] = field(default_factory=Counter)


class Loopback:
    """The provider in a thread of its own; a context manager.

    `answer` is called for every request that no rule takes. `keep` is how many of the
    last requests stay readable in `requests`.
    """

    def __init__(
        self,
        *rules: Rule,
        answer: Answer | None = None,
        delay_ms: float = 0.0,
        port: int = 0,
        keep: int = 1000,
        case_pattern: bytes = CASE_IN_BODY,
        ssl: ssl.SSLContext | None = None,
    ) -> None:
        self.delay_ms = delay_ms
        self.port = port
        self.stats = Stats()
        self.requests: deque[Request] = deque(maxlen=keep)
        self._answer = answer
        self._ssl = ssl
        self._case = re.compile(case_pattern)
        self.started = threading.Event()
        self._connections: set[_Connection] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._healthy = Behaviour()
        self.batches = BatchServer(self._line_of_a_batch)
        self.script(*rules)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def script(self, *rules: Rule, answer: Answer | None = None) -> None:
        """Replace the rules; windows in seconds count from now."""
        self._script_time = time.monotonic()
        self._rules = tuple(rules)
        if answer is not None:
            self._answer = answer

    def reset(self) -> None:
        """Forget the counts and the kept requests."""
        self.stats = Stats(in_flight=self.stats.in_flight)
        self.requests.clear()

    def __enter__(self) -> Loopback:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self.started.wait(120)
        return self

    def __exit__(self, *exc: object) -> None:
        loop, thread = self._loop, self._thread
        assert loop is not None
        assert thread is not None
        loop.call_soon_threadsafe(self._stop.set)
        thread.join(120)

    def _run(self) -> None:
        asyncio.run(self.serve())

    async def serve(self) -> None:
        """Serve until stopped; the port is known once `started` is set."""
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await self._loop.create_server(
            lambda: _Connection(self), "127.0.0.1", self.port, backlog=4096, ssl=self._ssl
        )
        self.port = server.sockets[0].getsockname()[1]
        self.started.set()
        await self._stop.wait()
        server.close()
        for connection in tuple(self._connections):
            connection.abort()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def behaviour_for(self, request: Request) -> Behaviour:
        batched = self.batches.takes(request)
        if self._rules:
            age_s = time.monotonic() - self._script_time
            for rule in self._rules:
                if (rule.path is not None or not batched) and rule.takes(request, age_s):
                    return rule.behaviour
        if batched:
            return self.batches.answer(request)
        if self._answer is None:
            return self._healthy
        answer = self._answer(request)
        if isinstance(answer, Behaviour):
            return answer
        return Behaviour(text=answer if isinstance(answer, str) else json.dumps(answer))

    def count(self, request: Request) -> None:
        stats = self.stats
        stats.in_flight += 1
        stats.max_in_flight = max(stats.max_in_flight, stats.in_flight)
        stats.requests += 1
        stats.by_path[request.path] += 1
        if not self.batches.takes(request):
            self._count_case(request)
        if self.requests.maxlen:
            self.requests.append(request)

    def _count_case(self, request: Request) -> None:
        found = CASE_HEADER.search(request.head) or self._case.search(request.body)
        if found is not None:
            request.case = found[1].decode("utf-8", "replace")
            self.stats.by_case[request.case] += 1

    def _line_of_a_batch(self, request: Request) -> Behaviour:
        self._count_case(request)
        return self.behaviour_for(request)

    def control(self, request: Request) -> bytes | None:
        """Answer `/stats`, `/reset` and `/script`; None for a provider's own paths."""
        if request.path == "/stats":
            stats = {f.name: getattr(self.stats, f.name) for f in fields(Stats)}
            stats["cpu_s"] = time.process_time()
            return _reply(200, json.dumps(stats).encode())
        if request.path == "/reset":
            self.reset()
            return _reply(200, b"{}")
        if request.path == "/script":
            try:
                rules = [Rule.from_json(rule) for rule in request.json]
            except (TypeError, ValueError) as error:
                return _reply(400, json.dumps({"error": {"message": str(error)}}).encode())
            self.script(*rules)
            return _reply(200, b"{}")
        return None


class _Connection(asyncio.Protocol):
    """One keep-alive connection; requests are answered one after another."""

    __slots__ = ("_buffer", "_busy", "_server", "_task", "_transport")

    def __init__(self, server: Loopback) -> None:
        self._server = server
        self._buffer = b""
        self._busy = False
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server._connections.add(self)
        self._server.stats.connections += 1

    def connection_lost(self, exc: Exception | None) -> None:
        self._server._connections.discard(self)
        if self._busy:
            self._idle()
            self._server.stats.lost += 1
        if self._task is not None:
            self._task.cancel()

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._busy:
            self._next_request()

    def _next_request(self) -> None:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > _MAX_HEAD:
                self._transport.abort()
            return
        head = buffer[:end]
        found = _LENGTH.search(head)
        stop = end + 4 + (int(found[1]) if found else 0)
        if len(buffer) < stop:
            return
        self._buffer = buffer[stop:]
        method, path, _ = head[: head.find(b"\r\n")].decode("latin-1").split(" ", 2)
        server = self._server
        request = Request(method, path, head, buffer[end + 4 : stop], server.stats.requests + 1)
        answer = server.control(request)
        if answer is not None:
            self._transport.write(answer)
            return
        server.count(request)
        self._busy = True
        behaviour = server.behaviour_for(request)
        delay_ms = server.delay_ms if behaviour.delay_ms is None else behaviour.delay_ms
        if delay_ms:
            assert server._loop is not None
            server._loop.call_later(delay_ms / 1000, self._respond, request, behaviour)
        else:
            self._respond(request, behaviour)

    def _respond(self, request: Request, behaviour: Behaviour) -> None:
        if not self._busy:  # the client has gone while we waited
            return
        self._server.stats.by_status[behaviour.status] += 1
        streamed = (
            behaviour.status == 200
            and behaviour.body is None
            and _STREAM.search(request.body) is not None
        )
        if streamed:
            head, parts = _stream_head(behaviour), _stream_parts(request, behaviour)
        else:
            head, body = _plain(request, behaviour)
            parts = [body]
        if behaviour.is_plain:
            self._transport.write(head + b"".join(parts))
            self._done(behaviour)
        else:
            assert self._server._loop is not None
            timed = self._timed(head, parts, behaviour, streamed)
            self._task = self._server._loop.create_task(timed)

    def _idle(self) -> None:
        self._busy = False
        self._server.stats.in_flight -= 1

    def _cut(self) -> None:
        self._idle()
        self._transport.close()

    def _done(self, behaviour: Behaviour) -> None:
        if self._busy:
            self._idle()
        if behaviour.close:
            self._transport.close()
        elif self._buffer:
            self._next_request()

    async def _timed(
        self, head: bytes, parts: Sequence[bytes], behaviour: Behaviour, streamed: bool
    ) -> None:
        """Send slowly, partly, or not at all."""
        if behaviour.stall_after == -1:
            await asyncio.Event().wait()
        if behaviour.cut_after == -1:
            self._cut()
            return
        if not streamed:
            limit = behaviour.cut_after if behaviour.cut_after is not None else None
            limit = behaviour.stall_after if behaviour.stall_after is not None else limit
            parts = [parts[0] if limit is None else parts[0][:limit]]
        await self._send(head, behaviour)
        if behaviour.ttft_ms:
            await asyncio.sleep(behaviour.ttft_ms / 1000)
        for number, part in enumerate(parts):
            if streamed and number == behaviour.stall_after:
                break
            if streamed and number == behaviour.cut_after:
                break
            await self._send(part, behaviour)
            if behaviour.tokens_per_s:
                await asyncio.sleep(1 / behaviour.tokens_per_s)
        if behaviour.stall_after is not None:
            await asyncio.Event().wait()
        if behaviour.cut_after is not None:
            self._cut()
        else:
            self._done(behaviour)

    async def _send(self, data: bytes, behaviour: Behaviour) -> None:
        if not (behaviour.drip_ms or behaviour.piece_bytes):
            self._transport.write(data)
            return
        size = behaviour.piece_bytes or 1
        for start in range(0, len(data), size):
            self._transport.write(data[start : start + size])
            await asyncio.sleep(behaviour.drip_ms / 1000)


def _plain(request: Request, behaviour: Behaviour) -> tuple[bytes, bytes]:
    if behaviour.body is not None:
        text = behaviour.body
    elif behaviour.status >= 300:
        text = wires.error_body(request.path, behaviour)
    else:
        text = wires.whole(request, behaviour)
    body = text.encode("utf-8", "surrogateescape")
    if behaviour.gzip:
        body = gzip.compress(body)
    return _head(behaviour, "application/json", f"content-length: {len(body)}"), body


def _stream_head(behaviour: Behaviour) -> bytes:
    return _head(behaviour, "text/event-stream", "transfer-encoding: chunked")


def _stream_parts(request: Request, behaviour: Behaviour) -> list[bytes]:
    parts = []
    for number, event in enumerate(wires.events(request, behaviour)):
        if number == behaviour.end_after:
            break
        if number == behaviour.error_at:
            parts.append(_chunk(_error_event(request, behaviour)))
            break
        parts.append(_chunk('data: {"cho\n\n' if number == behaviour.malformed_at else event))
    parts.append(b"0\r\n\r\n")
    return parts


def _error_event(request: Request, behaviour: Behaviour) -> str:
    event = "event: error\n" if request.path.endswith("/messages") else ""
    return f"{event}data: {wires.error_body(request.path, behaviour)}\n\n"


def _chunk(text: str) -> bytes:
    data = text.encode()
    return b"%x\r\n%b\r\n" % (len(data), data)


def _head(behaviour: Behaviour, content_type: str, framing: str) -> bytes:
    status = behaviour.status
    lines = [
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}",
        f"content-type: {behaviour.content_type or content_type}",
        framing,
    ]
    if behaviour.gzip:
        lines.append("content-encoding: gzip")
    if behaviour.header_bytes:
        lines.append("x-padding: " + "x" * behaviour.header_bytes)
    lines += [f"{name}: {value}" for name, value in behaviour.headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _reply(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def loopback_process(*, delay_ms: float = 0.0) -> Iterator[str]:
    """The provider in a process of its own, for benchmarks; yields its URL."""
    command = [sys.executable, "-m", "tests.loopback", "--delay-ms", str(delay_ms)]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()
