"""Batch endpoints: files, batches of them, and message batches, answered line by line.

A batch ends after so many polls, or when told. Each of its lines is answered as the same
request would be, by the server's own rules. For the endpoints themselves hold only rules
that name a path.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.loopback import wires
from tests.loopback.behaviour import Behaviour, Request

_PATH = re.compile(r"/(files|batches|messages/batches)(?:/([^/]+))?(?:/(content|cancel|results))?$")
_FILE_PART = re.compile(
    rb'filename="[^"]*"\r\n(?:[^\r\n]+\r\n)*\r\n(.*)\r\n--[^\r\n]+--\r\n?$', re.S
)

Serve = Callable[[Request], Behaviour]


@dataclass
class Batch:
    """One batch as it was handed in."""

    id: str
    lines: list[dict[str, Any]]
    anthropic: bool
    polls: int = 0
    ended: bool = False
    cancelled: bool = False
    results: list[dict[str, Any]] = field(default_factory=list)


class BatchServer:
    """Keeps files and batches; what happens to them is set by attributes."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Batch] = {}
        self.polls_needed = 1
        """After so many questions how far it is, a batch has ended."""
        self.held = False
        """While true, no batch ends."""
        self.can_end = sys.maxsize
        """How many do: the ones handed in after these do not."""
        self.expires_after: int | None = None
        """Lines of a batch that are answered; the others expire."""
        self.refuses: str | None = None
        """Why new batches fail validation."""

    def takes(self, request: Request) -> bool:
        return _PATH.search(request.path) is not None

    def answer(self, request: Request) -> Behaviour:
        """The reply to a request at a batch endpoint."""
        found = _PATH.search(request.path)
        assert found is not None
        kind, name, verb = found.groups()
        if kind == "files":
            return self._file(request, name, verb)
        if request.method == "POST" and name is None:
            return self._create(request, anthropic=kind == "messages/batches")
        batch = self.batches.get(name or "")
        if batch is None:
            return Behaviour(status=404, error_message=f"no batch {name}")
        if verb == "cancel":
            batch.cancelled = True
            self._end(batch)
        elif verb == "results":
            return _text("".join(json.dumps(row) + "\n" for row in batch.results))
        else:
            batch.polls += 1
            first = list(self.batches).index(batch.id) < self.can_end
            if batch.polls >= self.polls_needed and first and not self.held:
                self._end(batch)
        return _json(self._shown(batch))

    def _file(self, request: Request, name: str | None, verb: str | None) -> Behaviour:
        if request.method == "POST":
            part = _FILE_PART.search(request.body)
            assert part is not None, "no file in the upload"
            name = f"file-{len(self.files) + 1}"
            self.files[name] = part[1]
            return _json({"id": name, "object": "file", "bytes": len(part[1]), "purpose": "batch"})
        if verb != "content" or name not in self.files:
            return Behaviour(status=404, error_message=f"no file {name}")
        return _text(self.files[name].decode())

    def _create(self, request: Request, *, anthropic: bool) -> Behaviour:
        wanted = request.json
        if anthropic:
            lines = wanted["requests"]
        else:
            assert wanted["completion_window"] == "24h"
            assert wanted["endpoint"] == "/v1/chat/completions"
            lines = [json.loads(x) for x in self.files[wanted["input_file_id"]].splitlines()]
            assert all(line["method"] == "POST" for line in lines)
            assert len({line["body"]["model"] for line in lines}) == 1
        ids = {line["custom_id"] for line in lines}
        assert len(ids) == len(lines)
        assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", custom_id) for custom_id in ids)
        prefix = "msgbatch_" if anthropic else "batch_"
        batch = Batch(f"{prefix}{len(self.batches) + 1}", lines, anthropic)
        self.batches[batch.id] = batch
        return _json(self._shown(batch))

    def _end(self, batch: Batch) -> None:
        if batch.ended:
            return
        batch.ended = True
        for number, line in enumerate(batch.lines):
            late = self.expires_after is not None and number >= self.expires_after
            row = self._late(batch) if late or batch.cancelled else self._done(batch, line)
            batch.results.append({"custom_id": line["custom_id"], **row})
        batch.results.reverse()
        if not batch.anthropic:
            for name, rows in (("output", False), ("error", True)):
                kept = [r for r in batch.results if bool(r["error"]) is rows]
                text = "".join(json.dumps(row) + "\n" for row in kept)
                self.files[f"{name}-{batch.id}"] = text.encode()

    def _done(self, batch: Batch, line: dict[str, Any]) -> dict[str, Any]:
        path = "/v1/messages" if batch.anthropic else "/v1/chat/completions"
        body = json.dumps(line["params" if batch.anthropic else "body"]).encode()
        request = Request("POST", path, b"", body, 0)
        behaviour = self._serve(request)
        failed = behaviour.status != 200
        text = wires.error_body(path, behaviour) if failed else wires.whole(request, behaviour)
        reply = json.loads(text if behaviour.body is None else behaviour.body)
        if not batch.anthropic:
            response = {"status_code": behaviour.status, "request_id": "r", "body": reply}
            return {"id": "b", "response": response, "error": None}
        if failed:
            return {"result": {"type": "errored", "error": reply}}
        return {"result": {"type": "succeeded", "message": reply}}

    def _late(self, batch: Batch) -> dict[str, Any]:
        if batch.anthropic:
            return {"result": {"type": "canceled" if batch.cancelled else "expired"}}
        code = "batch_cancelled" if batch.cancelled else "batch_expired"
        return {"id": "b", "response": None, "error": {"code": code, "message": "too late"}}

    def _shown(self, batch: Batch) -> dict[str, Any]:
        if batch.anthropic:
            status = "ended" if batch.ended else "in_progress"
            return {
                "id": batch.id, "type": "message_batch", "processing_status": status,
                "results_url": "http://127.0.0.1:9/never-asked",
            }  # fmt: skip
        status, errors = "completed" if batch.ended else "in_progress", None
        if self.refuses is not None:
            status, errors = "failed", {"data": [{"code": "invalid", "message": self.refuses}]}
        elif batch.cancelled:
            status = "cancelled"
        ended = {"output_file_id": f"output-{batch.id}", "error_file_id": f"error-{batch.id}"}
        none = {"output_file_id": None, "error_file_id": None}
        return {
            "id": batch.id, "object": "batch", "status": status, "errors": errors,
            **(ended if batch.ended else none),
        }  # fmt: skip


def _json(value: Any) -> Behaviour:
    return Behaviour(body=json.dumps(value))


def _text(text: str) -> Behaviour:
    return Behaviour(body=text, content_type="application/jsonl")
