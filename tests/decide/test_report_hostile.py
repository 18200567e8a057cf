"""The HTML report under hostile text: nothing in it becomes anything but text."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from evalkit.decide.report import render_report, write_report
from evalkit.store.views import Store
from tests.decide.report_world import (
    BASELINE,
    CANDIDATE,
    Page,
    comparison,
    hostile_world,
    line,
    little_store,
    seal,
    verdict,
)

HOSTILE = [
    "<script>alert(1)</script>",
    "</style><script>alert(2)</script>",
    '"><img src=x onerror=alert(3)>',
    "' onmouseover='alert(4)",
    "</title></textarea></pre><svg/onload=alert(5)>",
    "{{ 7 * 7 }}{% for x in y %}{# c #}",
    "javascript:alert(6)",
    "&lt;b&gt; <!-- ]]> -->",
]
HIDDEN = "\u202egnitrap\u2066\u200b\x00\x1b[31m\U000e0041\ufeff"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return little_store(tmp_path / "store")


def page(of: dict[str, Any] | None, store: Store | None = None, **options: Any) -> Page:
    return Page(render_report(of, store, **options))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text_wherever_it_stands(tmp_path: Path, text: str) -> None:
    plain_of, plain_store = hostile_world(tmp_path / "plain", "harmless")
    of, store = hostile_world(tmp_path / "hostile", text)

    plain = page(plain_of, plain_store, expected=lambda *case: (True, "harmless"))
    shown = page(of, store, expected=lambda *case: (True, text))

    assert [tag for tag, _ in shown.elements] == [tag for tag, _ in plain.elements]
    assert [attrs.keys() for _, attrs in shown.elements] == [a.keys() for _, a in plain.elements]
    assert {**shown.raw, "data": ""} == {**plain.raw, "data": ""}
    assert not set("<>&") & set(shown.raw["data"])
    assert shown.text.count(" ".join(text.split())) >= 30


def test_hidden_characters_are_shown_as_escapes(tmp_path: Path) -> None:
    of, store = hostile_world(tmp_path, HIDDEN)

    html = render_report(of, store, expected=lambda *case: (True, HIDDEN))

    assert not set(HIDDEN) - set("gnitrap[31m") & set(html)
    assert r"\u202egnitrap\u2066\u200b\u0000\u001b[31m\ue0041\ufeff" in html
    html.encode("utf-8")


def test_lone_surrogates_and_other_types_do_not_stop_the_report(tmp_path: Path) -> None:
    of = verdict(comparison(metric="\ud800"), notes=["\udfff", {"not": "text"}])

    write_report(of, None, tmp_path / "r.html")

    assert "\\ud800" in (tmp_path / "r.html").read_text("utf-8")


def test_long_texts_are_cut_and_the_rest_counted(tmp_path: Path) -> None:
    seal(tmp_path, BASELINE, [line(BASELINE, "t-001")])
    store = seal(
        tmp_path,
        CANDIDATE,
        [
            line(
                CANDIDATE, "t-001", score=0.0, reason="why " * 10_000,
                of_call={"output": "x" * 15_000, "input": {"text": "y" * 1_000_000}},
            )
        ],
    )  # fmt: skip

    html = render_report(verdict(comparison()), store)

    assert "… 11,000 more characters" in html
    assert len(html) < 100_000


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A page in which every section is there."""
    of, store = hostile_world(tmp_path_factory.mktemp("full"), "word")
    return page(of, store, expected=lambda *case: (True, "word"))


def test_the_policy_allows_the_pages_own_style_and_script_alone(full: Page) -> None:
    policy = next(m for m in full.all("meta") if m.get("http-equiv"))["content"] or ""

    for tag in ("style", "script"):
        digest = base64.b64encode(sha256(full.raw[tag].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
        assert len([one for one in full.all(tag) if "type" not in one]) == 1
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "http" not in policy


def test_nothing_is_loaded_from_anywhere(full: Page) -> None:
    for tag, attrs in full.elements:
        assert not [name for name in attrs if name.startswith("on") or name == "style"], tag
        for name in ("href", "src", "action", "data", "poster", "srcset"):
            target = attrs.get(name) or "#"
            assert target.startswith("#") or target == "data:,", (tag, attrs)
    assert "url(" not in full.raw["style"]
    assert "@import" not in full.raw["style"]


def test_tables_say_what_their_cells_are(full: Page) -> None:
    headers = full.all("th")

    assert len(full.all("table")) >= 5
    assert all(one.get("scope") in ("col", "row", "rowgroup") for one in headers)
    assert all(one.get("aria-label") for one in full.all("table"))
    assert all(one.get("aria-label") for one in full.all("svg") if one.get("role") == "img")
    assert all(one.get("aria-label") for one in full.all("input") + full.all("select"))
    assert [one["lang"] for one in full.all("html")] == ["en"]


def test_every_link_leads_to_a_part_and_ids_are_unique(full: Page) -> None:
    ids = [attrs["id"] for _, attrs in full.elements if "id" in attrs]

    links = [one["href"] for one in full.all("a")]

    assert len(ids) == len(set(ids))
    assert {(link or "")[1:] for link in links} <= set(ids)
    assert len(links) == 11  # the parts, and the way past them


# --- in a browser -------------------------------------------------------------------------

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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield started
        started.close()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("text", ["word", "W" * 300, *HOSTILE[:3]], ids=lambda text: text[:8])
def test_in_a_browser_it_is_quiet_and_fits_the_screen(
    browser: Any, tmp_path: Path, width: int, scheme: str, text: str
) -> None:
    of, store = hostile_world(tmp_path / "store", text)
    path = tmp_path / "report.html"
    write_report(of, store, path, expected=lambda *case: (True, text))
    said: list[str] = []
    asked: list[str] = []
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    shown = context.new_page()
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("dialog", lambda dialog: said.append(dialog.message))
    shown.on("request", lambda request: asked.append(request.url))

    shown.goto(path.as_uri())
    widths = shown.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    colours = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    context.close()

    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert widths[0] <= widths[1] == width
    assert (sum(map(int, re.findall(r"\d+", colours)[:3])) < 200) == (scheme == "dark")


@pytest.mark.browser
def test_cases_can_be_narrowed_down(browser: Any, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(verdict(comparison()), store, path)
    shown = browser.new_page()
    shown.goto(path.as_uri())

    shown.fill("#find", "nothing like this")
    after_nothing = shown.inner_text("#told")
    shown.fill("#find", "INVOICE")
    after_word = shown.inner_text("#told")
    shown.close()

    assert (after_nothing, after_word) == ("0 of 1 shown", "1 of 1 shown")


@pytest.mark.browser
def test_without_scripts_all_is_there_but_the_tools(
    browser: Any, store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    write_report(verdict(comparison()), store, path)
    context = browser.new_context(java_script_enabled=False)
    shown = context.new_page()
    shown.goto(path.as_uri())

    assert shown.locator("#tools").is_hidden()
    assert shown.locator("details.case pre").first.is_visible()
    context.close()
