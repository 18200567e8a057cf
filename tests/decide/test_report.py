"""The HTML report: what it says, and that nothing in it can become anything but text."""

from __future__ import annotations

import base64
import copy
import re
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.decide.report import Axis, render_report, write_report
from evalkit.decide.report_sentences import headline, reasons
from evalkit.decide.report_text import (
    dollars,
    p_value,
    points,
    readable_value,
    side_by_side,
    visible,
)
from evalkit.errors import ContentError
from evalkit.store.views import Store, open_store
from tests.decide.report_world import (
    BASELINE,
    CANDIDATE,
    Page,
    comparison,
    line,
    passed,
    seal,
    side,
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
    """A baseline that answers two cases, and a candidate that fails one of them."""
    folder = tmp_path / "store"
    seal(folder, BASELINE, [line(BASELINE, "t-001"), line(BASELINE, "t-002")])
    bad = {
        "score": 0.0, "passed": False, "reason": "got other", "latency_ms": 40.0, "cost_usd": None
    }  # fmt: skip
    answer = {"output": '{"label": "other"}'}
    return seal(
        folder,
        CANDIDATE,
        [line(CANDIDATE, "t-001", of_call=answer, **bad), line(CANDIDATE, "t-002")],
    )


def page(of: dict[str, Any] | None, store: Store | None = None, **options: Any) -> Page:
    return Page(render_report(of, store, **options))


# --- the verdict in sentences ------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "sentence"),
    [
        (
            verdict(comparison()),
            "Quality dropped: label on tickets from 0.900 to 0.800 (−10.0 points).",
        ),
        (
            verdict(passed(metric="shape"), comparison(), comparison(metric="tone", delta=-0.2)),
            (
                "Quality dropped in 2 of 3 gating metrics, most in tone on tickets from 0.900 to "
                "0.800 (−20.0 points)."
            ),
        ),
        (
            verdict(passed(), must_pass_failures=[{"golden_set": "tickets", "case_id": "t-1"}] * 2),
            "Failed: 1 must-pass case did not pass.",
        ),
        (
            verdict(passed(), passed(metric="x"), word="pass"),
            (
                "No significant drop: for each of 2 gating metrics a drop of more than 5 points "
                "is excluded."
            ),
        ),
        (
            verdict(passed(), passed(max_drop=0.1, metric="x"), word="pass"),
            (
                "No significant drop: for each of 2 gating metrics a drop of more than its limit "
                "is excluded."
            ),
        ),
        (
            verdict(passed(verdict="inconclusive"), word="inconclusive"),
            (
                "Too little data: no significant drop, but for 1 of 1 gating metric a drop of more "
                "than 5 points cannot be excluded; about 300 cases would tell."
            ),
        ),
        (
            verdict(
                comparison(verdict="unmeasurable", reason="no case has a score on both sides"),
                word="unmeasurable",
            ),
            "Not measurable: label on tickets: no case has a score on both sides.",
        ),
        (
            verdict(word="unmeasurable", notes=["run x is not complete."]),
            "Not measurable: run x is not complete.",
        ),
    ],
)
def test_the_verdict_is_one_sentence_and_comes_first(of: dict[str, Any], sentence: str) -> None:
    text = page(of).text

    assert headline(of) == sentence
    assert text.index(sentence) < 600
    assert text.count(sentence) == 1


def test_reasons_name_interval_p_and_the_cases_that_changed() -> None:
    why = reasons(verdict(comparison()))

    assert [(one.word, one.what) for one in why] == [("regression", "label on tickets")]
    assert why[0].text == (
        "Fell by 10.0 points over 100 cases (90 % interval −16.0 to −4.0), p = 0.0020 after "
        "correction for the other metrics. 10 cases got worse, 0 better."
    )


def test_missing_scores_are_told_with_the_worst_they_could_hide() -> None:
    missing = {
        "baseline": 1, "candidate": 30, "excluded": 2, "unpaired": 0,
        "worst_case_verdict": "regression",
    }  # fmt: skip

    why = reasons(
        verdict(comparison(verdict="unmeasurable", reason="too few", missing=missing), word="x")
    )

    assert why[0].text == (
        "Too few. Not counted: 1 case without a score in the baseline; 30 cases without a score "
        "in the candidate; 2 cases answered by another model. Were they all as bad as can be, "
        "the verdict would be: regression."
    )


def test_worst_reason_comes_first_and_notes_last() -> None:
    of = verdict(
        comparison(metric="c", verdict="inconclusive"),
        comparison(metric="b", verdict="unmeasurable", ci=None, delta=None, p_adjusted=None),
        comparison(metric="a"),
        passed(metric="fine"),
        comparison(metric="advisory", gate=False),
        notes=["take care"],
    )

    assert [one.what.split()[0] if one.what else one.text for one in reasons(of)] == [
        "a", "b", "c", "take care",
    ]  # fmt: skip


def test_many_must_pass_failures_are_counted() -> None:
    failures = [
        {"golden_set": "tickets", "case_id": f"t-{n}", "metric": "label", "reason": "x" * 5000}
        for n in range(50)
    ]

    why = reasons(verdict(passed(), must_pass_failures=failures))

    assert len(why) == 21
    assert why[20].text == "30 more such failures."
    assert all(len(one.text) < 500 for one in why)


def test_interval_level_follows_alpha() -> None:
    assert "80 % interval" in page(verdict(comparison(), alpha=0.1)).text


# --- what is shown ------------------------------------------------------------------------


def test_a_comparison_is_a_row_with_all_its_numbers() -> None:
    text = page(verdict(comparison(tier=2))).text

    assert "label judge 100 0.900 0.800 −10.0 0.0020 regression" in text


def test_advisory_metrics_stand_apart_and_slices_are_looked_at() -> None:
    of = verdict(
        comparison(),
        comparison(metric="tone", gate=False),
        comparison(metric="label", slice="language=de", gate=False, delta=-0.3),
        comparison(metric="label", slice="language=fr", gate=False, delta=-0.4),
        passed(metric="label", slice="language=en", gate=False),
    )

    text = page(of).text

    assert text.index("Advisory") < text.index("tone")
    assert text.index("Look here") < text.index("language=fr") < text.index("language=de")
    assert "language=en" not in text


def test_a_worst_case_shows_input_expected_both_answers_and_reasons(store: Store) -> None:
    shown = page(
        verdict(comparison()), store, expected=lambda *case: (True, {"label": "billing, really"})
    )

    assert "The invoice is wrong." in shown.text
    assert "Expected billing, really" in shown.text
    assert '{ "label": "billing" }' in shown.text
    assert '{ "label": "other" }' in shown.text
    assert "got other" in shown.text
    assert [one["class"] for one in shown.all("mark")] == ["was", "now"]
    assert len(shown.all("details")) == 1
    assert "1 case scored lower than before on some metric." in shown.text


def test_case_that_did_not_get_worse_is_not_among_the_worst(store: Store) -> None:
    assert "t-002" not in page(verdict(comparison()), store).text


def test_first_fifty_cases_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    ids = [f"t-{n:03d}" for n in range(70)]
    seal(tmp_path, BASELINE, [line(BASELINE, one) for one in ids])
    store = seal(
        tmp_path, CANDIDATE, [line(CANDIDATE, one, score=0.5, passed=False) for one in ids]
    )

    shown = page(verdict(comparison()), store)

    assert len(shown.all("details")) == 50
    assert "70 cases scored lower than before on some metric; the worst 50 are here." in shown.text


def test_worst_by_a_gating_metric_comes_before_worse_by_an_advisory_one(tmp_path: Path) -> None:
    both = ({"metric": "label"}, {"metric": "tone"})
    ids = ("advisory-case", "gating-case")
    seal(tmp_path, BASELINE, [line(BASELINE, one, metrics=both) for one in ids])
    advisory = ({"metric": "label"}, {"metric": "tone", "score": 0.0})
    gating = ({"metric": "label", "score": 0.8}, {"metric": "tone"})
    store = seal(
        tmp_path,
        CANDIDATE,
        [line(CANDIDATE, ids[0], metrics=advisory), line(CANDIDATE, ids[1], metrics=gating)],
    )

    text = page(verdict(comparison(), comparison(metric="tone", gate=False)), store).text

    assert text.index("gating-case") < text.index("advisory-case")


def test_of_several_trials_the_telling_one_is_shown(tmp_path: Path) -> None:
    def trials(run_id: str, scores: list[float]) -> list[dict[str, Any]]:
        return [
            line(run_id, "t-001", trial=n, score=one, of_call={"output": f"answer {n} of {run_id}"})
            for n, one in enumerate(scores)
        ]

    seal(tmp_path, BASELINE, trials(BASELINE, [0.5, 1.0]))
    store = seal(tmp_path, CANDIDATE, trials(CANDIDATE, [1.0, 0.0]))

    text = page(verdict(comparison()), store).text

    assert "Baseline's answer, the best of 2 trials answer 1 of run-old" in text
    assert "Candidate's answer, the worst of 2 trials answer 1 of run-new" in text
    assert "0.750 0.500" in text  # means over trials


def test_failures_of_call_and_judge_stand_apart_with_counts_of_both_sides(tmp_path: Path) -> None:
    none = {"score": None, "passed": None}
    lost = {**none, "outcome": "infra_error", "error_kind": "timeout"}
    seal(tmp_path, BASELINE, [line(BASELINE, "t-001"), line(BASELINE, "t-002")])
    judge = ({"metric": "label"}, {"metric": "tone", **none, "outcome": "judge_error",
              "error_kind": "judge_reply", "tier": 2})  # fmt: skip
    both = ({"metric": "label"}, {"metric": "tone"})
    store = seal(
        tmp_path,
        CANDIDATE,
        [line(CANDIDATE, "t-001", metrics=both, **lost), line(CANDIDATE, "t-002", metrics=judge)],
    )

    text = page(verdict(comparison()), store).text

    assert "Infrastructure timeout tickets 0 1" in text
    assert "Judge tone judge_reply tickets 0 1" in text


def test_no_failure_is_said_in_words(store: Store) -> None:
    text = page(None, store, runs=[BASELINE]).text

    assert "None: every call was answered and every answer scored." in text


def test_unknown_price_is_never_shown_as_nothing(store: Store) -> None:
    text = page(verdict(comparison()), store).text

    assert "+ 1 unpriced call" in text
    assert dollars(None) == "not known"
    assert dollars(0.0) == "$0"


def test_runs_are_told_with_commit_and_hashes(store: Store) -> None:
    text = page(verdict(comparison()), store).text

    assert "run-new candidate started" in text
    assert "run-old baseline started" in text
    assert "c0ffeec0ffee on main" in text
    assert "classify-ticket@v2 0123456789abcdef" in text


def test_without_a_verdict_the_metrics_of_all_runs_stand_side_by_side(store: Store) -> None:
    shown = page(None, store, runs=[CANDIDATE, BASELINE])

    assert "2 runs of tickets, compared with nothing." in shown.text
    assert "label check small/classify-ticket@v2 run-old 2 1.000 100.0 % 0" in shown.text
    assert "label check small/classify-ticket@v3 run-new 2 0.500 50.0 % 0" in shown.text
    assert "1 case did not score in full on some metric." in shown.text


def test_results_files_are_reported_without_a_store() -> None:
    of = verdict(
        comparison(
            baseline=side(BASELINE, "v2") | {"run_id": None, "file": "old.csv"},
            candidate=side(CANDIDATE, "v3") | {"run_id": None, "file": "new.csv"},
        )
    )

    text = page(of).text

    assert "label check 100 0.900 0.800" in text
    assert "Worst cases" not in text


def test_damaged_run_is_named_and_the_verdict_shown_all_the_same(store: Store) -> None:
    path = store.path / "scores" / f"run={CANDIDATE}.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)

    text = page(verdict(comparison()), open_store(store.path)).text

    assert "Quality dropped" in text
    assert path.name in text


def test_run_that_is_not_there_any_more_is_named(tmp_path: Path) -> None:
    text = page(verdict(comparison()), open_store(tmp_path)).text

    assert "no run run-new" in text
    assert "Quality dropped" in text


def test_the_report_does_not_change_the_verdict(store: Store) -> None:
    of = verdict(comparison(), comparison(slice="a=b", gate=False))
    before = copy.deepcopy(of)

    render_report(of, store)

    assert of == before


def test_the_file_is_replaced_whole(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "out" / "report.html"

    write_report(verdict(comparison()), store, path)
    write_report(verdict(passed(), word="pass"), store, path)

    assert "No significant drop" in path.read_text("utf-8")
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]


# --- templates ----------------------------------------------------------------------------


def test_a_template_in_the_project_wins(tmp_path: Path) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "report.html.jinja").write_text("mine: {{ sentence }}", "utf-8")

    html = render_report(verdict(passed(), word="pass"), None, project=tmp_path)

    assert html.startswith("mine: No significant drop")


@pytest.mark.parametrize("broken", ["\n{% if %}", "\n{{ no_such_thing }}", "{{ 1 / 0 }"])
def test_a_broken_template_is_named(tmp_path: Path, broken: str) -> None:
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "report.html.jinja").write_text(broken, "utf-8")

    with pytest.raises(ContentError, match=r"reports/report.html.jinja:\d: "):
        render_report(verdict(passed(), word="pass"), None, project=tmp_path)


# --- hostile text -------------------------------------------------------------------------


def hostile_world(folder: Path, text: str) -> tuple[dict[str, Any], Store]:
    """Every place in which foreign text can stand holds `text`."""
    named = {"golden_set": text, "model": text, "prompt_name": text}
    metric = {"metric": text, "reason": text, "slices": {text: text}, "cluster": text}
    error = {"metric": "other", "score": None, "passed": None, "outcome": "check_error",
             "error_kind": text, "reason": text}  # fmt: skip
    manifest = {
        "git": {"commit": text, "branch": text, "dirty": True},
        "pairs": [text],
        "prompts": {text: text},
        "versions": {text: text},
        "golden_sets": {text: {"hash": text, "trials": 3, "n_cases": 3}},
    }
    for run_id, value in ((BASELINE, 1.0), (CANDIDATE, 0.0)):
        of_call = {"input": {text: text}, "output": f"{text} {value}", "feature": f"judge:{text}"}
        store = seal(
            folder,
            run_id,
            [
                line(
                    run_id, text, of_call=of_call, prompt_version=text,
                    metrics=({**metric, "score": value}, error), **named,
                )
            ],
            **manifest,
        )  # fmt: skip
    sides = {
        "baseline": side(BASELINE, text, model=text, prompt_name=text, file=text),
        "candidate": side(CANDIDATE, text, model=text, prompt_name=text, file=text),
    }
    here = {"golden_set": text, "metric": text, **sides}
    failure = {"golden_set": text, "case_id": text, "metric": text, "reason": text}
    of = verdict(
        comparison(**here),
        comparison(**here | {"metric": "other", "gate": False}),
        comparison(**here, slice=text, gate=False),
        comparison(**here | {"metric": "x"}, verdict="unmeasurable", reason=text),
        must_pass_failures=[failure],
        must_pass_missing=[failure],
        notes=[text],
        verdict_id=text,
        created_at=text,
    )
    return of, store


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text_wherever_it_stands(tmp_path: Path, text: str) -> None:
    plain_of, plain_store = hostile_world(tmp_path / "plain", "harmless")
    of, store = hostile_world(tmp_path / "hostile", text)

    plain = page(plain_of, plain_store, expected=lambda *case: (True, "harmless"))
    shown = page(of, store, expected=lambda *case: (True, text))

    assert [tag for tag, _ in shown.elements] == [tag for tag, _ in plain.elements]
    assert [attrs.keys() for _, attrs in shown.elements] == [a.keys() for _, a in plain.elements]
    assert shown.raw == plain.raw
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
        assert len(full.all(tag)) == 1
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
    assert len(links) == 8  # the parts, and the way past them


# --- numbers and texts --------------------------------------------------------------------


def test_points_have_a_sign_and_zero_has_both() -> None:
    assert [points(d) for d in (-0.1234, 0.1, 0.0, -0.0001, None)] == [
        "−12.3", "+10.0", "±0.0", "±0.0", "–",
    ]  # fmt: skip


def test_small_p_values_are_bounds() -> None:
    assert [p_value(p) for p in (0.00005, 0.0012, 0.5, None)] == ["< 0.0001", "0.0012", "0.50", "–"]


@given(before=st.text(max_size=200), after=st.text(max_size=200))
def test_marking_differences_loses_no_character(before: str, after: str) -> None:
    left, right = side_by_side(before, after)

    assert (left.text, right.text) == (visible(before), visible(after))


def test_words_that_differ_are_marked_and_joined_over_blanks() -> None:
    before = "Returns are free of charge within 30 days."
    after = "Returns cost five euros within 30 days."

    left, right = side_by_side(before, after)

    assert [piece for piece, marked in left.pieces if marked] == ["are free of charge"]
    assert [piece for piece, marked in right.pieces if marked] == ["cost five euros"]


def test_texts_that_have_nothing_in_common_are_not_marked() -> None:
    left, _ = side_by_side("one two three", "alpha, beta; gamma: delta")

    assert not any(marked for _, marked in left.pieces)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ({"text": "only"}, "only"),
        ({"question": "why", "n": 1}, "question: why\nn: 1"),
        ({"d": [{"id": "d1", "title": "T", "text": "x"}]}, "d: \n- [d1] T: x"),
        ([1, 2], "[\n  1,\n  2\n]"),
        (None, "null"),
        ({}, "{}"),
    ],
)
def test_values_read_as_people_write_them(value: Any, text: str) -> None:
    assert readable_value(value) == text


@given(
    st.lists(
        st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1)).map(sorted), max_size=5
    )
)
def test_bars_stay_on_their_scale_in_order(ends: list[list[float]]) -> None:
    entries = [comparison(ci=[low, high], delta=delta) for low, delta, high in ends]
    axis = Axis.of(entries)

    for one in entries:
        bar = axis.bar(one)

        assert bar is not None
        assert 0 <= bar.low <= bar.dot <= bar.high <= 200
        assert bar.limit is not None
        assert 0 <= bar.limit <= bar.zero <= 200


def test_no_interval_is_no_picture() -> None:
    of = verdict(comparison(ci=None, delta=None, verdict="unmeasurable"), word="unmeasurable")

    assert "no interval" in page(of).text


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
