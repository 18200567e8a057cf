"""The dashboard's page: what it says, and that names from a log are only text in it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from evalkit.cli.main import main
from evalkit.dashboard import charts
from evalkit.dashboard.page import render_dashboard
from evalkit.settings import SpendCap
from evalkit.store.views import open_store
from tests.dashboard.world import (
    alerts,
    figures,
    project,
    reviews,
    sampling_job,
    week,
    world,
)

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</title></style><svg onload=alert(3)>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(4)",
    "\u202egnitrap\u0000",
]


class Elements(HTMLParser):
    """Names and attributes of all elements."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()
        self.links: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links |= {value or "" for name, value in attrs if name in ("href", "src")}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of the whole world."""
    folder = tmp_path_factory.mktemp("page")
    return render_dashboard(figures(*world(folder)), project=folder)


def words(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_the_page_says_what_the_week_was_like(page: str) -> None:
    said = words(page)

    for part in (
        "70 calls for $4.90",
        "1 thing wrong at the last look, 08 Mar 2026, 23:59 UTC",
        "too dear",
        "grounded judge small/ classify-ticket@v3 0.800",
        "over its budget",
        "server 7 10.0 %",
        "classify-ticket 3 02 Mar 2026, 00:00 UTC",
        "20.0 %",
    ):
        assert part in said


def test_pictures_have_sentences(page: str) -> None:
    pictures = re.findall(r'<svg class="picture[^>]*aria-label="([^"]*)"', page)

    assert len(pictures) == page.count('<svg class="picture')
    assert any(one.startswith("cost: $0.70, 2 Mar, to $0.70, 8 Mar") for one in pictures)
    assert any("The budget is 100 ms" in one for one in pictures)


@pytest.mark.parametrize("text", HOSTILE)
def test_names_from_the_log_are_only_text(tmp_path: Path, text: str, page: str) -> None:
    settings, store = project(tmp_path), open_store(tmp_path / ".evalkit")
    week(store, text)
    sampling_job(store, 1, [1.0, 0.5], metric=text, feature=text)
    alerts(store, text, runbook=text)
    reviews(store, 1, feature=text)
    plain = Elements(page)

    html = render_dashboard(figures(store, settings), project=tmp_path)

    found = Elements(html)
    assert found.names <= plain.names
    assert found.attributes <= plain.attributes
    assert found.links <= plain.links
    assert "49" not in words(html).split()
    assert not set("\u202e\u0000") & set(html)


def test_the_file_is_complete_and_allows_nothing_else(tmp_path: Path) -> None:
    world(tmp_path)
    out = tmp_path / "dashboard.html"
    window = ["--since", "2026-03-02", "--until", "2026-03-09"]

    status = main(
        ["dashboard", "--config", str(tmp_path / "evalkit.toml"), "--html", str(out), *window]
    )

    found = Elements(out.read_text(encoding="utf-8"))
    assert status == 0
    assert "script" not in found.names
    assert "style" not in found.attributes
    assert {link for link in found.links if not link.startswith(("#", "data:,"))} == set()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', out.read_text())
    assert policy is not None
    assert policy[1].startswith("default-src &#39;none&#39;; style-src &#39;sha256-")


def test_a_runbook_of_ones_own_is_a_link(tmp_path: Path) -> None:
    store, settings = world(tmp_path)
    alerts(store, runbook="https://wiki.example/runbook#cost-spike")

    found = Elements(render_dashboard(figures(store, settings), project=tmp_path))

    assert "https://wiki.example/runbook#cost-spike" in found.links


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    empty = figures(open_store(tmp_path / "none"), project(tmp_path))

    said = words(render_dashboard(empty, project=tmp_path))

    for part in ("No calls in this time", "evalkit sample", "evalkit alerts", "Nothing waits"):
        assert part in said


def test_a_line_breaks_where_nothing_is_known() -> None:
    names = ["a", "b", "c", "d", "e"]

    found = charts.line([1.0, 2.0, None, 3.0, 4.0], names, what="p95", say=str)

    assert found is not None
    assert len(found.paths) == 2
    assert len(found.marks) == 4
    assert found.label == "p95: 1.0, a, to 4.0, e; lowest 1.0, a; highest 4.0, e."


def test_a_limit_of_millions_of_tokens_is_said_in_millions(tmp_path: Path) -> None:
    store = open_store(tmp_path / ".evalkit")
    week(store)
    settings = project(tmp_path)
    tokens = SpendCap(month_tokens=2_500_000)
    settings = replace(settings, budgets=replace(settings.budgets, total=tokens))

    page = render_dashboard(figures(store, settings), project=tmp_path)

    assert "2.5 million" in words(page)


def test_a_limit_far_away_does_not_press_the_line_flat() -> None:
    near = charts.line([80.0], ["a"], what="p95", say=str, limit=100.0)
    far = charts.line([80.0], ["a"], what="p95", say=str, limit=30_000.0)

    assert near is not None
    assert far is not None
    assert near.limit is not None
    assert (far.limit, far.top) == (None, 80.0)


@pytest.mark.parametrize("value", [0.0, 1e-9, 0.07, 1.0, 99.0, 100.1, 8.1e6])
def test_a_scale_ends_just_above_the_highest_value(value: float) -> None:
    top = charts.nice_above(value)

    assert value <= top <= max(2 * value, 0)
