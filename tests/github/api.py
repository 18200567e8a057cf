"""A GitHub of one repository on the loopback: artifacts, pull requests, comments."""

from __future__ import annotations

import io
import json
import re
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

REPOSITORY = "shop/app"
TOKEN = "token-of-the-test"


@dataclass
class FakeGitHub:
    """What the repository has; tests fill it and look at it."""

    url: str = ""
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    archives: dict[int, bytes] = field(default_factory=dict)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    comments: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    refuse: int | None = None
    """Status of every answer."""

    def add_artifact(
        self, name: str, files: Mapping[str, bytes], *, sha: str = "a" * 40, branch: str = "main",
        fork: bool = False, run_id: int = 7,
    ) -> None:  # fmt: skip
        """The newest artifact of that name."""
        number = len(self.artifacts) + 1
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            for path, data in files.items():
                archive.writestr(path, data)
        self.archives[number] = content.getvalue()
        run = {"id": run_id, "head_sha": sha, "head_branch": branch, "repository_id": 1,
               "head_repository_id": 2 if fork else 1}  # fmt: skip
        entry = {"id": number, "name": name, "expired": False, "workflow_run": run}
        self.artifacts.insert(0, entry)

    def answer(self, method: str, target: str, body: Any) -> tuple[int, bytes]:
        """The reply to one request below /repos/REPOSITORY/."""
        self.asked.append(f"{method} {target}")
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        if self.refuse is not None:
            return self.refuse, b"{}"
        if found := re.fullmatch(r"actions/artifacts/(\d+)/zip", path):
            return 200, self.archives[int(found[1])]
        if found := re.fullmatch(r"actions/(?:runs/(\d+)/)?artifacts", path):
            listed = [
                one for one in self.artifacts
                if one["name"] == query["name"][0]
                and (found[1] is None or one["workflow_run"]["id"] == int(found[1]))
            ]  # fmt: skip
            return 200, _json({"artifacts": listed})
        if path == "pulls":
            owner, _, branch = query["head"][0].partition(":")
            listed = [p for p in self.pulls if (p["owner"], p["branch"]) == (owner, branch)]
            return 200, _json(listed)
        return self._comment(method, path, body)

    def _comment(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        if found := re.fullmatch(r"issues/comments/(\d+)", path):
            self.comments[int(found[1])]["body"] = body["body"]
            return 200, b"{}"
        assert re.fullmatch(r"issues/(\d+)/comments", path), path
        if method == "POST":
            entry = {"id": len(self.comments), "user": {"type": "Bot"}, "body": body["body"]}
            self.comments.append(entry)
            return 201, b"{}"
        return 200, _json(self.comments)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


@contextmanager
def serve(github: FakeGitHub) -> Iterator[FakeGitHub]:
    """Serve it until the block ends; `github.url` is its address."""

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            assert self.headers["Authorization"] == f"Bearer {TOKEN}"
            target = self.path.removeprefix(f"/repos/{REPOSITORY}/")
            status, data = github.answer(self.command, target, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = _do

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    github.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield github
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
