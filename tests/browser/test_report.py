"""The HTML report in a browser: it fits, can be read by everybody, and cases are found in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evalkit.decide.report import write_report
from evalkit.decide.report_index import write_index
from tests.browser.conftest import LOOKS, Shown
from tests.decide.report_world import (
    BASELINE,
    CANDIDATE,
    comparison,
    hostile_world,
    line,
    little_store,
    passed,
    seal,
    verdict,
)

pytestmark = pytest.mark.browser

Show = Callable[..., Shown]
TWO_LINES = 64
"""Pixels that a button is high in which its word does not fit on one line."""
PAPER_WIDTH = 703
"""Pixels of a page of A4 between margins of 12 mm."""


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which every part is there."""
    folder = tmp_path_factory.mktemp("full")
    of, store = hostile_world(folder / "store", "word")
    write_report(of, store, folder / "report.html", expected=lambda *case: (True, "word"))
    return folder / "report.html"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 120 cases, of which 10 got worse and one got better."""
    folder = tmp_path_factory.mktemp("many")
    ids = [f"t-{n:03d}" for n in range(120)]

    def of(run_id: str, n: int) -> dict[str, Any]:
        new = run_id == CANDIDATE
        score = float(n > 9 or not new) if n != 11 else float(new)
        output = f"the answer is {'bread' if new and n < 10 else 'butter'}, of course"
        return line(
            run_id,
            ids[n],
            score=score,
            reason=f"{run_id} said so",
            slices={"language": "de" if n % 2 else "en"},
            of_call={"output": output, "input": {"text": f"question number {n}"}},
        )

    seal(folder / "store", BASELINE, [of(BASELINE, n) for n in range(120)])
    store = seal(folder / "store", CANDIDATE, [of(CANDIDATE, n) for n in range(120)])
    write_report(verdict(comparison()), store, folder / "report.html")
    return folder / "report.html"


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("text", ["word", "W" * 300], ids=["short", "long"])
def test_it_is_quiet_and_fits_the_screen(show: Show, tmp_path: Path, look: str, text: str) -> None:
    of, store = hostile_world(tmp_path / "store", text)
    write_report(of, store, tmp_path / "r.html", expected=lambda *case: (True, text))

    shown = show(tmp_path / "r.html", look)
    widths = shown.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    colour = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert shown.said == shown.asked == []
    assert widths[0] <= widths[1] == LOOKS[look]["viewport"]["width"]
    assert (sum(map(int, re.findall(r"\d+", colour)[:3])) < 200) == (look == "dark")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The index of a folder of reports."""
    folder = tmp_path_factory.mktemp("index")
    _, store = hostile_world(folder / "store", "W" * 300)
    of = verdict(comparison())
    return write_index(store.runs(), {CANDIDATE: of}, folder, project=Path.cwd())


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_to_complain_of(
    show: Show, full: Path, many: Path, index: Path, look: str
) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )

    found = []
    for path in (full, many):
        shown = show(path, look, bypass_csp=True)
        shown.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        shown.page.locator("#rows th button").first.click()
        found += axe.Axe().run(shown.page).response["violations"]
    listed = show(index, look, bypass_csp=True)
    found += axe.Axe().run(listed.page).response["violations"]

    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []


@pytest.mark.parametrize("look", LOOKS)
def test_the_index_of_runs_fits_the_screen(show: Show, index: Path, look: str) -> None:
    shown = show(index, look)

    widths = shown.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")

    assert shown.said == shown.asked == []
    assert widths[0] <= widths[1]


def test_cases_are_found_by_any_word_in_them(show: Show, many: Path) -> None:
    page = show(many).page

    assert page.inner_text("#told") == "1 to 25 of 120"

    page.fill("#find", "NUMBER 119")
    assert page.inner_text("#told") == "1 to 1 of 1 found among 120"
    assert page.locator("#rows th").all_inner_texts() == ["t-119"]

    page.fill("#find", "bread")
    assert page.inner_text("#told") == "1 to 10 of 10 found among 120"

    page.fill("#find", "nothing like this")
    assert page.inner_text("#told") == "none of 120 cases"


def test_cases_are_narrowed_by_what_became_of_them_and_by_slice(show: Show, many: Path) -> None:
    page = show(many).page

    page.select_option("#show", "worse")
    worse = page.inner_text("#told")
    page.select_option("#slice", label="language=de")
    worse_in_german = page.inner_text("#told")
    page.select_option("#slice", "")
    page.select_option("#show", "better")

    assert worse == "1 to 10 of 10 found among 120"
    assert worse_in_german == "1 to 5 of 5 found among 120"
    assert page.locator("#rows th").all_inner_texts() == ["t-011"]


def test_cases_without_a_counterpart_and_failed_ones_are_found(show: Show, tmp_path: Path) -> None:
    lost: dict[str, Any] = {
        "score": None, "passed": None, "outcome": "infra_error", "error_kind": "timeout"
    }  # fmt: skip
    seal(tmp_path, BASELINE, [line(BASELINE, one) for one in ("both", "lost", "old")])
    new = [line(CANDIDATE, "both"), line(CANDIDATE, "lost", **lost), line(CANDIDATE, "new")]
    store = seal(tmp_path, CANDIDATE, new)
    write_report(verdict(comparison()), store, tmp_path / "r.html")

    page = show(tmp_path / "r.html").page
    page.select_option("#show", "none")
    not_compared = page.locator("#rows th").all_inner_texts()
    page.select_option("#show", "failed")

    assert not_compared == ["lost", "new", "old"]
    assert page.locator("#rows th").all_inner_texts() == ["lost"]


def test_what_is_seen_stands_in_the_address_and_comes_back_from_it(show: Show, many: Path) -> None:
    page = show(many).page
    page.select_option("#show", "same")
    page.click("[data-sort=id]")
    page.click("#after")
    page.locator("#rows th button").nth(2).click()
    seen = page.locator("#rows").inner_text()

    again = show(many, part=page.evaluate("location.hash")).page

    assert "show=same" in again.url
    assert "page=2" in again.url
    assert again.locator("#rows").inner_text() == seen
    assert again.locator("#rows th").first.inner_text() == "t-036"
    assert again.input_value("#show") == "same"
    assert "question number 38" in again.locator(".detail").inner_text()


def test_a_link_to_a_case_leads_to_the_page_it_is_on(show: Show, many: Path) -> None:
    page = show(many, part="#open=60&sort=id").page

    assert page.locator("#rows [aria-expanded=true]").count() == 1
    assert page.inner_text("#told") == "51 to 75 of 120"


@pytest.mark.parametrize("part", ["#metric=zz", "#metric=99", "#set=zz", "#slice=99"])
def test_an_address_that_names_nothing_there_is_shows_all(
    show: Show, many: Path, part: str
) -> None:
    page = show(many, part=f"{part}&show=all").page

    assert page.inner_text("#told") == "1 to 25 of 120"
    assert page.input_value(part.partition("=")[0]) == ""


@pytest.mark.parametrize("part", ["#page=-3&show=no&metric=99&slice=x&sort=no", "#open=1e9", "#q"])
def test_an_address_that_makes_no_sense_does_no_harm(show: Show, many: Path, part: str) -> None:
    shown = show(many, part=part)

    assert shown.said == []
    assert shown.page.locator("#told").is_visible()


def test_an_opened_case_shows_both_answers_with_the_words_that_differ(
    show: Show, many: Path
) -> None:
    page = show(many).page

    page.locator("#rows th button").first.click()

    assert page.locator("#rows mark").all_inner_texts() == ["butter", "bread"]
    assert page.locator("#rows th button").first.get_attribute("aria-expanded") == "true"
    detail = page.locator(".detail").inner_text()
    assert "run-old said so" not in detail  # a full score needs no reason
    assert "label: run-new said so" in detail


def test_it_sorts_by_the_largest_gain_and_says_so(show: Show, many: Path) -> None:
    page = show(many).page

    page.click("[data-sort=change]")

    assert page.locator("#rows th").first.inner_text() == "t-011"
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("change")


def test_all_can_be_done_with_the_keyboard(show: Show, many: Path) -> None:
    page = show(many).page
    page.focus("#find")
    page.keyboard.type("number 7")
    for _ in range(5):  # which cases, slice, sorting by case, by change, the first case
        page.keyboard.press("Tab")

    page.keyboard.press("Enter")

    assert page.locator(".detail").count() == 1
    assert page.evaluate("document.activeElement.getAttribute('aria-expanded')") == "true"


def test_without_scripts_all_is_there_but_the_table_of_all_cases(show: Show, many: Path) -> None:
    page = show(many, java_script_enabled=False).page

    assert page.locator("#all").is_hidden()
    assert page.locator("details.case pre").first.is_visible()
    assert page.locator("noscript").inner_text().startswith("A table of all cases needs")


def test_printed_it_is_dark_on_white_and_shows_what_is_folded(show: Show, many: Path) -> None:
    page = show(many, "dark").page
    folded = page.locator("details.case:not([open]) pre").first

    before = folded.is_visible()
    page.emulate_media(media="print")
    printed = page.locator("details.case").nth(1).locator("pre").first.is_visible()

    assert (before, printed) == (False, True)
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 31, 36)"
    assert page.locator("nav").is_hidden()
    assert page.locator("#all").is_hidden()


def test_on_a_phone_the_pager_of_what_was_found_stays_on_its_line(show: Show, many: Path) -> None:
    page = show(many, "phone", part="#q=question&slice=1").page
    long = "1 to 25 of 12,525 found among 20,000"
    page.locator("#told").evaluate("(told, text) => { told.textContent = text }", long)

    buttons = page.locator(".pager button").all()

    assert max(button.bounding_box()["height"] for button in buttons) < TWO_LINES


def test_a_sheet_of_paper_has_tables_not_a_phones_cards(show: Show, full: Path) -> None:
    page = show(full, viewport={"width": PAPER_WIDTH, "height": 1000}).page

    page.emulate_media(media="print")

    row = page.locator(".compared tbody tr:not(.group)").first
    assert row.evaluate("row => getComputedStyle(row).display") == "table-row"
    assert page.evaluate("document.documentElement.scrollWidth") <= PAPER_WIDTH


@pytest.mark.slow
def test_ten_thousand_cases_are_paged_and_searched(show: Show, tmp_path: Path) -> None:
    texts = [f"question number {n}, " + "asked at length " * 40 for n in range(10_000)]
    lines = [
        line(BASELINE, f"t-{n:05d}", score=float(n % 9 > 0), of_call={"input": {"text": text}})
        for n, text in enumerate(texts)
    ]
    store = seal(tmp_path / "store", BASELINE, lines)
    write_report(None, store, tmp_path / "r.html", runs=[BASELINE])

    shown = show(tmp_path / "r.html")
    page = shown.page
    first = page.inner_text("#told")
    page.fill("#find", "number 9999,")
    found = page.inner_text("#told")
    page.select_option("#show", "worse")
    page.fill("#find", "")

    assert shown.said == shown.asked == []
    assert first == "1 to 25 of 10,000"
    assert found == "1 to 1 of 1 found among 10,000"
    assert page.inner_text("#told") == "1 to 25 of 1,112 found among 10,000"
    assert page.evaluate("document.querySelectorAll('*').length") < 5_000
    assert (tmp_path / "r.html").stat().st_size < 8e6


def test_a_report_without_a_case_that_changed_has_no_script_error(
    show: Show, tmp_path: Path
) -> None:
    store = little_store(tmp_path / "store")
    write_report(verdict(passed(), word="pass"), None, tmp_path / "no-store.html")
    write_report(None, store, tmp_path / "alone.html", runs=[BASELINE])

    said = [show(tmp_path / name).said for name in ("no-store.html", "alone.html")]

    assert said == [[], []]
