"""A Chromium for the tests of pages, and everything that a page of ours must not do in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 844}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 844}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}


@dataclass(slots=True)
class Shown:
    """A page in the browser, with what it said and asked for since it was opened."""

    page: Any
    said: list[str] = field(default_factory=list)
    """Messages of its console, errors, and dialogs."""
    asked: list[str] = field(default_factory=list)
    """Addresses it wanted beside its own file."""

    def listen(self) -> None:
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self._dismiss(dialog))
        self.page.on("request", lambda request: self._note(request.url))

    def _dismiss(self, dialog: Any) -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _note(self, url: str) -> None:
        if not url.startswith(("file:", "data:")):
            self.asked.append(url)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Gone before the next module: no other event loop may run in its thread meanwhile."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield started
        started.close()


@pytest.fixture
def show(browser: Any) -> Iterator[Callable[..., Shown]]:
    """`show(path, "dark")`: the file in a page of its own."""
    contexts = []

    def opened(path: Path, look: str = "light", *, part: str = "", **more: Any) -> Shown:
        context = browser.new_context(**{**LOOKS[look], **more})
        contexts.append(context)
        shown = Shown(context.new_page())
        shown.listen()
        shown.page.goto(path.as_uri() + part)
        return shown

    yield opened
    for context in contexts:
        context.close()
