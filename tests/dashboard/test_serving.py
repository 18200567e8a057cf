"""The dashboard's server: for the browser that opened its address, and only to be read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from evalkit.store.views import open_store
from tests.dashboard.test_page import HOSTILE, Elements
from tests.dashboard.world import alerts, project, reviews, sampling_job, week, world

pytest.importorskip("starlette", reason="the extra label is not installed")
pytest.importorskip("uvicorn", reason="the extra label is not installed")

CHECKOUT = Path(__file__).resolve().parents[2]


class Server:
    """`evalkit dashboard` as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "evalkit", "dashboard", "--days", "3650"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=folder,
        )
        self.url = self.next_url()
        self.base = self.url.split("/?")[0]

    def next_url(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line)
        assert found, line
        return found[0]

    def stop(self) -> int:
        self.process.terminate()
        status = self.process.wait(timeout=120)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    world(folder)
    server = Server(folder)
    yield server
    server.stop()


@pytest.fixture
def browser(server: Server) -> Iterator[httpx.Client]:
    """Somebody who opened the address that was printed last."""
    with httpx.Client(base_url=server.base, timeout=120) as client:
        client.get(server.url).raise_for_status()
        server.url = server.next_url()
        yield client


def test_the_page_its_style_and_its_figures_are_served(browser: httpx.Client) -> None:
    page, style, data = (browser.get(p) for p in ("/", "/static/dashboard.css", "/data.json"))

    assert "70 calls for $4.90" in page.text
    assert '<link rel="stylesheet" href="/static/dashboard.css">' in page.text
    assert style.headers["content-type"].startswith("text/css")
    assert json.loads(data.text)["total"]["calls"] == 70


def test_other_times_are_chosen_by_links(browser: httpx.Client) -> None:
    page = browser.get("/?days=1")

    assert '<a href="/?days=1" aria-current="true">24 hours</a>' in page.text
    assert "No calls in this time" in page.text
    assert browser.get("/?days=<script>").status_code == 200


def test_without_the_address_nothing_is_shown(server: Server) -> None:
    paths = ("/", "/data.json", "/static/dashboard.css", "/nothing")

    answers = [httpx.get(server.base + path) for path in paths]

    assert [answer.status_code for answer in answers] == [403] * 4
    assert "evalkit dashboard printed" in answers[0].text


def test_an_address_is_good_once(server: Server, browser: httpx.Client) -> None:
    used = server.url
    httpx.get(used).raise_for_status()
    server.url = server.next_url()

    assert httpx.get(used).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1"},
        {"host": "localhost:1"},
        {"host": "127.0.0.1.evil.example"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "null"},
    ],
    ids=str,
)
def test_a_wrong_host_or_origin_is_refused(browser: httpx.Client, headers: dict[str, str]) -> None:
    answers = [browser.get(path, headers=headers) for path in ("/", "/data.json")]

    assert [answer.status_code for answer in answers] == [403, 403]
    assert "calls" not in answers[0].text


def test_the_cookie_is_hidden_from_scripts_and_from_other_sites(server: Server) -> None:
    cookie = httpx.get(server.url).headers["set-cookie"]
    server.url = server.next_url()

    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


def test_nothing_can_be_posted(browser: httpx.Client, server: Server) -> None:
    mine, other = {"origin": server.base}, {"origin": "http://evil.example"}

    answers = [
        browser.post("/", data={"csrf": "x"}, headers=mine),
        browser.post("/", data={}, headers=mine),
        browser.post("/", json={"csrf": "x"}, headers=mine),
        browser.post("/", data={"csrf": "x"}, headers=other),
        browser.post("/", data={"csrf": "x"}),
        browser.post("/", data={"csrf": "x" * 2_000_000}, headers=mine),
        browser.put("/", content=b"", headers=mine),
        browser.delete("/data.json", headers=mine),
    ]

    assert [answer.status_code for answer in answers] == [403] * 8


def test_no_path_leads_to_a_file(browser: httpx.Client) -> None:
    paths = ("/static/..%2f..%2fevalkit.toml", "/static/%2e%2e/page.py", "/static//etc/passwd")

    assert [browser.get(path).status_code for path in paths] == [404] * 3


def test_every_answer_forbids_what_is_not_the_pages_own(browser: httpx.Client) -> None:
    for path in ("/", "/data.json", "/static/dashboard.css", "/nothing"):
        headers = browser.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; ")
        assert "unsafe" not in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"


def test_it_listens_on_this_machine_alone(server: Server) -> None:
    port = int(server.base.rsplit(":", 1)[1])

    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()
    listening = {line.split()[1] for line in lines if line.split()[3] == "0A"}

    assert f"0100007F:{port:04X}" in listening
    assert f"00000000:{port:04X}" not in listening


def test_names_from_the_log_are_only_text_in_what_is_served(tmp_path: Path) -> None:
    text = " ".join(HOSTILE)
    project(tmp_path)
    store = open_store(tmp_path / ".evalkit")
    week(store, text)
    sampling_job(store, 1, [1.0, 0.5], metric=text, feature=text)
    alerts(store, text, runbook=text)
    reviews(store, 1, feature=text)
    server = Server(tmp_path)

    try:
        with httpx.Client(base_url=server.base, timeout=120) as client:
            client.get(server.url).raise_for_status()
            page, data = client.get("/"), client.get("/data.json")
    finally:
        server.stop()

    found = Elements(page.text)
    assert not {"script", "img", "iframe", "object", "style", "form"} & found.names
    assert not [name for name in found.attributes if name.startswith("on") or name == "style"]
    assert not [link for link in found.links if not link.startswith(("#", "/", "data:,"))]
    assert "alert(1)" in page.text
    assert data.headers["content-type"].startswith("application/json")
    assert data.headers["x-content-type-options"] == "nosniff"
