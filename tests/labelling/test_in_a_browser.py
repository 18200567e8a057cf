"""The labelling page in a browser: by keyboard alone, through a kill, whatever the text."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evalkit.call.review import ReviewQueue
from evalkit.score.labels import Aspect, Option, Question, pass_question, preference_question
from tests.labelling.world import Server, evalkit, items, labels, queue_of, standing
from tests.score.answers import RECORD

pytest.importorskip("starlette", reason="the extra label is not installed")
pytest.importorskip("uvicorn", reason="the extra label is not installed")
pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "[click](javascript:alert(3)) ![i](http://127.0.0.1:9/leak.png)",
    "<style>*{display:none}</style>\n\n# Heading\n\n<iframe src=//evil.example></iframe>",
    "</textarea></form><form action=http://evil.example><button data-key=p>",
    '{"<b>key</b>": "</dl><script>alert(4)</script>", "n": [1, null, "\u202egnitrap"]}',
    "| a | b |\n|:-:|--:|\n| <svg onload=alert(5)> | `<b>` |",
    "\u202egnitrap\u2066\u200b\x00\ufeff",
    "W" * 3000,
    "[" * 5000,
    "huge " * 200_000,
]

FOREIGN = "script, img, style, iframe, form, button, svg, [style], [onload], [onerror]"
COUNT = f"""[...document.querySelectorAll("main .text")].flatMap(one => [
    ...one.querySelectorAll('{FOREIGN}, a:not([href^="#doc-"])')])"""
"""What foreign text would have become, were it not text."""


GRADES = tuple(Option(value=str(n), text=str(n), score=(n - 1) / 4) for n in range(1, 6))
RUBRIC = Question(
    metric="helpful",
    kind="grades",
    aspects=(
        Aspect(name="helpfulness", text="How helpful?", options=GRADES),
        Aspect(name="focus", text="How focused?", options=GRADES),
    ),
    pass_at=0.6,
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield started
        started.close()


class Screen:
    """A page in a browser, and everything it complained about or asked for."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 844}} | options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.said.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)
        self.page.wait_for_selector("main")
        self.page.wait_for_load_state("load")

    def press(self, key: str) -> None:
        """Press a key, and wait for the next page where it leads to one."""
        before = self.mark()
        self.page.keyboard.press(key)
        self.page.wait_for_function(
            "mark => !document.body.dataset.mark || document.body.dataset.mark !== mark", arg=before
        )

    def mark(self) -> str:
        """Tells this page's body from the next one's."""
        self.n = getattr(self, "n", 0) + 1
        self.page.evaluate("mark => { document.body.dataset.mark = mark }", str(self.n))
        return str(self.n)

    @property
    def done(self) -> int:
        return int(re.match(r"(\d+) done", self.page.inner_text(".how-far"))[1])  # type: ignore[index]


@pytest.fixture
def screens(browser: Any) -> Iterator[Any]:
    opened: list[Screen] = []

    def open_screen(url: str, **options: Any) -> Screen:
        opened.append(Screen(browser, url, **options))
        return opened[-1]

    yield open_screen
    for one in opened:
        one.context.close()


def test_thirty_items_by_keyboard_alone_through_a_kill(tmp_path: Path, screens: Any) -> None:
    queue_of(tmp_path, 30).close()
    with Server(tmp_path, "ann") as server:
        screen = screens(server.urls[0])
        for at in range(14):
            screen.press("pfd"[at % 3])
        screen.page.keyboard.press("n")
        screen.page.keyboard.type("a note with p and f in it")
        screen.page.keyboard.press("Escape")
        screen.press("p")
        assert screen.done == 15
        server.kill()
        screen.page.keyboard.press("f")
        screen.page.wait_for_selector("#lost:visible")

    with Server(tmp_path, "ann") as server:
        screen = screens(server.urls[0])
        resumed = screen.done
        for _ in range(15):
            screen.press("p")
        end = screen.page.inner_text("h1")
        quiet = screen.said

    assert resumed == 15
    assert end == "That is all, thank you"
    assert quiet == []
    rows = sealed_rows(tmp_path)
    assert len(rows) == 30
    assert len({row["trace_id"] for row in rows}) == 30
    assert [row["comment"] for row in rows if row["comment"]] == ["a note with p and f in it"]


def sealed_rows(store: Path) -> list[dict[str, Any]]:
    assert evalkit("label", "agreement", store=store) == 0
    return labels(store)


def test_undo_skip_back_and_help_by_key(tmp_path: Path, screens: Any) -> None:
    queue_of(tmp_path, 4).close()
    with Server(tmp_path, "ann") as server:
        screen = screens(server.urls[0])
        first = screen.page.url
        screen.press("p")
        second = screen.page.url
        screen.press("k")
        back = screen.page.url
        screen.press("u")
        undone, n = screen.page.url, screen.done
        screen.press("j")
        skipped = screen.page.url
        screen.page.keyboard.press("?")
        helped = screen.page.locator("#keys").is_visible()
        screen.page.keyboard.press("p")
        screen.page.keyboard.press("?")
        closed = screen.page.locator("#keys").is_hidden()
        held = screen.done

    assert back == undone == first != second == skipped
    assert (n, held) == (0, 0)
    assert helped
    assert closed


def test_a_note_is_saved_with_what_was_chosen_before_or_waits_for_it(
    tmp_path: Path, screens: Any
) -> None:
    queue_of(tmp_path, 2).close()
    with Server(tmp_path, "ann") as server:
        screen = screens(server.urls[0])
        screen.page.keyboard.press("n")
        screen.page.keyboard.type("first thought")
        screen.page.keyboard.press("Control+Enter")
        refused = screen.page.locator("[role=alert]:visible").count()
        screen.press("f")
        screen.press("k")
        screen.page.keyboard.press("n")
        screen.page.keyboard.press("Control+End")
        screen.page.keyboard.type(", and a second")
        screen.press("Control+Enter")
        said = screen.said

    assert refused == 0
    assert said == []
    [row] = standing(tmp_path)
    assert row["score"] == 0.0
    assert row["comment"] == "first thought, and a second"


def test_a_rubric_of_several_questions_is_answered_with_digits(
    tmp_path: Path, screens: Any
) -> None:
    queue_of(tmp_path, 2, question=RUBRIC).close()
    with Server(tmp_path, "ann") as server:
        screen = screens(server.urls[0])
        screen.page.keyboard.press("5")
        screen.press("3")
        screen.page.keyboard.press("1")
        screen.press("2")

    found = {(row["metric"], row["score"], row["passed"]) for row in standing(tmp_path)}
    assert found == {
        ("helpful", 0.75, True), ("helpful/helpfulness", 1.0, None), ("helpful/focus", 0.5, None),
        ("helpful", 0.125, False), ("helpful/helpfulness", 0.0, None),
        ("helpful/focus", 0.25, None),
    }  # fmt: skip


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_answers_stay_text(tmp_path: Path, screens: Any, scheme: str, width: int) -> None:
    hostile = [
        replace(item, shown={
            "input": {"q": text, "m": text}, "reference": text, "outputs": [text],
            "documents": [{"id": "d1", "title": text[:500], "text": text}],
        })
        for item, text in zip(items(len(HOSTILE)), HOSTILE, strict=True)
    ]  # fmt: skip
    queue = queue_of(tmp_path, 0)
    queue.add(pass_question(HOSTILE[0]), hostile, run="run-2", design={})
    queue.close()

    with Server(tmp_path, "ann") as server:
        screen = screens(
            server.urls[0], color_scheme=scheme, viewport={"width": width, "height": 844}
        )
        pages = []
        while "/item/" in screen.page.url:
            widths = screen.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            pages.append((screen.page.evaluate(f"{COUNT}.length"), widths, screen.page.content()))
            screen.press("p")
        end = screen.page.inner_text("h1")

    assert end == "That is all, thank you"
    assert len(pages) == len(HOSTILE)
    assert screen.said == []
    assert {url.split("/")[2] for url in screen.asked} == {server.base.split("/")[2]}
    for n_elements, (needed, there), html in pages:
        assert n_elements == 0
        assert needed <= there
        assert len(html) < 400_000
        assert not set("\u202e\u2066\u200b\ufeff") & set(html)


def test_without_scripts_the_same_page_works(tmp_path: Path, screens: Any) -> None:
    queue_of(tmp_path, 2).close()
    with Server(tmp_path, "ann") as server:
        screen = screens(server.urls[0], java_script_enabled=False)
        screen.page.get_by_role("button", name="Pass").click()
        screen.page.get_by_role("button", name="Fail").click()
        end = screen.page.inner_text("h1")
        screen.page.get_by_role("button", name="Keys").click()
        helped = screen.page.locator("#keys").is_visible()

    assert end == "That is all, thank you"
    assert helped
    assert sorted(row["score"] for row in standing(tmp_path)) == [0.0, 1.0]


def test_a_screen_reader_is_told_what_is_what(tmp_path: Path, screens: Any) -> None:
    queue_of(tmp_path, 2).close()
    with Server(tmp_path, "ann") as server:
        screen = screens(server.urls[0])
        page = screen.page
        names = page.evaluate(
            "[...document.querySelectorAll('button, input:not([type=hidden]), textarea, progress')]"
            ".filter(one => !(one.ariaLabel || one.textContent.trim() || one.closest('label')))"
            ".map(one => one.outerHTML)"
        )
        levels = page.evaluate(
            "[...document.querySelectorAll('main h1, main h2, main h3')].map(one => one.tagName)"
        )
        screen.press("p")
        told = page.inner_text("[role=status]")
        focus = page.evaluate("document.activeElement.id")

    assert names == []
    assert levels[0] == "H1"
    assert set(levels[1:]) == {"H2"}
    assert told == "Saved: Pass"
    assert focus == "main"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_of(tmp_path: Path, screens: Any, scheme: str) -> None:
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    documents = [{"id": "d1", "title": "Shipping", "text": "We ship on weekdays [d1]."}]
    output = "# Shipping\n\nOn **weekdays** [d1].\n\n| day | when |\n| - | - |\n| Monday | 9 |"
    queue = queue_of(tmp_path, 0)
    graded = items(1, documents=documents, outputs=[output], reference={"day": "weekday"}, wanted=2)
    queue.add(RUBRIC, graded, run="run-1", design={})
    [plain] = items(1, outputs=['{"label": "billing"}', "Another answer."])
    pair = replace(plain, facts=[plain.facts[0], plain.facts[0] | {"trace_id": "other"}])
    queue.add(preference_question(), [pair], run="run-2", against="run-1", design={})
    queue.close()
    reviews = ReviewQueue(tmp_path / "queue.sqlite")
    reviews.hold(replace(RECORD, trace_id="held", output="Refund 10 EUR."), "shop:pay")
    reviews.close()
    found = []

    with Server(tmp_path, "ann", "bob") as server:
        ann, bob = (screens(url, color_scheme=scheme) for url in server.urls)

        def check(screen: Any) -> str:
            violations = axe.Axe().run(screen.page).response["violations"]
            found.extend(
                (screen.page.url, one["id"], one["nodes"][0]["html"]) for one in violations
            )
            return str(screen.page.inner_text("h1"))

        heads = [check(ann)]
        ann.page.keyboard.press("?")
        ann.page.wait_for_selector("#keys:visible")
        heads.append(check(ann))
        ann.page.keyboard.press("Escape")
        for screen, grade in ((ann, "5"), (bob, "1")):
            while "/item/" in screen.page.url:
                heads.append(check(screen))
                if screen.page.get_by_text("How focused?").count():
                    screen.page.keyboard.press(grade)
                    screen.press(grade)
                else:
                    screen.press("d")
        for path in ("/done", "/settle", "/reviews"):
            ann.page.goto(f"{server.base}{path}")
            heads.append(check(ann))

    assert found == []
    assert len(set(heads)) >= 4
