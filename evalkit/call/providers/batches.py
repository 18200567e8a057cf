"""The batch endpoints of OpenAI and Anthropic: many requests in one file, answers hours later.

Submit, ask how far it is, read the results, cancel: the same four for both. Each line's
request and reply is what the wire's own provider writes and reads.

Formats: https://platform.openai.com/docs/guides/batch and
https://docs.anthropic.com/en/docs/build-with-claude/batch-processing
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from evalkit.call.providers.anthropic import anthropic_http
from evalkit.call.providers.replies import (
    error_of_status,
    items,
    mapping,
    quoted,
    raise_if_error,
    read_json,
    text,
)
from evalkit.call.providers.transport import HttpTransport
from evalkit.config import ProviderSettings
from evalkit.errors import CallError

MAX_REQUESTS = 50_000
MAX_BYTES = 190_000_000
"""Of one batch: what both providers take."""

Outcome = tuple[str, Any]
"""(custom_id, the reply's body or a CallError)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLine:
    """One request of a batch."""

    custom_id: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a batch is."""

    ended: bool
    files: tuple[str, ...] = ()
    """Where its results are, once ended."""


class Batches(Protocol):
    """A provider's batch endpoints. Every method raises CallError as a provider does."""

    async def submit(self, lines: Sequence[BatchLine]) -> str:
        """Hand requests in; returns the batch's id."""
        ...

    async def progress(self, batch_id: str) -> Progress: ...

    def results(self, batch_id: str, progress: Progress) -> AsyncGenerator[Outcome, None]:
        """The outcome of every request that has one, in any order."""
        ...

    async def cancel(self, batch_id: str) -> None: ...

    async def aclose(self) -> None: ...

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be quoted."""
        ...


class _Http:
    """JSON in and out at one base URL."""

    def __init__(self, transport: HttpTransport) -> None:
        self._transport = transport

    @property
    def secrets(self) -> tuple[str, ...]:
        return self._transport.secrets

    async def ask(
        self, method: str, path: str, body: bytes | None = None, *, content_type: str | None = None
    ) -> Mapping[str, Any]:
        reply = await self._transport.send(method, path, body, content_type=content_type)
        with reply:
            value = await reply.json()
        raise_if_error({"error": None} if _is_list_of_errors(value) else value)
        return mapping(value, "the body")

    async def lines(self, path: str) -> AsyncGenerator[Mapping[str, Any], None]:
        with await self._transport.send("GET", path) as reply:
            async with aclosing(reply.lines()) as lines:
                async for line in lines:
                    if line.strip():
                        yield mapping(read_json(line), "a line of results")

    async def aclose(self) -> None:
        await self._transport.aclose()


def _is_list_of_errors(value: Any) -> bool:
    """A batch object has `errors` and perhaps `error`, which are of the batch, not of the reply."""
    return isinstance(value, dict) and value.get("object") == "batch"


class OpenAIBatches(_Http):
    """Files, and batches of them."""

    def __init__(self, settings: ProviderSettings) -> None:
        super().__init__(HttpTransport(settings, path=""))

    async def submit(self, lines: Sequence[BatchLine]) -> str:
        uploaded = await self._upload(lines)
        wanted = {
            "input_file_id": uploaded,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        }
        batch = await self.ask("POST", "/batches", json.dumps(wanted).encode())
        return text(batch.get("id"), "id of the batch")

    async def progress(self, batch_id: str) -> Progress:
        batch = await self.ask("GET", f"/batches/{quote(batch_id, safe='')}")
        status = text(batch.get("status"), "status of the batch")
        if status == "failed":
            raise CallError("bad_request", f"the batch was refused: {self._why(batch)}")
        if status not in ("completed", "expired", "cancelled"):
            return Progress(ended=False)
        files = (batch.get("output_file_id"), batch.get("error_file_id"))
        return Progress(ended=True, files=tuple(f for f in files if isinstance(f, str) and f))

    async def results(self, batch_id: str, progress: Progress) -> AsyncGenerator[Outcome, None]:
        for file in progress.files:
            async with aclosing(self.lines(f"/files/{quote(file, safe='')}/content")) as lines:
                async for line in lines:
                    yield text(line.get("custom_id"), "custom_id"), self._outcome(line)

    async def cancel(self, batch_id: str) -> None:
        await self.ask("POST", f"/batches/{quote(batch_id, safe='')}/cancel", b"{}")

    async def _upload(self, lines: Sequence[BatchLine]) -> str:
        boundary = secrets.token_hex(16)
        rows = (
            b'{"custom_id":%b,"method":"POST","url":"/v1/chat/completions","body":%b}'
            % (json.dumps(line.custom_id).encode(), line.body)
            for line in lines
        )
        body = b"\r\n".join(
            (
                f"--{boundary}".encode(),
                b'content-disposition: form-data; name="purpose"',
                b"",
                b"batch",
                f"--{boundary}".encode(),
                b'content-disposition: form-data; name="file"; filename="batch.jsonl"',
                b"content-type: application/jsonl",
                b"",
                b"\n".join(rows) + b"\n",
                f"--{boundary}--".encode(),
                b"",
            )
        )
        kind = f"multipart/form-data; boundary={boundary}"
        file = await self.ask("POST", "/files", body, content_type=kind)
        return text(file.get("id"), "id of the file")

    def _outcome(self, line: Mapping[str, Any]) -> Any:
        error = line.get("error")
        if isinstance(error, dict):
            code = str(error.get("code"))
            kind = {"batch_expired": "timeout", "batch_cancelled": "cancelled"}.get(code, "server")
            return CallError(kind, quoted(f"{code}: {error.get('message')}", self.secrets))
        response = mapping(line.get("response"), "response")
        status, body = response.get("status_code"), response.get("body")
        if status == 200:
            return body
        if not isinstance(status, int):
            return CallError("bad_reply", "a line of results has no status_code")
        told = json.dumps(body).encode()
        return error_of_status(status, told, headers={}, secrets=self.secrets)

    def _why(self, batch: Mapping[str, Any]) -> str:
        errors = batch.get("errors")
        found = items(errors.get("data") or [], "errors") if isinstance(errors, dict) else []
        first = found[0] if found and isinstance(found[0], dict) else {}
        return quoted(str(first.get("message") or "no reason given"), self.secrets)


class AnthropicBatches(_Http):
    """Message batches."""

    def __init__(self, settings: ProviderSettings) -> None:
        super().__init__(anthropic_http(settings, "/messages/batches"))

    async def submit(self, lines: Sequence[BatchLine]) -> str:
        rows = (
            b'{"custom_id":%b,"params":%b}' % (json.dumps(line.custom_id).encode(), line.body)
            for line in lines
        )
        batch = await self.ask("POST", "", b'{"requests":[' + b",".join(rows) + b"]}")
        return text(batch.get("id"), "id of the batch")

    async def progress(self, batch_id: str) -> Progress:
        batch = await self.ask("GET", f"/{quote(batch_id, safe='')}")
        return Progress(ended=batch.get("processing_status") == "ended")

    async def results(self, batch_id: str, progress: Progress) -> AsyncGenerator[Outcome, None]:
        # Not its results_url: the key goes to no address that a reply names.
        async with aclosing(self.lines(f"/{quote(batch_id, safe='')}/results")) as lines:
            async for line in lines:
                yield text(line.get("custom_id"), "custom_id"), self._outcome(line)

    async def cancel(self, batch_id: str) -> None:
        await self.ask("POST", f"/{quote(batch_id, safe='')}/cancel", b"{}")

    def _outcome(self, line: Mapping[str, Any]) -> Any:
        result = mapping(line.get("result"), "result")
        match result.get("type"):
            case "succeeded":
                return result.get("message")
            case "expired":
                return CallError("timeout", "the request expired with its batch")
            case "canceled":
                return CallError("cancelled", "the batch was cancelled")
        error = result.get("error")
        try:
            raise_if_error(
                error if isinstance(error, dict) and "error" in error else {"error": error},
                secrets=self.secrets,
            )
        except CallError as told:
            return told
        return CallError("bad_reply", "a line of results is of no known type")


BATCH_WIRES: dict[str, type[OpenAIBatches] | type[AnthropicBatches]] = {
    "openai": OpenAIBatches,
    "anthropic": AnthropicBatches,
}
"""Wires that have batch endpoints."""
