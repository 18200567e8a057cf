"""What the gate asks of GitHub: artifacts of earlier runs, and one comment to keep.

The only place that speaks to its API. Answers are foreign data: sizes and pages are
bounded, an artifact counts only when the repository itself made it on the branch asked
for, and the token goes to the API's own host alone.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalkit.errors import EvalkitError
from evalkit.exchange.archives import BROKEN

if TYPE_CHECKING:
    import httpx

MAX_ARTIFACT_BYTES = 300_000_000
MAX_PAGES = 10
PER_PAGE = 100
TIMEOUT_S = 30.0
MAX_REDIRECTS = 5


class GitHubError(EvalkitError):
    """GitHub did not do what was asked; `status` is None when it did not answer."""

    def __init__(
        self, message: str, *, status: int | None = None, is_unreachable: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self._is_unreachable = is_unreachable

    @property
    def is_githubs_own(self) -> bool:
        """Whether GitHub is away, or lets nobody write here; a read-only token meets that too."""
        status = self.status or 0
        return self._is_unreachable or status in (403, 429) or status >= 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """Files that a workflow left behind."""

    id: int
    head_sha: str
    head_branch: str
    own: bool
    """Whether the repository's own branch made it, not a fork's of the same name."""


class GitHub:
    """One repository through the REST API. A context manager."""

    def __init__(self, repository: str, *, api_url: str, token: str) -> None:
        import httpx

        self._repository = repository
        self._client = httpx.Client(
            base_url=api_url,
            timeout=TIMEOUT_S,
            follow_redirects=True,
            max_redirects=MAX_REDIRECTS,
            headers={
                "Authorization": f"Bearer {token}",
                "Accept": "application/vnd.github+json",
                "X-GitHub-Api-Version": "2022-11-28",
            },
        )

    def __enter__(self) -> GitHub:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    # --- artifacts -------------------------------------------------------------------

    def artifacts(self, name: str, *, run_id: int | None = None) -> list[Artifact]:
        """Of that name, newest first: of one workflow run, or of the newest runs of all."""
        path = "actions/artifacts" if run_id is None else f"actions/runs/{run_id}/artifacts"
        answer = self._get(path, name=name, per_page=PER_PAGE)
        listed = answer.get("artifacts") if isinstance(answer, dict) else None
        return [
            _artifact(one)
            for one in (listed if isinstance(listed, list) else [])
            if isinstance(one, dict) and one.get("name") == name and not one.get("expired")
        ]

    def artifact_file(self, artifact: Artifact, name: str, *, max_bytes: int) -> bytes:
        """One file out of an artifact; GitHubError when it has none, or one too large."""
        archive = self._download(f"actions/artifacts/{artifact.id}/zip")
        try:
            with zipfile.ZipFile(io.BytesIO(archive)) as opened, opened.open(name) as file:
                data = file.read(max_bytes + 1)
        except BROKEN as error:
            raise GitHubError(f"the artifact has no readable {name}: {error}.") from None
        if len(data) > max_bytes:
            raise GitHubError(f"the artifact's {name} is larger than {max_bytes} bytes.")
        return data

    def _download(self, path: str) -> bytes:
        pieces = bytearray()
        with self._asked(path), self._client.stream("GET", self._url(path)) as response:
            _refuse(response, path)
            for piece in response.iter_bytes():
                pieces += piece
                if len(pieces) > MAX_ARTIFACT_BYTES:
                    raise GitHubError(f"{path}: larger than {MAX_ARTIFACT_BYTES} bytes.")
        return bytes(pieces)

    # --- pull requests ----------------------------------------------------------------

    def open_pull_request(self, *, owner: str, branch: str, head_sha: str) -> int | None:
        """Number of the open pull request of that branch while it stands at that commit."""
        found = self._get("pulls", state="open", head=f"{owner}:{branch}", per_page=PER_PAGE)
        for pull in found if isinstance(found, list) else []:
            if isinstance(pull, dict) and (pull.get("head") or {}).get("sha") == head_sha:
                return int(pull["number"])
        return None

    def keep_comment(self, number: int, body: str, *, marker: str) -> str:
        """Change the bot's comment that begins with `marker`, or write it; says which."""
        for one in self._comments(number):
            by_bot = (one.get("user") or {}).get("type") == "Bot"
            if by_bot and str(one.get("body") or "").startswith(marker):
                self._send("PATCH", f"issues/comments/{int(one['id'])}", {"body": body})
                return "changed"
        self._send("POST", f"issues/{number}/comments", {"body": body})
        return "written"

    def _comments(self, number: int) -> Iterator[Mapping[str, Any]]:
        for page in range(1, MAX_PAGES + 1):
            found = self._get(f"issues/{number}/comments", per_page=PER_PAGE, page=page)
            if not isinstance(found, list):
                return
            yield from (one for one in found if isinstance(one, dict))
            if len(found) < PER_PAGE:
                return

    # --- requests ---------------------------------------------------------------------

    def _url(self, path: str) -> str:
        return f"/repos/{self._repository}/{path}"

    def _get(self, path: str, **params: str | int) -> Any:
        with self._asked(path):
            response = self._client.get(self._url(path), params=params)
            _refuse(response, path)
            return response.json()

    def _send(self, method: str, path: str, body: Mapping[str, Any]) -> None:
        with self._asked(path):
            response = self._client.request(method, self._url(path), json=body)
            _refuse(response, path)

    @contextmanager
    def _asked(self, path: str) -> Iterator[None]:
        import httpx

        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = type(error).__name__
            raise GitHubError(f"GitHub, {path}: {reason}.", is_unreachable=True) from None
        except ValueError:
            raise GitHubError(f"GitHub, {path}: the answer is not JSON.") from None


def _refuse(response: httpx.Response, path: str) -> None:
    if response.status_code >= 400:
        raise GitHubError(
            f"GitHub, {path}: status {response.status_code}.", status=response.status_code
        )


def _artifact(one: Mapping[str, Any]) -> Artifact:
    run = one.get("workflow_run") or {}
    repository = run.get("repository_id")
    return Artifact(
        id=int(one["id"]),
        head_sha=str(run.get("head_sha")),
        head_branch=str(run.get("head_branch")),
        own=repository is not None and repository == run.get("head_repository_id"),
    )
