"""A key goes to the host it is for, and is found nowhere afterwards, whoever repeats it."""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.call.orchestrator import Orchestrator
from evalkit.call.providers.scrubbing import MASK, Scrubber, masked
from evalkit.cli.main import main
from evalkit.config import load_settings
from evalkit.exchange.github_api import Artifact, GitHub
from evalkit.records import CallResult, TextDelta
from evalkit.store.views import open_store
from tests.loopback import Behaviour, Loopback, Rule
from tests.project import write_project

KEY = "zq7Kx0canary93Vb51mT"
OTHER_KEY = "Hh4other8Lw2canaryPq6"
NAMES = {"PROBE_KEY": KEY, "PROBE_OTHER_KEY": OTHER_KEY}


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NAMES.items():
        monkeypatch.setenv(name, value)


def split_event_stream(wire: str, text: str, pieces: int = 4) -> str:
    """A streamed reply in which `text` comes in so many events."""
    size = -(-len(text) // pieces)
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    if wire == "openai":
        deltas: list[dict[str, Any]] = [{"delta": {"content": part}} for part in parts]
        last = {"delta": {}, "finish_reason": "stop"}
        events = [{"id": "c", "model": "m", "choices": [one | {"index": 0}]} for one in deltas]
        events.append({"id": "c", "model": "m", "choices": [last | {"index": 0}]})
        return "".join(f"data: {json.dumps(one)}\n\n" for one in events) + "data: [DONE]\n\n"
    start = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 1}}}
    block = {"type": "text", "text": ""}
    open_block = {"type": "content_block_start", "index": 0, "content_block": block}
    said = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": part}}
        for part in parts
    ]
    end = [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 1},
        },
        {"type": "message_stop"},
    ]
    return "".join(
        f"event: {one['type']}\ndata: {json.dumps(one)}\n\n"
        for one in [start, open_block, *said, *end]
    )


def repeats(server_url: str) -> dict[str, Behaviour]:
    """Case -> one way of a server to repeat the key that it was sent."""
    call = {"id": KEY, "name": "look_up", "arguments": json.dumps({"key": KEY})}
    return {
        "t-0000": Behaviour(text=json.dumps({"label": "billing", "note": KEY})),
        "t-0001": Behaviour(status=500, error_message=f"key {KEY} is bad"),
        "t-0002": Behaviour(text=f"no JSON but {KEY}", headers={"x-key": KEY, "set-cookie": KEY}),
        "t-0003": Behaviour(status=302, headers={"location": f"{server_url}/?key={KEY}"}),
        "t-0004": Behaviour(body=f"<html>{KEY}</html>", content_type="text/html"),
        "t-0005": Behaviour(status=400, error_code=KEY, error_message=f"{KEY}{KEY}"),
        "t-0006": Behaviour(refusal=f"not with {KEY}"),
        "t-0007": Behaviour(served_model=f"model-{KEY}"),
        "t-0008": Behaviour(finish_reason=KEY),
        "t-0009": Behaviour(tool_calls=[call]),
        "t-0010": Behaviour(tool_calls=[call | {"name": KEY}]),
        "t-0011": Behaviour(body="{" + KEY),
        "t-0012": Behaviour(text=json.dumps({"label": f"x{OTHER_KEY}"})),
    }


def write_keyed_project(folder: Path, url: str, *, wire: str = "openai") -> Path:
    write_project(folder, base_url=url, cases=14, feature="retries = 1\nmax_latency_ms = 8000")
    config = folder / "evalkit.toml"
    text = config.read_text(encoding="utf-8")
    text = text.replace('wire = "openai"', f'wire = "{wire}"\napi_key_env = "PROBE_KEY"')
    text += (
        f'\n[providers.judges]\nwire = "openai"\nbase_url = "{url}"\n'
        'api_key_env = "PROBE_OTHER_KEY"\n[models.judge]\nprovider = "judges"\nid = "judge"\n'
        '[features.say]\ntask = "generate"\nprompt = "classify@v1"\nmodel = "small"\n'
        "max_tokens = 64\nretries = 0\n"
    )
    config.write_text(text, encoding="utf-8")
    golden = folder / "golden_sets/tickets/golden_set.yaml"
    text = golden.read_text(encoding="utf-8")
    golden.write_text(
        text.replace("cases: c", "  - {name: fits, judge: fit}\ncases: c"), encoding="utf-8"
    )
    (folder / "judges").mkdir()
    (folder / "judges/fit.yaml").write_text(
        "name: fit\nversion: v1\nmodel: judge\ninputs: [input]\n"
        "rubric: [{name: right, scale: 0 or 1, description: Is it right?}]\n",
        encoding="utf-8",
    )
    return folder


def written(folder: Path) -> Iterator[tuple[str, str]]:
    """(place, text) of everything below a folder, Parquet unpacked."""
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "evalkit.toml":
            yield str(path), path.read_bytes().decode("latin-1")
    store = open_store(folder / ".evalkit")
    for view in ("runs", "calls", "scores", "verdicts"):
        for row in store.sql(f"SELECT * FROM {view}"):
            yield view, repr(row)


def assert_no_key(texts: Iterator[tuple[str, str]]) -> None:
    found = [(place, key) for place, text in texts for key in NAMES.values() if key in text]
    assert not found


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_a_key_that_a_server_repeats_is_in_no_file_report_or_log(
    wire: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    with Loopback() as server:
        rules = [Rule(one, case=case) for case, one in repeats(server.url).items()]
        server.script(*rules)
        folder = write_keyed_project(
            tmp_path, server.url + ("/v1" if wire == "openai" else ""), wire=wire
        )
        config = ("--config", str(folder / "evalkit.toml"))

        assert main(["run", *config]) == 0
        assert main(["run", *config]) == 0
        files = {
            name: str(folder / f"gate.{name}") for name in ("junit", "sarif", "markdown", "html")
        }
        main(["gate", *config, *[text for n, file in files.items() for text in (f"--{n}", file)]])
        [newest, *_] = sorted((folder / ".evalkit/runs").iterdir(), reverse=True)
        main(["report", newest.name, *config, "-o", str(folder / "report.html")])
        main(["show", "t-0000", *config])
        main(["show", "t-0002", *config, "--html", str(folder / "show.html")])

        assert server.stats.requests > 20
    out, err = capfd.readouterr()
    assert all(Path(file).exists() for file in files.values())
    assert any(MASK in text for _, text in written(folder))
    assert_no_key(written(folder))
    assert_no_key(iter([("stdout", out), ("stderr", err), ("log", caplog.text)]))


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_a_key_in_pieces_of_a_stream_is_neither_shown_nor_logged(
    wire: str, tmp_path: Path
) -> None:
    text = f"Your key is {KEY}, I think."
    with Loopback() as server:
        body = split_event_stream(wire, text, pieces=8)
        server.script(Rule(Behaviour(body=body, content_type="text/event-stream")))
        folder = write_keyed_project(
            tmp_path, server.url + ("/v1" if wire == "openai" else ""), wire=wire
        )
        shown: list[str] = []
        result: CallResult | None = None
        async with Orchestrator.from_config(load_settings(folder / "evalkit.toml")) as app:
            async for event in app.stream("say", {"text": "What is my key?"}):
                if isinstance(event, TextDelta):
                    shown.append(event.text)
                else:
                    result = event

    assert result is not None
    assert "".join(shown) == result.output == f"Your key is {MASK}, I think."
    assert_no_key(written(folder))


def test_each_host_gets_its_own_key_alone(tmp_path: Path) -> None:
    with Loopback() as server, Loopback() as other:
        folder = write_keyed_project(tmp_path, server.url + "/v1")
        config = folder / "evalkit.toml"
        text = config.read_text(encoding="utf-8")
        head, judges, rest = text.partition("[providers.judges]")
        config.write_text(head + judges + rest.replace(server.url, other.url), encoding="utf-8")

        assert main(["run", "--config", str(config)]) == 0

        sent = {one.head.decode("latin-1") + one.body.decode() for one in server.requests}
        sent_other = {one.head.decode("latin-1") + one.body.decode() for one in other.requests}
    assert sent
    assert sent_other
    assert all(KEY in one and OTHER_KEY not in one for one in sent)
    assert all(OTHER_KEY in one and KEY not in one for one in sent_other)


def test_a_download_that_github_redirects_takes_no_token_along() -> None:
    heard: list[tuple[str, str | None]] = []
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("verdict.json", "{}")
    artifact = Artifact(id=7, head_sha="a" * 40, head_branch="main", own=True)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append((self.path, self.headers.get("authorization")))
            if self.path.startswith("/repos"):
                self.send_response(302)
                self.send_header("location", f"http://localhost:{blobs.server_port}/blob")
                self.send_header("content-length", "0")
                self.end_headers()
            else:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(content.getvalue())

        def log_message(self, *_: Any) -> None: ...

    with (
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as api,
        ThreadingHTTPServer(("127.0.0.1", 0), Handler) as blobs,
    ):
        for one in (api, blobs):
            Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
        with GitHub(
            api_url=f"http://127.0.0.1:{api.server_port}", repository="o/r", token=KEY
        ) as github:
            found = github.artifact_file(artifact, "verdict.json", max_bytes=100)
        for one in (api, blobs):
            one.shutdown()

    assert found == b"{}"
    assert heard == [("/repos/o/r/actions/artifacts/7/zip", f"Bearer {KEY}"), ("/blob", None)]


# --- the masking itself ---------------------------------------------------------------

SECRETS = ("abababab", "abababX1", "zzzzzzzz")


@given(
    st.lists(
        st.sampled_from([*SECRETS, "ab", "aba", "abababa", "z", "zz", "X1", " ", "é", "b"]),
        max_size=8,
    ).map("".join),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_any_cut_of_a_text_masks_what_the_whole_would(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    scrubber = Scrubber(SECRETS)

    pieces = [scrubber.feed(text[a:b]) for a, b in pairwise(places)]
    whole = "".join(pieces) + scrubber.rest()

    assert not any(secret in whole for secret in SECRETS)
    assert whole.replace(MASK, "").strip() == masked(text, SECRETS).replace(MASK, "").strip()
