"""What the loopback provider can be told to do, and when.

A `Behaviour` is one answer with everything that may be wrong with it; a `Rule` says
for which requests it holds. The first rule that matches decides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any


class Request:
    """One request as it arrived; the body is parsed when first asked for."""

    def __init__(self, method: str, path: str, head: bytes, body: bytes, number: int) -> None:
        self.method = method
        self.path = path
        self.head = head
        self.body = body
        self.number = number
        """From 1, over the server's life."""
        self.case: str | None = None

    @cached_property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @cached_property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(":") for line in lines if line)
        return {name.strip().lower(): value.strip() for name, _, value in pairs}

    @property
    def model(self) -> str | None:
        return self.json.get("model") if isinstance(self.json, dict) else None


@dataclass(slots=True, kw_only=True)
class Behaviour:
    """One answer. Everything left out is as a healthy provider would do it."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str | None = None
    body: str | None = None
    """Sent as it is, in place of the wire's own reply; `\udcff` is the byte 0xff."""
    error_code: str | None = None
    """`error.code` (OpenAI) or `error.type` (Anthropic) of an error reply."""
    error_message: str | None = None

    text: str | None = None
    """The model's answer; None: an instance of the request's schema, else `ok`."""
    wrap: str | None = None
    """`fence` or `prose` put around the answer."""
    reasoning: str | None = None
    """What the model of a stream writes before its answer."""
    tool_calls: Sequence[Mapping[str, Any]] = ()
    """`{"id", "name", "arguments": JSON text}` each."""
    refusal: str | None = None
    finish_reason: str | None = "stop"
    """None: the reply and the stream name none."""
    served_model: str | None = None
    usage: bool | Mapping[str, int] = True
    """False: none is given; a mapping replaces the estimated `prompt`, `completion`, `cached`."""
    logprob: float | None = None
    """Per token, on the OpenAI wire."""
    pad_bytes: int = 0
    """Spaces appended to the answer."""

    delay_ms: float | None = None
    """Before the first byte; None: the server's own."""
    ttft_ms: float = 0.0
    """Between the headers of a stream and its first event."""
    tokens_per_s: float = 0.0
    """0: all at once."""
    cut_after: int | None = None
    """Close the connection after k events of a stream, or k bytes of a plain body; -1: before
    the headers."""
    end_after: int | None = None
    """End a stream cleanly after k events: no finish_reason, no [DONE]."""
    stall_after: int | None = None
    """Fall silent after k events of a stream, or k bytes of a plain body; -1: before the
    headers."""
    malformed_at: int | None = None
    """Event k of a stream is not JSON."""
    error_at: int | None = None
    """Event k of a stream is an error event, and the last."""
    drip_ms: float = 0.0
    """Send headers and body byte by byte, this far apart."""
    piece_bytes: int = 0
    """Send headers and body in pieces of this size, each as a packet of its own; 0: whole."""
    header_bytes: int = 0
    """Size of one more header."""
    gzip: bool = False
    close: bool = False
    """Close the connection after the reply."""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Behaviour:
        known = {f.name for f in fields(cls)}
        if unknown := set(value) - known:
            raise ValueError(f"unknown keys {sorted(unknown)}; known: {sorted(known)}")
        return cls(**value)

    @property
    def is_plain(self) -> bool:
        """Whether the reply is one write, with nothing timed or broken."""
        return not (
            self.ttft_ms
            or self.tokens_per_s
            or self.drip_ms
            or self.piece_bytes
            or self.cut_after is not None
            or self.stall_after is not None
        )


@dataclass(slots=True)
class Rule:
    """A behaviour and the requests it is for; a condition left out always holds."""

    behaviour: Behaviour
    path: str | None = None
    """Part of the path."""
    model: str | None = None
    contains: str | None = None
    """Part of the body."""
    case: str | None = None
    after: int = 0
    """Matching requests let through first (drift after n calls)."""
    times: int | None = None
    """Requests it holds for, after those; None: all."""
    from_s: float = 0.0
    until_s: float | None = None
    """Seconds since the script was set (an outage window)."""
    matched: int = 0

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rule:
        """Conditions stand under `when`; every other key is the behaviour's."""
        rest = {key: item for key, item in value.items() if key != "when"}
        return cls(Behaviour.from_json(rest), **value.get("when", {}))

    def takes(self, request: Request, age_s: float) -> bool:
        if self.path is not None and self.path not in request.path:
            return False
        if self.model is not None and self.model != request.model:
            return False
        if self.contains is not None and self.contains.encode() not in request.body:
            return False
        if self.case is not None and self.case != request.case:
            return False
        if age_s < self.from_s or (self.until_s is not None and age_s >= self.until_s):
            return False
        self.matched += 1
        past = self.matched - self.after
        return past > 0 and (self.times is None or past <= self.times)


CASE_HEADER = re.compile(rb"\r\nx-case:\s*([^\r\n]{1,200})", re.IGNORECASE)
CASE_IN_BODY = rb"\[case ([^\]\s]{1,200})\]"
"""The marker that says which case a request is for: `[case t-001]` anywhere in its text."""
