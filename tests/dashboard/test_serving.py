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

from tests.dashboard.world import world

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
        status = self.process.wait(timeout=20)
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
    with httpx.Client(base_url=server.base, timeout=30) as client:
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
    "headers", [{"host": "evil.example"}, {"origin": "http://evil.example"}], ids=["host", "origin"]
)
def test_other_pages_are_refused(browser: httpx.Client, headers: dict[str, str]) -> None:
    assert browser.get("/data.json", headers=headers).status_code == 403


def test_nothing_can_be_posted(browser: httpx.Client, server: Server) -> None:
    answer = browser.post("/", data={"csrf": "x"}, headers={"origin": server.base})

    assert answer.status_code in (403, 405)


def test_every_answer_forbids_what_is_not_the_pages_own(browser: httpx.Client) -> None:
    for path in ("/", "/data.json", "/static/dashboard.css", "/nothing"):
        headers = browser.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; ")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
