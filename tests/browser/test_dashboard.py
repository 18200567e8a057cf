"""The dashboard in a browser: it fits, can be read by everybody, and stays quiet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evalkit.dashboard.page import write_dashboard
from evalkit.store.views import open_store
from tests.browser.conftest import LOOKS, Shown
from tests.dashboard.test_page import HOSTILE
from tests.dashboard.world import (
    alerts,
    figures,
    project,
    reviews,
    sampling_job,
    week,
    world,
)

pytestmark = pytest.mark.browser

Show = Callable[..., Shown]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full")
    store, settings = world(folder)
    write_dashboard(folder / "page.html", figures(store, settings), project=folder)
    return folder / "page.html"


@pytest.fixture(scope="module")
def hourly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hourly")
    store, settings = world(folder)
    write_dashboard(folder / "page.html", figures(store, settings, days=3), project=folder)
    return folder / "page.html"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("empty")
    nothing = figures(open_store(folder / "none"), project(folder))
    write_dashboard(folder / "page.html", nothing, project=folder)
    return folder / "page.html"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    settings, store = project(folder), open_store(folder / ".evalkit")
    text = " ".join(HOSTILE) + "W" * 300
    week(store, text)
    sampling_job(store, 1, [1.0, 0.5], metric=text, feature=text)
    alerts(store, text, runbook=text)
    reviews(store, 1, feature=text)
    write_dashboard(folder / "page.html", figures(store, settings), project=folder)
    return folder / "page.html"


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("page", ["full", "hourly", "empty", "hostile"])
def test_everybody_can_read_it(
    page: str, look: str, show: Show, request: pytest.FixtureRequest
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    shown = show(request.getfixturevalue(page), look)
    for summary in shown.page.locator("summary").all():
        summary.click()

    found = axe.Axe().run(shown.page)

    told = [(one["id"], one["nodes"][0]["html"]) for one in found.response["violations"]]
    assert told == []


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("page", ["full", "hourly", "hostile"])
def test_it_fits_and_asks_for_nothing(
    page: str, look: str, show: Show, request: pytest.FixtureRequest
) -> None:
    shown = show(request.getfixturevalue(page), look)
    for summary in shown.page.locator("summary").all():
        summary.click()

    needed, there = shown.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")

    assert needed <= there
    assert (shown.said, shown.asked) == ([], [])


def test_marks_say_what_they_are(full: Path, show: Show) -> None:
    shown = show(full)

    titles = shown.page.locator("#cost .large title").all_text_contents()

    assert titles == [f"{day} Mar: $0.70" for day in range(2, 9)]


def test_parts_are_reached_by_keyboard(full: Path, show: Show) -> None:
    shown = show(full)

    shown.page.keyboard.press("Tab")
    first = shown.page.evaluate("document.activeElement.textContent")
    shown.page.get_by_role("link", name="Failures").press("Enter")
    shown.page.wait_for_function("location.hash === '#failures'")

    assert first == "Skip to the content"
