"""Responses on a file, so that golden sets run again without a key: in the build of a fork.

Recording passes on what providers answer and writes it down; playing answers the same
requests from the file and asks nobody. What surrounds the answer (guards, schema, rules,
checks) works as it does now. A request is known by all that decides its answer, but not
by the words that are drawn anew in each process: the system prompt's canary, a judge's tag.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.call.providers import LazyProviders
from evalkit.call.providers.base import Provider
from evalkit.errors import CallError, ConfigError
from evalkit.records import Event, Finish, ModelRequest, TextDelta, ToolCall, Usage
from evalkit.settings import ProviderSettings

DRAWN = re.compile(r"(?<![0-9a-f])[0-9a-f]{16}(?![0-9a-f])")
"""What a process draws for itself, as `secrets.token_hex(8)` writes it."""
MAX_LINE_BYTES = 16_000_000


class Asked(NamedTuple):
    """A request as the tape knows it."""

    key: str
    drawn: tuple[str, ...]
    """The drawn words in it, in order; `⟦n⟧` stands for the n-th in what is written down."""

    def written(self, text: str) -> str:
        for number, word in enumerate(self.drawn):
            text = text.replace(word, f"⟦{number}⟧")
        return text

    def read(self, text: str) -> str:
        for number, word in enumerate(self.drawn):
            text = text.replace(f"⟦{number}⟧", word)
        return text


def asked(provider: str, request: ModelRequest) -> Asked:
    """What of a request decides the answer."""
    facts = {**asdict(request), "provider": provider, "stream": None}
    del facts["wants_confidence"]  # asks for more about the same answer
    text = json.dumps(facts, sort_keys=True, default=repr)
    drawn = tuple(dict.fromkeys(DRAWN.findall(text)))
    bare = Asked("", drawn).written(text)
    return Asked(hashlib.sha256(bare.encode("utf-8", "surrogatepass")).hexdigest(), drawn)


class Recording(Mapping[str, Provider]):
    """The providers, with their answers appended to `path`."""

    def __init__(self, path: Path, providers: Mapping[str, ProviderSettings]) -> None:
        self._path = path
        self._inner = LazyProviders(providers)
        self._open: dict[str, Provider] = {}

    def __getitem__(self, name: str) -> Provider:
        if name not in self._open:
            self._open[name] = _Recorded(name, self._inner[name], self._path)
        return self._open[name]

    def __iter__(self) -> Iterator[str]:
        """Those in use: closing must not build the others."""
        return iter(self._open)

    def __len__(self) -> int:
        return len(self._open)


class _Recorded:
    def __init__(self, name: str, inner: Provider, path: Path) -> None:
        self._name, self._inner, self._path = name, inner, path

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
        pieces: list[str] = []
        async with aclosing(self._inner.stream(request)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    pieces.append(event.text)
                else:
                    self._write(request, "".join(pieces), event)
                yield event

    async def aclose(self) -> None:
        await self._inner.aclose()

    def _write(self, request: ModelRequest, text: str, finish: Finish) -> None:
        known = asked(self._name, request)
        row = {"key": known.key, "text": known.written(text), **asdict(finish)}
        with self._path.open("a", encoding="ascii") as file:
            file.write(json.dumps(row) + "\n")


class Playing(Mapping[str, Provider]):
    """Providers that answer from a file. Raises ConfigError where it cannot be read."""

    def __init__(self, path: Path, providers: Mapping[str, ProviderSettings]) -> None:
        self._path = path
        self._names = tuple(providers)
        self._rows: dict[str, deque[Mapping[str, Any]]] = defaultdict(deque)
        for row in _rows(path):
            self._rows[row["key"]].append(row)

    def __getitem__(self, name: str) -> Provider:
        if name not in self._names:
            raise KeyError(name)
        return _Played(name, self)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def answer(self, provider: str, request: ModelRequest) -> tuple[str, Finish]:
        """The next answer to this request; what was asked once per trial is so again."""
        known = asked(provider, request)
        rows = self._rows.get(known.key)
        if not rows:
            raise CallError("not_found", f"{self._path} has no response to this request")
        row = rows.popleft()
        try:
            return known.read(row["text"]), _finish(row)
        except (KeyError, TypeError, AttributeError) as error:
            raise CallError(
                "bad_reply", f"{self._path}: no response as recorded: {error}"
            ) from None


class _Played:
    def __init__(self, name: str, tape: Playing) -> None:
        self._name, self._tape = name, tape

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Event, None]:
        text, finish = self._tape.answer(self._name, request)
        if text:
            yield TextDelta(text)
        yield finish

    async def aclose(self) -> None: ...


def _finish(row: Mapping[str, Any]) -> Finish:
    return Finish(
        finish_reason=str(row["finish_reason"]),
        usage=Usage(**row["usage"]),
        served_model=row["served_model"],
        tool_calls=tuple(ToolCall(**one) for one in row["tool_calls"]),
        confidence=row["confidence"],
    )


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES):
                number += 1
                yield _row(line, f"{path}:{number}")
    except OSError as error:
        raise ConfigError(
            f"{path}: recorded responses cannot be read: {error.strerror}. Record them: evalkit "
            f"run --record {path}"
        ) from None


def _row(line: bytes, place: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in ("key", "text")):
        raise ConfigError(f"{place}: is no recorded response. Record again: evalkit run --record")
    return row
