"""Payloads as ids, names, labels, answers and reasons of a report: a browser runs none of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from evalkit.decide.report import write_report
from evalkit.decide.report_index import write_index
from evalkit.decide.report_text import visible
from tests.browser.conftest import Shown
from tests.decide.report_world import BASELINE, CANDIDATE, comparison, line, seal, side, verdict
from tests.decide.test_report_hostile import HIDDEN, HOSTILE

pytestmark = pytest.mark.browser

Show = Callable[..., Shown]

MORE = [
    "</script><script>alert(7)</script>",
    "</SCRIPT ><img src=x onerror=alert(8)>",
    "<!--<script>",
    "]]></svg><script>alert(9)</script>",
    '"]}</script><svg onload=alert(10)>',
    "\u2028alert(11)\u2029",
    "__proto__",
    "constructor",
    "<a href=javascript:alert(12)>x</a>",
    "<style>*{display:none}</style>",
    "<base href=http://evil.example/>",
    "<meta http-equiv=refresh content=0;url=http://evil.example>",
    "<iframe srcdoc='<script>alert(13)</script>'>",
    "#q=<img src=x onerror=alert(14)>",
]
MAX_CHARS = 1_500


def write_hostile(folder: Path, texts: Sequence[str]) -> Path:
    """A report with a case for each text, which stands in every field of that case."""
    kept = [text for text in dict.fromkeys(texts) if text.strip() and "\ud800" not in text]
    for run_id, score in ((BASELINE, 1.0), (CANDIDATE, 0.0)):
        store = seal(
            folder / "store",
            run_id,
            [_case(run_id, text, score) for text in kept],
            pairs=kept[:50],
            golden_sets={text: {"hash": text, "feature": text} for text in kept[:50]},
        )
    entries = [comparison(**_names(text)) for text in kept]
    slices = [comparison(**_names(text), slice=text, gate=False) for text in kept]
    of = verdict(*entries, *slices, notes=kept[:50])
    write_report(of, store, folder / "report.html", expected=lambda *case: (True, case[1]))
    return folder / "report.html"


def _case(run_id: str, text: str, score: float) -> dict[str, Any]:
    return line(
        run_id,
        text,
        golden_set=text,
        model=text,
        served_model=text,
        prompt_name=text,
        prompt_version=text,
        metrics=[{"metric": text, "tier": 2, "scorer": text, "scorer_version": text}],
        score=score,
        reason=text,
        slices={text: text},
        cluster=text,
        of_call={"input": {text: text}, "output": f"{text} {score}"},
    )


def _names(text: str) -> dict[str, Any]:
    sides = {
        name: side(run_id, text, model=text, prompt_name=text)
        for name, run_id in (("baseline", BASELINE), ("candidate", CANDIDATE))
    }
    return {"golden_set": text, "metric": text, **sides}


def look_everywhere(shown: Shown) -> None:
    """Open every fold and every case of every page, and find and choose what there is."""
    page = shown.page
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    for _ in range(100):
        page.evaluate(
            "[...document.querySelectorAll('#rows th button')].forEach((_, n) => "
            "document.querySelectorAll('#rows th button')[n].click())"
        )
        if page.locator("#after").is_disabled():
            break
        page.click("#after")
    for name in ("#metric", "#set", "#slice"):
        options = page.locator(f"{name} option")
        if options.count() > 1:
            page.locator(name).select_option(index=1)
            page.locator(name).select_option(index=0)
    page.evaluate("document.querySelectorAll('*').forEach(one => one.dispatchEvent("
                  "new MouseEvent('mouseover', {bubbles: false})))")  # fmt: skip


def own_elements(shown: Shown) -> dict[str, Any]:
    """What a text that became markup would have added to the page."""
    found: dict[str, Any] = shown.page.evaluate(
        """() => {
          const all = [...document.querySelectorAll('*')];
          const names = (one) => one.getAttributeNames();
          return {
            scripts: document.scripts.length,
            foreign: [...new Set(all.map(one => one.localName))].filter(name => ['img', 'iframe',
              'object', 'embed', 'base', 'form', 'video', 'audio', 'math', 'x'].includes(name)),
            styles: document.querySelectorAll('style').length,
            handlers: all.flatMap(one => names(one).filter(name => name.startsWith('on'))),
            links: all.filter(one => names(one).some(name => ['href', 'src', 'srcdoc', 'action',
              'xlink:href'].includes(name) && !/^(#|data:,$)/.test(one.getAttribute(name)))).length,
            moved: location.protocol,
          };
        }"""
    )
    return found


NOTHING_ADDED = {
    "scripts": 2,
    "foreign": [],
    "styles": 1,
    "handlers": [],
    "links": 0,
    "moved": "file:",
}


@pytest.mark.parametrize("scripts", [True, False], ids=["script", "no script"])
def test_payloads_of_our_own_stay_text(show: Show, tmp_path: Path, scripts: bool) -> None:
    path = write_hostile(tmp_path, [*HOSTILE, *MORE, HIDDEN])

    shown = show(path, java_script_enabled=scripts)
    if scripts:
        look_everywhere(shown)

    assert shown.said == shown.asked == []
    assert own_elements(shown) == NOTHING_ADDED


def test_payloads_stay_text_in_the_index_of_runs(show: Show, tmp_path: Path) -> None:
    runs: list[dict[str, Any]] = [
        {
            "run_id": f"run-{n}",
            "created_at": text,
            "status": text,
            "golden_sets": {text: {"n_cases": 1}},
            "pairs": [text],
            "git": {"commit": text, "branch": text},
        }
        for n, text in enumerate([*HOSTILE, *MORE, HIDDEN])
    ]
    verdicts = {
        run["run_id"]: verdict(comparison(**_names(run["status"])))
        for run in runs[: len(runs) // 2]
    }

    path = write_index(runs, verdicts, tmp_path, project=Path.cwd(), problems=[*HOSTILE, *MORE])
    shown = show(path)

    assert shown.said == shown.asked == []
    assert own_elements(shown) == {**NOTHING_ADDED, "scripts": 0}


def test_payloads_are_shown_as_they_are(show: Show, tmp_path: Path) -> None:
    path = write_hostile(tmp_path, [*HOSTILE, *MORE])

    page = show(path).page
    ids = set(page.locator("#rows th").all_text_contents())

    assert ids == {visible(text) for text in [*HOSTILE, *MORE]}


def test_an_address_made_by_others_becomes_no_markup(show: Show, tmp_path: Path) -> None:
    path = write_hostile(tmp_path, ["word"])

    shown = show(path, part="#q=%3Cimg%20src=x%20onerror=alert(1)%3E&set=__proto__&open=%3Cb%3E")

    assert shown.said == shown.asked == []
    assert shown.page.input_value("#find") == "<img src=x onerror=alert(1)>"
    assert own_elements(shown) == NOTHING_ADDED


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hostile/xss.jsonl", "hostile/blns.json"])
def test_payloads_that_others_collected_stay_text(
    show: Show, tmp_path: Path, shared_data: Callable[[str], Path], name: str
) -> None:
    whole = shared_data(name).read_text("utf-8")
    texts = (
        [json.loads(one)["payload"] for one in whole.splitlines()]
        if name.endswith("l")
        else json.loads(whole)
    )
    assert len(texts) > 100

    path = write_hostile(tmp_path, [text[:MAX_CHARS] for text in texts])
    shown = show(path)
    look_everywhere(shown)

    assert shown.said == shown.asked == []
    assert own_elements(shown) == NOTHING_ADDED
