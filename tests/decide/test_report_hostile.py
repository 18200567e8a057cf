"""The HTML report under hostile text: nothing in it becomes anything but text."""

from __future__ import annotations

import base64
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
