"""The HTML report: what it shows of a verdict, of runs, of the worst cases."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.content import find_content
from evalkit.decide.report import render_report, write_report
from evalkit.decide.report_pictures import Axis
from evalkit.decide.report_text import (
    dollars,
)
from evalkit.errors import ContentError
from evalkit.store.views import Store, open_store
from tests.decide.report_world import (
    BASELINE,
    CANDIDATE,
    Page,
    comparison,
    line,
    little_store,
    passed,
    seal,
    side,
    verdict,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return little_store(tmp_path / "store")


def page(of: dict[str, Any] | None, store: Store | None = None, **options: Any) -> Page:
    return Page(render_report(of, store, **options))


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
    dropped = text.index("Slices that dropped, largest first")
    others = text.index("1 slice that did not drop")
    assert dropped < text.index("language=fr") < text.index("language=de") < others
    assert others < text.index("language=en")


def held_to_pass(folder: Path) -> Store:
    """A run of a golden set in which `shape` has to pass and `tone` does not."""
    metrics = [{"name": "label"}, {"name": "shape", "must_pass": True}, {"name": "tone"}]
    golden = {"hash": "aaaa", "feature": "classify-ticket", "metrics": metrics}
    return seal(folder, CANDIDATE, [line(CANDIDATE, "t-001")], golden_sets={"tickets": golden})


def of_shape(**more: Any) -> dict[str, Any]:
    shown = [
        comparison(metric=name, gate=False, verdict="inconclusive") for name in ("shape", "tone")
    ]
    return verdict(comparison(), *shown, **more)


FAILED_SHAPE = {
    "golden_set": "tickets",
    "metric": "shape",
    "model": "small",
    "prompt_version": "v3",
}


def failures(n: int, **more: Any) -> list[dict[str, Any]]:
    """`n` entries of two cases that failed shape."""
    return [FAILED_SHAPE | {"case_id": f"t-{number % 2}"} | more for number in range(n)]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "all passed"),
        ({"must_pass_failures": failures(4)}, "2 failed"),
        ({"must_pass_missing": failures(1)}, "1 not scored"),
        ({"must_pass_failures": failures(1, model="large")}, "all passed"),
    ],
)
def test_a_metric_that_has_to_pass_is_not_among_what_fails_no_build(
    tmp_path: Path, more: dict[str, Any], told: str
) -> None:
    text = page(of_shape(**more), held_to_pass(tmp_path)).text

    must = text.index("Must pass one failed case fails the build")
    advisory = text.index("Advisory shown; a change here fails no build")
    assert must < text.index(f"– {told}") < advisory < text.index("tone", advisory)
    assert "shape" in text[must:advisory]


def test_a_metric_whose_judge_may_not_fail_a_build_is_not_said_to_have_to_pass(
    tmp_path: Path,
) -> None:
    of = of_shape(notes=["shape on tickets need not be passed: its judge was never calibrated"])

    text = page(of, held_to_pass(tmp_path)).text

    assert "Must pass" not in text
    assert "shape" in text[text.index("Advisory") :]


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

    assert len([one for one in shown.all("details") if one["class"] == "case card"]) == 50
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
    none: dict[str, Any] = {"score": None, "passed": None}
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


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.00002, "$0.00002"),
        (0.0012345, "$0.00123"),
        (0.2, "$0.20"),
        (0.9999, "$1.00"),
        (1234.5, "$1,234.50"),
        (1e-12, "$1e-12"),
    ],
)
def test_a_price_is_written_as_people_write_prices(value: float, shown: str) -> None:
    assert dollars(value) == shown


def test_runs_are_told_with_commit_and_hashes(store: Store) -> None:
    text = page(verdict(comparison()), store).text

    assert "run-new candidate started" in text
    assert "run-old baseline started" in text
    assert "c0ffeec0ffee on main" in text
    assert "classify-ticket@v2 0123456789abcdef" in text


def test_without_a_verdict_the_metrics_of_all_runs_stand_side_by_side(store: Store) -> None:
    shown = page(None, store, runs=[CANDIDATE, BASELINE])

    assert "2 runs of tickets; there is no baseline to compare with." in shown.text
    assert "label small/classify-ticket@v2 run-old 2 1.000 100.0 % 0" in shown.text
    assert "label small/classify-ticket@v3 run-new 2 0.500 50.0 % 0" in shown.text
    assert "1 case did not score in full on some metric." in shown.text


def test_results_files_are_reported_without_a_store() -> None:
    of = verdict(
        comparison(
            baseline=side(BASELINE, "v2") | {"run_id": None, "file": "old.csv"},
            candidate=side(CANDIDATE, "v3") | {"run_id": None, "file": "new.csv"},
        )
    )

    text = page(of).text

    assert "label 100 0.900 0.800" in text
    assert "Worst regressed" not in text
    assert "@v3 in new.csv against small/classify-ticket@v2 in old.csv" in text


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


# --- colours ------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_colour_of_text_can_be_read_on_every_ground(scheme: str) -> None:
    css = find_content("reports", "report.css", project=Path.cwd()).read_text("utf-8")
    light, dark = css.split("@media screen and (prefers-color-scheme: dark)", 1)
    colours = dict(re.findall(r"--([a-z]+): #([0-9a-f]{6});", light if scheme == "light" else dark))

    for word in ("ink", "soft", "link", "regression", "pass", "inconclusive", "unmeasurable"):
        for ground in ("page", "card", "wash"):
            assert contrast(colours[word], colours[ground]) >= 4.5, (word, ground)
    for ground in ("was", "now"):
        assert contrast(colours["ink"], colours[ground]) >= 4.5, ground


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours (WCAG 2.2); 4.5 is what text needs."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


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


# --- intervals as pictures ------------------------------------------------------------


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
        assert 0 <= bar.low <= bar.dot <= bar.high <= 100
        assert bar.limit is not None
        assert 0 <= bar.limit <= bar.zero <= 100


def test_no_interval_is_no_picture() -> None:
    of = verdict(comparison(ci=None, delta=None, verdict="unmeasurable"), word="unmeasurable")

    assert "no interval" in page(of).text
