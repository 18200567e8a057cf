"""Cut a stream of bytes into server-sent events (WHATWG HTML, section 9.2).

Fed with chunks cut anywhere, also inside a character or a line end; no I/O here.
An event that the stream ends in the middle of is never given out.
"""

from __future__ import annotations

from typing import NamedTuple

from evalkit.errors import CallError

MAX_LINE_BYTES = 4_000_000
MAX_EVENT_BYTES = MAX_LINE_BYTES
"""Of all lines of one event: kept line by line, short ones would take ten times their size."""

_BOM = b"\xef\xbb\xbf"


class ServerSentEvent(NamedTuple):
    """One event; `name` is empty where the stream gave none."""

    name: str
    data: str


class EventDecoder:
    """Bytes in, complete events out. Raises CallError(bad_reply) for what is no event stream."""

    __slots__ = ("_after_cr", "_data", "_name", "_partial", "_partial_bytes", "_started")

    def __init__(self) -> None:
        self._partial: list[bytes] = []
        self._partial_bytes = 0
        self._after_cr = False
        self._started = False
        self._name = ""
        self._data: bytearray | None = None

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that `chunk` completes."""
        chunk = self._with_plain_line_ends(chunk)
        head, newline, rest = chunk.partition(b"\n")
        self._partial.append(head)
        self._partial_bytes += len(head)
        if self._partial_bytes > MAX_LINE_BYTES:
            raise CallError("bad_reply", f"a line of the stream passed {MAX_LINE_BYTES:,} bytes")
        if not newline:
            return []
        lines = rest.split(b"\n")
        lines.insert(0, b"".join(self._partial))
        self._partial = [lines.pop()]
        self._partial_bytes = len(self._partial[0])
        if not self._started:
            self._started = True
            lines[0] = lines[0].removeprefix(_BOM)
        return [event for line in lines if (event := self._take(line)) is not None]

    def _with_plain_line_ends(self, chunk: bytes) -> bytes:
        r"""`\r\n` and `\r` become `\n`, also where a chunk ends between the two."""
        if self._after_cr and chunk:
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk

    def _take(self, line: bytes) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(b":")
        if field == b"data":
            self._add(value.removeprefix(b" "))
        elif field == b"event":
            self._name = value.removeprefix(b" ").decode("utf-8", "replace")
        return None

    def _add(self, line: bytes) -> None:
        if self._data is None:
            self._data = bytearray(line)
        else:
            self._data += b"\n" + line
        if len(self._data) > MAX_EVENT_BYTES:
            raise CallError("bad_reply", f"an event of the stream passed {MAX_EVENT_BYTES:,} bytes")

    def _dispatch(self) -> ServerSentEvent | None:
        name, data = self._name, self._data
        self._name, self._data = "", None
        if data is None:
            return None
        try:
            return ServerSentEvent(name, data.decode("utf-8"))
        except UnicodeDecodeError:
            raise CallError("bad_reply", "an event of the stream is not UTF-8") from None
